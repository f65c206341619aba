//! What the processor has, as fields that programs can read, and change to choose among it.

use super::Level;

/// Instructions that the processor has, and which of them to use.
///
/// ```
/// use woolly_cpu::isa::CpuFeatures;
///
/// let features = CpuFeatures::detect();
/// let plain = CpuFeatures { force_scalar: true, ..features };
/// assert_eq!(plain.level().unwrap().unwrap().name(), "scalar");
/// ```
///
/// A `has` field that is cleared keeps those instructions from being used; one that is set although the processor lacks them
/// is refused. At most one `force` field may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// AVX2: 8 floats an instruction.
    pub has_avx2: bool,
    /// Fused multiply-add, on vectors of 8 floats.
    pub has_fma: bool,
    /// Conversion between half and single precision.
    pub has_f16c: bool,
    /// AVX-512 F, BW, DQ and VL: 16 floats an instruction.
    pub has_avx512: bool,
    /// AVX-512 VNNI: products of bytes.
    pub has_avx512_vnni: bool,
    /// AVX-VNNI: products of bytes on 256 bits, without AVX-512.
    pub has_avx_vnni: bool,
    /// AMX tiles of bfloat16, with the system's permission to use them.
    pub has_amx: bool,
    /// NEON: 4 floats an instruction.
    pub has_neon: bool,
    /// Use no vector instructions.
    pub force_scalar: bool,
    /// Use AVX2 and nothing above.
    pub force_avx2: bool,
    /// Use AVX2 with AVX-VNNI and nothing above.
    pub force_avx_vnni: bool,
    /// Use AVX-512 and nothing above.
    pub force_avx512: bool,
    /// Use AMX.
    pub force_amx: bool,
}

/// Why the features asked for cannot be used; `field` is that of [`CpuFeatures`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// A field says that the processor has what it lacks.
    #[error("{field} is set, but this processor lacks it; start from CpuFeatures::detect()")]
    Lacking {
        /// The field.
        field: &'static str,
    },
    /// Two fields force different things.
    #[error("{first} and {second} are both set; set one")]
    Contradiction {
        /// One field.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// What is forced needs what is absent or cleared.
    #[error("{field} is set, but {missing} is not")]
    Needs {
        /// The field that forces.
        field: &'static str,
        /// The field that would have to be set.
        missing: &'static str,
    },
}

type Field = (&'static str, bool);

impl CpuFeatures {
    /// Asks the processor; nothing is forced.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            Self {
                has_avx2: has!("avx2"),
                has_fma: has!("fma"),
                has_f16c: has!("f16c"),
                has_avx512: has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"),
                has_avx512_vnni: has!("avx512vnni"),
                has_avx_vnni: has!("avxvnni"),
                has_amx: super::Amx::new().is_some(),
                ..Self::NONE
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self { has_neon: std::arch::is_aarch64_feature_detected!("neon"), ..Self::NONE }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Self::NONE
        }
    }

    const NONE: Self = Self {
        has_avx2: false,
        has_fma: false,
        has_f16c: false,
        has_avx512: false,
        has_avx512_vnni: false,
        has_avx_vnni: false,
        has_amx: false,
        has_neon: false,
        force_scalar: false,
        force_avx2: false,
        force_avx_vnni: false,
        force_avx512: false,
        force_amx: false,
    };

    /// Returns the instruction set that these fields choose, or `None` when they are as detected, so that the best one is
    /// used, or that of the environment variable [`OVERRIDE`](super::OVERRIDE).
    ///
    /// # Errors
    /// [`FeatureError`] when the processor lacks it, or the fields contradict each other.
    pub fn level(&self) -> Result<Option<Level>, FeatureError> {
        self.level_on(&Self::detect())
    }

    fn level_on(&self, processor: &Self) -> Result<Option<Level>, FeatureError> {
        for ((field, claimed), (_, present)) in self.present().into_iter().zip(processor.present()) {
            if claimed && !present {
                return Err(FeatureError::Lacking { field });
            }
        }
        if let Some((field, level)) = self.forced()? {
            let missing = self.needs(level).iter().find(|(_, set)| !set).map(|(missing, _)| *missing);
            return match missing {
                Some(missing) => Err(FeatureError::Needs { field, missing }),
                None => Ok(Some(level)),
            };
        }
        if self.present() == processor.present() {
            return Ok(None);
        }
        let usable = |level: &Level| self.needs(*level).iter().all(|(_, set)| *set);
        Ok(Level::ALL.into_iter().rev().find(usable))
    }

    fn present(&self) -> [Field; 8] {
        [
            ("has_avx2", self.has_avx2),
            ("has_fma", self.has_fma),
            ("has_f16c", self.has_f16c),
            ("has_avx512", self.has_avx512),
            ("has_avx512_vnni", self.has_avx512_vnni),
            ("has_amx", self.has_amx),
            ("has_neon", self.has_neon),
            ("has_avx_vnni", self.has_avx_vnni),
        ]
    }

    fn forced(&self) -> Result<Option<(&'static str, Level)>, FeatureError> {
        let fields = [
            ("force_scalar", self.force_scalar, Level::Scalar),
            ("force_avx2", self.force_avx2, Level::Avx2),
            ("force_avx_vnni", self.force_avx_vnni, Level::AvxVnni),
            ("force_avx512", self.force_avx512, Level::Avx512),
            ("force_amx", self.force_amx, Level::Amx),
        ];
        let mut set = fields.into_iter().filter(|(_, set, _)| *set);
        match (set.next(), set.next()) {
            (Some((first, ..)), Some((second, ..))) => Err(FeatureError::Contradiction { first, second }),
            (first, _) => Ok(first.map(|(field, _, level)| (field, level))),
        }
    }

    /// Returns what a level uses: each level all that those below use, but for AVX-VNNI.
    fn needs(&self, level: Level) -> Vec<Field> {
        let present = self.present();
        let count = match level {
            Level::Neon => return vec![("has_neon", self.has_neon)],
            // No fields of their own tell of products of bytes.
            Level::Dotprod | Level::I8mm => return vec![("has_neon", self.has_neon && Level::best() >= level)],
            Level::AvxVnni => return [&present[..3], &[("has_avx_vnni", self.has_avx_vnni)]].concat(),
            Level::Scalar => 0,
            Level::Avx2 => 3,
            Level::Avx512 => 5,
            Level::Amx => 6,
        };
        present[..count].to_vec()
    }
}

impl Default for CpuFeatures {
    fn default() -> Self {
        Self::detect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CpuFeatures = CpuFeatures {
        has_avx2: true,
        has_fma: true,
        has_f16c: true,
        has_avx512: true,
        has_avx512_vnni: true,
        has_avx_vnni: true,
        has_amx: true,
        ..CpuFeatures::NONE
    };

    #[test]
    fn what_is_detected_agrees_with_the_best_level() {
        let features = CpuFeatures::detect();
        assert_eq!(features.level(), Ok(None));
        let best = Level::ALL.into_iter().rev().find(|level| features.needs(*level).iter().all(|(_, set)| *set));
        assert_eq!(best, Some(Level::best()));
    }

    #[test]
    fn forcing_chooses_the_level() {
        let cases = [
            (CpuFeatures { force_scalar: true, ..ALL }, Level::Scalar),
            (CpuFeatures { force_avx2: true, ..ALL }, Level::Avx2),
            (CpuFeatures { force_avx_vnni: true, ..ALL }, Level::AvxVnni),
            (CpuFeatures { force_avx512: true, ..ALL }, Level::Avx512),
            (CpuFeatures { force_amx: true, ..ALL }, Level::Amx),
        ];
        for (features, level) in cases {
            assert_eq!(features.level_on(&ALL), Ok(Some(level)));
        }
    }

    #[cfg(not(target_arch = "aarch64"))]
    #[test]
    fn clearing_a_field_keeps_its_instructions_from_being_used() {
        let cases = [
            (CpuFeatures { has_amx: false, ..ALL }, Level::Avx512),
            (CpuFeatures { has_avx_vnni: false, ..ALL }, Level::Amx),
            (CpuFeatures { has_avx512: false, ..ALL }, Level::AvxVnni),
            (CpuFeatures { has_avx512_vnni: false, ..ALL }, Level::AvxVnni),
            (CpuFeatures { has_avx512_vnni: false, has_avx_vnni: false, ..ALL }, Level::Avx2),
            (CpuFeatures { has_fma: false, ..ALL }, Level::Scalar),
            (CpuFeatures { has_f16c: false, ..ALL }, Level::Scalar),
            (CpuFeatures { has_avx2: false, ..ALL }, Level::Scalar),
        ];
        for (features, level) in cases {
            assert_eq!(features.level_on(&ALL), Ok(Some(level)), "{features:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        let plain = CpuFeatures { has_amx: false, has_avx512: false, has_avx512_vnni: false, ..ALL };
        assert_eq!(ALL.level_on(&plain), Err(FeatureError::Lacking { field: "has_avx512" }));
        let neon = CpuFeatures { has_neon: true, ..ALL };
        assert_eq!(neon.level_on(&ALL), Err(FeatureError::Lacking { field: "has_neon" }));
        let forced = CpuFeatures { force_avx512: true, ..plain };
        let error = forced.level_on(&plain).unwrap_err();
        assert_eq!(error.to_string(), "force_avx512 is set, but has_avx512 is not");
        let both = CpuFeatures { force_scalar: true, force_amx: true, ..ALL };
        assert_eq!(both.level_on(&ALL).unwrap_err().to_string(), "force_scalar and force_amx are both set; set one");
    }
}
