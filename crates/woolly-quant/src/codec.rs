//! Drives the block codecs of `formats/` over whole slices, and checks lengths and values before it does.

use crate::half::F16_MAX;
use crate::{CodecError, TensorType, formats};

/// Encodes block after block with the function named; `importance` holds the weights of one row and is repeated for each
/// row. A macro, because a function passed as a value, or a closure, may be compiled outside of the caller, and so
/// without its instructions.
macro_rules! encode_blocks {
    ($encode:path, $values:ident, $importance:ident, $out:ident) => {{
        let blocks = $values.as_chunks().0.iter().zip($out.as_chunks_mut().0);
        match $importance.map(|weights| weights.as_chunks().0) {
            None => {
                for (x, block) in blocks {
                    $encode(x, None, block);
                }
            }
            Some(row) => {
                for ((x, block), weights) in blocks.zip(row.iter().cycle()) {
                    $encode(x, crate::codec::normalised(weights).as_ref(), block);
                }
            }
        }
    }};
}
pub(crate) use encode_blocks;

impl TensorType {
    /// Decodes `blocks`, whole blocks of this type, to the values of `out`.
    ///
    /// The result is that of the reference decoder, bit for bit. Any bytes are valid blocks; scales that are infinite
    /// or NaN give such values. Integers become the nearest `f32`.
    ///
    /// # Errors
    /// [`CodecError::PartialBlock`] when `out` is not a whole number of blocks long, [`CodecError::BlockBytes`] when
    /// `blocks` has not the size of as many blocks. Nothing is written then.
    pub fn decode(self, blocks: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
        self.check_lengths(out.len(), blocks.len())?;
        self.decode_checked(blocks, out);
        Ok(())
    }

    /// Returns whether [`encode`](Self::encode) works for this type.
    pub fn can_encode(self) -> bool {
        self.encoder().is_some()
    }

    /// Encodes `values` to blocks of this type, with every element of the same importance.
    ///
    /// The simple formats (`Q4_0` to `Q8_1`, `Q8_K`, `TQ1_0`, `TQ2_0`, `MXFP4`, the floats) give the blocks of the
    /// reference encoder. The others search for the scales of least squared error; below 3.5 bits, large elements count
    /// more and scales are raised so that outputs do not shrink. On all rows that were compared they lose less than
    /// the reference, see `docs/quantization.md`.
    ///
    /// # Errors
    /// [`CodecError::NotEncodable`] when [`can_encode`](Self::can_encode) is false; the errors of
    /// [`decode`](Self::decode) for the lengths; [`CodecError::OutOfRange`] for a value that the type cannot hold:
    /// the floats keep infinities and NaN, no other type does. Nothing is written then.
    pub fn encode(self, values: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
        let encoder = self.checked_encoder(values, None, out.len())?;
        (encoder.blocks)(values, None, out);
        Ok(())
    }

    /// Encodes `values` so that the squared error weighted by `importance` is small.
    ///
    /// `importance` holds a weight per column: as many as a row has elements. `values` are one or more such rows.
    /// Only the ratios within a block matter; a block whose weights are all zero counts as uniform. Formats without a
    /// choice to make (the floats, `Q8_0`, `Q8_1`, `Q8_K`, `MXFP4`) give the result of [`encode`](Self::encode).
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode); [`CodecError::ImportanceLength`] when the weights are not a whole number
    /// of blocks that divides the values; [`CodecError::ImportanceValue`] when one is negative or not finite.
    pub fn encode_weighted(self, values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
        let encoder = self.checked_encoder(values, Some(importance), out.len())?;
        (encoder.blocks)(values, Some(importance), out);
        Ok(())
    }

    /// As [`encode`](Self::encode) or, with `importance`, [`encode_weighted`](Self::encode_weighted), compiled into its
    /// caller for the types whose search is long and made of vectors: a caller that is compiled for more instructions than
    /// the program at large gets a faster encoder, and the same blocks.
    ///
    /// # Errors
    /// Those of the two.
    #[inline(always)]
    pub fn encode_inline(self, values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), CodecError> {
        let encoder = self.checked_encoder(values, importance, out.len())?;
        match self {
            Self::Q2_K => encode_blocks!(formats::q2_k::encode, values, importance, out),
            Self::Q3_K => encode_blocks!(formats::q3_k::encode, values, importance, out),
            Self::Q4_K => encode_blocks!(formats::q4_k::encode, values, importance, out),
            Self::Q5_K => encode_blocks!(formats::q5_k::encode, values, importance, out),
            Self::Q6_K => encode_blocks!(formats::q6_k::encode, values, importance, out),
            Self::IQ1_S => encode_blocks!(formats::iq1_s::encode, values, importance, out),
            Self::IQ1_M => encode_blocks!(formats::iq1_m::encode, values, importance, out),
            Self::IQ2_XXS => encode_blocks!(formats::iq2_xxs::encode, values, importance, out),
            Self::IQ2_XS => encode_blocks!(formats::iq2_xs::encode, values, importance, out),
            Self::IQ2_S => encode_blocks!(formats::iq2_s::encode, values, importance, out),
            Self::IQ3_XXS => encode_blocks!(formats::iq3_xxs::encode, values, importance, out),
            Self::IQ3_S => encode_blocks!(formats::iq3_s::encode, values, importance, out),
            Self::IQ4_XS => encode_blocks!(formats::iq4_xs::encode, values, importance, out),
            _ => (encoder.blocks)(values, importance, out),
        }
        Ok(())
    }

    fn checked_encoder(self, values: &[f32], importance: Option<&[f32]>, out: usize) -> Result<Encoder, CodecError> {
        let encoder = self.encoder().ok_or(CodecError::NotEncodable { ty: self })?;
        self.check_lengths(values.len(), out)?;
        let range = encoder.range;
        // Whole pieces first, without a branch an element.
        let bad = |piece: &[f32]| piece.iter().fold(false, |bad, &x| bad | !range.holds(x));
        if values.chunks(256).any(bad)
            && let Some(index) = values.iter().position(|&x| !range.holds(x))
        {
            return Err(CodecError::OutOfRange { ty: self, index, value: values[index], limit: range.limit });
        }
        if let Some(importance) = importance {
            self.check_importance(values.len(), importance)?;
        }
        Ok(encoder)
    }

    fn check_lengths(self, elements: usize, found: usize) -> Result<(), CodecError> {
        match self.row_bytes(elements) {
            None => Err(CodecError::PartialBlock { ty: self, elements }),
            Some(expected) if expected != found => Err(CodecError::BlockBytes { ty: self, elements, expected, found }),
            Some(_) => Ok(()),
        }
    }

    fn check_importance(self, elements: usize, importance: &[f32]) -> Result<(), CodecError> {
        let found = importance.len();
        if !elements.is_multiple_of(found) || !found.is_multiple_of(self.block_elements()) {
            return Err(CodecError::ImportanceLength { ty: self, elements, found });
        }
        match importance.iter().position(|&w| !(w.is_finite() && w >= 0.0)) {
            None => Ok(()),
            Some(index) => Err(CodecError::ImportanceValue { index, value: importance[index] }),
        }
    }
}

/// How a format encodes: the values it takes, and its loop over blocks.
#[derive(Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) range: Range,
    pub(crate) blocks: fn(&[f32], Option<&[f32]>, &mut [u8]),
}

/// Which values an encoder takes.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    limit: f32,
    non_finite: bool,
}

impl Range {
    /// A float at least as wide as `f32`.
    pub(crate) const ALL: Self = Self { limit: f32::MAX, non_finite: true };
    /// binary16 itself.
    pub(crate) const F16: Self = Self { limit: F16_MAX, non_finite: true };
    /// bfloat16 itself.
    pub(crate) const BF16: Self = Self { limit: f32::from_bits(0x7f7f_0000), non_finite: true };
    /// A block scale or minimum in binary16: magnitudes that it holds are safe with every number of quants.
    pub(crate) const F16_SCALE: Self = Self { limit: F16_MAX, non_finite: false };
    /// A block scale with the exponents of binary32.
    pub(crate) const F32_SCALE: Self = Self { limit: f32::MAX, non_finite: false };
    /// Unsigned E4M3 scales: at most 448 times the 6 of E2M1.
    pub(crate) const E4M3_SCALE: Self = Self { limit: 448.0 * 6.0, non_finite: false };

    #[inline(always)]
    fn holds(self, x: f32) -> bool {
        (x.abs() <= self.limit) | (self.non_finite & !x.is_finite())
    }
}

/// Decodes block after block; the caller has checked that both slices have as many blocks.
#[inline(always)]
pub(crate) fn decode_blocks<const BYTES: usize, const ELEMENTS: usize>(
    blocks: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (block, values) in blocks.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// The weights divided by their maximum, so that sums of squares neither overflow nor vanish; `None` if all are zero.
#[inline(always)]
pub(crate) fn normalised<const ELEMENTS: usize>(weights: &[f32; ELEMENTS]) -> Option<[f32; ELEMENTS]> {
    let largest = weights.iter().fold(0.0_f32, |a, &w| a.max(w));
    (largest > 0.0).then(|| weights.map(|w| w / largest))
}
