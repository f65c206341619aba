//! How long a step will take, learned while steps run.
//!
//! The model is `t = a + b·prefill tokens + c·decode rows + d·positions read by decode rows + e·positions attended by
//! prefill rows`, fitted by recursive least squares with exponential forgetting (Ljung, *System Identification*, §11.2):
//! it knows nothing of the machine beforehand and follows it when neighbours, clocks or thread counts change.

/// Terms of the model.
const TERMS: usize = 5;
/// Weight of the past after each step; 0.98 remembers about fifty steps.
const FORGETTING: f64 = 0.98;
/// Variance of a term above which nothing more is forgotten about it: it has long not been seen.
const MOST_VARIANCE: f64 = 1e8;

/// What a step computes, as far as its duration depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Tokens of prompts.
    pub prefill_tokens: usize,
    /// Positions that the prompts' tokens attend to, summed.
    pub prefill_attended: usize,
    /// Sequences that get one further token.
    pub decode_rows: usize,
    /// Positions whose keys and values these read, summed.
    pub decode_read: usize,
}

impl Load {
    /// Adds `rows` tokens of a sequence of which `start` positions are computed; `decode` when it is in its answer.
    pub fn add(&mut self, start: usize, rows: usize, decode: bool) {
        let attended = rows * start + rows * (rows + 1) / 2;
        if decode {
            self.decode_rows += rows;
            self.decode_read += attended;
        } else {
            self.prefill_tokens += rows;
            self.prefill_attended += attended;
        }
    }

    /// Units that keep all terms near 1, so that one learning rate serves them all.
    fn terms(&self) -> [f64; TERMS] {
        [
            1.0,
            self.prefill_tokens as f64 / 64.0,
            self.prefill_attended as f64 / 65_536.0,
            self.decode_rows as f64 / 4.0,
            self.decode_read as f64 / 4096.0,
        ]
    }
}

/// The online estimate of a step's duration.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// Milliseconds for one unit of each term; never negative.
    weights: [f64; TERMS],
    /// Inverse correlation of the terms seen.
    covariance: [[f64; TERMS]; TERMS],
    observed: u64,
}

impl Default for CostModel {
    /// Starts from a slow machine (1 ms a token), of which the first measurement leaves little.
    fn default() -> Self {
        let mut covariance = [[0.0; TERMS]; TERMS];
        (0..TERMS).for_each(|i| covariance[i][i] = 1e6);
        Self { weights: [5.0, 64.0, 0.0, 4.0, 0.0], covariance, observed: 0 }
    }
}

impl CostModel {
    /// Starts from known costs in milliseconds: of a step, of a prompt token and of a decode row.
    pub fn fixed(step: f64, prefill_token: f64, decode_row: f64) -> Self {
        Self { weights: [step, prefill_token * 64.0, 0.0, decode_row * 4.0, 0.0], ..Self::default() }
    }

    /// Returns how many steps the estimate rests on.
    pub fn observed(&self) -> u64 {
        self.observed
    }

    /// Returns the expected duration in milliseconds.
    pub fn predict(&self, load: &Load) -> f64 {
        load.terms().iter().zip(&self.weights).map(|(x, w)| x * w).sum()
    }

    /// Returns how many prompt tokens, at about `depth` positions, fit into `budget` milliseconds beside `load`.
    pub fn tokens_within(&self, budget: f64, load: &Load, depth: usize) -> usize {
        let token = self.weights[1] / 64.0 + self.weights[2] * depth as f64 / 65_536.0;
        let left = budget - self.predict(load);
        if left <= 0.0 {
            return 0;
        }
        // A float too large for the integer saturates, which is what is meant.
        if token <= 0.0 { usize::MAX } else { (left / token) as usize }
    }

    /// Learns that a step took `ms` milliseconds.
    pub fn observe(&mut self, load: &Load, ms: f64) {
        if !ms.is_finite() || ms < 0.0 {
            return;
        }
        let expected = self.predict(load);
        // Relative errors count, so that short steps are learned beside long ones; and being divided by the larger of
        // the two, no surprise exceeds 1, so that a stall of the machine does not undo what was learned.
        let scale = 1.0 / expected.max(ms).max(1e-3);
        self.observed += 1;
        self.correct(&load.terms().map(|x| x * scale), (ms - expected) * scale);
    }

    fn correct(&mut self, x: &[f64; TERMS], surprise: f64) {
        let spread = self.covariance.map(|row| dot(&row, x));
        let certainty = FORGETTING + dot(&spread, x);
        for (weight, s) in self.weights.iter_mut().zip(&spread) {
            // Nothing makes a step shorter: a negative estimate is noise, and a budget must not be built on it.
            *weight = (*weight + s / certainty * surprise).max(0.0);
        }
        for (i, row) in self.covariance.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                *cell -= spread[i] * spread[j] / certainty;
            }
        }
        if (0..TERMS).all(|i| self.covariance[i][i] < MOST_VARIANCE) {
            self.covariance.iter_mut().flatten().for_each(|cell| *cell /= FORGETTING);
        }
    }
}

fn dot(a: &[f64; TERMS], b: &[f64; TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// A machine whose law is the model's own, with noise of ±`noise`.
    struct Machine {
        rng: Rng,
        noise: f64,
        speed: f64,
    }

    impl Machine {
        fn load(&mut self) -> Load {
            let mut load = Load::default();
            let mut below = |n: f64| (self.rng.unit() * n) as usize;
            let (decodes, prefill, start) = (below(17.0), below(400.0) * below(2.0), below(4000.0));
            (0..decodes).for_each(|i| load.add(100 + 50 * i, 1, true));
            if prefill > 0 || decodes == 0 {
                load.add(start, prefill + 1, false);
            }
            load
        }

        fn truth(&self, load: &Load) -> f64 {
            let prefill = 0.9 * load.prefill_tokens as f64 + 1e-4 * load.prefill_attended as f64;
            self.speed * (20.0 + prefill + 1.5 * load.decode_rows as f64 + 2e-3 * load.decode_read as f64)
        }

        fn measure(&mut self, load: &Load) -> f64 {
            self.truth(load) * (1.0 + self.noise * (2.0 * self.rng.unit() - 1.0))
        }
    }

    /// Trains for `steps` and returns the mean relative error of 200 further predictions.
    fn error_after(model: &mut CostModel, machine: &mut Machine, steps: usize) -> f64 {
        for _ in 0..steps {
            let load = machine.load();
            let ms = machine.measure(&load);
            model.observe(&load, ms);
        }
        let errors = (0..200).map(|_| {
            let load = machine.load();
            (model.predict(&load) / machine.truth(&load) - 1.0).abs()
        });
        errors.sum::<f64>() / 200.0
    }

    #[test]
    fn predictions_approach_the_machine_and_follow_it() {
        let mut machine = Machine { rng: Rng::new(1), noise: 0.1, speed: 1.0 };
        let mut model = CostModel::default();
        let before = error_after(&mut model, &mut machine, 0);
        let after = error_after(&mut model, &mut machine, 60);
        assert!(before > 0.2 && after < 0.08, "error {before} before, {after} after");
        machine.speed = 4.0;
        let slower = error_after(&mut model, &mut machine, 200);
        assert!(slower < 0.12, "error {slower} on a machine four times as slow");
    }

    #[test]
    fn a_stall_or_nonsense_does_not_spoil_the_estimate() {
        let mut machine = Machine { rng: Rng::new(2), noise: 0.02, speed: 1.0 };
        let mut model = CostModel::default();
        error_after(&mut model, &mut machine, 100);
        for ms in [60_000.0, f64::NAN, f64::INFINITY, -1.0] {
            let load = machine.load();
            model.observe(&load, ms);
        }
        let error = error_after(&mut model, &mut machine, 0);
        assert!(error < 0.6, "error {error} right after a stall");
        assert!(error_after(&mut model, &mut machine, 60) < 0.05);
    }

    #[test]
    fn long_runs_of_equal_steps_keep_the_estimate_finite() {
        let mut model = CostModel::default();
        let mut load = Load::default();
        load.add(100, 1, true);
        (0..100_000).for_each(|_| model.observe(&load, 25.0));
        assert!((model.predict(&load) - 25.0).abs() < 0.1);
        let mut other = Load::default();
        other.add(0, 100, false);
        model.observe(&other, 120.0);
        assert!((model.predict(&other) - 120.0).abs() < 5.0, "{}", model.predict(&other));
        assert!(model.weights.iter().all(|w| w.is_finite() && *w >= 0.0));
    }

    #[test]
    fn budgets_are_turned_into_tokens() {
        let model = CostModel::fixed(10.0, 0.5, 2.0);
        let mut load = Load::default();
        (0..5).for_each(|_| load.add(10, 1, true));
        assert_eq!(model.tokens_within(100.0, &load, 0), 160);
        assert_eq!(model.tokens_within(15.0, &load, 0), 0);
        assert_eq!(CostModel::fixed(1.0, 0.0, 0.0).tokens_within(2.0, &load, 0), usize::MAX);
    }
}
