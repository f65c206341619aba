//! Hyper-parameters of rotary position embeddings and of the ways to stretch them over longer contexts.

use woolly_tensor::RopeStyle;

use crate::Error;
use crate::keys::Keys;

/// Frequencies up to this base are told apart in `f32`; no model comes near it.
const MAX_BASE: f32 = 1e15;

/// Rotary position embedding (Su et al., 2021): pair `i` of position `p` turns by `p · base^(−2i / dims)`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Which elements of a head form a pair.
    pub style: RopeStyle,
    /// Rotated elements of each head; even, at most the key length.
    pub dims: usize,
    /// Base of the frequencies, above 1.
    pub freq_base: f32,
    /// How angles are stretched.
    pub scaling: RopeScaling,
    /// Factor on the rotated vectors, besides what YaRN adds.
    pub attn_factor: f32,
}

/// How the angles of a model are stretched beyond the context it was first trained with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All angles divided by a factor (position interpolation; Chen et al., 2023).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Slow frequencies divided, fast ones kept, with a ramp between them (YaRN; Peng et al., 2023).
    Yarn {
        /// Divisor of the slow frequencies.
        factor: f32,
        /// Context before stretching.
        original_context: usize,
        /// Turns within the original context from which on a frequency counts as fast.
        beta_fast: f32,
        /// Turns within the original context below which a frequency counts as slow.
        beta_slow: f32,
        /// How much of the ramp is applied: 1 is YaRN, 0 is linear scaling.
        ext_factor: f32,
        /// `yarn_log_multiplier`: divides the magnitude by `0.1 · m · ln factor + 1`; 0 when absent.
        log_multiplier: f32,
    },
}

impl RopeConfig {
    pub(super) fn read(keys: &Keys<'_>, style: RopeStyle, key_length: usize, context: usize) -> Result<Self, Error> {
        Ok(Self {
            style,
            dims: dims(keys, key_length)?,
            freq_base: freq_base(keys)?,
            scaling: RopeScaling::read(keys, context)?,
            attn_factor: keys.number("rope.scaling.attn_factor", 0.0)?.unwrap_or(1.0),
        })
    }
}

impl RopeScaling {
    fn read(keys: &Keys<'_>, context: usize) -> Result<Self, Error> {
        let factor = match keys.number("rope.scaling.factor", 0.0)? {
            Some(factor) => factor,
            None => keys.number("rope.scale_linear", 0.0)?.unwrap_or(1.0),
        };
        match keys.text("rope.scaling.type")? {
            None | Some("linear") if factor == 1.0 => Ok(Self::None),
            None | Some("linear") => Ok(Self::Linear { factor }),
            Some("none") => Ok(Self::None),
            Some("yarn") => Self::yarn(keys, factor, context),
            Some("longrope") => {
                Err(keys.invalid("rope.scaling.type", "longrope", "this architecture has no long and short factors"))
            }
            Some(other) => Err(keys.invalid("rope.scaling.type", other, "known are none, linear and yarn")),
        }
    }

    fn yarn(keys: &Keys<'_>, factor: f32, context: usize) -> Result<Self, Error> {
        refuse_attn_factor(keys)?;
        let original = keys.count("rope.scaling.original_context_length", super::CONTEXT)?;
        // A negative ext_factor is the writers' way of leaving the choice to the reader.
        let ext_factor = keys.number("rope.scaling.yarn_ext_factor", f32::NEG_INFINITY)?.unwrap_or(1.0);
        Ok(Self::Yarn {
            factor,
            original_context: original.unwrap_or(context),
            beta_fast: keys.number("rope.scaling.yarn_beta_fast", 0.0)?.unwrap_or(32.0),
            beta_slow: keys.number("rope.scaling.yarn_beta_slow", 0.0)?.unwrap_or(1.0),
            ext_factor: if ext_factor < 0.0 { 1.0 } else { ext_factor },
            log_multiplier: log_multiplier(keys)?,
        })
    }
}

/// A multiplier of 0 or less would divide by nothing sensible; 0 means absent.
fn log_multiplier(keys: &Keys<'_>) -> Result<f32, Error> {
    let key = "rope.scaling.yarn_log_multiplier";
    let value = keys.number(key, f32::NEG_INFINITY)?.unwrap_or(0.0);
    if value < 0.0 { Err(keys.invalid(key, value, "it must not be negative")) } else { Ok(value) }
}

fn refuse_attn_factor(keys: &Keys<'_>) -> Result<(), Error> {
    let key = "rope.scaling.yarn_attn_factor";
    match keys.number(key, f32::NEG_INFINITY)? {
        Some(value) if value != 1.0 => Err(keys.invalid(key, value, "only 1 is supported for this architecture")),
        _ => Ok(()),
    }
}

fn dims(keys: &Keys<'_>, key_length: usize) -> Result<usize, Error> {
    let key = "rope.dimension_count";
    let dims = keys.count(key, 2..=key_length)?.unwrap_or(key_length);
    if dims.is_multiple_of(2) { Ok(dims) } else { Err(keys.invalid(key, dims, "elements are rotated in pairs")) }
}

fn freq_base(keys: &Keys<'_>) -> Result<f32, Error> {
    let key = "rope.freq_base";
    let base = keys.number(key, 1.0)?.unwrap_or(10_000.0);
    if base <= MAX_BASE { Ok(base) } else { Err(keys.invalid(key, base, format!("it must be at most {MAX_BASE:e}"))) }
}
