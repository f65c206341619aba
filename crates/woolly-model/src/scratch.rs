//! Every buffer a forward pass needs, allocated once.

use woolly_tensor::Backend;

use crate::{Config, Error};

/// Buffers for steps of up to a fixed number of rows; reused by every step, so that a step allocates nothing.
pub struct Scratch<B: Backend> {
    /// `[rows, heads · key_length]`.
    pub(crate) q: B::Tensor,
    /// `[rows, kv_heads · key_length]`.
    pub(crate) k: B::Tensor,
    /// `[rows, kv_heads · value_length]`.
    pub(crate) v: B::Tensor,
    /// `[rows, rotated pairs, 2]`.
    pub(crate) angles: Vec<f32>,
    /// The stream of all rows of the step.
    pub(crate) rows: Stream<B>,
    /// The stream of the rows whose logits are wanted, from the last layer's attention on.
    pub(crate) outputs: Stream<B>,
    /// `[outputs, vocab_size]`.
    pub(crate) logits: B::Tensor,
    pub(crate) max_rows: usize,
    pub(crate) max_outputs: usize,
}

/// The residual stream and what lies beside it.
pub(crate) struct Stream<B: Backend> {
    /// The residual stream `[rows, embedding_length]`.
    pub(crate) x: B::Tensor,
    /// Results of the attention heads `[rows, heads · value_length]`.
    pub(crate) attended: B::Tensor,
    /// What the feed-forward network works on `[rows, feed_columns]`, see [`Config::feed_columns`].
    pub(crate) feed: B::Tensor,
}

impl<B: Backend> Scratch<B> {
    pub(crate) fn new(backend: &B, config: &Config, max_rows: usize, max_outputs: usize) -> Result<Self, Error> {
        Error::check_step(max_rows >= 1, "room for tokens of a step", max_rows, 1)?;
        Error::check_step(max_outputs >= 1, "room for output rows of a step", max_outputs, 1)?;
        Ok(Self {
            q: backend.tensor(max_rows, config.heads * config.key_length)?,
            k: backend.tensor(max_rows, config.kv_heads * config.key_length)?,
            v: backend.tensor(max_rows, config.kv_heads * config.value_length)?,
            angles: Vec::with_capacity(angles(config, max_rows)?),
            rows: Stream::new(backend, config, max_rows)?,
            outputs: Stream::new(backend, config, max_outputs)?,
            logits: backend.tensor(max_outputs, config.vocab_size)?,
            max_rows,
            max_outputs,
        })
    }

    /// Returns the logits of the last step: `[outputs, vocab_size]`, one row for each of its output rows.
    pub fn logits(&self) -> &B::Tensor {
        &self.logits
    }

    /// Returns the most tokens one step may have.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Returns the most output rows one step may have.
    pub fn max_outputs(&self) -> usize {
        self.max_outputs
    }
}

impl<B: Backend> Stream<B> {
    fn new(backend: &B, config: &Config, max_rows: usize) -> Result<Self, Error> {
        Ok(Self {
            x: backend.tensor(max_rows, config.embedding_length)?,
            attended: backend.tensor(max_rows, config.heads * config.value_length)?,
            feed: backend.tensor(max_rows, config.feed_columns())?,
        })
    }
}

/// The tensors were allocated before, so that a number of rows beyond reason has already been refused by the backend.
fn angles(config: &Config, max_rows: usize) -> Result<usize, Error> {
    let what = "room for tokens of a step";
    max_rows.checked_mul(config.rope.dims).ok_or(Error::Step { what, found: max_rows, limit: usize::MAX })
}
