//! From blocks of results, weight rows by tokens, to rows of the output, one a token.
//!
//! A block is written while the next one is computed, in small parts that fit between the steps of the tile loop: it is
//! still in the L1 cache then, and its lines of the output have been asked for one block before.

use std::arch::x86_64::*;
use std::ops::Range;

use woolly_tensor::Activation;

use super::{BLOCK, Operation, STRIP, Strip, Target};
use crate::isa::Avx512;
use crate::kernels::activation::activate;

/// Rows and columns of a tile of results.
const TILE: usize = 16;

/// Tokens written together.
const TOKENS: usize = 4;

/// Floats of the two buffers for finished blocks, of which each has room for gate and up.
pub(super) const BUFFERS: usize = 2 * 2 * BLOCK;

/// Writes one finished block to the output, 16 weight rows of four tokens at a time.
pub(super) struct Drain<'a> {
    target: &'a Target<'a>,
    activation: Option<Activation>,
    /// Weight rows and tokens of the block.
    rows: Range<usize>,
    tokens: Range<usize>,
    /// Which of the two buffers holds it.
    buffer: usize,
    /// Parts done, and in all.
    next: usize,
    parts: usize,
    /// Parts to do at a time, so that all are done when the next block is finished.
    pub(super) each: usize,
}

impl<'a> Drain<'a> {
    /// Everything is written already.
    pub(super) fn done(operation: &'a Operation<'a>) -> Self {
        let (target, activation) = (&operation.targets[0], operation.activation);
        Self { target, activation, rows: 0..0, tokens: 0..0, buffer: 0, next: 0, parts: 0, each: 0 }
    }

    /// To write the block of `strip` with a strip of tokens from the buffer that is free, within the next `steps` steps.
    pub(super) fn start(&mut self, operation: &'a Operation<'a>, strip: Strip, tokens: usize, steps: usize) {
        self.target = &operation.targets[strip.target];
        self.rows = strip.first..strip.first + strip.rows;
        self.tokens = tokens * STRIP..operation.x.rows().min((tokens + 1) * STRIP);
        (self.buffer, self.next) = (1 - self.buffer, 0);
        self.parts = self.tokens.len().div_ceil(TOKENS) * strip.rows.div_ceil(TILE);
        self.each = self.parts.div_ceil(steps);
    }

    /// Returns where the block goes that is finished next; with an activation, `second` says that of the other weight.
    pub(super) fn free(&self, second: bool) -> usize {
        (1 - self.buffer) * 2 * BLOCK + usize::from(second) * BLOCK
    }

    /// Returns the number of parts not yet done.
    pub(super) fn left(&self) -> usize {
        self.parts - self.next
    }

    /// Does the next `parts` parts, or those that are left.
    ///
    /// # Safety
    /// The buffer holds the block, and no other thread accesses this part of the output.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn write(&mut self, parts: usize, buffers: &[f32]) {
        for _ in 0..parts.min(self.left()) {
            let across = self.rows.len().div_ceil(TILE);
            let (i, token) = if across == 2 { (self.next % 2, self.next / 2) } else { (0, self.next) };
            // SAFETY: passed on from the caller.
            unsafe { self.part(i, token * TOKENS, &buffers[self.buffer * 2 * BLOCK..]) };
            self.next += 1;
        }
    }

    /// Writes tile `i` along the weight rows for the four tokens from `token`.
    ///
    /// # Safety
    /// As [`write`](Self::write).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn part(&self, i: usize, token: usize, blocks: &[f32]) {
        let rows = self.rows.start + i * TILE..self.rows.end.min(self.rows.start + (i + 1) * TILE);
        let mask = ((1_u32 << rows.len()) - 1) as __mmask16;
        let at = (2 * i + token / TILE) * TILE * TILE + token % TILE;
        let mut columns = transposed(&blocks[at..]);
        if let Some(activation) = self.activation {
            gate(activation, &mut columns, transposed(&blocks[at + BLOCK..]));
        }
        // SAFETY: the mask covers the rows there are.
        let load = |bias: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask, bias[rows.clone()].as_ptr()) };
        let bias = self.target.bias.map_or(_mm512_setzero_ps(), load);
        let stride = self.target.weight.rows;
        for (token, mut value) in (self.tokens.start + token..self.tokens.end).zip(columns) {
            // SAFETY: passed on from the caller: nobody else has these elements.
            let out = unsafe { self.target.out.slice_mut(token * stride + rows.start..token * stride + rows.end) };
            // The same token's part of the next strip: an address beyond the output does no harm.
            _mm_prefetch::<_MM_HINT_T1>(out.as_ptr().wrapping_add(STRIP).cast());
            // SAFETY: the mask covers the elements there are.
            unsafe {
                if self.target.accumulate {
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
