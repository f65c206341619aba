//! Both ends of a model: token embeddings on the way in, logits on the way out.

use woolly_tensor::{Backend, Projection};

use super::RmsNorm;
use crate::pass::Pass;
use crate::weights::Tensors;
use crate::{Config, Error};

/// The embedding table, the last normalisation and the output matrix.
pub(crate) struct Vocabulary<B: Backend> {
    /// `[embedding_length, vocab_size]`.
    embedding: B::Weight,
    norm: RmsNorm<B>,
    /// `[embedding_length, vocab_size]`; `None` where it is the embedding table (tied).
    output: Option<B::Weight>,
    /// `[vocab_size]`.
    output_bias: Option<B::Weight>,
}

impl<B: Backend> Vocabulary<B> {
    pub(crate) fn load(tensors: &mut Tensors<'_, B>, config: &Config) -> Result<Self, Error> {
        let dims = [config.embedding_length, config.vocab_size];
        let embedding = tensors.embedding(&dims)?;
        let weight = tensors.required("output_norm.weight", &dims[..1])?;
        Ok(Self {
            embedding,
            norm: RmsNorm { weight, epsilon: config.rms_epsilon },
            output: tensors.optional("output.weight", &dims)?,
            output_bias: tensors.optional("output.bias", &dims[1..])?,
        })
    }

    /// Starts the residual stream with the embeddings of the step's ids.
    pub(crate) fn embed(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        Ok(pass.backend.embed(&self.embedding, pass.step.ids, 1.0, &mut pass.scratch.rows.x)?)
    }

    /// Computes the logits of the rows the residual stream was narrowed to.
    pub(crate) fn logits(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        let weight = self.output.as_ref().unwrap_or(&self.embedding);
        let bias = self.output_bias.as_ref();
        let scratch = &mut *pass.scratch;
        let projection = Projection { weight, bias, out: &mut scratch.logits, accumulate: false };
        Ok(pass.backend.project(&scratch.outputs.x, Some(self.norm.op()), &mut [projection])?)
    }
}
