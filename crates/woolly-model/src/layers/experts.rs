//! Mixtures of experts: a router chooses feed-forward networks for each row, and one may serve every row.

use woolly_tensor::{Activation, Backend, Experts, Gating};

use super::RmsNorm;
use crate::pass::Pass;
use crate::weights::Block;
use crate::{Config, Error, ExpertConfig};

/// `x += Σ_e p_e · expert_e(n(x))` over the chosen experts, plus the shared expert where there is one.
pub(crate) struct ExpertMixture<B: Backend> {
    norm: RmsNorm<B>,
    routed: Routed<B>,
    shared: Option<Routed<B>>,
}

impl<B: Backend> ExpertMixture<B> {
    pub(crate) fn load(block: &mut Block<'_, '_, B>, config: &Config) -> Result<Self, Error> {
        let experts = config.require_experts()?;
        let width = config.embedding_length;
        let shared = match experts.shared_feed_forward_length {
            Some(inner) => Some(Routed::shared(block, width, inner)?),
            None => None,
        };
        Ok(Self {
            norm: RmsNorm::load(block, "ffn_norm", width, config.rms_epsilon)?,
            routed: Routed::load(block, width, experts)?,
            shared,
        })
    }

    /// Adds the mixture's result to the residual stream.
    ///
    /// The input is normalised first, because the stream that it comes from is also what the experts add to.
    pub(crate) fn add(&self, pass: &mut Pass<'_, B>) -> Result<(), Error> {
        let backend = pass.backend;
        let stream = pass.stream();
        backend.norm(&stream.x, self.norm.op(), &mut stream.feed)?;
        for part in std::iter::once(&self.routed).chain(&self.shared) {
            backend.experts(&stream.feed, None, &part.op(), &mut stream.x)?;
        }
        Ok(())
    }
}

/// A router with its experts.
struct Routed<B: Backend> {
    /// `[width, experts]`.
    router: B::Weight,
    /// `[width, inner, experts]`.
    gate: B::Weight,
    /// `[width, inner, experts]`.
    up: B::Weight,
    /// `[inner, width, experts]`.
    down: B::Weight,
    used: usize,
    gating: Gating,
    renormalise: bool,
    scale: f32,
}

impl<B: Backend> Routed<B> {
    fn load(block: &mut Block<'_, '_, B>, width: usize, config: &ExpertConfig) -> Result<Self, Error> {
        block.refuse("exp_probs_b.bias", "is a bias on the choice of experts, which is not supported")?;
        block.refuse("ffn_gate_up_exps.weight", "holds gate and up matrices in one, which is not supported")?;
        let (inner, count) = (config.feed_forward_length, config.count);
        Ok(Self {
            router: block.required("ffn_gate_inp.weight", &[width, count])?,
            gate: block.experts("ffn_gate", [width, inner, count])?,
            up: block.experts("ffn_up", [width, inner, count])?,
            down: block.experts("ffn_down", [inner, width, count])?,
            used: config.used,
            gating: config.gating,
            renormalise: config.renormalise,
            scale: config.scale,
        })
    }

    /// The shared expert is a mixture of one, weighed by the logistic function of its own router.
    fn shared(block: &mut Block<'_, '_, B>, width: usize, inner: usize) -> Result<Self, Error> {
        Ok(Self {
            router: block.required("ffn_gate_inp_shexp.weight", &[width])?,
            gate: block.required("ffn_gate_shexp.weight", &[width, inner])?,
            up: block.required("ffn_up_shexp.weight", &[width, inner])?,
            down: block.required("ffn_down_shexp.weight", &[inner, width])?,
            used: 1,
            gating: Gating::Sigmoid,
            renormalise: false,
            scale: 1.0,
        })
    }

    fn op(&self) -> Experts<'_, B> {
        Experts {
            router: &self.router,
            gate: &self.gate,
            up: &self.up,
            down: &self.down,
            used: self.used,
            gating: self.gating,
            renormalise: self.renormalise,
            scale: self.scale,
            activation: Activation::Silu,
        }
    }
}
