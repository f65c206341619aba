//! Min-p: keeps tokens at least p times as likely as the likeliest (Nguyen et al., 2024).

use super::{Sampler, Setup};
use crate::Candidates;

struct MinP {
    /// `ln p`: the ratio of probabilities as a difference of logits.
    log_p: f32,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    let p = setup.params.min_p;
    (p > 0.0 && setup.params.temperature > 0.0).then(|| Box::new(MinP { log_p: p.ln() }) as _)
}

impl Sampler for MinP {
    fn apply(&mut self, candidates: &mut Candidates) {
        if let Some(max) = candidates.max_logit() {
            candidates.retain_from(max + self.log_p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    #[test]
    fn keeps_by_the_ratio_to_the_likeliest() {
        let cases: [(f32, &[u32]); 3] = [(1.0, &[1]), (0.35, &[1, 3]), (0.05, &[0, 1, 2, 3])];
        for (p, expected) in cases {
            let params = SamplingParams { min_p: p, ..SamplingParams::default() };
            let mut sampler = build(&Setup { params: &params, vocab_size: 4, context: 1, seed: 0 }).expect("on");
            let mut candidates = Candidates::default();
            candidates.load(&[0.1_f32, 0.5, 0.1, 0.3].map(f32::ln)).expect("finite");
            sampler.apply(&mut candidates);
            let ids: Vec<u32> = candidates.as_slice().iter().map(|c| c.id).collect();
            assert_eq!(ids, expected, "p {p}");
        }
    }
}
