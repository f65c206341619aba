//! Self-attention with grouped heads, rotary positions and, where the architecture has it, per-head norms.

use woolly_tensor::{Attention, AttentionShape, Backend};

use super::{Bias, Linear, RmsNorm, RopeTable};
use crate::pass::Pass;
use crate::scratch::Scratch;
use crate::weights::Block;
use crate::{Config, Error};

/// What architectures decide about the tensors of their attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionTensors {
    /// Biases of queries, keys and values; that of the output is always optional.
    pub(crate) bias: Bias,
    /// Whether queries and keys are normalised per head before rotation.
    pub(crate) head_norms: bool,
}

/// `x += W_o · attention(W_q · n(x), W_k · n(x), W_v · n(x))`.
pub(crate) struct SelfAttention<B: Backend> {
    norm: RmsNorm<B>,
    q: Linear<B>,
    k: Linear<B>,
    v: Linear<B>,
    output: Linear<B>,
    q_norm: Option<RmsNorm<B>>,
    k_norm: Option<RmsNorm<B>>,
    shape: AttentionShape,
}

impl<B: Backend> SelfAttention<B> {
    pub(crate) fn load(
        block: &mut Block<'_, '_, B>,
        config: &Config,
        tensors: AttentionTensors,
    ) -> Result<Self, Error> {
        let (width, epsilon) = (config.embedding_length, config.rms_epsilon);
        let shape = shape(config);
        let [keys, values] = [shape.kv_heads * shape.key_length, shape.kv_heads * shape.value_length];
        let head_norm = |block: &mut Block<'_, '_, B>, name| match tensors.head_norms {
            true => RmsNorm::load(block, name, shape.key_length, epsilon).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            norm: RmsNorm::load(block, "attn_norm", width, epsilon)?,
            q: Linear::load(block, "attn_q", [width, shape.heads * shape.key_length], tensors.bias)?,
            k: Linear::load(block, "attn_k", [width, keys], tensors.bias)?,
            v: Linear::load(block, "attn_v", [width, values], tensors.bias)?,
            output: Linear::load(block, "attn_output", [shape.heads * shape.value_length, width], Bias::Optional)?,
            q_norm: head_norm(block, "attn_q_norm")?,
            k_norm: head_norm(block, "attn_k_norm")?,
            shape,
        })
    }

    /// Attends with every row, leaving the heads' results beside the residual stream, and extends the cache.
    pub(crate) fn attend(&self, pass: &mut Pass<'_, B>, layer: usize, rope: &RopeTable) -> Result<(), Error> {
        let Scratch { q, k, v, rows, angles, .. } = &mut *pass.scratch;
        let projections = &mut [self.q.replace(q), self.k.replace(k), self.v.replace(v)];
        pass.backend.project(&rows.x, Some(self.norm.op()), projections)?;
        let args = Attention {
            layer,
            q,
            k,
            v,
            q_norm: self.q_norm.as_ref().map(RmsNorm::op),
            k_norm: self.k_norm.as_ref().map(RmsNorm::op),
            rope: Some(rope.rotation(angles)),
            shape: self.shape,
            batch: pass.step.batch,
        };
        Ok(pass.backend.attention(args, pass.cache, &mut rows.attended)?)
    }

    /// Adds the heads' results to the residual stream.
    pub(crate) fn merge(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        let backend = pass.backend;
        let stream = pass.stream();
        Ok(backend.project(&stream.attended, None, &mut [self.output.add_to(&mut stream.x)])?)
    }
}

fn shape(config: &Config) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        key_length: config.key_length,
        value_length: config.value_length,
        scale: 1.0 / (config.key_length as f32).sqrt(),
        softcap: None,
        window: None,
    }
}
