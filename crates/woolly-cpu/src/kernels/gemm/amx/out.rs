//! From blocks of results, weight rows by tokens, to rows of the output, one a token.

use std::arch::x86_64::*;
use std::ops::Range;

use woolly_tensor::Activation;

use super::transpose::transpose;
use super::{BLOCK, STRIP, Target};
use crate::isa::Avx512;
use crate::kernels::activation::activate;

/// Rows and columns of a tile of results.
const TILE: usize = 16;

/// Writes the results of weight rows `rows` and tokens `tokens`, at most [`STRIP`] each, with bias and accumulation.
///
/// # Safety
/// No other thread accesses this part of the output.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn write(target: &Target<'_>, rows: Range<usize>, tokens: Range<usize>, block: &[f32]) {
    assert!(block.len() == BLOCK && rows.len() <= STRIP && tokens.len() <= STRIP);
    let tiles = |len: usize| len.div_ceil(TILE);
    for (i, j) in (0..tiles(rows.len())).flat_map(|i| (0..tiles(tokens.len())).map(move |j| (i, j))) {
        let tile = &block[(2 * i + j) * TILE * TILE..][..TILE * TILE];
        let rows = rows.start + i * TILE..rows.end.min(rows.start + (i + 1) * TILE);
        let mask = ((1_u32 << rows.len()) - 1) as __mmask16;
        let bias = target.bias.map(|bias| &bias[rows.clone()]);
        // SAFETY: the mask covers the rows there are.
        let bias = bias.map(|bias| unsafe { _mm512_maskz_loadu_ps(mask, bias.as_ptr()) });
        // SAFETY: sixteen rows of sixteen elements are readable.
        let lines = std::array::from_fn(|row| unsafe { _mm512_loadu_si512(tile[row * TILE..].as_ptr().cast()) });
        let columns = transpose(lines);
        for (token, column) in (tokens.start + j * TILE..tokens.end).zip(columns) {
            let at = token * target.weight.rows;
            // SAFETY: passed on from the caller: nobody else has these elements.
            let out = unsafe { target.out.slice_mut(at + rows.start..at + rows.end) };
            let mut value = _mm512_castsi512_ps(column);
            if target.accumulate {
                // SAFETY: the mask covers the elements there are.
                value = _mm512_add_ps(value, unsafe { _mm512_maskz_loadu_ps(mask, out.as_ptr()) });
            }
            if let Some(bias) = bias {
                value = _mm512_add_ps(value, bias);
            }
            // SAFETY: the mask covers the elements there are.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, value) };
        }
    }
}

/// Computes `gate = act(gate) · up`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    let Some(simd) = Avx512::new() else { return };
    for (gate, up) in gate.as_chunks_mut::<TILE>().0.iter_mut().zip(up.as_chunks::<TILE>().0) {
        // SAFETY: sixteen elements are readable and writable.
        unsafe {
            let active = activate(simd, activation, _mm512_loadu_ps(gate.as_ptr()));
            _mm512_storeu_ps(gate.as_mut_ptr(), _mm512_mul_ps(active, _mm512_loadu_ps(up.as_ptr())));
        }
    }
}
