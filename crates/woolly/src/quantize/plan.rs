//! Which type every tensor gets, decided and checked before a weight is read.

use std::sync::Arc;

use woolly_gguf::{GGUFLoader, Value};
use woolly_model::mix::{Mix, ModelFacts, TensorFacts, fitting_type, is_quantisable};
use woolly_quant::TensorType;

use super::{ImportanceMatrix, QuantizeError, QuantizeOptions, Target};
use crate::Error;

/// The types of a model's tensors, in the order of the file.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) types: Vec<TensorType>,
    /// What `general.file_type` says.
    pub(super) file_type: Mix,
    importance: Option<Arc<ImportanceMatrix>>,
}

/// The version of the block layouts, as in every current file.
const QUANTIZATION_VERSION: u32 = 2;

impl Plan {
    pub(super) fn new(input: &GGUFLoader, options: &QuantizeOptions<'_>) -> Result<Self, Error> {
        let model = ModelFacts::read(input.metadata())?;
        let tensors = TensorFacts::of(input);
        options.target.check(&model)?;
        let mut types = target_types(options, &model, &tensors);
        let tied = !tensors.iter().any(|tensor| tensor.name == OUTPUT);
        for (tensor, ty) in tensors.iter().zip(&mut types) {
            *ty = explicit_type(tensor, options, tied).unwrap_or(*ty);
        }
        check_patterns(options, &tensors)?;
        check_importance(options, input)?;
        tensors.iter().zip(&types).try_for_each(|(tensor, &ty)| check(tensor, ty, options))?;
        Ok(Self { types, file_type: options.target.main_mix(), importance: options.importance.clone() })
    }

    /// The metadata that say how the file is quantised.
    pub(super) fn file_keys(&self) -> Vec<(&'static str, Value)> {
        let mut keys = vec![
            ("general.file_type", self.file_type.file_type().into()),
            ("general.quantization_version", QUANTIZATION_VERSION.into()),
        ];
        keys.extend(self.importance.iter().flat_map(|matrix| matrix.keys()));
        keys
    }
}

const OUTPUT: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

fn target_types(options: &QuantizeOptions<'_>, model: &ModelFacts, tensors: &[TensorFacts<'_>]) -> Vec<TensorType> {
    let assign = |mix: Mix| match options.pure {
        true => tensors.iter().map(|tensor| pure_type(mix, tensor)).collect(),
        false => mix.assign(model, tensors, options.importance.is_some()),
    };
    let types = match &options.target {
        Target::Mix(mix) => assign(*mix),
        Target::Layers(config) => config.assign(tensors, assign),
        Target::Tensors(types) => tensors.iter().map(|tensor| named_type(tensor, types)).collect(),
    };
    types.into_iter().zip(tensors).map(|(ty, tensor)| if is_weight(tensor) { ty } else { tensor.ty }).collect()
}

fn named_type(tensor: &TensorFacts<'_>, types: &[(String, TensorType)]) -> TensorType {
    let named = types.iter().find(|(name, _)| name == tensor.name);
    named.map_or(tensor.ty, |&(_, ty)| fitting(ty, tensor))
}

fn pure_type(mix: Mix, tensor: &TensorFacts<'_>) -> TensorType {
    fitting(mix.base_type(), tensor)
}

/// What was asked for by tensor and not by mix; in rows that do not fit, what stands in for it.
fn explicit_type(tensor: &TensorFacts<'_>, options: &QuantizeOptions<'_>, tied: bool) -> Option<TensorType> {
    if !is_weight(tensor) {
        return None;
    }
    if options.keep_output && tensor.name == OUTPUT {
        return Some(tensor.ty);
    }
    let special = match tensor.name {
        OUTPUT => options.output_type,
        EMBEDDING if tied => options.embedding_type.or(options.output_type),
        EMBEDDING => options.embedding_type,
        _ => None,
    };
    let matching = || options.overrides.iter().find(|pattern| pattern.matches(tensor.name));
    let ty = special.or_else(|| matching().map(|pattern| pattern.ty()))?;
    Some(fitting(ty, tensor))
}

fn fitting(ty: TensorType, tensor: &TensorFacts<'_>) -> TensorType {
    tensor.dims.first().map_or(ty, |&row| fitting_type(ty, row))
}

/// Tensors of integers are tables of some kind, whatever their name.
fn is_weight(tensor: &TensorFacts<'_>) -> bool {
    use TensorType as T;
    is_quantisable(tensor) && !matches!(tensor.ty, T::I8 | T::I16 | T::I32 | T::I64)
}

fn check_patterns(options: &QuantizeOptions<'_>, tensors: &[TensorFacts<'_>]) -> Result<(), QuantizeError> {
    let idle = |pattern: &&super::TypeOverride| !tensors.iter().any(|t| is_weight(t) && pattern.matches(t.name));
    match options.overrides.iter().find(idle) {
        Some(pattern) => Err(QuantizeError::NoMatch { pattern: pattern.pattern().to_owned() }),
        None => Ok(()),
    }
}

/// Refuses a matrix of another model before it spoils this one.
fn check_importance(options: &QuantizeOptions<'_>, input: &GGUFLoader) -> Result<(), QuantizeError> {
    let Some(matrix) = &options.importance else { return Ok(()) };
    let mut known = 0;
    for tensor in input.tensors() {
        known += usize::from(matrix.of(tensor)?.is_some());
    }
    if known == 0 { Err(QuantizeError::ImportanceForeign) } else { Ok(()) }
}

/// Refuses changes that make no sense.
fn check(tensor: &TensorFacts<'_>, to: TensorType, options: &QuantizeOptions<'_>) -> Result<(), QuantizeError> {
    let from = tensor.ty;
    if from == to {
        return Ok(());
    }
    let name = || tensor.name.to_owned();
    let known = options.importance.as_ref().is_some_and(|matrix| matrix.entries.contains_key(tensor.name));
    let needy = !known && options.target.mix_of(tensor.name).is_some_and(|mix| mix.needs_importance(tensor.name, to));
    match to {
        _ if from.block_elements() > 1 && !options.allow_requantize => {
            Err(QuantizeError::Requantize { tensor: name(), from, to })
        }
        // Made for activations, and no program multiplies weights of these.
        TensorType::Q8_1 | TensorType::Q8_K | TensorType::F64 => {
            Err(QuantizeError::NotForWeights { tensor: name(), ty: to })
        }
        _ if !to.can_encode() => Err(QuantizeError::NotForWeights { tensor: name(), ty: to }),
        _ if needy && !options.without_importance => Err(QuantizeError::NeedsImportance { tensor: name(), ty: to }),
        _ => Ok(()),
    }
}
