//! Every decoder against a second one that computes single elements from the written layout of the formats (ggml), for
//! arbitrary bytes; and a few elements worked out by hand.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use woolly_quant::{TensorType, grids, half};

fn half_at(b: &[u8], at: usize) -> f32 {
    half::f16_to_f32(u16::from_le_bytes([b[at], b[at + 1]]))
}

fn u16_at(b: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([b[at], b[at + 1]]))
}

fn u32_at(b: &[u8], at: usize) -> usize {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize
}

fn bit(b: &[u8], n: usize) -> usize {
    usize::from(b[n / 8]) >> (n % 8) & 1
}

/// The n-th half of bytes, the low half first.
fn nibble(b: &[u8], n: usize) -> usize {
    usize::from(b[n / 2]) >> (4 * (n % 2)) & 15
}

/// The code of element e of a run of 2n: the low halves of n bytes, then the high halves.
fn halves(b: &[u8], n: usize, e: usize) -> usize {
    usize::from(b[e % n]) >> (4 * (e / n)) & 15
}

/// The 2-bit code of element e in the order of `Q2_K`.
fn pair(b: &[u8], e: usize) -> usize {
    usize::from(b[32 * (e / 128) + e % 32]) >> (2 * (e / 32 % 4)) & 3
}

/// Scale and minimum of `Q4_K` and `Q5_K`.
fn scale_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => ((s[j + 4] & 15) + 16 * (s[j - 4] >> 6), (s[j + 4] >> 4) + 16 * (s[j] >> 6)),
    };
    (f32::from(scale), f32::from(min))
}

fn e4m3(x: u8) -> f32 {
    let (exp, m) = (i32::from(x >> 3 & 15), f32::from(x & 7));
    match (x, exp) {
        (0x7f, _) => 0.0,
        (_, 0) => m * 2f32.powi(-9),
        _ => (1.0 + m / 8.0) * 2f32.powi(exp - 7),
    }
}

fn signed(magnitude: i8, signs: u8, i: usize) -> f32 {
    if signs >> i & 1 == 1 { -f32::from(magnitude) } else { f32::from(magnitude) }
}

fn even(index: usize) -> u8 {
    let odd = (0..7).filter(|i| index >> i & 1 == 1).count() % 2;
    u8::try_from(index + 128 * odd).unwrap()
}

fn ternary_digit(b: u8, k: u32) -> f32 {
    let digit = (u32::from(b) * 3_u32.pow(k) % 256 * 3) >> 8;
    digit as f32 - 1.0
}

/// Element `e` of block `b`.
fn element(ty: TensorType, b: &[u8], e: usize) -> f32 {
    use TensorType as T;
    match ty {
        T::F32 | T::F64 | T::F16 | T::BF16 | T::I8 | T::I16 | T::I32 | T::I64 => unquantised(ty, b),
        T::Q2_K | T::Q3_K | T::Q4_K | T::Q5_K | T::Q6_K | T::Q8_K => k_quant(ty, b, e),
        T::TQ1_0 if e < 160 => half_at(b, 52) * ternary_digit(b[e % 32], (e / 32) as u32),
        T::TQ1_0 if e < 240 => half_at(b, 52) * ternary_digit(b[32 + e % 16], ((e - 160) / 16) as u32),
        T::TQ1_0 => half_at(b, 52) * ternary_digit(b[48 + e % 4], ((e - 240) / 4) as u32),
        T::TQ2_0 => half_at(b, 64) * (pair(b, e) as f32 - 1.0),
        T::Q1_0 => {
            if bit(&b[2..], e) == 1 {
                half_at(b, 0)
            } else {
                -half_at(b, 0)
            }
        }
        T::Q2_0 => ((usize::from(b[2 + e / 4]) >> (2 * (e % 4)) & 3) as f32 - 1.0) * half_at(b, 0),
        T::MXFP4 => f32::from(grids::E2M1_DOUBLED[halves(&b[1..], 16, e)]) * two_to(i32::from(b[0]) - 128),
        T::NVFP4 => {
            let s = e / 16;
            0.5 * e4m3(b[s]) * f32::from(grids::E2M1_DOUBLED[halves(&b[4 + 8 * s..], 8, e % 16)])
        }
        T::IQ4_NL => half_at(b, 0) * f32::from(grids::IQ4_NL[halves(&b[2..], 16, e)]),
        T::IQ4_XS => {
            let j = e / 32;
            let ls = nibble(&b[4..], j) + 16 * (u16_at(b, 2) >> (2 * j) & 3);
            half_at(b, 0) * (ls as f32 - 32.0) * f32::from(grids::IQ4_NL[halves(&b[8 + 16 * j..], 16, e % 32)])
        }
        T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS | T::IQ3_S => codeword(ty, b, e),
        _ => of_32(ty, b, e),
    }
}

/// Powers below the normal range too.
fn two_to(exponent: i32) -> f32 {
    2f64.powi(exponent) as f32
}

fn unquantised(ty: TensorType, b: &[u8]) -> f32 {
    match ty {
        TensorType::F32 => f32::from_bits(u32_at(b, 0) as u32),
        TensorType::F64 => f64::from_le_bytes(b.try_into().unwrap()) as f32,
        TensorType::F16 => half_at(b, 0),
        TensorType::BF16 => f32::from_bits((u16_at(b, 0) as u32) << 16),
        TensorType::I8 => f32::from(b[0] as i8),
        TensorType::I16 => f32::from(u16_at(b, 0) as i16),
        TensorType::I32 => u32_at(b, 0) as i32 as f32,
        _ => i64::from_le_bytes(b.try_into().unwrap()) as f32,
    }
}

fn of_32(ty: TensorType, b: &[u8], e: usize) -> f32 {
    let d = half_at(b, 0);
    match ty {
        TensorType::Q4_0 => (halves(&b[2..], 16, e) as f32 - 8.0) * d,
        TensorType::Q4_1 => halves(&b[4..], 16, e) as f32 * d + half_at(b, 2),
        TensorType::Q5_0 => ((halves(&b[6..], 16, e) + 16 * bit(&b[2..], e)) as f32 - 16.0) * d,
        TensorType::Q5_1 => (halves(&b[8..], 16, e) + 16 * bit(&b[4..], e)) as f32 * d + half_at(b, 2),
        TensorType::Q8_0 => f32::from(b[2 + e] as i8) * d,
        TensorType::Q8_1 => f32::from(b[4 + e] as i8) * d,
        _ => panic!("no formula for {ty}: add one"),
    }
}

fn k_quant(ty: TensorType, b: &[u8], e: usize) -> f32 {
    let (j, l, k) = (e / 32, e % 32, e / 16);
    match ty {
        TensorType::Q2_K => {
            (half_at(b, 80) * f32::from(b[k] & 15)) * pair(&b[16..], e) as f32 - half_at(b, 82) * f32::from(b[k] >> 4)
        }
        TensorType::Q3_K => {
            let q = pair(&b[32..], e) as f32 - if b[l] >> j & 1 == 1 { 0.0 } else { 4.0 };
            let low = if k < 8 { b[96 + k] & 15 } else { b[96 + k - 8] >> 4 };
            let high = b[96 + 8 + k % 4] >> (2 * (k / 4)) & 3;
            (half_at(b, 108) * (f32::from(low + 16 * high) - 32.0)) * q
        }
        TensorType::Q4_K => {
            let (scale, min) = scale_min(&b[4..16], j);
            (half_at(b, 0) * scale) * halves(&b[16 + 32 * (j / 2)..], 32, e % 64) as f32 - half_at(b, 2) * min
        }
        TensorType::Q5_K => {
            let (scale, min) = scale_min(&b[4..16], j);
            let q = halves(&b[48 + 32 * (j / 2)..], 32, e % 64) + 16 * usize::from(b[16 + l] >> j & 1);
            (half_at(b, 0) * scale) * q as f32 - half_at(b, 2) * min
        }
        TensorType::Q6_K => {
            let (n, quarter) = (e / 128, e / 32 % 4);
            let low = b[64 * n + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
            let high = b[128 + 32 * n + l] >> (2 * quarter) & 3;
            (half_at(b, 208) * f32::from(b[192 + k] as i8)) * (f32::from(low + 16 * high) - 32.0)
        }
        _ => f32::from_bits(u32_at(b, 0) as u32) * f32::from(b[4 + e] as i8),
    }
}

fn codeword(ty: TensorType, b: &[u8], e: usize) -> f32 {
    let (group8, group4, run16, run32) = (e / 8, e / 4, e / 16, e / 32);
    let d = half_at(b, 0);
    match ty {
        TensorType::IQ2_XXS => {
            let tail = u32_at(b, 2 + 8 * run32 + 4);
            let index = usize::from(b[2 + 8 * run32 + group8 % 4]);
            let signs = even(tail >> (7 * (group8 % 4)) & 127);
            d * (0.5 + (tail >> 28) as f32) * 0.25 * signed(grids::IQ2_XXS[index][e % 8], signs, e % 8)
        }
        TensorType::IQ2_XS => {
            let q = u16_at(b, 2 + 2 * group8);
            let scale = d * (0.5 + nibble(&b[66..], run16) as f32) * 0.25;
            scale * signed(grids::IQ2_XS[q % 512][e % 8], even(q / 512), e % 8)
        }
        TensorType::IQ2_S => {
            let index = usize::from(b[2 + group8]) + 256 * (usize::from(b[66 + run32]) >> (2 * (group8 % 4)) & 3);
            let scale = d * (0.5 + nibble(&b[74..], run16) as f32) * 0.25;
            scale * signed(grids::IQ2_S[index][e % 8], b[34 + group8], e % 8)
        }
        TensorType::IQ3_XXS => {
            let tail = u32_at(b, 66 + 4 * run32);
            let signs = even(tail >> (7 * (group8 % 4)) & 127);
            let magnitude = grids::IQ3_XXS[usize::from(b[2 + group4])][e % 4];
            d * (0.5 + (tail >> 28) as f32) * 0.5 * signed(magnitude, signs, e % 8)
        }
        TensorType::IQ3_S => {
            let index = usize::from(b[2 + group4]) + 256 * bit(&b[66..], group4);
            let scale = d * (1 + 2 * nibble(&b[106..], run32)) as f32;
            scale * signed(grids::IQ3_S[index][e % 4], b[74 + group8], e % 8)
        }
        TensorType::IQ1_S => {
            let high = u16_at(b, 34 + 2 * run32);
            let index = usize::from(b[2 + group8]) + 256 * (high >> (3 * (group8 % 4)) & 7);
            let delta = if high >> 15 == 1 { -0.125 } else { 0.125 };
            d * (2 * (high >> 12 & 7) + 1) as f32 * (f32::from(grids::IQ1[index][e % 8]) + delta)
        }
        _ => {
            let tails: [usize; 4] = [u16_at(b, 48), u16_at(b, 50), u16_at(b, 52), u16_at(b, 54)];
            let bits = tails[0] >> 12 | (tails[1] >> 8 & 0xf0) | (tails[2] >> 4 & 0xf00) | (tails[3] & 0xf000);
            let h = nibble(&b[32..], group8);
            let delta = if h & 8 == 8 { -0.125 } else { 0.125 };
            let scale = tails[run16 / 4] >> (3 * (run16 % 4)) & 7;
            let value = f32::from(grids::IQ1[usize::from(b[group8]) + 256 * (h & 7)][e % 8]) + delta;
            half::f16_to_f32(bits as u16) * (2 * scale + 1) as f32 * value
        }
    }
}

fn assert_follows_formula(ty: TensorType, bytes: &[u8]) {
    let blocks = bytes.len() / ty.block_bytes();
    let bytes = &bytes[..blocks * ty.block_bytes()];
    let mut decoded = vec![0.0; blocks * ty.block_elements()];
    ty.decode(bytes, &mut decoded).unwrap();
    for (i, &found) in decoded.iter().enumerate() {
        let (block, e) = (i / ty.block_elements(), i % ty.block_elements());
        let expected = element(ty, &bytes[block * ty.block_bytes()..][..ty.block_bytes()], e);
        // The sign and payload of a NaN that an operation makes are not defined.
        let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(same, "{ty}, element {e} of block {block}: {found:e} instead of {expected:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_decode_as_the_layout_says(bytes in prop::collection::vec(any::<u8>(), 600)) {
        for &ty in TensorType::ALL {
            assert_follows_formula(ty, &bytes);
        }
    }
}

#[test]
fn every_byte_value_decodes_as_the_layout_says() {
    for byte in 0..=255 {
        for &ty in TensorType::ALL {
            assert_follows_formula(ty, &vec![byte; ty.block_bytes()]);
        }
    }
}

/// A block of zeros but for the bytes at the given places.
fn block(ty: TensorType, bytes: &[(usize, u8)]) -> Vec<u8> {
    let mut block = vec![0; ty.block_bytes()];
    for &(at, byte) in bytes {
        block[at] = byte;
    }
    block
}

/// The type, the bytes of its block that are not zero, an element, its value, and why.
type ByHand = (TensorType, &'static [(usize, u8)], usize, f32, &'static str);

#[test]
fn elements_worked_out_by_hand() {
    use TensorType as T;
    // 0x3c is the upper byte of 1.0 in binary16, 0x40 that of 2.0.
    let cases: &[ByHand] = &[
        (T::Q4_0, &[(1, 0x3c), (5, 0x2f)], 3, 7.0, "low half of byte 3: 15 - 8"),
        (T::Q4_0, &[(1, 0x3c), (5, 0x2f)], 19, -6.0, "high half of byte 3: 2 - 8"),
        (T::Q4_1, &[(1, 0x3c), (3, 0x40), (4, 0x05)], 0, 7.0, "5 * 1 + 2"),
        (T::Q5_0, &[(1, 0x3c), (2, 0x01)], 0, 0.0, "fifth bit alone: 16 - 16"),
        (T::Q5_0, &[(1, 0x3c), (5, 0x80)], 31, 0.0, "fifth bit of the last element"),
        (T::Q5_1, &[(1, 0x3c), (3, 0x40), (6, 0x01), (8, 0x30)], 16, 21.0, "16 + 3, plus 2"),
        (T::Q8_0, &[(1, 0x40), (33, 0x80)], 31, -256.0, "the smallest code"),
        (T::Q8_1, &[(1, 0x40), (3, 0x40), (4, 0x03)], 0, 6.0, "the sum is not read"),
        (T::Q2_K, &[(81, 0x3c), (83, 0x40), (8, 0x13), (48, 0x02)], 128, 4.0, "3 * 2 - 2 * 1"),
        (T::Q3_K, &[(109, 0x3c), (96, 0x01), (104, 0x02), (0, 0x01), (32, 0x03)], 0, 3.0, "scale 33 - 32"),
        (T::Q3_K, &[(109, 0x3c)], 255, 128.0, "-32 * -4"),
        (T::Q4_K, &[(1, 0x3c), (3, 0x3c), (4, 0x02), (8, 0x03), (16, 0x05)], 0, 7.0, "2 * 5 - 3"),
        (T::Q4_K, &[(1, 0x3c), (3, 0x3c), (4, 0x40), (12, 0x21), (80, 0x03)], 128, 49.0, "scale 1 + 16, minimum 2"),
        (T::Q5_K, &[(1, 0x3c), (4, 0x02), (16, 0x01)], 0, 32.0, "fifth bit of run 0"),
        (T::Q6_K, &[(209, 0x3c), (207, 0xff), (127, 0xf0), (191, 0xc0)], 255, -31.0, "-1 * (63 - 32)"),
        (T::Q8_K, &[(3, 0x3f), (259, 0x02)], 255, 1.0, "binary32 0.5, times 2"),
        (T::IQ4_NL, &[(1, 0x3c), (2, 0x80)], 16, 1.0, "code 8 stands for 1"),
        (T::IQ4_XS, &[(1, 0x3c), (2, 0x02), (8, 0x0f)], 0, 0.0, "scale 32 - 32"),
        (T::IQ4_XS, &[(1, 0x3c), (3, 0x80), (7, 0x10), (135, 0xf0)], 255, 113.0, "scale 32 + 1 - 32, code 15"),
        (T::TQ1_0, &[(53, 0x3c), (0, 0xff)], 0, 1.0, "all digits 2"),
        (T::TQ2_0, &[(65, 0x3c), (63, 0x80)], 255, 1.0, "digit 2"),
        (T::MXFP4, &[(0, 128), (1, 0x07)], 0, 12.0, "twice 6, at half of 2^1"),
        (T::MXFP4, &[(0, 0), (1, 0x01)], 0, f32::from_bits(0x0020_0000), "2^-128 is subnormal"),
        (T::NVFP4, &[(3, 0x38), (35, 0xa0)], 63, -1.0, "scale 1, code 10: -1"),
        (T::NVFP4, &[(0, 0x7f), (4, 0x07)], 0, 0.0, "NaN scales count as 0"),
        (T::Q1_0, &[(1, 0x3c), (17, 0x80)], 127, 1.0, "set bit"),
        (T::Q1_0, &[(1, 0x3c)], 127, -1.0, "clear bit"),
        (T::Q2_0, &[(1, 0x3c), (17, 0xc0)], 63, 2.0, "3 - 1"),
        (T::IQ2_XXS, &[(1, 0x3c)], 0, 1.0, "8 * 0.5 * 0.25"),
        (T::IQ2_XXS, &[(1, 0x3c), (6, 0x01)], 7, -1.0, "one sign bit makes the eighth negative"),
        (T::IQ2_XS, &[(1, 0x3c), (3, 0x02), (66, 0x01)], 0, -3.0, "sign index 1, 8 * 1.5 * 0.25"),
        (T::IQ2_S, &[(1, 0x3c), (34, 0x01)], 7, 1.0, "eight signs are free"),
        (T::IQ3_XXS, &[(1, 0x3c), (69, 0x10)], 0, 3.0, "4 * 1.5 * 0.5"),
        (T::IQ3_S, &[(1, 0x3c), (109, 0x10), (105, 0x80)], 255, -3.0, "1 * (1 + 2)"),
        (T::IQ1_S, &[(1, 0x3c), (35, 0x80)], 0, -1.125, "codeword of -1, shift -1/8"),
        (T::IQ1_M, &[(53, 0xc0), (55, 0x30)], 0, -0.875, "the scale is spread over four words"),
        (T::I8, &[(0, 0xff)], 0, -1.0, "signed"),
        (T::I16, &[(1, 0x80)], 0, -32768.0, "signed"),
        (T::I32, &[(3, 0x80)], 0, -2_147_483_648.0, "signed"),
        (T::I64, &[(7, 0x80)], 0, -9_223_372_036_854_775_808.0, "signed"),
        (T::F32, &[(3, 0x3f)], 0, 0.5, "little-endian"),
        (T::F16, &[(1, 0x3c)], 0, 1.0, "little-endian"),
        (T::BF16, &[(1, 0x3f)], 0, 0.5, "little-endian"),
        (T::F64, &[(7, 0x40)], 0, 2.0, "little-endian"),
    ];
    for &(ty, bytes, element, expected, why) in cases {
        let mut decoded = vec![0.0; ty.block_elements()];
        ty.decode(&block(ty, bytes), &mut decoded).unwrap();
        assert_eq!(decoded[element], expected, "{ty}, element {element}: {why}");
    }
    for ty in TensorType::ALL {
        assert!(cases.iter().any(|case| case.0 == *ty), "{ty} has no element worked out by hand");
    }
}
