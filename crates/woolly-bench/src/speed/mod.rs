//! How many tokens a second a model computes: prompts, generation, both, at any depth of context.
//!
//! As llama-bench: ids are random, so that neither tokenizer nor sampling is part of it; a warm-up run comes first; what
//! stands in the cache at `depth` is computed before the clock starts.

mod batched;
mod case;
mod cost;
mod engine;
mod row;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::{Ceiling, Error, Machine, Opponent, Rival, Source};

pub use batched::{BatchedOptions, BatchedRow};
pub use case::{Case, Grid};
pub use cost::{Costs, Work};
pub use engine::{Engine, Test};
pub use row::{ModelInfo, Row};

/// What to measure, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// The models, one after another.
    pub models: Vec<Source>,
    /// What is measured of each.
    pub cases: Vec<Case>,
    /// Samples of each row.
    pub repetitions: usize,
    /// Whether each row, and each turn after another engine's, begins with a run that is not timed.
    pub warm_up: bool,
    /// Pause before each row, for processors that heat up.
    pub delay: Duration,
    /// Another engine, to be run in turn with every repetition.
    pub rival: Option<Arc<dyn Opponent>>,
}

impl Options {
    /// Returns the numbers of threads that occur, each once.
    pub fn threads(&self) -> Vec<usize> {
        let mut threads: Vec<usize> = self.cases.iter().map(|case| case.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// Measures everything and hands each row to `on_row` as soon as it is complete; what that returns as an error ends
    /// the run.
    ///
    /// `ceilings` are those of [`threads`](Self::threads), measured just before; of a number of threads that is missing,
    /// rows have no shares.
    ///
    /// # Errors
    /// When a model cannot be loaded, a context is longer than a model allows, or memory is short.
    pub fn run<E: From<Error>>(
        &self,
        machine: &Machine,
        ceilings: &[Ceiling],
        mut on_row: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let context = self.cases.iter().map(Case::context).max().unwrap_or(0);
        for source in &self.models {
            let file = self.file_for_rival(source, context)?;
            let source = file.as_ref().map_or(source, |(_, source)| source);
            let loader = source.open(context)?;
            let model = ModelInfo::of(&loader, source.name());
            let mut loaded: Option<Engine> = None;
            for case in &self.cases {
                std::thread::sleep(self.delay);
                let engine = match loaded.take() {
                    Some(engine) if engine.threads() == case.threads => engine,
                    _ => Engine::load_at(&loader, case.threads, machine.level)?,
                };
                let ceiling = ceilings.iter().find(|ceiling| ceiling.threads == case.threads).cloned();
                let started = SystemTime::now();
                let (samples, rival) = self.measure(&engine, source, case)?;
                let work = engine.costs(&loader, case)?.work(case);
                let (case, model, machine) = (*case, model.clone(), machine.clone());
                on_row(Row { case, model, machine, ceiling, samples, work, started, rival })?;
                loaded = Some(engine);
            }
        }
        Ok(())
    }

    /// Runs a case, each repetition followed by one of the other engine if there is one.
    fn measure(&self, engine: &Engine, source: &Source, case: &Case) -> Result<(Vec<Duration>, Option<Rival>), Error> {
        let mut test = engine.test(case)?;
        test.fill_depth()?;
        if self.warm_up {
            test.warm_up()?;
        }
        let repetitions = self.repetitions.max(1);
        let mut samples = Vec::with_capacity(repetitions);
        let Some((opponent, path)) = self.rival.as_ref().zip(source.path()) else {
            (0..repetitions).try_for_each(|_| test.sample().map(|sample| samples.push(sample)))?;
            return Ok((samples, None));
        };
        let mut rival = Rival::default();
        opponent.prepare(path, case, self.warm_up, &mut |trial| {
            let at_once = if trial.in_turn() { 1 } else { repetitions };
            for first in (0..repetitions).step_by(at_once) {
                // The other engine warms up at each of its turns, which take long enough for ours to get cold.
                if self.warm_up && first > 0 {
                    test.warm_up()?;
                }
                (0..at_once).try_for_each(|_| test.sample().map(|sample| samples.push(sample)))?;
                let theirs = trial.measure(at_once)?;
                rival.engine = theirs.engine;
                rival.samples.extend(theirs.samples);
            }
            Ok(())
        })?;
        Ok((samples, Some(rival)))
    }

    /// Another program needs a file, even of a model that is made in memory; it lies in the folder that lives as long.
    fn file_for_rival(&self, source: &Source, context: usize) -> Result<Option<(TempDir, Source)>, Error> {
        match (source, &self.rival) {
            (Source::Synthetic(synthetic), Some(_)) => {
                let (folder, path) = synthetic.write_temporary(context)?;
                Ok(Some((folder, Source::File(path))))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Shape, Synthetic};
    use woolly_cpu::ceiling::{Bandwidth, Unit};
    use woolly_cpu::isa::Level;
    use woolly_model::mix::Mix;

    /// 32 tokens at 40 and 50 a second, on a machine of round numbers.
    pub(crate) fn row() -> Row {
        let grid = Grid { prompts: vec![], generations: vec![32], threads: vec![2], ..Grid::default() };
        Row {
            case: grid.cases().swap_remove(0),
            model: ModelInfo::synthetic_for_tests(),
            machine: Machine { cpu: "Processor".to_owned(), level: Level::Avx512, caches: vec![48 << 10, 2 << 20] },
            ceiling: Some(Ceiling {
                threads: 2,
                read: Some(Bandwidth { best: 30e9, mean: 28e9 }),
                units: vec![(Unit::AmxBf16, 2e12)],
            }),
            samples: vec![Duration::from_millis(800), Duration::from_millis(640)],
            work: Work { bytes: 0.72 * 30e9, operations: 0.72 * 1e11 },
            rival: None,
            started: std::time::UNIX_EPOCH + Duration::from_secs(1_795_539_917),
        }
    }

    #[test]
    fn shares_are_of_the_median_repetition() {
        let row = row();
        assert_eq!((row.bandwidth(), row.bandwidth_share()), (30e9, Some(1.0)));
        assert_eq!(row.operations_share(), Some((Unit::AmxBf16, 0.05)));
        assert_eq!(row.rates(), [40.0, 50.0]);
        assert_eq!(row.time(), "2026-11-24T17:05:17Z");
        let unknown = Row { ceiling: None, ..row };
        assert_eq!((unknown.bandwidth_share(), unknown.operations_share()), (None, None));
    }

    #[test]
    fn a_run_gives_every_row_with_its_samples_and_stops_when_told_to() {
        let model = Source::Synthetic(Synthetic { shape: Shape::tiny(), mix: Mix::Q4_K_M });
        let grid = Grid { prompts: vec![8], generations: vec![2], threads: vec![1, 2], ..Grid::default() };
        let options = Options {
            models: vec![model],
            cases: grid.cases(),
            repetitions: 3,
            warm_up: true,
            delay: Duration::ZERO,
            rival: None,
        };
        let machine = Machine::detect().expect("a machine");
        let mut names = Vec::new();
        let done = options.run(&machine, &[], |row| {
            assert_eq!(row.samples.len(), 3);
            assert!(row.work.bytes > 0.0 && row.work.operations > 0.0);
            names.push(format!("{} t{}", row.case, row.case.threads));
            Ok::<_, Error>(())
        });
        assert!(done.is_ok());
        assert_eq!(names, ["pp8 t1", "tg2 t1", "pp8 t2", "tg2 t2"]);
        let mut rows = 0;
        let stopped = options.run(&machine, &[], |_| {
            rows += 1;
            Err(Error::Parameter("enough".to_owned()))
        });
        assert!(stopped.is_err() && rows == 1);
    }
}
