//! Temperature: divides the logits, above 1 towards even odds, below 1 towards the likeliest.

use super::{Sampler, Setup};
use crate::Candidates;

struct Temperature {
    inverse: f32,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    let temperature = setup.params.temperature;
    // The reciprocal of the smallest temperatures is infinite, and infinity times the largest logit's 0 is NaN.
    let inverse = temperature.recip().min(f32::MAX);
    (temperature > 0.0 && temperature != 1.0).then(|| Box::new(Temperature { inverse }) as _)
}

impl Sampler for Temperature {
    fn apply(&mut self, candidates: &mut Candidates) {
        candidates.scale(self.inverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    fn differences(temperature: f32, logits: &[f32]) -> Vec<f32> {
        let params = SamplingParams { temperature, ..SamplingParams::default() };
        let mut sampler = build(&Setup { params: &params, vocab_size: 3, context: 1, seed: 0 }).expect("on");
        let mut candidates = Candidates::default();
        candidates.load(logits).expect("finite");
        sampler.apply(&mut candidates);
        let scaled = candidates.as_slice();
        scaled.iter().map(|c| c.logit - scaled[0].logit).collect()
    }

    #[test]
    fn divides_the_differences_of_logits() {
        assert_eq!(differences(0.5, &[1.5, -2.0, 1.0]), [0.0, -7.0, -1.0]);
        assert_eq!(differences(2.0, &[1.5, -2.0, 1.0]), [0.0, -1.75, -0.25]);
    }

    #[test]
    fn extreme_temperatures_leave_the_likeliest_on_top() {
        for temperature in [f32::MIN_POSITIVE / 8.0, 1e-30, f32::MAX] {
            let found = differences(temperature, &[3e38, -3e38, 1.0]);
            assert!(found[0] == 0.0 && found[1] <= 0.0 && found[2] <= 0.0, "{temperature:e} gave {found:?}");
        }
    }
}
