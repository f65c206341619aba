//! Samplers: each narrows or reweighs the candidates, the last one chooses.
//!
//! A sampler is one file here and one word in the list below, whose order is the order of application and is
//! llama.cpp's: penalties, top-k, top-p, min-p, temperature, choice. Samplers see token ids and logits, never text.

use std::fmt;

use crate::{Candidates, Error, Rng, SamplingParams};

/// One step on the way from logits to a token.
pub trait Sampler: Send {
    /// Narrows, reweighs or chooses; must not allocate.
    fn apply(&mut self, candidates: &mut Candidates);

    /// Learns that `id` now is part of the sequence: each prompt token, then each generated one; must not allocate.
    fn accept(&mut self, _id: u32) {}

    /// Returns the tokens, each once, whose logits [`apply`](Self::apply) changes one by one before all others are cut off.
    fn touched(&self) -> &[u32] {
        &[]
    }
}

/// What samplers are built from.
pub(crate) struct Setup<'a> {
    pub(crate) params: &'a SamplingParams,
    pub(crate) vocab_size: usize,
    /// Most tokens a sequence can have.
    pub(crate) context: usize,
    pub(crate) seed: u64,
}

/// A row of the list: `build` returns `None` where the parameters switch the sampler off.
struct Entry {
    name: &'static str,
    build: fn(&Setup<'_>) -> Option<Box<dyn Sampler>>,
}

macro_rules! samplers {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*
        const SAMPLERS: &[Entry] = &[$(Entry { name: stringify!($name), build: $name::build }),*];
    };
}

samplers! { penalties, top_k, top_p, min_p, temperature, greedy, dist }

/// The samplers that a set of parameters asks for, in order.
pub struct SamplerChain {
    /// In order of application, each with its name in the list.
    samplers: Vec<(&'static str, Box<dyn Sampler>)>,
    seed: u64,
    /// Whether the choice is the likeliest token whatever else is in the chain, so that one look at the logits suffices.
    likeliest: bool,
    /// The number of tokens that are left by the first sampler that looks at more than [`Sampler::touched`], if it cuts.
    largest: Option<usize>,
}

/// More changed logits than this make a candidate for every token the shorter way.
const MANY_TOUCHED: usize = 256;

/// Samplers that never remove the likeliest token nor make another one likelier.
const KEEP_THE_LIKELIEST: [&str; 4] = ["top_k", "top_p", "min_p", "greedy"];

impl SamplerChain {
    /// Builds the chain for sequences of up to `context` tokens from a vocabulary of `vocab_size`.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a field out of its range.
    pub fn new(params: &SamplingParams, vocab_size: usize, context: usize) -> Result<Self, Error> {
        params.validate()?;
        let seed = params.seed.unwrap_or_else(Rng::random_seed);
        let setup = Setup { params, vocab_size, context, seed };
        let built = SAMPLERS.iter().filter_map(|entry| Some((entry.name, (entry.build)(&setup)?)));
        let samplers: Vec<(&'static str, Box<dyn Sampler>)> = built.collect();
        let likeliest = samplers.iter().all(|(name, _)| KEEP_THE_LIKELIEST.contains(name))
            && samplers.last().is_some_and(|(name, _)| *name == "greedy");
        let first = samplers.iter().map(|(name, _)| *name).find(|name| *name != "penalties");
        let largest = (first == Some("top_k")).then_some(params.top_k);
        Ok(Self { samplers, seed, likeliest, largest })
    }

    /// Returns the seed in use, so that a run with a random one can be repeated.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses the next token from `logits` (`[vocab_size]`); does not [`accept`](Self::accept) what it chose.
    ///
    /// `candidates` is a buffer that any number of chains may share; with room for the vocabulary, nothing is allocated.
    ///
    /// # Errors
    /// [`Error::NumericFault`] when a logit is not finite.
    pub fn sample(&mut self, logits: &[f32], candidates: &mut Candidates) -> Result<u32, Error> {
        if self.likeliest {
            return greedy::likeliest(logits);
        }
        let touched = self.samplers.first().map_or(&[][..], |(_, sampler)| sampler.touched());
        match self.largest {
            // What is cut to after the changes was, before them, among so many more or is one of the changed.
            Some(count) if touched.len() <= MANY_TOUCHED => {
                candidates.load_largest(logits, count + touched.len(), touched)?;
            }
            _ => candidates.load(logits)?,
        }
        self.choose(candidates)
    }

    /// Applies every sampler in turn.
    fn choose(&mut self, candidates: &mut Candidates) -> Result<u32, Error> {
        for (_, sampler) in &mut self.samplers {
            sampler.apply(candidates);
        }
        candidates.chosen().ok_or(Error::NoCandidates)
    }

    /// Tells the samplers that `id` now is part of the sequence.
    pub fn accept(&mut self, id: u32) {
        for (_, sampler) in &mut self.samplers {
            sampler.accept(id);
        }
    }
}

impl fmt::Debug for SamplerChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.samplers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("SamplerChain").field("samplers", &names).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Returns `Σ exp(logit − max)`: the divisor that turns `exp(logit − max)` into a probability.
fn partition(candidates: &Candidates, max: f32) -> f64 {
    candidates.as_slice().iter().map(|c| weight(c.logit, max)).sum()
}

/// Returns `exp(logit − max)`, the unnormalised probability.
fn weight(logit: f32, max: f32) -> f64 {
    f64::from((logit - max).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 1000;

    /// Logits with a clear head, a long tail and no ties.
    fn logits() -> Vec<f32> {
        (0..VOCAB as u32).map(|i| 6.0 - (f64::from(i * 389 % 1000).sqrt() * 0.5) as f32).collect()
    }

    /// Parameters with which every sampler of the list but one of greedy and dist is on.
    fn everything(temperature: f32) -> SamplingParams {
        let penalties = SamplingParams { repeat_penalty: 1.2, presence_penalty: 0.1, ..SamplingParams::default() };
        SamplingParams { temperature, top_k: 50, top_p: 0.9, min_p: 0.1, seed: Some(3), ..penalties }
    }

    fn build(entry: &Entry, seed: u64) -> Option<Box<dyn Sampler>> {
        let temperature = if entry.name == "greedy" { 0.0 } else { 0.7 };
        let params = everything(temperature);
        (entry.build)(&Setup { params: &params, vocab_size: VOCAB, context: 128, seed })
    }

    #[test]
    fn every_sampler_keeps_real_candidates_in_a_true_order() {
        for entry in SAMPLERS {
            let mut sampler = build(entry, 1).unwrap_or_else(|| panic!("{} is off", entry.name));
            for id in [5, 9, 5] {
                sampler.accept(id);
            }
            let mut candidates = Candidates::default();
            candidates.load(&logits()).expect("finite");
            sampler.apply(&mut candidates);
            let kept = candidates.as_slice();
            let mass: f64 = kept.iter().map(|c| weight(c.logit, 6.0)).sum();
            assert!(!kept.is_empty() && mass.is_finite() && mass > 0.0, "{}: mass {mass}", entry.name);
            let mut ids: Vec<u32> = kept.iter().map(|c| c.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert!(ids.len() == kept.len() && ids.iter().all(|&id| (id as usize) < VOCAB), "{}", entry.name);
            let (front, rest) = kept.split_at(candidates.ordered());
            assert!(front.is_sorted_by(|a, b| a.logit >= b.logit), "{}: not in order", entry.name);
            let least = front.last().map_or(f32::INFINITY, |c| c.logit);
            assert!(rest.iter().all(|c| c.logit <= least), "{}: a larger one outside the front", entry.name);
        }
    }

    #[test]
    fn every_sampler_repeats_itself_for_a_seed() {
        for entry in SAMPLERS {
            let run = || {
                let mut sampler = build(entry, 42).unwrap_or_else(|| panic!("{} is off", entry.name));
                let mut candidates = Candidates::default();
                let mut seen = Vec::new();
                for round in 0..20 {
                    candidates.load(&logits()).expect("finite");
                    sampler.apply(&mut candidates);
                    sampler.accept(candidates.chosen().unwrap_or(round));
                    seen.push((candidates.as_slice().to_vec(), candidates.chosen()));
                }
                seen
            };
            assert_eq!(run(), run(), "{}", entry.name);
        }
    }

    #[test]
    fn every_sampler_survives_a_single_candidate_and_equal_ones() {
        for entry in SAMPLERS {
            for logits in [vec![0.0], vec![-3.5; 7], vec![f32::MAX, f32::MIN]] {
                let mut sampler = build(entry, 1).unwrap_or_else(|| panic!("{} is off", entry.name));
                let mut candidates = Candidates::default();
                candidates.load(&logits).expect("finite");
                sampler.apply(&mut candidates);
                assert!(!candidates.as_slice().is_empty(), "{} on {logits:?}", entry.name);
            }
        }
    }

    #[test]
    fn chains_always_choose_and_greedy_takes_the_maximum() {
        let logits = logits();
        let mut buffer = Candidates::default();
        let best = (0..VOCAB as u32).max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]));
        let mut greedy = SamplerChain::new(&SamplingParams::greedy(), VOCAB, 64).expect("valid");
        assert_eq!(greedy.sample(&logits, &mut buffer).ok(), best);
        let mut drawn = SamplerChain::new(&everything(1.5), VOCAB, 64).expect("valid");
        let ids: Vec<u32> = (0..50).map(|_| drawn.sample(&logits, &mut buffer).expect("chosen")).collect();
        assert!(ids.iter().any(|&id| Some(id) != best), "50 draws at temperature 1.5 never left the maximum");
    }

    #[test]
    fn the_short_way_of_greedy_chooses_and_refuses_as_the_general_one() {
        let mut chain = SamplerChain::new(&SamplingParams::greedy(), VOCAB, 64).expect("valid");
        assert!(chain.likeliest && !SamplerChain::new(&everything(0.0), VOCAB, 64).expect("valid").likeliest);
        let mut rng = Rng::new(8);
        let mut buffer = Candidates::default();
        for round in 0..500 {
            // Few values, so that the largest usually occurs more than once.
            let length = 1 + round % 67;
            let mut logits: Vec<f32> = (0..length).map(|_| (rng.unit() * 9.0).floor() as f32 - 6.0).collect();
            match round % 10 {
                0 => logits[length / 2] = f32::NAN,
                1 => logits[length - 1] = f32::INFINITY,
                2 => logits.fill(f32::MIN),
                _ => {}
            }
            let (short, general) = (chain.sample(&logits, &mut buffer), sample_all(&mut chain, &logits));
            assert_eq!(format!("{short:?}"), format!("{general:?}"), "{logits:?}");
        }
    }

    /// The general way: every sampler sees a candidate for every token.
    fn sample_all(chain: &mut SamplerChain, logits: &[f32]) -> Result<u32, Error> {
        let mut candidates = Candidates::default();
        candidates.load(logits)?;
        chain.choose(&mut candidates)
    }

    #[test]
    fn the_short_way_of_top_k_draws_what_the_general_one_draws() {
        // Penalties that push tokens down and ones that pull them up; a window that is short, and one beyond the limit.
        for (repeat_penalty, presence_penalty) in [(1.0, 0.0), (1.3, 0.0), (0.5, -9.0), (1.0, 3.0)] {
            for repeat_last_n in [8, 64, 600] {
                let params = SamplingParams { repeat_penalty, presence_penalty, repeat_last_n, ..everything(1.0) };
                let params = SamplingParams { top_k: 5, top_p: 1.0, min_p: 0.0, ..params };
                let [mut short, mut general] =
                    [(); 2].map(|()| SamplerChain::new(&params, VOCAB, 1000).expect("valid"));
                assert_eq!(short.largest, Some(5));
                let (mut rng, mut buffer) = (Rng::new(9), Candidates::with_capacity(VOCAB));
                for round in 0..700 {
                    let logits: Vec<f32> = (0..VOCAB).map(|_| (rng.unit() * 30.0).floor() as f32 - 15.0).collect();
                    let drawn = short.sample(&logits, &mut buffer).expect("chosen");
                    assert_eq!(drawn, sample_all(&mut general, &logits).expect("chosen"), "{params:?} round {round}");
                    // A token of every kind comes into the window.
                    for id in [drawn, (rng.unit() * VOCAB as f64) as u32] {
                        short.accept(id);
                        general.accept(id);
                    }
                }
            }
        }
    }

    #[test]
    fn seeds_decide_the_draws() {
        let draws = |seed| {
            let params = SamplingParams { seed: Some(seed), temperature: 1.0, ..SamplingParams::default() };
            let mut chain = SamplerChain::new(&params, VOCAB, 64).expect("valid");
            assert_eq!(chain.seed(), seed);
            let mut buffer = Candidates::default();
            (0..40).map(|_| chain.sample(&logits(), &mut buffer).expect("chosen")).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
