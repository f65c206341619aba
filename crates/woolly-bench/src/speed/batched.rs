//! Many sequences side by side, as llama-batched-bench measures them and with its columns.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, Engine};
use crate::{Error, Source};

/// What is measured: every combination of the three lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchedOptions {
    /// Tokens of each prompt; at least 1.
    pub prompts: Vec<usize>,
    /// Tokens generated for each.
    pub generations: Vec<usize>,
    /// Numbers of sequences.
    pub sequences: Vec<usize>,
    /// Everything else; lengths and numbers of it do not count.
    pub base: Case,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BatchedRow {
    /// What was measured.
    pub case: Case,
    /// Time of all prompts.
    pub prompt_time: Duration,
    /// Time of all generated tokens.
    pub generation_time: Duration,
}

impl BatchedOptions {
    /// Measures all rows of a model, after one run that is not timed, and hands each to `on_row`.
    ///
    /// # Errors
    /// When the model cannot be loaded, a context is longer than its own, or memory is short.
    pub fn run<E: From<Error>>(
        &self,
        source: &Source,
        mut on_row: impl FnMut(BatchedRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let cases = self.cases();
        let context = cases.iter().map(Case::context).max().unwrap_or(0);
        let loader = source.open(context)?;
        let engine = Engine::load(&loader, self.base.threads)?;
        for case in cases {
            let mut test = engine.test(&case)?;
            test.warm_up()?;
            let [prompt_time, generation_time] = test.sample_batched()?;
            on_row(BatchedRow { case, prompt_time, generation_time })?;
        }
        Ok(())
    }

    /// Combines the lists in llama-batched-bench's order: numbers of sequences vary fastest.
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &prompt in &self.prompts {
            for &generate in &self.generations {
                let case =
                    |&sequences: &usize| Case { prompt: prompt.max(1), generate, depth: 0, sequences, ..self.base };
                cases.extend(self.sequences.iter().map(case));
            }
        }
        cases
    }
}

impl BatchedRow {
    /// Returns the head of a table of rows.
    pub fn table_head() -> &'static str {
        "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |\n\
         |-------|--------|------|--------|----------|----------|----------|----------|----------|----------|\n"
    }

    /// Returns tokens per second of prompts, of generation, and of both together.
    pub fn rates(&self) -> [f64; 3] {
        let Case { prompt, generate, sequences, .. } = self.case;
        let rate = |tokens: usize, time: Duration| {
            if time.is_zero() { 0.0 } else { (tokens * sequences) as f64 / time.as_secs_f64() }
        };
        let both = self.prompt_time + self.generation_time;
        [rate(prompt, self.prompt_time), rate(generate, self.generation_time), rate(prompt + generate, both)]
    }

    /// Returns the row with llama-batched-bench's field names.
    pub fn json(&self) -> Value {
        let [speed_pp, speed_tg, speed] = self.rates();
        let (t_pp, t_tg) = (self.prompt_time.as_secs_f64(), self.generation_time.as_secs_f64());
        json!({
            "n_threads": self.case.threads,
            "pp": self.case.prompt,
            "tg": self.case.generate,
            "pl": self.case.sequences,
            "n_kv": self.case.tokens(),
            "t_pp": t_pp,
            "speed_pp": speed_pp,
            "t_tg": t_tg,
            "speed_tg": speed_tg,
            "t": t_pp + t_tg,
            "speed": speed,
        })
    }
}

/// A row of a table under [`BatchedRow::table_head`].
impl fmt::Display for BatchedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { prompt, generate, sequences, .. } = self.case;
        let [pp, tg, all] = self.rates();
        let (t_pp, t_tg) = (self.prompt_time.as_secs_f64(), self.generation_time.as_secs_f64());
        write!(f, "|{prompt:6} | {generate:6} | {sequences:4} | {:6} ", self.case.tokens())?;
        write!(f, "| {t_pp:8.3} | {pp:8.2} | {t_tg:8.3} | {tg:8.2} | {:8.3} | {all:8.2} |", t_pp + t_tg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::Grid;
    use crate::{Shape, Synthetic};
    use woolly_model::mix::Mix;

    #[test]
    fn rows_have_the_counts_and_rates_of_llama_batched_bench() {
        let base = Grid { threads: vec![1], micro_batches: vec![24], ..Grid::default() }.cases().swap_remove(0);
        let (prompts, generations, sequences) = (vec![10, 20], vec![3], vec![1, 5]);
        let options = BatchedOptions { prompts, generations, sequences, base };
        let source = Source::Synthetic(Synthetic { shape: Shape::tiny(), mix: Mix::Q4_0 });
        let mut rows = Vec::new();
        let done = options.run(&source, |row| {
            rows.push(row);
            Ok::<_, Error>(())
        });
        assert!(done.is_ok());
        let counts: Vec<_> = rows.iter().map(|row| (row.case.prompt, row.case.sequences, row.case.tokens())).collect();
        assert_eq!(counts, [(10, 1, 13), (10, 5, 65), (20, 1, 23), (20, 5, 115)]);
        let times = [Duration::from_secs(2), Duration::from_secs(1)];
        let row = BatchedRow { prompt_time: times[0], generation_time: times[1], ..rows[3] };
        assert_eq!(row.rates(), [50.0, 15.0, 115.0 / 3.0]);
        assert_eq!(
            row.to_string().matches('|').count(),
            BatchedRow::table_head().lines().next().unwrap_or("").matches('|').count()
        );
    }
}
