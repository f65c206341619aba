//! The dense gated feed-forward network (SwiGLU; Shazeer, 2020).

use woolly_tensor::{Activation, Backend};

use super::{Bias, Linear, RmsNorm};
use crate::pass::Pass;
use crate::weights::Block;
use crate::{Config, Error};

/// `x += W_down · (silu(W_gate · n(x)) ⊙ (W_up · n(x)))`.
pub(crate) struct FeedForward<B: Backend> {
    norm: RmsNorm<B>,
    /// `[embedding_length, feed_forward_length]`.
    gate: B::Weight,
    /// `[embedding_length, feed_forward_length]`.
    up: B::Weight,
    down: Linear<B>,
}

impl<B: Backend> FeedForward<B> {
    pub(crate) fn load(block: &mut Block<'_, '_, B>, config: &Config) -> Result<Self, Error> {
        let (width, inner) = (config.embedding_length, config.feed_forward_length);
        for name in ["ffn_gate.bias", "ffn_up.bias"] {
            block.refuse(name, "is a bias inside the feed-forward network, which is not supported")?;
        }
        Ok(Self {
            norm: RmsNorm::load(block, "ffn_norm", width, config.rms_epsilon)?,
            gate: block.required("ffn_gate.weight", &[width, inner])?,
            up: block.required("ffn_up.weight", &[width, inner])?,
            down: Linear::load(block, "ffn_down", [inner, width], Bias::Optional)?,
        })
    }

    /// Adds the network's result to the residual stream.
    pub(crate) fn add(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        let backend = pass.backend;
        let stream = pass.stream();
        let norm = Some(self.norm.op());
        backend.gated(&stream.x, norm, &self.gate, &self.up, Activation::Silu, &mut stream.feed)?;
        Ok(backend.project(&stream.feed, None, &mut [self.down.add_to(&mut stream.x)])?)
    }
}
