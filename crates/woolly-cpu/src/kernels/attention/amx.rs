//! Attention of many query vectors on AMX tiles, in the manner of FlashAttention (Dao et al., 2022).
//!
//! Queries and weights are left operands, 32 vectors a strip; keys and values are right ones, widened from whatever the
//! cache stores once for all strips of a [`Span`], 128 positions at a time. The layout of the cache needs no
//! transposition for that: two elements of a key, or two values, side by side make the pairs of the tiles.
//!
//! Scores must be better than bfloat16 is, since they are exponents: queries and keys are split into two bfloat16 numbers
//! each, and three of the four products are summed, which leaves an error of about 2⁻¹⁶ of the terms. Weights and values
//! are rounded to bfloat16. That costs little: the tiles of the next strip's scores and of the previous strip's values
//! are computed while the vector units exponentiate this one's scores.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;
use std::ops::Range;

use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::Span;
use crate::buffer::AlignedVec;
use crate::isa::{Amx, Avx512, Simd, Tiles};
use crate::kernels::simd::{TileSimd, exp2_negative, tanh};
use crate::kernels::storage::{F16, F32, Q8, Q8Q4, Storage};

/// Most query vectors of a span: enough that widening the cache is a small part of the work.
pub(crate) const QUERIES: usize = 512;

/// Positions worked through at a time.
const CHUNK: usize = BLOCKS * BLOCK_TOKENS;
const BLOCKS: usize = 4;

/// Query vectors of a strip, elements of a step, positions of a block: the two tiles of an operand.
const STRIP: usize = 32;
const STEP: usize = Tiles::STEP;
const TILE: usize = 16;

/// What scores begin with as their maximum: below all of them, but finite, so that nothing is subtracted from itself.
const LOWEST: f32 = -1e30;

/// Buffers of one thread; they grow to the largest span seen.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// `[strip][high, low][step][STEP]`.
    queries: AlignedVec<u16>,
    /// `[block][high, low][step][STEP]`.
    keys: AlignedVec<u16>,
    /// `[block][step of 32 columns][STEP]`.
    values: AlignedVec<u16>,
    /// Of two strips, `[block][Tiles::BLOCK]`.
    scores: [AlignedVec<f32>; 2],
    /// Of two strips, `[block][STEP]`.
    weights: [AlignedVec<u16>; 2],
    /// Weighted sums of values: `[strip][step of 32 columns][Tiles::BLOCK]`.
    sums: AlignedVec<f32>,
    maxima: [f32; QUERIES],
    /// Sums of weights, lane by lane.
    totals: Box<[[f32; TILE]; QUERIES]>,
    /// Steps of 32 columns of the values.
    columns: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        let (floats, halves) = (|| AlignedVec::zeroed(0), || AlignedVec::zeroed(0));
        Self {
            queries: halves(),
            keys: halves(),
            values: halves(),
            scores: [floats(), floats()],
            weights: [halves(), halves()],
            sums: floats(),
            maxima: [LOWEST; QUERIES],
            totals: Box::new([[0.0; TILE]; QUERIES]),
            columns: 0,
        }
    }
}

impl Scratch {
    fn reset(&mut self, strips: usize, steps: usize, columns: usize) {
        grow(&mut self.queries, strips * 2 * steps * STEP);
        grow(&mut self.keys, BLOCKS * 2 * steps * STEP);
        grow(&mut self.values, BLOCKS * columns * STEP);
        for i in 0..2 {
            grow(&mut self.scores[i], BLOCKS * Tiles::BLOCK);
            grow(&mut self.weights[i], BLOCKS * STEP);
        }
        grow(&mut self.sums, strips * columns * Tiles::BLOCK);
        self.sums[..strips * columns * Tiles::BLOCK].fill(0.0);
        self.maxima.fill(LOWEST);
        self.totals.fill([0.0; TILE]);
        self.columns = columns;
    }

    /// Divides a query's sums by its total weight into `out`, `[value_length]`.
    pub(crate) fn finish(&self, query: usize, out: &mut [f32]) {
        let inverse = 1.0 / self.totals[query].iter().sum::<f32>();
        let (strip, tile, row) = (query / STRIP, query % STRIP / TILE, query % TILE);
        for (column, out) in out.chunks_mut(TILE).enumerate() {
            let block = (strip * self.columns + column / 2) * Tiles::BLOCK;
            let from = block + (2 * tile + column % 2) * TILE * TILE + row * TILE;
            for (out, value) in out.iter_mut().zip(&self.sums[from..]) {
                *out = value * inverse;
            }
        }
    }
}

fn grow<T: crate::buffer::Zeroed>(buffer: &mut AlignedVec<T>, len: usize) {
    if buffer.len() < len {
        *buffer = AlignedVec::zeroed(len);
    }
}

/// Attends all queries of `span`, at most [`QUERIES`]; [`Scratch::finish`] then has the results.
pub(crate) fn attend(amx: Amx, span: &Span<'_>, scratch: &mut Scratch) {
    super::check(span, QUERIES);
    let steps = span.layout.key_length.div_ceil(STRIP);
    let strips = span.visible.len().div_ceil(STRIP);
    scratch.reset(strips, steps, span.layout.columns.div_ceil(STRIP));
    let tiles = amx.tiles();
    let simd = amx.avx512();
    // SAFETY: the tokens prove the instructions.
    unsafe {
        match span.layout.storage {
            CacheType::F32 => Work::<F32>::new(simd, span, scratch, &tiles).run(),
            CacheType::Q8 => Work::<Q8>::new(simd, span, scratch, &tiles).run(),
            CacheType::Q8Q4 => Work::<Q8Q4>::new(simd, span, scratch, &tiles).run(),
            _ => Work::<F16>::new(simd, span, scratch, &tiles).run(),
        }
    }
}

struct Work<'a, T> {
    simd: Avx512,
    span: &'a Span<'a>,
    scratch: &'a mut Scratch,
    tiles: &'a Tiles,
    /// Steps of 32 elements of the keys.
    steps: usize,
    storage: std::marker::PhantomData<T>,
}

/// Products that run on the tiles beside the vector units: the values of a strip, then the scores of another.
struct Beside {
    values_of: Option<usize>,
    scores_of: Option<usize>,
    done: usize,
}

impl<'a, T: Storage> Work<'a, T> {
    fn new(simd: Avx512, span: &'a Span<'a>, scratch: &'a mut Scratch, tiles: &'a Tiles) -> Self {
        let steps = span.layout.key_length.div_ceil(STRIP);
        Self { simd, span, scratch, tiles, steps, storage: std::marker::PhantomData }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn run(mut self) {
        let strips = self.span.visible.len().div_ceil(STRIP);
        self.pack_queries(strips);
        let Range { start, end } = self.span.positions;
        for base in (start / CHUNK * CHUNK..end).step_by(CHUNK) {
            for block in 0..BLOCKS {
                self.widen_keys(base, block);
                self.widen_values(base, block);
            }
            // Strips whose queries see nothing of this chunk are passed over: with causal attention, the first ones.
            let first = (0..strips).find(|&strip| self.sees(strip, base)).unwrap_or(strips);
            let last = (first..strips).rev().find(|&strip| self.sees(strip, base)).map_or(first, |strip| strip + 1);
            self.beside(Beside { values_of: None, scores_of: (first < last).then_some(first), done: 0 }, usize::MAX);
            for strip in first..last {
                let values_of = (strip > first).then(|| strip - 1);
                let scores_of = (strip + 1 < last).then_some(strip + 1);
                self.weigh(strip, base, Beside { values_of, scores_of, done: 0 });
            }
            let values_of = (first < last).then(|| last - 1);
            self.beside(Beside { values_of, scores_of: None, done: 0 }, usize::MAX);
        }
    }

    fn of_strip(&self, strip: usize) -> Range<usize> {
        strip * STRIP..self.span.visible.len().min((strip + 1) * STRIP)
    }

    fn sees(&self, strip: usize, base: usize) -> bool {
        self.span.visible[self.of_strip(strip)].iter().any(|seen| seen.start < base + CHUNK && seen.end > base)
    }

    /// Scales the queries and splits them in two.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn pack_queries(&mut self, strips: usize) {
        let factor = match self.span.softcap {
            Some(cap) => self.span.scale / cap,
            None => self.span.scale * LOG2_E,
        };
        let (length, steps) = (self.span.layout.key_length, self.steps);
        self.scratch.queries[..strips * 2 * steps * STEP].fill(0);
        for (index, query) in self.span.queries.chunks_exact(length.max(1)).enumerate() {
            let row = index / STRIP * 2 * steps * STEP + index % STRIP * STRIP;
            for (part, x) in query.chunks(TILE).enumerate() {
                let high = row + part / 2 * STEP + part % 2 * TILE;
                let x = if x.len() == TILE { self.simd.load(x) } else { self.simd.load_partial(x, 0.0) };
                let x = _mm512_mul_ps(x, _mm512_set1_ps(factor));
                let bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
                let rest = _mm512_castps_si512(_mm512_sub_ps(x, odd(bits)));
                let rest = _mm512_add_epi32(rest, _mm512_set1_epi32(0x8000));
                for (at, bits) in [(high, bits), (high + steps * STEP, rest)] {
                    let to = &mut self.scratch.queries[at..at + TILE];
                    // SAFETY: sixteen halves are writable.
                    unsafe {
                        let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits));
                        _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
                    }
                }
            }
        }
    }

    /// Splits the keys of a block of the chunk at `base`; those beyond the sequence's blocks are left as they are.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn widen_keys(&mut self, base: usize, block: usize) {
        let (s, length, steps) = (self.simd, self.span.layout.key_length, self.steps);
        let index = base / BLOCK_TOKENS + block;
        if index >= self.span.blocks.len() {
            return;
        }
        let part = self.span.of_block(index);
        assert!(T::key_bytes(length) <= part.len());
        let keys = &mut self.scratch.keys[block * 2 * steps * STEP..(block + 1) * 2 * steps * STEP];
        for token in [0, TILE] {
            let scale = match T::KEY_SCALES {
                // SAFETY: there is a scale for each of the 32 tokens.
                true => unsafe {
                    s.load_half_at(part[self.span.layout.key_scales..].as_ptr().cast::<u16>().add(token))
                },
                false => _mm512_set1_ps(1.0),
            };
            for pair in 0..steps * TILE {
                let load = |element: usize| {
                    if element >= length {
                        return _mm512_setzero_ps();
                    }
                    // SAFETY: the element is one of the key's.
                    let key = unsafe { T::key(s, part.as_ptr(), element, token) };
                    if T::KEY_SCALES { _mm512_mul_ps(key, scale) } else { key }
                };
                let (a, b) = (load(2 * pair), load(2 * pair + 1));
                let high = pairs(a, b);
                let low = pairs(_mm512_sub_ps(a, even(high)), _mm512_sub_ps(b, odd(high)));
                let at = pair / TILE * STEP + token / TILE * (STEP / 2) + pair % TILE * STRIP;
                store(&mut keys[at..at + STRIP], high);
                store(&mut keys[steps * STEP + at..steps * STEP + at + STRIP], low);
            }
        }
    }

    /// Rounds the values of a block of the chunk at `base`; those beyond the span's positions become zeros, since the
    /// cache may hold anything there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn widen_values(&mut self, base: usize, block: usize) {
        let (s, layout, columns) = (self.simd, &self.span.layout, self.scratch.columns);
        let index = base / BLOCK_TOKENS + block;
        let count = self.span.positions.end.saturating_sub(index * BLOCK_TOKENS).min(BLOCK_TOKENS);
        let values = &mut self.scratch.values[block * columns * STEP..(block + 1) * columns * STEP];
        if count == 0 {
            values.fill(0);
            return;
        }
        let part = self.span.of_block(index);
        let load = |token: usize, column: usize| {
            if token >= count || column >= layout.columns {
                return _mm512_setzero_ps();
            }
            let rows = &part[layout.values..][..BLOCK_TOKENS * layout.value_row];
            // SAFETY: the vector lies in the row of the token.
            let value = unsafe { T::value(s, rows.as_ptr(), layout.value_row, token, column) };
            if T::VALUE_SCALES {
                let scale = &part[layout.value_scales + 2 * token..][..2];
                return _mm512_mul_ps(value, s.splat_half(u16::from_ne_bytes([scale[0], scale[1]])));
            }
            value
        };
        for pair in 0..TILE {
            for tile in 0..2 * columns {
                let rounded = pairs(load(2 * pair, tile * TILE), load(2 * pair + 1, tile * TILE));
                let at = tile / 2 * STEP + tile % 2 * (STEP / 2) + pair * STRIP;
                store(&mut values[at..at + STRIP], rounded);
            }
        }
    }

    /// Goes on with the products of `beside` up to the given number of steps, and returns what is left of them.
    #[inline(always)]
    fn beside(&mut self, mut beside: Beside, until: usize) -> Beside {
        let (values, scores) = (BLOCKS * self.scratch.columns, BLOCKS * self.steps);
        let first = if beside.values_of.is_some() { 0 } else { values };
        let end = if beside.scores_of.is_some() { values + scores } else { values };
        beside.done = beside.done.max(first);
        while beside.done < until.min(end) {
            // SAFETY: the strips are some of the span's, for which the buffers are large enough.
            unsafe {
                match (beside.values_of, beside.scores_of) {
                    (Some(strip), _) if beside.done < values => self.step_of_values(strip, beside.done),
                    (_, Some(strip)) => self.step_of_scores(strip, beside.done - values),
                    _ => {}
                }
            }
            beside.done += 1;
        }
        beside
    }

    /// # Safety
    /// The strip is one of the span's and its weights are ready; steps are done in order.
    #[inline(always)]
    unsafe fn step_of_values(&mut self, strip: usize, step: usize) {
        let (column, block, columns) = (step / BLOCKS, step % BLOCKS, self.scratch.columns);
        let sums = &mut self.scratch.sums[(strip * columns + column) * Tiles::BLOCK..][..Tiles::BLOCK];
        let weights = &self.scratch.weights[strip % 2][block * STEP..][..STEP];
        let values = &self.scratch.values[(block * columns + column) * STEP..][..STEP];
        // SAFETY: the slices are as long as the tiles.
        unsafe {
            if block == 0 {
                self.tiles.load(sums.as_ptr());
            }
            self.tiles.step(weights.as_ptr(), values.as_ptr());
            if block + 1 == BLOCKS {
                self.tiles.store(sums.as_mut_ptr());
            }
        }
    }

    /// # Safety
    /// The strip is one of the span's; steps are done in order.
    #[inline(always)]
    unsafe fn step_of_scores(&mut self, strip: usize, step: usize) {
        let steps = self.steps;
        let (block, step) = (step / steps, step % steps);
        let mut queries = [std::ptr::null(); 2];
        let mut keys = queries;
        for part in 0..2 {
            queries[part] = self.scratch.queries[((2 * strip + part) * steps + step) * STEP..][..STEP].as_ptr();
            keys[part] = self.scratch.keys[((2 * block + part) * steps + step) * STEP..][..STEP].as_ptr();
        }
        let scores = &mut self.scratch.scores[strip % 2][block * Tiles::BLOCK..][..Tiles::BLOCK];
        // SAFETY: the slices are as long as the tiles.
        unsafe {
            if step == 0 {
                self.tiles.zero();
            }
            self.tiles.split_step(queries, keys);
            if step + 1 == steps {
                self.tiles.store(scores.as_mut_ptr());
            }
        }
    }

    /// Turns the scores of a strip into weights, going on with `beside` after every row.
    ///
    /// All maxima come first: a row whose exponentials wait for its own maximum would keep the processor from looking as
    /// far ahead as the products beside need it to.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn weigh(&mut self, strip: usize, base: usize, mut beside: Beside) {
        let seen = &self.span.visible[self.of_strip(strip)];
        let whole = seen.len() == STRIP && seen.iter().all(|seen| seen.start <= base && seen.end >= base + CHUNK);
        if !whole || self.span.softcap.is_some() {
            self.adjust(strip, base);
        }
        for tile in 0..2 {
            self.raise_maxima(strip, tile);
        }
        let all = BLOCKS * (self.scratch.columns + self.steps);
        for row in 0..STRIP {
            self.weigh_row(strip, row);
            beside = self.beside(beside, all * (row + 1) / STRIP);
        }
    }

    /// Returns where the first scores of a row lie; those of block `b`, tile `t` are `b` blocks and `t` tiles further.
    #[inline(always)]
    fn row(row: usize) -> usize {
        2 * (row / TILE) * TILE * TILE + row % TILE * TILE
    }

    /// Caps the scores of a strip and hides those that its queries do not see.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn adjust(&mut self, strip: usize, base: usize) {
        let queries = self.of_strip(strip);
        for row in 0..STRIP {
            let query = strip * STRIP + row;
            let seen = if query < queries.end { self.span.visible[query].clone() } else { 0..0 };
            let first = seen.start.clamp(base, base + CHUNK) - base;
            let last = seen.end.clamp(base, base + CHUNK) - base;
            for i in 0..2 * BLOCKS {
                let at = i / 2 * Tiles::BLOCK + i % 2 * TILE * TILE + Self::row(row);
                let x = &mut self.scratch.scores[strip % 2][at..at + TILE];
                let mut capped = self.simd.load(x);
                if let Some(cap) = self.span.softcap {
                    capped = _mm512_mul_ps(tanh(self.simd, capped), _mm512_set1_ps(cap * LOG2_E));
                }
                let mask = mask_below(last, i * TILE) & !mask_below(first, i * TILE);
                self.simd.store(x, _mm512_mask_blend_ps(mask, _mm512_set1_ps(f32::NEG_INFINITY), capped));
            }
        }
    }

    /// Brings the maxima of half a strip up to date, and what was summed up relative to the old ones.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn raise_maxima(&mut self, strip: usize, tile: usize) {
        let (s, scores) = (self.simd, &self.scratch.scores[strip % 2]);
        let (mut rows, mut columns) = ([0.0_f32; TILE * TILE], [0.0_f32; TILE * TILE]);
        for (row, largest) in rows.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
            for block in 0..BLOCKS {
                for (i, maximum) in maxima.iter_mut().enumerate() {
                    let at = block * Tiles::BLOCK + i * TILE * TILE + Self::row(tile * TILE + row);
                    *maximum = _mm512_max_ps(*maximum, s.load(&scores[at..at + TILE]));
                }
            }
            store_floats(largest, _mm512_max_ps(maxima[0], maxima[1]));
        }
        // SAFETY: both are squares of sixteen rows.
        unsafe { s.transpose(rows.as_ptr().cast(), TILE, columns.as_mut_ptr().cast(), TILE) };
        let query = strip * STRIP + tile * TILE;
        let before = s.load(&self.scratch.maxima[query..query + TILE]);
        let mut maxima = before;
        for column in columns.as_chunks::<TILE>().0 {
            maxima = _mm512_max_ps(maxima, load_floats(column));
        }
        let raised = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(maxima, before);
        if raised != 0 {
            s.store(&mut self.scratch.maxima[query..query + TILE], maxima);
            let shrink = exp2_negative(s, _mm512_sub_ps(before, maxima));
            store_floats((&mut rows[..TILE]).try_into().expect("sixteen floats"), shrink);
            for row in (0..TILE).filter(|row| raised >> row & 1 == 1) {
                let shrink = _mm512_set1_ps(rows[row]);
                let total = &mut self.scratch.totals[query + row];
                store_floats(total, _mm512_mul_ps(load_floats(total), shrink));
                self.shrink(strip, tile * TILE + row, shrink);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn weigh_row(&mut self, strip: usize, row: usize) {
        let query = strip * STRIP + row;
        let maximum = _mm512_set1_ps(self.scratch.maxima[query]);
        let mut total = load_floats(&self.scratch.totals[query]);
        for block in 0..BLOCKS {
            let at = block * Tiles::BLOCK + Self::row(row);
            let scores = &self.scratch.scores[strip % 2][at..at + TILE * TILE + TILE];
            let low = exp2_rounded(_mm512_sub_ps(self.simd.load(scores), maximum));
            let high = exp2_rounded(_mm512_sub_ps(self.simd.load(&scores[TILE * TILE..]), maximum));
            total = _mm512_add_ps(total, _mm512_add_ps(low, high));
            // SAFETY: both types are 512 bits of any pattern.
            let both: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) };
            let at = block * STEP + row * STRIP;
            store(&mut self.scratch.weights[strip % 2][at..at + STRIP], both);
        }
        store_floats(&mut self.scratch.totals[query], total);
    }

    /// Multiplies a row's weighted sums.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn shrink(&mut self, strip: usize, row: usize, by: __m512) {
        let columns = self.scratch.columns;
        for tile in 0..2 * columns {
            let block = (strip * columns + tile / 2) * Tiles::BLOCK;
            let at = block + (2 * (row / TILE) + tile % 2) * TILE * TILE + row % TILE * TILE;
            let part: &mut [f32; TILE] = (&mut self.scratch.sums[at..at + TILE]).try_into().expect("sixteen floats");
            store_floats(part, _mm512_mul_ps(load_floats(part), by));
        }
    }
}

/// Rounds `a` and `b` to bfloat16, side by side: `[a₀, b₀, a₁, b₁, …]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs(a: __m512, b: __m512) -> __m512i {
    let half = _mm512_set1_epi32(0x8000);
    let a = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_castps_si512(a), half));
    _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_add_epi32(_mm512_castps_si512(b), half))
}

/// The first numbers of pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn even(pairs: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))
}

/// The second numbers of pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn odd(pairs: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())))
}

/// Returns `2ˣ` for `x` up to 0 with a relative error below 2⁻¹⁴, a thirty-second of what rounding to bfloat16 adds; below
/// -126 it is 2⁻¹²⁶, the smallest number that processors do not take a detour for and whose products on tiles are zero.
///
/// Reduces to `2ⁿ · 2ʳ` with |r| ≤ 1/2 and takes the Taylor series to r⁴.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2_rounded(x: __m512) -> __m512 {
    let x = _mm512_max_ps(_mm512_set1_ps(-126.0), x);
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(9.618_129e-3);
    for coefficient in [5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, n)
}

/// The lanes `i` with `first + i < limit`.
fn mask_below(limit: usize, first: usize) -> u16 {
    match limit.saturating_sub(first) {
        0 => 0,
        n if n >= TILE => u16::MAX,
        n => (1 << n) - 1,
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [u16], x: __m512i) {
    assert!(to.len() >= STRIP);
    // SAFETY: 32 halves are writable.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_floats(to: &mut [f32; TILE], x: __m512) {
    // SAFETY: sixteen floats are writable.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(from: &[f32; TILE]) -> __m512 {
    // SAFETY: sixteen floats are readable.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}
