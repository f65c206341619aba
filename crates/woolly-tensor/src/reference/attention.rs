//! Causal attention and its cache, by definition: one query, one key, one score at a time.

use std::ops::Range;

use woolly_quant::half::{f16_to_f32, f32_to_f16};

use super::{Reference, ReferenceTensor};
use crate::{
    Attention, AttentionShape, BLOCK_TOKENS, BackendError, CacheSpec, CacheType, Norm, Rope, RopeStyle, Sequence, ops,
};

/// Keys and values of all layers, one vector a token, head and layer, in ordinary memory.
#[derive(Debug)]
pub struct ReferenceCache {
    spec: CacheSpec,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// A token's place in the cache.
#[derive(Clone, Copy)]
struct Slot {
    layer: usize,
    block: u32,
    token: usize,
}

impl ReferenceCache {
    pub(super) fn new(spec: &CacheSpec) -> Result<Self, BackendError> {
        let too_large = BackendError::OutOfMemory { what: "key-value cache", bytes: usize::MAX };
        if spec.bytes().is_none() {
            return Err(too_large);
        }
        let tokens = spec.layers * spec.blocks * BLOCK_TOKENS * spec.kv_heads;
        Ok(Self {
            spec: spec.clone(),
            keys: vec![0.0; tokens * spec.key_length],
            values: vec![0.0; tokens * spec.value_length],
        })
    }

    fn index(&self, slot: Slot, head: usize) -> usize {
        let block = slot.layer * self.spec.blocks + slot.block as usize;
        (block * BLOCK_TOKENS + slot.token) * self.spec.kv_heads + head
    }

    fn key(&self, slot: Slot, head: usize) -> &[f32] {
        let at = self.index(slot, head) * self.spec.key_length;
        &self.keys[at..at + self.spec.key_length]
    }

    fn value(&self, slot: Slot, head: usize) -> &[f32] {
        let at = self.index(slot, head) * self.spec.value_length;
        &self.values[at..at + self.spec.value_length]
    }

    /// Bytes of the saved form of a block: every number in single precision, whatever it was rounded to.
    pub(super) fn block_bytes(&self) -> usize {
        self.spec.layers * BLOCK_TOKENS * self.spec.kv_heads * (self.spec.key_length + self.spec.value_length) * 4
    }

    pub(super) fn save(&self, op: &'static str, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        self.check_block(op, block, out.len())?;
        let mut out = out.as_chunks_mut::<4>().0.iter_mut();
        for [keys, values] in self.parts(block) {
            for (from, to) in self.keys[keys].iter().chain(&self.values[values]).zip(&mut out) {
                *to = from.to_le_bytes();
            }
        }
        Ok(())
    }

    pub(super) fn load(&mut self, op: &'static str, block: u32, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_block(op, block, bytes.len())?;
        let mut bytes = bytes.as_chunks::<4>().0.iter();
        for [keys, values] in self.parts(block) {
            for (to, &from) in self.keys[keys].iter_mut().chain(&mut self.values[values]).zip(&mut bytes) {
                *to = f32::from_le_bytes(from);
            }
        }
        Ok(())
    }

    /// Zeros in the saved form of a block what follows its first `tokens` tokens.
    pub(super) fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), BackendError> {
        BackendError::expect_size("keep_tokens", "bytes of a block", saved.len(), self.block_bytes())?;
        let CacheSpec { layers, kv_heads, key_length, value_length, .. } = self.spec;
        let mut rest = saved;
        for length in (0..layers).flat_map(|_| [key_length, value_length]) {
            let token = kv_heads * length * size_of::<f32>();
            let (part, after) = rest.split_at_mut(BLOCK_TOKENS * token);
            part[tokens.min(BLOCK_TOKENS) * token..].fill(0);
            rest = after;
        }
        Ok(())
    }

    /// Makes blocks hold what nobody may rely on.
    pub(super) fn forget(&mut self, blocks: &[u32]) -> Result<(), BackendError> {
        BackendError::expect_blocks("release_blocks", blocks, self.spec.blocks)?;
        for &block in blocks {
            for [keys, values] in self.parts(block) {
                self.keys[keys].fill(f32::NAN);
                self.values[values].fill(f32::NAN);
            }
        }
        Ok(())
    }

    fn check_block(&self, op: &'static str, block: u32, bytes: usize) -> Result<(), BackendError> {
        BackendError::expect_blocks(op, &[block], self.spec.blocks)?;
        BackendError::expect_size(op, "bytes of a block", bytes, self.block_bytes())
    }

    /// Returns where the keys and values of a block lie, layer after layer.
    fn parts(&self, block: u32) -> Vec<[Range<usize>; 2]> {
        let part = |layer, length| {
            let size = BLOCK_TOKENS * self.spec.kv_heads * length;
            let start = (layer * self.spec.blocks + block as usize) * size;
            start..start + size
        };
        (0..self.spec.layers).map(|l| [part(l, self.spec.key_length), part(l, self.spec.value_length)]).collect()
    }

    fn store(&mut self, slot: Slot, head: usize, key: &[f32], value: &[f32]) {
        let storage = self.spec.storage;
        let at = self.index(slot, head);
        let (k, v) = (at * self.spec.key_length, at * self.spec.value_length);
        round_into(storage, true, key, &mut self.keys[k..k + key.len()]);
        round_into(storage, false, value, &mut self.values[v..v + value.len()]);
    }
}

/// Stores `from` in a type and reads it back.
fn round_into(storage: CacheType, is_key: bool, from: &[f32], to: &mut [f32]) {
    match storage {
        CacheType::F32 => to.copy_from_slice(from),
        CacheType::F16 => to.iter_mut().zip(from).for_each(|(t, &f)| *t = half(f)),
        CacheType::Q8Q4 if !is_key => {
            to.chunks_mut(32).zip(from.chunks(32)).for_each(|(t, f)| round_to_integers(f, -8.0, [-8.0, 7.0], t));
        }
        CacheType::Q8 | CacheType::Q8Q4 => round_to_integers(from, 127.0, [-127.0, 127.0], to),
    }
}

/// Rounds to multiples, from the first to the second of `range`, of a scale with which the element of largest magnitude
/// is `top` or, where the range allows it, `-top`.
fn round_to_integers(from: &[f32], top: f32, range: [f32; 2], to: &mut [f32]) {
    let extreme = from.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    let scale = half(if top > 0.0 { extreme.abs() } else { extreme } / top);
    for (to, from) in to.iter_mut().zip(from) {
        *to = if scale == 0.0 { 0.0 } else { (from / scale).round_ties_even().clamp(range[0], range[1]) * scale };
    }
}

/// The nearest half-precision number.
fn half(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(x))
}

pub(super) fn attend(
    args: Attention<'_, Reference>,
    cache: &mut ReferenceCache,
    out: &mut ReferenceTensor,
) -> Result<(), BackendError> {
    check(&args, cache, out)?;
    let shape = args.shape;
    prepare(args.q, shape.heads, shape.key_length, args.q_norm, args.rope)?;
    prepare(args.k, shape.kv_heads, shape.key_length, args.k_norm, args.rope)?;
    out.set_rows("attention", args.q.rows)?;
    for sequence in args.batch.sequences {
        for (offset, row) in sequence.rows.clone().enumerate() {
            let slot = slot(sequence, args.layer, sequence.start + offset, cache)?;
            for head in 0..shape.kv_heads {
                let key = &args.k.row(row)[head * shape.key_length..][..shape.key_length];
                let value = &args.v.row(row)[head * shape.value_length..][..shape.value_length];
                cache.store(slot, head, key, value);
            }
        }
        for (offset, row) in sequence.rows.clone().enumerate() {
            let position = sequence.start + offset;
            attend_row(args.q.row(row), sequence, args.layer, position, shape, cache, out.row_mut(row))?;
        }
    }
    Ok(())
}

fn check(args: &Attention<'_, Reference>, cache: &ReferenceCache, out: &ReferenceTensor) -> Result<(), BackendError> {
    let (op, shape, rows) = ("attention", args.shape, args.batch.rows());
    let groups = shape.kv_heads.max(1);
    let sizes = [
        ("columns of q", args.q.columns, shape.heads * shape.key_length),
        ("columns of k", args.k.columns, shape.kv_heads * shape.key_length),
        ("columns of v", args.v.columns, shape.kv_heads * shape.value_length),
        ("columns of the output", out.columns, shape.heads * shape.value_length),
        ("rows of q", args.q.rows, rows),
        ("rows of k", args.k.rows, rows),
        ("rows of v", args.v.rows, rows),
        ("key-value heads of the cache", cache.spec.kv_heads, shape.kv_heads),
        ("key length of the cache", cache.spec.key_length, shape.key_length),
        ("value length of the cache", cache.spec.value_length, shape.value_length),
        ("key-value heads", shape.kv_heads, groups),
        ("query heads beyond a multiple of the key-value heads", shape.heads % groups, 0),
    ];
    for (what, found, expected) in sizes {
        BackendError::expect_size(op, what, found, expected)?;
    }
    if let Some(rope) = args.rope {
        BackendError::expect_size(op, "rotation angles", rope.angles.len(), rows * rope.dims)?;
        BackendError::expect_size(op, "rotated elements", rope.dims.min(shape.key_length) & !1, rope.dims)?;
    }
    if args.layer >= cache.spec.layers {
        return Err(BackendError::OutOfRange { op, what: "layer", index: args.layer, len: cache.spec.layers });
    }
    Ok(())
}

fn slot(sequence: &Sequence<'_>, layer: usize, position: usize, cache: &ReferenceCache) -> Result<Slot, BackendError> {
    let op = "attention";
    let len = sequence.blocks.len() * BLOCK_TOKENS;
    let missing = BackendError::OutOfRange { op, what: "position", index: position, len };
    let (block, token) = sequence.slot(position).ok_or(missing)?;
    BackendError::expect_blocks(op, &[block], cache.spec.blocks)?;
    Ok(Slot { layer, block, token })
}

/// Normalises and rotates every head of every row in place.
fn prepare(
    x: &mut ReferenceTensor,
    heads: usize,
    length: usize,
    norm: Option<Norm<'_, Reference>>,
    rope: Option<Rope<'_>>,
) -> Result<(), BackendError> {
    let norm = match norm {
        Some(norm) => Some((norm.weight.vector("attention", "head norm length", length)?, norm.epsilon)),
        None => None,
    };
    for row in 0..x.rows {
        for head in 0..heads {
            let values = &mut x.row_mut(row)[head * length..(head + 1) * length];
            if let Some((weight, epsilon)) = &norm {
                let before = values.to_vec();
                ops::rms_norm(&before, weight, *epsilon, values);
            }
            if let Some(rope) = rope {
                rotate(values, rope.style, &rope.angles[row * rope.dims..(row + 1) * rope.dims]);
            }
        }
    }
    Ok(())
}

/// Rotates one head by `angles`, `[pairs, 2]` of cosine and sine.
fn rotate(head: &mut [f32], style: RopeStyle, angles: &[f32]) {
    let pairs = angles.len() / 2;
    for (pair, angle) in angles.chunks_exact(2).enumerate() {
        let (i, j) = match style {
            RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
            RopeStyle::Halves => (pair, pair + pairs),
        };
        let (x, y) = (f64::from(head[i]), f64::from(head[j]));
        let (cos, sin) = (f64::from(angle[0]), f64::from(angle[1]));
        head[i] = (x * cos - y * sin) as f32;
        head[j] = (x * sin + y * cos) as f32;
    }
}

fn attend_row(
    q: &[f32],
    sequence: &Sequence<'_>,
    layer: usize,
    position: usize,
    shape: AttentionShape,
    cache: &ReferenceCache,
    out: &mut [f32],
) -> Result<(), BackendError> {
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let slots = (first..=position).map(|p| slot(sequence, layer, p, cache)).collect::<Result<Vec<_>, _>>()?;
    let group = shape.heads / shape.kv_heads;
    for head in 0..shape.heads {
        let query = &q[head * shape.key_length..(head + 1) * shape.key_length];
        let mut weights: Vec<f32> =
            slots.iter().map(|&slot| score(ops::dot(query, cache.key(slot, head / group)), shape)).collect();
        ops::softmax(&mut weights);
        for (column, o) in out[head * shape.value_length..(head + 1) * shape.value_length].iter_mut().enumerate() {
            let terms = weights.iter().zip(&slots);
            let sum: f64 = terms.map(|(&w, &s)| f64::from(w) * f64::from(cache.value(s, head / group)[column])).sum();
            *o = sum as f32;
        }
    }
    Ok(())
}

fn score(product: f64, shape: AttentionShape) -> f32 {
    let scaled = product * f64::from(shape.scale);
    let capped = shape.softcap.map_or(scaled, |cap| f64::from(cap) * (scaled / f64::from(cap)).tanh());
    capped as f32
}
