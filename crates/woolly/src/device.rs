//! The one list of devices a model can run on, and what hides their types from the rest of this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use woolly_cpu::{Cpu, CpuOptions, MemoryPool, PoolStats};
use woolly_gguf::GGUFLoader;
use woolly_model::observe::{Observed, Squares};
use woolly_model::{Config, Decoder, LoadProgress, Runner, RunnerOptions};
use woolly_tensor::{Backend, CacheSpec, CacheType, Reference};

use crate::Error;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The processor, with the best instructions it has.
    #[default]
    Cpu,
    /// Plain scalar arithmetic in double precision: very slow, to check the others against.
    Reference,
}

impl Device {
    /// Every device this build knows.
    pub const ALL: &'static [Self] = &[Self::Cpu, Self::Reference];

    /// Returns the device's name: `cpu`, `reference`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Reference => "reference",
        }
    }

    /// Sets up the device and loads the model onto it.
    pub(crate) fn load(
        self,
        loader: &GGUFLoader,
        cpu: CpuOptions,
        on_progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Box<dyn Loaded>, Error> {
        match self {
            Self::Cpu => {
                let cpu = Cpu::new(cpu)?;
                let pool = cpu.memory_pool().cloned();
                load(cpu, pool, loader, on_progress)
            }
            Self::Reference => load(Reference::new(), None, loader, on_progress),
        }
    }

    /// As [`Self::load`], with the inputs of every matrix watched.
    pub(crate) fn watch(self, loader: &GGUFLoader, cpu: CpuOptions) -> Result<Watched, Error> {
        match self {
            Self::Cpu => watch(Cpu::new(cpu)?, loader),
            Self::Reference => watch(Reference::new(), loader),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.iter().map(|device| device.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().copied().find(|device| device.name() == name);
        found.ok_or_else(|| format!("unknown device `{name}`; known are {}", known()))
    }
}

/// A model on some device.
pub(crate) trait Loaded: Send + Sync {
    fn config(&self) -> &Config;
    fn describe(&self) -> String;
    fn cache_spec(&self, blocks: usize, storage: CacheType) -> CacheSpec;
    fn decoder(&self, options: RunnerOptions) -> Result<Box<dyn Decoder>, Error>;
    /// What the pool of activations holds, if there is one.
    fn memory_pool(&self) -> Option<PoolStats>;
}

/// A model on a device that is watched, and what was seen so far.
pub(crate) struct Watched {
    pub(crate) loaded: Box<dyn Loaded>,
    pub(crate) squares: Box<dyn Fn() -> BTreeMap<String, Squares>>,
}

fn watch<B: Backend>(backend: B, loader: &GGUFLoader) -> Result<Watched, Error> {
    let backend = Arc::new(Observed::new(backend));
    let model = Arc::new(woolly_model::Model::load(loader, &*backend, &mut |_| ())?);
    let squares = backend.clone();
    Ok(Watched {
        loaded: Box::new(OnBackend { backend, model, pool: None }),
        squares: Box::new(move || squares.squares()),
    })
}

struct OnBackend<B: Backend> {
    backend: Arc<B>,
    model: Arc<woolly_model::Model<B>>,
    pool: Option<Arc<MemoryPool>>,
}

fn load<B: Backend>(
    backend: B,
    pool: Option<Arc<MemoryPool>>,
    loader: &GGUFLoader,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<Box<dyn Loaded>, Error> {
    let model = woolly_model::Model::load(loader, &backend, on_progress)?;
    Ok(Box::new(OnBackend { backend: Arc::new(backend), model: Arc::new(model), pool }))
}

impl<B: Backend> Loaded for OnBackend<B> {
    fn config(&self) -> &Config {
        self.model.config()
    }

    fn describe(&self) -> String {
        self.backend.describe()
    }

    fn cache_spec(&self, blocks: usize, storage: CacheType) -> CacheSpec {
        self.model.cache_spec(blocks, storage)
    }

    fn decoder(&self, options: RunnerOptions) -> Result<Box<dyn Decoder>, Error> {
        Ok(Box::new(Runner::new(self.backend.clone(), self.model.clone(), options)?))
    }

    fn memory_pool(&self) -> Option<PoolStats> {
        self.pool.as_ref().map(|pool| pool.stats())
    }
}
