//! Every kind of kernel by itself, as a share of what the machine reaches: `cargo bench -p woolly-cpu [threads] [names]`.
//!
//! Names choose what is measured: of tensor types, `attention`, `rows`, `dense`, `experts`; parts of a name suffice. The
//! median of the calls counts.
//!
//! - Products have the shape of a 4096 x 4096 matrix, with enough copies that weights come from memory. `decode` is one row,
//!   `t(4)` how many times longer four rows take than one, `prefill` 512 rows.
//! - `attention` has the shape of TinyLlama-1.1B: a token at the end of 8192 others, whose keys and values come from memory,
//!   and 512 tokens there at once.
//! - `rows` are operations on rows alone, whose least work is to read and write them: bytes of both, beside plain reading;
//!   beyond 100 % they stay in caches. Rotation is what it adds to an attention of one position.
//! - `dense` are products and functions of single precision for other uses than language models.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use woolly_cpu::ceiling::{ReadProbe, Unit};
use woolly_cpu::isa::Level;
use woolly_cpu::pool::ThreadPool;
use woolly_cpu::{Cpu, CpuCache, CpuOptions, CpuTensor, CpuWeight, dense};
use woolly_quant::TensorType;
use woolly_tensor::{
    Activation, Attention, AttentionShape, BLOCK_TOKENS, Backend, BackendError, Batch, CacheSpec, CacheType, Experts,
    Gating, Norm, Projection, Rope, RopeStyle, Sequence, WeightSource,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIDE: usize = 4096;
const TYPES: [TensorType; 16] = {
    use TensorType as T;
    [
        T::Q4_0,
        T::Q4_1,
        T::Q5_0,
        T::Q5_1,
        T::Q8_0,
        T::Q2_K,
        T::Q3_K,
        T::Q4_K,
        T::Q5_K,
        T::Q6_K,
        T::IQ4_NL,
        T::IQ4_XS,
        T::MXFP4,
        T::BF16,
        T::F16,
        T::F32,
    ]
};
/// Rows of the products, the first of which is the measure of the others but the last.
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 512];
/// Tokens of the context of attention.
const CONTEXT: usize = 8192;
/// Bytes of weights, more than caches hold.
const MEMORY: usize = 1 << 30;
/// Time spent on a figure.
const BUDGET: Duration = Duration::from_millis(400);

fn main() -> Outcome<()> {
    // Cargo passes `--bench`; what remains are numbers of threads and names.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (mut threads, names): (Vec<_>, Vec<_>) = asked.into_iter().partition(|word| word.parse::<usize>().is_ok());
    if threads.is_empty() {
        threads.push(woolly_cpu::default_threads().to_string());
    }
    threads.into_iter().try_for_each(|count| measure(count.parse()?, &names))
}

/// What the machine reaches: bytes and operations a second.
struct Ceiling {
    read: f64,
    /// The unit of prefill.
    peak: Option<(Unit, f64)>,
    /// The unit of single precision.
    floats: Option<f64>,
}

/// Measures and reports one kind of kernel.
type Family = fn(&Cpu, &Ceiling) -> Outcome<()>;

fn measure(threads: usize, names: &[String]) -> Outcome<()> {
    let cpu = Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() })?;
    let ceiling = ceiling(cpu.level(), threads)?;
    let peak =
        ceiling.peak.map_or_else(String::new, |(unit, peak)| format!(", {} {:.2} TFLOP/s", unit.name(), peak / 1e12));
    println!("{}: read {:.1} GB/s{peak}", cpu.describe(), ceiling.read / 1e9);
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    for ty in TYPES.into_iter().filter(|ty| wanted(ty.name())) {
        products(&cpu, ty, &ceiling)?;
    }
    let families: [(&str, Family); 4] =
        [("attention", attention), ("rows", rows), ("dense", singles), ("experts", experts)];
    families.into_iter().filter(|(name, _)| wanted(name)).try_for_each(|(_, family)| family(&cpu, &ceiling))
}

fn ceiling(level: Level, threads: usize) -> Outcome<Ceiling> {
    let pool = ThreadPool::new(threads, false)?;
    let read = ReadProbe::new(MEMORY).ok_or("1 GiB of memory is needed")?.bandwidth(&pool).best;
    let first = |units: &[Unit]| {
        let usable = units.iter().filter(|unit| unit.level() <= level);
        usable.copied().find_map(|unit| Some((unit, unit.peak(&pool)?)))
    };
    let peak = first(&[Unit::AmxBf16, Unit::Avx512Int8, Unit::AvxVnniInt8, Unit::Avx2Int8]);
    let floats = first(&[Unit::Avx512F32, Unit::Avx2F32]).map(|(_, peak)| peak);
    Ok(Ceiling { read, peak, floats })
}

impl Ceiling {
    /// ` 25.1 GB/s ( 93 %)`.
    fn bytes(&self, bytes: usize, seconds: f64) -> String {
        let rate = bytes as f64 / seconds;
        format!("{:5.1} GB/s ({:3.0} %)", rate / 1e9, 100.0 * rate / self.read)
    }

    /// ` 1.250 TFLOP/s (57 %)`, a share of the unit of prefill.
    fn operations(&self, operations: usize, seconds: f64) -> String {
        share_of(self.peak.map(|(_, peak)| peak), operations, seconds)
    }
}

fn share_of(peak: Option<f64>, operations: usize, seconds: f64) -> String {
    let rate = operations as f64 / seconds;
    let share = peak.map_or_else(String::new, |peak| format!(" ({:.0} %)", 100.0 * rate / peak));
    format!("{:6.3} TFLOP/s{share}", rate / 1e12)
}

fn products(cpu: &Cpu, ty: TensorType, ceiling: &Ceiling) -> Outcome<()> {
    let bytes = ty.row_bytes(SIDE * SIDE).ok_or("whole blocks")?;
    let pattern = pattern(bytes);
    let copy = |_| cpu.weight(WeightSource::from_bytes("measured", ty, [SIDE, SIDE, 1], pattern.clone()));
    let weights = (0..MEMORY / bytes).map(copy).collect::<Result<Vec<_>, _>>()?;
    let (mut next, mut times) = (0, [0.0; ROWS.len()]);
    for (rows, time) in ROWS.into_iter().zip(&mut times) {
        let (x, mut out) = (input(cpu, rows, SIDE)?, cpu.tensor(rows, SIDE)?);
        *time = median(|| {
            next = (next + 1) % weights.len();
            let projection = Projection { weight: &weights[next], bias: None, out: &mut out, accumulate: false };
            cpu.project(&x, None, &mut [projection])
        })?;
    }
    let [one, few @ .., many] = times;
    let times: String =
        ROWS[1..].iter().zip(few).map(|(rows, time)| format!("  t({rows}) {:5.2}", time / one)).collect();
    let prefill = ceiling.operations(2 * ROWS[ROWS.len() - 1] * SIDE * SIDE, many);
    println!("  {:8} decode {}{times}   prefill {prefill}", ty.name(), ceiling.bytes(bytes, one));
    Ok(())
}

/// Layers of attention of TinyLlama-1.1B.
struct Layers<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    cache: CpuCache,
    blocks: Vec<u32>,
    count: usize,
}

/// Operands of attention for some rows.
struct Operands {
    rows: usize,
    q: CpuTensor,
    k: CpuTensor,
    v: CpuTensor,
    out: CpuTensor,
}

impl<'a> Layers<'a> {
    /// Makes and fills a cache that is larger than processor caches.
    fn new(cpu: &'a Cpu, storage: CacheType) -> Outcome<Self> {
        let (key_length, value_length, kv_heads) = (64, 64, 4);
        let shape =
            AttentionShape { heads: 32, kv_heads, key_length, value_length, scale: 0.125, softcap: None, window: None };
        let bytes = storage.token_bytes(key_length, value_length).ok_or("too long")? * kv_heads * CONTEXT;
        let (count, blocks) = (MEMORY / bytes, CONTEXT / BLOCK_TOKENS);
        let spec = CacheSpec { layers: count, kv_heads, key_length, value_length, blocks, storage };
        let blocks = (0..u32::try_from(blocks)?).rev().collect();
        let mut layers = Self { cpu, shape, cache: cpu.cache(&spec)?, blocks, count };
        let mut operands = layers.operands(CONTEXT)?;
        for layer in 0..count {
            // A window of one position writes without attending to all of them.
            layers.step(layer, &mut operands, Some(1), None)?;
        }
        Ok(layers)
    }

    fn operands(&self, rows: usize) -> Outcome<Operands> {
        let [wide, narrow] = [self.shape.heads, self.shape.kv_heads].map(|heads| heads * self.shape.key_length);
        let [q, k, v] = [wide, narrow, narrow].map(|columns| input(self.cpu, rows, columns));
        Ok(Operands { rows, q: q?, k: k?, v: v?, out: self.cpu.tensor(rows, wide)? })
    }

    /// Returns the seconds that the last rows of the context take.
    fn step(&mut self, layer: usize, on: &mut Operands, window: Option<usize>, rope: Option<Rope<'_>>) -> Outcome<f64> {
        let shape = AttentionShape { window, ..self.shape };
        let sequences = [Sequence { rows: 0..on.rows, start: CONTEXT - on.rows, blocks: &self.blocks }];
        let batch = Batch { sequences: &sequences };
        let (q, k, v) = (&mut on.q, &mut on.k, &on.v);
        let args = Attention { layer, q, k, v, q_norm: None, k_norm: None, rope, shape, batch };
        let start = Instant::now();
        self.cpu.attention(args, &mut self.cache, &mut on.out)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn attention(cpu: &Cpu, ceiling: &Ceiling) -> Outcome<()> {
    for storage in CacheType::ALL {
        let mut layers = Layers::new(cpu, storage)?;
        let AttentionShape { heads, kv_heads, key_length, value_length, .. } = layers.shape;
        let bytes = storage.token_bytes(key_length, value_length).ok_or("too long")? * kv_heads * CONTEXT;
        let (mut next, mut operands) = (0, layers.operands(1)?);
        let one = median_of(|| {
            next = (next + 1) % layers.count;
            layers.step(next, &mut operands, None, None)
        })?;
        let rows = ROWS[ROWS.len() - 1];
        let mut operands = layers.operands(rows)?;
        let many = median_of(|| layers.step(0, &mut operands, None, None))?;
        let seen: usize = (CONTEXT - rows + 1..=CONTEXT).sum();
        let prefill = ceiling.operations(2 * seen * heads * (key_length + value_length), many);
        println!("  attention {storage:4} at {CONTEXT}: decode {}   prefill {prefill}", ceiling.bytes(bytes, one));
    }
    Ok(())
}

/// Operations on rows alone.
fn rows(cpu: &Cpu, ceiling: &Ceiling) -> Outcome<()> {
    let vector = weight(cpu, TensorType::F32, SIDE, 1)?;
    let norm = Norm { weight: &vector, epsilon: 1e-5 };
    let small = weight(cpu, TensorType::Q8_0, SIDE, SIDE)?;
    let mut layers = Layers::new(cpu, CacheType::F16)?;
    for rows in [1, ROWS[ROWS.len() - 1]] {
        let (x, mut out) = (input(cpu, rows, SIDE)?, cpu.tensor(rows, SIDE)?);
        let bytes = 2 * 4 * rows * SIDE;
        let normed = ceiling.bytes(bytes, median(|| cpu.norm(&x, norm, &mut out))?);
        let ids: Vec<u32> = (0_u32..).take(rows).collect();
        let embedded = ceiling.bytes(bytes, median(|| cpu.embed(&small, &ids, 1.0, &mut out))?);
        let gathered = ceiling.bytes(bytes, median(|| cpu.gather(&x, &ids, &mut out))?);
        println!("  {rows:3} rows of {SIDE}: norm {normed}   embed {embedded}   gather {gathered}");
        let angles: Vec<f32> =
            (0..rows * layers.shape.key_length).map(|i| if i % 2 == 0 { 0.8 } else { 0.6 }).collect();
        let rope = Rope { style: RopeStyle::Halves, dims: layers.shape.key_length, angles: &angles };
        let mut operands = layers.operands(rows)?;
        let plain = median_of(|| layers.step(0, &mut operands, Some(1), None))?;
        let rotated = median_of(|| layers.step(0, &mut operands, Some(1), Some(rope)))?;
        let width = (layers.shape.heads + layers.shape.kv_heads) * layers.shape.key_length;
        println!(
            "  {rows:3} rows of {width}: rotation {:.2} µs a row beside {:.2} of attention to one position",
            1e6 * (rotated - plain) / rows as f64,
            1e6 * plain / rows as f64
        );
    }
    Ok(())
}

/// Products and functions of single precision; the functions run on one thread and stay in its caches.
fn singles(cpu: &Cpu, ceiling: &Ceiling) -> Outcome<()> {
    let side = 768;
    let threads = NonZeroUsize::new(cpu.threads()).ok_or("no thread")?;
    let (x, mut out) = (values(side * side), vec![0.0; side * side]);
    let weight = x.clone();
    let infallible = |call: &mut dyn FnMut()| {
        median(|| {
            call();
            Ok(())
        })
    };
    let product = infallible(&mut || dense::matmul(&x, &weight, &mut out, [side; 3], threads))?;
    println!("  dense {side} x {side}: {}", share_of(ceiling.floats, 2 * side * side * side, product));
    let row = SIDE;
    let (x, mut out) = (&x[..row], vec![0.0; row]);
    let gelu = infallible(&mut || dense::gelu(x, &mut out))?;
    let softmax = infallible(&mut || dense::softmax(x, &mut out))?;
    let layer_norm = infallible(&mut || dense::layer_norm(x, x, x, 1e-5, &mut out))?;
    let [gelu, softmax, layer_norm] = [gelu, softmax, layer_norm].map(|time| ceiling.bytes(2 * 4 * row, time));
    println!("  a row of {row}: gelu {gelu}   softmax {softmax}   layer norm {layer_norm}");
    Ok(())
}

/// A gated feed-forward of one row, and a mixture of two of eight experts of the same size, all from caches or memory as they
/// come.
fn experts(cpu: &Cpu, ceiling: &Ceiling) -> Outcome<()> {
    let (ty, inner, count, used) = (TensorType::Q4_K, SIDE, 8, 2);
    let stack = || {
        let bytes = pattern(ty.row_bytes(SIDE * inner * count).unwrap_or(0));
        cpu.weight(WeightSource::from_bytes("measured", ty, [SIDE, inner, count], bytes))
    };
    let (gate, up, down, router) = (stack()?, stack()?, stack()?, weight(cpu, TensorType::F32, SIDE, count)?);
    let (single_gate, single_up) = (weight(cpu, ty, SIDE, inner)?, weight(cpu, ty, SIDE, inner)?);
    let matrix = ty.row_bytes(SIDE * inner).ok_or("whole blocks")?;
    let activation = Activation::Silu;
    let experts = Experts {
        router: &router,
        gate: &gate,
        up: &up,
        down: &down,
        used,
        gating: Gating::Softmax,
        renormalise: true,
        scale: 1.0,
        activation,
    };
    for rows in [1, ROWS[ROWS.len() - 1]] {
        let (x, mut out) = (input(cpu, rows, SIDE)?, cpu.tensor(rows, SIDE)?);
        let gated = median(|| cpu.gated(&x, None, &single_gate, &single_up, activation, &mut out))?;
        let mixed = median(|| cpu.experts(&x, None, &experts, &mut out))?;
        if rows == 1 {
            let [gated, mixed] = [ceiling.bytes(2 * matrix, gated), ceiling.bytes(3 * used * matrix, mixed)];
            println!("  a row: gated {gated}   {used} of {count} experts {mixed}");
        } else {
            let work = 2 * rows * SIDE * inner;
            let [gated, mixed] = [ceiling.operations(2 * work, gated), ceiling.operations(3 * used * work, mixed)];
            println!("  {rows} rows: gated {gated}   {used} of {count} experts {mixed}");
        }
    }
    Ok(())
}

fn weight(cpu: &Cpu, ty: TensorType, inputs: usize, outputs: usize) -> Result<CpuWeight, BackendError> {
    let bytes = pattern(ty.row_bytes(inputs).unwrap_or(0) * outputs);
    cpu.weight(WeightSource::from_bytes("measured", ty, [inputs, outputs, 1], bytes))
}

/// Any bytes do, except exponents of infinities and NaNs.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i * 31 + i / 251) % 0x3c) as u8).collect()
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect()
}

fn input(cpu: &Cpu, rows: usize, columns: usize) -> Result<CpuTensor, BackendError> {
    let mut tensor = cpu.tensor(rows, columns)?;
    cpu.write(&mut tensor, &values(rows * columns))?;
    Ok(tensor)
}

/// Returns the median time of the calls that fit the budget, at least five, after one to warm up.
fn median(mut call: impl FnMut() -> Result<(), BackendError>) -> Outcome<f64> {
    median_of(|| {
        let start = Instant::now();
        call()?;
        Ok(start.elapsed().as_secs_f64())
    })
}

/// As [`median`], of calls that time themselves.
fn median_of(mut call: impl FnMut() -> Outcome<f64>) -> Outcome<f64> {
    call()?;
    let (end, mut times) = (Instant::now() + BUDGET, Vec::new());
    while times.len() < 5 || Instant::now() < end {
        times.push(call()?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
