//! Attention of a few query vectors over a range of one key-value head's cache, read once.
//!
//! Works through chunks of 128 positions: scores of a tile of queries (keys in the lanes), their softmax relative to the
//! running maximum (Milakov and Gimelshein, 2018), the weighted sum of values (elements in the lanes). The result is a
//! [`State`] that can be merged with those of other ranges. Everything is `f32`, whatever the cache stores.

use std::ops::Range;

use woolly_tensor::BLOCK_TOKENS;

use super::element::Element;
use crate::cache::Layout;
use crate::isa::Level;
use crate::kernels::simd::{TileKernel, TileSimd, dispatch, exp, tanh};

/// Positions whose scores are held at a time: four blocks.
const CHUNK: usize = 4 * BLOCK_TOKENS;

/// Most query vectors of one [`Span`]: enough to make repeated reading of keys from the L2 cache cheap.
pub(crate) const QUERIES: usize = 32;

/// Query vectors that share a key-value head, and the positions they are to attend to.
pub(crate) struct Span<'a, T> {
    pub(crate) layout: Layout,
    /// All blocks of the cache.
    pub(crate) cache: &'a [T],
    /// Where the head's part of a block starts.
    pub(crate) head: usize,
    /// The sequence's blocks in the order of positions; they cover `positions` and lie inside the cache.
    pub(crate) blocks: &'a [u32],
    /// Positions to work through.
    pub(crate) positions: Range<usize>,
    /// `[n][key_length]`, `n` at most [`QUERIES`].
    pub(crate) queries: &'a [f32],
    /// The positions that each query sees: `[n]`.
    pub(crate) visible: &'a [Range<usize>],
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
}

impl<T> Span<'_, T> {
    /// Returns keys and values of block `index` of the sequence.
    #[inline(always)]
    fn of_block(&self, index: usize) -> &[T] {
        &self.cache[self.blocks[index] as usize * self.layout.block + self.head..][..self.layout.head]
    }
}

/// Softmax-weighted sums over a range of positions that can still be merged with others.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Largest score of each query; `-∞` where it saw nothing.
    pub(crate) maxima: Vec<f32>,
    /// Sum of `e^(score − maximum)` of each query.
    pub(crate) sums: Vec<f32>,
    /// Values weighted likewise: `[n][value stride]`.
    pub(crate) values: Vec<f32>,
    /// Scratch: `[n][CHUNK]`.
    scores: Vec<f32>,
    /// Scratch: the queries, tile after tile, each `[key_length][queries of the tile]`.
    queries: Vec<f32>,
}

impl State {
    /// Allocates for [`QUERIES`] queries; it grows when a layer has larger values than `value_stride`.
    pub(crate) fn new(value_stride: usize) -> Self {
        let mut state = Self::default();
        state.reset(QUERIES, value_stride);
        state
    }

    fn reset(&mut self, n: usize, value_stride: usize) {
        self.maxima.clear();
        self.maxima.resize(n, f32::NEG_INFINITY);
        self.sums.clear();
        self.sums.resize(n, 0.0);
        self.values.clear();
        self.values.resize(n * value_stride, 0.0);
        self.scores.resize(QUERIES * CHUNK, 0.0);
    }
}

/// Attends all queries of `span`; what `state` held is lost.
pub(crate) fn attend<T: Element>(level: Level, span: &Span<'_, T>, state: &mut State) {
    let n = span.visible.len();
    assert!(n <= QUERIES && span.queries.len() == n * span.layout.key_length, "attention: queries do not fit");
    assert!(span.positions.end <= span.blocks.len() * BLOCK_TOKENS, "attention: positions without a block");
    assert!(span.head + span.layout.head <= span.layout.block, "attention: head outside the block");
    let blocks = span.cache.len() / span.layout.block.max(1);
    assert!(span.blocks.iter().all(|&b| (b as usize) < blocks), "attention: block outside the cache");
    state.reset(n, span.layout.value_stride);
    dispatch(level, Attend { span, state });
}

struct Attend<'a, T> {
    span: &'a Span<'a, T>,
    state: &'a mut State,
}

impl<T: Element> TileKernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(mut self, s: S) {
        self.interleave::<S>();
        let Range { start, end } = self.span.positions;
        for base in (start / CHUNK * CHUNK..end).step_by(CHUNK) {
            let chunk = base.max(start)..(base + CHUNK).min(end);
            let n = self.span.visible.len();
            let mut first = 0;
            while first < n {
                first += match tile_rows::<S>(n - first) {
                    8 => self.tile::<S, 8>(s, first, base, &chunk),
                    4 => self.tile::<S, 4>(s, first, base, &chunk),
                    2 => self.tile::<S, 2>(s, first, base, &chunk),
                    _ => self.tile::<S, 1>(s, first, base, &chunk),
                };
            }
        }
    }
}

/// Returns how many of the queries that are left make up the next tile; two vectors each stay in registers.
#[inline(always)]
fn tile_rows<S: TileSimd>(left: usize) -> usize {
    match left {
        8.. if S::ACCUMULATORS >= 16 => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

impl<T: Element> Attend<'_, T> {
    /// Brings the queries of each tile side by side, so that the innermost loop reads one stream.
    #[inline(always)]
    fn interleave<S: TileSimd>(&mut self) {
        let (length, n) = (self.span.layout.key_length, self.span.visible.len());
        self.state.queries.resize(n * length, 0.0);
        let mut first = 0;
        while first < n {
            let rows = tile_rows::<S>(n - first);
            let tile = first * length..(first + rows) * length;
            let (from, to) = (&self.span.queries[tile.clone()], &mut self.state.queries[tile]);
            for (row, query) in from.chunks_exact(length.max(1)).enumerate() {
                for (element, &value) in query.iter().enumerate() {
                    to[element * rows + row] = value;
                }
            }
            first += rows;
        }
    }

    /// Attends queries `first..first + N` to the positions of `chunk`; returns `N`.
    #[inline(always)]
    fn tile<S: TileSimd, const N: usize>(&mut self, s: S, first: usize, base: usize, chunk: &Range<usize>) -> usize {
        let visible = &self.span.visible[first..first + N];
        let start = visible.iter().map(|v| v.start).min().unwrap_or(0).max(chunk.start);
        let end = visible.iter().map(|v| v.end).max().unwrap_or(0).min(chunk.end);
        if start >= end {
            return N;
        }
        for block in start / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS) {
            self.scores::<S, N>(s, first, block, block * BLOCK_TOKENS - base);
        }
        for query in first..first + N {
            self.weigh(s, query, base, start..end, chunk);
        }
        let vectors = self.span.layout.value_stride / S::LANES;
        for vector in (0..vectors - vectors % 2).step_by(2) {
            self.values::<S, N, 2>(s, first, vector * S::LANES, base, start..end);
        }
        if vectors % 2 == 1 {
            self.values::<S, N, 1>(s, first, (vectors - 1) * S::LANES, base, start..end);
        }
        N
    }

    /// Computes the products of `N` queries with the 32 keys of a block, into column `at` of the scores.
    #[inline(always)]
    fn scores<S: TileSimd, const N: usize>(&mut self, s: S, first: usize, block: usize, at: usize) {
        let length = self.span.layout.key_length;
        let keys = &self.span.of_block(block)[..length * BLOCK_TOKENS];
        let queries = &self.state.queries[first * length..(first + N) * length];
        let scores = &mut self.state.scores[first * CHUNK..(first + N) * CHUNK];
        assert!(at + BLOCK_TOKENS <= CHUNK);
        for column in (0..BLOCK_TOKENS).step_by(2 * S::LANES) {
            let mut sums = [[s.splat(0.0); 2]; N];
            for element in 0..length {
                // SAFETY: `element` stays below `length` in keys of `length` rows of 32 and in `N` queries.
                unsafe {
                    let key = keys.as_ptr().add(element * BLOCK_TOKENS + column);
                    let k = [T::load(s, key), T::load(s, key.add(S::LANES))];
                    for (n, sum) in sums.iter_mut().enumerate() {
                        let q = s.splat(*queries.as_ptr().add(element * N + n));
                        *sum = [s.mul_add(k[0], q, sum[0]), s.mul_add(k[1], q, sum[1])];
                    }
                }
            }
            for (row, sum) in scores.chunks_exact_mut(CHUNK).zip(sums) {
                s.store(&mut row[at + column..], sum[0]);
                s.store(&mut row[at + column + S::LANES..], sum[1]);
            }
        }
    }

    /// Turns one query's products into weights relative to its maximum so far, and rescales what it has summed up.
    #[inline(always)]
    fn weigh<S: TileSimd>(&mut self, s: S, query: usize, base: usize, computed: Range<usize>, chunk: &Range<usize>) {
        let row = &mut self.state.scores[query * CHUNK..(query + 1) * CHUNK];
        let visible = &self.span.visible[query];
        let from = computed.start / BLOCK_TOKENS * BLOCK_TOKENS - base;
        let to = computed.end.next_multiple_of(BLOCK_TOKENS) - base;
        let first = visible.start.clamp(chunk.start, chunk.end).saturating_sub(base).clamp(from, to);
        let last = visible.end.clamp(chunk.start, chunk.end).saturating_sub(base).clamp(first, to);
        let row = &mut row[from..to];
        scale_scores(s, row, self.span.scale, self.span.softcap);
        row[..first - from].fill(f32::NEG_INFINITY);
        row[last - from..].fill(f32::NEG_INFINITY);
        let before = self.state.maxima[query];
        let maximum = largest(s, row).max(before);
        if maximum == f32::NEG_INFINITY {
            row.fill(0.0);
            return;
        }
        let sum = exponentials(s, row, maximum);
        let shrink = (before - maximum).exp();
        self.state.maxima[query] = maximum;
        self.state.sums[query] = self.state.sums[query] * shrink + sum;
        if shrink != 1.0 && before > f32::NEG_INFINITY {
            let stride = self.span.layout.value_stride;
            for part in self.state.values[query * stride..(query + 1) * stride].chunks_exact_mut(S::LANES) {
                s.store(part, s.mul(s.load(part), s.splat(shrink)));
            }
        }
    }

    /// Adds the weighted values of `positions`, elements `column..column + V * LANES`, to those of `N` queries.
    ///
    /// Stops at the last visible position, so that what the cache holds beyond it cannot spoil the sum.
    #[inline(always)]
    fn values<S: TileSimd, const N: usize, const V: usize>(
        &mut self,
        s: S,
        first: usize,
        column: usize,
        base: usize,
        positions: Range<usize>,
    ) {
        let layout = &self.span.layout;
        let stride = layout.value_stride;
        let out = &mut self.state.values[first * stride..(first + N) * stride];
        let weights = &self.state.scores[first * CHUNK..(first + N) * CHUNK];
        assert!(column + V * S::LANES <= stride && positions.end - base <= CHUNK);
        let mut sums = [[s.splat(0.0); V]; N];
        for (n, sum) in sums.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = s.load(&out[n * stride + column + v * S::LANES..]);
            }
        }
        let mut position = positions.start;
        while position < positions.end {
            let (block, slot) = (position / BLOCK_TOKENS, position % BLOCK_TOKENS);
            let count = (BLOCK_TOKENS - slot).min(positions.end - position);
            let values =
                &self.span.of_block(block)[layout.key_length * BLOCK_TOKENS + slot * stride..][..count * stride];
            for token in 0..count {
                // SAFETY: `token` stays below `count` rows of values and of weights, `column` inside a row.
                unsafe {
                    let value = values.as_ptr().add(token * stride + column);
                    let mut v = [s.splat(0.0); V];
                    for (i, v) in v.iter_mut().enumerate() {
                        *v = T::load(s, value.add(i * S::LANES));
                    }
                    let weight = weights.as_ptr().add(position - base + token);
                    for (n, sum) in sums.iter_mut().enumerate() {
                        let w = s.splat(*weight.add(n * CHUNK));
                        for (sum, v) in sum.iter_mut().zip(v) {
                            *sum = s.mul_add(v, w, *sum);
                        }
                    }
                }
            }
            position += count;
        }
        for (n, sum) in sums.into_iter().enumerate() {
            for (v, sum) in sum.into_iter().enumerate() {
                s.store(&mut out[n * stride + column + v * S::LANES..], sum);
            }
        }
    }
}

/// Scales and caps scores in place.
#[inline(always)]
fn scale_scores<S: TileSimd>(s: S, row: &mut [f32], scale: f32, softcap: Option<f32>) {
    for part in row.chunks_exact_mut(S::LANES) {
        let x = s.mul(s.load(part), s.splat(scale));
        let x = match softcap {
            Some(cap) => s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap)),
            None => x,
        };
        s.store(part, x);
    }
}

#[inline(always)]
fn largest<S: TileSimd>(s: S, row: &[f32]) -> f32 {
    let mut maximum = s.splat(f32::NEG_INFINITY);
    for part in row.chunks_exact(S::LANES) {
        maximum = s.max(maximum, s.load(part));
    }
    s.max_lane(maximum)
}

/// Replaces scores by `e^(score − maximum)` and returns the sum.
#[inline(always)]
fn exponentials<S: TileSimd>(s: S, row: &mut [f32], maximum: f32) -> f32 {
    let mut sum = s.splat(0.0);
    for part in row.chunks_exact_mut(S::LANES) {
        let e = exp(s, s.sub(s.load(part), s.splat(maximum)));
        sum = s.add(sum, e);
        s.store(part, e);
    }
    s.sum(sum)
}

/// Divides each query's sums by its total weight into `out`, `[n][value_length]`.
pub(crate) fn finish(layout: &Layout, state: &State, query: usize, out: &mut [f32]) {
    let values = &state.values[query * layout.value_stride..][..layout.value_length];
    let inverse = 1.0 / state.sums[query];
    for (out, value) in out.iter_mut().zip(values) {
        *out = value * inverse;
    }
}

/// One query's part of a [`State`], as stored between the passes over the cache and the merge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) maximum: f32,
    pub(crate) sum: f32,
    /// `[value_length]`.
    pub(crate) values: &'a [f32],
}

/// Merges the parts of one query, in the order given, into `out`, `[value_length]`.
pub(crate) fn merge<'a>(parts: impl Iterator<Item = Part<'a>> + Clone, out: &mut [f32]) {
    let maximum = parts.clone().fold(f32::NEG_INFINITY, |m, part| m.max(part.maximum));
    let mut total = 0.0;
    out.fill(0.0);
    for part in parts.filter(|part| part.maximum > f32::NEG_INFINITY || part.sum.is_nan()) {
        let weight = (part.maximum - maximum).exp();
        total += part.sum * weight;
        for (out, value) in out.iter_mut().zip(part.values) {
            *out += value * weight;
        }
    }
    let inverse = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= inverse);
}
