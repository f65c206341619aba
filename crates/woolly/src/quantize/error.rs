//! Why a model was not quantised.

use std::ops::Range;
use std::path::PathBuf;

use woolly_quant::{CodecError, TensorType};

use crate::ErrorKind;

/// What makes no sense to quantise, or cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The output would replace the file that is being read.
    #[error("the output {} is the input", path.display())]
    OntoInput {
        /// The output, as given.
        path: PathBuf,
    },
    /// The output exists and is not to be replaced.
    #[error("the output {} exists", path.display())]
    Exists {
        /// The output, as given.
        path: PathBuf,
    },
    /// A weight that is quantised already would be quantised again.
    #[error("{tensor} is {from} already; making {to} of it loses more than quantising the original would")]
    Requantize {
        /// The first such tensor.
        tensor: String,
        /// Its type.
        from: TensorType,
        /// The type it was to get.
        to: TensorType,
    },
    /// A type that gives poor results without an importance matrix.
    #[error("{tensor} would become {ty}, which needs an importance matrix to be of use")]
    NeedsImportance {
        /// The first such tensor.
        tensor: String,
        /// The type it was to get.
        ty: TensorType,
    },
    /// A type that weights cannot have.
    #[error("{tensor} cannot become {ty}, which is no type for weights")]
    NotForWeights {
        /// The first such tensor.
        tensor: String,
        /// The type it was to get.
        ty: TensorType,
    },
    /// A pattern that is no regular expression, or is without a type.
    #[error("`{text}` is no PATTERN=TYPE: {why}")]
    Pattern {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern that changes nothing, most likely a mistake.
    #[error("`{pattern}` matches no tensor that is quantised")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A range of layers that the model does not have, or that is empty.
    #[error("layers {} to {} (exclusive) are none of a model with {layers} layers", range.start, range.end)]
    LayerRange {
        /// The range, counted from 0.
        range: Range<usize>,
        /// Layers of the model.
        layers: usize,
    },
    /// Two ranges with a layer in common.
    #[error("layer {layer} is in two ranges of the configuration")]
    LayerTwice {
        /// The layer, counted from 0.
        layer: usize,
    },
    /// A dry run where a model was to be returned.
    #[error("a dry run makes no model")]
    DryRun,
    /// A file that holds no importance matrix.
    #[error("{} is no importance matrix: {why}", path.display())]
    ImportanceFile {
        /// The file, as given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An importance matrix of another model.
    #[error("the importance matrix has {found} numbers for {tensor}, which needs {expected}: it is of another model")]
    ImportanceSize {
        /// The tensor.
        tensor: String,
        /// Numbers in the matrix.
        found: usize,
        /// Numbers that the tensor needs.
        expected: usize,
    },
    /// An importance matrix that knows none of the tensors.
    #[error("the importance matrix knows no tensor of this model")]
    ImportanceForeign,
    /// A divergence that cannot be aimed at.
    #[error("a divergence of {target} is none to search for: it must be a number above 0")]
    NoDivergence {
        /// The divergence asked for.
        target: f64,
    },
    /// A divergence that no mix keeps to.
    #[error("no mix stays within a divergence of {target}: the largest types come to {least:.6}")]
    Target {
        /// The divergence asked for.
        target: f64,
        /// The divergence with the largest types there are to choose from.
        least: f64,
    },
    /// A weight is infinite or not a number.
    #[error("{tensor} holds {value} in row {row}, column {column}: the model is damaged")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Row, counted from 0 through all matrices of the tensor.
        row: u64,
        /// Column, counted from 0.
        column: u64,
        /// The weight.
        value: f32,
    },
    /// A weight is too large for its new type.
    #[error("{tensor} holds {value} in row {row}, column {column}, but {ty} holds at most {limit}")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Row, counted from 0 through all matrices of the tensor.
        row: u64,
        /// Column, counted from 0.
        column: u64,
        /// The weight.
        value: f32,
        /// The type it was to get.
        ty: TensorType,
        /// The largest magnitude that the type can hold.
        limit: f32,
    },
    /// The blocks of a tensor could not be read or made.
    #[error("{tensor}: {source}")]
    Codec {
        /// The tensor.
        tensor: String,
        /// What the codec says.
        source: CodecError,
    },
}

impl QuantizeError {
    /// Returns what kind of failure this is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFinite { .. } | Self::Codec { .. } => ErrorKind::InvalidModel,
            _ => ErrorKind::InvalidRequest,
        }
    }

    /// Returns what to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::OntoInput { .. } => "name another file",
            Self::Exists { .. } => "name another file, or allow to overwrite it (--force)",
            Self::Requantize { .. } => {
                "quantise the F32, F16 or BF16 file of the model, or allow it (--allow-requantize)"
            }
            Self::NeedsImportance { .. } => {
                "give an importance matrix made by `woolly imatrix` (--imatrix), use a type of 3 bits or more, or allow it \
                 (--without-imatrix)"
            }
            Self::Target { .. } => "allow more, such as 0.01, or choose from larger types",
            Self::NoDivergence { .. } => "give a number of nats a token, such as 0.01, which is little",
            Self::DryRun => "report what `quantize` returns, or leave `dry_run` off",
            Self::ImportanceFile { .. } | Self::ImportanceSize { .. } | Self::ImportanceForeign => {
                "make one of this very model: woolly imatrix -m MODEL -f TEXT -o imatrix.gguf"
            }
            Self::NotForWeights { .. } => "use a type such as Q4_K, Q6_K, Q8_0, F16 or F32",
            Self::Pattern { .. } | Self::NoMatch { .. } => {
                "write, for example, attn_v=q6_K; `woolly show --tensors` lists names"
            }
            Self::LayerRange { .. } | Self::LayerTwice { .. } => "count layers from 0, each at most once",
            Self::NotFinite { .. } | Self::Codec { .. } => "download or convert the model again",
            Self::TooLarge { .. } => "use BF16 or F32 for this tensor",
        };
        Some(hint.to_owned())
    }
}
