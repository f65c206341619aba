//! x ≈ scale · code − minimum, with codes from 0 and a minimum of at least 0: `Q2_K`, `Q4_K`, `Q5_K` and, when there
//! are importance weights, `Q4_1` and `Q5_1`, whose minimum is free.

use super::{as_f16, beside_each_other, round_between, sum};
use crate::simple::{bounds, inverse};

/// A scale and a minimum: code q stands for `scale · q - min`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Line {
    pub(crate) scale: f32,
    pub(crate) min: f32,
}

impl Line {
    /// The nearest code to `x`.
    #[inline(always)]
    fn snap(self, inverse: f32, x: f32, highest: f32) -> f32 {
        round_between((x + self.min) * inverse, 0.0, highest)
    }

    /// The nearest codes, 0 to `highest`.
    #[inline(always)]
    pub(crate) fn codes<const N: usize>(self, x: &[f32; N], highest: f32) -> [u8; N] {
        let inverse = inverse(self.scale);
        x.map(|x| self.snap(inverse, x, highest) as u8)
    }
}

/// The weighted moments of a run with its codes.
#[derive(Clone, Copy, Default)]
struct Moments {
    w: f32,
    x: f32,
    q: f32,
    xq: f32,
    qq: f32,
}

impl Moments {
    #[inline(always)]
    fn of<const N: usize>(x: &[f32; N], w: &[f32; N], line: Line, highest: f32) -> Self {
        let inverse = inverse(line.scale);
        let [mut sx, mut sq, mut sxq, mut sqq] = [[0.0; N]; 4];
        for i in 0..N {
            let code = line.snap(inverse, x[i], highest);
            sx[i] = w[i] * x[i];
            sq[i] = w[i] * code;
            sxq[i] = w[i] * x[i] * code;
            sqq[i] = w[i] * code * code;
        }
        Self { w: sum(*w), x: sum(sx), q: sum(sq), xq: sum(sxq), qq: sum(sqq) }
    }

    /// The line of least error for these codes: the 2 × 2 normal equations. With `positive`, the minimum is at least
    /// zero, and the best line on that edge is taken where the solution lies beyond it. Without branches, so that many
    /// can be solved at once.
    #[inline(always)]
    fn best_line(self, positive: bool) -> Line {
        let determinant = self.w * self.qq - self.q * self.q;
        // A determinant that is nothing but rounding, as when one weight is all, would give any line at all.
        let solvable = determinant > 1e-6 * (self.w * self.qq);
        let by = if solvable { 1.0 / determinant } else { 0.0 };
        let min = (self.q * self.xq - self.qq * self.x) * by;
        let inside = solvable & (!positive | (min >= 0.0));
        let edge = if self.qq > 0.0 { self.xq / self.qq } else { 0.0 };
        let scale = if inside { (self.w * self.xq - self.x * self.q) * by } else { edge };
        Line { scale, min: if inside { min } else { 0.0 } }
    }

    /// How far the line brings the error below that of all zeros, Σ w·x².
    #[inline(always)]
    fn gain(self, Line { scale, min }: Line) -> f32 {
        scale * (2.0 * self.xq - scale * self.qq) - min * (2.0 * self.x + min * self.w - 2.0 * scale * self.q)
    }
}

/// How a run may be coded.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    /// The largest code.
    pub(crate) highest: f32,
    /// Whether minima are at least zero: no line lies wholly above zero.
    pub(crate) positive: bool,
}

/// The line of least error for a run that has one of its own.
#[inline(always)]
pub(crate) fn best_line<const N: usize>(x: &[f32; N], w: &[f32; N], codes: Codes) -> Line {
    let w = &brought_to_one(w);
    let (low, high) = bounds(x);
    let low = if codes.positive { low.min(0.0) } else { low };
    let constant = Line { scale: 0.0, min: -low };
    let mut best = Best { gain: f32::NEG_INFINITY, line: constant };
    best.consider(Moments::of(x, w, constant, codes.highest), codes);
    // The ends of the run come to lie up to a step outside the codes, or a half step inside.
    for outside in 0..8_u8 {
        let span = codes.highest + 0.25 * f32::from(outside) - 0.5;
        for share in [0.0, 0.5, 1.0] {
            let scale = (high - low) / span;
            let line = Line { scale, min: -low - share * (span - codes.highest) * scale };
            best.consider(Moments::of(x, w, line, codes.highest), codes);
        }
    }
    for _ in 0..2 {
        best.consider(Moments::of(x, w, best.line, codes.highest), codes);
    }
    best.line
}

/// Weights times the power of two that brings the largest to between 1 and 2, so that sums of products stay in range. What
/// they say is the same, to the last bit, but for weights too small to be held beside the largest.
#[inline(always)]
fn brought_to_one<const N: usize>(w: &[f32; N]) -> [f32; N] {
    const MANTISSA: u32 = f32::MANTISSA_DIGITS - 1;
    let largest = w.iter().fold(0.0_f32, |a, &b| if b > a { b } else { a });
    // Powers of two from 2^-126 on: the largest of all weights may end up just below 4.
    let exponent = 254_u32.saturating_sub(largest.to_bits() >> MANTISSA).max(1);
    let factor = f32::from_bits(exponent << MANTISSA);
    w.map(|w| w * factor)
}

/// The best line so far.
struct Best {
    gain: f32,
    line: Line,
}

impl Best {
    #[inline(always)]
    fn consider(&mut self, moments: Moments, codes: Codes) {
        let line = moments.best_line(codes.positive);
        let gain = moments.gain(line);
        if gain > self.gain {
            *self = Self { gain, line };
        }
    }
}

/// Block scales, as binary16 holds them, and integers for each run: its line is `d · scales[j]`, `dmin · mins[j]`.
#[derive(Clone, Copy)]
pub(crate) struct Lines<const RUNS: usize> {
    pub(crate) d: f32,
    pub(crate) dmin: f32,
    pub(crate) scales: [u8; RUNS],
    pub(crate) mins: [u8; RUNS],
}

impl<const RUNS: usize> Lines<RUNS> {
    /// The line of run `j`.
    #[inline(always)]
    pub(crate) fn line(&self, j: usize) -> Line {
        Line { scale: self.d * f32::from(self.scales[j]), min: self.dmin * f32::from(self.mins[j]) }
    }
}

/// The scales and minima of least error for a block of `RUNS` runs with codes up to `highest`, as integers up to
/// `limit`.
#[inline(always)]
pub(crate) fn two_level<const RUN: usize, const RUNS: usize>(
    x: &[[f32; RUN]],
    importance: Option<&[[f32; RUN]]>,
    highest: f32,
    limit: f32,
) -> Lines<RUNS> {
    match importance {
        None => Runs::<RUN, RUNS, false>::new(x, x, highest).two_level(limit),
        Some(w) => Runs::<RUN, RUNS, true>::new(x, w, highest).two_level(limit),
    }
}

/// The runs of a block side by side: `x[i]` holds element i of every run. One vector instruction then serves as many
/// runs as it has lanes, and no sum crosses lanes.
struct Runs<const RUN: usize, const RUNS: usize, const WEIGHTED: bool> {
    x: [[f32; RUNS]; RUN],
    /// Only read if `WEIGHTED`; otherwise every element weighs 1.
    w: [[f32; RUNS]; RUN],
    /// Sums of the weights and of the weighted elements, which no code changes.
    sums: [[f32; RUNS]; 2],
    highest: f32,
}

/// A line for each run.
type Wide<const RUNS: usize> = [[f32; RUNS]; 2];

/// The moments of each run that depend on its codes: q, xq and qq.
type WideMoments<const RUNS: usize> = [[f32; RUNS]; 3];

/// An integer and its neighbours.
const STEPS: [f32; 3] = [0.0, -1.0, 1.0];

impl<const RUN: usize, const RUNS: usize, const WEIGHTED: bool> Runs<RUN, RUNS, WEIGHTED> {
    #[inline(always)]
    fn new(x: &[[f32; RUN]], w: &[[f32; RUN]], highest: f32) -> Self {
        let x = beside_each_other(x);
        let w = if WEIGHTED { beside_each_other(w) } else { [[1.0; RUNS]; RUN] };
        let mut sums = [[0.0; RUNS]; 2];
        for i in 0..RUN {
            for j in 0..RUNS {
                sums[0][j] += w[i][j];
                sums[1][j] += w[i][j] * x[i][j];
            }
        }
        Self { x, w, sums, highest }
    }

    /// The moments with the nearest codes.
    #[inline(always)]
    fn moments(&self, lines: &Wide<RUNS>) -> WideMoments<RUNS> {
        let mut inverses = [0.0; RUNS];
        for j in 0..RUNS {
            inverses[j] = inverse(lines[0][j]);
        }
        let [mut q, mut xq, mut qq] = [[0.0; RUNS]; 3];
        for i in 0..RUN {
            for j in 0..RUNS {
                let x = self.x[i][j];
                let code = round_between((x + lines[1][j]) * inverses[j], 0.0, self.highest);
                let weighted = if WEIGHTED { self.w[i][j] * code } else { code };
                q[j] += weighted;
                xq[j] += weighted * x;
                qq[j] += weighted * code;
            }
        }
        [q, xq, qq]
    }

    #[inline(always)]
    fn of_run(&self, [q, xq, qq]: &WideMoments<RUNS>, j: usize) -> Moments {
        Moments { w: self.sums[0][j], x: self.sums[1][j], q: q[j], xq: xq[j], qq: qq[j] }
    }

    /// The best line of each run for itself.
    #[inline(always)]
    fn best_lines(&self) -> Wide<RUNS> {
        let (mut low, mut high) = ([0.0_f32; RUNS], [f32::NEG_INFINITY; RUNS]);
        for i in 0..RUN {
            for j in 0..RUNS {
                low[j] = if self.x[i][j] < low[j] { self.x[i][j] } else { low[j] };
                high[j] = if self.x[i][j] > high[j] { self.x[i][j] } else { high[j] };
            }
        }
        // To begin with, a constant.
        let mut best = WideBest { gains: [0.0; RUNS], lines: [[0.0; RUNS], low.map(|low| -low)] };
        let codes = [[0.0; RUNS]; 3];
        for j in 0..RUNS {
            best.gains[j] = self.of_run(&codes, j).gain(Line { scale: 0.0, min: -low[j] });
        }
        // The ends of the run come to lie up to a step outside the codes, or a half step inside.
        for outside in 0..6_u8 {
            let span = self.highest + f32::from(outside) / 3.0 - 0.5;
            for share in [0.0, 0.5, 1.0] {
                let mut lines = [[0.0; RUNS]; 2];
                for j in 0..RUNS {
                    lines[0][j] = (high[j] - low[j]) / span;
                    lines[1][j] = -low[j] - share * (span - self.highest) * lines[0][j];
                }
                best.consider(self, &lines);
            }
        }
        let lines = best.lines;
        best.consider(self, &lines);
        best.lines
    }

    /// Integers for the wanted lines, in two rounds: the first takes those that are best for the codes of the wanted
    /// lines, which is a formula; the second, with the block scales that suit the first, tries every neighbour with its
    /// own codes.
    #[inline(always)]
    fn two_level(&self, limit: f32) -> Lines<RUNS> {
        let wanted = self.best_lines();
        let largest = |values: &[f32; RUNS]| values.iter().fold(0.0_f32, |a, &b| if b > a { b } else { a });
        let codes = self.moments(&wanted);
        let [d, dmin] = [largest(&wanted[0]) / limit, largest(&wanted[1]) / limit].map(as_f16);
        let first = self.assign([d, dmin], &wanted, limit, Some(&codes));
        let second = self.assign(first.refit.map(as_f16), &wanted, limit, None);
        let best = if second.gain > first.gain { second } else { first };
        let [d, dmin] = best.scales;
        let [scales, mins] = best.integers.map(|integers| integers.map(|k| k as u8));
        Lines { d, dmin, scales, mins }
    }

    /// The best integers near the wanted lines for block scales `d` and `dmin`: with the codes whose moments are given,
    /// or else each with its own.
    #[inline(always)]
    fn assign(
        &self,
        scales: [f32; 2],
        wanted: &Wide<RUNS>,
        limit: f32,
        codes: Option<&WideMoments<RUNS>>,
    ) -> Assignment<RUNS> {
        let inverses = scales.map(inverse);
        let mut centres = [[0.0; RUNS]; 2];
        for j in 0..RUNS {
            centres[0][j] = round_between(wanted[0][j] * inverses[0], 0.0, limit);
            centres[1][j] = round_between(wanted[1][j] * inverses[1], 0.0, limit);
        }
        let (mut gains, mut integers) = ([f32::NEG_INFINITY; RUNS], [[0.0; RUNS]; 2]);
        for scale_step in STEPS {
            for min_step in STEPS {
                let (mut tried, mut lines) = (centres, centres);
                for j in 0..RUNS {
                    (tried[0][j], tried[1][j]) = (centres[0][j] + scale_step, centres[1][j] + min_step);
                    (lines[0][j], lines[1][j]) = (scales[0] * tried[0][j], scales[1] * tried[1][j]);
                }
                let moments = codes.copied().unwrap_or_else(|| self.moments(&lines));
                for j in 0..RUNS {
                    let [k, m] = [tried[0][j], tried[1][j]];
                    let gain = self.of_run(&moments, j).gain(Line { scale: lines[0][j], min: lines[1][j] });
                    let better = (gain > gains[j]) & (k >= 0.0) & (k <= limit) & (m >= 0.0) & (m <= limit);
                    gains[j] = if better { gain } else { gains[j] };
                    integers[0][j] = if better { k } else { integers[0][j] };
                    integers[1][j] = if better { m } else { integers[1][j] };
                }
            }
        }
        self.refit(scales, integers)
    }

    /// What the integers gain with their nearest codes, and the block scales of least error for these: normal equations
    /// again, of x ≈ d · (scale · code) − dmin · min.
    #[inline(always)]
    fn refit(&self, scales: [f32; 2], integers: Wide<RUNS>) -> Assignment<RUNS> {
        let mut lines = integers;
        for j in 0..RUNS {
            (lines[0][j], lines[1][j]) = (scales[0] * integers[0][j], scales[1] * integers[1][j]);
        }
        let codes = self.moments(&lines);
        let (mut gain, mut total) = (0.0, Moments::default());
        for j in 0..RUNS {
            let (moments, [k, m]) = (self.of_run(&codes, j), [integers[0][j], integers[1][j]]);
            gain += moments.gain(Line { scale: lines[0][j], min: lines[1][j] });
            total.w += m * m * moments.w;
            total.x += m * moments.x;
            total.q += m * k * moments.q;
            total.xq += k * moments.xq;
            total.qq += k * k * moments.qq;
        }
        let best = total.best_line(true);
        Assignment { gain, scales, integers, refit: [best.scale, best.min] }
    }
}

/// Integers for block scales, what they gain, and the block scales that would be best for their codes.
struct Assignment<const RUNS: usize> {
    gain: f32,
    scales: [f32; 2],
    integers: Wide<RUNS>,
    refit: [f32; 2],
}

/// The best line of each run so far.
struct WideBest<const RUNS: usize> {
    gains: [f32; RUNS],
    lines: Wide<RUNS>,
}

impl<const RUNS: usize> WideBest<RUNS> {
    /// Takes the best lines for the codes of `lines`, where they gain more.
    #[inline(always)]
    fn consider<const RUN: usize, const WEIGHTED: bool>(
        &mut self,
        runs: &Runs<RUN, RUNS, WEIGHTED>,
        lines: &Wide<RUNS>,
    ) {
        let codes = runs.moments(lines);
        for j in 0..RUNS {
            let moments = runs.of_run(&codes, j);
            let line = moments.best_line(true);
            let gain = moments.gain(line);
            let better = gain > self.gains[j];
            self.gains[j] = if better { gain } else { self.gains[j] };
            self.lines[0][j] = if better { line.scale } else { self.lines[0][j] };
            self.lines[1][j] = if better { line.min } else { self.lines[1][j] };
        }
    }
}
