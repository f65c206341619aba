//! Types by layer: a mix for each range of layers and one for the embeddings.

use std::ops::Range;

use woolly_model::mix::{Mix, ModelFacts, TensorFacts};
use woolly_quant::TensorType;

use super::QuantizeError;

/// Which types a model's weights get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of a mix.
    Mix(Mix),
    /// Those of different mixes, by layer.
    Layers(QuantizationConfig),
    /// Types by the names of tensors, such as [`FoundMix::types`](super::FoundMix::types); all others keep theirs.
    Tensors(Vec<(String, TensorType)>),
}

impl From<Mix> for Target {
    fn from(mix: Mix) -> Self {
        Self::Mix(mix)
    }
}

impl From<QuantizationConfig> for Target {
    fn from(config: QuantizationConfig) -> Self {
        Self::Layers(config)
    }
}

/// Different quantisation for different layers.
///
/// ```
/// use woolly::quantize::{QuantType, QuantizationConfig};
///
/// let config = QuantizationConfig {
///     layer_config: vec![(0..4, QuantType::Q8_0), (4..28, QuantType::Q4_K_M), (28..32, QuantType::Q8_0)],
///     embeddings: QuantType::FP16,
/// };
/// # assert_eq!(config.layer_config.len(), 3);
/// ```
///
/// A weight of a layer gets the type that the layer's mix would give it in the whole model. Layers of no range keep
/// their types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// Ranges of layers, counted from 0 and in any order, and their mix.
    pub layer_config: Vec<(Range<usize>, Mix)>,
    /// The mix of the weights that turn tokens into vectors and back: `token_embd.weight` and `output.weight`.
    pub embeddings: Mix,
}

impl QuantizationConfig {
    /// Checks that the ranges are layers of a model with `layers` of them, and have none in common.
    pub(super) fn check(&self, layers: usize) -> Result<(), QuantizeError> {
        let mut ranges: Vec<&Range<usize>> = self.layer_config.iter().map(|(range, _)| range).collect();
        if let Some(&range) = ranges.iter().find(|range| range.is_empty() || range.end > layers) {
            return Err(QuantizeError::LayerRange { range: range.clone(), layers });
        }
        ranges.sort_by_key(|range| range.start);
        match ranges.windows(2).find(|pair| pair[0].end > pair[1].start) {
            Some(pair) => Err(QuantizeError::LayerTwice { layer: pair[1].start }),
            None => Ok(()),
        }
    }

    /// Returns the mix of the most layers, the first of them if several have as many.
    pub(super) fn main_mix(&self) -> Mix {
        let layers = |mix: Mix| -> usize {
            self.layer_config.iter().filter(|(_, other)| *other == mix).map(|(range, _)| range.len()).sum()
        };
        let mixes = self.layer_config.iter().rev().map(|(_, mix)| *mix);
        mixes.max_by_key(|mix| layers(*mix)).unwrap_or(self.embeddings)
    }

    /// Returns the mix that decides about the tensor called `name`, if one does.
    pub(super) fn mix_of(&self, name: &str) -> Option<Mix> {
        match layer(name) {
            Some(layer) => self.layer_config.iter().find(|(range, _)| range.contains(&layer)).map(|(_, mix)| *mix),
            None => Some(self.embeddings),
        }
    }

    /// Returns the type of each tensor, given what each mix makes of the whole model.
    pub(super) fn assign(
        &self,
        tensors: &[TensorFacts<'_>],
        assign: impl Fn(Mix) -> Vec<TensorType>,
    ) -> Vec<TensorType> {
        let mut types: Vec<TensorType> = tensors.iter().map(|tensor| tensor.ty).collect();
        for &mix in Mix::ALL.iter().filter(|&&mix| self.uses(mix)) {
            for ((tensor, ty), assigned) in tensors.iter().zip(&mut types).zip(assign(mix)) {
                if self.mix_of(tensor.name) == Some(mix) {
                    *ty = assigned;
                }
            }
        }
        types
    }

    fn uses(&self, mix: Mix) -> bool {
        self.embeddings == mix || self.layer_config.iter().any(|(_, other)| *other == mix)
    }
}

impl Target {
    /// Checks the target against the model.
    pub(super) fn check(&self, model: &ModelFacts) -> Result<(), QuantizeError> {
        match self {
            Self::Mix(_) | Self::Tensors(_) => Ok(()),
            Self::Layers(config) => config.check(usize::try_from(model.block_count).unwrap_or(usize::MAX)),
        }
    }

    /// Returns the mix that stands for the whole in `general.file_type`.
    pub(super) fn main_mix(&self) -> Mix {
        match self {
            Self::Mix(mix) => *mix,
            Self::Layers(config) => config.main_mix(),
            Self::Tensors(types) => most_used(types),
        }
    }

    pub(super) fn mix_of(&self, name: &str) -> Option<Mix> {
        match self {
            Self::Mix(mix) => Some(*mix),
            Self::Layers(config) => config.mix_of(name),
            Self::Tensors(_) => None,
        }
    }
}

/// The mix whose usual type the most of the tensors have.
fn most_used(types: &[(String, TensorType)]) -> Mix {
    let uses = |mix: &Mix| types.iter().filter(|(_, ty)| *ty == mix.base_type()).count();
    // Of several mixes with the same type, the later ones are the larger and more usual.
    Mix::ALL.iter().copied().max_by_key(uses).filter(|mix| uses(mix) > 0).unwrap_or(Mix::F16)
}

fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ranges: &[(Range<usize>, Mix)]) -> QuantizationConfig {
        QuantizationConfig { layer_config: ranges.to_vec(), embeddings: Mix::FP16 }
    }

    #[test]
    fn ranges_are_layers_of_the_model_and_disjoint() {
        let good = config(&[(4..8, Mix::Q4_K_M), (0..4, Mix::Q8_0)]);
        assert!(good.check(8).is_ok() && good.check(9).is_ok());
        assert!(matches!(good.check(7), Err(QuantizeError::LayerRange { range, layers: 7 }) if range == (4..8)));
        let empty = config(&[(3..3, Mix::Q8_0)]);
        assert!(matches!(empty.check(8), Err(QuantizeError::LayerRange { .. })));
        let twice = config(&[(4..8, Mix::Q4_K_M), (0..5, Mix::Q8_0)]);
        assert!(matches!(twice.check(8), Err(QuantizeError::LayerTwice { layer: 4 })));
        let inside = config(&[(0..8, Mix::Q4_K_M), (2..3, Mix::Q8_0)]);
        assert!(matches!(inside.check(8), Err(QuantizeError::LayerTwice { layer: 2 })));
    }

    #[test]
    fn the_mix_of_most_layers_stands_for_all() {
        assert_eq!(config(&[(0..1, Mix::Q8_0), (1..4, Mix::Q4_0), (4..5, Mix::Q8_0)]).main_mix(), Mix::Q4_0);
        assert_eq!(config(&[(0..2, Mix::Q8_0), (2..4, Mix::Q4_0)]).main_mix(), Mix::Q8_0);
        assert_eq!(config(&[]).main_mix(), Mix::F16);
    }

    #[test]
    fn layers_outside_every_range_are_nobodys() {
        let config = config(&[(1..3, Mix::Q8_0)]);
        let cases = [
            ("blk.0.attn_q.weight", None),
            ("blk.2.attn_q.weight", Some(Mix::Q8_0)),
            ("output.weight", Some(Mix::F16)),
        ];
        for (name, mix) in cases {
            assert_eq!(config.mix_of(name), mix, "{name}");
        }
    }
}
