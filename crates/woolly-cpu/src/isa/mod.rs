//! What this processor can do, and how a kernel gets compiled for it.
//!
//! A kernel is a value that implements [`Kernel`]: its body is written once over [`Simd`], and [`Level::run`] compiles
//! and calls it for the instruction set chosen. The files beside this one hold only primitives, one file a set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod features;
#[cfg(target_arch = "x86_64")]
mod maker;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod simd;

#[cfg(target_arch = "x86_64")]
pub use amx::{Amx, ByteDepth, ByteTiles, Tiles};
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Vector, WordKernel};
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512Bf16;
pub use features::{CpuFeatures, FeatureError};
#[cfg(target_arch = "x86_64")]
pub(crate) use maker::amd;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, SDOT, SMMLA, WIDENED};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{prefetch as prefetch_neon, prefetch_beyond as prefetch_beyond_neon, widen_half, widen_u8};
pub use scalar::Scalar;
pub use simd::{ByteKernel, Bytes, Kernel, Simd};

/// Name of the environment variable that lowers the level, so that every path can be tested on one machine.
pub const OVERRIDE: &str = "WOOLLY_ISA";

/// An instruction set that kernels are compiled for, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Level {
    /// Plain Rust, on any processor.
    Scalar,
    /// NEON of 64-bit ARM.
    Neon,
    /// NEON with dot products of bytes.
    Dotprod,
    /// NEON with products of matrices of bytes: many rows are multiplied by them, all else is as on the level below.
    I8mm,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with AVX-VNNI: products of bytes in one instruction. Not every processor of the levels above has it.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX-512 with AMX for bfloat16: many rows are multiplied on tiles, all else is as on the level below.
    Amx,
}

/// Why the level asked for cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The environment variable names no level.
    #[error("{OVERRIDE}={value}: not an instruction set here; use {}, or unset it", names())]
    Unknown {
        /// The value found.
        value: String,
    },
    /// The level exists, but this processor lacks it.
    #[error("{OVERRIDE}={}: this processor offers no more than {}; unset the variable", wanted.name(), best.name())]
    Unavailable {
        /// The level asked for.
        wanted: Level,
        /// The best level of this processor.
        best: Level,
    },
    /// This processor has higher levels, but not this one.
    #[error("{OVERRIDE}={}: this processor lacks it, though not all above; name another or unset the variable", wanted.name())]
    Incomplete {
        /// The level asked for.
        wanted: Level,
    },
}

/// Returns the best level of this processor, or the one that the environment variable [`OVERRIDE`] asks for.
///
/// # Errors
/// [`IsaError`] when the variable names an unknown or unavailable level: falling back silently would hide a typing error.
pub fn detect() -> Result<Level, IsaError> {
    match std::env::var_os(OVERRIDE) {
        None => Ok(Level::best()),
        Some(value) => choose(&value.to_string_lossy(), Level::best()),
    }
}

fn choose(value: &str, best: Level) -> Result<Level, IsaError> {
    let wanted = Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(value));
    match wanted {
        None => Err(IsaError::Unknown { value: value.to_owned() }),
        Some(wanted) if wanted <= best && !wanted.is_complete() => Err(IsaError::Incomplete { wanted }),
        Some(wanted) if wanted > best => Err(IsaError::Unavailable { wanted, best }),
        Some(wanted) => Ok(wanted),
    }
}

/// The levels of this kind of processor, for messages.
fn names() -> String {
    Level::ALL.map(Level::name).join(", ")
}

impl Level {
    /// All levels of this kind of processor, weakest first.
    #[cfg(not(target_arch = "aarch64"))]
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Amx];

    /// All levels of this kind of processor, weakest first.
    #[cfg(target_arch = "aarch64")]
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Dotprod, Self::I8mm];

    /// Returns the name used in logs and in [`OVERRIDE`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Returns the best level of this processor, whatever the environment says.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Amx::new().is_some() {
                return Self::Amx;
            }
            if Avx512::new().is_some() {
                return Self::Avx512;
            }
            if Avx2::<true>::new().is_some() {
                return Self::AvxVnni;
            }
            if Avx2::<false>::new().is_some() {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if Neon::<SMMLA>::new().is_some() {
                return Self::I8mm;
            }
            if Neon::<SDOT>::new().is_some() {
                return Self::Dotprod;
            }
            Self::Neon
        }
        #[cfg(not(target_arch = "aarch64"))]
        Self::Scalar
    }

    /// Returns the levels that this processor has, weakest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&level| level <= Self::best() && level.is_complete())
    }

    /// Whether this processor lacks nothing of the level, given that its best one is no lower.
    fn is_complete(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self != Self::AvxVnni || Avx2::<true>::new().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        true
    }

    /// Runs `kernel` compiled for this level; on a processor that lacks it, for the best level below.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if self >= Self::Avx512
                && let Some(simd) = Avx512::new()
            {
                return simd.run(kernel);
            }
            if self >= Self::Avx2
                && let Some(simd) = Avx2::<false>::new()
            {
                return simd.run(kernel);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if self >= Self::Dotprod
                && let Some(simd) = Neon::<SDOT>::new()
            {
                return simd.run(kernel);
            }
            if self >= Self::Neon
                && let Some(simd) = Neon::<WIDENED>::new()
            {
                return simd.run(kernel);
            }
        }
        kernel.run(Scalar)
    }

    /// Runs `kernel` compiled for this level, or returns `None` where there are no byte vectors: on the scalar level and
    /// on processors without AVX2 or NEON.
    #[inline]
    pub fn run_bytes<K: ByteKernel>(self, kernel: K) -> Option<K::Output> {
        #[cfg(target_arch = "x86_64")]
        {
            if self >= Self::Avx512
                && let Some(simd) = Avx512::new()
            {
                return Some(simd.run_bytes(kernel));
            }
            if K::PRODUCTS
                && self >= Self::AvxVnni
                && let Some(simd) = Avx2::<true>::new()
            {
                return Some(simd.run_bytes(kernel));
            }
            if self >= Self::Avx2
                && let Some(simd) = Avx2::<false>::new()
            {
                return Some(simd.run_bytes(kernel));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if self >= Self::Dotprod
                && let Some(simd) = Neon::<SDOT>::new()
            {
                return Some(simd.run_bytes(kernel));
            }
            if self >= Self::Neon
                && let Some(simd) = Neon::<WIDENED>::new()
            {
                return Some(simd.run_bytes(kernel));
            }
        }
        let _ = kernel;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(target_arch = "aarch64"))]
    #[test]
    fn the_override_names_one_level_or_says_why_not() {
        assert_eq!(choose("scalar", Level::Avx2), Ok(Level::Scalar));
        assert_eq!(choose("AVX2", Level::Avx2), Ok(Level::Avx2), "case does not matter");
        assert_eq!(
            choose("avx512", Level::Avx2),
            Err(IsaError::Unavailable { wanted: Level::Avx512, best: Level::Avx2 })
        );
        assert!(choose("amx", Level::Avx512).is_err_and(|e| matches!(e, IsaError::Unavailable { .. })));
        let vnni = if Level::AvxVnni.is_complete() {
            Ok(Level::AvxVnni)
        } else {
            Err(IsaError::Incomplete { wanted: Level::AvxVnni })
        };
        assert_eq!(choose("avxvnni", Level::Avx512), vnni);
        assert_eq!(choose("sse", Level::Amx), Err(IsaError::Unknown { value: "sse".into() }));
        assert!(choose("", Level::Avx512).is_err(), "an empty value is a mistake, not a default");
    }

    #[test]
    fn errors_name_variable_value_and_remedy() {
        let error = IsaError::Unavailable { wanted: Level::Avx512, best: Level::Scalar };
        assert_eq!(
            error.to_string(),
            "WOOLLY_ISA=avx512: this processor offers no more than scalar; unset the variable"
        );
    }
}
