//! How requests are put together.

use std::time::Duration;

use woolly_engine::schedule::{Gather, Joining, Order, Policy};

use crate::Error;

/// When requests are computed together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchingMode {
    /// A batch is gathered while the engine is idle and computed to the end of its longest answer; who comes later
    /// waits. Here for comparison: the other two are never worse.
    Static(BatchConfig),
    /// A batch is gathered while the engine is idle, so that its prompts are computed together; who comes later joins
    /// at the next step while there is room.
    Dynamic(BatchConfig),
    /// Requests join and leave at every step, and nobody ever waits for company.
    Continuous {
        /// Most requests that run at once; others wait.
        max_sequences: usize,
        /// Who is served first.
        scheduling: SchedulingPolicy,
    },
}

impl Default for BatchingMode {
    /// Continuous, 32 sequences, fair.
    fn default() -> Self {
        Self::Continuous { max_sequences: 32, scheduling: SchedulingPolicy::default() }
    }
}

/// How batches are gathered while the engine is idle; running sequences are never held up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Most requests that run at once; others wait.
    pub max_batch_size: usize,
    /// Longest time in milliseconds that the first request of a batch waits for others.
    pub max_wait_ms: u64,
    /// Number of requests at which a batch starts at once.
    pub min_batch_size: usize,
    /// How sequences of different length are made to fit together.
    pub padding_strategy: PaddingStrategy,
}

impl Default for BatchConfig {
    /// 16 requests, of which 4 start at once and fewer after 50 ms.
    fn default() -> Self {
        Self { max_batch_size: 16, max_wait_ms: 50, min_batch_size: 4, padding_strategy: PaddingStrategy::Efficient }
    }
}

/// How sequences of different length are made to fit together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaddingStrategy {
    /// As little as the device allows: none on a processor, where rows of any number of sequences lie side by side.
    #[default]
    Efficient,
    /// No padding, whatever the device.
    None,
    /// To the longest of the batch. Refused on a processor, where it could only add work.
    Longest,
    /// To this number of tokens. Refused on a processor, where it could only add work.
    Fixed(usize),
}

/// Who is served first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulingPolicy {
    /// Priorities, then the flow (see [`SessionConfig::flow`](super::SessionConfig::flow)) that has had the fewest
    /// tokens, then arrival. Short prompts do not wait behind long ones.
    #[default]
    Fairness,
    /// Priorities, then arrival.
    FirstCome,
}

impl BatchingMode {
    /// Returns the most requests that run at once.
    pub fn max_sequences(&self) -> usize {
        match self {
            Self::Static(config) | Self::Dynamic(config) => config.max_batch_size,
            Self::Continuous { max_sequences, .. } => *max_sequences,
        }
    }

    /// Returns the rules of scheduling that this mode stands for, or why it cannot be.
    pub(super) fn policy(&self) -> Result<(Policy, Order), Error> {
        if self.max_sequences() == 0 {
            return Err(Error::config("batching", "no request could ever run; allow at least 1"));
        }
        let max_sequences = self.max_sequences();
        let base = Policy { max_sequences, ..Policy::default() };
        match self {
            Self::Static(config) => {
                let (joining, gather) = (Joining::WhenIdle, config.gather()?);
                Ok((Policy { joining, gather, ..base }, Order::FirstCome))
            }
            Self::Dynamic(config) => Ok((Policy { gather: config.gather()?, ..base }, Order::Fairness)),
            Self::Continuous { scheduling: SchedulingPolicy::Fairness, .. } => Ok((base, Order::Fairness)),
            Self::Continuous { scheduling: SchedulingPolicy::FirstCome, .. } => Ok((base, Order::FirstCome)),
        }
    }
}

impl BatchConfig {
    fn gather(&self) -> Result<Gather, Error> {
        if self.min_batch_size > self.max_batch_size {
            let why = "a batch could never become that large; make it at most max_batch_size";
            return Err(Error::config("min_batch_size", why));
        }
        match self.padding_strategy {
            PaddingStrategy::Efficient | PaddingStrategy::None => {}
            PaddingStrategy::Longest | PaddingStrategy::Fixed(_) => {
                let why = "this device computes rows of any length side by side, so that padding would only add work; \
                           use PaddingStrategy::Efficient";
                return Err(Error::config("padding_strategy", why));
            }
        }
        Ok(Gather { max_wait: Duration::from_millis(self.max_wait_ms), min_requests: self.min_batch_size })
    }
}
