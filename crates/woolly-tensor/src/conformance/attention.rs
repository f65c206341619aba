//! Attention over head groups, sizes, rotations, windows and scattered cache blocks, step after step.

use super::Tolerance;
use super::dense::{assert_close, tensor, values, weight};
use super::random::Random;
use crate::{
    Attention, AttentionShape, BLOCK_TOKENS, Backend, BackendError, Batch, CacheSpec, CacheType, Norm, Reference, Rope,
    RopeStyle, Sequence, WeightSource,
};

/// One configuration; the steps of [`STEPS`] run on it with two sequences.
struct Case {
    what: &'static str,
    heads: usize,
    kv_heads: usize,
    key_length: usize,
    value_length: usize,
    rope: Option<(RopeStyle, usize)>,
    head_norms: bool,
    softcap: Option<f32>,
    window: Option<usize>,
    storage: CacheType,
}

const PLAIN: Case = Case {
    what: "multi-head, adjacent pairs",
    heads: 4,
    kv_heads: 4,
    key_length: 16,
    value_length: 16,
    rope: Some((RopeStyle::Adjacent, 16)),
    head_norms: false,
    softcap: None,
    window: None,
    storage: CacheType::F32,
};

const CASES: [Case; 12] = [
    PLAIN,
    Case { what: "no rotation", rope: None, ..PLAIN },
    Case { what: "split halves, partly rotated", rope: Some((RopeStyle::Halves, 8)), ..PLAIN },
    Case { what: "group of two, 64 elements", heads: 4, kv_heads: 2, key_length: 64, value_length: 64, ..PLAIN },
    Case { what: "group of seven, head norms", heads: 7, kv_heads: 1, head_norms: true, ..PLAIN },
    Case { what: "group of eight, 128 elements", heads: 8, kv_heads: 1, key_length: 128, value_length: 128, ..PLAIN },
    Case { what: "odd sizes, value shorter than key", key_length: 22, value_length: 9, heads: 3, kv_heads: 3, ..PLAIN },
    Case { what: "window and softcap", window: Some(40), softcap: Some(5.0), ..PLAIN },
    Case { what: "half-precision cache", heads: 4, kv_heads: 2, storage: CacheType::F16, ..PLAIN },
    Case { what: "eight-bit cache", heads: 4, kv_heads: 2, key_length: 40, storage: CacheType::Q8, ..PLAIN },
    Case { what: "eight- and four-bit cache", kv_heads: 2, value_length: 48, storage: CacheType::Q8Q4, ..PLAIN },
    Case {
        what: "eight-bit cache, window and softcap",
        storage: CacheType::Q8,
        window: Some(40),
        softcap: Some(5.0),
        ..PLAIN
    },
];

/// New tokens of the two sequences in each step: a prompt, single tokens, a second prompt, long chunks.
const STEPS: [[usize; 2]; 6] = [[5, 0], [1, 0], [1, 70], [33, 1], [1, 1], [64, 31]];

const BLOCKS: usize = 10;

/// Checks attention in every configuration; the cache's contents show in the results of the later steps.
///
/// # Panics
/// When a check fails.
pub fn attention<B: Backend>(backend: &B, tolerance: Tolerance) {
    for case in &CASES {
        let mut ours = Run::new(backend, case);
        let reference = Reference::new();
        let mut want = Run::new(&reference, case);
        let mut lengths = [0, 0];
        for (step, counts) in STEPS.into_iter().enumerate() {
            let inputs = Inputs::new(case, step, lengths, counts);
            let (got, want) = (ours.step(case, &inputs), want.step(case, &inputs));
            // Keys and values may be rounded to the neighbour when they differ in their last bit before.
            let share = match case.storage {
                // Values are at most 10 here, and so are their weighted means.
                CacheType::F32 | CacheType::F16 if tolerance.bf16_attention => 2.0_f64.powi(-8),
                CacheType::F32 => tolerance.relative * 100.0,
                CacheType::F16 => 2e-3,
                CacheType::Q8 | CacheType::Q8Q4 => 5e-3,
            };
            assert_close(
                &format!("attention, {}, step {step}", case.what),
                &got,
                &want,
                &vec![share * 10.0; got.len()],
            );
            lengths = [lengths[0] + counts[0], lengths[1] + counts[1]];
        }
    }
    out_of_range(backend);
}

/// The tensors of one step on the host.
struct Inputs {
    starts: [usize; 2],
    counts: [usize; 2],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    angles: Vec<f32>,
}

impl Inputs {
    fn new(case: &Case, step: usize, starts: [usize; 2], counts: [usize; 2]) -> Self {
        let mut random = Random::new(step as u64 * 977 + case.heads as u64);
        let rows = counts[0] + counts[1];
        let positions = (0..2).flat_map(|s| starts[s]..starts[s] + counts[s]);
        let pairs = case.rope.map_or(0, |(_, dims)| dims / 2);
        let angle = |p: usize, i: usize| (p as f64 * 100.0_f64.powf(-(i as f64) / pairs as f64)).sin_cos();
        let angles =
            positions.flat_map(|p| (0..pairs).map(move |i| angle(p, i))).flat_map(|(s, c)| [c as f32, s as f32]);
        Self {
            starts,
            counts,
            angles: angles.collect(),
            q: random.values(rows * case.heads * case.key_length),
            k: random.values(rows * case.kv_heads * case.key_length),
            v: random.values(rows * case.kv_heads * case.value_length),
        }
    }
}

/// A backend with its cache and head norms.
struct Run<'a, B: Backend> {
    backend: &'a B,
    cache: B::Cache,
    norm: B::Weight,
    /// Blocks of the two sequences.
    tables: [Vec<u32>; 2],
}

impl<'a, B: Backend> Run<'a, B> {
    fn new(backend: &'a B, case: &Case) -> Self {
        Self::with_blocks(backend, case, BLOCKS)
    }

    fn with_blocks(backend: &'a B, case: &Case, blocks: usize) -> Self {
        let spec = CacheSpec {
            layers: 2,
            kv_heads: case.kv_heads,
            key_length: case.key_length,
            value_length: case.value_length,
            blocks,
            storage: case.storage,
        };
        let values: Vec<f32> = (0..case.key_length).map(|i| 0.5 + i as f32 / 64.0).collect();
        let norm = weight(backend, &WeightSource::from_f32("head norm", [case.key_length, 1, 1], &values));
        // They alternate and run backwards, as in a cache that has been in use for a while.
        let tables = [vec![8, 6, 4, 2, 0], vec![1, 3, 5, 7, 9]];
        Self { backend, cache: backend.cache(&spec).expect("a small cache"), norm, tables }
    }

    fn step(&mut self, case: &Case, inputs: &Inputs) -> Vec<f32> {
        let backend = self.backend;
        let rows = inputs.counts[0] + inputs.counts[1];
        let mut q = tensor(backend, case.heads * case.key_length, &inputs.q);
        let mut k = tensor(backend, case.kv_heads * case.key_length, &inputs.k);
        let v = tensor(backend, case.kv_heads * case.value_length, &inputs.v);
        let mut out = backend.tensor(rows, case.heads * case.value_length).expect("a small tensor");
        let sequences: Vec<Sequence<'_>> = (0..2)
            .filter(|&s| inputs.counts[s] > 0)
            .map(|s| {
                let first = if s == 0 { 0 } else { inputs.counts[0] };
                Sequence { rows: first..first + inputs.counts[s], start: inputs.starts[s], blocks: &self.tables[s] }
            })
            .collect();
        let norm = case.head_norms.then_some(Norm { weight: &self.norm, epsilon: 1e-6 });
        let args = Attention {
            layer: 1,
            q: &mut q,
            k: &mut k,
            v: &v,
            q_norm: norm,
            k_norm: norm,
            rope: case.rope.map(|(style, dims)| Rope { style, dims, angles: &inputs.angles }),
            shape: shape(case),
            batch: Batch { sequences: &sequences },
        };
        backend.attention(args, &mut self.cache, &mut out).expect("sizes agree");
        values(backend, &out, rows * case.heads * case.value_length)
    }
}

fn shape(case: &Case) -> AttentionShape {
    AttentionShape {
        heads: case.heads,
        kv_heads: case.kv_heads,
        key_length: case.key_length,
        value_length: case.value_length,
        scale: 1.0 / (case.key_length as f32).sqrt(),
        softcap: case.softcap,
        window: case.window,
    }
}

/// Positions, blocks and layers outside the cache are errors.
fn out_of_range<B: Backend>(backend: &B) {
    let cases: [(&str, &[u32], usize, usize); 3] = [
        ("a position beyond the blocks", &[0], BLOCK_TOKENS, 0),
        ("a block beyond the cache", &[BLOCKS as u32], 0, 0),
        ("a layer beyond the cache", &[0], 0, 2),
    ];
    for (what, blocks, start, layer) in cases {
        let mut run = Run::new(backend, &PLAIN);
        let columns = PLAIN.heads * PLAIN.key_length;
        let zeros = vec![0.0; columns];
        let (mut q, mut k, v) =
            (tensor(backend, columns, &zeros), tensor(backend, columns, &zeros), tensor(backend, columns, &zeros));
        let mut out = backend.tensor(1, columns).expect("a small tensor");
        let args = Attention {
            layer,
            q: &mut q,
            k: &mut k,
            v: &v,
            q_norm: None,
            k_norm: None,
            rope: None,
            shape: shape(&PLAIN),
            batch: Batch { sequences: &[Sequence { rows: 0..1, start, blocks }] },
        };
        let error = backend.attention(args, &mut run.cache, &mut out).expect_err(what);
        assert!(matches!(error, BackendError::OutOfRange { .. }), "{what}: {error}");
    }
}

/// The cases whose blocks are copied, saved and restored.
const BLOCK_CASES: [Case; 4] = [
    PLAIN,
    Case { what: "odd sizes", key_length: 22, value_length: 9, heads: 3, kv_heads: 3, ..PLAIN },
    Case { what: "half-precision cache", heads: 4, kv_heads: 2, storage: CacheType::F16, ..PLAIN },
    Case { what: "eight- and four-bit cache", heads: 4, kv_heads: 2, storage: CacheType::Q8Q4, ..PLAIN },
];

/// Checks that blocks can be copied, saved, restored and released, and that nothing else changes with it.
///
/// # Panics
/// When a check fails.
pub fn cache_blocks<B: Backend>(backend: &B) {
    for case in &BLOCK_CASES {
        restored_elsewhere(backend, case);
        copied(backend, case);
        released(backend, case);
        kept_in_part(backend, case);
    }
    blocks_out_of_range(backend);
}

/// Tokens in the cache before blocks are handled: two blocks, the second partly filled.
const FILLED: usize = 50;

/// A run whose first sequence has [`FILLED`] tokens in the given blocks.
fn filled<'a, B: Backend>(backend: &'a B, case: &Case, blocks: [u32; 3]) -> Run<'a, B> {
    let mut run = Run::new(backend, case);
    run.tables[0] = blocks.to_vec();
    run.step(case, &Inputs::new(case, 0, [0, 0], [FILLED, 0]));
    run
}

/// Contents saved from one cache and loaded into other blocks of another give the same bits.
fn restored_elsewhere<B: Backend>(backend: &B, case: &Case) {
    let mut ours = filled(backend, case, [8, 6, 4]);
    let mut other = Run::with_blocks(backend, case, BLOCKS + 3);
    let mut bytes = vec![0; backend.block_bytes(&ours.cache)];
    for (from, to) in [(8, 12), (6, 0)] {
        backend.save_block(&ours.cache, from, &mut bytes).expect("a block of the cache");
        backend.load_block(&mut other.cache, to, &bytes).expect("a block of the cache");
        let mut again = vec![0xa5; bytes.len()];
        backend.save_block(&other.cache, to, &mut again).expect("a block of the cache");
        assert_eq!(again, bytes, "{}: a block saved after it was loaded", case.what);
    }
    other.tables[0] = vec![12, 0, 3];
    let next = Inputs::new(case, 1, [FILLED, 0], [20, 0]);
    assert_eq!(other.step(case, &next), ours.step(case, &next), "{}: restored blocks", case.what);
}

/// A copied block is what it was when it was copied, whatever its original becomes.
fn copied<B: Backend>(backend: &B, case: &Case) {
    let next = Inputs::new(case, 1, [FILLED, 0], [20, 0]);
    let expected = filled(backend, case, [8, 6, 4]).step(case, &next);
    let mut run = filled(backend, case, [8, 6, 4]);
    backend.copy_block(&mut run.cache, 6, 2).expect("blocks of the cache");
    backend.copy_block(&mut run.cache, 2, 2).expect("a block may be copied to itself");
    run.step(case, &Inputs::new(case, 2, [FILLED, 0], [14, 0]));
    run.tables[0] = vec![8, 2, 5];
    assert_eq!(run.step(case, &next), expected, "{}: a copied block", case.what);
}

/// Released blocks can be written again, and the others keep their contents.
fn released<B: Backend>(backend: &B, case: &Case) {
    let next = Inputs::new(case, 1, [FILLED, 0], [20, 0]);
    let expected = filled(backend, case, [8, 6, 4]).step(case, &next);
    let mut run = filled(backend, case, [8, 6, 4]);
    backend.release_blocks(&mut run.cache, &[9, 7, 5, 3, 4]).expect("blocks of the cache");
    backend.release_blocks(&mut run.cache, &[]).expect("nothing to do");
    assert_eq!(run.step(case, &next), expected, "{}: blocks beside released ones", case.what);
    backend.release_blocks(&mut run.cache, &[6, 8, 4]).expect("blocks of the cache");
    run.step(case, &Inputs::new(case, 0, [0, 0], [FILLED, 0]));
    assert_eq!(run.step(case, &next), expected, "{}: released blocks written again", case.what);
}

/// What is saved of the first tokens of a block does not depend on the others, and is all that these tokens need.
fn kept_in_part<B: Backend>(backend: &B, case: &Case) {
    const KEPT: usize = 7;
    let start = BLOCK_TOKENS + KEPT;
    let saved = |run: &Run<'_, B>, tokens| {
        let mut bytes = vec![0; backend.block_bytes(&run.cache)];
        backend.save_block(&run.cache, 6, &mut bytes).expect("a block of the cache");
        backend.keep_tokens(&run.cache, tokens, &mut bytes).expect("contents of a block");
        bytes
    };
    let mut ours = filled(backend, case, [8, 6, 4]);
    let first = saved(&ours, KEPT);
    let whole = saved(&ours, BLOCK_TOKENS);
    ours.step(case, &Inputs::new(case, 2, [start, 0], [FILLED - start + 3, 0]));
    assert_eq!(saved(&ours, KEPT), first, "{}: what is left shows what followed", case.what);
    assert_ne!(saved(&ours, BLOCK_TOKENS), whole, "{}: a whole block keeps everything", case.what);
    assert!(saved(&ours, 0).iter().all(|&byte| byte == 0), "{}: nothing kept", case.what);
    let next = Inputs::new(case, 1, [start, 0], [20, 0]);
    let expected = filled(backend, case, [8, 6, 4]).step(case, &next);
    let mut other = filled(backend, case, [8, 6, 4]);
    backend.load_block(&mut other.cache, 6, &first).expect("a block of the cache");
    assert_eq!(other.step(case, &next), expected, "{}: a block kept in part", case.what);
}

fn blocks_out_of_range<B: Backend>(backend: &B) {
    let mut run = Run::new(backend, &PLAIN);
    let (cache, outside) = (&mut run.cache, BLOCKS as u32);
    let mut bytes = vec![0; backend.block_bytes(cache)];
    let results = [
        backend.copy_block(cache, outside, 0),
        backend.copy_block(cache, 0, outside),
        backend.copy_block(cache, u32::MAX, u32::MAX),
        backend.save_block(cache, outside, &mut bytes),
        backend.load_block(cache, outside, &bytes),
        backend.release_blocks(cache, &[0, outside]),
    ];
    for result in results {
        assert!(matches!(result, Err(BackendError::OutOfRange { .. })), "a block outside the cache: {result:?}");
    }
    bytes.push(0);
    for size in [0, bytes.len() - 2, bytes.len()] {
        let results = [
            backend.save_block(cache, 0, &mut bytes[..size]),
            backend.load_block(cache, 0, &bytes[..size]),
            backend.keep_tokens(cache, 1, &mut bytes[..size]),
        ];
        assert!(results.iter().all(|r| matches!(r, Err(BackendError::Shape { .. }))), "{size} bytes: {results:?}");
    }
}
