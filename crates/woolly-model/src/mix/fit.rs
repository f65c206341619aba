//! Types for rows that are no whole number of blocks.

use woolly_quant::TensorType;

/// Returns `ty`, or what stands in for it when rows of `row` elements are no whole number of its blocks: a type with
/// blocks of 32 and at least as many bits, and `F16` where that does not fit either.
pub fn fitting_type(ty: TensorType, row: u64) -> TensorType {
    let fits = |ty: &TensorType| row.is_multiple_of(ty.block_elements() as u64);
    [ty, replacement(ty)].into_iter().find(fits).unwrap_or(TensorType::F16)
}

fn replacement(ty: TensorType) -> TensorType {
    use TensorType as T;
    match ty {
        T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS | T::IQ3_S | T::IQ4_XS => T::IQ4_NL,
        T::Q2_K | T::Q3_K | T::TQ1_0 | T::TQ2_0 | T::Q1_0 | T::Q2_0 => T::Q4_0,
        T::Q4_K => T::Q5_0,
        T::Q5_K => T::Q5_1,
        T::Q6_K => T::Q8_0,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_decide() {
        use TensorType as T;
        let cases = [
            (T::Q4_K, 512, T::Q4_K),
            (T::Q4_K, 64, T::Q5_0),
            (T::Q4_K, 172, T::F16), // 172 = 5 * 32 + 12
            (T::IQ2_XXS, 288, T::IQ4_NL),
            (T::TQ2_0, 32, T::Q4_0),
            (T::Q6_K, 32, T::Q8_0),
            (T::Q8_0, 33, T::F16),
            (T::MXFP4, 48, T::F16),
            (T::NVFP4, 96, T::F16), // blocks of 64, and no type stands in
            (T::BF16, 7, T::BF16),
        ];
        for (ty, row, expected) in cases {
            assert_eq!(fitting_type(ty, row), expected, "{ty} in rows of {row}");
        }
    }

    #[test]
    fn whatever_is_returned_fits() {
        for &ty in TensorType::ALL {
            for row in [1_u64, 7, 32, 64, 128, 172, 256, 1 << 40] {
                assert!(row.is_multiple_of(fitting_type(ty, row).block_elements() as u64), "{ty} in rows of {row}");
            }
        }
    }
}
