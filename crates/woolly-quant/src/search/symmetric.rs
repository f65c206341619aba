//! x ≈ scale · value, with values from a codebook about zero: `Q3_K`, `Q6_K`, `IQ4_NL`, `IQ4_XS` and, when there are
//! importance weights, the simple formats without a minimum.

use super::{LANES, as_f16, round_between, sum};
use crate::grids;
use crate::simple::{inverse, of_largest_magnitude};

/// The values that the codes of a format stand for.
pub(crate) trait Codebook {
    /// The smallest and the largest value.
    const ENDS: [f32; 2];
    /// Which multiples of an end the largest element is tried at, and how many: above 1, it is clipped.
    const STRETCH: Stretch;

    /// The value nearest to `t`.
    fn snap(t: f32) -> f32;

    /// The code of the value nearest to `t`.
    fn code(t: f32) -> u8;
}

/// An even division of an interval.
pub(crate) struct Stretch {
    pub(crate) first: f32,
    pub(crate) last: f32,
    pub(crate) steps: u8,
}

impl Stretch {
    fn factors(&self) -> impl Iterator<Item = f32> {
        let step = (self.last - self.first) / f32::from(self.steps - 1);
        (0..self.steps).map(move |i| self.first + f32::from(i) * step)
    }
}

/// The integers from `LOW` to `HIGH`, whose codes count from `LOW`.
pub(crate) struct Integers<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Codebook for Integers<LOW, HIGH> {
    const ENDS: [f32; 2] = [LOW as f32, HIGH as f32];
    const STRETCH: Stretch = match HIGH - LOW {
        // Of few values, the outer ones may well serve many elements that are not the largest.
        0..=7 => Stretch { first: 0.85, last: 1.6, steps: 16 },
        8..=15 => Stretch { first: 0.92, last: 1.2, steps: 12 },
        _ => Stretch { first: 0.97, last: 1.03, steps: 9 },
    };

    #[inline(always)]
    fn snap(t: f32) -> f32 {
        round_between(t, LOW as f32, HIGH as f32)
    }

    #[inline(always)]
    fn code(t: f32) -> u8 {
        (Self::snap(t) - LOW as f32) as u8
    }
}

/// The 16 values of `IQ4_NL`.
pub(crate) struct Iq4;

impl Iq4 {
    /// Every decision between neighbours falls on a multiple of one half: the code for each half-open half.
    const CODES: [u8; 512] = {
        let mut codes = [0; 512];
        let mut i = 0;
        while i < 512 {
            let mut code = 0;
            // Twice the middle of two neighbours, which are integers, is their sum.
            while code < 15 && (i as i32 - 256) >= grids::IQ4_NL[code] as i32 + grids::IQ4_NL[code + 1] as i32 {
                code += 1;
            }
            codes[i] = code as u8;
            i += 1;
        }
        codes
    };

    const VALUES: [f32; 512] = {
        let mut values = [0.0; 512];
        let mut i = 0;
        while i < 512 {
            values[i] = grids::IQ4_NL[Self::CODES[i] as usize] as f32;
            i += 1;
        }
        values
    };

    #[inline(always)]
    fn cell(t: f32) -> usize {
        ((2.0 * t + 256.0) as i32).clamp(0, 511) as usize
    }
}

impl Codebook for Iq4 {
    const ENDS: [f32; 2] = [-127.0, 113.0];
    const STRETCH: Stretch = Stretch { first: 0.8, last: 1.15, steps: 12 };

    #[inline(always)]
    fn snap(t: f32) -> f32 {
        Self::VALUES[Self::cell(t)]
    }

    #[inline(always)]
    fn code(t: f32) -> u8 {
        Self::CODES[Self::cell(t)]
    }
}

/// What the least squares scale of a run needs to know of it: Σ w·x·v and Σ w·v² over its values v.
#[derive(Clone, Copy, Default)]
struct Fit {
    xv: f32,
    vv: f32,
}

impl Fit {
    /// Snaps the run at scale 1/`inverse`.
    #[inline(always)]
    fn of<B: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N], inverse: f32) -> Self {
        let (mut xv, mut vv) = ([0.0; LANES], [0.0; LANES]);
        for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let value = B::snap(x[i] * inverse);
                xv[i] += w[i] * x[i] * value;
                vv[i] += w[i] * value * value;
            }
        }
        Self { xv: sum(xv), vv: sum(vv) }
    }

    /// The scale of least error for these values.
    fn best_scale(self) -> f32 {
        if self.vv > 0.0 { self.xv / self.vv } else { 0.0 }
    }

    /// How far `scale` brings the error below that of all zeros, Σ w·x².
    fn gain(self, scale: f32) -> f32 {
        scale * (2.0 * self.xv - scale * self.vv)
    }
}

/// The scale of least error for a run with a scale of its own.
pub(crate) fn best_scale<B: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N]) -> f32 {
    let peak = of_largest_magnitude(x);
    let (mut most, mut best) = (0.0, 0.0);
    let mut consider = |inverse: f32| {
        let fit = Fit::of::<B, N>(x, w, inverse);
        let scale = fit.best_scale();
        let gain = fit.gain(scale);
        if gain > most {
            (most, best) = (gain, scale);
        }
        best
    };
    for end in B::ENDS {
        for factor in B::STRETCH.factors() {
            consider(end * factor / peak);
        }
    }
    let first = consider(0.0);
    let second = consider(inverse(first));
    consider(inverse(second))
}

/// The codes of a run at `scale`.
pub(crate) fn codes<B: Codebook, const N: usize>(x: &[f32; N], scale: f32) -> [u8; N] {
    let inverse = inverse(scale);
    x.map(|x| B::code(x * inverse))
}

/// A block scale, as binary16 holds it, and an integer for each run: the scale of run j is `d · scales[j]`.
#[derive(Clone, Copy)]
pub(crate) struct Scales<const RUNS: usize> {
    pub(crate) d: f32,
    pub(crate) scales: [i8; RUNS],
}

/// The scales of least error for a block of `RUNS` runs, whose integers lie between `low` and `high`.
pub(crate) fn two_level<B: Codebook, const RUN: usize, const RUNS: usize>(
    x: &[[f32; RUN]],
    w: &[[f32; RUN]],
    [low, high]: [i8; 2],
) -> Scales<RUNS> {
    let wanted: [f32; RUNS] = std::array::from_fn(|j| best_scale::<B, RUN>(&x[j], &w[j]));
    let peak = of_largest_magnitude(&wanted);
    let mut best = Assignment { gain: 0.0, refit: 0.0, scales: Scales { d: 0.0, scales: [0; RUNS] } };
    for end in [low, high] {
        let mut d = peak / f32::from(end);
        for _ in 0..3 {
            let next = Assignment::new::<B, RUN>(as_f16(d), x, w, &wanted, [low, high]);
            d = next.refit;
            if next.gain > best.gain {
                best = next;
            }
        }
    }
    best.scales
}

/// The best integers for a block scale, what they gain, and the block scale that would be best for their codes.
struct Assignment<const RUNS: usize> {
    gain: f32,
    refit: f32,
    scales: Scales<RUNS>,
}

impl<const RUNS: usize> Assignment<RUNS> {
    fn new<B: Codebook, const RUN: usize>(
        d: f32,
        x: &[[f32; RUN]],
        w: &[[f32; RUN]],
        wanted: &[f32; RUNS],
        ends: [i8; 2],
    ) -> Self {
        let mut total = Fit::default();
        let mut scales = [0; RUNS];
        for j in 0..RUNS {
            let (scale, fit) = nearby::<B, RUN>(&x[j], &w[j], d, wanted[j], ends);
            let k = f32::from(scale);
            scales[j] = scale;
            total.xv += k * fit.xv;
            total.vv += k * k * fit.vv;
        }
        Self { gain: total.gain(d), refit: total.best_scale(), scales: Scales { d, scales } }
    }
}

/// The integer of most gain among the three nearest to `wanted / d`.
fn nearby<B: Codebook, const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    d: f32,
    wanted: f32,
    [low, high]: [i8; 2],
) -> (i8, Fit) {
    let (low, high) = (f32::from(low), f32::from(high));
    let centre = round_between(wanted * inverse(d), low, high);
    let mut best = (0.0, 0, Fit::default());
    for k in [centre - 1.0, centre, centre + 1.0] {
        if k < low || k > high {
            continue;
        }
        let fit = Fit::of::<B, N>(x, w, inverse(d * k));
        let gain = fit.gain(d * k);
        if gain > best.0 {
            best = (gain, k as i8, fit);
        }
    }
    (best.1, best.2)
}
