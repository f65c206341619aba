//! Top-k: keeps the k likeliest tokens (Fan et al., 2018).

use super::{Sampler, Setup};
use crate::Candidates;

struct TopK {
    k: usize,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    let k = setup.params.top_k;
    // The greedy choice needs no narrowing.
    (k > 0 && k < setup.vocab_size && setup.params.temperature > 0.0).then(|| Box::new(TopK { k }) as _)
}

impl Sampler for TopK {
    fn apply(&mut self, candidates: &mut Candidates) {
        candidates.order(self.k);
        candidates.truncate(self.k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    #[test]
    fn keeps_the_largest_in_order() {
        let params = SamplingParams { top_k: 3, ..SamplingParams::default() };
        let mut sampler = build(&Setup { params: &params, vocab_size: 6, context: 1, seed: 0 }).expect("on");
        let mut candidates = Candidates::default();
        candidates.load(&[0.0, 3.0, 1.0, 3.0, -1.0, 2.0]).expect("finite");
        sampler.apply(&mut candidates);
        let ids: Vec<u32> = candidates.as_slice().iter().map(|c| c.id).collect();
        assert_eq!(ids, [1, 3, 5], "ties go to the smaller id");
    }
}
