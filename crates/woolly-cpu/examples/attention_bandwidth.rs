//! Measures how much of the machine's read bandwidth decode attention reaches, and how fast prefill attention is.
//!
//! `cargo run --release -p woolly-cpu --example attention_bandwidth [threads] [context] [only]...`
//!
//! With words such as `64/8` (elements of a head, group), `f16` and `avx512`, only what has all of these names is measured.
//!
//! Decode: one new token at the end of the context, layer after layer of 320 MiB of cache, so that it comes from memory;
//! as share of plain reading in the same process. Prefill: 512 new tokens at the end of the context, in floating-point
//! operations of what is not masked. Blocks of a sequence run backwards, as in a cache that has been in use.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::time::Instant;

use woolly_cpu::ceiling::ReadProbe;
use woolly_cpu::isa::Level;
use woolly_cpu::pool::ThreadPool;
use woolly_cpu::{Cpu, CpuCache, CpuOptions, default_threads};
use woolly_tensor::{Attention, AttentionShape, BLOCK_TOKENS, Backend, Batch, CacheSpec, CacheType, Sequence};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Elements of a head, query heads of a key-value head.
const SHAPES: [(usize, usize); 6] = [(64, 1), (64, 4), (64, 8), (128, 1), (128, 4), (128, 8)];
const KV_HEADS: usize = 4;
const CACHE_BYTES: usize = 320 << 20;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (threads, context) = (number(0, default_threads()), number(1, 8192).next_multiple_of(BLOCK_TOKENS));
    let pool = ThreadPool::new(threads, false)?;
    let plain = ReadProbe::new(1 << 30).ok_or("not enough memory")?.bandwidth(&pool).best / 1e9;
    println!("{threads} threads, plain read {plain:.1} GB/s, context {context}");
    let only = arguments.get(2..).unwrap_or_default();
    for ((length, group), storage) in SHAPES.into_iter().flat_map(|s| CacheType::ALL.map(|ty| (s, ty))) {
        let names = [format!("{length}/{group}"), storage.to_string()];
        let wanted = |level: &Level| only.iter().all(|word| names.contains(word) || word == level.name());
        let levels: Vec<_> = Level::available().filter(|&level| level > Level::Scalar).filter(wanted).collect();
        if levels.is_empty() {
            continue;
        }
        print!("head {length:3} group {group} {storage:5}");
        for level in levels {
            let cpu = Cpu::new(CpuOptions { threads: Some(threads), level: Some(level), ..CpuOptions::default() })?;
            let mut layers = Layers::new(&cpu, length, group, context, storage)?;
            let read = layers.decode()? / 1e9;
            let computed = layers.attend(512.min(context), 0)? / 1e12;
            print!("   {} {read:5.1} GB/s {:3.0} % {computed:.2} TFLOP/s", level.name(), 100.0 * read / plain);
        }
        println!();
    }
    Ok(())
}

/// A cache of several layers, filled.
struct Layers<'a> {
    cpu: &'a Cpu,
    shape: AttentionShape,
    context: usize,
    count: usize,
    cache: CpuCache,
    blocks: Vec<u32>,
    layer_bytes: f64,
}

impl<'a> Layers<'a> {
    fn new(cpu: &'a Cpu, length: usize, group: usize, context: usize, storage: CacheType) -> Outcome<Self> {
        let shape = AttentionShape {
            heads: KV_HEADS * group,
            kv_heads: KV_HEADS,
            key_length: length,
            value_length: length,
            scale: 0.125,
            softcap: None,
            window: None,
        };
        let layer_bytes = storage.token_bytes(length, length).ok_or("too long")? * KV_HEADS * context;
        let (count, blocks) = (CACHE_BYTES / layer_bytes + 1, context / BLOCK_TOKENS);
        let spec =
            CacheSpec { layers: count, kv_heads: KV_HEADS, key_length: length, value_length: length, blocks, storage };
        let mut cache = cpu.cache(&spec)?;
        cpu.use_in_order(&mut cache);
        let blocks = (0..u32::try_from(blocks)?).rev().collect();
        let mut layers = Self { cpu, shape, context, count, cache, blocks, layer_bytes: layer_bytes as f64 };
        // A window of one token fills the cache without attending to all of it.
        let narrow = AttentionShape { window: Some(1), ..shape };
        for layer in 0..count {
            layers.step(layer, context, narrow)?;
        }
        Ok(layers)
    }

    /// Returns the bytes a second at which a token reads the cache, in the fastest of several passes over all layers.
    fn decode(&mut self) -> Outcome<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            let mut seconds = 0.0;
            for layer in 0..self.count {
                seconds += self.step(layer, 1, self.shape)?;
            }
            best = best.min(seconds);
        }
        Ok(self.layer_bytes * self.count as f64 / best)
    }

    /// Returns the operations a second of `rows` new tokens at the end of the context: of the fastest of three steps.
    fn attend(&mut self, rows: usize, layer: usize) -> Outcome<f64> {
        let scores: usize = (self.context - rows + 1..=self.context).sum();
        let operations = (scores * self.shape.heads * 2 * (self.shape.key_length + self.shape.value_length)) as f64;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            best = best.min(self.step(layer, rows, self.shape)?);
        }
        Ok(operations / best)
    }

    /// Attends the last `rows` tokens of the context and returns the seconds it took.
    fn step(&mut self, layer: usize, rows: usize, shape: AttentionShape) -> Outcome<f64> {
        let [columns, kv_columns] = [shape.heads, shape.kv_heads].map(|heads| heads * shape.key_length);
        let tensor = |columns: usize| -> Outcome<_> {
            let mut tensor = self.cpu.tensor(rows, columns)?;
            let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
            self.cpu.write(&mut tensor, &values)?;
            Ok(tensor)
        };
        let (mut q, mut k, v, mut out) =
            (tensor(columns)?, tensor(kv_columns)?, tensor(kv_columns)?, self.cpu.tensor(rows, columns)?);
        let sequence = Sequence { rows: 0..rows, start: self.context - rows, blocks: &self.blocks };
        let batch = Batch { sequences: std::slice::from_ref(&sequence) };
        let (q_norm, k_norm, rope) = (None, None, None);
        let args = Attention { layer, q: &mut q, k: &mut k, v: &v, q_norm, k_norm, rope, shape, batch };
        let start = Instant::now();
        self.cpu.attention(args, &mut self.cache, &mut out)?;
        Ok(start.elapsed().as_secs_f64())
    }
}
