//! Measures how much of the machine's read bandwidth the matrix-vector kernels reach.
//!
//! `cargo run --release -p woolly-cpu --example gemv_bandwidth [threads] [kibibytes] [types, comma-separated] [columns]`
//!
//! Plain reading and every type stream the same memory (2 MiB pages where the system grants them) in the same process;
//! each piece of about 9 MiB is timed, and the fastest twentieth counts, since other work only ever slows a piece down.
//! With less memory than the cache holds it measures arithmetic, and with 256 KiB or less that of the exact path.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::ops::Range;
use std::time::{Duration, Instant};

use woolly_cpu::buffer::{AlignedVec, SharedOut};
use woolly_cpu::isa::{Kernel, Level, Simd};
use woolly_cpu::kernels::gemv::{Input, Rows, gemv};
use woolly_cpu::pool::ThreadPool;
use woolly_quant::TensorType;

const SIDE: usize = 4096;
/// Bytes of plain reading that are timed at once.
const PIECE: usize = 9 << 20;
/// Time spent on each figure.
const BUDGET: Duration = Duration::from_millis(700);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (most_threads, bytes, columns) =
        (number(0, woolly_cpu::default_threads()), number(1, 1 << 20) << 10, number(3, 1));
    let types = arguments.get(2).map_or("Q4_K,Q5_K,Q6_K,Q8_0,Q4_0,F16,BF16,F32", String::as_str);
    let mut memory = Memory::new(bytes);
    // Memory that nothing was written to is all one page of zeros, which stays in the cache.
    memory.fill(TensorType::F32);
    for threads in (1..=most_threads).filter(|&n| n.is_power_of_two() || n == most_threads) {
        let pool = ThreadPool::new(threads, false).expect("threads start");
        let plain = best(memory.0.len().div_ceil(PIECE), |i| memory.read(&pool, i));
        println!("{threads} threads, {columns} columns: plain read {plain:.1} GB/s");
        for name in types.split(',') {
            let ty: TensorType = name.parse().expect("a tensor type");
            memory.fill(ty);
            let rate = |level| {
                let mut matrices = memory.matrices(ty, level, columns);
                best(matrices.matrices.len(), |i| matrices.multiply(&pool, i))
            };
            let results = Level::available().filter(|&level| level > Level::Scalar).map(|level| {
                let rate = rate(level);
                format!("{} {rate:5.1} GB/s {:3.0} %", level.name(), 100.0 * rate / plain)
            });
            let results = results.collect::<Vec<_>>().join("   ");
            let preparing = memory.matrices(ty, Level::best(), columns).prepare();
            println!("  {name:8} {results}   input {:.1} µs", 1e6 * preparing);
        }
    }
}

/// Returns gigabytes a second of the pieces of work at the fastest twentieth; `piece(i)` returns the bytes it has read.
fn best(pieces: usize, mut piece: impl FnMut(usize) -> usize) -> f64 {
    let end = Instant::now() + BUDGET;
    let mut rates = Vec::new();
    for i in (0..pieces).cycle() {
        let start = Instant::now();
        let bytes = piece(i);
        rates.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
        if Instant::now() > end && rates.len() >= pieces.min(20) {
            break;
        }
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() * 19 / 20]
}

struct Memory(AlignedVec<u8>);

impl Memory {
    fn new(bytes: usize) -> Self {
        let memory = AlignedVec::<u8>::zeroed(bytes);
        #[cfg(target_os = "linux")]
        // SAFETY: advice on a range of our own memory, from its first whole page on; a refusal changes nothing.
        unsafe {
            let start = memory.as_ptr().addr().next_multiple_of(4096);
            libc::madvise(start as *mut libc::c_void, bytes - 4096, libc::MADV_HUGEPAGE);
        }
        Self(memory)
    }

    /// Fills the memory with blocks that decode to ordinary numbers.
    fn fill(&mut self, ty: TensorType) {
        let row: Vec<f32> = (0..SIDE).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 1001.0).collect();
        let mut encoded = vec![0; ty.row_bytes(SIDE).expect("whole blocks")];
        if !ty.can_encode() || ty.encode(&row, &mut encoded).is_err() {
            encoded.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7919 % 61) as u8);
        }
        self.0.chunks_mut(encoded.len()).for_each(|chunk| chunk.copy_from_slice(&encoded[..chunk.len()]));
    }

    fn read(&self, pool: &ThreadPool, piece: usize) -> usize {
        let piece = self.0.chunks(PIECE).nth(piece).expect("there are so many");
        let threads = pool.threads();
        pool.run(&|i| {
            std::hint::black_box(Level::best().run(Sum(&piece[share(piece.len(), threads, i)])));
        });
        piece.len()
    }

    fn matrices(&self, ty: TensorType, level: Level, columns: usize) -> Matrices<'_> {
        let row_bytes = ty.row_bytes(SIDE).expect("whole blocks");
        let rows = SIDE.min(self.0.len() / row_bytes);
        let matrix_bytes = rows * row_bytes;
        let rows = |bytes| Rows { ty, bytes, columns: SIDE, rows };
        let matrices: Vec<_> = self.0.chunks_exact(matrix_bytes).map(rows).collect();
        let x: Vec<f32> = (0..columns * SIDE).map(|i| ((i * 31 % 97) as f32 - 48.0) / 48.0).collect();
        let input = Input::with_capacity(columns, columns, SIDE);
        Matrices { level, matrices, x, input, out: vec![0.0; columns * SIDE], columns }
    }
}

/// Plain reading: four streams of 64-byte loads, prefetched as the kernels do.
struct Sum<'a>(&'a [u8]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let quarter = self.0.len() / 4 / 64 * 64;
        let streams: [&[u8]; 4] = std::array::from_fn(|i| &self.0[i * quarter..][..quarter]);
        let mut sums = [s.splat(0.0); 4];
        for line in (0..quarter).step_by(64) {
            for (stream, sum) in streams.iter().zip(&mut sums) {
                s.prefetch(&stream[line..], 3072);
                for part in (0..64).step_by(4 * S::LANES) {
                    *sum = s.max(*sum, s.load_f32_bytes(&stream[line + part..]));
                }
            }
        }
        sums.map(|sum| s.sum(sum)).iter().sum()
    }
}

struct Matrices<'a> {
    level: Level,
    matrices: Vec<Rows<'a>>,
    x: Vec<f32>,
    input: Input,
    out: Vec<f32>,
    columns: usize,
}

impl Matrices<'_> {
    /// Seconds to prepare the input, at best.
    fn prepare(&mut self) -> f64 {
        let timed = |_| {
            let start = Instant::now();
            self.input.invalidate();
            self.input.prepare(self.level, &self.matrices[0], &self.x, self.columns, SIDE);
            start.elapsed().as_secs_f64()
        };
        (0..1000).map(timed).fold(f64::INFINITY, f64::min)
    }

    fn multiply(&mut self, pool: &ThreadPool, i: usize) -> usize {
        let w = &self.matrices[i];
        self.input.invalidate();
        self.input.prepare(self.level, w, &self.x, self.columns, SIDE);
        let out = SharedOut::new(&mut self.out);
        let (threads, input, level) = (pool.threads(), &self.input, self.level);
        pool.run(&|i| gemv(level, w, share(w.rows, threads, i), input, &out, SIDE));
        w.bytes.len()
    }
}

fn share(rows: usize, threads: usize, i: usize) -> Range<usize> {
    rows * i / threads..rows * (i + 1) / threads
}
