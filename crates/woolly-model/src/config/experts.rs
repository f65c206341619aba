//! Hyper-parameters of mixtures of experts.

use std::ops::RangeInclusive;

use woolly_tensor::Gating;

use super::{Config, WIDTH};
use crate::Error;
use crate::keys::Keys;

const EXPERTS: RangeInclusive<usize> = 1..=1 << 14;

/// A mixture of experts: how many there are, how many each row uses, and how they are weighed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExpertConfig {
    /// Number of experts of each layer.
    pub count: usize,
    /// Experts chosen for each row; at most `count`.
    pub used: usize,
    /// Inner width of an expert.
    pub feed_forward_length: usize,
    /// Inner width of the expert that every row uses, where the architecture has one.
    pub shared_feed_forward_length: Option<usize>,
    /// How router outputs become weights.
    pub gating: Gating,
    /// Whether the chosen weights are divided by their sum.
    pub renormalise: bool,
    /// Factor on the chosen weights.
    pub scale: f32,
}

/// What an architecture assumes where the file is silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertDefaults {
    /// Whether the chosen weights are divided by their sum.
    pub(crate) renormalise: bool,
    /// Whether `feed_forward_length` is the inner width of all chosen experts together instead of that of one.
    pub(crate) width_of_all: bool,
}

impl ExpertConfig {
    /// Reads the experts, `None` when `expert_count` is absent or 0.
    pub(crate) fn optional(keys: &Keys<'_>, config: &Config, defaults: ExpertDefaults) -> Result<Option<Self>, Error> {
        match keys.count("expert_count", 0..=*EXPERTS.end())? {
            None | Some(0) => Ok(None),
            Some(_) => Self::required(keys, config, defaults).map(Some),
        }
    }

    /// As [`Self::optional`], for architectures that always have experts.
    pub(crate) fn required(keys: &Keys<'_>, config: &Config, defaults: ExpertDefaults) -> Result<Self, Error> {
        refuse_unsupported(keys)?;
        let count = keys.require_count("expert_count", EXPERTS)?;
        let used = keys.require_count("expert_used_count", 1..=count)?;
        let parts = if defaults.width_of_all { used } else { 1 };
        Ok(Self {
            count,
            used,
            feed_forward_length: keys
                .uniform("expert_feed_forward_length", WIDTH, config.block_count)?
                .unwrap_or(config.feed_forward_length / parts),
            shared_feed_forward_length: None,
            gating: gating(keys)?,
            renormalise: keys.flag("expert_weights_norm")?.unwrap_or(defaults.renormalise),
            scale: keys.number("expert_weights_scale", 0.0)?.unwrap_or(1.0),
        })
    }

    /// Adds the expert that every row uses; its width defaults to the dense one.
    pub(crate) fn with_shared(mut self, keys: &Keys<'_>, config: &Config) -> Result<Self, Error> {
        let length = keys.count("expert_shared_feed_forward_length", WIDTH)?;
        self.shared_feed_forward_length = Some(length.unwrap_or(config.feed_forward_length));
        Ok(self)
    }
}

fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), Error> {
    for (key, neutral) in [("expert_group_count", 1), ("leading_dense_block_count", 0)] {
        if let Some(value) = keys.count(key, 0..=usize::MAX)?.filter(|&value| value > neutral) {
            return Err(keys.invalid(key, value, "this architecture does not support it"));
        }
    }
    Ok(())
}

fn gating(keys: &Keys<'_>) -> Result<Gating, Error> {
    match keys.count("expert_gating_func", 0..=usize::MAX)? {
        None | Some(0 | 1) => Ok(Gating::Softmax),
        Some(2) => Ok(Gating::Sigmoid),
        Some(other) => Err(keys.invalid("expert_gating_func", other, "known are 1 (softmax) and 2 (sigmoid)")),
    }
}
