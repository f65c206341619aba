//! Products with keys and values of eight bits as products of bytes, on levels where two of these beat four multiply-adds.
//!
//! The other factor is split into two bytes, so that nothing is lost that the eight bits have: a query becomes whole numbers
//! of 1/32767 of its largest element, a chunk's weights whole numbers of 1/65535 of the largest. The sums are exact.

use woolly_tensor::BLOCK_TOKENS;

use super::{Attend, CHUNK, QUERIES, largest, tile_rows};
use crate::kernels::simd::TileSimd;
use crate::kernels::storage::Storage;

/// Added to the whole numbers of a query, so that its bytes are unsigned; comes off again with the sum of the key.
const OFFSET: i32 = 1 << 15;

/// Whether keys or values, if they are `bytes`, are multiplied as such: where unsigned bytes can be used in full.
#[inline(always)]
pub(super) const fn multiplies<S: TileSimd>(bytes: bool) -> bool {
    bytes && !S::NARROW_DOT
}

/// What is split into bytes.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The queries, tile after tile, each `[fours of elements][high, low][queries of the tile]`.
    queries: Vec<i32>,
    /// A query's high and low bytes.
    row: [Vec<u8>; 2],
    /// What the whole numbers of each query, and of its weights, are multiplied by.
    query_factors: Vec<f32>,
    weight_factors: Vec<f32>,
    /// Weights: `[n][high, low][CHUNK]`.
    weights: Vec<u8>,
}

impl Scratch {
    /// Notes that a query sees nothing of the chunk.
    #[inline(always)]
    pub(super) fn hide(&mut self, query: usize) {
        if let Some(factor) = self.weight_factors.get_mut(query) {
            *factor = 0.0;
        }
    }

    /// Splits a query's weights `row`, which belong at `from` of the chunk. What is no number shows in their sum.
    #[inline(always)]
    pub(super) fn keep_weights<S: TileSimd>(&mut self, s: S, query: usize, from: usize, row: &[f32]) {
        let most = largest(s, row);
        let to_whole = if most > 0.0 { s.splat(65535.0 / most) } else { s.splat(0.0) };
        self.weight_factors[query] = most / 65535.0;
        let (high, low) = self.weights[2 * query * CHUNK..2 * (query + 1) * CHUNK].split_at_mut(CHUNK);
        let (high, low) = (&mut high[from..from + row.len()], &mut low[from..from + row.len()]);
        for (at, part) in row.chunks_exact(S::LANES).enumerate() {
            let whole = s.to_int(s.mul(s.load(part), to_whole));
            // SAFETY: both have a byte for each number of the row.
            unsafe {
                s.store_split_at(whole, high.as_mut_ptr().add(at * S::LANES), low.as_mut_ptr().add(at * S::LANES))
            };
        }
    }

    /// Splits a query into bytes and returns what its whole numbers are to be multiplied by.
    #[inline(always)]
    fn split_query<S: TileSimd>(&mut self, s: S, query: &[f32]) -> f32 {
        let (mut most, mut total) = (s.splat(0.0), s.splat(0.0));
        for part in query.chunks(S::LANES) {
            let x = load(s, part);
            most = s.max(most, s.max(x, s.sub(s.splat(0.0), x)));
            total = s.add(total, x);
        }
        let (most, total) = (s.max_lane(most), s.sum(total));
        let to_whole = if most > 0.0 { s.splat(32767.0 / most) } else { s.splat(0.0) };
        let offset = s.splat(OFFSET as f32);
        let padded = query.len().next_multiple_of(S::LANES).next_multiple_of(4);
        self.row.iter_mut().for_each(|row| row.resize(padded, 0));
        let [high, low] = &mut self.row;
        for (at, part) in query.chunks(S::LANES).enumerate() {
            let whole = s.to_int(s.mul_add(load(s, part), to_whole, offset));
            // SAFETY: both rows have a byte for each element of all vectors.
            unsafe {
                s.store_split_at(whole, high.as_mut_ptr().add(at * S::LANES), low.as_mut_ptr().add(at * S::LANES))
            };
        }
        // An element that is no number spoils all scores of its query, as it does in floating point.
        if total.is_nan() { f32::NAN } else { most / 32767.0 }
    }
}

/// Loads up to a vector, zeros behind it.
#[inline(always)]
fn load<S: TileSimd>(s: S, part: &[f32]) -> S::F {
    if part.len() == S::LANES { s.load(part) } else { s.load_partial(part, 0.0) }
}

impl<T: Storage> Attend<'_, T> {
    /// Splits the queries into bytes, those of each tile side by side.
    #[inline(always)]
    pub(super) fn quantise_queries<S: TileSimd>(&mut self, s: S) {
        let (length, n, factor) = (self.span.layout.key_length, self.span.visible.len(), self.factor());
        let (fours, bytes) = (length.div_ceil(4), &mut self.state.bytes);
        bytes.queries.resize(2 * n * fours, 0);
        bytes.query_factors.resize(QUERIES, 0.0);
        bytes.weight_factors.resize(QUERIES, 0.0);
        bytes.weights.resize(2 * QUERIES * CHUNK, 0);
        let mut first = 0;
        while first < n {
            let rows = tile_rows::<S>(n - first);
            for row in 0..rows {
                let query = &self.span.queries[(first + row) * length..(first + row + 1) * length];
                bytes.query_factors[first + row] = bytes.split_query(s, query) * factor;
                let tile = &mut bytes.queries[2 * first * fours..2 * (first + rows) * fours];
                for (part, bytes) in bytes.row.iter().enumerate() {
                    for (four, &bytes) in bytes.as_chunks::<4>().0.iter().take(fours).enumerate() {
                        tile[(2 * four + part) * rows + row] = i32::from_ne_bytes(bytes);
                    }
                }
            }
            first += rows;
        }
    }

    /// Computes the products of `N` queries with the 32 keys of a block, into column `at` of the scores.
    #[inline(always)]
    pub(super) fn scores_of_bytes<S: TileSimd, const N: usize>(&mut self, s: S, first: usize, block: usize, at: usize) {
        let length = self.span.layout.key_length;
        let fours = length.div_ceil(4);
        let part = self.span.of_block(block);
        let ahead = &mut self.ahead;
        let queries = &self.state.bytes.queries[2 * first * fours..2 * (first + N) * fours];
        let factors = &self.state.bytes.query_factors[first..first + N];
        let scores = &mut self.state.scores[first * CHUNK..(first + N) * CHUNK];
        assert!(at + BLOCK_TOKENS <= CHUNK && T::key_bytes(length) <= part.len());
        let zero = s.splat_int(0);
        for column in (0..BLOCK_TOKENS).step_by(S::LANES) {
            let (mut high, mut low, mut keys) = ([zero; N], [zero; N], zero);
            for four in 0..fours {
                ahead.fetch::<S, 2>(s);
                // SAFETY: there are `fours` fours of elements of 32 tokens, and of `N` queries, high and low.
                unsafe {
                    let k = s.load_int_at(part.as_ptr().cast::<i32>().add(four * BLOCK_TOKENS + column));
                    let query = queries.as_ptr().add(2 * four * N);
                    keys = s.dot(keys, s.splat_int(0x0101_0101), k);
                    for n in 0..N {
                        high[n] = s.dot(high[n], s.splat_int(*query.add(n)), k);
                        low[n] = s.dot(low[n], s.splat_int(*query.add(N + n)), k);
                    }
                }
            }
            // The offset's high byte is 128, its low one 0.
            let offset = s.mul(s.to_float(keys), s.splat(-128.0));
            for (n, row) in scores.chunks_exact_mut(CHUNK).enumerate() {
                let whole = s.mul_add(s.add(s.to_float(high[n]), offset), s.splat(256.0), s.to_float(low[n]));
                s.store(&mut row[at + column..], s.mul(whole, s.splat(factors[n])));
            }
        }
    }

    /// Adds the weighted values of `positions` of the chunk that begins with block `block`, elements from `column` on, to
    /// those of `N` queries. Positions that complete a four have the weight 0.
    #[inline(always)]
    pub(super) fn values_of_bytes<S: TileSimd, const N: usize>(
        &mut self,
        s: S,
        first: usize,
        column: usize,
        positions: std::ops::Range<usize>,
        block: usize,
    ) {
        const FOURS: usize = BLOCK_TOKENS / 4;
        let columns = self.span.layout.columns;
        let ahead = &mut self.ahead;
        let out = &mut self.state.values[first * columns..(first + N) * columns];
        let factors = &self.state.bytes.weight_factors[first..first + N];
        let weights = &self.state.bytes.weights[2 * first * CHUNK..2 * (first + N) * CHUNK];
        assert!(column + S::LANES <= columns && positions.end <= CHUNK);
        let zero = s.splat_int(0);
        let (mut high, mut low) = ([zero; N], [zero; N]);
        let (mut four, end) = (positions.start / 4, positions.end.div_ceil(4));
        while four < end {
            let values = &self.span.of_block(block + four / FOURS)[self.span.layout.values..][..BLOCK_TOKENS * columns];
            for four in four..end.min((four / FOURS + 1) * FOURS) {
                ahead.fetch::<S, 1>(s);
                // SAFETY: the fours of a block have `columns` columns each; weights come in fours as well.
                unsafe {
                    let v = s.load_int_at(values.as_ptr().cast::<i32>().add(four % FOURS * columns + column));
                    let weight = weights.as_ptr().add(4 * four);
                    for n in 0..N {
                        let four = |part: usize| weight.add((2 * n + part) * CHUNK).cast::<i32>().read_unaligned();
                        high[n] = s.dot(high[n], s.splat_int(four(0)), v);
                        low[n] = s.dot(low[n], s.splat_int(four(1)), v);
                    }
                }
            }
            four = (four / FOURS + 1) * FOURS;
        }
        for n in 0..N {
            let to = &mut out[n * columns + column..];
            let whole = s.mul_add(s.to_float(high[n]), s.splat(256.0), s.to_float(low[n]));
            s.store(to, s.mul_add(whole, s.splat(factors[n]), s.load(to)));
        }
    }
}
