//! Quantising with the instructions that this processor has: the encoders of `woolly-quant`, compiled for each level.

use woolly_quant::{CodecError, TensorType};

use crate::isa::{Kernel, Level, Simd};

/// Encodes `values` as [`TensorType::encode`] does or, with `importance`, as [`TensorType::encode_weighted`] does: the
/// same blocks, whatever the level.
///
/// # Errors
/// Those of the two.
pub fn encode(
    level: Level,
    ty: TensorType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), CodecError> {
    match level {
        Level::Scalar => ty.encode_inline(values, importance, out),
        level => level.run(Encode { ty, values, importance, out }),
    }
}

struct Encode<'a> {
    ty: TensorType,
    values: &'a [f32],
    importance: Option<&'a [f32]>,
    out: &'a mut [u8],
}

impl Kernel for Encode<'_> {
    type Output = Result<(), CodecError>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        self.ty.encode_inline(self.values, self.importance, self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uneven values about zero, with outliers.
    fn values(count: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 977) as f32 * 0.37).sin() * if i.is_multiple_of(61) { 9.0 } else { 1.0 };
        (0..count).map(value).collect()
    }

    #[test]
    fn every_level_gives_the_blocks_of_the_codec() {
        let values = values(1024);
        let importance: Vec<f32> = (0..512).map(|i| 0.5 + (i % 13) as f32).collect();
        for &ty in TensorType::ALL.iter().filter(|ty| ty.can_encode()) {
            let mut expected = vec![0; ty.row_bytes(values.len()).expect("whole blocks")];
            let mut found = expected.clone();
            for level in Level::available() {
                ty.encode(&values, &mut expected).expect("encodable");
                encode(level, ty, &values, None, &mut found).expect("encodable");
                assert!(found == expected, "{ty} on {}", level.name());
                ty.encode_weighted(&values, &importance, &mut expected).expect("encodable");
                encode(level, ty, &values, Some(&importance), &mut found).expect("encodable");
                assert!(found == expected, "{ty} with weights on {}", level.name());
            }
        }
    }

    #[test]
    fn every_level_refuses_what_the_codec_refuses() {
        for level in Level::available() {
            let mut out = [0; 144];
            assert!(encode(level, TensorType::Q4_K, &[0.0; 255], None, &mut out).is_err());
            assert!(encode(level, TensorType::Q4_K, &[f32::NAN; 256], None, &mut out).is_err());
            assert!(encode(level, TensorType::Q4_K, &[0.0; 256], Some(&[-1.0; 256]), &mut out).is_err());
        }
    }
}
