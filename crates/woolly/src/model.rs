//! A loaded model, cheap to clone and to share between threads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use woolly_cpu::CpuOptions;
use woolly_cpu::isa::CpuFeatures;
use woolly_cpu::pool::Sharing;
use woolly_engine::Generator;
use woolly_engine::kv::Fingerprint;
use woolly_gguf::GGUFLoader;
use woolly_model::{Config, Decoder, LoadProgress, RunnerOptions};
use woolly_tensor::{CacheSpec, CacheType};
use woolly_text::{ChatTemplate, Tokenizer};

use crate::device::{Loaded, Watched};
use crate::hardware::{MemoryConfig, PoolStats, ThreadPoolConfig, with_features};
use crate::{Chat, Completion, Device, Error, GenerateOptions, Session, Summary, plan};

/// Context of a session when nothing is said: enough for a conversation, little enough to fit anywhere.
const DEFAULT_CONTEXT: usize = 4096;
/// Tokens of a prompt computed at once: enough to use each weight read many times, little enough to cancel soon.
const PREFILL_ROWS: usize = 512;

/// A model ready to generate; clones share it.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    loaded: Box<dyn Loaded>,
    /// The file, for what makes another model of this one.
    file: GGUFLoader,
    device: Device,
    cpu: CpuOptions,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end_ids: Arc<[u32]>,
    summary: Summary,
    context: usize,
    /// How keys and values are stored, where somebody said it.
    cache_type: Option<CacheType>,
}

impl Model {
    /// Loads the model at `path` with the default settings.
    ///
    /// # Errors
    /// As [`ModelBuilder::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(path).load()
    }

    /// Returns a builder for the model at `path`.
    pub fn builder(path: impl AsRef<Path>) -> ModelBuilder<'static> {
        ModelBuilder { path: path.as_ref().to_owned(), ..ModelBuilder::default() }
    }

    /// Takes the model from an opened file, with the default settings.
    ///
    /// # Errors
    /// As [`ModelBuilder::load`].
    pub fn from_gguf(loader: &GGUFLoader) -> Result<Self, Error> {
        ModelBuilder::default().load_from(loader)
    }

    /// Continues `prompt` with the default options and returns the whole answer.
    ///
    /// # Errors
    /// As [`Session::stream`], or what ended the answer early.
    pub fn generate(&self, prompt: &str) -> Result<Completion, Error> {
        self.generate_with(prompt, GenerateOptions::new())
    }

    /// Continues `prompt` and returns the whole answer.
    ///
    /// # Errors
    /// As [`Session::stream`], or what ended the answer early.
    pub fn generate_with(&self, prompt: &str, options: GenerateOptions) -> Result<Completion, Error> {
        self.session()?.generate(prompt, options)
    }

    /// Opens a session: a context of its own, which keeps what it has computed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when its memory would not fit, before any of it is allocated.
    pub fn session(&self) -> Result<Session, Error> {
        Ok(Session::new(self.clone(), self.generator(self.0.context, PREFILL_ROWS, 1)?))
    }

    /// Opens a conversation in the form of the model's own chat template.
    ///
    /// # Errors
    /// [`Error::Text`] when the model has no usable template; as [`session`](Self::session).
    pub fn chat(&self) -> Result<Chat, Error> {
        Chat::new(self.session()?)
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// Returns what the file says about the model.
    pub fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// Returns the checked hyper-parameters.
    pub fn config(&self) -> &Config {
        self.0.loaded.config()
    }

    /// Returns the tokens a session holds.
    pub fn context(&self) -> usize {
        self.0.context
    }

    /// Returns a description of the device in use: `cpu (avx512, 2 threads)`.
    pub fn device(&self) -> String {
        self.0.loaded.describe()
    }

    /// Returns what the pool of [`MemoryConfig`] holds; `None` without one.
    pub fn memory_pool(&self) -> Option<PoolStats> {
        self.0.loaded.memory_pool()
    }

    /// Returns the file that the model was loaded from.
    pub(crate) fn file(&self) -> &GGUFLoader {
        &self.0.file
    }

    /// Loads `file`, the same model with other data, with the settings of this one.
    pub(crate) fn reload(&self, file: &GGUFLoader) -> Result<Self, Error> {
        let Inner { device, cpu, context, cache_type, .. } = *self.0;
        // A pool's limit is for one model, so that another is not given it, too.
        let builder = ModelBuilder { cpu: CpuOptions { memory: None, ..cpu }, ..ModelBuilder::default() };
        ModelBuilder { cache_type, ..builder.device(device).context(context) }.load_from(file)
    }

    /// Loads `file`, the same model with other data, without what only texts need.
    pub(crate) fn load_again(&self, file: &GGUFLoader) -> Result<Box<dyn Loaded>, Error> {
        self.0.device.load(file, self.0.cpu, &mut |_| ())
    }

    /// Loads the model once more, on a device that is watched.
    pub(crate) fn watched(&self) -> Result<Watched, Error> {
        self.0.device.watch(&self.0.file, self.0.cpu)
    }

    pub(crate) fn template(&self) -> &ChatTemplate {
        &self.0.template
    }

    /// Returns the tokens that end an answer.
    pub(crate) fn end_ids(&self) -> Arc<[u32]> {
        self.0.end_ids.clone()
    }

    /// Allocates what a decoder of this size needs, if it fits.
    pub(crate) fn decoder(&self, options: RunnerOptions) -> Result<Box<dyn Decoder>, Error> {
        plan::check(&*self.0.loaded, &options)?;
        self.0.loaded.decoder(options)
    }

    /// Returns how keys and values are stored unless an engine compresses them.
    pub(crate) fn cache_type(&self) -> CacheType {
        self.0.cache_type.unwrap_or(CacheType::F16)
    }

    /// Returns how keys and values were asked to be stored.
    pub(crate) fn cache_type_asked(&self) -> Option<CacheType> {
        self.0.cache_type
    }

    /// Returns the shape of a cache of one block.
    pub(crate) fn cache_spec(&self, storage: CacheType) -> CacheSpec {
        self.0.loaded.cache_spec(1, storage)
    }

    /// Returns a fingerprint of the model and the kind of device: all metadata, and of each tensor its name, type, shape and
    /// first bytes, so that models that differ in their weights only are told apart.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        const SAMPLE: usize = 256;
        let file = &self.0.file;
        let mut found = Fingerprint::new().with(self.0.device.name().as_bytes());
        for (key, value) in file.metadata().iter() {
            found = found.with(key.as_bytes()).with(format!("{value:?}").as_bytes());
        }
        for tensor in file.tensors() {
            let bytes = tensor.bytes();
            found = found.with(format!("{} {:?} {:?}", tensor.name(), tensor.ty(), tensor.dims()).as_bytes());
            found = found.with(&bytes[..bytes.len().min(SAMPLE)]);
        }
        found
    }

    /// Returns the bytes of one cache block of this model.
    pub(crate) fn block_bytes(&self, storage: CacheType) -> u64 {
        plan::block_bytes(&self.0.loaded.cache_spec(1, storage))
    }

    /// Returns the bytes of all weights.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.0.summary.types.iter().map(|share| share.bytes).sum()
    }

    /// Returns the bytes of the buffers of a step of an engine with `sequences` sequences.
    pub(crate) fn step_bytes(&self, sequences: usize) -> u64 {
        let options =
            RunnerOptions { context: 1, max_rows: PREFILL_ROWS, max_outputs: sequences, storage: self.cache_type() };
        plan::compute_bytes(self.config(), &options)
    }

    /// Allocates what one sequence of `context` tokens needs.
    pub(crate) fn generator(&self, context: usize, max_rows: usize, max_outputs: usize) -> Result<Generator, Error> {
        let max_rows = max_rows.min(context);
        let options = RunnerOptions { context, max_rows, max_outputs, storage: self.cache_type() };
        Ok(Generator::new(self.decoder(options)?, context))
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("architecture", &self.config().architecture)
            .field("name", &self.config().name)
            .field("device", &self.device())
            .field("context", &self.context())
            .finish_non_exhaustive()
    }
}

/// How to load a model; made by [`Model::builder`].
#[derive(Default)]
pub struct ModelBuilder<'a> {
    path: PathBuf,
    context: Option<usize>,
    cpu: CpuOptions,
    features: Option<CpuFeatures>,
    memory: MemoryConfig,
    thread_pool: ThreadPoolConfig,
    device: Device,
    cache_type: Option<CacheType>,
    on_progress: Option<Box<dyn FnMut(LoadProgress) + 'a>>,
}

impl<'a> ModelBuilder<'a> {
    /// Sets the tokens a session holds; 0 is the model's own maximum, the default 4096 or that if less.
    pub fn context(self, tokens: usize) -> Self {
        Self { context: Some(tokens), ..self }
    }

    /// Sets the number of threads; the default are the physical cores this process may use.
    pub fn threads(self, count: usize) -> Self {
        Self { cpu: CpuOptions { threads: Some(count), ..self.cpu }, ..self }
    }

    /// Sets how work is spread over threads. Its number of threads counts unless it is 0.
    pub fn thread_pool(self, config: ThreadPoolConfig) -> Self {
        let builder = Self { thread_pool: config, ..self };
        if config.num_threads > 0 { builder.threads(config.num_threads) } else { builder }
    }

    /// Sets whether each thread is bound to a processor of its own; the default is not.
    pub fn pin_threads(self, pin: bool) -> Self {
        Self { cpu: CpuOptions { pin, ..self.cpu }, ..self }
    }

    /// Sets whether all threads stay on one memory node, that of the first processor allowed, whose cores are then the
    /// default number of threads; the default is not. It changes nothing on machines with one node.
    pub fn one_node(self, stay: bool) -> Self {
        Self { cpu: CpuOptions { one_node: stay, ..self.cpu }, ..self }
    }

    /// Sets which of the processor's instructions are used; the default are all.
    pub fn cpu_features(self, features: CpuFeatures) -> Self {
        Self { features: Some(features), ..self }
    }

    /// Sets where activations and logits lie; the default is ordinary memory.
    pub fn memory(self, memory: MemoryConfig) -> Self {
        Self { memory, ..self }
    }

    /// Sets the device; the default is the CPU.
    pub fn device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Sets how keys and values are stored; the default is half precision.
    pub fn cache_type(self, cache_type: CacheType) -> Self {
        Self { cache_type: Some(cache_type), ..self }
    }

    /// Has `report` called while the model is loaded.
    pub fn on_progress<'b>(self, report: impl FnMut(LoadProgress) + 'b) -> ModelBuilder<'b>
    where
        'a: 'b,
    {
        ModelBuilder { on_progress: Some(Box::new(report)), ..self }
    }

    /// Opens the file and loads the model.
    ///
    /// # Errors
    /// [`Error::File`] when there is no valid file at the path; as [`load_from`](Self::load_from).
    pub fn load(self) -> Result<Model, Error> {
        let loader = GGUFLoader::open(&self.path)?;
        self.load_from(&loader)
    }

    /// Loads the model from an opened file; the path given to the builder is not used.
    ///
    /// # Errors
    /// [`Error::Model`] when the architecture is unknown or the file contradicts itself, [`Error::Text`] when its
    /// tokenizer is unknown, [`Error::ContextTooLong`], [`Error::Config`] for instructions that the processor lacks.
    pub fn load_from(mut self, loader: &GGUFLoader) -> Result<Model, Error> {
        let summary = Summary::of(loader)?;
        // The architecture before the tokenizer: of two unknown things, it is the one to tell.
        let mut report = self.on_progress.take().unwrap_or_else(|| Box::new(|_| ()));
        let (memory, sharing) = (self.memory.options()?, self.thread_pool.sharing()?);
        let mut cpu = CpuOptions { memory, sharing, ..self.cpu };
        if let Some(features) = &self.features {
            cpu = with_features(cpu, features)?;
        }
        if cpu.memory.is_some() && self.device != Device::Cpu {
            let why = format!("the device {} has no memory pool", self.device);
            return Err(Error::config("use_memory_pool", why));
        }
        if cpu.sharing != Sharing::default() && self.device != Device::Cpu {
            let why = format!("the device {} has no threads of its own", self.device);
            return Err(Error::config("thread_pool", why));
        }
        let loaded = self.device.load(loader, cpu, &mut report)?;
        let tokenizer = Tokenizer::from_metadata(loader.metadata())?;
        let template = ChatTemplate::from_metadata(loader.metadata(), &tokenizer);
        let context = resolve_context(self.context, loaded.config().context_length)?;
        let end_ids = tokenizer.end_of_generation().into();
        let (file, Self { device, cache_type, .. }) = (loader.clone(), self);
        let model = Inner { loaded, file, device, cpu, tokenizer, template, end_ids, summary, context, cache_type };
        Ok(Model(Arc::new(model)))
    }
}

impl fmt::Debug for ModelBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelBuilder")
            .field("path", &self.path)
            .field("context", &self.context)
            .field("cpu", &self.cpu)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

fn resolve_context(asked: Option<usize>, limit: usize) -> Result<usize, Error> {
    match asked {
        None => Ok(DEFAULT_CONTEXT.min(limit)),
        Some(0) => Ok(limit),
        Some(asked) if asked > limit => Err(Error::ContextTooLong { asked, limit }),
        Some(asked) => Ok(asked),
    }
}
