//! What a quantisation made, or would make.

use std::path::PathBuf;
use std::time::Duration;

use woolly_gguf::{GGUFLoader, TensorInfo};
use woolly_model::mix::Mix;
use woolly_quant::TensorType;

use super::plan::Plan;

/// A finished or, in a dry run, foreseen quantisation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// The mix in `general.file_type`.
    pub file_type: Mix,
    /// Weights of all tensors.
    pub elements: u64,
    /// Bytes of all tensors in the input.
    pub bytes_before: u64,
    /// Bytes of all tensors in the output.
    pub bytes_after: u64,
    /// The files written; none in a dry run and for a model in memory.
    pub paths: Vec<PathBuf>,
    /// Bytes of the files written; `None` where none was.
    pub file_bytes: Option<u64>,
    /// How long it took.
    pub time: Duration,
}

/// What became of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its dimensions, the row length first.
    pub dims: Vec<u64>,
    /// Its type in the input.
    pub from: TensorType,
    /// Its type in the output.
    pub to: TensorType,
    /// Its bytes in the input.
    pub bytes_before: u64,
    /// Its bytes in the output.
    pub bytes_after: u64,
}

impl Report {
    pub(super) fn new(input: &GGUFLoader, plan: &Plan) -> Self {
        let tensors = input.tensors().iter().zip(&plan.types).map(|(info, &to)| TensorReport::new(info, to));
        let tensors: Vec<TensorReport> = tensors.collect();
        Self {
            file_type: plan.file_type,
            elements: input.tensors().iter().map(TensorInfo::elements).sum(),
            bytes_before: tensors.iter().map(|tensor| tensor.bytes_before).sum(),
            bytes_after: tensors.iter().map(|tensor| tensor.bytes_after).sum(),
            paths: Vec::new(),
            file_bytes: None,
            time: Duration::ZERO,
            tensors,
        }
    }

    /// Returns the bits that a weight takes in the output, on average.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes_after as f64 * 8.0 / (self.elements as f64).max(1.0)
    }
}

impl TensorReport {
    fn new(info: &TensorInfo, to: TensorType) -> Self {
        Self {
            name: info.name().to_owned(),
            dims: info.dims().to_vec(),
            from: info.ty(),
            to,
            bytes_before: info.byte_len(),
            bytes_after: info.elements() / to.block_elements() as u64 * to.block_bytes() as u64,
        }
    }
}
