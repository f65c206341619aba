//! The hyper-parameters of a model, read from metadata and checked before anything is computed with them.

mod experts;
mod rope;

use std::ops::RangeInclusive;

use woolly_tensor::RopeStyle;

use crate::keys::Keys;
use crate::{Error, weights};

pub use experts::ExpertConfig;
pub(crate) use experts::ExpertDefaults;
pub use rope::{RopeConfig, RopeScaling};

/// Bounds far above any model and small enough that no product of two of them overflows.
const BLOCKS: RangeInclusive<usize> = 1..=2048;
const CONTEXT: RangeInclusive<usize> = 1..=1 << 30;
const HEADS: RangeInclusive<usize> = 1..=1 << 14;
const HEAD_LENGTH: RangeInclusive<usize> = 1..=1 << 14;
const VOCABULARY: RangeInclusive<usize> = 1..=1 << 26;
const WIDTH: RangeInclusive<usize> = 1..=1 << 22;

/// Validated hyper-parameters; the sizes agree with each other, and the model's tensors were checked against them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `general.architecture`, one of [`architectures`](crate::architectures).
    pub architecture: String,
    /// `general.name`, where the file has one.
    pub name: Option<String>,
    /// Number of token ids that have an embedding, and the width of the logits; at least the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Tokens that the model was trained to attend to; longer sequences are refused.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Number of layers.
    pub block_count: usize,
    /// Inner width of a dense feed-forward network.
    pub feed_forward_length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a query or key head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// ε of every root-mean-square normalisation.
    pub rms_epsilon: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Mixture of experts in place of the dense feed-forward network, where the model has one.
    pub experts: Option<ExpertConfig>,
}

impl Config {
    /// Reads what all architectures share; those with experts add [`ExpertConfig`] to it.
    pub(crate) fn common(keys: &Keys<'_>, style: RopeStyle) -> Result<Self, Error> {
        refuse_unsupported(keys)?;
        let block_count = keys.require_count("block_count", BLOCKS)?;
        let context_length = keys.require_count("context_length", CONTEXT)?;
        warn_of_window(keys, context_length)?;
        let embedding_length = keys.require_count("embedding_length", WIDTH)?;
        let heads = keys.require_uniform("attention.head_count", HEADS, block_count)?;
        let key_length = head_length(keys, "attention.key_length", embedding_length, heads)?;
        Ok(Self {
            architecture: keys.architecture().to_owned(),
            name: keys.loader().metadata().str("general.name")?.map(str::to_owned),
            vocab_size: vocab_size(keys)?,
            context_length,
            embedding_length,
            block_count,
            feed_forward_length: keys.require_uniform("feed_forward_length", WIDTH, block_count)?,
            heads,
            kv_heads: kv_heads(keys, heads, block_count)?,
            key_length,
            value_length: head_length(keys, "attention.value_length", embedding_length, heads)?,
            rms_epsilon: keys.require_number("attention.layer_norm_rms_epsilon", 0.0)?,
            rope: RopeConfig::read(keys, style, key_length, context_length)?,
            experts: None,
        })
    }

    /// Returns the experts of an architecture that cannot be without them.
    pub(crate) fn require_experts(&self) -> Result<&ExpertConfig, Error> {
        self.experts.as_ref().ok_or_else(|| Error::InvalidKey {
            key: format!("{}.expert_count", self.architecture),
            value: "absent or 0".to_owned(),
            why: "every layer of this architecture has experts".to_owned(),
        })
    }

    /// Returns the columns of the tensor a feed-forward network works on: the inner activations of a dense one
    /// (experts have theirs inside the backend), the normalised input of a mixture of experts.
    pub(crate) fn feed_columns(&self) -> usize {
        if self.experts.is_some() { self.embedding_length } else { self.feed_forward_length }
    }
}

/// Settings that change the computation and that no architecture here implements are errors, not surprises.
fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), Error> {
    if keys.flag("attention.causal")? == Some(false) {
        return Err(keys.invalid("attention.causal", false, "only causal models can be run"));
    }
    Ok(())
}

/// No architecture here has a window, and llama.cpp ignores it for these too; whoever set it should still hear of it.
fn warn_of_window(keys: &Keys<'_>, context_length: usize) -> Result<(), Error> {
    let window = keys.count("attention.sliding_window", 0..=usize::MAX)?;
    if let Some(window) = window.filter(|window| (1..context_length).contains(window)) {
        tracing::warn!(
            window,
            "attention.sliding_window is not part of this architecture; every token sees all before it"
        );
    }
    Ok(())
}

fn head_length(keys: &Keys<'_>, key: &str, embedding_length: usize, heads: usize) -> Result<usize, Error> {
    if let Some(length) = keys.count(key, HEAD_LENGTH)? {
        return Ok(length);
    }
    if embedding_length.is_multiple_of(heads) && HEAD_LENGTH.contains(&(embedding_length / heads)) {
        return Ok(embedding_length / heads);
    }
    let why = format!("embedding_length {embedding_length} cannot be divided into this many heads");
    Err(keys.invalid("attention.head_count", heads, why))
}

fn kv_heads(keys: &Keys<'_>, heads: usize, block_count: usize) -> Result<usize, Error> {
    let kv_heads = keys.uniform("attention.head_count_kv", HEADS, block_count)?.unwrap_or(heads);
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(keys.invalid("attention.head_count_kv", kv_heads, format!("it must divide attention.head_count, {heads}")))
}

/// The rows of the embedding table are the truth; a vocabulary larger than that would index beyond it.
fn vocab_size(keys: &Keys<'_>) -> Result<usize, Error> {
    let rows = weights::embedding_rows(keys.loader())?;
    let tokens = keys.loader().metadata().strings("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len());
    let rows = match usize::try_from(rows) {
        Ok(rows) if VOCABULARY.contains(&rows) => rows,
        _ => return Err(keys.invalid("vocab_size", rows, "token_embd.weight has an implausible number of rows")),
    };
    if let Some(declared) = keys.count("vocab_size", VOCABULARY)?.filter(|&declared| declared > rows) {
        return Err(keys.invalid("vocab_size", declared, format!("token_embd.weight has only {rows} rows")));
    }
    if tokens > rows {
        return Err(Error::InvalidKey {
            key: "tokenizer.ggml.tokens".to_owned(),
            value: format!("a list of {tokens}"),
            why: format!("token_embd.weight has only {rows} rows"),
        });
    }
    Ok(rows)
}
