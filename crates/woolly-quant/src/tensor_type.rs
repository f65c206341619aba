//! The one list of tensor types and what follows from it: numbers, names, geometry.
//!
//! To add a type, write `formats/<name>.rs` and add its row to the list below.

use std::fmt;
use std::str::FromStr;

use crate::UnknownTensorType;
use crate::codec::{Encoder, Range, decode_blocks, encode_blocks};
use crate::formats;

/// Makes the enum and its tables from rows of `Name = number: elements per block in bytes per block, module`, followed
/// by `encodes` and the [`Range`] of values when the module has an encoder.
macro_rules! formats {
    ($($(#[$doc:meta])+ $name:ident = $id:literal: $elements:literal in $bytes:literal, $module:ident $(encodes $range:ident)?;)+) => {
        /// How the elements of a tensor are stored in a GGUF file.
        ///
        /// A row of a tensor is a whole number of blocks of [`block_elements`](Self::block_elements) values, each of
        /// [`block_bytes`](Self::block_bytes) bytes. Numbers and layouts are those of ggml.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, reason = "the names are those of the format")]
        pub enum TensorType {
            $($(#[$doc])+ $name,)+
        }

        impl TensorType {
            /// Every tensor type, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the type with this number in a GGUF file, or `None` for unknown and for removed numbers.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Returns the number of this type in a GGUF file.
            pub const fn id(self) -> u32 {
                match self {
                    $(Self::$name => $id,)+
                }
            }

            /// Returns the name of this type, as in `"Q4_K"`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Returns how many elements a block holds; 1 for types that are not quantised.
            pub const fn block_elements(self) -> usize {
                match self {
                    $(Self::$name => $elements,)+
                }
            }

            /// Returns how many bytes a block takes.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Self::$name => $bytes,)+
                }
            }

            /// Decodes slices whose lengths have been checked.
            #[inline]
            pub(crate) fn decode_checked(self, blocks: &[u8], out: &mut [f32]) {
                match self {
                    $(Self::$name => decode_blocks::<$bytes, $elements>(blocks, out, formats::$module::decode),)+
                }
            }

            /// Returns how this type is encoded, `None` when it can only be decoded.
            pub(crate) fn encoder(self) -> Option<Encoder> {
                match self {
                    $(Self::$name => encoder!($($range)? $module),)+
                }
            }
        }
    };
}

macro_rules! encoder {
    ($module:ident) => {
        None
    };
    ($range:ident $module:ident) => {
        Some(Encoder {
            range: Range::$range,
            blocks: |values, importance, out| encode_blocks!(formats::$module::encode, values, importance, out),
        })
    };
}

formats! {
    /// IEEE 754 binary32.
    F32 = 0: 1 in 4, f32 encodes ALL;
    /// IEEE 754 binary16.
    F16 = 1: 1 in 2, f16 encodes F16;
    /// 4 bits, a scale per 32 elements.
    Q4_0 = 2: 32 in 18, q4_0 encodes F16_SCALE;
    /// 4 bits, a scale and a minimum per 32 elements.
    Q4_1 = 3: 32 in 20, q4_1 encodes F16_SCALE;
    /// 5 bits, a scale per 32 elements.
    Q5_0 = 6: 32 in 22, q5_0 encodes F16_SCALE;
    /// 5 bits, a scale and a minimum per 32 elements.
    Q5_1 = 7: 32 in 24, q5_1 encodes F16_SCALE;
    /// 8 bits, a scale per 32 elements.
    Q8_0 = 8: 32 in 34, q8_0 encodes F16_SCALE;
    /// 8 bits, a scale per 32 elements and the scaled sum of the quants; meant for activations.
    Q8_1 = 9: 32 in 36, q8_1 encodes F16_SCALE;
    /// 2 bits, 4-bit scales and minima per 16 elements.
    Q2_K = 10: 256 in 84, q2_k encodes F16_SCALE;
    /// 3 bits, 6-bit scales per 16 elements.
    Q3_K = 11: 256 in 110, q3_k encodes F16_SCALE;
    /// 4 bits, 6-bit scales and minima per 32 elements.
    Q4_K = 12: 256 in 144, q4_k encodes F16_SCALE;
    /// 5 bits, 6-bit scales and minima per 32 elements.
    Q5_K = 13: 256 in 176, q5_k encodes F16_SCALE;
    /// 6 bits, 8-bit scales per 16 elements.
    Q6_K = 14: 256 in 210, q6_k encodes F16_SCALE;
    /// 8 bits, a binary32 scale per 256 elements and sums of 16 quants; meant for activations.
    Q8_K = 15: 256 in 292, q8_k encodes F32_SCALE;
    /// 2.06 bits: 8-element codewords of a 256-entry grid with signs, 4-bit scales per 32 elements.
    IQ2_XXS = 16: 256 in 66, iq2_xxs encodes F16_SCALE;
    /// 2.31 bits: 8-element codewords of a 512-entry grid with signs, 4-bit scales per 16 elements.
    IQ2_XS = 17: 256 in 74, iq2_xs encodes F16_SCALE;
    /// 3.06 bits: 4-element codewords of a 256-entry grid with signs, 4-bit scales per 32 elements.
    IQ3_XXS = 18: 256 in 98, iq3_xxs encodes F16_SCALE;
    /// 1.56 bits: ternary 8-element codewords of a 2048-entry grid, 3-bit scales per 32 elements.
    IQ1_S = 19: 256 in 50, iq1_s encodes F16_SCALE;
    /// 4 bits into a table of 16 unevenly spaced values, a scale per 32 elements.
    IQ4_NL = 20: 32 in 18, iq4_nl encodes F16_SCALE;
    /// 3.44 bits: 4-element codewords of a 512-entry grid with signs, 4-bit scales per 32 elements.
    IQ3_S = 21: 256 in 110, iq3_s encodes F16_SCALE;
    /// 2.56 bits: 8-element codewords of a 1024-entry grid with signs, 4-bit scales per 16 elements.
    IQ2_S = 22: 256 in 82, iq2_s encodes F16_SCALE;
    /// 4 bits into the table of `IQ4_NL`, 6-bit scales per 32 elements.
    IQ4_XS = 23: 256 in 136, iq4_xs encodes F16_SCALE;
    /// Signed 8-bit integers.
    I8 = 24: 1 in 1, i8;
    /// Signed 16-bit integers.
    I16 = 25: 1 in 2, i16;
    /// Signed 32-bit integers.
    I32 = 26: 1 in 4, i32;
    /// Signed 64-bit integers.
    I64 = 27: 1 in 8, i64;
    /// IEEE 754 binary64.
    F64 = 28: 1 in 8, f64 encodes ALL;
    /// 1.75 bits: the grid of `IQ1_S`, 3-bit scales per 16 elements.
    IQ1_M = 29: 256 in 56, iq1_m encodes F16_SCALE;
    /// bfloat16: the upper half of a binary32.
    BF16 = 30: 1 in 2, bf16 encodes BF16;
    /// 1.69 bits: five ternary digits a byte, a scale per 256 elements.
    TQ1_0 = 34: 256 in 54, tq1_0 encodes F16_SCALE;
    /// 2.06 bits: four ternary digits a byte, a scale per 256 elements.
    TQ2_0 = 35: 256 in 66, tq2_0 encodes F16_SCALE;
    /// OCP MXFP4: E2M1 elements, a power-of-two scale per 32 elements.
    MXFP4 = 39: 32 in 17, mxfp4 encodes F32_SCALE;
    /// NVFP4: E2M1 elements, an unsigned E4M3 scale per 16 elements.
    NVFP4 = 40: 64 in 36, nvfp4 encodes E4M3_SCALE;
    /// 1 bit: plus or minus the scale of 128 elements.
    Q1_0 = 41: 128 in 18, q1_0 encodes F16_SCALE;
    /// 2 bits: -1, 0, 1 or 2 times the scale of 64 elements.
    Q2_0 = 42: 64 in 18, q2_0 encodes F16_SCALE;
}

impl TensorType {
    /// Returns how many bytes a row of `elements` values takes.
    ///
    /// `None` when `elements` is not a whole number of blocks, or when the size does not fit a `usize`.
    pub const fn row_bytes(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TensorType {
    type Err = UnknownTensorType;

    /// Finds a type by its name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownTensorType> {
        let found = Self::ALL.iter().find(|ty| ty.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| UnknownTensorType { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_the_type() {
        for &ty in TensorType::ALL {
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.to_string().parse(), Ok(ty));
            assert_eq!(ty.name().to_lowercase().parse(), Ok(ty));
        }
        assert!(TensorType::ALL.is_sorted_by_key(|ty| ty.id()));
    }

    #[test]
    fn removed_and_unknown_numbers_are_refused() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(TensorType::from_id(id), None, "{id}");
        }
        let error = "Q4_2".parse::<TensorType>().unwrap_err().to_string();
        assert!(error.starts_with("\"Q4_2\" is not a tensor type; known are F32, F16, Q4_0,"), "{error}");
    }

    /// The table of bits per weight in the description of the format.
    #[test]
    fn sizes_give_the_known_bits_per_weight() {
        use TensorType as T;
        let known = [
            (T::F32, 32.0),
            (T::Q4_0, 4.5),
            (T::Q4_1, 5.0),
            (T::Q5_0, 5.5),
            (T::Q5_1, 6.0),
            (T::Q8_0, 8.5),
            (T::Q2_K, 2.625),
            (T::Q3_K, 3.4375),
            (T::Q4_K, 4.5),
            (T::Q5_K, 5.5),
            (T::Q6_K, 6.5625),
            (T::IQ1_S, 1.5625),
            (T::IQ1_M, 1.75),
            (T::IQ2_XXS, 2.0625),
            (T::IQ2_XS, 2.3125),
            (T::IQ2_S, 2.5625),
            (T::IQ3_XXS, 3.0625),
            (T::IQ3_S, 3.4375),
            (T::IQ4_XS, 4.25),
            (T::IQ4_NL, 4.5),
            (T::TQ1_0, 1.6875),
            (T::TQ2_0, 2.0625),
            (T::MXFP4, 4.25),
            (T::NVFP4, 4.5),
            (T::Q1_0, 1.125),
            (T::Q2_0, 2.25),
        ];
        for (ty, bits) in known {
            assert_eq!(8.0 * ty.block_bytes() as f64 / ty.block_elements() as f64, bits, "{ty}");
        }
    }

    #[test]
    fn a_row_is_a_whole_number_of_blocks() {
        assert_eq!(TensorType::Q4_K.row_bytes(0), Some(0));
        assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(TensorType::Q4_K.row_bytes(511), None);
        assert_eq!(TensorType::F32.row_bytes(usize::MAX), None, "the size overflows");
    }
}
