//! What the next step computes: a pure function of who runs, who waits, the memory there is and the time allowed.
//!
//! There is no prefill and no decode phase (as in vLLM's v1 scheduler): each request has tokens known and tokens
//! computed, and a step lets some of the second catch up with the first. A step is given a duration, which a
//! [`CostModel`] learned while running turns into a number of prompt tokens; sequences that are in their answer always
//! get their token. Nothing here computes, allocates cache or knows the time: [`plan()`] is told and answers.

mod cost;
mod plan;
mod queue;
mod split;
#[cfg(test)]
mod trace;

use std::time::Duration;

pub use cost::{CostModel, Load};
pub use plan::{Active, Cached, Plan, State, Work, plan};
pub use queue::{InOrder, Queue, Waiting};

/// Number of a request; numbers grow in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// In which order waiting requests are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Priorities, then the flow that was served least, then arrival; prompts of different flows share a step.
    #[default]
    Fairness,
    /// Priorities, then arrival; the first prompt gets all of a step that it can use.
    FirstCome,
}

/// When requests may join those that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joining {
    /// At every step.
    #[default]
    AnyStep,
    /// Only when nothing runs: a batch is computed to the end of its longest answer. For comparison.
    WhenIdle,
}

/// How long an idle engine waits for company; running sequences are never held up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gather {
    /// Longest time that the first request waits.
    pub max_wait: Duration,
    /// Number of requests at which the wait ends.
    pub min_requests: usize,
}

/// The rules of scheduling.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// When requests may join.
    pub joining: Joining,
    /// Most requests that run at once.
    pub max_sequences: usize,
    /// How long an idle engine waits for company.
    pub gather: Gather,
    /// Duration aimed at for steps in which some sequence is in its answer: the time between two of its tokens.
    pub step: Duration,
    /// Duration aimed at for steps of prompts alone: a newcomer waits for the end of one.
    pub prefill_step: Duration,
    /// Prompt tokens are computed in multiples of this, the tile of the matrix product; a step with any has at least one.
    pub tile: usize,
    /// Most tokens of prompts in a step.
    pub max_chunk: usize,
    /// Most tokens of a step.
    pub max_rows: usize,
    /// Whoever waited longer than this is served next, whatever the priority and the flow.
    pub max_queue: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            joining: Joining::AnyStep,
            max_sequences: 32,
            gather: Gather::default(),
            step: Duration::from_millis(200),
            prefill_step: Duration::from_millis(500),
            tile: 16,
            max_chunk: 512,
            max_rows: 512,
            max_queue: Some(Duration::from_secs(30)),
        }
    }
}

impl Policy {
    /// Returns the policy for a decoder of `max_rows` tokens and `max_outputs` rows of logits a step: every running
    /// sequence gets its token in every step, and beside them there is room for some of a prompt.
    #[must_use]
    pub fn within(self, max_rows: usize, max_outputs: usize) -> Self {
        let max_rows = self.max_rows.min(max_rows).max(1);
        let max_sequences = self.max_sequences.min(max_outputs).min(max_rows.div_ceil(2)).max(1);
        let tile = self.tile.min(max_rows - max_sequences).max(1);
        Self { max_rows, max_sequences, tile, max_chunk: self.max_chunk.max(tile), ..self }
    }
}
