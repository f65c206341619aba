//! Greedy: chooses the likeliest token; on when the temperature is 0.

use super::{Sampler, Setup};
use crate::{Candidates, Error};

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

/// Returns the first of the largest logits: what this sampler chooses when no other one changed anything.
///
/// # Errors
/// [`Error::NumericFault`] when a logit is not finite.
pub(super) fn likeliest(logits: &[f32]) -> Result<u32, Error> {
    const LANES: usize = 16;
    let (chunks, rest) = logits.as_chunks::<LANES>();
    // Plain comparisons in lanes become vector instructions; products with 0 are NaN for what is not finite.
    let (mut best, mut faults) = ([f32::NEG_INFINITY; LANES], [0.0_f32; LANES]);
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
            faults[lane] += chunk[lane] * 0.0;
        }
    }
    let largest = best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let finite = faults.iter().all(|fault| *fault == 0.0) && rest.iter().all(|x| x.is_finite());
    let wanted = |x: f32| if finite { x == largest } else { !x.is_finite() };
    match (0_u32..).zip(logits).find(|(_, x)| wanted(**x)) {
        Some((id, _)) if finite => Ok(id),
        Some((id, &value)) => Err(Error::NumericFault { id, value }),
        None => Err(Error::NoCandidates),
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
