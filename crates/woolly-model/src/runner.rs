//! A model with its cache and buffers behind an object-safe trait: what the engine sees, whatever the backend.

use std::sync::Arc;

use woolly_tensor::{BLOCK_TOKENS, Backend, Batch, CacheType, Sequence};

use crate::{Config, Error, Model, Scratch, Step};

/// Computes steps for an engine that knows neither backend nor weights.
pub trait Decoder: Send {
    /// Returns the model's hyper-parameters.
    fn config(&self) -> &Config;

    /// Returns the most tokens one step may have (the micro-batch).
    fn max_rows(&self) -> usize;

    /// Returns the most rows of logits one step may ask for.
    fn max_outputs(&self) -> usize;

    /// Returns the tokens of a step up to which each one's logits are the same bit for bit whatever the others are.
    fn uniform_rows(&self) -> usize {
        1
    }

    /// Says that the calling thread is there for this decoder's steps alone, as [`Backend::adopt_thread`] does.
    fn adopt_thread(&self) {}

    /// Says that cache blocks are used from the first on and kept, as [`Backend::use_in_order`] does.
    fn use_in_order(&mut self) {}

    /// Returns the number of cache blocks of [`BLOCK_TOKENS`] tokens that sequences can be given.
    fn cache_blocks(&self) -> usize;

    /// Returns the bytes that [`save_block`](Self::save_block) writes for one cache block.
    fn block_bytes(&self) -> usize;

    /// Returns the bytes of memory that a cache block takes once it is written to, as [`Backend::block_memory`] says.
    fn block_memory(&self) -> usize {
        self.block_bytes()
    }

    /// Copies the contents of a cache block to another, as [`Backend::copy_block`] says.
    ///
    /// # Errors
    /// [`Error::Backend`] for a block outside the cache.
    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error>;

    /// Writes the stored contents of a cache block to `out`, which has exactly [`block_bytes`](Self::block_bytes) bytes;
    /// they can be loaded into any decoder of the same model, kind of device and storage type.
    ///
    /// # Errors
    /// [`Error::Backend`] for a block outside the cache or an `out` of another size.
    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error>;

    /// Zeros in what [`save_block`](Self::save_block) wrote whatever belongs to other tokens than the first `tokens`.
    ///
    /// # Errors
    /// [`Error::Backend`] for a `saved` of another size.
    fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), Error>;

    /// Restores, bit for bit, what [`save_block`](Self::save_block) wrote, as the contents of `block`.
    ///
    /// # Errors
    /// [`Error::Backend`] for a block outside the cache or `bytes` of another size.
    fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error>;

    /// Gives the memory of cache blocks back to the system; their contents are unspecified until they are written again.
    ///
    /// # Errors
    /// [`Error::Backend`] for a block outside the cache.
    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error>;

    /// Computes one step and writes the logits of its output rows to `logits`: `[outputs, vocab_size]`, row-major, of
    /// exactly that size. Does not allocate.
    ///
    /// # Errors
    /// Any [`Error`] that says which part of the step is wrong; nothing is computed then. [`Error::Backend`] when the
    /// device fails; the cache blocks that the step would have written are then unspecified.
    fn forward(&mut self, step: Step<'_>, logits: &mut [f32]) -> Result<(), Error>;
}

/// Sizes of a [`Runner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerOptions {
    /// Tokens that the cache holds over all sequences; rounded up to whole blocks.
    pub context: usize,
    /// Most tokens of one step.
    pub max_rows: usize,
    /// Most rows of logits of one step.
    pub max_outputs: usize,
    /// How keys and values are stored.
    pub storage: CacheType,
}

/// A [`Decoder`] on backend `B`; the weights are shared, cache and buffers are its own.
pub struct Runner<B: Backend> {
    backend: Arc<B>,
    model: Arc<Model<B>>,
    cache: B::Cache,
    scratch: Scratch<B>,
    writers: Writers,
}

impl<B: Backend> Runner<B> {
    /// Allocates cache and buffers.
    ///
    /// # Errors
    /// [`Error::Step`] when a size is 0; [`Error::Backend`] when memory does not suffice.
    pub fn new(backend: Arc<B>, model: Arc<Model<B>>, options: RunnerOptions) -> Result<Self, Error> {
        let RunnerOptions { context, max_rows, max_outputs, storage } = options;
        Error::check_step(context >= 1, "tokens of context", context, 1)?;
        let blocks = context.div_ceil(BLOCK_TOKENS);
        let scratch = model.scratch(&backend, max_rows, max_outputs)?;
        let cache = backend.cache(&model.cache_spec(blocks, storage))?;
        Ok(Self { backend, model, cache, scratch, writers: Writers::new(blocks) })
    }
}

impl<B: Backend> Decoder for Runner<B> {
    fn config(&self) -> &Config {
        self.model.config()
    }

    fn max_rows(&self) -> usize {
        self.scratch.max_rows()
    }

    fn max_outputs(&self) -> usize {
        self.scratch.max_outputs()
    }

    fn uniform_rows(&self) -> usize {
        self.backend.uniform_rows()
    }

    fn adopt_thread(&self) {
        self.backend.adopt_thread();
    }

    fn use_in_order(&mut self) {
        self.backend.use_in_order(&mut self.cache);
    }

    fn cache_blocks(&self) -> usize {
        self.writers.step_of.len()
    }

    fn block_bytes(&self) -> usize {
        self.backend.block_bytes(&self.cache)
    }

    fn block_memory(&self) -> usize {
        self.backend.block_memory(&self.cache)
    }

    fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), Error> {
        Ok(self.backend.keep_tokens(&self.cache, tokens, saved)?)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error> {
        Ok(self.backend.copy_block(&mut self.cache, from, to)?)
    }

    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error> {
        Ok(self.backend.save_block(&self.cache, block, out)?)
    }

    fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.backend.load_block(&mut self.cache, block, bytes)?)
    }

    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error> {
        Ok(self.backend.release_blocks(&mut self.cache, blocks)?)
    }

    fn forward(&mut self, step: Step<'_>, logits: &mut [f32]) -> Result<(), Error> {
        step.check(self.model.config(), self.scratch.max_rows(), self.scratch.max_outputs())?;
        let expected = step.outputs.len().saturating_mul(self.model.config().vocab_size);
        Error::check_step(logits.len() == expected, "room for logits", logits.len(), expected)?;
        self.writers.check(step.batch)?;
        self.model.forward(&self.backend, step, &mut self.cache, &mut self.scratch)?;
        if step.outputs.is_empty() {
            return Ok(());
        }
        Ok(self.backend.read(self.scratch.logits(), logits)?)
    }
}

/// Guards the rule that a block written to in a step belongs to one sequence of that step only, once.
struct Writers {
    /// For each block, the last step that wrote to it.
    step_of: Vec<u64>,
    step: u64,
}

impl Writers {
    fn new(blocks: usize) -> Self {
        Self { step_of: vec![0; blocks], step: 0 }
    }

    fn check(&mut self, batch: Batch<'_>) -> Result<(), Error> {
        self.step += 1;
        batch.sequences.iter().try_for_each(|sequence| self.claim(sequence))?;
        batch.sequences.iter().try_for_each(|sequence| self.check_readers(sequence))
    }

    fn claim(&mut self, sequence: &Sequence<'_>) -> Result<(), Error> {
        let blocks = self.step_of.len();
        for &block in written(sequence) {
            let number = usize::try_from(block).unwrap_or(usize::MAX);
            let writer = self.step_of.get_mut(number);
            let writer = writer.ok_or(Error::Step { what: "cache block", found: number, limit: blocks })?;
            Error::check_step(*writer != self.step, "cache block that two parts of a step write", number, blocks)?;
            *writer = self.step;
        }
        Ok(())
    }

    fn check_readers(&self, sequence: &Sequence<'_>) -> Result<(), Error> {
        let blocks = self.step_of.len();
        for &block in &sequence.blocks[..sequence.start / BLOCK_TOKENS] {
            let number = usize::try_from(block).unwrap_or(usize::MAX);
            let writer = self.step_of.get(number);
            let writer = writer.ok_or(Error::Step { what: "cache block", found: number, limit: blocks })?;
            Error::check_step(*writer != self.step, "cache block that is read while it is written", number, blocks)?;
        }
        Ok(())
    }
}

/// The blocks that a checked sequence writes to.
fn written<'a>(sequence: &Sequence<'a>) -> &'a [u32] {
    &sequence.blocks[sequence.start / BLOCK_TOKENS..sequence.end().div_ceil(BLOCK_TOKENS)]
}
