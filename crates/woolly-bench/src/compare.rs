//! The same prompt on the same file by two engines in turn.
//!
//! ```no_run
//! use woolly_bench::compare;
//!
//! # fn main() -> Result<(), woolly_bench::Error> {
//! let results = compare::with_llama_cpp()
//!     .model("llama-7b-q4_k_m.gguf")
//!     .prompt("The quick brown fox")
//!     .iterations(100)
//!     .run()?;
//! println!("  Woolly: {:.1} tok/s", results.woolly.tokens_per_second);
//! println!("  llama.cpp: {:.1} tok/s", results.llama_cpp.tokens_per_second);
//! println!("  Speedup: {:.2}x", results.speedup());
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::speed::{Grid, Options, Row};
use crate::{Error, LlamaBench, Machine, Opponent, Source, Statistics};

/// Tokens generated after the prompt in each iteration.
const GENERATE: usize = 32;

/// Begins a comparison with llama.cpp, whose `llama-bench` is found in the environment variable `LLAMA_BENCH` or on the
/// path, or is named by [`Comparison::llama_bench`].
pub fn with_llama_cpp() -> Comparison {
    Comparison { model: PathBuf::new(), prompt: String::new(), iterations: 5, threads: None, rival: None }
}

/// A comparison to be run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Comparison {
    model: PathBuf,
    prompt: String,
    iterations: usize,
    threads: Option<usize>,
    rival: Option<Arc<dyn Opponent>>,
}

impl Comparison {
    /// Names the model file.
    pub fn model(self, path: impl AsRef<Path>) -> Self {
        Self { model: path.as_ref().to_owned(), ..self }
    }

    /// Sets the prompt. Of it, only the number of its tokens reaches the clocks: speed does not depend on which they are.
    pub fn prompt(self, text: impl Into<String>) -> Self {
        Self { prompt: text.into(), ..self }
    }

    /// Sets how often both engines are timed; the default is 5.
    pub fn iterations(self, count: usize) -> Self {
        Self { iterations: count, ..self }
    }

    /// Sets the number of threads; the default are the physical cores this process may use.
    pub fn threads(self, count: usize) -> Self {
        Self { threads: Some(count), ..self }
    }

    /// Names the `llama-bench` to run.
    pub fn llama_bench(self, program: impl Into<PathBuf>) -> Self {
        self.opponent(Arc::new(LlamaBench::new(program)))
    }

    /// Names the engine to compare with: llama.cpp in this process, say.
    pub fn opponent(self, engine: Arc<dyn Opponent>) -> Self {
        Self { rival: Some(engine), ..self }
    }

    /// Times the prompt, and 32 tokens generated after it, by both engines in turn.
    ///
    /// # Errors
    /// [`Error::NoLlamaCpp`]; [`Error::Parameter`] without iterations or for a prompt without tokens; those of loading
    /// and running the model.
    pub fn run(&self) -> Result<Results, Error> {
        let rival = match &self.rival {
            Some(rival) => rival.clone(),
            None => Arc::new(LlamaBench::find()?),
        };
        let length = self.prompt_tokens()?;
        let threads = vec![self.threads.unwrap_or_else(woolly_cpu::default_threads)];
        let base = Grid { prompts: vec![], generations: vec![], threads, ..Grid::default() };
        let prompt = self.measure(&rival, Grid { prompts: vec![length], ..base.clone() })?;
        let decode = self.measure(&rival, Grid { generations: vec![GENERATE], depths: vec![length], ..base })?;
        Ok(Results::new(&prompt, &decode))
    }

    fn prompt_tokens(&self) -> Result<usize, Error> {
        if self.iterations == 0 {
            return Err(Error::Parameter("a comparison needs at least one iteration".to_owned()));
        }
        let loader = woolly_gguf::GGUFLoader::open(&self.model)?;
        let tokenizer = woolly::Tokenizer::from_metadata(loader.metadata()).map_err(woolly::Error::from)?;
        match tokenizer.encode(&self.prompt, true, false).len() {
            0 => Err(Error::Parameter("the prompt has no tokens; give one with `prompt`".to_owned())),
            length => Ok(length),
        }
    }

    fn measure(&self, rival: &Arc<dyn Opponent>, grid: Grid) -> Result<Row, Error> {
        let options = Options {
            models: vec![Source::File(self.model.clone())],
            cases: grid.cases(),
            repetitions: self.iterations,
            warm_up: true,
            delay: Duration::ZERO,
            rival: Some(rival.clone()),
        };
        let mut rows = Vec::new();
        options.run(&Machine::detect()?, &[], |row| {
            rows.push(row);
            Ok::<_, Error>(())
        })?;
        rows.pop().ok_or_else(|| Error::Parameter("nothing was measured".to_owned()))
    }
}

/// What both engines reached.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Results {
    /// This engine.
    pub woolly: Speed,
    /// llama.cpp.
    pub llama_cpp: Speed,
    /// How many times faster this engine generated, iteration by iteration.
    pub ratios: Statistics,
}

/// The speed of one engine, as medians over the iterations.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Speed {
    /// Tokens generated a second after the prompt.
    pub tokens_per_second: f64,
    /// Tokens of the prompt computed a second.
    pub prompt_tokens_per_second: f64,
}

impl Results {
    fn new(prompt: &Row, decode: &Row) -> Self {
        let own = |row: &Row| row.tokens_per_second().median;
        let theirs = |row: &Row| row.comparison().map_or(f64::NAN, |(rate, _)| rate.median);
        let speed =
            |of: &dyn Fn(&Row) -> f64| Speed { tokens_per_second: of(decode), prompt_tokens_per_second: of(prompt) };
        let ratios = decode.comparison().map_or_else(Statistics::default, |(_, ratios)| ratios);
        Self { woolly: speed(&own), llama_cpp: speed(&theirs), ratios }
    }

    /// Returns how many times faster this engine generates tokens: the median over the iterations.
    pub fn speedup(&self) -> f64 {
        self.ratios.median
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{Shape, Synthetic};
    use std::os::unix::fs::PermissionsExt;
    use woolly_model::mix::Mix;

    #[test]
    fn both_engines_are_timed_and_the_ratio_is_of_generation() {
        let dir = tempfile::tempdir().expect("a folder");
        let (model, program) = (dir.path().join("tiny.gguf"), dir.path().join("llama-bench"));
        let synthetic = Synthetic { shape: Shape::tiny(), mix: Mix::Q8_0 };
        synthetic.write(0, &model).expect("written");
        // An engine that takes a second for anything.
        let row = r#"[{"build_commit": "x", "build_number": 1, "samples_ns": [1000000000, 1000000000]}]"#;
        std::fs::write(&program, format!("#!/bin/sh\necho '{row}'\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let comparison = with_llama_cpp().model(&model).prompt("w1 w2").iterations(2).threads(1).llama_bench(&program);
        let results = comparison.run().expect("both ran");
        assert_eq!(results.llama_cpp.tokens_per_second, 32.0);
        assert!(results.woolly.tokens_per_second > 0.0 && results.woolly.prompt_tokens_per_second > 0.0);
        assert_eq!(results.ratios.count, 2);
        assert!((results.speedup() * 32.0 / results.woolly.tokens_per_second - 1.0).abs() < 0.5);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let absent = with_llama_cpp().llama_bench("/absent").model("/absent.gguf").prompt("x");
        assert!(matches!(absent.run(), Err(Error::Woolly(_))));
        assert!(matches!(absent.iterations(0).run(), Err(Error::Parameter(_))));
    }
}
