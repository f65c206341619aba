//! Top-p (nucleus): keeps the likeliest tokens that together reach a probability p (Holtzman et al., 2020).

use super::{Sampler, Setup, partition, weight};
use crate::Candidates;

/// Candidates put in order at first; doubled until the mass is reached, so that a flat tail is never sorted in vain.
const FIRST_ORDERED: usize = 64;

struct TopP {
    p: f64,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    let p = setup.params.top_p;
    (p < 1.0 && setup.params.temperature > 0.0).then(|| Box::new(TopP { p: f64::from(p) }) as _)
}

impl Sampler for TopP {
    fn apply(&mut self, candidates: &mut Candidates) {
        let Some(max) = candidates.max_logit() else { return };
        let wanted = self.p * partition(candidates, max);
        let mut mass = 0.0;
        let mut kept = 0;
        while kept < candidates.as_slice().len() {
            if kept == candidates.ordered() {
                candidates.order((2 * kept).max(FIRST_ORDERED));
            }
            mass += weight(candidates.as_slice()[kept].logit, max);
            kept += 1;
            if mass >= wanted {
                break;
            }
        }
        candidates.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    fn kept(p: f32, probabilities: &[f32]) -> Vec<u32> {
        let params = SamplingParams { top_p: p, ..SamplingParams::default() };
        let mut sampler = build(&Setup { params: &params, vocab_size: 4, context: 1, seed: 0 }).expect("on");
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut candidates = Candidates::default();
        candidates.load(&logits).expect("finite");
        sampler.apply(&mut candidates);
        candidates.as_slice().iter().map(|c| c.id).collect()
    }

    #[test]
    fn keeps_the_smallest_head_that_reaches_p() {
        let cases: [(f32, &[u32]); 5] = [
            (0.0, &[1]), // at least one always stays
            (0.45, &[1]),
            (0.55, &[1, 3]),
            (0.85, &[1, 3, 0]),
            (0.99, &[1, 3, 0, 2]),
        ];
        for (p, expected) in cases {
            assert_eq!(kept(p, &[0.15, 0.5, 0.05, 0.3]), expected, "p {p}");
        }
    }

    #[test]
    fn a_flat_tail_is_cut_at_the_right_count() {
        let flat = vec![1.0 / 1000.0; 1000];
        let count = kept(0.5, &flat).len();
        assert!(count.abs_diff(500) <= 1, "{count} of 1000 equal tokens for half of the mass");
    }
}
