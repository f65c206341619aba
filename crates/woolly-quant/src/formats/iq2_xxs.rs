//! IQ2_XXS: 256 elements in groups of 8 from a grid of 256 magnitudes, 7 sign bits a group, 4-bit scales of 32
//! elements. Block: d f16, then for each of 8 runs: 4 grid indices, and a u32 of four sign indices below the scale.

use crate::grids::{IQ2_XXS, even_signs};
use crate::layout::{f16_at, field, field_mut, put_f16, put_signed};
use crate::search::codewords::{self, Columns, Format};
use crate::search::{amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let runs: &[u8; 64] = field::<2, _, _>(block);
    for (out, run) in out.as_chunks_mut::<32>().0.iter_mut().zip(runs.as_chunks::<8>().0) {
        let indices: &[u8; 4] = field::<0, _, _>(run);
        let bits = u32::from_le_bytes(*field::<4, _, _>(run));
        let scale = d * (0.5 + (bits >> 28) as f32) * 0.25;
        for (k, group) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let signs = even_signs((bits >> (7 * k) & 127) as u8);
            put_signed(&IQ2_XXS[usize::from(indices[k])], signs, scale, group);
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 66]) {
    let weights = emphasised(x, importance, 2.0);
    let (signs, magnitudes) = codewords::split_even_signs(x, &weights);
    let found = FORMAT.search::<8, 32>(&magnitudes, &weights);
    put_f16::<0, _>(out, found.d);
    let runs: &mut [u8; 64] = field_mut::<2, _, _>(out);
    for (g, run) in runs.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut bits = u32::from(found.scales[g]) << 28;
        for k in 0..4 {
            run[k] = found.words[4 * g + k] as u8;
            bits |= u32::from(signs[4 * g + k] & 127) << (7 * k);
        }
        *field_mut::<4, _, _>(run) = bits.to_le_bytes();
    }
    // Without weights, nothing is known to count but the squares.
    if importance.is_some() {
        let mut decoded = [0.0; 256];
        decode(out, &mut decoded);
        let by = amplification(x, importance, &decoded, 1.25);
        put_f16::<0, _>(out, by * f16_at::<0, _>(out));
    }
}

static COLUMNS: Columns<8, 256> = codewords::columns(&IQ2_XXS);

const FORMAT: Format<'_, 8, 256> =
    Format { grid: &COLUMNS, shifts: &[&[0.0]], first: 0.125, step: 0.25, highest: 15, largest: 43.0, flattest: 8.0 };
