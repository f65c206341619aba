//! `llama`: Llama 1 to 3, Mistral, and Mixtral (with experts).
//!
//! Pre-norm transformer with grouped attention, rotary positions on adjacent pairs (the converter reorders the rows of
//! queries and keys) and a SwiGLU feed-forward network or a mixture of them with renormalised softmax weights.

use woolly_tensor::{Backend, RopeStyle};

use super::Network;
use crate::config::ExpertDefaults;
use crate::keys::Keys;
use crate::layers::{AttentionTensors, Bias, ExpertMixture, FeedForward, RopeTable, SelfAttention, Vocabulary};
use crate::pass::Pass;
use crate::weights::{Block, Tensors};
use crate::{Config, Error, ExpertConfig};

pub(super) fn keys(keys: &Keys<'_>) -> Result<Config, Error> {
    let mut config = Config::common(keys, RopeStyle::Adjacent)?;
    let defaults = ExpertDefaults { renormalise: true, width_of_all: false };
    config.experts = ExpertConfig::optional(keys, &config, defaults)?;
    Ok(config)
}

pub(super) struct Llama<B: Backend> {
    vocabulary: Vocabulary<B>,
    layers: Vec<Layer<B>>,
    rope: RopeTable,
}

struct Layer<B: Backend> {
    attention: SelfAttention<B>,
    feed: Feed<B>,
}

enum Feed<B: Backend> {
    Dense(FeedForward<B>),
    Experts(ExpertMixture<B>),
}

pub(super) fn load<B: Backend>(tensors: &mut Tensors<'_, B>, config: &Config) -> Result<Llama<B>, Error> {
    let rope = RopeTable::with_file_factors(tensors, &config.rope)?;
    let vocabulary = Vocabulary::load(tensors, config)?;
    let layer = |index| load_layer(&mut tensors.block(index), config);
    let layers = (0..config.block_count).map(layer).collect::<Result<_, _>>()?;
    Ok(Llama { vocabulary, layers, rope })
}

fn load_layer<B: Backend>(block: &mut Block<'_, '_, B>, config: &Config) -> Result<Layer<B>, Error> {
    let attention = AttentionTensors { bias: Bias::Optional, head_norms: false };
    Ok(Layer {
        attention: SelfAttention::load(block, config, attention)?,
        feed: match &config.experts {
            None => Feed::Dense(FeedForward::load(block, config)?),
            Some(_) => Feed::Experts(ExpertMixture::load(block, config)?),
        },
    })
}

impl<B: Backend> Network<B> for Llama<B> {
    fn forward(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        self.rope.write_angles(pass.step.batch, &mut pass.scratch.angles);
        self.vocabulary.embed(pass)?;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.attention.attend(pass, index, &self.rope)?;
            if index + 1 == self.layers.len() && !pass.keep_outputs()? {
                return Ok(());
            }
            layer.attention.merge(pass)?;
            match &layer.feed {
                Feed::Dense(dense) => dense.add(pass)?,
                Feed::Experts(experts) => experts.add(pass)?,
            }
        }
        self.vocabulary.logits(pass)
    }
}
