//! What encoding loses: less than llama-quantize on normal rows, less than rounding to the nearest on heavy-tailed ones, and never
//! less than information theory allows, which would mean that the measure is wrong.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::f64::consts::TAU;

use woolly_quant::TensorType as T;

const ROW: usize = 256;
const ROWS: usize = 384;

/// Numbers from a multiplicative generator, of which the high bits are good.
struct Numbers(u64);

impl Numbers {
    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Of the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }

    /// Of Student's t distribution with 3 degrees of freedom.
    fn heavy(&mut self) -> f64 {
        let squares: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (squares / 3.0).sqrt()
    }
}

fn normal_rows() -> Vec<f32> {
    let mut numbers = Numbers(1);
    (0..ROWS * ROW).map(|_| numbers.normal() as f32).collect()
}

fn heavy_rows() -> Vec<f32> {
    let mut numbers = Numbers(2);
    (0..ROWS * ROW).map(|_| numbers.heavy() as f32).collect()
}

/// Columns of log-normal importance.
fn importance() -> Vec<f32> {
    let mut numbers = Numbers(3);
    (0..ROW).map(|_| (1.5 * numbers.normal()).exp() as f32).collect()
}

/// The root of Σ w·(x - y)² / Σ w·x².
fn relative_error(x: &[f32], y: &[f32], weights: Option<&[f32]>) -> f64 {
    let weight = |i: usize| weights.map_or(1.0, |weights| f64::from(weights[i % ROW]));
    let error: f64 = x.iter().zip(y).enumerate().map(|(i, (x, y))| weight(i) * f64::from(x - y).powi(2)).sum();
    let whole: f64 = x.iter().enumerate().map(|(i, x)| weight(i) * f64::from(*x).powi(2)).sum();
    (error / whole).sqrt()
}

fn loss(ty: T, values: &[f32], weights: Option<&[f32]>) -> f64 {
    let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap()];
    match weights {
        None => ty.encode(values, &mut blocks).unwrap(),
        Some(weights) => ty.encode_weighted(values, weights, &mut blocks).unwrap(),
    }
    let mut decoded = vec![f32::NAN; values.len()];
    ty.decode(&blocks, &mut decoded).unwrap();
    relative_error(values, &decoded, weights)
}

/// What llama-quantize (llama.cpp 0.5.0-dev) loses on normal rows of 256, by `checks/beside_llama_quantize.py`.
const PEER: &[(T, f64)] = &[
    (T::Q1_0, 0.60018),
    (T::Q2_0, 0.71808),
    (T::Q4_0, 0.08592),
    (T::Q4_1, 0.07818),
    (T::Q5_0, 0.04263),
    (T::Q5_1, 0.03781),
    (T::Q8_0, 0.00535),
    (T::Q2_K, 0.29543),
    (T::Q3_K, 0.15068),
    (T::Q4_K, 0.07133),
    (T::Q5_K, 0.03611),
    (T::Q6_K, 0.01772),
    (T::IQ3_S, 0.16632),
    (T::IQ4_NL, 0.07618),
    (T::IQ4_XS, 0.07678),
    (T::TQ1_0, 0.81038),
    (T::TQ2_0, 0.81038),
    (T::MXFP4, 0.11494),
    (T::NVFP4, 0.09497),
    (T::F16, 0.00021),
    (T::BF16, 0.00166),
];

/// The same with columns of log-normal importance, for the types that it makes only with an importance matrix.
const PEER_WEIGHTED: &[(T, f64)] = &[
    (T::IQ1_S, 0.39944),
    (T::IQ1_M, 0.34149),
    (T::IQ2_XXS, 0.27371),
    (T::IQ2_XS, 0.22871),
    (T::IQ2_S, 0.20500),
    (T::IQ3_XXS, 0.13144),
];

#[test]
fn normal_rows_lose_no_more_than_with_llama_quantize() {
    // Other rows of the same distribution: of 98,304 numbers, the mean square is within some thousandths.
    const SAMPLING: f64 = 1.01;
    let (values, weights) = (normal_rows(), importance());
    for (peers, weights) in [(PEER, None), (PEER_WEIGHTED, Some(&weights[..]))] {
        for &(ty, peer) in peers {
            let found = loss(ty, &values, weights);
            assert!(found <= peer * SAMPLING, "{ty} loses {found:.5}, llama-quantize {peer}");
        }
    }
}

/// A normal source at R bits a number cannot be had with a mean squared error below 2^-2R (Shannon).
#[test]
fn no_type_is_better_than_can_be() {
    let values = normal_rows();
    for &(ty, _) in PEER.iter().chain(PEER_WEIGHTED) {
        let bits = 8.0 * ty.block_bytes() as f64 / ty.block_elements() as f64;
        let (found, least) = (loss(ty, &values, None), (-bits).exp2());
        // The same tolerance for the sample's variance, which is not exactly 1.
        assert!(found > 0.99 * least, "{ty} loses {found:.5}, which no code of {bits} bits can");
    }
}

/// Rounds to the nearest of `levels` even steps between the ends of each run, or with `symmetric` from minus to plus the
/// largest magnitude; scales are exact.
fn rounded(values: &[f32], run: usize, levels: u32, symmetric: bool) -> Vec<f32> {
    let of_run = |run: &[f32]| {
        let (low, high) = run.iter().fold((0.0_f32, 0.0_f32), |(low, high), &x| (low.min(x), high.max(x)));
        let low = if symmetric { -high.max(-low) } else { low };
        let high = if symmetric { -low } else { high };
        let step = (high - low) / (levels - 1) as f32;
        run.iter().map(|x| low + ((x - low) / step).round() * step).collect::<Vec<_>>()
    };
    values.chunks(run).flat_map(of_run).collect()
}

#[test]
fn heavy_tails_lose_less_than_by_rounding() {
    // As many levels and elements to a scale as the type has; a symmetric format of 2^b codes has one less that is of use.
    let baselines: &[(T, usize, u32, bool)] = &[
        (T::Q4_0, 32, 15, true),
        (T::Q4_1, 32, 16, false),
        (T::Q5_0, 32, 31, true),
        (T::Q5_1, 32, 32, false),
        (T::Q8_0, 32, 254, true),
        (T::Q2_K, 16, 4, false),
        (T::Q3_K, 16, 7, true),
        (T::Q4_K, 32, 16, false),
        (T::Q5_K, 32, 32, false),
        (T::Q6_K, 16, 63, true),
        (T::IQ2_XXS, 32, 3, true),
        (T::IQ2_XS, 16, 3, true),
        (T::IQ2_S, 16, 3, true),
        (T::IQ3_XXS, 32, 7, true),
        (T::IQ3_S, 32, 7, true),
        (T::IQ4_NL, 32, 15, true),
        (T::IQ4_XS, 32, 15, true),
        (T::MXFP4, 32, 15, true),
        (T::NVFP4, 16, 15, true),
        (T::IQ1_S, 256, 3, true),
        (T::IQ1_M, 256, 3, true),
        (T::Q2_0, 64, 3, true),
    ];
    let values = heavy_rows();
    for &(ty, run, levels, symmetric) in baselines {
        let baseline = relative_error(&values, &rounded(&values, run, levels, symmetric), None);
        let found = loss(ty, &values, None);
        // Scales in binary16 are up to 2^-11 off.
        assert!(found <= baseline * 1.001, "{ty} loses {found:.5}, rounding {baseline:.5}");
    }
}

#[test]
fn weights_lower_the_error_that_they_weigh() {
    let weights = importance();
    for (name, values) in [("normal", normal_rows()), ("heavy-tailed", heavy_rows())] {
        for &(ty, _) in PEER.iter().chain(PEER_WEIGHTED) {
            let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap()];
            ty.encode(&values, &mut blocks).unwrap();
            let mut decoded = vec![0.0; values.len()];
            ty.decode(&blocks, &mut decoded).unwrap();
            let (plain, weighted) =
                (relative_error(&values, &decoded, Some(&weights)), loss(ty, &values, Some(&weights)));
            assert!(weighted <= plain, "{ty} on {name} rows: {weighted:.5} with weights, {plain:.5} without");
        }
    }
}
