//! The draw: chooses a token with its probability among the candidates that are left.

use super::{Sampler, Setup, partition, weight};
use crate::{Candidates, Rng};

struct Dist {
    rng: Rng,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    (setup.params.temperature > 0.0).then(|| Box::new(Dist { rng: Rng::new(setup.seed) }) as _)
}

impl Sampler for Dist {
    fn apply(&mut self, candidates: &mut Candidates) {
        let Some(max) = candidates.max_logit() else { return };
        let mut rest = self.rng.unit() * partition(candidates, max);
        let chosen = candidates.as_slice().iter().find(|c| {
            rest -= weight(c.logit, max);
            rest < 0.0
        });
        // Rounding can leave a trace of `rest` after the last one.
        if let Some(id) = chosen.or(candidates.as_slice().last()).map(|c| c.id) {
            candidates.choose(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    #[test]
    fn frequencies_follow_the_probabilities() {
        const DRAWS: u32 = 20_000;
        let params = SamplingParams::default();
        let mut sampler = build(&Setup { params: &params, vocab_size: 4, context: 1, seed: 11 }).expect("on");
        let probabilities = [0.1_f32, 0.6, 0.05, 0.25];
        let mut candidates = Candidates::default();
        let mut counts = [0_u32; 4];
        for _ in 0..DRAWS {
            candidates.load(&probabilities.map(f32::ln)).expect("finite");
            sampler.apply(&mut candidates);
            counts[candidates.chosen().expect("chosen") as usize] += 1;
        }
        for (count, p) in counts.into_iter().zip(probabilities) {
            // Six standard deviations of a binomial count.
            let sigma = (DRAWS as f32 * p * (1.0 - p)).sqrt();
            assert!((count as f32 - DRAWS as f32 * p).abs() < 6.0 * sigma, "{counts:?}");
        }
    }
}
