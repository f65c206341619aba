//! Making smaller files of models: [`quantize`] gives every weight another tensor type and writes a new file.
//!
//! ```no_run
//! use woolly::GGUFLoader;
//! use woolly::quantize::{QuantType, QuantizeOptions, quantize};
//!
//! # fn main() -> Result<(), woolly::Error> {
//! let input = GGUFLoader::open("model-f16.gguf")?;
//! let report = quantize(&input, "model-q4_k_m.gguf", QuantizeOptions::new(QuantType::Q4_K_M))?;
//! println!("{:.2} bits a weight", report.bits_per_weight());
//! # Ok(())
//! # }
//! ```
//!
//! The model need not be one that can be run. Weights pass through in pieces, so that memory does not grow with the
//! model, and the file appears under its name only when it is complete. An [`ImportanceMatrix`] says which columns of a
//! weight matter; types that are of no use without one are refused unless asked for.
//!
//! A loaded model is quantised in memory with [`Model::quantize`]:
//!
//! ```no_run
//! use woolly::quantize::QuantType;
//! use woolly::{GGUFLoader, Model, benchmark_perplexity};
//!
//! # fn main() -> Result<(), woolly::Error> {
//! let loader = GGUFLoader::open("model-f16.gguf")?;
//! let model = Model::from_gguf(&loader)?;
//! let quantized = model.quantize(QuantType::Q4_K_M)?;
//! let perplexity_loss = benchmark_perplexity(&model, &quantized)?;
//! println!("Quality loss: {:.2}%", perplexity_loss * 100.0);
//! # Ok(())
//! # }
//! ```

mod benchmark;
mod convert;
mod error;
mod importance;
mod layers;
mod measure;
mod overrides;
mod plan;
mod report;
mod search;

use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use woolly_engine::CancelToken;
use woolly_gguf::{GGUFLoader, GGUFWriter, Replacement, TensorSource};
use woolly_quant::TensorType;

use crate::{Error, Model};

use convert::Conversion;
use plan::Plan;

pub use benchmark::benchmark_perplexity;
pub use error::QuantizeError;
pub use importance::{Importance, ImportanceMatrix};
pub use layers::{QuantizationConfig, Target};
pub use measure::{ImportanceOptions, OnMeasured};
pub use overrides::TypeOverride;
pub use report::{Report, TensorReport};
pub use search::{FoundMix, OnSearched, SearchOptions, SearchProgress};
pub use woolly_model::mix::{Mix as QuantType, UnknownMix as UnknownQuantType};

/// What is called after each piece of a tensor.
pub type OnProgress<'a> = Box<dyn FnMut(&Progress<'_>) + 'a>;

/// How far [`quantize`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor at which it is.
    pub tensor: &'a str,
    /// Bytes of the input's tensors that are done.
    pub bytes_done: u64,
    /// Bytes of all of the input's tensors.
    pub bytes_total: u64,
}

/// What [`quantize`] makes of a model; begin with [`new`](Self::new) and set what differs.
pub struct QuantizeOptions<'a> {
    /// The types of the weights.
    pub target: Target,
    /// Types of weights by name, over those of the target; the first that matches counts.
    pub overrides: Vec<TypeOverride>,
    /// Type of `output.weight`, or of the embeddings of a model that has none.
    pub output_type: Option<TensorType>,
    /// Type of `token_embd.weight`.
    pub embedding_type: Option<TensorType>,
    /// Leaves `output.weight` as it is.
    pub keep_output: bool,
    /// Gives every weight the mix's usual type, without its rules for the more important ones.
    pub pure: bool,
    /// Allows to change weights that are quantised already, at a loss over quantising the original.
    pub allow_requantize: bool,
    /// How much the columns of the weights matter; `None`, the default, takes all as equally important.
    pub importance: Option<Arc<ImportanceMatrix>>,
    /// Allows types that are of little use without an importance matrix.
    pub without_importance: bool,
    /// Threads to compute with; `None`, the default, takes as many as the machine runs at once.
    pub threads: Option<NonZeroUsize>,
    /// Decides and checks everything but reads no weight and writes nothing.
    pub dry_run: bool,
    /// Writes several files, `OUTPUT-00001-of-0000N.gguf` and so on, each with at most so many bytes of tensors or with one
    /// larger tensor; `None`, the default, writes one file.
    pub split_bytes: Option<u64>,
    /// Replaces files that exist.
    pub overwrite: bool,
    /// Called after each piece of a tensor.
    pub on_progress: Option<OnProgress<'a>>,
    /// Stops the work from another thread; nothing is left behind then.
    pub cancel: CancelToken,
}

impl QuantizeOptions<'_> {
    /// Makes options that give weights the types of `target`, a [`QuantType`] or a [`QuantizationConfig`].
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            overrides: Vec::new(),
            output_type: None,
            embedding_type: None,
            keep_output: false,
            pure: false,
            allow_requantize: false,
            importance: None,
            without_importance: false,
            threads: None,
            dry_run: false,
            split_bytes: None,
            overwrite: false,
            on_progress: None,
            cancel: CancelToken::new(),
        }
    }
}

impl fmt::Debug for QuantizeOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizeOptions")
            .field("target", &self.target)
            .field("overrides", &self.overrides)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// Writes the model of `input` to `output` with the types that `options` ask for.
///
/// Metadata and the order of tensors stay, except for `general.file_type`, `general.quantization_version` and the keys
/// `split.*`: several files become one. Norms, biases, routers and other small tensors keep their type, and rows that
/// are no whole number of blocks get a type that fits, see
/// [`fitting_type`](woolly_model::mix::fitting_type).
///
/// # Errors
/// [`Error::Quantize`] for what makes no sense, before anything is written, and for weights that are not finite or too
/// large; [`Error::Output`] when writing fails; [`Error::Cancelled`]. `output` is then as it was before.
pub fn quantize(input: &GGUFLoader, output: impl AsRef<Path>, options: QuantizeOptions<'_>) -> Result<Report, Error> {
    let begun = Instant::now();
    let output = output.as_ref();
    let plan = Plan::new(input, &options)?;
    let mut report = Report::new(input, &plan);
    if !options.dry_run {
        let place = Place { output, split_bytes: options.split_bytes, overwrite: options.overwrite };
        if place.split_bytes.is_none() {
            place.check(input, output)?;
        }
        let conversion = Conversion::new(input, options, report.bytes_before)?.releasing();
        report.paths = place.write(input, &plan, &conversion)?;
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        report.file_bytes = Some(report.paths.iter().map(length).sum());
    }
    report.time = begun.elapsed();
    Ok(report)
}

/// Makes the model that [`quantize`] would write, in memory; what keeps its type is shared with `input`.
///
/// # Errors
/// Those of [`quantize`] but for the output; [`QuantizeError::DryRun`], because a dry run makes no model.
pub fn quantize_in_memory(input: &GGUFLoader, options: QuantizeOptions<'_>) -> Result<(GGUFLoader, Report), Error> {
    let begun = Instant::now();
    if options.dry_run {
        return Err(QuantizeError::DryRun.into());
    }
    let plan = Plan::new(input, &options)?;
    let mut report = Report::new(input, &plan);
    let conversion = Conversion::new(input, options, report.bytes_before)?;
    let mut replacements = Vec::new();
    for ((index, info), &ty) in input.tensors().iter().enumerate().zip(&plan.types) {
        if ty != info.ty() {
            let bytes = conversion.to_bytes(info, ty)?.into();
            replacements.push(Replacement { index, ty, bytes });
        }
    }
    drop(conversion);
    report.time = begun.elapsed();
    Ok((input.with_tensors(replacements)?.with_metadata(plan.file_keys()), report))
}

impl Model {
    /// Makes this model with the types of `target` for its weights, a [`QuantType`] or a [`QuantizationConfig`], in
    /// memory; settings stay, and so does this model.
    ///
    /// # Errors
    /// As [`quantize_in_memory`] with [`QuantizeOptions::new`]: among others [`QuantizeError::Requantize`] when the weights
    /// are quantised already; as [`ModelBuilder::load_from`](crate::ModelBuilder::load_from).
    pub fn quantize(&self, target: impl Into<Target>) -> Result<Self, Error> {
        self.quantize_with(QuantizeOptions::new(target))
    }

    /// As [`quantize`](Self::quantize), with all options but those about files, which have no effect.
    ///
    /// # Errors
    /// As [`quantize_in_memory`]; as [`ModelBuilder::load_from`](crate::ModelBuilder::load_from).
    pub fn quantize_with(&self, options: QuantizeOptions<'_>) -> Result<Self, Error> {
        self.reload(&quantize_in_memory(self.file(), options)?.0)
    }
}

/// Where a model is written to.
struct Place<'a> {
    output: &'a Path,
    split_bytes: Option<u64>,
    overwrite: bool,
}

impl Place<'_> {
    /// Writes the model and returns the paths of its files.
    fn write(&self, input: &GGUFLoader, plan: &Plan, conversion: &Conversion<'_>) -> Result<Vec<PathBuf>, Error> {
        let mut writer = GGUFWriter::new();
        writer.extend(input.metadata());
        for (key, value) in plan.file_keys() {
            writer.set(key, value);
        }
        for (info, &ty) in input.tensors().iter().zip(&plan.types) {
            let source = TensorSource::stream(move |out| conversion.write(info, ty, out));
            writer.tensor(info.name(), info.dims(), ty, source);
        }
        let written = match self.split_bytes {
            None => writer.write_file(self.output).map(|_| vec![self.output.to_owned()]),
            Some(bytes) => {
                // `model.gguf` becomes `model-00001-of-00003.gguf`.
                let is_gguf = self.output.extension().is_some_and(|extension| extension == "gguf");
                let prefix = if is_gguf { self.output.with_extension("") } else { self.output.to_owned() };
                let paths = writer.split_paths(&prefix, bytes)?;
                paths.iter().try_for_each(|path| self.check(input, path))?;
                writer.write_split(prefix, bytes)
            }
        };
        drop(writer);
        // What stopped the conversion says more than that writing did not succeed.
        written.map_err(|error| conversion.failure().unwrap_or(Error::Output(error)))
    }

    /// Refuses to replace the input, or what was not to be replaced.
    fn check(&self, input: &GGUFLoader, path: &Path) -> Result<(), QuantizeError> {
        let Ok(there) = fs::canonicalize(path) else { return Ok(()) };
        let is_input = input.paths().any(|path| fs::canonicalize(path).is_ok_and(|path| path == there));
        match () {
            () if is_input => Err(QuantizeError::OntoInput { path: path.to_owned() }),
            () if !self.overwrite => Err(QuantizeError::Exists { path: path.to_owned() }),
            () => Ok(()),
        }
    }
}
