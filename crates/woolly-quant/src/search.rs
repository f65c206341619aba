//! Encoders that search: the scales of least weighted squared error.
//!
//! A format stores x ≈ scale · value with values from a small set. For given scales the best values are the nearest
//! ones; for given values the best scales are the solution of a linear least squares problem. Neither step can increase
//! the error, so alternating them descends (Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28,
//! 1982), to a minimum that depends on the start. The searches here therefore start from many scales, take the best,
//! and do the same for the scale of scales that most formats have.
//!
//! [`symmetric`] fits one scale per run, [`affine`] a scale and a minimum, [`codewords`] the scale of a grid of vectors.
//! Everything is exact about the error it minimises, never about the minimum: that would be exponential.

pub(crate) mod affine;
pub(crate) mod codewords;
pub(crate) mod symmetric;

use crate::half::{f16_to_f32, f32_to_f16};
use crate::simple::largest_magnitude;

/// The sum of the elements, pairwise: halves are added as vectors, where a plain sum would be one long chain.
#[inline(always)]
pub(crate) fn sum<const N: usize>(mut terms: [f32; N]) -> f32 {
    const { assert!(N.is_power_of_two()) };
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            terms[i] += terms[i + half];
        }
        half /= 2;
    }
    terms[0]
}

/// The nearest integer between the bounds, ties to even; `low` for NaN. Unlike `f32::round_ties_even` it needs no
/// instruction beyond addition, so it vectorises on every target. The bounds are below 2²² in magnitude.
#[inline(always)]
pub(crate) fn round_between(t: f32, low: f32, high: f32) -> f32 {
    /// Here, the spacing of `f32` is 1.
    const UNIT_SPACING: f32 = 12_582_912.0;
    let t = if t > low { t } else { low };
    let t = if t < high { t } else { high };
    (t + UNIT_SPACING) - UNIT_SPACING
}

/// Turns runs into rows of the same element of each: `[RUNS][RUN]` to `[RUN][RUNS]`.
#[inline(always)]
pub(crate) fn beside_each_other<const RUN: usize, const RUNS: usize>(runs: &[[f32; RUN]]) -> [[f32; RUNS]; RUN] {
    let mut rows = [[0.0; RUNS]; RUN];
    for (j, run) in runs.iter().enumerate().take(RUNS) {
        for i in 0..RUN {
            rows[i][j] = run[i];
        }
    }
    rows
}

/// `x` as a binary16 field will hold it.
#[inline(always)]
pub(crate) fn as_f16(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(x))
}

/// The weights to use: those given, or the same for every element.
#[inline(always)]
pub(crate) fn or_uniform<const N: usize>(importance: Option<&[f32; N]>) -> [f32; N] {
    importance.copied().unwrap_or([1.0; N])
}

/// The weights to use at few bits: each times the root of the square of its element plus `floor` times the mean of the
/// squares. The smaller `floor`, the more large elements count.
///
/// The least squared error of a coarse format shrinks the large elements, and with them every output, which costs a model
/// more than the squares say: on woolly-lamb this emphasis takes a fifth off the divergence of `Q2_K`, `IQ2_S` and
/// `IQ3_XXS`, and gains nothing from 3.5 bits on. The form is the reference's (ggml, for importance matrices, with floors of
/// 1 and 2).
#[inline(always)]
pub(crate) fn emphasised<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>, floor: f32) -> [f32; N] {
    let mut weights = or_uniform(importance);
    let peak = largest_magnitude(x);
    if peak == 0.0 {
        return weights;
    }
    // Shares of the peak, so that squares neither overflow nor vanish.
    let mut squares = [0.0; N];
    for i in 0..N {
        squares[i] = (x[i] / peak) * (x[i] / peak);
    }
    let floor = floor * sum(squares) / N as f32;
    for i in 0..N {
        weights[i] *= (floor + squares[i]).sqrt();
    }
    weights
}

/// What to multiply the scales of a block with, so that it does not answer more weakly than the elements it stands for.
///
/// With the scale of least squares and a relative error D, Σ w·x·y is only 1 - D of Σ w·x²: the block returns that share of
/// what the elements would, and an error besides. All blocks lose a like share, so that it adds up through a model,
/// where errors of either sign cancel. Dividing by it, a `power` of 1, is not quite enough, because the normalisation that
/// follows a layer divides by the strength of signal and error together, which costs another half of D; but the squared error
/// grows with the square of the power. For given Σ w·x·y no block of the format has a smaller error than one of least
/// squares that is scaled.
#[inline(always)]
pub(crate) fn amplification<const N: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    decoded: &[f32; N],
    power: f32,
) -> f32 {
    /// Where the error is as large as this asks for, the block holds next to nothing of the elements.
    const MOST: f32 = 1.5;
    let (weights, peak) = (or_uniform(importance), largest_magnitude(x));
    let [mut xx, mut xy] = [[0.0; N]; 2];
    for i in 0..N {
        let weighted = weights[i] * (x[i] / peak);
        xx[i] = weighted * (x[i] / peak);
        xy[i] = weighted * (decoded[i] / peak);
    }
    let (xx, xy) = (sum(xx), sum(xy));
    if xx > xy && xy > 0.0 { (xx / xy).powf(power).min(MOST) } else { 1.0 }
}
