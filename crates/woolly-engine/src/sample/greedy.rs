//! Greedy: chooses the likeliest token; on when the temperature is 0.

use super::{Sampler, Setup};
use crate::Candidates;

struct Greedy;

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    (setup.params.temperature == 0.0).then(|| Box::new(Greedy) as _)
}

impl Sampler for Greedy {
    fn apply(&mut self, candidates: &mut Candidates) {
        // The first of equals, which is the smaller id as long as nothing was reordered.
        let best = candidates.as_slice().iter().copied().reduce(|a, b| if b.logit > a.logit { b } else { a });
        if let Some(best) = best {
            candidates.choose(best.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    #[test]
    fn takes_the_first_of_the_largest() {
        let params = SamplingParams::greedy();
        let mut sampler = build(&Setup { params: &params, vocab_size: 4, context: 1, seed: 0 }).expect("on");
        let mut candidates = Candidates::default();
        candidates.load(&[-1.0, 2.0, 0.0, 2.0]).expect("finite");
        sampler.apply(&mut candidates);
        assert_eq!(candidates.chosen(), Some(1));
    }
}
