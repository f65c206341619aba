//! IQ3_XXS: 256 elements in groups of 4 from a grid of 256 magnitudes, 7 sign bits for two groups, 4-bit scales of 32
//! elements. Block: d f16, 64 grid indices, 8 u32 of four sign indices below a scale.

use crate::grids::{IQ3_XXS, even_signs};
use crate::layout::{f16_at, field, field_mut, put_f16, put_signed};
use crate::search::codewords::{self, Columns, Format};
use crate::search::{amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let indices: &[u8; 64] = field::<2, _, _>(block);
    let tails: &[u8; 32] = field::<66, _, _>(block);
    for (g, (out, indices)) in out.as_chunks_mut::<32>().0.iter_mut().zip(indices.as_chunks::<8>().0).enumerate() {
        let bits = u32::from_le_bytes(tails.as_chunks().0[g]);
        let scale = d * (0.5 + (bits >> 28) as f32) * 0.5;
        for (k, group) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = even_signs((bits >> (7 * (k / 2)) & 127) as u8) >> (4 * (k % 2));
            put_signed(&IQ3_XXS[usize::from(indices[k])], signs, scale, group);
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 98]) {
    let weights = emphasised(x, importance, 2.0);
    let (signs, magnitudes) = codewords::split_even_signs(x, &weights);
    let found = FORMAT.search::<8, 64>(&magnitudes, &weights);
    put_f16::<0, _>(out, found.d);
    *field_mut::<2, _, _>(out) = found.words.map(|word| word as u8);
    let tails: &mut [u8; 32] = field_mut::<66, _, _>(out);
    for (g, tail) in tails.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scale = u32::from(found.scales[g]) << 28;
        let bits = (0..4).fold(scale, |bits, k| bits | u32::from(signs[4 * g + k] & 127) << (7 * k));
        *tail = bits.to_le_bytes();
    }
    // Without weights, nothing is known to count but the squares.
    if importance.is_some() {
        let mut decoded = [0.0; 256];
        decode(out, &mut decoded);
        let by = amplification(x, importance, &decoded, 1.25);
        put_f16::<0, _>(out, by * f16_at::<0, _>(out));
    }
}

static COLUMNS: Columns<4, 256> = codewords::columns(&IQ3_XXS);

const FORMAT: Format<'_, 4, 256> =
    Format { grid: &COLUMNS, shifts: &[&[0.0]], first: 0.25, step: 0.5, highest: 15, largest: 62.0, flattest: 4.0 };
