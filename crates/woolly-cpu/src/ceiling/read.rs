//! Bandwidth of plain reading.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::HugeMemory;
use crate::isa::{Kernel, Level, Simd};
use crate::pool::ThreadPool;

/// Bytes that are timed at once: read in about a millisecond, so that some pieces escape the neighbours.
const PIECE: usize = 16 << 20;
/// Time spent on each pattern of reading.
const BUDGET: Duration = Duration::from_millis(500);

/// Bytes a second of plain reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of the fastest twentieth of all pieces, since other work only ever slows a piece down: what the memory can do.
    pub best: f64,
    /// On average: what it does beside all that the machine does at the same time.
    pub mean: f64,
}

/// Memory larger than the caches, to read from.
#[derive(Debug)]
pub struct ReadProbe {
    memory: HugeMemory,
}

impl ReadProbe {
    /// Allocates and touches `bytes`, with huge pages where the system grants them; `None` when memory is short.
    pub fn new(bytes: usize) -> Option<Self> {
        let mut memory = HugeMemory::zeroed(bytes.checked_next_multiple_of(PIECE)?)?;
        // Pages that were never written to may all be one page of zeros, which the cache holds. The values are 0.5.
        memory.iter_mut().skip(3).step_by(64).for_each(|byte| *byte = 0x3f);
        Some(Self { memory })
    }

    /// Returns what all threads of the pool read together.
    ///
    /// Each thread reads its share of a piece, once from end to end and once in four streams as the kernels do; the better
    /// pattern counts.
    pub fn bandwidth(&self, pool: &ThreadPool) -> Bandwidth {
        let (one, four) = (self.rate(pool, 1), self.rate(pool, 4));
        if one.best > four.best { one } else { four }
    }

    fn rate(&self, pool: &ThreadPool, streams: usize) -> Bandwidth {
        let (end, level) = (Instant::now() + BUDGET, Level::best());
        let mut times = Vec::new();
        let pieces = self.memory.len() / PIECE;
        for piece in (0..pieces).cycle() {
            let bytes = &self.memory[piece * PIECE..][..PIECE];
            let start = Instant::now();
            pool.run(&|thread| {
                let own = &bytes[share(PIECE, pool.threads(), thread)];
                black_box(level.run(Reading { bytes: own, streams }));
            });
            times.push(start.elapsed().as_secs_f64());
            if Instant::now() > end && times.len() >= pieces.min(20) {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        let rate = |time: f64| if time > 0.0 { PIECE as f64 / time } else { 0.0 };
        let best = times.get(times.len() / 20).copied().unwrap_or_default();
        Bandwidth { best: rate(best), mean: rate(times.iter().sum::<f64>() / times.len().max(1) as f64) }
    }
}

fn share(bytes: usize, threads: usize, thread: usize) -> Range<usize> {
    let cut = |i: usize| bytes * i / threads / 256 * 256;
    cut(thread)..if thread + 1 == threads { bytes } else { cut(thread + 1) }
}

/// Touches every line of `bytes` in one or four streams.
struct Reading<'a> {
    bytes: &'a [u8],
    streams: usize,
}

impl Kernel for Reading<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // One stream reads four neighbouring lines at a time, four streams one line each, a quarter of the way apart.
        let lines = self.bytes.len() / 64 / 4;
        let (step, apart) = if self.streams == 1 { (256, 64) } else { (64, lines * 64) };
        let mut sums = [s.splat(0.0); 4];
        for i in 0..lines {
            for (stream, sum) in sums.iter_mut().enumerate() {
                let line = &self.bytes[i * step + stream * apart..][..64];
                s.prefetch(line, 3072);
                for part in (0..64).step_by(4 * S::LANES) {
                    *sum = s.max(*sum, s.load_f32_bytes(&line[part..]));
                }
            }
        }
        sums.map(|sum| s.sum(sum)).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_a_piece_without_overlap() {
        for threads in [1, 2, 3, 7, 64] {
            let shares: Vec<_> = (0..threads).map(|thread| share(PIECE, threads, thread)).collect();
            assert_eq!((shares[0].start, shares[threads - 1].end), (0, PIECE));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start), "{threads}");
        }
    }

    #[test]
    fn both_patterns_read_every_vector() {
        let mut bytes = vec![0; 64 * 1024];
        for at in (0..bytes.len()).step_by(64) {
            bytes[at..at + 4].copy_from_slice(&1e6_f32.to_le_bytes());
            for (streams, level) in [1, 4].into_iter().flat_map(|n| Level::available().map(move |level| (n, level))) {
                assert_eq!(level.run(Reading { bytes: &bytes, streams }), 1e6, "{streams} streams, byte {at}");
            }
            bytes[at..at + 4].fill(0);
        }
    }
}
