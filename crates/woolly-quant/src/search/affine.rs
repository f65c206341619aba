//! x ≈ scale · code − minimum, with codes from 0 and a minimum of at least 0: `Q2_K`, `Q4_K`, `Q5_K` and, when there
//! are importance weights, `Q4_1` and `Q5_1`, whose minimum is free.

use super::{as_f16, round_between, sum};
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
    pub(crate) fn codes<const N: usize>(self, x: &[f32; N], highest: f32) -> [u8; N] {
        let inverse = inverse(self.scale);
        x.map(|x| self.snap(inverse, x, highest) as u8)
    }

    /// The weighted squared error with the nearest codes.
    fn error<const N: usize>(self, x: &[f32; N], w: &[f32; N], highest: f32) -> f32 {
        let inverse = inverse(self.scale);
        let mut terms = [0.0; N];
        for i in 0..N {
            let off = x[i] + self.min - self.scale * self.snap(inverse, x[i], highest);
            terms[i] = w[i] * off * off;
        }
        sum(terms)
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
    /// zero, and the best line on that edge is taken where the solution lies beyond it.
    fn best_line(self, positive: bool) -> Line {
        let determinant = self.w * self.qq - self.q * self.q;
        if determinant > 0.0 {
            let scale = (self.w * self.xq - self.x * self.q) / determinant;
            let min = (self.q * self.xq - self.qq * self.x) / determinant;
            if min >= 0.0 || !positive {
                return Line { scale, min };
            }
        }
        Line { scale: if self.qq > 0.0 { self.xq / self.qq } else { 0.0 }, min: 0.0 }
    }

    /// How far the line brings the error below that of all zeros, Σ w·x².
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
pub(crate) fn best_line<const N: usize>(x: &[f32; N], w: &[f32; N], codes: Codes) -> Line {
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

/// The best line so far.
struct Best {
    gain: f32,
    line: Line,
}

impl Best {
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
    pub(crate) fn line(&self, j: usize) -> Line {
        Line { scale: self.d * f32::from(self.scales[j]), min: self.dmin * f32::from(self.mins[j]) }
    }

    /// The best integers, up to `limit`, near the wanted lines for the block scales of `self`; and their error.
    fn assign<const RUN: usize>(
        &mut self,
        x: &[[f32; RUN]],
        w: &[[f32; RUN]],
        wanted: &[Line; RUNS],
        highest: f32,
        limit: f32,
    ) -> f32 {
        let mut total = 0.0;
        for j in 0..RUNS {
            let scale = round_between(wanted[j].scale * inverse(self.d), 0.0, limit);
            let min = round_between(wanted[j].min * inverse(self.dmin), 0.0, limit);
            let mut least = f32::INFINITY;
            for scale in steps(scale, limit) {
                for min in steps(min, limit) {
                    let line = Line { scale: self.d * scale, min: self.dmin * min };
                    let error = line.error(&x[j], &w[j], highest);
                    if error < least {
                        least = error;
                        (self.scales[j], self.mins[j]) = (scale as u8, min as u8);
                    }
                }
            }
            total += least;
        }
        total
    }

    /// The block scales of least error for the present integers and codes: normal equations again, of
    /// x ≈ d · (scale · code) − dmin · min.
    fn refit<const RUN: usize>(&self, x: &[[f32; RUN]], w: &[[f32; RUN]], highest: f32) -> (f32, f32) {
        let mut total = Moments::default();
        for j in 0..RUNS {
            let moments = Moments::of(&x[j], &w[j], self.line(j), highest);
            let (scale, min) = (f32::from(self.scales[j]), f32::from(self.mins[j]));
            total.w += min * min * moments.w;
            total.x += min * moments.x;
            total.q += min * scale * moments.q;
            total.xq += scale * moments.xq;
            total.qq += scale * scale * moments.qq;
        }
        let Line { scale, min } = total.best_line(true);
        (scale, min)
    }
}

/// An integer and its neighbours that are in range.
fn steps(centre: f32, limit: f32) -> impl Iterator<Item = f32> {
    [centre, centre - 1.0, centre + 1.0].into_iter().filter(move |&k| k >= 0.0 && k <= limit)
}

/// The scales and minima of least error for a block of `RUNS` runs with codes up to `highest`, as integers up to
/// `limit`.
pub(crate) fn two_level<const RUN: usize, const RUNS: usize>(
    x: &[[f32; RUN]],
    w: &[[f32; RUN]],
    highest: f32,
    limit: f32,
) -> Lines<RUNS> {
    let codes = Codes { highest, positive: true };
    let wanted: [Line; RUNS] = std::array::from_fn(|j| best_line(&x[j], &w[j], codes));
    let (scale, min) = wanted.iter().fold((0.0_f32, 0.0_f32), |(s, m), line| (s.max(line.scale), m.max(line.min)));
    let (mut d, mut dmin) = (scale / limit, min / limit);
    let mut least = f32::INFINITY;
    let mut best = Lines { d: 0.0, dmin: 0.0, scales: [0; RUNS], mins: [0; RUNS] };
    for _ in 0..3 {
        let mut next = Lines { d: as_f16(d), dmin: as_f16(dmin), ..best };
        let error = next.assign(x, w, &wanted, highest, limit);
        if error < least {
            (least, best) = (error, next);
        }
        (d, dmin) = next.refit(x, w, highest);
    }
    best
}
