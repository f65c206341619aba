//! Tests of whole operations: the conformance suite at every level, attention over a grid of sizes, and the promise that
//! results do not depend on the number of threads.

use std::ops::Range;

use woolly_quant::TensorType;
use woolly_tensor::conformance::Tolerance;
use woolly_tensor::{AttentionShape, BLOCK_TOKENS, Batch, CacheType, Gating, Reference, Rope, RopeStyle, Sequence};

use super::*;
use crate::test_data::{blocks, levels, noise};

fn with(level: Level, threads: usize) -> Cpu {
    // A level this processor lacks is tested on one that has it.
    Cpu::new(CpuOptions { threads: Some(threads), level: Some(level.min(Level::best())), ..CpuOptions::default() })
        .unwrap()
}

woolly_tensor::conformance!(scalar, with(Level::Scalar, 2), Tolerance::INT8);
#[cfg(target_arch = "aarch64")]
woolly_tensor::conformance!(neon, with(Level::Neon, 2), Tolerance::INT8);
#[cfg(target_arch = "aarch64")]
woolly_tensor::conformance!(dotprod, with(Level::Dotprod, 2), Tolerance::INT8);
#[cfg(target_arch = "aarch64")]
woolly_tensor::conformance!(i8mm, with(Level::I8mm, 2), Tolerance::INT8);
#[cfg(not(target_arch = "aarch64"))]
woolly_tensor::conformance!(avx2, with(Level::Avx2, 2), Tolerance::INT8);
#[cfg(target_arch = "x86_64")]
woolly_tensor::conformance!(avx_vnni, with(Level::AvxVnni, 2), Tolerance::INT8);
#[cfg(not(target_arch = "aarch64"))]
woolly_tensor::conformance!(
    avx512,
    with(Level::Avx512, 2),
    Tolerance { bf16_activations: in_pairs(), ..Tolerance::INT8 }
);
// Tiles round both factors to bfloat16, a term by 2^-9 or so (rms), never above 2^-7: less than what eight-bit activations
// are allowed, 1/254 of the largest activation of a block times the weight, in the same direction for all terms.
#[cfg(not(target_arch = "aarch64"))]
woolly_tensor::conformance!(
    amx,
    with(Level::Amx, 2),
    Tolerance { bf16_activations: true, bf16_attention: true, ..Tolerance::INT8 }
);

#[test]
fn the_description_says_what_is_used() {
    assert_eq!(with(Level::Scalar, 1).describe(), "cpu (scalar, 1 thread)");
    assert!(with(Level::Scalar, 2).describe().ends_with("2 threads)"));
}

fn tensor<B: Backend>(backend: &B, columns: usize, values: &[f32]) -> B::Tensor {
    let mut tensor = backend.tensor(values.len() / columns, columns).unwrap();
    backend.write(&mut tensor, values).unwrap();
    tensor
}

fn values<B: Backend>(backend: &B, tensor: &B::Tensor, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    backend.read(tensor, &mut out).unwrap();
    out
}

/// An attention layer with a cache, stepped with noise.
struct Layer<'a, B: Backend> {
    backend: &'a B,
    shape: AttentionShape,
    cache: B::Cache,
    /// Blocks of two sequences, interleaved and out of order.
    blocks: [Vec<u32>; 2],
}

impl<'a, B: Backend> Layer<'a, B> {
    fn new(backend: &'a B, shape: AttentionShape, tokens: usize, storage: CacheType) -> Self {
        let each = tokens.div_ceil(BLOCK_TOKENS) as u32;
        let spec = CacheSpec {
            layers: 2,
            kv_heads: shape.kv_heads,
            key_length: shape.key_length,
            value_length: shape.value_length,
            blocks: 2 * each as usize,
            storage,
        };
        let blocks = [(0..each).rev().map(|b| 2 * b).collect(), (0..each).map(|b| 2 * ((b + 1) % each) + 1).collect()];
        Self { backend, shape, cache: backend.cache(&spec).unwrap(), blocks }
    }

    /// Attends the rows of both sequences' ranges of positions.
    fn step(&mut self, positions: [Range<usize>; 2], seed: u64) -> Vec<f32> {
        let (backend, shape) = (self.backend, self.shape);
        let rows = positions[0].len() + positions[1].len();
        let columns = [shape.heads * shape.key_length, shape.kv_heads * shape.key_length];
        let value_columns = shape.kv_heads * shape.value_length;
        let [mut q, mut k] = [0, 1].map(|i| tensor(backend, columns[i], &noise(rows * columns[i], seed + i as u64)));
        let v = tensor(backend, value_columns, &noise(rows * value_columns, seed + 2));
        let mut out = backend.tensor(rows, shape.heads * shape.value_length).unwrap();
        let dims = shape.key_length / 2;
        let angles: Vec<f32> = noise(rows * dims / 2, seed + 3).iter().flat_map(|a| [a.cos(), a.sin()]).collect();
        let first = positions[0].len();
        let sequences = [
            Sequence { rows: 0..first, start: positions[0].start, blocks: &self.blocks[0] },
            Sequence { rows: first..rows, start: positions[1].start, blocks: &self.blocks[1] },
        ];
        let args = Attention {
            layer: 1,
            q: &mut q,
            k: &mut k,
            v: &v,
            q_norm: None,
            k_norm: None,
            rope: Some(Rope { style: RopeStyle::Halves, dims, angles: &angles }),
            shape,
            batch: Batch { sequences: &sequences },
        };
        backend.attention(args, &mut self.cache, &mut out).unwrap();
        values(backend, &out, rows * shape.heads * shape.value_length)
    }
}

/// A prompt and a sequence of one token, then a token each, then a token and a chunk.
fn steps(tokens: usize) -> [[Range<usize>; 2]; 3] {
    let chunk = tokens.min(20);
    [[0..tokens, 0..1], [tokens..tokens + 1, 1..2], [tokens + 1..tokens + 2, 2..2 + chunk]]
}

#[test]
fn attention_matches_the_definition_over_groups_sizes_and_contexts() {
    let contexts = [1, 31, 32, 33, 95, 127, 128, 129, 200, 255, 256, 257, 300];
    let mut contexts = contexts.iter().cycle();
    for (group, size) in [1, 2, 4, 7, 8, 33].into_iter().flat_map(|g| [16, 48, 64, 80, 128, 256].map(|s| (g, s))) {
        let kv_heads = if group < 7 { 2 } else { 1 };
        for (window, softcap) in [(None, None), (Some(50), Some(2.0))] {
            let tokens = *contexts.next().unwrap();
            let storage = CacheType::ALL[tokens % 4];
            let (heads, scale) = (kv_heads * group, 3.0 / (size as f32).sqrt());
            let shape =
                AttentionShape { heads, kv_heads, key_length: size, value_length: size, scale, softcap, window };
            let reference = Reference::new();
            let mut oracle = Layer::new(&reference, shape, tokens + 30, storage);
            let expected = steps(tokens).map(|step| oracle.step(step, tokens as u64));
            for level in levels() {
                let cpu = with(level, 2);
                let mut layer = Layer::new(&cpu, shape, tokens + 30, storage);
                for (step, expected) in steps(tokens).into_iter().zip(&expected) {
                    let case = format!("{level:?} group {group} size {size} {storage:?} window {window:?} {step:?}");
                    let found = layer.step(step, tokens as u64);
                    // Values are below 1. A rounded key or value may fall to the neighbour.
                    let bound = match storage {
                        // Weights and values are rounded to eight bits of mantissa.
                        _ if level >= Level::Amx => 1e-2,
                        CacheType::F32 => 5e-6,
                        CacheType::F16 => 1e-3,
                        _ => 1e-2,
                    };
                    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(worst <= bound, "{case}: off by {worst}");
                }
            }
        }
    }
}

#[test]
fn what_lies_beyond_the_context_cannot_spoil_it() {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        key_length: 16,
        value_length: 16,
        scale: 0.25,
        softcap: None,
        window: None,
    };
    // Few rows and many take different kernels.
    for (level, rows) in levels().into_iter().flat_map(|level| [(level, 5), (level, 20)]) {
        let cpu = with(level, 1);
        let mut layer = Layer::new(&cpu, shape, 64, CacheType::F32);
        let clean = layer.step([0..rows, 0..1], 1);
        layer.cache.memory.bytes_mut().as_chunks_mut().0.iter_mut().for_each(|x| *x = f32::NAN.to_ne_bytes());
        assert_eq!(layer.step([0..rows, 0..1], 1), clean, "{level:?}, {rows} rows: a reused block held NaNs");
    }
}

/// Runs every operation once on `cpu`, large enough to be spread over its threads, with this many rows.
fn everything(cpu: &Cpu, rows: usize) -> Vec<Vec<f32>> {
    // Large enough for eight-bit activations with most types.
    let (columns, inner) = (1024, 712);
    let weight = |ty, dims: [usize; 3], seed| {
        let bytes = blocks(ty, dims[0], dims[1] * dims[2], seed);
        cpu.weight(WeightSource::from_bytes("w", ty, dims, bytes)).unwrap()
    };
    let x = tensor(cpu, columns, &noise(rows * columns, 1));
    let gain = cpu.weight(WeightSource::from_f32("gain", [columns, 1, 1], &noise(columns, 2))).unwrap();
    let norm = Some(Norm { weight: &gain, epsilon: 1e-5 });
    let bias = cpu.weight(WeightSource::from_f32("bias", [inner, 1, 1], &noise(inner, 3))).unwrap();
    let types =
        [TensorType::Q4_K, TensorType::BF16, TensorType::Q6_K, TensorType::F16, TensorType::Q8_0, TensorType::IQ3_S];
    let weights = types.map(|ty| weight(ty, [columns, inner, 1], 4));
    let mut outs = types.map(|_| tensor(cpu, inner, &noise(rows * inner, 5)));
    let mut projections: Vec<Projection<'_, Cpu>> = weights
        .iter()
        .zip(&mut outs)
        .enumerate()
        .map(|(i, (weight, out))| Projection { weight, bias: (i % 2 == 0).then_some(&bias), out, accumulate: i > 1 })
        .collect();
    cpu.project(&x, norm, &mut projections).unwrap();
    let mut gated = cpu.tensor(rows, inner).unwrap();
    cpu.gated(&x, norm, &weights[0], &weights[1], Activation::Silu, &mut gated).unwrap();
    let ty = TensorType::Q4_K;
    let experts = Experts {
        router: &weight(TensorType::F32, [columns, 5, 1], 6),
        gate: &weight(ty, [columns, 256, 5], 7),
        up: &weight(ty, [columns, 256, 5], 8),
        down: &weight(ty, [256, columns, 5], 9),
        used: 2,
        gating: Gating::Softmax,
        renormalise: true,
        scale: 1.0,
        activation: Activation::Gelu,
    };
    let mut mixed = tensor(cpu, columns, &noise(rows * columns, 10));
    cpu.experts(&x, norm, &experts, &mut mixed).unwrap();
    let mut normed = cpu.tensor(rows, columns).unwrap();
    cpu.norm(&x, Norm { weight: &gain, epsilon: 1e-5 }, &mut normed).unwrap();
    let mut results: Vec<_> = outs.iter().map(|out| values(cpu, out, rows * inner)).collect();
    results.push(values(cpu, &gated, rows * inner));
    results.push(values(cpu, &mixed, rows * columns));
    results.push(values(cpu, &normed, rows * columns));
    results
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (level, rows) in levels().into_iter().flat_map(|level| [1, 3, 8, 9, 20, 70].map(|rows| (level, rows))) {
        let alone = everything(&with(level, 1), rows);
        for threads in [2, 3] {
            let several = everything(&with(level, threads), rows);
            for (operation, (a, b)) in alone.iter().zip(&several).enumerate() {
                let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{level:?}, {rows} rows, {threads} threads: operation {operation} differs");
            }
        }
    }
}

#[test]
fn attention_does_not_depend_on_the_number_of_threads() {
    let shape = AttentionShape {
        heads: 8,
        kv_heads: 2,
        key_length: 64,
        value_length: 64,
        scale: 0.125,
        softcap: None,
        window: None,
    };
    let run = |level, threads| {
        let cpu = with(level, threads);
        let mut layer = Layer::new(&cpu, shape, 1100, CacheType::F16);
        [[0..1000, 0..3], [1000..1001, 3..60]].map(|step| layer.step(step, 3))
    };
    for level in levels() {
        let alone = run(level, 1);
        assert!([2, 3].into_iter().all(|threads| run(level, threads) == alone), "{level:?}");
    }
}

/// Whether AVX-512 multiplies many rows with large matrices of BF16 by pairs here.
fn in_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::isa::amd() && crate::isa::Avx512Bf16::new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[test]
fn few_and_many_rows_agree_up_to_the_order_of_sums() {
    let x = noise(33 * 512, 1);
    for (&ty, outputs) in TensorType::ALL.iter().flat_map(|ty| [(ty, 40), (ty, 1700)]) {
        // More than 256 KiB, where block types round activations to eight bits and some levels those of BF16, too; other float types have
        // no such limit.
        let large = outputs > 40;
        if matches!(ty, TensorType::Q8_1 | TensorType::Q8_K)
            || large && ty.block_elements() == 1 && ty != TensorType::BF16
        {
            continue;
        }
        let bytes = blocks(ty, 512, outputs, 2);
        for level in levels() {
            let cpu = with(level, 1);
            let source = WeightSource::from_bytes("w", ty, [512, outputs, 1], bytes.clone());
            let weight = cpu.weight(source).unwrap();
            let product = |rows: usize| {
                let mut out = cpu.tensor(rows, outputs).unwrap();
                let x = tensor(&cpu, 512, &x[..rows * 512]);
                let projection = Projection { weight: &weight, bias: None, out: &mut out, accumulate: false };
                cpu.project(&x, None, &mut [projection]).unwrap();
                values(&cpu, &out, rows * outputs)
            };
            let few = product(2);
            // On tiles, many rows are rounded to bfloat16 where few are to eight bits: over 512 columns they differ by 0.15 % of
            // the largest result (rms). Where BF16 is multiplied as it is, many rows are, and few not rounded.
            let rounded = level == Level::Amx || level == Level::Avx512 && ty == TensorType::BF16 && in_pairs();
            let bound = if large && rounded { 0.01 } else { 2e-5 };
            // Beside floats up to 32 rows are few; block types may be rescaled for more than 9.
            for many in [9, 32, 33].into_iter().filter(|&rows| rows == 9 || ty.block_elements() == 1) {
                let results = product(many);
                let size = results.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                for (a, b) in few.iter().zip(&results) {
                    assert!((a - b).abs() <= size * bound, "{level:?} {ty}: {a} alone, {b} among {many}");
                }
            }
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let cpu = with(Level::Avx512, 1);
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        key_length: 16,
        value_length: 16,
        scale: 0.25,
        softcap: None,
        window: Some(0),
    };
    let mut cache = Layer::new(&cpu, shape, 32, CacheType::F32).cache;
    let (zero, blocks) = (noise(32, 1), [0]);
    let mut attend = |shape: AttentionShape, rows: Range<usize>, start: usize| {
        let (mut q, mut k) = (tensor(&cpu, 32, &zero), tensor(&cpu, 16, &zero[..16]));
        let (v, mut out) = (tensor(&cpu, 16, &zero[..16]), cpu.tensor(1, 32).unwrap());
        let sequences = [Sequence { rows, start, blocks: &blocks }];
        let batch = Batch { sequences: &sequences };
        let (q_norm, k_norm, rope) = (None, None, None);
        let args = Attention { layer: 0, q: &mut q, k: &mut k, v: &v, q_norm, k_norm, rope, shape, batch };
        cpu.attention(args, &mut cache, &mut out)
    };
    let open = AttentionShape { window: None, ..shape };
    assert!(matches!(attend(shape, 0..1, 0), Err(BackendError::Shape { what: "window", .. })));
    assert!(matches!(attend(open, 1..1, 0), Err(BackendError::Shape { .. })), "rows must start at 0");
    assert!(matches!(attend(open, 0..1, usize::MAX), Err(BackendError::OutOfRange { .. })), "positions overflow");
    assert!(matches!(attend(AttentionShape { kv_heads: 0, ..open }, 0..1, 0), Err(BackendError::Shape { .. })));
    assert!(attend(open, 0..1, 31).is_ok());
    assert!(matches!(cpu.tensor(usize::MAX, 2), Err(BackendError::OutOfMemory { .. })));
    let activations = WeightSource::from_bytes("a", TensorType::Q8_K, [256, 1, 1], vec![0; 292]);
    assert!(matches!(cpu.weight(activations), Err(BackendError::UnsupportedType { .. })));
}
