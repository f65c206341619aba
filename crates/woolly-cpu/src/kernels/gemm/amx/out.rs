//! From blocks of results, weight rows by tokens, to rows of the output, one a token.
//!
//! Lines of the output that belong to neighbouring tokens are a page and more apart and fall into the same set of the L1
//! cache. So only four tokens are written at a time, along all weight rows of the panel, and their lines are asked for one
//! such round before.

use std::arch::x86_64::*;
use std::ops::Range;

use woolly_tensor::Activation;

use super::{BLOCK, Operation, STRIP};
use crate::buffer::AlignedVec;
use crate::isa::Avx512;
use crate::kernels::activation::activate;

/// Rows and columns of a tile of results.
const TILE: usize = 16;

/// Tokens written together.
const TOKENS: usize = 4;

/// Writes the finished blocks of one strip of tokens to the output, in small parts that fit between the steps of the tile
/// loop: 16 weight rows of four tokens each.
pub(super) struct Drain<'a> {
    operation: &'a Operation<'a>,
    /// Strips of weight rows whose blocks they are.
    strips: Range<usize>,
    tokens: Range<usize>,
    /// Which of the two buffers holds the blocks.
    buffer: usize,
    /// Tiles across all weight rows; of gate and up, those of one.
    across: usize,
    /// Parts not yet done, and the next one: its tile across and its first token in the strip.
    left: usize,
    tile: usize,
    token: usize,
}

impl<'a> Drain<'a> {
    /// Everything is written already.
    pub(super) fn done(operation: &'a Operation<'a>) -> Self {
        Self { operation, strips: 0..0, tokens: 0..0, buffer: 0, across: 0, left: 0, tile: 0, token: 0 }
    }

    /// To write `buffer`, which holds a block for each of `strips` with the strip `tokens` of tokens.
    pub(super) fn new(operation: &'a Operation<'a>, strips: Range<usize>, tokens: usize, buffer: usize) -> Self {
        let tokens = tokens * STRIP..operation.x.rows().min((tokens + 1) * STRIP);
        let across = 2 * strips.len() / if operation.activation.is_some() { 2 } else { 1 };
        let left = tokens.len().div_ceil(TOKENS) * across;
        Self { operation, strips, tokens, buffer, across, left, tile: 0, token: 0 }
    }

    /// Returns the buffer that is free.
    pub(super) fn other(&self) -> usize {
        1 - self.buffer
    }

    /// Returns the number of parts not yet done.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Does the next `parts` parts, or those that are left.
    ///
    /// # Safety
    /// The buffer holds the blocks, and no other thread accesses this part of the output.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn write(&mut self, parts: usize, buffers: &[AlignedVec<f32>; 2]) {
        for _ in 0..parts.min(self.left) {
            // SAFETY: passed on from the caller.
            unsafe { self.part(&buffers[self.buffer]) };
            self.left -= 1;
            self.tile += 1;
            if self.tile == self.across {
                (self.tile, self.token) = (0, self.token + TOKENS);
            }
        }
    }

    /// Writes 16 weight rows of four tokens.
    ///
    /// # Safety
    /// As [`write`](Self::write).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn part(&self, blocks: &[f32]) {
        let paired = self.operation.activation.is_some();
        let block = if paired { self.tile / 2 * 2 } else { self.tile / 2 };
        let strip = self.operation.strip(self.strips.start + block);
        let target = &self.operation.targets[strip.target];
        let first = self.tile % 2 * TILE;
        let rows = strip.rows.saturating_sub(first).min(TILE);
        let first = strip.first + first;
        let mask = ((1_u32 << rows) - 1) as __mmask16;
        let at = block * BLOCK + (self.tile % 2 * 2 + self.token / TILE) * TILE * TILE + self.token % TILE;
        let mut columns = transposed(&blocks[at..]);
        if let Some(activation) = self.operation.activation {
            gate(activation, &mut columns, transposed(&blocks[at + BLOCK..]));
        }
        // SAFETY: the mask covers the rows there are.
        let load = |bias: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask, bias[first.min(bias.len())..].as_ptr()) };
        let bias = target.bias.map_or(_mm512_setzero_ps(), load);
        let stride = target.weight.rows;
        let token = self.tokens.start + self.token;
        for (token, mut value) in (token..self.tokens.end).zip(columns) {
            let start = token * stride + first.min(stride - rows);
            // SAFETY: passed on from the caller: nobody else has these elements.
            let out = unsafe { target.out.slice_mut(start..start + rows) };
            // The same rows of the next round: an address beyond the output does no harm.
            _mm_prefetch::<_MM_HINT_T1>(out.as_ptr().wrapping_add(TOKENS * stride).cast());
            // SAFETY: the mask covers the elements there are.
            unsafe {
                if target.accumulate {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, out.as_ptr()));
                }
                _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, _mm512_add_ps(value, bias));
            }
        }
    }
}

/// Returns four columns of sixteen rows of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(tile: &[f32]) -> [__m512; TOKENS] {
    assert!(tile.len() >= (TILE - 1) * TILE + TOKENS);
    // SAFETY: four elements of each of sixteen rows are readable, by the assertion.
    let row = |r: usize| unsafe { _mm_loadu_ps(tile.as_ptr().add(r * TILE)) };
    // Rows r, r + 4, r + 8 and r + 12 side by side, then a transposition of 4 x 4 in each quarter.
    let lines: [__m512; TOKENS] = std::array::from_fn(|r| {
        let line = _mm512_castps128_ps512(row(r));
        let line = _mm512_insertf32x4::<1>(line, row(r + 4));
        let line = _mm512_insertf32x4::<2>(line, row(r + 8));
        _mm512_insertf32x4::<3>(line, row(r + 12))
    });
    let (a, b) = (_mm512_unpacklo_ps(lines[0], lines[1]), _mm512_unpacklo_ps(lines[2], lines[3]));
    let (c, d) = (_mm512_unpackhi_ps(lines[0], lines[1]), _mm512_unpackhi_ps(lines[2], lines[3]));
    [
        _mm512_shuffle_ps::<0x44>(a, b),
        _mm512_shuffle_ps::<0xee>(a, b),
        _mm512_shuffle_ps::<0x44>(c, d),
        _mm512_shuffle_ps::<0xee>(c, d),
    ]
}

/// Computes `gate = act(gate) · up`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn gate(activation: Activation, gate: &mut [__m512; TOKENS], up: [__m512; TOKENS]) {
    let Some(simd) = Avx512::new() else { return };
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = _mm512_mul_ps(activate(simd, activation, *gate), up);
    }
}
