//! `qwen2moe`: Qwen 1.5 and 2 with experts.
//!
//! The attention of `qwen2`; every feed-forward network is a mixture of experts whose softmax weights are not
//! renormalised, plus an expert that every row uses, weighed by a logistic router of its own.

use woolly_tensor::{Backend, RopeStyle};

use super::Network;
use crate::config::ExpertDefaults;
use crate::keys::Keys;
use crate::layers::{AttentionTensors, Bias, ExpertMixture, RopeTable, SelfAttention, Vocabulary};
use crate::pass::Pass;
use crate::weights::{Block, Tensors};
use crate::{Config, Error, ExpertConfig};

pub(super) fn keys(keys: &Keys<'_>) -> Result<Config, Error> {
    let mut config = Config::common(keys, RopeStyle::Halves)?;
    let defaults = ExpertDefaults { renormalise: false, width_of_all: true };
    let experts = ExpertConfig::required(keys, &config, defaults)?;
    config.experts = Some(experts.with_shared(keys, &config)?);
    Ok(config)
}

pub(super) struct Qwen2Moe<B: Backend> {
    vocabulary: Vocabulary<B>,
    layers: Vec<Layer<B>>,
    rope: RopeTable,
}

struct Layer<B: Backend> {
    attention: SelfAttention<B>,
    feed: ExpertMixture<B>,
}

pub(super) fn load<B: Backend>(tensors: &mut Tensors<'_, B>, config: &Config) -> Result<Qwen2Moe<B>, Error> {
    let vocabulary = Vocabulary::load(tensors, config)?;
    let layer = |index| load_layer(&mut tensors.block(index), config);
    let layers = (0..config.block_count).map(layer).collect::<Result<_, _>>()?;
    Ok(Qwen2Moe { vocabulary, layers, rope: RopeTable::new(&config.rope, None) })
}

fn load_layer<B: Backend>(block: &mut Block<'_, '_, B>, config: &Config) -> Result<Layer<B>, Error> {
    let attention = AttentionTensors { bias: Bias::Required, head_norms: false };
    Ok(Layer {
        attention: SelfAttention::load(block, config, attention)?,
        feed: ExpertMixture::load(block, config)?,
    })
}

impl<B: Backend> Network<B> for Qwen2Moe<B> {
    fn forward(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        self.rope.write_angles(pass.step.batch, &mut pass.scratch.angles);
        self.vocabulary.embed(pass)?;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.attention.attend(pass, index, &self.rope)?;
            if index + 1 == self.layers.len() && !pass.keep_outputs()? {
                return Ok(());
            }
            layer.attention.merge(pass)?;
            layer.feed.add(pass)?;
        }
        self.vocabulary.logits(pass)
    }
}
