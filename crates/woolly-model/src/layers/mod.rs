//! The blocks that architectures are composed of.
//!
//! Each block owns its weights, knows the names of its tensors, and adds its result to the residual stream of a
//! [`Pass`](crate::pass::Pass). Nothing here allocates once the weights are loaded.

mod attention;
mod experts;
mod feed_forward;
mod linear;
mod rope;
mod vocabulary;

pub(crate) use attention::{AttentionTensors, SelfAttention};
pub(crate) use experts::ExpertMixture;
pub(crate) use feed_forward::FeedForward;
pub(crate) use linear::{Bias, Linear, RmsNorm};
pub(crate) use rope::RopeTable;
pub(crate) use vocabulary::Vocabulary;
