//! The tokens that may come next, narrowed down by the samplers one after another.
//!
//! One buffer of `vocab_size` entries serves a whole generation. Order is established only as far as somebody asks for
//! it: picking 40 of 128,000 candidates never sorts the rest. Probabilities are not stored; the two samplers that need
//! them compute them from the logits.

use std::cmp::Ordering;

use crate::Error;

/// A token and its unnormalised log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Logit, changed by penalties and temperature.
    pub logit: f32,
}

/// The candidates for the next token and, in the end, the one chosen.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    entries: Vec<Candidate>,
    /// Entries `0..ordered` are the largest of all and stand in descending order.
    ordered: usize,
    /// Whether entry `i` is token `i`, true until something was removed or moved.
    dense: bool,
    chosen: Option<u32>,
    /// The largest logit of each stretch, and the same again to be reordered.
    maxima: [Vec<f32>; 2],
}

/// Logits of which the largest is found first, so that most stretches are never looked at again.
const STRETCH: usize = 64;

impl Candidates {
    /// Makes an empty set with room for `vocab_size` tokens, so that [`load`](Self::load) does not allocate.
    pub fn with_capacity(vocab_size: usize) -> Self {
        let maxima = [(); 2].map(|()| Vec::with_capacity(vocab_size.div_ceil(STRETCH)));
        Self { entries: Vec::with_capacity(vocab_size), maxima, ..Self::default() }
    }

    /// Replaces everything by one candidate per logit; token ids are the positions in `logits` (`[vocab_size]`).
    ///
    /// # Errors
    /// [`Error::NumericFault`] when a logit is NaN or infinite; the set is empty then.
    pub fn load(&mut self, logits: &[f32]) -> Result<(), Error> {
        self.restart(true);
        // A separate pass, because it vectorises and the common case needs nothing else from it.
        if !logits.iter().fold(true, |finite, x| finite & x.is_finite()) {
            return Err(fault(logits));
        }
        self.entries.extend((0_u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        Ok(())
    }

    /// Replaces everything by the `count` largest logits in descending order, and after these the tokens `also`, each once.
    ///
    /// The same as [`load`](Self::load), [`order`](Self::order) and [`truncate`](Self::truncate) together, without a
    /// candidate for every logit. `also` holds no token twice; ids beyond the vocabulary are left out.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_largest(&mut self, logits: &[f32], count: usize, also: &[u32]) -> Result<(), Error> {
        self.restart(false);
        let [maxima, scratch] = &mut self.maxima;
        maxima.clear();
        if !stretch_maxima(logits, maxima) {
            return Err(fault(logits));
        }
        // As many stretches reach the least of the largest maxima as tokens are wanted, so no less is among these tokens.
        let mut least = f32::NEG_INFINITY;
        if (1..maxima.len()).contains(&count) {
            scratch.clear();
            scratch.extend_from_slice(maxima);
            least = *scratch.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1;
        }
        for ((first, stretch), &largest) in (0_u32..).step_by(STRETCH).zip(logits.chunks(STRETCH)).zip(&*maxima) {
            if largest >= least {
                let found = (first..).zip(stretch).filter(|&(_, &logit)| logit >= least);
                self.entries.extend(found.map(|(id, &logit)| Candidate { id, logit }));
            }
        }
        self.order(count);
        self.truncate(count);
        let last = self.entries.last().copied();
        let known = |new: &Candidate| last.is_some_and(|last| descending(new, &last) != Ordering::Greater);
        let wanted = also.iter().filter_map(|&id| Some(Candidate { id, logit: *logits.get(id as usize)? }));
        self.entries.extend(wanted.filter(|new| !known(new)));
        Ok(())
    }

    fn restart(&mut self, dense: bool) {
        self.entries.clear();
        self.ordered = 0;
        self.dense = dense;
        self.chosen = None;
    }

    /// Returns the remaining candidates; only the first [`ordered`](Self::ordered) stand in descending order.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.entries
    }

    /// Returns how many leading entries are known to be the largest, in descending order.
    pub fn ordered(&self) -> usize {
        self.ordered
    }

    /// Returns the largest logit, or `None` when nothing is left.
    pub fn max_logit(&self) -> Option<f32> {
        match self.ordered {
            0 => self.entries.iter().map(|c| c.logit).reduce(f32::max),
            _ => self.entries.first().map(|c| c.logit),
        }
    }

    /// Changes the logit of one token, if it is still a candidate; the order is forgotten.
    pub fn update(&mut self, id: u32, change: impl FnOnce(f32) -> f32) {
        let found = match self.dense {
            true => self.entries.get_mut(id as usize),
            false => self.entries.iter_mut().find(|c| c.id == id),
        };
        if let Some(candidate) = found {
            candidate.logit = change(candidate.logit);
            self.ordered = 0;
        }
    }

    /// Multiplies every logit's distance to the largest by a positive factor, which keeps the order.
    ///
    /// The largest becomes 0, so that no factor, however large, makes it overflow.
    pub fn scale(&mut self, factor: f32) {
        let Some(max) = self.max_logit() else { return };
        for candidate in &mut self.entries {
            candidate.logit = (candidate.logit - max) * factor;
        }
    }

    /// Brings the `count` largest candidates to the front in descending order (equal logits: smaller id first).
    ///
    /// Linear in the number of candidates plus `count · log(count)`.
    pub fn order(&mut self, count: usize) {
        let count = count.min(self.entries.len());
        if count <= self.ordered {
            return;
        }
        let rest = &mut self.entries[self.ordered..];
        let wanted = count - self.ordered;
        if wanted < rest.len() {
            rest.select_nth_unstable_by(wanted - 1, descending);
        }
        rest[..wanted].sort_unstable_by(descending);
        self.ordered = count;
        self.dense = false;
    }

    /// Keeps the first `count` candidates; call [`order`](Self::order) first for these to be the largest.
    pub fn truncate(&mut self, count: usize) {
        if count < self.entries.len() {
            self.entries.truncate(count);
            self.dense = false;
        }
        self.ordered = self.ordered.min(self.entries.len());
    }

    /// Keeps the candidates whose logit is at least `threshold`.
    pub fn retain_from(&mut self, threshold: f32) {
        let before = self.entries.len();
        self.entries.retain(|c| c.logit >= threshold);
        self.dense &= before == self.entries.len();
        // Only smaller ones were removed, so what was in order at the front still is.
        self.ordered = self.ordered.min(self.entries.len());
    }

    /// Names the token that comes next.
    pub fn choose(&mut self, id: u32) {
        self.chosen = Some(id);
    }

    /// Returns the token chosen by the last sampler of a chain.
    pub fn chosen(&self) -> Option<u32> {
        self.chosen
    }
}

/// Adds the largest of every [`STRETCH`] logits to `maxima`; returns whether all are finite.
fn stretch_maxima(logits: &[f32], maxima: &mut Vec<f32>) -> bool {
    const LANES: usize = 4;
    let (stretches, rest) = logits.as_chunks::<STRETCH>();
    // Plain comparisons in lanes become vector instructions; products with 0 are NaN for what is not finite.
    let mut faults = [0.0_f32; LANES];
    for stretch in stretches {
        let mut best = [f32::NEG_INFINITY; LANES];
        for four in stretch.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                best[lane] = if four[lane] > best[lane] { four[lane] } else { best[lane] };
                faults[lane] += four[lane] * 0.0;
            }
        }
        maxima.push(best.into_iter().fold(f32::NEG_INFINITY, f32::max));
    }
    if !rest.is_empty() {
        maxima.push(rest.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
    faults.iter().all(|fault| *fault == 0.0) && rest.iter().all(|x| x.is_finite())
}

/// The first logit that is not finite.
fn fault(logits: &[f32]) -> Error {
    let found = (0_u32..).zip(logits).find(|(_, x)| !x.is_finite());
    let (id, value) = found.map_or((0, f32::NAN), |(id, &value)| (id, value));
    Error::NumericFault { id, value }
}

fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(logits: &[f32]) -> Candidates {
        let mut candidates = Candidates::with_capacity(logits.len());
        candidates.load(logits).expect("finite");
        candidates
    }

    fn ids(candidates: &Candidates) -> Vec<u32> {
        candidates.as_slice().iter().map(|c| c.id).collect()
    }

    #[test]
    fn ordering_in_steps_equals_a_full_sort() {
        // A permutation of 0..1009 with every logit twice, so that ties are met.
        let logits: Vec<f32> = (0..1009_u32).map(|i| (i * 577 % 1009 / 2) as f32).collect();
        let mut expected: Vec<u32> = (0..1009).collect();
        expected.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        let mut candidates = loaded(&logits);
        for count in [1, 2, 40, 39, 500, 1009, 5000] {
            candidates.order(count);
            let count = count.min(1009);
            assert_eq!(ids(&candidates)[..count], expected[..count], "first {count}");
        }
    }

    #[test]
    fn faults_name_the_first_bad_logit() {
        let mut candidates = Candidates::default();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            match candidates.load(&[0.0, bad, 1.0]) {
                Err(Error::NumericFault { id: 1, value }) => assert_eq!(value.to_bits(), bad.to_bits()),
                other => panic!("{bad} gave {other:?}"),
            }
            let logits = |at: usize| (0..200).map(|i| if i == at { bad } else { 0.5 }).collect::<Vec<_>>();
            for at in [0, 130, 199] {
                let found = candidates.load_largest(&logits(at), 3, &[]);
                assert!(matches!(found, Err(Error::NumericFault { id, .. }) if id as usize == at), "{bad} at {at}");
            }
            assert!(candidates.as_slice().is_empty());
        }
    }

    #[test]
    fn loading_the_largest_is_loading_all_and_cutting() {
        let mut rng = crate::Rng::new(4);
        for length in [0, 1, 63, 64, 65, 1000, 1009] {
            // A few values only, so that ties stand at every cut; and one large logit in every stretch, so that the bound
            // lets through no more than is wanted.
            let ties: Vec<f32> = (0..length).map(|_| (rng.unit() * 40.0).floor() as f32 - 30.0).collect();
            let peaks = (0..length).map(|i| if i % STRETCH == 5 { i as f32 } else { -(i as f32) }).collect();
            for (logits, count) in [ties, peaks].iter().flat_map(|l| [0, 1, 2, 7, 16, 40, 999, 5000].map(|c| (l, c))) {
                let mut expected = loaded(logits);
                expected.order(count);
                expected.truncate(count);
                let mut found = Candidates::default();
                found.load_largest(logits, count, &[]).expect("finite");
                assert_eq!(found.as_slice(), expected.as_slice(), "{count} of {length}");
                assert_eq!(found.ordered(), expected.ordered(), "{count} of {length}");
                let also = [0, 5, 64, 2000];
                found.load_largest(logits, count, &also).expect("finite");
                let (front, rest) = found.as_slice().split_at(expected.as_slice().len());
                assert_eq!(front, expected.as_slice(), "{count} of {length}");
                let missing: Vec<u32> =
                    also.into_iter().filter(|&id| (id as usize) < length && !ids(&expected).contains(&id)).collect();
                assert_eq!(rest.iter().map(|c| c.id).collect::<Vec<_>>(), missing, "{count} of {length}");
            }
        }
    }

    #[test]
    fn removal_keeps_the_order_at_the_front() {
        let mut candidates = loaded(&[1.0, 5.0, 3.0, 4.0, 2.0]);
        candidates.order(2);
        candidates.retain_from(3.0);
        assert_eq!((ids(&candidates)[..2].to_vec(), candidates.ordered()), (vec![1, 3], 2));
        candidates.update(3, |x| x + 9.0);
        assert_eq!((candidates.ordered(), candidates.max_logit()), (0, Some(13.0)));
    }
}
