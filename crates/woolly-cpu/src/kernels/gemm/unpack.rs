//! Integer forms of the tensor types: each block as bytes, with a scale and perhaps a minimum a group.
//!
//! An element is `scale · (byte − offset) + minimum`. Rows lie in lanes from the first load on: whole words of quants are
//! transposed before they are taken apart, which moves half as much as unpacking first, and scales and minimums are unpacked
//! for all lanes at once. Types that are unpacked to memory (`kernels::unpacked`) are brought side by side
//! afterwards. Layouts are those of `woolly-quant`, the oracle of the tests.

use woolly_quant::TensorType;

use super::lanes::{Block, Pieces, Sink};
use crate::kernels::rounding::{self, Scales};
use crate::kernels::simd::{MAX_LANES, TileSimd, Wide};
use crate::kernels::unpacked::{Layout, Unpacked, layout, to_bytes};

/// Elements unpacked at once: the block of the K-quants, or eight blocks of 32.
pub(super) const PIECE: usize = rounding::BLOCK;

/// How a type's integers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Elements that share a scale: 16 or 32.
    pub(super) group: usize,
    /// Subtracted from every byte.
    pub(super) offset: u8,
    /// Whether groups have a minimum.
    pub(super) minimum: bool,
    /// Which activations share a scale, unless weights share one over more.
    pub(super) scales: Scales,
}

/// Returns the integer form of `ty`, or `None` when it has none here and is multiplied as `f32`.
pub(super) const fn form(ty: TensorType) -> Option<Form> {
    let (group, offset, minimum) = match ty {
        TensorType::Q4_0 => (32, 8, false),
        TensorType::Q5_0 => (32, 16, false),
        TensorType::Q8_0 | TensorType::IQ4_NL | TensorType::IQ4_XS => (32, 128, false),
        TensorType::MXFP4 => (32, 12, false),
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => (32, 0, true),
        TensorType::Q2_K => (16, 0, true),
        TensorType::Q3_K => (16, 4, false),
        TensorType::Q6_K => (16, 32, false),
        TensorType::TQ2_0 => (32, 1, false),
        _ => match layout(ty) {
            Some(Layout { group, offset, .. }) => (group, offset, false),
            None => return None,
        },
    };
    Some(Form { group, offset, minimum, scales: Scales::of(ty) })
}

/// Returns a bound on the bytes that `ty` is unpacked to.
pub(super) const fn largest(ty: TensorType) -> u8 {
    match ty {
        TensorType::Q2_K => 3,
        TensorType::Q3_K => 7,
        TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4_K => 15,
        TensorType::MXFP4 => 24,
        TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q5_K => 31,
        TensorType::Q6_K => 63,
        // Digits of ternary weights, and 3, which a file may hold all the same.
        TensorType::TQ2_0 => 3,
        _ => match layout(ty) {
            Some(Layout { largest, .. }) => largest,
            None => u8::MAX,
        },
    }
}

/// `K[q] + 128` of IQ4_NL and IQ4_XS.
pub(super) const KVALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Twice the E2M1 values, plus 12.
pub(super) const E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// Unpacks the first `blocks` blocks of `from`.
///
/// Each type has a loop of its own, and those with one block a piece none: in a common one the addresses of all rows and
/// types would be computed anew for each piece, which cost as much as unpacking.
#[inline(always)]
pub(super) fn unpack<S: TileSimd>(s: S, ty: TensorType, from: Pieces<'_>, blocks: usize, to: &mut impl Sink<S>) {
    let (elements, size) = (ty.block_elements(), ty.block_bytes());
    assert!(blocks <= PIECE / elements, "more blocks than a piece has");
    macro_rules! each {
        ($unpack:ident) => {
            for b in 0..blocks {
                $unpack(s, from.block(b * size, size), b, to)
            }
        };
    }
    macro_rules! one {
        ($unpack:ident) => {{
            assert!(blocks == 1, "{ty}: a piece that is no block");
            $unpack(s, from.block(0, size), to)
        }};
    }
    // SAFETY: the blocks have the bytes of their type.
    unsafe {
        match ty {
            TensorType::Q4_0 => each!(q4_0),
            TensorType::Q4_1 => each!(q4_1),
            TensorType::Q5_0 => each!(q5_0),
            TensorType::Q5_1 => each!(q5_1),
            TensorType::Q8_0 => each!(q8_0),
            TensorType::IQ4_NL => each!(iq4_nl),
            TensorType::MXFP4 => each!(mxfp4),
            TensorType::IQ4_XS => one!(iq4_xs),
            TensorType::Q2_K => one!(q2_k),
            TensorType::Q3_K => one!(q3_k),
            TensorType::Q4_K => one!(q4_k),
            TensorType::Q5_K => one!(q5_k),
            TensorType::Q6_K => one!(q6_k),
            TensorType::TQ2_0 => one!(tq2_0),
            _ if layout(ty).is_some() => by_rows(s, ty, from.block(0, blocks * size), blocks * elements, to),
            _ => unreachable!("{ty} has no integer form"),
        }
    }
}

/// Unpacks each row by itself, and brings the rows side by side afterwards.
///
/// # Safety
/// The block has the bytes of `columns` weights of its type.
#[inline(always)]
pub(super) unsafe fn by_rows<S: TileSimd>(
    s: S,
    ty: TensorType,
    block: Block<'_>,
    columns: usize,
    to: &mut impl Sink<S>,
) {
    let mut rows = [const { Unpacked([0; PIECE]) }; MAX_LANES];
    let mut scales = [[0.0; 16]; MAX_LANES];
    for (lane, (bytes, scales)) in rows.iter_mut().zip(&mut scales).enumerate().take(S::LANES) {
        // SAFETY: the caller vouches for the block, and a block for all lanes.
        to_bytes(ty, unsafe { block.row(lane) }, bytes, scales);
    }
    let group = form(ty).map_or(PIECE, |form| form.group);
    for g in 0..columns / group {
        // SAFETY: each of the lanes has a row of scales.
        unsafe {
            let scale = scales.as_ptr().cast::<u8>().add(4 * (g * group / 16));
            to.scale(g, s.bits_to_float(s.load_word_of_rows(scale, size_of_val(&scales[0]))));
        }
    }
    to.scaled();
    for g in 0..columns / group {
        // SAFETY: each of the lanes has a row of bytes.
        unsafe {
            let bytes = rows.as_ptr().cast::<u8>().add(g * group);
            let first = s.load_four_of_rows(bytes, PIECE);
            if group == 16 {
                to.quads(g, first);
            } else {
                to.quads(g, joined(first, s.load_four_of_rows(bytes.add(16), PIECE)));
            }
        }
    }
}

/// Declares functions that unpack one block: `b` is its number, for types with blocks of one group.
macro_rules! formats {
    ($(fn $name:ident($s:ident, $block:ident, $to:ident $(, $b:ident)?) $body:block)+) => { $(
        /// # Safety
        /// The block has the bytes of its type.
        #[inline(always)]
        pub(super) unsafe fn $name<S: TileSimd>($s: S, $block: Block<'_>, $($b: usize,)? $to: &mut impl Sink<S>) {
            // SAFETY: all reads stay inside of the block.
            unsafe { $body }
        }
    )+ };
}

formats! {
    fn q4_0(s, block, to, b) {
        to.scale(b, s.low_half(block.word(s, 0)));
        let (low, high) = nibbles(s, block.sixteen(s, 2));
        to.quads(b, joined(low, high));
    }

    fn q4_1(s, block, to, b) {
        let head = block.word(s, 0);
        to.scale(b, s.low_half(head));
        to.minimum(b, high_half(s, head));
        let (low, high) = nibbles(s, block.sixteen(s, 4));
        to.quads(b, joined(low, high));
    }

    fn q5_0(s, block, to, b) {
        to.scale(b, s.low_half(block.word(s, 0)));
        to.quads(b, fives(s, block.word(s, 2), block.sixteen(s, 6)));
    }

    fn q5_1(s, block, to, b) {
        let head = block.word(s, 0);
        to.scale(b, s.low_half(head));
        to.minimum(b, high_half(s, head));
        to.quads(b, fives(s, block.word(s, 4), block.sixteen(s, 8)));
    }

    fn q8_0(s, block, to, b) {
        to.scale(b, s.low_half(block.word(s, 0)));
        let signed = block.thirty_two(s, 2);
        to.quads(b, if S::WIDE == Wide::Signed { signed } else { opposite_tops(s, signed) });
    }

    fn iq4_nl(s, block, to, b) {
        to.scale(b, s.low_half(block.word(s, 0)));
        to.quads(b, looked_up(s, kvalues::<S>(), block.sixteen(s, 2)));
    }

    fn mxfp4(s, block, to, b) {
        let exponent = s.and(block.word(s, 0), s.splat_int(0xff));
        // 2^(e − 128) as a product of two normal numbers, for the two smallest are subnormal.
        let half = s.shift_right(exponent, 1);
        let power = |exponent, plus| s.bits_to_float(s.shift_left(s.add_int(exponent, s.splat_int(plus)), 23));
        to.scale(b, s.mul(power(half, 64), power(s.sub_int(exponent, half), 62)));
        to.quads(b, looked_up(s, &E2M1, block.sixteen(s, 1)));
    }

    fn iq4_xs(s, block, to) {
        let (head, low_bits) = (block.word(s, 0), block.word(s, 4));
        let d = s.low_half(head);
        for group in 0..8 {
            let low = s.and(s.shift_right(low_bits, 4 * group), s.splat_int(15));
            let high = s.and(s.shift_right(head, 16 + 2 * group), s.splat_int(3));
            let scale = s.sub_int(s.or(low, s.shift_left(high, 4)), s.splat_int(32));
            to.scale(group as usize, s.mul(d, s.to_float(scale)));
        }
        to.scaled();
        for group in 0..8 {
            to.quads(group, looked_up(s, kvalues::<S>(), block.sixteen(s, 8 + 16 * group)));
        }
    }

    fn q2_k(s, block, to) {
        let head = block.word(s, 80);
        let (d, minimum) = (s.low_half(head), s.sub(s.splat(0.0), high_half(s, head)));
        for (i, scales) in block.sixteen(s, 0).into_iter().enumerate() {
            for byte in 0..4 {
                to.scale(4 * i + byte, s.mul(d, bits(s, scales, 8 * byte as u32, 15)));
                to.minimum(4 * i + byte, s.mul(minimum, bits(s, scales, 8 * byte as u32 + 4, 15)));
            }
        }
        to.scaled();
        for half in 0..4 {
            let pairs = block.sixteen(s, 16 + 16 * half);
            for j in 0..4 {
                let quants = each(pairs, |pairs| s.and(s.shift_right(pairs, 2 * j as u32), s.splat_int(bytes(3))));
                to.quads(8 * (half / 2) + 2 * j + half % 2, quants);
            }
        }
    }

    fn tq2_0(s, block, to) {
        let d = high_half(s, block.word(s, 62));
        (0..8).for_each(|group| to.scale(group, d));
        for half in 0..2 {
            let pairs = block.thirty_two(s, 32 * half);
            for j in 0..4 {
                let digits = each(pairs, |pairs| s.and(s.shift_right(pairs, 2 * j as u32), s.splat_int(bytes(3))));
                to.quads(4 * half + j, digits);
            }
        }
    }

    fn q3_k(s, block, to) {
        let d = high_half(s, block.word(s, 106));
        let (a, b, c) = (block.word(s, 96), block.word(s, 100), block.word(s, 104));
        let (low, two) = (s.splat_int(bytes(15)), s.splat_int(bytes(3)));
        for k in 0..4 {
            let nibbles = s.and(s.shift_right(if k % 2 == 0 { a } else { b }, k / 2 * 4), low);
            let high = s.shift_left(s.and(s.shift_right(c, 2 * k), two), 4);
            let scales = s.sub_bytes(s.or(nibbles, high), s.splat_int(bytes(32)));
            for byte in 0..4 {
                to.scale((4 * k + byte) as usize, s.mul(d, signed_byte(s, scales, byte)));
            }
        }
        to.scaled();
        let masks = block.thirty_two(s, 0);
        for half in 0..4 {
            let (n, which) = (half / 2, half % 2);
            let pairs = block.sixteen(s, 32 + 16 * half);
            let mask = if which == 0 { [masks[0], masks[1], masks[2], masks[3]] } else { [masks[4], masks[5], masks[6], masks[7]] };
            for j in 0..4 {
                let mut quants = each(pairs, |pairs| s.and(s.shift_right(pairs, 2 * j as u32), two));
                for (quants, mask) in quants.iter_mut().zip(mask) {
                    let third = s.and(s.shift_right(mask, (4 * n + j) as u32), s.splat_int(bytes(1)));
                    *quants = s.or(*quants, s.shift_left(third, 2));
                }
                to.quads(8 * n + 2 * j + which, quants);
            }
        }
    }

    fn q4_k(s, block, to) {
        six_bit_pairs(s, block.sixteen(s, 0), to);
        for j in 0..4 {
            let (low, high) = nibbles(s, block.thirty_two(s, 16 + 32 * j));
            to.quads(2 * j, low);
            to.quads(2 * j + 1, high);
        }
    }

    fn q5_k(s, block, to) {
        six_bit_pairs(s, block.sixteen(s, 0), to);
        let fifths = block.thirty_two(s, 16);
        for j in 0..4 {
            let (mut low, mut high) = nibbles(s, block.thirty_two(s, 48 + 32 * j));
            for i in 0..8 {
                let pair = s.shift_right(fifths[i], 2 * j as u32);
                low[i] = or_masked(s, low[i], s.shift_left(pair, 4), 16);
                high[i] = or_masked(s, high[i], s.shift_left(pair, 3), 16);
            }
            to.quads(2 * j, low);
            to.quads(2 * j + 1, high);
        }
    }

    fn q6_k(s, block, to) {
        let d = high_half(s, block.word(s, 206));
        for (i, scales) in block.sixteen(s, 192).into_iter().enumerate() {
            for byte in 0..4 {
                to.scale(4 * i + byte, s.mul(d, signed_byte(s, scales, byte as u32)));
            }
        }
        to.scaled();
        for half in 0..4 {
            let (n, which) = (half / 2, half % 2);
            let pairs = block.sixteen(s, 128 + 16 * half);
            let first = 8 * n + which;
            let (mut low, mut high) = nibbles(s, block.sixteen(s, 64 * n + 16 * which));
            for i in 0..4 {
                low[i] = or_masked(s, low[i], s.shift_left(pairs[i], 4), 48);
                high[i] = or_masked(s, high[i], pairs[i], 48);
            }
            to.quads(first, low);
            to.quads(first + 4, high);
            let (mut low, mut high) = nibbles(s, block.sixteen(s, 64 * n + 32 + 16 * which));
            for i in 0..4 {
                low[i] = or_masked(s, low[i], s.shift_left(pairs[i], 2), 48);
                high[i] = or_masked(s, high[i], s.shift_right(pairs[i], 2), 48);
            }
            to.quads(first + 2, low);
            to.quads(first + 6, high);
        }
    }
}

/// Returns what indices of IQ4_NL and IQ4_XS stand for, in the bytes of `S`.
#[inline(always)]
fn kvalues<S: TileSimd>() -> &'static [u8; 16] {
    const SIGNED: [u8; 16] = {
        let mut signed = KVALUES;
        let mut i = 0;
        while i < 16 {
            signed[i] ^= 0x80;
            i += 1;
        }
        signed
    };
    if S::WIDE == Wide::Signed { &SIGNED } else { &KVALUES }
}

/// Returns four bytes alike as a word.
#[inline(always)]
fn bytes(byte: u8) -> i32 {
    i32::from_ne_bytes([byte; 4])
}

/// Makes signed bytes unsigned ones that are 128 more, and the other way round.
#[inline(always)]
pub(super) fn opposite_tops<S: TileSimd, const Q: usize>(s: S, words: [S::I; Q]) -> [S::I; Q] {
    let top = s.splat_int(bytes(0x80));
    each(words, |word| s.xor(word, top))
}

/// Splits bytes into their low and high four bits.
#[inline(always)]
pub(super) fn nibbles<S: TileSimd, const Q: usize>(s: S, words: [S::I; Q]) -> ([S::I; Q], [S::I; Q]) {
    let mask = s.splat_int(bytes(15));
    let (mut low, mut high) = (words, words);
    for i in 0..Q {
        low[i] = s.and(words[i], mask);
        high[i] = s.and(s.shift_right(words[i], 4), mask);
    }
    (low, high)
}

/// Applies `f` to each of the words.
#[inline(always)]
fn each<I: Copy, const Q: usize>(mut words: [I; Q], f: impl Fn(I) -> I) -> [I; Q] {
    for word in &mut words {
        *word = f(*word);
    }
    words
}

#[inline(always)]
fn joined<I>([a, b, c, d]: [I; 4], [e, f, g, h]: [I; 4]) -> [I; 8] {
    [a, b, c, d, e, f, g, h]
}

/// Unpacks a group whose sixteen bytes hold two elements each, sixteen apart, as numbers in a table.
#[inline(always)]
fn looked_up<S: TileSimd>(s: S, table: &[u8; 16], words: [S::I; 4]) -> [S::I; 8] {
    let (low, high) = nibbles(s, words);
    each(joined(low, high), |quad| s.look_up(table, quad))
}

/// Unpacks such a group with a fifth bit for each element in a word of its own.
#[inline(always)]
fn fives<S: TileSimd>(s: S, fifths: S::I, words: [S::I; 4]) -> [S::I; 8] {
    let (low, high) = nibbles(s, words);
    let mut quads = joined(low, high);
    for (i, quad) in quads.iter_mut().enumerate() {
        *quad = s.or(*quad, spread_fifths(s, fifths, 4 * i as u32));
    }
    quads
}

/// Brings bits `from..from + 4` to bit 4 of a byte each.
#[inline(always)]
fn spread_fifths<S: TileSimd>(s: S, bits: S::I, from: u32) -> S::I {
    let four = s.and(s.shift_right(bits, from), s.splat_int(15));
    // Bit i times 2^(7j) is bit i + 7j, which is the lowest of byte i where i = j, and never for others.
    let apart = s.mul_int(four, s.splat_int(0x0020_4081));
    s.shift_left(s.and(apart, s.splat_int(bytes(1))), 4)
}

/// Sets scales and minimums from the sixteen bytes that Q4_K and Q5_K begin with: two halves, and eight pairs of six bits,
/// of which the last four pairs have their high two bits above the first four.
#[inline(always)]
fn six_bit_pairs<S: TileSimd>(s: S, [head, first, second, third]: [S::I; 4], to: &mut impl Sink<S>) {
    let (d, minimum) = (s.low_half(head), s.sub(s.splat(0.0), high_half(s, head)));
    let (six, four) = (s.splat_int(bytes(63)), s.splat_int(bytes(15)));
    let late = |low, high| or_masked(s, s.and(low, four), s.shift_right(high, 2), 48);
    let scales = [s.and(first, six), late(third, first)];
    let minimums = [s.and(second, six), late(s.shift_right(third, 4), second)];
    for (i, (scales, minimums)) in scales.into_iter().zip(minimums).enumerate() {
        for byte in 0..4 {
            to.scale(4 * i + byte, s.mul(d, bits(s, scales, 8 * byte as u32, 0xff)));
            to.minimum(4 * i + byte, s.mul(minimum, bits(s, minimums, 8 * byte as u32, 0xff)));
        }
    }
    to.scaled();
}

/// Returns `a | (b & mask)`, the mask being the same for all bytes.
#[inline(always)]
fn or_masked<S: TileSimd>(s: S, a: S::I, b: S::I, mask: u8) -> S::I {
    s.or(a, s.and(b, s.splat_int(bytes(mask))))
}

/// Returns some bits of each word as numbers.
#[inline(always)]
fn bits<S: TileSimd>(s: S, words: S::I, from: u32, mask: i32) -> S::F {
    s.to_float(s.and(s.shift_right(words, from), s.splat_int(mask)))
}

/// Returns a signed byte of each word as a number.
#[inline(always)]
fn signed_byte<S: TileSimd>(s: S, words: S::I, byte: u32) -> S::F {
    s.to_float(s.shift_right_signed(s.shift_left(words, 24 - 8 * byte), 24))
}

/// Returns the half-precision number in the high half of each word.
#[inline(always)]
fn high_half<S: TileSimd>(s: S, words: S::I) -> S::F {
    s.low_half(s.shift_right(words, 16))
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Matrix, Tail};
    use super::*;
    use crate::isa::Level;
    use crate::kernels::gemv::Rows;
    use crate::kernels::simd::{MAX_LANES, TileKernel, dispatch};
    use crate::test_data::{blocks, levels};

    /// What is unpacked, element by element: `[lane][column]` and `[lane][group]`.
    struct Unpacked {
        bytes: [[u8; PIECE]; MAX_LANES],
        scales: [[f32; 16]; MAX_LANES],
        minimums: [[f32; 16]; MAX_LANES],
        lanes: usize,
        signed: bool,
    }

    struct Taking<'a, S>(S, &'a mut Unpacked);

    impl<S: TileSimd> Sink<S> for Taking<'_, S> {
        #[inline(always)]
        fn scale(&mut self, group: usize, scale: S::F) {
            let mut lanes = [0.0; MAX_LANES];
            self.0.store(&mut lanes, scale);
            (0..S::LANES).for_each(|lane| self.1.scales[lane][group] = lanes[lane]);
        }

        #[inline(always)]
        fn minimum(&mut self, group: usize, minimum: S::F) {
            let mut lanes = [0.0; MAX_LANES];
            self.0.store(&mut lanes, minimum);
            (0..S::LANES).for_each(|lane| self.1.minimums[lane][group] = lanes[lane]);
        }

        #[inline(always)]
        fn quads<const Q: usize>(&mut self, group: usize, quads: [S::I; Q]) {
            for (i, quad) in quads.into_iter().enumerate() {
                let mut lanes = [0; MAX_LANES];
                // SAFETY: the array holds a vector.
                unsafe { self.0.store_int_at(quad, lanes.as_mut_ptr()) };
                for (lane, word) in lanes.iter().enumerate().take(S::LANES) {
                    let at = 4 * (group * Q + i);
                    self.1.bytes[lane][at..at + 4].copy_from_slice(&word.to_ne_bytes());
                }
            }
        }
    }

    struct Kernel<'a>(&'a Rows<'a>, usize, &'a mut Unpacked);

    impl TileKernel for Kernel<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) {
            let mut tail = Tail::ZERO;
            let matrix = Matrix::new(self.0);
            let from = Pieces::new(s, matrix, self.1, 0, &mut tail);
            (self.2.lanes, self.2.signed) = (S::LANES, S::WIDE == Wide::Signed);
            unpack(s, self.0.ty, from, matrix.blocks(0), &mut Taking(s, self.2));
        }
    }

    fn check(level: Level, ty: TensorType, form: Form, data: &[u8], rows: usize, first: usize) {
        let columns = data.len() / rows / ty.block_bytes() * ty.block_elements();
        let weight = Rows { ty, bytes: data, columns, rows };
        let mut expected = vec![0.0; rows * columns];
        ty.decode(data, &mut expected).unwrap();
        let (bytes, numbers) = ([[0; PIECE]; MAX_LANES], [[0.0; 16]; MAX_LANES]);
        let mut found = Unpacked { bytes, scales: numbers, minimums: numbers, lanes: 0, signed: false };
        dispatch(level, Kernel(&weight, first, &mut found));
        let signed = found.signed && form.offset == 128;
        for lane in 0..found.lanes {
            for column in 0..columns {
                let (byte, group) = (found.bytes[lane][column], column / form.group);
                assert!(signed || byte <= largest(ty), "{ty}: {byte} above the largest");
                let q = if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) - i32::from(form.offset) };
                let minimum = if form.minimum { found.minimums[lane][group] } else { 0.0 };
                let value = found.scales[lane][group] * q as f32 + minimum;
                let want = expected.get((first + lane) * columns + column).copied().unwrap_or(0.0);
                let case = format!("{level:?} {ty}, row {first} + {lane} of {rows}, column {column}");
                assert!((value - want).abs() <= want.abs() * 1e-6, "{case}: {value}, codec {want}");
            }
        }
    }

    #[test]
    fn every_integer_form_means_what_the_codec_says() {
        let mut seen = 0;
        for &ty in TensorType::ALL {
            let Some(form) = form(ty) else { continue };
            seen += 1;
            for level in levels() {
                // All columns of a piece or as few as there can be; all rows from 3 on exist, or some beyond do not.
                for (columns, rows) in [(PIECE, 40), (ty.block_elements(), 40), (PIECE, 6)] {
                    check(level, ty, form, &blocks(ty, columns, rows, 7), rows, 3);
                }
            }
        }
        assert!(seen >= 13, "only {seen} types have an integer form");
    }

    #[test]
    fn powers_of_two_reach_down_to_subnormals() {
        let ty = TensorType::MXFP4;
        let data: Vec<u8> = (0..=254).flat_map(|e| std::iter::once(e).chain([0x22; 16])).collect();
        for level in levels() {
            (0..255).for_each(|first| check(level, ty, form(ty).unwrap(), &data, 255, first));
        }
    }
}
