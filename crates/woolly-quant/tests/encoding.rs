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
    fn any_importance_gives_finite_values(values in values(), bits in prop::collection::vec(any::<u32>(), 256)) {
        let importance: Vec<f32> = bits.into_iter().map(|bits| f32::from_bits(bits).abs()).map(|w| if w.is_finite() { w } else { 0.0 }).collect();
        for ty in encodable() {
            let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap()];
            ty.encode_weighted(&values, &importance, &mut blocks).unwrap();
            let mut decoded = vec![f32::NAN; values.len()];
            ty.decode(&blocks, &mut decoded).unwrap();
            prop_assert!(decoded.iter().all(|y| y.is_finite()), "{ty}");
        }
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
