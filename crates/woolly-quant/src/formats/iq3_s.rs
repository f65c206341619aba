//! IQ3_S: 256 elements in groups of 4 from a grid of 512 magnitudes, a sign bit each, 4-bit scales of 32 elements.
//! Block: d f16, 64 lower bytes of the grid indices, 8 bytes of ninth bits, 32 bytes of signs, 4 bytes of two scales.

use crate::grids::IQ3_S;
use crate::layout::{f16_at, field, field_mut, pack_pairs, put_f16, put_signed};
use crate::search::codewords::{self, Columns, Format};
use crate::search::{amplification, or_uniform};

#[inline]
pub(crate) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let low: &[u8; 64] = field::<2, _, _>(block);
    let high: &[u8; 8] = field::<66, _, _>(block);
    let signs: &[u8; 32] = field::<74, _, _>(block);
    let scales: &[u8; 4] = field::<106, _, _>(block);
    for (k, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scale = scales[k / 16] >> (4 * (k / 8 % 2)) & 15;
        let scale = d * f32::from(1 + 2 * scale);
        let index = usize::from(low[k]) | usize::from(high[k / 8] >> (k % 8) & 1) << 8;
        put_signed(&IQ3_S[index], signs[k / 2] >> (4 * (k % 2)), scale, out);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 110]) {
    let (signs, magnitudes) = codewords::split_signs(x);
    let found = FORMAT.search::<8, 64>(&magnitudes, &or_uniform(importance));
    put_f16::<0, _>(out, found.d);
    *field_mut::<2, _, _>(out) = found.words.map(|word| word as u8);
    let high: &mut [u8; 8] = field_mut::<66, _, _>(out);
    for (high, words) in high.iter_mut().zip(found.words.as_chunks::<8>().0) {
        *high = words.iter().rev().fold(0, |bits, word| bits << 1 | (word >> 8) as u8);
    }
    *field_mut::<74, _, _>(out) = signs;
    *field_mut::<106, 4, _>(out) = pack_pairs(&found.scales);
    let mut decoded = [0.0; 256];
    decode(out, &mut decoded);
    let by = amplification(x, importance, &decoded, 1.25);
    put_f16::<0, _>(out, by * f16_at::<0, _>(out));
}

static COLUMNS: Columns<4, 512> = codewords::columns(&IQ3_S);

const FORMAT: Format<'_, 4, 512> =
    Format { grid: &COLUMNS, shifts: &[&[0.0]], first: 1.0, step: 2.0, highest: 15, largest: 15.0, flattest: 1.0 };
