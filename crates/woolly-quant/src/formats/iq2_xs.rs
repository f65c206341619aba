//! IQ2_XS: 256 elements in groups of 8 from a grid of 512 magnitudes, 7 sign bits a group, 4-bit scales of 16
//! elements. Block: d f16, 32 u16 of a grid index below a sign index, 8 bytes of two scales.

use crate::grids::{IQ2_XS, even_signs};
use crate::layout::{f16_at, field, field_mut, pack_pairs, put_f16, put_signed};
use crate::search::codewords::{self, Columns, Format};
use crate::search::{amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let groups: &[u8; 64] = field::<2, _, _>(block);
    let scales: &[u8; 8] = field::<66, _, _>(block);
    for (i, (out, group)) in out.as_chunks_mut::<8>().0.iter_mut().zip(groups.as_chunks::<2>().0).enumerate() {
        let scale = scales[i / 4] >> (4 * (i / 2 % 2)) & 15;
        let scale = d * (0.5 + f32::from(scale)) * 0.25;
        let group = u16::from_le_bytes(*group);
        put_signed(&IQ2_XS[usize::from(group & 511)], even_signs((group >> 9) as u8), scale, out);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 74]) {
    let weights = emphasised(x, importance, 2.0);
    let (signs, magnitudes) = codewords::split_even_signs(x, &weights);
    let found = FORMAT.search::<16, 32>(&magnitudes, &weights);
    put_f16::<0, _>(out, found.d);
    let groups: &mut [u8; 64] = field_mut::<2, _, _>(out);
    for (i, group) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *group = (found.words[i] | u16::from(signs[i] & 127) << 9).to_le_bytes();
    }
    *field_mut::<66, 8, _>(out) = pack_pairs(&found.scales);
    // Without weights, nothing is known to count but the squares.
    if importance.is_some() {
        let mut decoded = [0.0; 256];
        decode(out, &mut decoded);
        let by = amplification(x, importance, &decoded, 1.25);
        put_f16::<0, _>(out, by * f16_at::<0, _>(out));
    }
}

static COLUMNS: Columns<8, 512> = codewords::columns(&IQ2_XS);

const FORMAT: Format<'_, 8, 512> =
    Format { grid: &COLUMNS, shifts: &[&[0.0]], first: 0.125, step: 0.25, highest: 15, largest: 43.0, flattest: 8.0 };
