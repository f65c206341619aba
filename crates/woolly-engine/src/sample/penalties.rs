//! Penalties on tokens that occurred recently: repetition (a factor), presence and frequency (differences).

use std::collections::VecDeque;

use super::{Sampler, Setup};
use crate::Candidates;

/// Applies the three penalties to the tokens of a sliding window over the sequence.
struct Penalties {
    repeat: f32,
    presence: f32,
    frequency: f32,
    /// The last tokens, oldest first; never longer than its capacity at the start.
    window: VecDeque<u32>,
    length: usize,
    /// How often each token of the vocabulary occurs in the window.
    counts: Vec<u32>,
    /// Tokens with a count above zero, in no order.
    present: Vec<u32>,
}

pub(super) fn build(setup: &Setup<'_>) -> Option<Box<dyn Sampler>> {
    let params = setup.params;
    let neutral = params.repeat_penalty == 1.0 && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0;
    let length = params.repeat_last_n.min(setup.context);
    if neutral || length == 0 {
        return None;
    }
    Some(Box::new(Penalties {
        repeat: params.repeat_penalty,
        presence: params.presence_penalty,
        frequency: params.frequency_penalty,
        window: VecDeque::with_capacity(length),
        length,
        counts: vec![0; setup.vocab_size],
        present: Vec::with_capacity(length),
    }))
}

impl Sampler for Penalties {
    fn apply(&mut self, candidates: &mut Candidates) {
        for &id in &self.present {
            let count = self.counts[id as usize] as f32;
            let difference = count * self.frequency + self.presence;
            candidates.update(id, |logit| self.scaled(logit) - difference);
        }
    }

    fn accept(&mut self, id: u32) {
        if id as usize >= self.counts.len() {
            return;
        }
        if self.window.len() == self.length {
            self.forget_oldest();
        }
        self.window.push_back(id);
        self.counts[id as usize] += 1;
        if self.counts[id as usize] == 1 {
            self.present.push(id);
        }
    }

    fn touched(&self) -> &[u32] {
        &self.present
    }
}

impl Penalties {
    /// Dividing a negative logit would make the token likelier, so these are multiplied (as in llama.cpp).
    fn scaled(&self, logit: f32) -> f32 {
        if logit <= 0.0 { logit * self.repeat } else { logit / self.repeat }
    }

    fn forget_oldest(&mut self) {
        let Some(id) = self.window.pop_front() else { return };
        self.counts[id as usize] -= 1;
        if self.counts[id as usize] == 0 {
            self.present.retain(|&other| other != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    fn penalised(params: &SamplingParams, history: &[u32], logits: &[f32]) -> Vec<f32> {
        let setup = Setup { params, vocab_size: logits.len(), context: 100, seed: 0 };
        let mut sampler = build(&setup).expect("on");
        history.iter().for_each(|&id| sampler.accept(id));
        let mut candidates = Candidates::default();
        candidates.load(logits).expect("finite");
        sampler.apply(&mut candidates);
        candidates.as_slice().iter().map(|c| c.logit).collect()
    }

    #[test]
    fn each_penalty_does_what_its_formula_says() {
        let off = SamplingParams::default;
        let logits = [2.0, -2.0, 1.0, 0.0];
        let cases = [
            ("positive divided, negative multiplied", SamplingParams { repeat_penalty: 2.0, ..off() }, [1.0, -4.0, 1.0, 0.0]),
            ("once per token", SamplingParams { presence_penalty: 0.5, ..off() }, [1.5, -2.5, 1.0, 0.0]),
            ("once per occurrence", SamplingParams { frequency_penalty: 0.5, ..off() }, [1.0, -2.5, 1.0, 0.0]),
            (
                "all together, factor first",
                SamplingParams { repeat_penalty: 2.0, presence_penalty: 0.25, frequency_penalty: 0.5, ..off() },
                [-0.25, -4.75, 1.0, 0.0],
            ),
        ];
        for (reason, params, expected) in cases {
            assert_eq!(penalised(&params, &[0, 1, 0], &logits), expected, "{reason}");
        }
    }

    #[test]
    fn only_the_window_counts() {
        let params = SamplingParams { presence_penalty: 1.0, repeat_last_n: 2, ..SamplingParams::default() };
        assert_eq!(penalised(&params, &[0, 1, 2], &[0.0; 4]), [0.0, -1.0, -1.0, 0.0]);
        assert_eq!(penalised(&params, &[0, 0, 0, 3], &[0.0; 4]), [-1.0, 0.0, 0.0, -1.0]);
        assert_eq!(penalised(&params, &[99, 1], &[0.0; 4]), [0.0, -1.0, 0.0, 0.0]);
    }

    #[test]
    fn neutral_parameters_switch_it_off() {
        let params = SamplingParams { repeat_penalty: 1.5, repeat_last_n: 0, ..SamplingParams::default() };
        for params in [SamplingParams::default(), params] {
            assert!(build(&Setup { params: &params, vocab_size: 4, context: 8, seed: 0 }).is_none(), "{params:?}");
        }
    }
}
