//! Measures matrix products for prefill and attention for decoding, against what the processor can do at most.
//!
//! `cargo run --release -p woolly-cpu --example prefill_ceiling [threads...] [types...]`: products with the shapes of TinyLlama-1.1B
//! at 16 to 512 rows, packing of the activations included, in GMAC/s and as a share of what the unit used for them reaches
//! on registers in the same run (`WOOLLY_ISA` chooses: bfloat16 tiles, or products of bytes); then attention of one new token over long contexts in GB/s of cache read.

#![allow(clippy::print_stdout, reason = "a measurement prints its results")]

use std::time::Instant;

use woolly_cpu::ceiling::Unit;
use woolly_cpu::isa::Level;
use woolly_cpu::pool::ThreadPool;
use woolly_cpu::{Cpu, CpuOptions};
use woolly_quant::TensorType;
use woolly_tensor::{
    Attention, AttentionShape, BLOCK_TOKENS, Backend, BackendError, Batch, CacheSpec, CacheType, Projection, Sequence,
    WeightSource,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Outputs and inputs of the matrices of TinyLlama-1.1B.
const SHAPES: [(usize, usize); 3] = [(2048, 2048), (5632, 2048), (2048, 5632)];

fn main() -> Outcome<()> {
    let (mut asked, mut types) = (Vec::new(), Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(threads) => asked.push(threads),
            Err(_) => types.push(argument.parse()?),
        }
    }
    if asked.is_empty() {
        asked = vec![1, 2];
    }
    if types.is_empty() {
        types = vec![TensorType::Q4_K, TensorType::Q6_K, TensorType::Q8_0, TensorType::F16];
    }
    for threads in asked {
        let cpu = Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() })?;
        let unit = match cpu.level() {
            Level::Amx => Unit::AmxBf16,
            Level::Avx512 => Unit::Avx512Int8,
            Level::AvxVnni => Unit::AvxVnniInt8,
            _ => Unit::Avx2Int8,
        };
        let peak = unit.peak(&ThreadPool::new(threads, false)?).map_or(f64::NAN, |operations| operations / 2e9);
        println!("{}: {} reaches {peak:.0} GMAC/s", cpu.describe(), unit.name());
        for &ty in &types {
            for shape in SHAPES {
                products(&cpu, ty, shape, peak)?;
            }
        }
        for (context, storage) in [2048, 8192].into_iter().flat_map(|c| [(c, CacheType::F32), (c, CacheType::F16)]) {
            attention(&cpu, context, storage)?;
        }
    }
    Ok(())
}

fn products(cpu: &Cpu, ty: TensorType, (outputs, inputs): (usize, usize), peak: f64) -> Outcome<()> {
    print!("{:5} {outputs:5} x {inputs:5}:", ty.name());
    // Enough copies that weights come from memory, not from a cache.
    let copies = (64 << 20) / ty.row_bytes(inputs * outputs).ok_or("whole blocks")? + 1;
    let weights = (0..copies).map(|copy| weight(cpu, ty, outputs, inputs, copy)).collect::<Result<Vec<_>, _>>()?;
    for rows in [16, 64, 128, 512] {
        let mut x = cpu.tensor(rows, inputs)?;
        let values: Vec<f32> = (0..rows * inputs).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
        cpu.write(&mut x, &values)?;
        let mut out = cpu.tensor(rows, outputs)?;
        let mut next = 0;
        let seconds = best(15, || {
            next = (next + 1) % weights.len();
            let projection = Projection { weight: &weights[next], bias: None, out: &mut out, accumulate: false };
            cpu.project(&x, None, &mut [projection])
        })?;
        let rate = (rows * inputs * outputs) as f64 / seconds / 1e9;
        print!("  {rows}: {rate:4.0} ({:2.0} %)", rate / peak * 100.0);
    }
    println!("  GMAC/s");
    Ok(())
}

fn weight(
    cpu: &Cpu,
    ty: TensorType,
    outputs: usize,
    inputs: usize,
    seed: usize,
) -> Result<woolly_cpu::CpuWeight, BackendError> {
    let bytes = ty.row_bytes(inputs).unwrap_or(0) * outputs;
    // Any bytes do, except exponents of infinities and NaNs, which the pattern avoids.
    let bytes = (0..bytes).map(|i| ((i * 31 + i / 251 + seed) % 0x3c) as u8).collect();
    cpu.weight(WeightSource::from_bytes("measured", ty, [inputs, outputs, 1], bytes))
}

/// One new token of TinyLlama's shape (32 heads on 4, 64 elements) at the end of a context.
fn attention(cpu: &Cpu, context: usize, storage: CacheType) -> Outcome<()> {
    let (heads, kv_heads, length, layers) = (32, 4, 64, 16);
    let count = context / BLOCK_TOKENS;
    let spec = CacheSpec { layers, kv_heads, key_length: length, value_length: length, blocks: count, storage };
    let mut cache = cpu.cache(&spec)?;
    let blocks: Vec<u32> = (0..count as u32).rev().collect();
    let shape = AttentionShape {
        heads,
        kv_heads,
        key_length: length,
        value_length: length,
        scale: 0.125,
        softcap: None,
        window: None,
    };
    for layer in 0..layers {
        // A window of one token fills the cache without attending to all of it.
        let sequence = Sequence { rows: 0..context, start: 0, blocks: &blocks };
        attend(cpu, layer, AttentionShape { window: Some(1), ..shape }, &sequence, &mut cache)?;
    }
    let sequence = Sequence { rows: 0..1, start: context - 1, blocks: &blocks };
    let mut seconds = f64::INFINITY;
    // Layer after layer, so that the cache comes from memory as it does in a model.
    for call in 0..10 * layers {
        seconds = seconds.min(attend(cpu, call % layers, shape, &sequence, &mut cache)?);
    }
    let bytes = (context * kv_heads * storage.token_bytes(length, length).unwrap_or(0)) as f64;
    let micros = seconds * 1e6;
    println!("decode attention at {context} {storage:?}: {:.1} GB/s, {micros:.0} us a layer", bytes / seconds / 1e9);
    Ok(())
}

/// Attends the rows of one sequence and returns the seconds it took.
fn attend(
    cpu: &Cpu,
    layer: usize,
    shape: AttentionShape,
    sequence: &Sequence<'_>,
    cache: &mut woolly_cpu::CpuCache,
) -> Result<f64, BackendError> {
    let (rows, columns, kv_columns) =
        (sequence.rows.len(), shape.heads * shape.key_length, shape.kv_heads * shape.key_length);
    let (mut q, mut k, mut v) =
        (cpu.tensor(rows, columns)?, cpu.tensor(rows, kv_columns)?, cpu.tensor(rows, kv_columns)?);
    let mut out = cpu.tensor(rows, columns)?;
    let values: Vec<f32> = (0..rows * kv_columns).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
    cpu.write(&mut k, &values)?;
    cpu.write(&mut v, &values)?;
    let batch = Batch { sequences: std::slice::from_ref(sequence) };
    let (q_norm, k_norm, rope) = (None, None, None);
    let args = Attention { layer, q: &mut q, k: &mut k, v: &v, q_norm, k_norm, rope, shape, batch };
    let start = Instant::now();
    cpu.attention(args, cache, &mut out)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Returns the shortest time of `n` calls, after one to warm up: other work on the machine can only add to it.
fn best(n: usize, mut call: impl FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
    call()?;
    let mut best = f64::INFINITY;
    for _ in 0..n {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
