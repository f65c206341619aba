//! Runs cases on the processor: ids in, logits out, nothing between the clock and the model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use woolly_cpu::isa::Level;
use woolly_cpu::{Cpu, CpuOptions};
use woolly_engine::Rng;
use woolly_gguf::GGUFLoader;
use woolly_model::{Decoder, Model, Runner, RunnerOptions, Step};
use woolly_tensor::{BLOCK_TOKENS, Batch, Sequence};

use super::{Case, Costs};
use crate::Error;

/// A model loaded for a number of threads.
pub struct Engine {
    cpu: Arc<Cpu>,
    model: Arc<Model<Cpu>>,
    threads: usize,
}

impl Engine {
    /// Loads the model the way every user of the library does.
    ///
    /// # Errors
    /// When the model cannot be run or the system refuses the threads.
    pub fn load(loader: &GGUFLoader, threads: usize) -> Result<Self, Error> {
        Self::with(loader, CpuOptions { threads: Some(threads), ..CpuOptions::default() })
    }

    /// Loads the model for an instruction set.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when the processor lacks it.
    pub fn load_at(loader: &GGUFLoader, threads: usize, level: Level) -> Result<Self, Error> {
        Self::with(loader, CpuOptions { threads: Some(threads), level: Some(level), ..CpuOptions::default() })
    }

    fn with(loader: &GGUFLoader, options: CpuOptions) -> Result<Self, Error> {
        let cpu = Cpu::new(options)?;
        let model = Model::load(loader, &cpu, &mut |_| ())?;
        let threads = cpu.threads();
        Ok(Self { cpu: Arc::new(cpu), model: Arc::new(model), threads })
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Allocates cache and buffers for a case.
    ///
    /// # Errors
    /// When the context is longer than the model's, or memory does not suffice.
    pub fn test(&self, case: &Case) -> Result<Test, Error> {
        let limit = self.model.config().context_length;
        if case.context() > limit {
            return Err(woolly::Error::ContextTooLong { asked: case.context(), limit }.into());
        }
        let blocks = case.context().div_ceil(BLOCK_TOKENS);
        let options = RunnerOptions {
            context: case.sequences * blocks * BLOCK_TOKENS,
            max_rows: case.max_rows(),
            max_outputs: case.sequences,
            storage: case.cache,
        };
        let mut runner = Runner::new(self.cpu.clone(), self.model.clone(), options)?;
        // As the program does for one sequence, and not for many.
        if case.sequences == 1 {
            runner.use_in_order();
        }
        let vocab_size = self.model.config().vocab_size;
        Ok(Test {
            tables: (0_u32..).take(case.sequences * blocks).collect(),
            blocks,
            ids: vec![0; case.max_rows()],
            outputs: (0_u32..).take(case.sequences).collect(),
            logits: vec![0.0; case.sequences * vocab_size],
            vocab_size,
            rng: Rng::new(1),
            case: *case,
            runner,
        })
    }

    /// Returns the number of tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    /// Allocates a decoder of its own, for engines that plan their steps themselves.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn decoder(&self, options: RunnerOptions) -> Result<Box<dyn Decoder>, Error> {
        Ok(Box::new(Runner::new(self.cpu.clone(), self.model.clone(), options)?))
    }

    /// Returns what steps of this model cost with the cache of a case.
    ///
    /// # Errors
    /// When the size of the cache overflows.
    pub fn costs(&self, loader: &GGUFLoader, case: &Case) -> Result<Costs, Error> {
        let block = self.model.cache_spec(1, case.cache).block_bytes();
        let block = block.ok_or_else(|| Error::Parameter("the cache is too large".to_owned()))?;
        Ok(Costs::of(loader, self.model.config(), block as f64 / BLOCK_TOKENS as f64))
    }
}

/// A case, ready to be run again and again.
pub struct Test {
    case: Case,
    runner: Runner<Cpu>,
    /// Cache blocks, those of the first sequence first.
    tables: Vec<u32>,
    /// Blocks of one sequence.
    blocks: usize,
    ids: Vec<u32>,
    outputs: Vec<u32>,
    logits: Vec<f32>,
    vocab_size: usize,
    rng: Rng,
}

impl Test {
    /// Computes what stands in the cache before the test; once is enough, since tests never write to it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn fill_depth(&mut self) -> Result<(), Error> {
        self.prompt(0, self.case.depth)
    }

    /// Runs what will be timed: the whole prompt, or one token of generation.
    ///
    /// # Errors
    /// When the device fails.
    pub fn warm_up(&mut self) -> Result<(), Error> {
        self.prompt(self.case.depth, self.case.prompt)?;
        if self.case.generate > 0 { self.generate(self.case.depth + self.case.prompt) } else { Ok(()) }
    }

    /// Runs the test once and returns the time it took.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sample(&mut self) -> Result<Duration, Error> {
        let Case { prompt, generate, depth, .. } = self.case;
        let start = Instant::now();
        self.prompt(depth, prompt)?;
        for position in (depth + prompt..).take(generate) {
            self.generate(position)?;
        }
        Ok(start.elapsed())
    }

    /// Runs the test once as llama-batched-bench does, the prompts of all sequences side by side, and returns the times of
    /// prompts and generation.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sample_batched(&mut self) -> Result<[Duration; 2], Error> {
        let Case { prompt, generate, depth, .. } = self.case;
        let start = Instant::now();
        self.prompts_together()?;
        let prompts = start.elapsed();
        for position in (depth + prompt..).take(generate) {
            self.generate(position)?;
        }
        Ok([prompts, start.elapsed() - prompts])
    }

    /// Computes all prompts in steps as large as they may be, each of as many sequences as fit.
    fn prompts_together(&mut self) -> Result<(), Error> {
        let Case { prompt, depth, sequences, .. } = self.case;
        let (total, room) = (prompt * sequences, self.ids.len());
        for first in (0..total).step_by(room) {
            let rows = room.min(total - first);
            self.draw(rows);
            let (mut parts, mut outputs, mut row) = (Vec::new(), Vec::new(), 0);
            while row < rows {
                let (sequence, start) = ((first + row) / prompt, (first + row) % prompt);
                let end = rows.min(row + prompt - start);
                let blocks = &self.tables[sequence * self.blocks..][..self.blocks];
                parts.push(Sequence { rows: row..end, start: depth + start, blocks });
                if start + end - row == prompt {
                    outputs.push(end as u32 - 1);
                }
                row = end;
            }
            let step = Step { ids: &self.ids[..rows], batch: Batch { sequences: &parts }, outputs: &outputs };
            self.runner.forward(step, &mut self.logits[..outputs.len() * self.vocab_size])?;
        }
        Ok(())
    }

    /// Computes `tokens` of every sequence from position `start` on, one sequence after another.
    fn prompt(&mut self, start: usize, tokens: usize) -> Result<(), Error> {
        let case = self.case;
        for sequence in 0..case.sequences {
            for chunk in case.chunks(tokens) {
                self.draw(chunk.rows);
                let blocks = &self.tables[sequence * self.blocks..][..self.blocks];
                let sequences = [Sequence { rows: 0..chunk.rows, start: start + chunk.start, blocks }];
                let last = [chunk.rows as u32 - 1];
                let outputs: &[u32] = if chunk.logits { &last } else { &[] };
                let batch = Batch { sequences: &sequences };
                let step = Step { ids: &self.ids[..chunk.rows], batch, outputs };
                self.runner.forward(step, &mut self.logits[..outputs.len() * self.vocab_size])?;
            }
        }
        Ok(())
    }

    /// Computes the token at `position` of every sequence in one step.
    fn generate(&mut self, position: usize) -> Result<(), Error> {
        let rows = self.case.sequences;
        self.draw(rows);
        let table = |row: usize| &self.tables[row * self.blocks..][..self.blocks];
        let step = |sequences: &[Sequence<'_>], runner: &mut Runner<Cpu>, logits: &mut [f32]| {
            let batch = Batch { sequences };
            runner.forward(Step { ids: &self.ids[..rows], batch, outputs: &self.outputs }, logits)
        };
        if rows == 1 {
            // The usual case makes no list.
            let only = [Sequence { rows: 0..1, start: position, blocks: table(0) }];
            step(&only, &mut self.runner, &mut self.logits)?;
        } else {
            let one = |row| Sequence { rows: row..row + 1, start: position, blocks: table(row) };
            step(&(0..rows).map(one).collect::<Vec<_>>(), &mut self.runner, &mut self.logits)?;
        }
        Ok(())
    }

    fn draw(&mut self, rows: usize) {
        for id in &mut self.ids[..rows] {
            *id = (self.rng.unit() * self.vocab_size as f64) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::Grid;
    use crate::{Shape, Source, Synthetic};
    use woolly_model::mix::Mix;

    fn tiny() -> GGUFLoader {
        let synthetic = Synthetic { shape: Shape::tiny(), mix: Mix::Q4_0 };
        Source::Synthetic(synthetic).open(0).expect("fits")
    }

    #[test]
    fn every_kind_of_case_runs() {
        let grid = Grid {
            prompts: vec![20],
            generations: vec![3],
            pairs: vec![(5, 3)],
            depths: vec![0, 33],
            sequences: vec![1, 3],
            batches: vec![16],
            micro_batches: vec![8],
            threads: vec![2],
            ..Grid::default()
        };
        let loader = tiny();
        let engine = Engine::load(&loader, 2).expect("loads");
        for case in grid.cases() {
            let mut test = engine.test(&case).expect("room");
            test.fill_depth().expect("depth");
            test.warm_up().expect("warm-up");
            assert!(test.sample().expect("a sample") > Duration::ZERO, "{case}");
            assert!(test.logits.iter().all(|x| x.is_finite()) && test.logits.iter().any(|&x| x != 0.0), "{case}");
        }
    }

    #[test]
    fn a_context_beyond_the_models_is_refused() {
        let grid = Grid { prompts: vec![], generations: vec![32], depths: vec![40], ..Grid::default() };
        let loader = tiny();
        let engine = Engine::load(&loader, 1).expect("loads");
        let refused = engine.test(&grid.cases()[0]).map(|_| ());
        let found = refused.expect_err("72 of 64 tokens").to_string();
        assert!(found.contains("72") && found.contains("64"), "{found}");
    }
}
