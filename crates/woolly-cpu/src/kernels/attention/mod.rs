//! Attention of a few query vectors over a range of one key-value head's cache, read once.
//!
//! Works through chunks of 128 positions: scores of a tile of queries (keys in the lanes), their softmax relative to the
//! running maximum (Milakov and Gimelshein, 2018), the weighted sum of values (elements in the lanes). The result is a
//! [`State`] that can be merged with those of other ranges. Everything is `f32`, whatever the cache stores, except that
//! keys and values of bytes are multiplied as such where that is faster ([`bytes`]). Exponentials are powers of two: the
//! factor log₂ e is in the queries. [`amx`] does the same for many query vectors on tiles.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod bytes;
#[cfg(test)]
mod tests;

use std::f32::consts::LOG2_E;
use std::ops::Range;
use std::ptr;

use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::storage::{F16, F32, Q8, Q8Q4, Storage};
use crate::cache::Layout;
use crate::isa::Level;
use crate::kernels::simd::{TileKernel, TileSimd, dispatch, exp2_negative, tanh};

/// Positions whose scores are held at a time: four blocks.
const CHUNK: usize = 4 * BLOCK_TOKENS;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Most query vectors of one [`Span`]: enough to make repeated reading of keys from the L2 cache cheap.
pub(crate) const QUERIES: usize = 32;

/// Query vectors that share a key-value head, and the positions they are to attend to.
pub(crate) struct Span<'a> {
    pub(crate) layout: Layout,
    /// All blocks of the cache.
    pub(crate) cache: &'a [u8],
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
    /// What the thread will read next, if it is known.
    pub(crate) then: Option<Upcoming<'a>>,
}

/// The beginning of another [`Span`] on the same cache.
#[derive(Clone, Copy)]
pub(crate) struct Upcoming<'a> {
    pub(crate) head: usize,
    pub(crate) blocks: &'a [u32],
    pub(crate) position: usize,
}

impl Span<'_> {
    /// Returns the head's part of block `index` of the sequence.
    #[inline(always)]
    fn of_block(&self, index: usize) -> &[u8] {
        &self.cache[self.blocks[index] as usize * self.layout.block + self.head..][..self.layout.head]
    }
}

/// Softmax-weighted sums over a range of positions that can still be merged with others.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Largest score of each query times log₂ e; `-∞` where it saw nothing.
    pub(crate) maxima: Vec<f32>,
    /// Sum of `2^(score − maximum)` of each query.
    pub(crate) sums: Vec<f32>,
    /// Values weighted likewise: `[n][columns]`.
    pub(crate) values: Vec<f32>,
    /// Scratch: `[n][CHUNK]`.
    scores: Vec<f32>,
    /// Scratch: the queries, tile after tile, each `[key_length][queries of the tile]`.
    queries: Vec<f32>,
    /// Scratch of products of bytes.
    bytes: bytes::Scratch,
}

impl State {
    /// Allocates for [`QUERIES`] queries; it grows when a layer has larger values.
    pub(crate) fn new(columns: usize) -> Self {
        let mut state = Self::default();
        state.reset(QUERIES, columns);
        state
    }

    fn reset(&mut self, n: usize, columns: usize) {
        self.maxima.clear();
        self.maxima.resize(n, f32::NEG_INFINITY);
        self.sums.clear();
        self.sums.resize(n, 0.0);
        self.values.clear();
        self.values.resize(n * columns, 0.0);
        self.scores.resize(QUERIES * CHUNK, 0.0);
    }
}

/// Attends all queries of `span`; what `state` held is lost.
pub(crate) fn attend(level: Level, span: &Span<'_>, state: &mut State) {
    check(span, QUERIES);
    state.reset(span.visible.len(), span.layout.columns);
    match span.layout.storage {
        CacheType::F32 => dispatch(level, Attend { span, state, storage: F32, ahead: Ahead::NOTHING }),
        CacheType::Q8 => dispatch(level, Attend { span, state, storage: Q8, ahead: Ahead::NOTHING }),
        CacheType::Q8Q4 => dispatch(level, Attend { span, state, storage: Q8Q4, ahead: Ahead::NOTHING }),
        // The type is open to additions, but a layout exists only for those that are known here.
        _ => dispatch(level, Attend { span, state, storage: F16, ahead: Ahead::NOTHING }),
    }
}

/// Checks what the kernels rely on.
fn check(span: &Span<'_>, queries: usize) {
    let n = span.visible.len();
    assert!(n <= queries && span.queries.len() == n * span.layout.key_length, "attention: queries do not fit");
    assert!(span.positions.end <= span.blocks.len() * BLOCK_TOKENS, "attention: positions without a block");
    assert!(span.head + span.layout.head <= span.layout.block, "attention: head outside the block");
    let blocks = span.cache.len() / span.layout.block.max(1);
    assert!(span.blocks.iter().all(|&b| (b as usize) < blocks), "attention: block outside the cache");
}

struct Attend<'a, T> {
    span: &'a Span<'a>,
    state: &'a mut State,
    #[expect(dead_code, reason = "chooses the type")]
    storage: T,
    ahead: Ahead,
}

/// Cache lines that will be needed in the next chunk, asked for one by one among the arithmetic of this one.
///
/// They are taken from the chunk's blocks in turn: one run of lines alone would not keep enough of them on their way, as
/// processors ask for a limited number of lines ahead in a page.
struct Ahead {
    parts: [*const u8; CHUNK / BLOCK_TOKENS],
    next: usize,
    end: usize,
}

impl Ahead {
    const NOTHING: Self = Self { parts: [ptr::null(); CHUNK / BLOCK_TOKENS], next: 0, end: 0 };

    /// Returns the lines of the chunk that holds `position` of a sequence.
    fn chunk(span: &Span<'_>, head: usize, blocks: &[u32], position: usize) -> Self {
        let blocks = &blocks[(position / CHUNK * (CHUNK / BLOCK_TOKENS)).min(blocks.len())..];
        let mut ahead = Self::NOTHING;
        for (part, &block) in ahead.parts.iter_mut().zip(blocks) {
            *part = span.cache.as_ptr().wrapping_add(block as usize * span.layout.block + head);
        }
        // With fewer blocks, those that are missing are asked for at address 0, which does nothing.
        ahead.end = ahead.parts.len() * span.layout.head.div_ceil(LINE);
        ahead
    }

    /// Asks for the next `LINES` lines, if there are any left.
    #[inline(always)]
    fn fetch<S: TileSimd, const LINES: usize>(&mut self, s: S) {
        for _ in 0..LINES {
            if self.next < self.end {
                let part = self.parts[self.next % (CHUNK / BLOCK_TOKENS)];
                s.prefetch_at(part.wrapping_add(self.next / (CHUNK / BLOCK_TOKENS) * LINE));
                self.next += 1;
            }
        }
    }
}

impl<T: Storage> TileKernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(mut self, s: S) {
        if bytes::multiplies::<S>(T::KEY_BYTES) {
            self.quantise_queries(s);
        } else {
            self.interleave::<S>();
        }
        let Range { start, end } = self.span.positions;
        for base in (start / CHUNK * CHUNK..end).step_by(CHUNK) {
            let chunk = base.max(start)..(base + CHUNK).min(end);
            self.look_ahead(base + CHUNK);
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

impl<T: Storage> Attend<'_, T> {
    /// What products of queries and keys are multiplied by.
    #[inline(always)]
    fn factor(&self) -> f32 {
        match self.span.softcap {
            Some(cap) => self.span.scale / cap,
            None => self.span.scale * LOG2_E,
        }
    }

    /// Brings the queries of each tile side by side, so that the innermost loop reads one stream, and scales them.
    #[inline(always)]
    fn interleave<S: TileSimd>(&mut self) {
        let (length, n) = (self.span.layout.key_length, self.span.visible.len());
        let factor = self.factor();
        self.state.queries.resize(n * length, 0.0);
        let mut first = 0;
        while first < n {
            let rows = tile_rows::<S>(n - first);
            let tile = first * length..(first + rows) * length;
            let (from, to) = (&self.span.queries[tile.clone()], &mut self.state.queries[tile]);
            for (row, query) in from.chunks_exact(length.max(1)).enumerate() {
                for (element, &value) in query.iter().enumerate() {
                    to[element * rows + row] = value * factor;
                }
            }
            first += rows;
        }
    }

    /// Lists the cache lines of the chunk from `base` on, or of what comes after the span.
    #[inline(always)]
    fn look_ahead(&mut self, base: usize) {
        let span = self.span;
        self.ahead = match span.then {
            _ if base < span.positions.end => Ahead::chunk(span, span.head, span.blocks, base),
            Some(Upcoming { head, blocks, position }) => Ahead::chunk(span, head, blocks, position),
            None => Ahead::NOTHING,
        };
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
            let at = block * BLOCK_TOKENS - base;
            if bytes::multiplies::<S>(T::KEY_BYTES) {
                self.scores_of_bytes::<S, N>(s, first, block, at);
            } else {
                self.scores::<S, N>(s, first, block, at);
            }
        }
        for query in first..first + N {
            self.weigh(s, query, base, start..end, chunk);
        }
        let vectors = self.span.layout.columns / S::LANES;
        if bytes::multiplies::<S>(T::VALUE_BYTES) {
            for vector in 0..vectors {
                self.values_of_bytes::<S, N>(
                    s,
                    first,
                    vector * S::LANES,
                    start - base..end - base,
                    base / BLOCK_TOKENS,
                );
            }
            return N;
        }
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
        let part = self.span.of_block(block);
        let ahead = &mut self.ahead;
        let queries = &self.state.queries[first * length..(first + N) * length];
        let scores = &mut self.state.scores[first * CHUNK..(first + N) * CHUNK];
        assert!(at + BLOCK_TOKENS <= CHUNK && T::key_bytes(length) <= part.len());
        for column in (0..BLOCK_TOKENS).step_by(2 * S::LANES) {
            let mut sums = [[s.splat(0.0); 2]; N];
            for element in 0..length {
                // SAFETY: `element` stays below `length` in keys of `length` rows of 32 and in `N` queries.
                unsafe {
                    if T::KEY_WIDTH * BLOCK_TOKENS > LINE {
                        ahead.fetch::<S, 2>(s)
                    } else {
                        ahead.fetch::<S, 1>(s)
                    };
                    let k = [0, S::LANES].map(|lanes| T::key(s, part.as_ptr(), element, column + lanes));
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
        let visible = &self.span.visible[query];
        let from = computed.start / BLOCK_TOKENS * BLOCK_TOKENS - base;
        let to = computed.end.next_multiple_of(BLOCK_TOKENS) - base;
        let first = visible.start.clamp(chunk.start, chunk.end).saturating_sub(base).clamp(from, to);
        let last = visible.end.clamp(chunk.start, chunk.end).saturating_sub(base).clamp(first, to);
        let row = &mut self.state.scores[query * CHUNK..(query + 1) * CHUNK][from..to];
        if T::KEY_SCALES || self.span.softcap.is_some() {
            for (index, row) in row.chunks_exact_mut(BLOCK_TOKENS).enumerate() {
                let part = self.span.of_block((base + from) / BLOCK_TOKENS + index);
                adjust::<S, T>(s, row, &part[self.span.layout.key_scales..], self.span.softcap);
            }
        }
        row[..first - from].fill(f32::NEG_INFINITY);
        row[last - from..].fill(f32::NEG_INFINITY);
        let before = self.state.maxima[query];
        let maximum = largest(s, row).max(before);
        if maximum == f32::NEG_INFINITY {
            row.fill(0.0);
            self.state.bytes.hide(query);
            return;
        }
        let sum = exponentials(s, row, maximum);
        if maximum == before {
            self.state.sums[query] += sum;
        } else {
            let shrink = (before - maximum).exp2();
            self.state.maxima[query] = maximum;
            self.state.sums[query] = self.state.sums[query] * shrink + sum;
            let columns = self.span.layout.columns;
            for part in self.state.values[query * columns..(query + 1) * columns].chunks_exact_mut(S::LANES) {
                s.store(part, s.mul(s.load(part), s.splat(shrink)));
            }
        }
        if T::VALUE_SCALES {
            for (index, row) in row.chunks_exact_mut(BLOCK_TOKENS).enumerate() {
                let part = self.span.of_block((base + from) / BLOCK_TOKENS + index);
                multiply_by_halves(s, row, &part[self.span.layout.value_scales..]);
            }
            // What lies beyond the last position may be anything, even infinite.
            row[last - from..].fill(0.0);
        }
        if bytes::multiplies::<S>(T::VALUE_BYTES) {
            self.state.bytes.keep_weights(s, query, from, row);
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
        let ahead = &mut self.ahead;
        let columns = layout.columns;
        let out = &mut self.state.values[first * columns..(first + N) * columns];
        let weights = &self.state.scores[first * CHUNK..(first + N) * CHUNK];
        assert!(column + V * S::LANES <= columns && positions.end - base <= CHUNK);
        let mut sums = [[s.splat(0.0); V]; N];
        for (n, sum) in sums.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = s.load(&out[n * columns + column + v * S::LANES..]);
            }
        }
        let mut position = positions.start;
        while position < positions.end {
            let (block, slot) = (position / BLOCK_TOKENS, position % BLOCK_TOKENS);
            let count = (BLOCK_TOKENS - slot).min(positions.end - position);
            let rows = &self.span.of_block(block)[layout.values..][..BLOCK_TOKENS * layout.value_row];
            for token in 0..count {
                // SAFETY: `slot + token` stays in the block, `token` below `count` weights, `column` inside a row.
                unsafe {
                    if T::KEY_WIDTH * BLOCK_TOKENS > LINE {
                        ahead.fetch::<S, 2>(s)
                    } else {
                        ahead.fetch::<S, 1>(s)
                    };
                    let mut v = [s.splat(0.0); V];
                    for (i, v) in v.iter_mut().enumerate() {
                        *v = T::value(s, rows.as_ptr(), layout.value_row, slot + token, column + i * S::LANES);
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
                s.store(&mut out[n * columns + column + v * S::LANES..], sum);
            }
        }
    }
}

/// Multiplies the products of a block by its keys' scales, where there are some, and caps them.
#[inline(always)]
fn adjust<S: TileSimd, T: Storage>(s: S, row: &mut [f32], scales: &[u8], softcap: Option<f32>) {
    if T::KEY_SCALES {
        multiply_by_halves(s, row, scales);
    }
    if let Some(cap) = softcap {
        for part in row.chunks_exact_mut(S::LANES) {
            s.store(part, s.mul(tanh(s, s.load(part)), s.splat(cap * LOG2_E)));
        }
    }
}

/// Multiplies the 32 numbers of a row by half-precision ones.
#[inline(always)]
fn multiply_by_halves<S: TileSimd>(s: S, row: &mut [f32], halves: &[u8]) {
    assert!(row.len() == BLOCK_TOKENS && halves.len() >= 2 * BLOCK_TOKENS);
    for (i, part) in row.chunks_exact_mut(S::LANES).enumerate() {
        // SAFETY: there are as many halves as numbers.
        let by = unsafe { s.load_half_at(halves.as_ptr().cast::<u16>().add(i * S::LANES)) };
        s.store(part, s.mul(s.load(part), by));
    }
}

#[inline(always)]
fn largest<S: TileSimd>(s: S, row: &[f32]) -> f32 {
    let mut maxima = [s.splat(f32::NEG_INFINITY); 2];
    for part in row.chunks_exact(2 * S::LANES) {
        maxima = [s.max(maxima[0], s.load(part)), s.max(maxima[1], s.load(&part[S::LANES..]))];
    }
    s.max_lane(s.max(maxima[0], maxima[1]))
}

/// Replaces scores by `2^(score − maximum)` and returns the sum.
#[inline(always)]
fn exponentials<S: TileSimd>(s: S, row: &mut [f32], maximum: f32) -> f32 {
    let mut sums = [s.splat(0.0); 2];
    for part in row.chunks_exact_mut(2 * S::LANES) {
        for (part, sum) in part.chunks_exact_mut(S::LANES).zip(&mut sums) {
            let e = exp2_negative(s, s.sub(s.load(part), s.splat(maximum)));
            *sum = s.add(*sum, e);
            s.store(part, e);
        }
    }
    s.sum(s.add(sums[0], sums[1]))
}

/// Divides each query's sums by its total weight into `out`, `[n][value_length]`.
pub(crate) fn finish(layout: &Layout, state: &State, query: usize, out: &mut [f32]) {
    let values = &state.values[query * layout.columns..][..layout.value_length];
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
        let weight = (part.maximum - maximum).exp2();
        total += part.sum * weight;
        for (out, value) in out.iter_mut().zip(part.values) {
            *out += value * weight;
        }
    }
    let inverse = 1.0 / total;
    out.iter_mut().for_each(|out| *out *= inverse);
}
