//! IQ1_S: 256 elements in groups of 8 from a grid of 2048 ternary codewords, a 3-bit scale and a common shift of plus
//! or minus 1/8 for 32 elements. Block: d f16, 32 lower bytes of the grid indices, 8 u16 of four upper 3 bits, the
//! scale and the sign of the shift.

use crate::grids::IQ1;
use crate::layout::{f16_at, field, field_mut, put_f16, put_shifted};
use crate::search::codewords::{self, Columns, Format};
use crate::search::emphasised;

#[inline]
pub(crate) fn decode(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let low: &[u8; 32] = field::<2, _, _>(block);
    let high: &[u8; 16] = field::<34, _, _>(block);
    for (g, (out, low)) in out.as_chunks_mut::<32>().0.iter_mut().zip(low.as_chunks::<4>().0).enumerate() {
        let high = u16::from_le_bytes(high.as_chunks().0[g]);
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        let shift = if high >> 15 == 1 { -0.125 } else { 0.125 };
        for (k, group) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = usize::from(low[k]) | usize::from(high >> (3 * k) & 7) << 8;
            put_shifted(&IQ1[index], shift, scale, group);
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 50]) {
    let found = FORMAT.search::<8, 32>(x, &emphasised(x, importance, 1.0));
    put_f16::<0, _>(out, found.d);
    *field_mut::<2, _, _>(out) = found.words.map(|word| word as u8);
    let high: &mut [u8; 16] = field_mut::<34, _, _>(out);
    for (g, high) in high.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let own = u16::from(found.choices[g]) << 15 | u16::from(found.scales[g]) << 12;
        let bits = (0..4).fold(own, |bits, k| bits | found.words[4 * g + k] >> 8 << (3 * k));
        *high = bits.to_le_bytes();
    }
}

static COLUMNS: Columns<8, 2048> = codewords::columns(&IQ1);

const FORMAT: Format<'_, 8, 2048> = Format {
    grid: &COLUMNS,
    shifts: &[&[0.125], &[-0.125]],
    first: 1.0,
    step: 2.0,
    highest: 7,
    largest: 1.125,
    flattest: 0.875,
};
