//! A loaded model: configuration and weights on one backend.

use woolly_gguf::GGUFLoader;
use woolly_tensor::{Backend, CacheSpec, CacheType};

use crate::arch::{self, Network};
use crate::pass::Pass;
use crate::weights::Tensors;
use crate::{Config, Error, LoadProgress, Scratch, Step};

/// A model whose weights are on backend `B`; immutable, so that any number of caches can share it.
pub struct Model<B: Backend> {
    config: Config,
    network: Box<dyn Network<B>>,
}

impl<B: Backend> Model<B> {
    /// Reads and checks hyper-parameters and tensors and hands the weights to the backend, which may keep them where
    /// they lie in the file.
    ///
    /// `on_progress` is called before the first tensor, after each, and at the end.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`]; any other [`Error`] names the key or the tensor that is missing or wrong, or is
    /// the backend's refusal of a weight.
    pub fn load(loader: &GGUFLoader, backend: &B, on_progress: &mut dyn FnMut(LoadProgress)) -> Result<Self, Error> {
        let name = loader.metadata().require_str("general.architecture")?;
        let mut tensors = Tensors::new(loader, backend, on_progress);
        let (config, network) = arch::load(name, loader, &mut tensors)?;
        tensors.finish();
        Ok(Self { config, network })
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the shape of a cache of `blocks` blocks for this model.
    pub fn cache_spec(&self, blocks: usize, storage: CacheType) -> CacheSpec {
        let Config { block_count, kv_heads, key_length, value_length, .. } = self.config;
        CacheSpec { layers: block_count, kv_heads, key_length, value_length, blocks, storage }
    }

    /// Allocates the buffers for steps of up to `max_rows` tokens and `max_outputs` rows of logits.
    ///
    /// # Errors
    /// [`Error::Step`] when either is 0; [`Error::Backend`] when memory does not suffice.
    pub fn scratch(&self, backend: &B, max_rows: usize, max_outputs: usize) -> Result<Scratch<B>, Error> {
        Scratch::new(backend, &self.config, max_rows, max_outputs)
    }

    /// Computes one step: extends the cache by its tokens and leaves the logits of its output rows in
    /// [`Scratch::logits`]. Allocates nothing.
    ///
    /// `cache` must be of this model's [`Self::cache_spec`], and no block that the step writes to may belong to two of
    /// its sequences ([`Runner`](crate::Runner) checks that).
    ///
    /// # Errors
    /// [`Error::TokenId`], [`Error::ContextOverflow`] and [`Error::Step`] before anything is computed;
    /// [`Error::Backend`] for cache blocks out of range or a failing device.
    pub fn forward(
        &self,
        backend: &B,
        step: Step<'_>,
        cache: &mut B::Cache,
        scratch: &mut Scratch<B>,
    ) -> Result<(), Error> {
        step.check(&self.config, scratch.max_rows, scratch.max_outputs)?;
        self.network.forward(&mut Pass::new(backend, step, cache, scratch))
    }
}
