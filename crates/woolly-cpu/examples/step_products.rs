//! Measures the matrix products of a decoding step, for one row and for batches of several.
//!
//! `cargo run --release -p woolly-cpu --example step_products [threads] [types, comma-separated] [rows, comma-separated]`:
//! all products of a step of TinyLlama-1.1B (22 layers and the head) with norms and gates, weights streamed from memory in
//! 2 MiB pages where the system grants them; milliseconds at best, the ratio to the first number of rows, and gigabytes
//! of weights a second as share of plain reading in the same run.

#![allow(clippy::print_stdout, reason = "a measurement prints its results")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use woolly_cpu::ceiling::{HugeMemory, ReadProbe};
use woolly_cpu::pool::ThreadPool;
use woolly_cpu::{Cpu, CpuOptions, CpuTensor, CpuWeight, default_threads};
use woolly_quant::TensorType;
use woolly_tensor::{Activation, Backend, BackendError, Norm, Projection, WeightSource};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const LAYERS: usize = 22;
const WIDTH: usize = 2048;
const KEYS: usize = 256;
const INNER: usize = 5632;
const VOCABULARY: usize = 32000;
/// Outputs and inputs of the matrices of a layer: queries, keys, values, output, gate, up, down.
const SHAPES: [(usize, usize); 7] =
    [(WIDTH, WIDTH), (KEYS, WIDTH), (KEYS, WIDTH), (WIDTH, WIDTH), (INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER)];
/// Time spent on each figure.
const BUDGET: Duration = Duration::from_millis(700);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.first().map_or(Ok(default_threads()), |text| text.parse())?;
    let types = arguments.get(1).map_or("Q4_K", String::as_str);
    let rows = arguments.get(2).map_or("1,2,4,8,16,32", String::as_str);
    let rows = rows.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let cpu = Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() })?;
    let pool = ThreadPool::new(threads, false)?;
    let probe = ReadProbe::new(768 << 20).ok_or("memory for plain reading")?;
    let plain = probe.bandwidth(&pool).best / 1e9;
    drop(probe);
    println!("{}: plain read {plain:.1} GB/s", cpu.describe());
    for name in types.split(',') {
        let model = Model::new(&cpu, name.parse()?)?;
        let mut first = None;
        for &rows in &rows {
            let seconds = model.best(&cpu, rows)?;
            let ratio = seconds / *first.get_or_insert(seconds);
            let rate = model.bytes as f64 / seconds / 1e9;
            println!(
                "  {name:8} {rows:3} rows {:7.2} ms  {ratio:5.2} x  {rate:5.1} GB/s {:3.0} %  {:6.1} rows/s",
                seconds * 1e3,
                100.0 * rate / plain,
                rows as f64 / seconds
            );
        }
    }
    Ok(())
}

struct Model {
    layers: Vec<[CpuWeight; 7]>,
    head: CpuWeight,
    norm: CpuWeight,
    bytes: usize,
}

struct Buffers {
    x: CpuTensor,
    q: CpuTensor,
    k: CpuTensor,
    v: CpuTensor,
    inner: CpuTensor,
    logits: CpuTensor,
}

impl Model {
    fn new(cpu: &Cpu, ty: TensorType) -> Outcome<Self> {
        let size = |(outputs, inputs): (usize, usize)| ty.row_bytes(inputs).map_or(0, |bytes| bytes * outputs);
        let head = (VOCABULARY, WIDTH);
        let bytes = LAYERS * SHAPES.map(size).iter().sum::<usize>() + size(head);
        let mut memory = HugeMemory::zeroed(bytes).ok_or("memory for the weights")?;
        // Any bytes do, except exponents of infinities and NaNs, which the pattern avoids.
        memory.iter_mut().enumerate().for_each(|(i, byte)| *byte = ((i * 31 + i / 251) % 0x3c) as u8);
        let owner = Arc::new(memory);
        let mut start = 0;
        let mut next = |shape: (usize, usize)| {
            let range = start..start + size(shape);
            start = range.end;
            let name = "measured".to_owned();
            cpu.weight(WeightSource { name, ty, dims: [shape.1, shape.0, 1], owner: owner.clone(), range })
        };
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            let [q, k, v, o, gate, up, down] = SHAPES.map(&mut next);
            layers.push([q?, k?, v?, o?, gate?, up?, down?]);
        }
        let norm = cpu.weight(WeightSource::from_f32("norm", [WIDTH, 1, 1], &[1.0; WIDTH]))?;
        Ok(Self { layers, head: next(head)?, norm, bytes })
    }

    fn best(&self, cpu: &Cpu, rows: usize) -> Outcome<f64> {
        let tensor = |columns| cpu.tensor(rows, columns);
        let (x, q, k, v) = (tensor(WIDTH)?, tensor(WIDTH)?, tensor(KEYS)?, tensor(KEYS)?);
        let mut buffers = Buffers { x, q, k, v, inner: tensor(INNER)?, logits: tensor(VOCABULARY)? };
        let values: Vec<f32> = (0..rows * WIDTH).map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0).collect();
        let end = Instant::now() + BUDGET;
        let mut best = f64::INFINITY;
        for round in 0.. {
            cpu.write(&mut buffers.x, &values)?;
            let start = Instant::now();
            self.step(cpu, &mut buffers)?;
            best = best.min(start.elapsed().as_secs_f64());
            if round >= 5 && Instant::now() > end {
                break;
            }
        }
        Ok(best)
    }

    fn step(&self, cpu: &Cpu, b: &mut Buffers) -> Result<(), BackendError> {
        let norm = || Some(Norm { weight: &self.norm, epsilon: 1e-5 });
        for [q, k, v, o, gate, up, down] in &self.layers {
            let projections = &mut [replace(q, &mut b.q), replace(k, &mut b.k), replace(v, &mut b.v)];
            cpu.project(&b.x, norm(), projections)?;
            cpu.project(&b.q, None, &mut [replace(o, &mut b.x)])?;
            cpu.gated(&b.x, norm(), gate, up, Activation::Silu, &mut b.inner)?;
            cpu.project(&b.inner, None, &mut [replace(down, &mut b.x)])?;
        }
        cpu.project(&b.x, norm(), &mut [replace(&self.head, &mut b.logits)])
    }
}

fn replace<'a>(weight: &'a CpuWeight, out: &'a mut CpuTensor) -> Projection<'a, Cpu> {
    Projection { weight, bias: None, out, accumulate: false }
}
