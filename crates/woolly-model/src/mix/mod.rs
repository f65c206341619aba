//! Quantisation mixes: which tensor type each weight of a model gets under a name such as `Q4_K_M`.
//!
//! The rules are those of llama.cpp, so that a file made here has the types that its name promises everywhere. They
//! look at names, shapes and a few hyper-parameters only: no weight is read, and the model need not be one that can be
//! run.

mod category;
mod facts;
mod fit;
mod rules;

use std::fmt;
use std::str::FromStr;

use woolly_quant::TensorType;

pub use category::is_quantisable;
pub use facts::{ModelFacts, TensorFacts};
pub use fit::fitting_type;

/// Makes the enum and its tables from rows of `Name = general.file_type: type of most weights`.
macro_rules! mixes {
    ($($(#[$doc:meta])+ $name:ident = $file_type:literal: $base:ident;)+) => {
        /// A named choice of tensor types for the weights of a model.
        ///
        /// ```
        /// use woolly_model::mix::Mix;
        ///
        /// let mix: Mix = "q4_k_m".parse()?;
        /// assert_eq!((mix, mix.to_string().as_str(), mix.file_type()), (Mix::Q4_K_M, "Q4_K_M", 15));
        /// # Ok::<(), woolly_model::mix::UnknownMix>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, reason = "the names are those of llama.cpp")]
        pub enum Mix {
            $($(#[$doc])+ $name,)+
        }

        impl Mix {
            /// Every mix, in the order of [`file_type`](Self::file_type).
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the name, as in `"Q4_K_M"`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Returns the number that `general.file_type` holds for this mix.
            pub const fn file_type(self) -> u32 {
                match self {
                    $(Self::$name => $file_type,)+
                }
            }

            /// Returns the type of every weight that no rule singles out.
            pub const fn base_type(self) -> TensorType {
                match self {
                    $(Self::$name => TensorType::$base,)+
                }
            }
        }
    };
}

mixes! {
    /// 32 bits: no loss.
    F32 = 0: F32;
    /// 16 bits.
    F16 = 1: F16;
    /// 4.5 bits, one scale per 32 weights.
    Q4_0 = 2: Q4_0;
    /// 5 bits, scale and minimum per 32 weights.
    Q4_1 = 3: Q4_1;
    /// 8.5 bits: practically no loss.
    Q8_0 = 7: Q8_0;
    /// 5.5 bits, one scale per 32 weights.
    Q5_0 = 8: Q5_0;
    /// 6 bits, scale and minimum per 32 weights.
    Q5_1 = 9: Q5_1;
    /// 2.6 bits, more for values, outputs and down projections.
    Q2_K = 10: Q2_K;
    /// 3.4 bits.
    Q3_K_S = 11: Q3_K;
    /// 3.4 bits, more for values, outputs and down projections.
    Q3_K_M = 12: Q3_K;
    /// 3.4 bits, 5.5 for values, outputs and down projections.
    Q3_K_L = 13: Q3_K;
    /// 4.5 bits, more in the first layers.
    Q4_K_S = 14: Q4_K;
    /// 4.5 bits, 6.6 for half of the values and down projections: the usual choice.
    Q4_K_M = 15: Q4_K;
    /// 5.5 bits.
    Q5_K_S = 16: Q5_K;
    /// 5.5 bits, 6.6 for half of the values and down projections.
    Q5_K_M = 17: Q5_K;
    /// 6.6 bits.
    Q6_K = 18: Q6_K;
    /// 2.1 bits; needs an importance matrix.
    IQ2_XXS = 19: IQ2_XXS;
    /// 2.3 bits; needs an importance matrix.
    IQ2_XS = 20: IQ2_XS;
    /// 2.6 bits; needs an importance matrix.
    Q2_K_S = 21: Q2_K;
    /// 3.3 bits; needs an importance matrix.
    IQ3_XS = 22: IQ3_S;
    /// 3.1 bits; needs an importance matrix.
    IQ3_XXS = 23: IQ3_XXS;
    /// 1.6 bits; needs an importance matrix.
    IQ1_S = 24: IQ1_S;
    /// 4.5 bits into an uneven table.
    IQ4_NL = 25: IQ4_NL;
    /// 3.4 bits.
    IQ3_S = 26: IQ3_S;
    /// 3.7 bits.
    IQ3_M = 27: IQ3_S;
    /// 2.4 bits; needs an importance matrix.
    IQ2_S = 28: IQ2_XS;
    /// 2.7 bits; needs an importance matrix.
    IQ2_M = 29: IQ2_S;
    /// 4.25 bits into an uneven table.
    IQ4_XS = 30: IQ4_XS;
    /// 1.75 bits; needs an importance matrix.
    IQ1_M = 31: IQ1_M;
    /// 16 bits with the range of 32.
    BF16 = 32: BF16;
    /// 1.7 bits, for weights that were trained to be ternary.
    TQ1_0 = 36: TQ1_0;
    /// 2.1 bits, for weights that were trained to be ternary.
    TQ2_0 = 37: TQ2_0;
    /// 4.25 bits for experts, 8.5 for the rest.
    MXFP4_MOE = 38: MXFP4;
    /// 4.5 bits with 8-bit float scales.
    NVFP4 = 39: NVFP4;
    /// 1.1 bits, for weights that were trained to be binary.
    Q1_0 = 40: Q1_0;
    /// 2.25 bits.
    Q2_0 = 41: Q2_0;
}

/// Other spellings that are read but never written.
const ALIASES: &[(&str, Mix)] = &[
    ("FP32", Mix::F32),
    ("FP16", Mix::F16),
    ("Q3_K", Mix::Q3_K_M),
    ("Q4_K", Mix::Q4_K_M),
    ("Q5_K", Mix::Q5_K_M),
    ("MXFP4", Mix::MXFP4_MOE),
];

impl Mix {
    /// Another name of [`Mix::F16`].
    pub const FP16: Self = Self::F16;
    /// Another name of [`Mix::F32`].
    pub const FP32: Self = Self::F32;

    /// Returns the type of each of `tensors`, in their order.
    ///
    /// `tensors` are all of the model's: some rules count them. Tensors that are never quantised keep their type. Rows
    /// that are no whole number of blocks get another type, see [`fitting_type`]. `importance` says whether there will
    /// be an importance matrix, which changes a few types.
    pub fn assign(self, model: &ModelFacts, tensors: &[TensorFacts<'_>], importance: bool) -> Vec<TensorType> {
        rules::assign(self, model, tensors, importance)
    }

    /// Returns whether the tensor called `name` needs an importance matrix to be of use as `ty` in this mix.
    pub fn needs_importance(self, name: &str, ty: TensorType) -> bool {
        use TensorType as T;
        let needy = match ty {
            T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS => true,
            T::Q2_K => self == Self::Q2_K_S,
            _ => false,
        };
        needy && !category::is_vocabulary(name)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads a name in any case, one of the aliases `FP16`, `FP32`, `Q3_K`, `Q4_K`, `Q5_K` and `MXFP4`, or the number of
/// `general.file_type`.
impl FromStr for Mix {
    type Err = UnknownMix;

    fn from_str(text: &str) -> Result<Self, UnknownMix> {
        let names = Self::ALL.iter().map(|&mix| (mix.name(), mix)).chain(ALIASES.iter().copied());
        let named = names.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, mix)| mix);
        let number = || text.parse().ok().and_then(|number| Self::ALL.iter().find(|mix| mix.file_type() == number));
        named.or_else(|| number().copied()).ok_or_else(|| UnknownMix { name: text.chars().take(64).collect() })
    }
}

/// A name that no mix has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown quantisation `{name}`; known are {}", known())]
pub struct UnknownMix {
    /// The name, or its beginning if it is long.
    pub name: String,
}

fn known() -> String {
    Mix::ALL.iter().map(|mix| mix.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_read_back() {
        for &mix in Mix::ALL {
            assert_eq!(mix.name().parse(), Ok(mix));
            assert_eq!(mix.name().to_lowercase().parse(), Ok(mix));
            assert_eq!(mix.file_type().to_string().parse(), Ok(mix));
        }
        assert!(Mix::ALL.is_sorted_by_key(|mix| mix.file_type()));
    }

    #[test]
    fn aliases_are_read_and_unknown_names_are_errors_that_list_the_known() {
        for (alias, mix) in [("fp16", Mix::F16), ("Q4_K", Mix::Q4_K_M), ("q5_k", Mix::Q5_K_M)] {
            assert_eq!(alias.parse(), Ok(mix));
        }
        for text in ["", "Q4_K_XL", "4", "-1", "99"] {
            let error = text.parse::<Mix>().expect_err(text).to_string();
            assert!(error.contains("Q4_K_M"), "{error}");
        }
    }

    #[test]
    fn only_low_bit_block_weights_need_importance() {
        use TensorType as T;
        let cases = [
            (Mix::IQ2_XS, "blk.0.ffn_up.weight", T::IQ2_XS, true),
            (Mix::IQ2_XS, "token_embd.weight", T::IQ2_XS, false),
            (Mix::IQ3_S, "blk.0.ffn_up.weight", T::IQ3_S, false),
            (Mix::Q2_K_S, "blk.0.ffn_up.weight", T::Q2_K, true),
            (Mix::Q2_K, "blk.0.ffn_up.weight", T::Q2_K, false),
        ];
        for (mix, name, ty, expected) in cases {
            assert_eq!(mix.needs_importance(name, ty), expected, "{mix} {name}");
        }
    }
}
