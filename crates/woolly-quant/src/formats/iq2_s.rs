//! IQ2_S: 256 elements in groups of 8 from a grid of 1024 magnitudes, 8 sign bits a group, 4-bit scales of 16
//! elements. Block: d f16, 32 lower bytes of the grid indices, 32 bytes of signs, 8 bytes of four upper 2 bits, 8
//! bytes of two scales.

use crate::grids::IQ2_S;
use crate::layout::{f16_at, field, field_mut, pack_pairs, put_f16, put_signed};
use crate::search::codewords::{self, Columns, Format};
use crate::search::{amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let low: &[u8; 32] = field::<2, _, _>(block);
    let signs: &[u8; 32] = field::<34, _, _>(block);
    let high: &[u8; 8] = field::<66, _, _>(block);
    let scales: &[u8; 8] = field::<74, _, _>(block);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = scales[i / 4] >> (4 * (i / 2 % 2)) & 15;
        let scale = d * (0.5 + f32::from(scale)) * 0.25;
        let index = usize::from(low[i]) | usize::from(high[i / 4] >> (2 * (i % 4)) & 3) << 8;
        put_signed(&IQ2_S[index], signs[i], scale, out);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 82]) {
    let (signs, magnitudes) = codewords::split_signs(x);
    let found = FORMAT.search::<16, 32>(&magnitudes, &emphasised(x, importance, 5.0));
    put_f16::<0, _>(out, found.d);
    *field_mut::<2, _, _>(out) = found.words.map(|word| word as u8);
    *field_mut::<34, _, _>(out) = signs;
    let high: &mut [u8; 8] = field_mut::<66, _, _>(out);
    for (high, words) in high.iter_mut().zip(found.words.as_chunks::<4>().0) {
        *high = words.iter().rev().fold(0, |bits, word| bits << 2 | (word >> 8) as u8);
    }
    *field_mut::<74, 8, _>(out) = pack_pairs(&found.scales);
    // Without weights, nothing is known to count but the squares.
    if importance.is_some() {
        let mut decoded = [0.0; 256];
        decode(out, &mut decoded);
        let by = amplification(x, importance, &decoded, 1.25);
        put_f16::<0, _>(out, by * f16_at::<0, _>(out));
    }
}

static COLUMNS: Columns<8, 1024> = codewords::columns(&IQ2_S);

const FORMAT: Format<'_, 8, 1024> =
    Format { grid: &COLUMNS, shifts: &[&[0.0]], first: 0.125, step: 0.25, highest: 15, largest: 43.0, flattest: 8.0 };
