//! llama.cpp in this process, compiled from the sources in the crate `llama-cpp-sys-2`.
//!
//! Model and cache stay in memory while both engines take turns, so that no start of a program lies between two
//! repetitions, and a context that was filled once serves all of them.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use woolly_engine::Rng;
use woolly_tensor::CacheType;

use super::{Opponent, Rival, Trial, tries_both_kinds};
use crate::Error;
use crate::speed::Case;

/// How it is named in results.
const NAME: &str = "llama.cpp in this process (llama-cpp-2)";
/// Tokens to a multiple of which llama.cpp rounds the context of a sequence.
const CONTEXT_STEP: usize = 256;

/// llama.cpp's numbers for how attention is computed.
mod flash {
    pub(super) const AUTO: i32 = -1;
    pub(super) const OFF: i32 = 0;
    pub(super) const ON: i32 = 1;
}

/// llama.cpp in this process.
///
/// Its threads are its own, as many as ours; they end with each step, so that they never run beside ours.
#[derive(Debug)]
pub struct LlamaCpp {
    backend: LlamaBackend,
    /// The library must not make two contexts of a model at once.
    one_at_a_time: Mutex<()>,
}

impl LlamaCpp {
    /// Starts the library, without its log.
    ///
    /// # Errors
    /// [`Error::Library`] when it is running in this process already.
    pub fn new() -> Result<Self, Error> {
        let mut backend = LlamaBackend::init().map_err(failed("start the library"))?;
        backend.void_logs();
        Ok(Self { backend, one_at_a_time: Mutex::default() })
    }
}

impl Opponent for LlamaCpp {
    fn prepare(
        &self,
        model: &Path,
        case: &Case,
        warm_up: bool,
        body: &mut dyn FnMut(&mut dyn Trial) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let parameters = LlamaModelParams::default().with_n_gpu_layers(0);
        let model = LlamaModel::load_from_file(&self.backend, model, &parameters).map_err(failed("load the model"))?;
        let run = |attention| Run::new(&self.backend, &model, case, attention);
        let mut best =
            if tries_both_kinds(case) { faster(run(flash::ON)?, run(flash::OFF)?)? } else { run(flash::AUTO)? };
        if warm_up {
            best.warm_up()?;
        }
        body(&mut best)
    }
}

/// A context of llama.cpp and what is run in it.
struct Run<'a> {
    case: Case,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    vocabulary: usize,
    rng: Rng,
}

impl<'a> Run<'a> {
    /// Makes a context and computes what stands in it before the test.
    fn new(backend: &LlamaBackend, model: &'a LlamaModel, case: &Case, attention: i32) -> Result<Self, Error> {
        let context = model.new_context(backend, parameters(case, attention)?).map_err(failed("make a context"))?;
        let rows = case.batch.max(case.sequences);
        let vocabulary = usize::try_from(model.n_vocab()).unwrap_or(0);
        let mut run = Self { case: *case, context, batch: LlamaBatch::new(rows, 1), vocabulary, rng: Rng::new(1) };
        run.prompt(0, case.depth)?;
        Ok(run)
    }

    /// Runs what will be timed: the whole prompt, or one token of generation.
    fn warm_up(&mut self) -> Result<(), Error> {
        self.forget()?;
        self.prompt(self.case.depth, self.case.prompt)?;
        if self.case.generate > 0 { self.generate(self.case.depth + self.case.prompt) } else { Ok(()) }
    }

    fn sample(&mut self) -> Result<Duration, Error> {
        self.forget()?;
        let Case { prompt, generate, depth, .. } = self.case;
        let start = Instant::now();
        self.prompt(depth, prompt)?;
        for position in (depth + prompt..).take(generate) {
            self.generate(position)?;
        }
        Ok(start.elapsed())
    }

    /// Removes what the last repetition added.
    fn forget(&mut self) -> Result<(), Error> {
        let depth = u32::try_from(self.case.depth).ok();
        let removed = self.context.clear_kv_cache_seq(None, depth, None).map_err(failed("empty the cache"))?;
        if removed { Ok(()) } else { Err(refused("empty the cache", "it keeps what was computed")) }
    }

    /// Computes `tokens` of every sequence from position `start` on, one sequence after another; llama.cpp itself cuts
    /// batches into steps.
    fn prompt(&mut self, start: usize, tokens: usize) -> Result<(), Error> {
        for sequence in 0..self.case.sequences {
            for first in (0..tokens).step_by(self.case.batch.max(1)) {
                let rows = self.case.batch.min(tokens - first);
                self.batch.clear();
                for row in 0..rows {
                    self.add(start + first + row, sequence, row + 1 == rows)?;
                }
                self.compute()?;
            }
        }
        Ok(())
    }

    /// Computes the token at `position` of every sequence in one step.
    fn generate(&mut self, position: usize) -> Result<(), Error> {
        self.batch.clear();
        for sequence in 0..self.case.sequences {
            self.add(position, sequence, true)?;
        }
        self.compute()
    }

    fn add(&mut self, position: usize, sequence: usize, logits: bool) -> Result<(), Error> {
        let token = LlamaToken((self.rng.unit() * self.vocabulary as f64) as i32);
        let [position, sequence] = [number(position)?, number(sequence)?];
        self.batch.add(token, position, &[sequence], logits).map_err(failed("fill a batch"))
    }

    fn compute(&mut self) -> Result<(), Error> {
        self.context.decode(&mut self.batch).map_err(failed("compute a step"))?;
        self.context.synchronize();
        Ok(())
    }
}

impl Trial for Run<'_> {
    fn in_turn(&self) -> bool {
        true
    }

    fn measure(&mut self, repetitions: usize) -> Result<Rival, Error> {
        let samples = (0..repetitions).map(|_| self.sample()).collect::<Result<_, _>>()?;
        Ok(Rival { engine: NAME.to_owned(), samples })
    }
}

fn parameters(case: &Case, attention: i32) -> Result<LlamaContextParams, Error> {
    let context = case.sequences * case.context().next_multiple_of(CONTEXT_STEP);
    let [context, batch, micro, sequences] = [context, case.batch, case.micro_batch, case.sequences].map(unsigned);
    let threads = number(case.threads)?;
    let [keys, values] = cache_types(case.cache)?;
    Ok(LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(context?))
        .with_n_batch(batch?)
        .with_n_ubatch(micro?)
        .with_n_seq_max(sequences?)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_type_k(keys)
        .with_type_v(values)
        .with_flash_attention_policy(attention)
        .with_no_perf(true))
}

fn cache_types(cache: CacheType) -> Result<[KvCacheType; 2], Error> {
    match cache {
        CacheType::F32 => Ok([KvCacheType::F32, KvCacheType::F32]),
        CacheType::F16 => Ok([KvCacheType::F16, KvCacheType::F16]),
        CacheType::Q8 => Ok([KvCacheType::Q8_0, KvCacheType::Q8_0]),
        CacheType::Q8Q4 => Ok([KvCacheType::Q8_0, KvCacheType::Q4_0]),
        other => Err(refused("make a context", &format!("it has no cache like {}", other.name()))),
    }
}

/// Which of two ways of attention counts: that whose repetition was shorter.
fn faster<'a>(mut one: Run<'a>, mut other: Run<'a>) -> Result<Run<'a>, Error> {
    [&mut one, &mut other].into_iter().try_for_each(Run::warm_up)?;
    let [first, second] = [one.sample()?, other.sample()?];
    Ok(if first <= second { one } else { other })
}

fn number(count: usize) -> Result<i32, Error> {
    i32::try_from(count).map_err(failed("count that far"))
}

fn unsigned(count: usize) -> Result<u32, Error> {
    u32::try_from(count).map_err(failed("count that far"))
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Error {
    move |error| refused(what, &error.to_string())
}

fn refused(what: &str, why: &str) -> Error {
    Error::Library { what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::Grid;
    use crate::{Shape, Synthetic};
    use woolly_model::mix::Mix;

    #[test]
    fn every_kind_of_case_runs_in_the_library() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("tiny.gguf");
        Synthetic { shape: Shape::tiny(), mix: Mix::Q8_0 }.write(0, &model).expect("written");
        let grid = Grid {
            prompts: vec![20],
            generations: vec![3],
            pairs: vec![(5, 3)],
            depths: vec![0, 33],
            sequences: vec![1, 3],
            batches: vec![16],
            micro_batches: vec![8],
            caches: vec![CacheType::F16, CacheType::Q8],
            threads: vec![2],
        };
        let library = LlamaCpp::new().expect("starts once");
        assert!(LlamaCpp::new().is_err_and(|error| error.to_string().contains("llama.cpp")));
        for case in grid.cases() {
            let mut found = Vec::new();
            let done = library.prepare(&model, &case, true, &mut |trial| {
                found = trial.measure(2)?.samples;
                Ok(())
            });
            done.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(found.len() == 2 && found.iter().all(|&time| time > Duration::ZERO), "{case}: {found:?}");
        }
        let damaged = dir.path().join("damaged.gguf");
        std::fs::write(&damaged, b"GGUF").expect("written");
        let refused = library.prepare(&damaged, &grid.cases()[0], true, &mut |_| panic!("nothing was loaded"));
        assert!(refused.is_err_and(|error| error.to_string().contains("load the model")));
    }
}
