//! Rotation angles, computed on the host in `f64` once a step for the positions of its rows.
//!
//! Every way of stretching a context that is known here is linear in the position, so a table of one frequency a pair,
//! made at load time, holds all of it.

use std::f64::consts::TAU;

use woolly_tensor::{Backend, Batch, Rope, RopeStyle};

use crate::weights::Tensors;
use crate::{Error, RopeConfig, RopeScaling};

/// Frequencies of a rotary position embedding.
pub(crate) struct RopeTable {
    style: RopeStyle,
    dims: usize,
    /// Radians a position, one a pair.
    frequencies: Vec<f64>,
    /// Factor on cosine and sine.
    magnitude: f64,
}

impl RopeTable {
    /// Makes the table with the divisors of `rope_freqs.weight`, where the file has that tensor.
    pub(crate) fn with_file_factors<B: Backend>(
        tensors: &mut Tensors<'_, B>,
        config: &RopeConfig,
    ) -> Result<Self, Error> {
        let name = "rope_freqs.weight";
        let factors = tensors.optional_values(name, config.dims / 2)?;
        if let Some(factor) = factors.iter().flatten().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            let why = format!("holds {factor}; divisors of frequencies must be positive");
            return Err(Error::InvalidTensor { name: name.to_owned(), why });
        }
        Ok(Self::new(config, factors.as_deref()))
    }

    /// Makes the table; `factors` are the divisors of `rope_freqs.weight`, one a pair.
    pub(crate) fn new(config: &RopeConfig, factors: Option<&[f32]>) -> Self {
        let factor = |pair: usize| factors.and_then(|f| f.get(pair)).map_or(1.0, |&f| f64::from(f));
        let stretch = Stretch::new(config);
        let frequency = |pair: usize| {
            let exponent = -2.0 * pair as f64 / config.dims as f64;
            f64::from(config.freq_base).powf(exponent) / factor(pair) * stretch.of(pair)
        };
        Self {
            style: config.style,
            dims: config.dims,
            frequencies: (0..config.dims / 2).map(frequency).collect(),
            magnitude: magnitude(config),
        }
    }

    /// Writes the angles of the batch's rows to `angles`: `[rows, pairs, 2]`, cosine and sine times the magnitude.
    /// Does not allocate when `angles` has the capacity.
    pub(crate) fn write_angles(&self, batch: Batch<'_>, angles: &mut Vec<f32>) {
        angles.clear();
        for position in batch.sequences.iter().flat_map(|sequence| sequence.start..sequence.end()) {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                angles.extend([(cos * self.magnitude) as f32, (sin * self.magnitude) as f32]);
            }
        }
    }

    /// The rotation by angles that [`Self::write_angles`] has written.
    pub(crate) fn rotation<'a>(&self, angles: &'a [f32]) -> Rope<'a> {
        Rope { style: self.style, dims: self.dims, angles }
    }
}

/// Factor on the frequency of a pair: `1/s` for slow pairs and 1 for fast ones, with a linear ramp from `low` to `high`.
struct Stretch {
    /// `1/s`.
    slow: f64,
    /// How much of the ramp applies.
    ext_factor: f64,
    low: f64,
    high: f64,
}

impl Stretch {
    fn new(config: &RopeConfig) -> Self {
        let (low, high) = (0.0, 0.0);
        match config.scaling {
            RopeScaling::None => Self { slow: 1.0, ext_factor: 0.0, low, high },
            RopeScaling::Linear { factor } => Self { slow: 1.0 / f64::from(factor), ext_factor: 0.0, low, high },
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, ext_factor, .. } => Self {
                slow: 1.0 / f64::from(factor),
                ext_factor: f64::from(ext_factor),
                low: pair_turning(config, original_context, beta_fast).floor().max(0.0),
                high: pair_turning(config, original_context, beta_slow).ceil().min(config.dims as f64 - 1.0),
            },
        }
    }

    fn of(&self, pair: usize) -> f64 {
        let position = (pair as f64 - self.low) / (self.high - self.low).max(0.001);
        let fast = (1.0 - position.clamp(0.0, 1.0)) * self.ext_factor;
        self.slow * (1.0 - fast) + fast
    }
}

/// The (fractional) pair that turns `turns` times within `context` positions (YaRN, section 3.2).
fn pair_turning(config: &RopeConfig, context: usize, turns: f32) -> f64 {
    let ratio = context as f64 / (f64::from(turns) * TAU);
    config.dims as f64 * ratio.ln() / (2.0 * f64::from(config.freq_base).ln())
}

/// YaRN lengthens the rotated vectors by `0.1 · ln s + 1`, which sharpens attention over the longer context (section 3.4).
fn magnitude(config: &RopeConfig) -> f64 {
    let attn_factor = f64::from(config.attn_factor);
    match config.scaling {
        RopeScaling::Yarn { factor, ext_factor, log_multiplier, .. } if ext_factor != 0.0 && factor > 1.0 => {
            let ln = f64::from(factor).ln();
            attn_factor * (0.1 * ln + 1.0) / (0.1 * f64::from(log_multiplier) * ln + 1.0)
        }
        _ => attn_factor,
    }
}
