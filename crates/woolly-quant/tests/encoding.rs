//! What every encoder promises: errors instead of wrong lengths and values, and a bound on what encoding loses.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use woolly_quant::{CodecError, TensorType};

fn encodable() -> impl Iterator<Item = TensorType> {
    TensorType::ALL.iter().copied().filter(|ty| ty.can_encode())
}

fn encode(ty: TensorType, values: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0xa5; ty.row_bytes(values.len()).unwrap()];
    ty.encode(values, &mut blocks).unwrap();
    blocks
}

fn round_trip(ty: TensorType, values: &[f32]) -> Vec<f32> {
    let mut decoded = vec![f32::NAN; values.len()];
    ty.decode(&encode(ty, values), &mut decoded).unwrap();
    decoded
}

/// The largest possible error of an element as a fraction of the largest magnitude of its block, for values well inside
/// the range of the scale; `None` where a search trades single elements for the sum.
///
/// To half a step come 2^-11 for a scale in binary16 and as much for a minimum.
fn worst_error(ty: TensorType) -> Option<f32> {
    use TensorType as T;
    let half = 1.0 / 2048.0;
    match ty {
        T::F32 | T::F64 => Some(0.0),
        T::F16 => Some(half),
        T::BF16 => Some(1.0 / 256.0),
        T::Q4_0 => Some(1.0 / 8.0 + half),
        T::Q4_1 => Some(1.0 / 15.0 + 3.0 * half),
        T::Q5_0 => Some(1.0 / 16.0 + half),
        T::Q5_1 => Some(1.0 / 31.0 + 3.0 * half),
        T::Q8_0 | T::Q8_1 => Some(0.5 / 127.0 + 1.01 * half),
        T::Q8_K => Some(0.5001 / 127.0),
        T::TQ1_0 | T::TQ2_0 => Some(0.5 + half),
        T::MXFP4 => Some(0.25),
        _ => None,
    }
}

/// 256 values of magnitudes between 2^-6 and 2^10, far from the subnormals of the scales, as a rule with outliers.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let element = prop_oneof![8 => -1.0_f32..1.0, 1 => -6.0_f32..6.0, 1 => Just(0.0)];
    let element = element.prop_map(|x| if x.abs() < 1.0 / 16.0 { 0.0 } else { x });
    (prop::collection::vec(element, 256), -2_i32..8)
        .prop_map(|(values, exponent)| values.into_iter().map(|x| x * 2f32.powi(exponent)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_element_is_off_by_more_than_the_bound(values in values()) {
        for ty in encodable() {
            let Some(bound) = worst_error(ty) else { continue };
            let decoded = round_trip(ty, &values);
            let size = ty.block_elements();
            for (x, y) in values.chunks(size).zip(decoded.chunks(size)) {
                let largest = x.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
                for (x, y) in x.iter().zip(y) {
                    prop_assert!((x - y).abs() <= bound * largest, "{ty}: {x} became {y}, largest {largest}");
                }
            }
        }
    }

    #[test]
    fn any_finite_values_encode_to_finite_values(bits in prop::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for ty in encodable() {
            let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap()];
            match ty.encode(&values, &mut blocks) {
                Err(CodecError::OutOfRange { index, .. }) => prop_assert!(values[index].abs() > 2000.0 || values[index].is_nan()),
                other => prop_assert_eq!(other, Ok(())),
            }
            let tame: Vec<f32> = values.iter().map(|x| if x.abs() <= 2000.0 { *x } else { 0.0 }).collect();
            prop_assert!(round_trip(ty, &tame).iter().all(|y| y.is_finite()), "{ty}");
        }
    }

    #[test]
    fn any_importance_gives_finite_values(values in values(), importance in importance()) {
        for ty in encodable() {
            prop_assert!(weighted_round_trip(ty, &values, &importance).iter().all(|y| y.is_finite()), "{ty}");
        }
    }

    #[test]
    fn scales_do_not_overflow(steps in prop::collection::vec(-2_i8..=2, 256), importance in importance()) {
        for ty in encodable() {
            let largest = if ty == TensorType::NVFP4 { 2688.0 } else { 65504.0 };
            let values: Vec<f32> = steps.iter().map(|&step| f32::from(step) / 2.0 * largest).collect();
            prop_assert!(round_trip(ty, &values).iter().all(|y| y.is_finite()), "{ty}");
            prop_assert!(weighted_round_trip(ty, &values, &importance).iter().all(|y| y.is_finite()), "{ty}");
        }
    }
}

#[test]
fn one_weight_far_above_the_others_gives_that_element_its_value() {
    let mut values = vec![0.0; 32];
    (values[5], values[17], values[29]) = (-32752.0, -65504.0, 65504.0);
    // Found by chance: sums of products with such weights leave the range of single precision.
    #[rustfmt::skip]
    let found = [
        2.94354e-32, 6.33936e+22, 1.79303e-35, 1513.1171, 1.41919e-05, 3.17966e+38, 1.32102e+31, 0.206973, 3.83306e+15, 5.79289e-16, 9.80455e+11, 5.02137e-32, 6.33847e+12, 1.09523e+25, 3.52021e-20, 8.15565e-12, 4.84932e+08, 2.81404e+32, 5.89568e-05, 9.96764e-16, 5.23149e+26, 1.42738e+13, 4.71764e+05, 2.18709e+12, 4.67747e+26, 1.51348e-19, 12.746821, 3.93109e-22, 1.17402e+08, 3.22389e+31, 603.6999, 5.95448,
    ];
    let even = |largest: f32, other: f32| {
        let mut importance = [other; 32];
        importance[5] = largest;
        importance
    };
    for importance in [found, even(3.2e38, 2.8e32), even(1e6, 1e-9), even(1e-6, 1e-21), even(1e-30, 1e-45)] {
        for (ty, step) in [(TensorType::Q4_1, 131_008.0 / 15.0), (TensorType::Q5_1, 131_008.0 / 31.0)] {
            let decoded = weighted_round_trip(ty, &values, &importance);
            assert!(decoded.iter().all(|y| y.is_finite()), "{ty}, {importance:?}: {decoded:?}");
            let off = (decoded[5] - values[5]).abs();
            // The minimum ends at the edge of binary16, which may cost half a step more.
            assert!(off <= step, "{ty}, {importance:?}: {} became {}", values[5], decoded[5]);
        }
    }
}

/// Weights of every magnitude that `f32` has, zeros among them.
fn importance() -> impl Strategy<Value = Vec<f32>> {
    let weight =
        any::<u32>().prop_map(|bits| f32::from_bits(bits >> 1)).prop_map(|w| if w.is_finite() { w } else { 0.0 });
    prop::collection::vec(weight, 256)
}

fn weighted_round_trip(ty: TensorType, values: &[f32], importance: &[f32]) -> Vec<f32> {
    let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap()];
    ty.encode_weighted(values, importance, &mut blocks).unwrap();
    let mut decoded = vec![f32::NAN; values.len()];
    ty.decode(&blocks, &mut decoded).unwrap();
    decoded
}

/// 8192 values of a bell-shaped distribution, the sums of six uniform numbers, from a multiplicative generator.
fn bell() -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..8192).map(|_| (0..6).map(|_| uniform()).sum()).collect()
}

fn error(x: &[f32], y: &[f32], weight: impl Fn(usize) -> f32) -> f64 {
    let terms = x.iter().zip(y).enumerate().map(|(i, (x, y))| f64::from(weight(i)) * f64::from(x - y).powi(2));
    (terms.sum::<f64>() / x.len() as f64).sqrt()
}

/// Which formats must beat which, for what their bits buy.
#[test]
fn errors_fall_as_formats_spend_more() {
    use TensorType as T;
    let order: &[(T, T, &str)] = &[
        (T::IQ1_M, T::IQ1_S, "1.75 bits against 1.56"),
        (T::IQ2_XXS, T::IQ1_M, "2.06 bits against 1.75"),
        (T::IQ2_XS, T::IQ2_XXS, "2.31 bits against 2.06"),
        (T::IQ2_S, T::IQ2_XS, "2.56 bits against 2.31"),
        (T::IQ2_S, T::Q2_K, "a grid of vectors against a line, at fewer bits"),
        (T::IQ2_XS, T::Q2_0, "2.31 bits against 2.25"),
        (T::Q2_0, T::Q1_0, "2.25 bits against 1.13"),
        (T::IQ3_XXS, T::IQ2_S, "3.06 bits against 2.56"),
        (T::IQ3_S, T::IQ3_XXS, "3.44 bits against 3.06"),
        (T::IQ3_S, T::Q3_K, "a grid of vectors at the same bits"),
        (T::IQ4_XS, T::IQ3_S, "4.25 bits against 3.44"),
        (T::IQ4_XS, T::MXFP4, "finer scales at the same bits"),
        (T::IQ4_NL, T::Q4_0, "levels that suit a bell, at the same bits"),
        (T::NVFP4, T::MXFP4, "finer scales, 4.5 bits against 4.25"),
        (T::Q4_K, T::Q4_0, "a minimum and a search at the same bits"),
        (T::Q4_K, T::Q4_1, "a search, at fewer bits"),
        (T::Q5_K, T::Q5_0, "a minimum and a search at the same bits"),
        (T::Q5_K, T::Q5_1, "a search, at fewer bits"),
        (T::Q6_K, T::Q5_K, "6.56 bits against 5.5"),
        (T::Q8_0, T::Q6_K, "8.5 bits against 6.56"),
    ];
    let values = bell();
    let loss = |ty| error(&values, &round_trip(ty, &values), |_| 1.0);
    for &(better, worse, why) in order {
        let (a, b) = (loss(better), loss(worse));
        assert!(a < b, "{better} loses {a:.5}, {worse} {b:.5}, but it has {why}");
    }
}

#[test]
fn importance_moves_the_error_to_where_it_matters_less() {
    let values = bell();
    // Every third column of a row of 256 is 20 times as important.
    let importance: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { 20.0 } else { 1.0 }).collect();
    let exact = [TensorType::F32, TensorType::F64];
    let no_choice =
        [TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q8_1, TensorType::Q8_K, TensorType::MXFP4];
    for ty in encodable().filter(|ty| !exact.contains(ty)) {
        let loss = |decoded: &[f32]| error(&values, decoded, |i| importance[i % 256]);
        let plain = loss(&round_trip(ty, &values));
        let weighted = loss(&weighted_round_trip(ty, &values, &importance));
        if no_choice.contains(&ty) {
            assert_eq!(weighted, plain, "{ty}");
        } else {
            assert!(weighted < plain, "{ty}: {weighted:.6} with weights, {plain:.6} without");
        }
    }
}

/// The type, its values by index, and why it holds them.
type Representable = (TensorType, fn(usize) -> f32, &'static str);

/// The search must not miss values that the format can hold exactly.
#[test]
fn representable_values_come_back() {
    // Two-level scales make these exact: every run spans all codes.
    let cases: &[Representable] = &[
        (TensorType::Q2_K, |i| (i % 4) as f32 - 1.0, "codes 0 to 3, minimum 1"),
        (TensorType::Q3_K, |i| (i % 8) as f32 - 4.0, "codes -4 to 3"),
        (TensorType::Q4_K, |i| (i % 16) as f32 - 8.0, "codes 0 to 15, minimum 8"),
        (TensorType::Q5_K, |i| (i % 32) as f32 - 16.0, "codes 0 to 31, minimum 16"),
        (TensorType::Q2_0, |i| (i % 4) as f32 - 1.0, "codes -1 to 2"),
        (TensorType::Q1_0, |i| if i % 3 == 0 { 1.5 } else { -1.5 }, "one magnitude"),
        (TensorType::NVFP4, |i| [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, -6.0][i % 8], "the numbers of E2M1"),
        (TensorType::IQ2_XXS, |i| if i % 2 == 0 { 8.0 } else { -8.0 }, "the codeword of smallest levels"),
        (TensorType::IQ3_S, |i| if i % 4 < 2 { 1.0 } else { 15.0 }, "the last codeword"),
    ];
    for &(ty, value, why) in cases {
        let values: Vec<f32> = (0..256).map(value).collect();
        let off = error(&values, &round_trip(ty, &values), |_| 1.0);
        // Scale and minimum are rounded to the 11 bits of binary16, each by up to 2^-12 of the largest magnitude.
        let largest = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
        assert!(off < f64::from(largest) / 1024.0, "{ty}: off by {off}, but it holds {why}");
    }
}

#[test]
fn blocks_of_zeros_stay_zeros() {
    for ty in encodable() {
        let decoded = round_trip(ty, &[0.0; 512]);
        assert!(decoded.iter().all(|&y| y == 0.0), "{ty}: {decoded:?}");
    }
}

#[test]
fn lengths_must_agree() {
    for &ty in TensorType::ALL {
        let (elements, bytes) = (ty.block_elements(), ty.block_bytes());
        let short = CodecError::BlockBytes { ty, elements, expected: bytes, found: bytes - 1 };
        assert_eq!(ty.decode(&vec![0; bytes - 1], &mut vec![0.0; elements]), Err(short.clone()));
        let long = CodecError::BlockBytes { ty, elements, expected: bytes, found: bytes + 1 };
        assert_eq!(ty.decode(&vec![0; bytes + 1], &mut vec![0.0; elements]), Err(long));
        assert_eq!(ty.decode(&[], &mut []), Ok(()), "no block at all is a whole number of blocks");
        if elements > 1 {
            let partial = CodecError::PartialBlock { ty, elements: elements + 1 };
            assert_eq!(ty.decode(&vec![0; bytes], &mut vec![0.0; elements + 1]), Err(partial));
        }
        let encoded = ty.encode(&vec![0.0; elements], &mut vec![0; bytes - 1]);
        let expected = if ty.can_encode() { short } else { CodecError::NotEncodable { ty } };
        assert_eq!(encoded, Err(expected));
    }
}

#[test]
fn importance_must_be_the_weights_of_a_row() {
    for ty in encodable() {
        let block = ty.block_elements();
        let values = vec![0.5; 4 * block];
        let mut out = vec![0; 4 * ty.block_bytes()];
        for (weights, fits) in [(block, true), (2 * block, true), (4 * block, true), (0, false), (3 * block, false)] {
            let result = ty.encode_weighted(&values, &vec![1.0; weights], &mut out);
            let expected = CodecError::ImportanceLength { ty, elements: values.len(), found: weights };
            assert_eq!(result, if fits { Ok(()) } else { Err(expected) }, "{weights} weights");
        }
        for bad in [-1.0, f32::INFINITY, f32::NAN] {
            let mut weights = vec![1.0; block];
            weights[block - 1] = bad;
            let result = ty.encode_weighted(&values, &weights, &mut out);
            assert!(matches!(result, Err(CodecError::ImportanceValue { index, .. }) if index == block - 1), "{bad}");
        }
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    for ty in encodable() {
        let floats = [TensorType::F32, TensorType::F64, TensorType::F16, TensorType::BF16];
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut values = vec![0.5; 2 * ty.block_elements()];
            let last = values.len() - 1;
            values[last] = bad;
            let result = ty.encode(&values, &mut vec![0; 2 * ty.block_bytes()]);
            match result {
                Ok(()) => assert!(floats.contains(&ty), "{ty} cannot hold {bad}"),
                Err(CodecError::OutOfRange { index, .. }) => assert_eq!(index, last, "{ty}"),
                Err(other) => panic!("{ty}: {other}"),
            }
        }
    }
    let error = TensorType::F16.encode(&[70000.0], &mut [0; 2]).unwrap_err().to_string();
    assert_eq!(error, "value 70000 at index 0 does not fit F16, which holds magnitudes up to 65504");
}

#[test]
fn floats_keep_what_they_can_hold() {
    for ty in [TensorType::F32, TensorType::F64, TensorType::F16, TensorType::BF16] {
        let decoded = round_trip(ty, &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0, 1.5]);
        assert_eq!(&decoded[..2], &[f32::INFINITY, f32::NEG_INFINITY], "{ty}");
        assert!(decoded[2].is_nan() && decoded[3].is_sign_negative() && decoded[4] == 1.5, "{ty}");
    }
}

/// The fields that only integer dot products read.
#[test]
fn activation_types_store_their_sums() {
    let values: Vec<f32> = (0..256).map(|i| (i % 16) as f32 - 3.0).collect();
    let q8_k = encode(TensorType::Q8_K, &values);
    for (sum, codes) in q8_k[260..].chunks(2).zip(q8_k[4..260].chunks(16)) {
        let expected: i16 = codes.iter().map(|&q| i16::from(q as i8)).sum();
        assert_eq!(i16::from_le_bytes([sum[0], sum[1]]), expected);
    }
    // Codes are 1, 127 and zeros; the scale is 1, so the sum is 128: 0x5800 in binary16.
    let mut values = [0.0; 32];
    (values[0], values[1]) = (1.0, 127.0);
    assert_eq!(&encode(TensorType::Q8_1, &values)[..4], &[0x00, 0x3c, 0x00, 0x58]);
}
