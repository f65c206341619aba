//! Every kind of kernel by itself, as a share of what the machine reaches: `cargo bench -p woolly-cpu [threads...]`.
//!
//! Products have the shape of a 4096 x 4096 matrix, with enough copies that weights come from memory; the median of the calls
//! counts. `decode` is one row, `t(4)` and `t(8)` how much longer four and eight rows take than one, `prefill` 512 rows.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::time::{Duration, Instant};

use woolly_cpu::ceiling::{ReadProbe, Unit};
use woolly_cpu::isa::Level;
use woolly_cpu::pool::ThreadPool;
use woolly_cpu::{Cpu, CpuOptions, CpuTensor, CpuWeight};
use woolly_quant::TensorType;
use woolly_tensor::{Activation, Backend, BackendError, Norm, Projection, WeightSource};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIDE: usize = 4096;
const TYPES: [TensorType; 8] = {
    use TensorType as T;
    [T::Q4_0, T::Q8_0, T::Q4_K, T::Q5_K, T::Q6_K, T::IQ4_XS, T::BF16, T::F16]
};
/// Bytes of weights, more than caches hold.
const MEMORY: usize = 1 << 30;
/// Time spent on a figure.
const BUDGET: Duration = Duration::from_millis(400);

fn main() -> Outcome<()> {
    // Cargo passes `--bench`; what remains are numbers of threads.
    let asked = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let asked: Vec<usize> = asked.map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let asked = if asked.is_empty() { vec![woolly_cpu::default_threads()] } else { asked };
    asked.into_iter().try_for_each(measure)
}

/// What the machine reaches: bytes and operations a second.
struct Ceiling {
    read: f64,
    peak: Option<(Unit, f64)>,
}

fn measure(threads: usize) -> Outcome<()> {
    let cpu = Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() })?;
    let ceiling = ceiling(cpu.level(), threads)?;
    let peak =
        ceiling.peak.map_or_else(String::new, |(unit, peak)| format!(", {} {:.2} TFLOP/s", unit.name(), peak / 1e12));
    println!("{}: read {:.1} GB/s{peak}", cpu.describe(), ceiling.read / 1e9);
    for ty in TYPES {
        products(&cpu, ty, &ceiling)?;
    }
    rows(&cpu)
}

fn ceiling(level: Level, threads: usize) -> Outcome<Ceiling> {
    let pool = ThreadPool::new(threads, false)?;
    let read = ReadProbe::new(MEMORY).ok_or("1 GiB of memory is needed")?.bandwidth(&pool);
    let preferred = [Unit::AmxBf16, Unit::Avx512Int8, Unit::Avx2Int8].into_iter().filter(|unit| unit.level() <= level);
    let peak = preferred.into_iter().find_map(|unit| Some((unit, unit.peak(&pool)?)));
    Ok(Ceiling { read, peak })
}

fn products(cpu: &Cpu, ty: TensorType, ceiling: &Ceiling) -> Outcome<()> {
    let bytes = ty.row_bytes(SIDE * SIDE).ok_or("whole blocks")?;
    let weights = (0..MEMORY / bytes).map(|_| weight(cpu, ty, SIDE, SIDE)).collect::<Result<Vec<_>, _>>()?;
    let mut next = 0;
    let mut times = [0.0; 4];
    for (rows, time) in [1, 4, 8, 512].into_iter().zip(&mut times) {
        let (x, mut out) = (input(cpu, rows, SIDE)?, cpu.tensor(rows, SIDE)?);
        *time = median(|| {
            next = (next + 1) % weights.len();
            let projection = Projection { weight: &weights[next], bias: None, out: &mut out, accumulate: false };
            cpu.project(&x, None, &mut [projection])
        })?;
    }
    let [one, four, eight, many] = times;
    let (rate, flops) = (bytes as f64 / one, (2 * 512 * SIDE * SIDE) as f64 / many);
    let share = ceiling.peak.map_or_else(String::new, |(_, peak)| format!(" ({:.0} %)", 100.0 * flops / peak));
    println!(
        "  {:8} decode {:5.1} GB/s ({:3.0} %)   t(4) {:4.2}   t(8) {:4.2}   prefill {:6.3} TFLOP/s{share}",
        ty.name(),
        rate / 1e9,
        100.0 * rate / ceiling.read,
        four / one,
        eight / one,
        flops / 1e12,
    );
    Ok(())
}

/// What works on rows alone, in microseconds a row.
fn rows(cpu: &Cpu) -> Outcome<()> {
    let vector = weight(cpu, TensorType::F32, SIDE, 1)?;
    let small = weight(cpu, TensorType::Q8_0, SIDE, SIDE)?;
    for rows in [1, 512] {
        let (x, mut out) = (input(cpu, rows, SIDE)?, cpu.tensor(rows, SIDE)?);
        let norm = Norm { weight: &vector, epsilon: 1e-5 };
        let normed = median(|| cpu.norm(&x, norm, &mut out))?;
        let gated = median(|| cpu.gated(&x, Some(norm), &small, &small, Activation::Silu, &mut out))?;
        let micro = |seconds: f64| 1e6 * seconds / rows as f64;
        println!(
            "  {rows} rows of {SIDE}: norm {:.2} µs a row, gated Q8_0 {:.1} µs a row",
            micro(normed),
            micro(gated)
        );
    }
    Ok(())
}

fn weight(cpu: &Cpu, ty: TensorType, inputs: usize, outputs: usize) -> Result<CpuWeight, BackendError> {
    let bytes = ty.row_bytes(inputs).unwrap_or(0) * outputs;
    // Any bytes do, except exponents of infinities and NaNs, which the pattern avoids.
    let bytes = (0..bytes).map(|i| ((i * 31 + i / 251) % 0x3c) as u8).collect();
    cpu.weight(WeightSource::from_bytes("measured", ty, [inputs, outputs, 1], bytes))
}

fn input(cpu: &Cpu, rows: usize, columns: usize) -> Result<CpuTensor, BackendError> {
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
    let mut tensor = cpu.tensor(rows, columns)?;
    cpu.write(&mut tensor, &values)?;
    Ok(tensor)
}

/// Returns the median time of the calls that fit the budget, at least five, after one to warm up.
fn median(mut call: impl FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
    call()?;
    let (end, mut times) = (Instant::now() + BUDGET, Vec::new());
    while times.len() < 5 || Instant::now() < end {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
