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
}

impl Candidates {
    /// Makes an empty set with room for `vocab_size` tokens, so that [`load`](Self::load) does not allocate.
    pub fn with_capacity(vocab_size: usize) -> Self {
        Self { entries: Vec::with_capacity(vocab_size), ..Self::default() }
    }

    /// Replaces everything by one candidate per logit; token ids are the positions in `logits` (`[vocab_size]`).
    ///
    /// # Errors
    /// [`Error::NumericFault`] when a logit is NaN or infinite; the set is empty then.
    pub fn load(&mut self, logits: &[f32]) -> Result<(), Error> {
        self.entries.clear();
        self.ordered = 0;
        self.dense = true;
        self.chosen = None;
        // A separate pass, because it vectorises and the common case needs nothing else from it.
        if !logits.iter().fold(true, |finite, x| finite & x.is_finite()) {
            let found = (0_u32..).zip(logits).find(|(_, x)| !x.is_finite());
            let (id, value) = found.map_or((0, f32::NAN), |(id, &value)| (id, value));
            return Err(Error::NumericFault { id, value });
        }
        self.entries.extend((0_u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        Ok(())
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
            assert!(candidates.as_slice().is_empty());
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
