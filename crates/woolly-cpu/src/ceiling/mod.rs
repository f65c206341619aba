//! What this machine can do at most: the bandwidth of plain reading and the peaks of its multiply-add units.
//!
//! A speed means little by itself; as a share of these figures, measured in the same run, it can be compared between
//! machines and with the day before. Nothing here is remembered between runs.

mod memory;
mod read;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::time::{Duration, Instant};

use crate::isa::Level;
use crate::pool::ThreadPool;

pub use memory::HugeMemory;
pub use read::{Bandwidth, ReadProbe};

/// Time of one piece of work that is timed: long enough for the clock and for threads to meet, short enough to find an
/// undisturbed moment.
const PIECE: Duration = Duration::from_millis(4);
/// Pieces of work a peak is the best of.
const PIECES: usize = 24;

/// An arithmetic unit that can be a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// AVX2: f32 fused multiply-add on 256 bits.
    Avx2F32,
    /// AVX2: products of bytes summed to 16 bits (`vpmaddubsw`, `vpaddw`), which holds eight sums when one factor has four
    /// bits. Summing to 32 bits each time (`vpmaddwd`, `vpaddd`) reaches two thirds of it.
    Avx2Int8,
    /// AVX-VNNI: products of bytes summed to 32 bits on 256 bits (`vpdpbusd`).
    AvxVnniInt8,
    /// AVX-512: f32 fused multiply-add on 512 bits.
    Avx512F32,
    /// AVX-512 VNNI: products of bytes summed to 32 bits (`vpdpbusd`).
    Avx512Int8,
    /// AMX: products of bytes on tiles (`tdpbssd`).
    AmxInt8,
    /// AMX: products of bfloat16 on tiles (`tdpbf16ps`).
    AmxBf16,
}

impl Unit {
    /// Every unit, those of the lowest levels first.
    pub const ALL: [Self; 7] = [
        Self::Avx2F32,
        Self::Avx2Int8,
        Self::AvxVnniInt8,
        Self::Avx512F32,
        Self::Avx512Int8,
        Self::AmxInt8,
        Self::AmxBf16,
    ];

    /// Returns the name used in reports: `amx bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx2F32 => "avx2 f32",
            Self::Avx2Int8 => "avx2 int8",
            Self::AvxVnniInt8 => "avx vnni int8",
            Self::Avx512F32 => "avx512 f32",
            Self::Avx512Int8 => "avx512 vnni int8",
            Self::AmxInt8 => "amx int8",
            Self::AmxBf16 => "amx bf16",
        }
    }

    /// Returns the lowest level at which kernels may use the unit.
    pub const fn level(self) -> Level {
        match self {
            Self::Avx2F32 | Self::Avx2Int8 => Level::Avx2,
            Self::AvxVnniInt8 => Level::AvxVnni,
            Self::Avx512F32 | Self::Avx512Int8 => Level::Avx512,
            Self::AmxInt8 | Self::AmxBf16 => Level::Amx,
        }
    }

    /// Returns the operations a second that all threads of the pool reach together, a multiplication and an addition
    /// counting as two; `None` when the processor lacks the unit or the system refuses it.
    pub fn peak(self, pool: &ThreadPool) -> Option<f64> {
        let spin = self.spin()?;
        let per_round = self.operations_per_round() as f64 * pool.threads() as f64;
        let mut rounds = 1 << 12;
        // The first pieces are longer and longer, which also brings the clock to its steady state.
        while timed(pool, spin, rounds) < PIECE {
            rounds *= 2;
        }
        let best = (0..PIECES).map(|_| timed(pool, spin, rounds)).min()?;
        Some(per_round * rounds as f64 / best.as_secs_f64())
    }

    fn spin(self) -> Option<fn(u64)> {
        #[cfg(target_arch = "x86_64")]
        return x86::spin(self);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Operations of one thread in a round: twelve instructions on registers, four on tiles.
    const fn operations_per_round(self) -> u64 {
        match self {
            Self::Avx2F32 => 12 * 8 * 2,
            Self::Avx2Int8 | Self::AvxVnniInt8 => 12 * 32 * 2,
            Self::Avx512F32 => 12 * 16 * 2,
            Self::Avx512Int8 => 12 * 64 * 2,
            Self::AmxInt8 => 4 * 16 * 16 * 64 * 2,
            Self::AmxBf16 => 4 * 16 * 16 * 32 * 2,
        }
    }
}

fn timed(pool: &ThreadPool, spin: fn(u64), rounds: u64) -> Duration {
    let start = Instant::now();
    pool.run(&|_| spin(rounds));
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_levels_there_are_have_peaks() {
        let pool = ThreadPool::new(1, false).unwrap();
        for unit in Unit::ALL {
            let peak = unit.peak(&pool);
            // A processor may have tiles of bfloat16 only, and AVX-512 without AVX-VNNI.
            let certain = unit != Unit::AmxInt8 && unit != Unit::AvxVnniInt8;
            assert!(!certain || peak.is_some() == (unit.level() <= Level::best()), "{}", unit.name());
            // Not a claim of speed: no processor with the unit does less than an operation a nanosecond.
            assert!(peak.is_none_or(|peak| peak > 1e9 && peak.is_finite()), "{}: {peak:?}", unit.name());
        }
    }
}
