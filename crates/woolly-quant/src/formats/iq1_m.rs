//! IQ1_M: the grid of `IQ1_S` with a shift of plus or minus 1/8 for each group of 8 and 3-bit scales of 16 elements.
//! Block: 32 lower bytes of the grid indices, 16 bytes of two halves (upper 3 bits and the sign of the shift), 4 u16
//! of four scales; their upper 4 bits are the bits of the f16 block scale.

use crate::grids::IQ1;
use crate::half::{f16_to_f32, f32_to_f16};
use crate::layout::{field, field_mut, pack_pairs, put_shifted};
use crate::search::codewords::{self, Columns, Format};
use crate::search::emphasised;

#[inline]
pub(crate) fn decode(block: &[u8; 56], out: &mut [f32; 256]) {
    let low: &[u8; 32] = field::<0, _, _>(block);
    let high: &[u8; 16] = field::<32, _, _>(block);
    let tails: &[u8; 8] = field::<48, _, _>(block);
    let tails: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([tails[2 * i], tails[2 * i + 1]]));
    let d = f16_to_f32(tails[0] >> 12 | tails[1] >> 12 << 4 | tails[2] >> 12 << 8 | tails[3] >> 12 << 12);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = tails[i / 8] >> (3 * (i / 2 % 4)) & 7;
        let scale = d * f32::from(2 * scale + 1);
        let high = high[i / 2] >> (4 * (i % 2)) & 15;
        let shift = if high & 8 == 8 { -0.125 } else { 0.125 };
        put_shifted(&IQ1[usize::from(low[i]) | usize::from(high & 7) << 8], shift, scale, out);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 56]) {
    let found = FORMAT.search::<16, 32>(x, &emphasised(x, importance, 1.0));
    *field_mut::<0, _, _>(out) = found.words.map(|word| word as u8);
    // Words from 2048 on have the negative shift: bit 11 becomes bit 3 of the half byte.
    let high = found.words.map(|word| (word >> 8) as u8);
    *field_mut::<32, 16, _>(out) = pack_pairs(&high);
    let d = f32_to_f16(found.d);
    let tails: &mut [u8; 8] = field_mut::<48, _, _>(out);
    for (i, tail) in tails.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let nibble = d >> (4 * i) & 15;
        let bits = (0..4).fold(nibble << 12, |bits, k| bits | u16::from(found.scales[4 * i + k]) << (3 * k));
        *tail = bits.to_le_bytes();
    }
}

static COLUMNS: Columns<8, 2048> = codewords::columns(&IQ1);

const FORMAT: Format<'_, 8, 2048> = Format {
    grid: &COLUMNS,
    shifts: &[&[0.125, -0.125]],
    first: 1.0,
    step: 2.0,
    highest: 7,
    largest: 1.125,
    flattest: 0.875,
};
