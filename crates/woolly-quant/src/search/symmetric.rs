//! x ≈ scale · value, with values from a codebook about zero: `Q2_0`, `Q3_K`, `Q6_K`, `IQ4_NL`, `IQ4_XS`, `NVFP4` and,
//! when there are importance weights, the simple formats without a minimum.

use super::{as_f16, beside_each_other, round_between, sum};
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
    #[inline(always)]
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

impl Codebook for Iq4 {
    const ENDS: [f32; 2] = [-127.0, 113.0];
    const STRETCH: Stretch = Stretch { first: 0.8, last: 1.15, steps: 12 };

    #[inline(always)]
    fn snap(t: f32) -> f32 {
        const VALUES: [f32; CELLS] = values(&grids::IQ4_NL);
        VALUES[cell(t)]
    }

    #[inline(always)]
    fn code(t: f32) -> u8 {
        const CODES: [u8; CELLS] = codes_of(&grids::IQ4_NL);
        CODES[cell(t)]
    }
}

/// Twice the 16 values of E2M1.
pub(crate) struct E2m1;

impl Codebook for E2m1 {
    const ENDS: [f32; 2] = [-12.0, 12.0];
    const STRETCH: Stretch = Stretch { first: 0.6, last: 1.2, steps: 12 };

    #[inline(always)]
    fn snap(t: f32) -> f32 {
        const VALUES: [f32; CELLS] = values(&grids::E2M1_DOUBLED);
        VALUES[cell(t)]
    }

    #[inline(always)]
    fn code(t: f32) -> u8 {
        const CODES: [u8; CELLS] = codes_of(&grids::E2M1_DOUBLED);
        CODES[cell(t)]
    }
}

/// The middle between two integers is a multiple of one half, so within each of these cells of that width, from -128
/// to 128, the nearest value of a table of integers is the same.
const CELLS: usize = 512;

#[inline(always)]
fn cell(t: f32) -> usize {
    ((2.0 * t + 256.0) as i32).clamp(0, 511) as usize
}

/// The code of the value nearest to the middle of each cell.
const fn codes_of(table: &[i8; 16]) -> [u8; CELLS] {
    let mut codes = [0; CELLS];
    let mut i = 0;
    while i < CELLS {
        let middle = 2 * (i as i32 - 256) + 1;
        let mut code = 1;
        while code < 16 {
            let nearest = codes[i] as usize;
            if (4 * table[code] as i32 - middle).abs() < (4 * table[nearest] as i32 - middle).abs() {
                codes[i] = code as u8;
            }
            code += 1;
        }
        i += 1;
    }
    codes
}

/// The value nearest to the middle of each cell.
const fn values(table: &[i8; 16]) -> [f32; CELLS] {
    let codes = codes_of(table);
    let mut values = [0.0; CELLS];
    let mut i = 0;
    while i < CELLS {
        values[i] = table[codes[i] as usize] as f32;
        i += 1;
    }
    values
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
        let values: [f32; N] = std::array::from_fn(|i| B::snap(x[i] * inverse));
        let (mut xv, mut vv) = ([0.0; N], [0.0; N]);
        for i in 0..N {
            xv[i] = w[i] * x[i] * values[i];
            vv[i] = w[i] * values[i] * values[i];
        }
        Self { xv: sum(xv), vv: sum(vv) }
    }

    /// The scale of least error for these values.
    #[inline(always)]
    fn best_scale(self) -> f32 {
        if self.vv > 0.0 { self.xv / self.vv } else { 0.0 }
    }

    /// How far `scale` brings the error below that of all zeros, Σ w·x².
    #[inline(always)]
    fn gain(self, scale: f32) -> f32 {
        scale * (2.0 * self.xv - scale * self.vv)
    }
}

/// The scale of least error for a run with a scale of its own.
#[inline(always)]
pub(crate) fn best_scale<B: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N]) -> f32 {
    let peak = of_largest_magnitude(x);
    let mut best = Best { gain: 0.0, scale: 0.0 };
    for end in B::ENDS {
        for factor in B::STRETCH.factors() {
            best.consider(Fit::of::<B, N>(x, w, end * factor / peak));
        }
    }
    for _ in 0..2 {
        best.consider(Fit::of::<B, N>(x, w, inverse(best.scale)));
    }
    best.scale
}

/// The best scale so far.
struct Best {
    gain: f32,
    scale: f32,
}

impl Best {
    #[inline(always)]
    fn consider(&mut self, fit: Fit) {
        let scale = fit.best_scale();
        let gain = fit.gain(scale);
        if gain > self.gain {
            *self = Self { gain, scale };
        }
    }
}

/// The one of the given scales that has the least error, as its place among them; 0 when none is better than zeros.
#[inline(always)]
pub(crate) fn best_of<B: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N], scales: &[f32]) -> usize {
    let (mut most, mut best) = (0.0, 0);
    for (i, &scale) in scales.iter().enumerate() {
        let gain = Fit::of::<B, N>(x, w, inverse(scale)).gain(scale);
        if gain > most {
            (most, best) = (gain, i);
        }
    }
    best
}

/// The codes of a run at `scale`.
#[inline(always)]
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
#[inline(always)]
pub(crate) fn two_level<B: Codebook, const RUN: usize, const RUNS: usize>(
    x: &[[f32; RUN]],
    importance: Option<&[[f32; RUN]]>,
    ends: [i8; 2],
) -> Scales<RUNS> {
    let ends = ends.map(f32::from);
    match importance {
        None => Runs::<RUN, RUNS, false>::new(x, x).two_level::<B>(ends),
        Some(w) => Runs::<RUN, RUNS, true>::new(x, w).two_level::<B>(ends),
    }
}

/// The runs of a block side by side: `x[i]` holds element i of every run. One vector instruction then serves as many
/// runs as it has lanes, and no sum crosses lanes.
struct Runs<const RUN: usize, const RUNS: usize, const WEIGHTED: bool> {
    x: [[f32; RUNS]; RUN],
    /// Only read if `WEIGHTED`; otherwise every element weighs 1.
    w: [[f32; RUNS]; RUN],
}

impl<const RUN: usize, const RUNS: usize, const WEIGHTED: bool> Runs<RUN, RUNS, WEIGHTED> {
    #[inline(always)]
    fn new(x: &[[f32; RUN]], w: &[[f32; RUN]]) -> Self {
        Self { x: beside_each_other(x), w: if WEIGHTED { beside_each_other(w) } else { [[1.0; RUNS]; RUN] } }
    }

    /// Σ w·x·v and Σ w·v² of each run, snapped at the inverse of its scale.
    #[inline(always)]
    fn fits<B: Codebook>(&self, inverses: &[f32; RUNS]) -> [[f32; RUNS]; 2] {
        let [mut xv, mut vv] = [[0.0; RUNS]; 2];
        for i in 0..RUN {
            for j in 0..RUNS {
                let value = B::snap(self.x[i][j] * inverses[j]);
                let weighted = if WEIGHTED { self.w[i][j] * value } else { value };
                xv[j] += weighted * self.x[i][j];
                vv[j] += weighted * value;
            }
        }
        [xv, vv]
    }

    /// The best scale of each run for itself.
    #[inline(always)]
    fn best_scales<B: Codebook>(&self) -> [f32; RUNS] {
        let mut peaks = [0.0_f32; RUNS];
        for i in 0..RUN {
            for j in 0..RUNS {
                peaks[j] = if self.x[i][j].abs() > peaks[j].abs() { self.x[i][j] } else { peaks[j] };
            }
        }
        let mut best = WideBest { gains: [0.0; RUNS], scales: [0.0; RUNS] };
        for end in B::ENDS {
            for factor in B::STRETCH.factors() {
                best.consider::<B, RUN, WEIGHTED>(self, &peaks.map(|peak| end * factor / peak));
            }
        }
        for _ in 0..2 {
            let inverses = best.scales.map(inverse);
            best.consider::<B, RUN, WEIGHTED>(self, &inverses);
        }
        best.scales
    }

    /// Integers for the wanted scales, from block scales that give the largest of them either end; each in two rounds:
    /// the first takes the nearest integers, the second, with the block scale that suits those, tries their neighbours.
    #[inline(always)]
    fn two_level<B: Codebook>(&self, ends: [f32; 2]) -> Scales<RUNS> {
        let wanted = self.best_scales::<B>();
        let peak = of_largest_magnitude(&wanted);
        let mut best = Assignment { gain: 0.0, refit: 0.0, d: 0.0, integers: [0.0; RUNS] };
        for end in ends {
            let mut d = peak / end;
            for steps in [&[0.0][..], &[0.0, -1.0, 1.0], &[0.0, -1.0, 1.0]] {
                let next = self.assign::<B>(as_f16(d), &wanted, ends, steps);
                d = next.refit;
                if next.gain > best.gain {
                    best = next;
                }
            }
        }
        Scales { d: best.d, scales: best.integers.map(|k| k as i8) }
    }

    /// The integers of most gain for block scale `d`, at the given distances from the wanted scales.
    #[inline(always)]
    fn assign<B: Codebook>(
        &self,
        d: f32,
        wanted: &[f32; RUNS],
        [low, high]: [f32; 2],
        steps: &[f32],
    ) -> Assignment<RUNS> {
        let by = inverse(d);
        let centres = wanted.map(|scale| round_between(scale * by, low, high));
        let [mut gains, mut integers, mut best_xv, mut best_vv] = [[0.0; RUNS]; 4];
        for &step in steps {
            let tried = centres.map(|k| k + step);
            let [xv, vv] = self.fits::<B>(&tried.map(|k| inverse(d * k)));
            for j in 0..RUNS {
                let k = tried[j];
                let gain = Fit { xv: xv[j], vv: vv[j] }.gain(d * k);
                let better = (gain > gains[j]) & (k >= low) & (k <= high);
                gains[j] = if better { gain } else { gains[j] };
                integers[j] = if better { k } else { integers[j] };
                best_xv[j] = if better { xv[j] } else { best_xv[j] };
                best_vv[j] = if better { vv[j] } else { best_vv[j] };
            }
        }
        let mut total = Fit::default();
        for j in 0..RUNS {
            total.xv += integers[j] * best_xv[j];
            total.vv += integers[j] * integers[j] * best_vv[j];
        }
        Assignment { gain: total.gain(d), refit: total.best_scale(), d, integers }
    }
}

/// The best scale of each run so far.
struct WideBest<const RUNS: usize> {
    gains: [f32; RUNS],
    scales: [f32; RUNS],
}

impl<const RUNS: usize> WideBest<RUNS> {
    /// Takes the best scales for the values snapped at these inverses, where they gain more.
    #[inline(always)]
    fn consider<B: Codebook, const RUN: usize, const WEIGHTED: bool>(
        &mut self,
        runs: &Runs<RUN, RUNS, WEIGHTED>,
        inverses: &[f32; RUNS],
    ) {
        let [xv, vv] = runs.fits::<B>(inverses);
        for j in 0..RUNS {
            let fit = Fit { xv: xv[j], vv: vv[j] };
            let scale = fit.best_scale();
            let gain = fit.gain(scale);
            let better = gain > self.gains[j];
            self.gains[j] = if better { gain } else { self.gains[j] };
            self.scales[j] = if better { scale } else { self.scales[j] };
        }
    }
}

/// Integers for a block scale, what they gain, and the block scale that would be best for their codes.
struct Assignment<const RUNS: usize> {
    gain: f32,
    refit: f32,
    d: f32,
    integers: [f32; RUNS],
}
