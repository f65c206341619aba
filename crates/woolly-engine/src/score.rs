//! Logits of given ids, and how likely a model finds them: the measurement behind perplexity.

use std::ops::Range;

use crate::{CancelToken, Error, Generator};

impl Generator {
    /// Computes `−ln p(ids[i] | ids[..i])` for every `i` in `first..ids.len()` and appends them to `out`.
    ///
    /// Returns `false`, with what was computed so far, when cancelled. The cache is emptied first, so that equal ids
    /// give equal numbers whatever came before.
    ///
    /// # Errors
    /// [`Error::Parameter`] when `first` is 0, which has nothing before it; [`Error::PromptTooLong`] and the like for
    /// the ids; [`Error::NumericFault`].
    pub fn score(
        &mut self,
        ids: &[u32],
        first: usize,
        cancel: &CancelToken,
        out: &mut Vec<f64>,
    ) -> Result<bool, Error> {
        if first == 0 {
            return Err(Error::Parameter { name: "first", value: "0".to_owned(), allowed: "at least 1" });
        }
        // The row of token `i − 1` predicts token `i`; the last token predicts nothing that is asked for.
        let mut walk = self.walk(ids, first - 1..ids.len().saturating_sub(1))?;
        while !cancel.is_cancelled() {
            let Some(rows) = walk.advance()? else { return Ok(true) };
            for (row, &target) in rows.logits.chunks_exact(rows.columns).zip(&ids[rows.first + 1..]) {
                out.push(surprise(row, target)?);
            }
        }
        Ok(false)
    }

    /// Begins to compute `ids` from the first to row `rows.end`, with the logits of `rows` (counted from the first id);
    /// [`Walk::advance`] goes on. The cache is emptied before and after.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`] and [`Error::UnknownToken`] for the ids.
    pub fn walk(&mut self, ids: &[u32], rows: Range<usize>) -> Result<Walk<'_>, Error> {
        self.check_prompt(ids)?;
        self.clear();
        self.restart(ids);
        let step = self.max_rows().min(self.max_outputs());
        let outputs = (0_u32..).take(step).collect();
        Ok(Walk { generator: self, rows: rows.start..rows.end.min(ids.len()), outputs })
    }
}

/// Known ids on their way through a model.
pub struct Walk<'a> {
    generator: &'a mut Generator,
    /// Those whose logits are wanted.
    rows: Range<usize>,
    outputs: Vec<u32>,
}

/// Logits of some rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The first of the rows, counted from the first id; row `i` predicts id `i + 1`.
    pub first: usize,
    /// `[rows, columns]`, row-major.
    pub logits: &'a [f32],
    /// The size of the vocabulary.
    pub columns: usize,
}

impl Walk<'_> {
    /// Computes the next of the wanted rows, as many as a step can have; `None` after the last.
    ///
    /// Two walks over as many ids with the same rows wanted and equal sizes of a step return the same rows each time.
    ///
    /// # Errors
    /// [`Error::Model`] when the device fails.
    pub fn advance(&mut self) -> Result<Option<Rows<'_>>, Error> {
        loop {
            let start = self.generator.computed();
            if start >= self.rows.end {
                return Ok(None);
            }
            if start < self.rows.start {
                self.generator.compute((self.rows.start - start).min(self.generator.max_rows()), &[])?;
                continue;
            }
            let rows = (self.rows.end - start).min(self.outputs.len());
            self.generator.compute(rows, &self.outputs[..rows])?;
            let columns = self.generator.vocab_size();
            return Ok(Some(Rows { first: start, logits: &self.generator.logits[..rows * columns], columns }));
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.generator.clear();
    }
}

/// Returns `−ln softmax(logits)[target]`.
fn surprise(logits: &[f32], target: u32) -> Result<f64, Error> {
    let fault = (0_u32..).zip(logits).find(|(_, x)| !x.is_finite());
    if let Some((id, &value)) = fault {
        return Err(Error::NumericFault { id, value });
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let Some(&logit) = logits.get(target as usize) else { return Err(Error::NoCandidates) };
    Ok(sum.ln() - f64::from(logit - max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Counting, PEAK, VOCAB};

    #[test]
    fn scores_are_those_of_the_known_model_however_the_rows_are_cut() {
        let others = (VOCAB - 1) as f64;
        let likely = (1.0 + others * f64::from(-PEAK).exp()).ln();
        let unlikely = f64::from(PEAK) + likely;
        // 20 to 24 count upwards; 40 does not follow 24, but 41 follows 40.
        let ids = [20, 21, 22, 23, 24, 40, 41];
        let expected = [likely, likely, likely, likely, unlikely, likely];
        for (first, max_rows) in [(1, 16), (1, 1), (3, 16), (3, 2), (6, 4)] {
            let mut generator = Generator::new(Box::new(Counting::new(64, max_rows)), 64);
            let mut found = Vec::new();
            assert!(generator.score(&ids, first, &CancelToken::new(), &mut found).expect("scored"));
            assert_eq!(found.len(), ids.len() - first);
            for (found, expected) in found.iter().zip(&expected[first - 1..]) {
                assert!((found - expected).abs() < 1e-6, "first {first}, {max_rows} rows: {found} for {expected}");
            }
        }
    }

    #[test]
    fn faults_cancellation_and_bad_ranges_are_told() {
        let mut decoder = Counting::new(64, 16);
        decoder.fault_at = Some(2);
        let mut generator = Generator::new(Box::new(decoder), 64);
        let mut score = |first, cancel: &CancelToken| generator.score(&[1, 2, 3, 4], first, cancel, &mut Vec::new());
        assert!(matches!(score(1, &CancelToken::new()), Err(Error::NumericFault { id: 1, .. })));
        assert!(matches!(score(0, &CancelToken::new()), Err(Error::Parameter { name: "first", .. })));
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(matches!(score(1, &cancel), Ok(false)));
    }
}
