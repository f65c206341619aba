//! What the engine has done and is doing, readable at any time without asking the engine thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters that the engine thread writes and anyone reads.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// Totals since the engine started, and what there is now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Reads every counter; they are read one by one and may be a step apart.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Requests accepted.
    submitted,
    /// Requests that ended, however they did.
    finished,
    /// Those of them that ended with an error.
    failed,
    /// Those of them that were cancelled.
    cancelled,
    /// Requests that run now.
    running,
    /// Requests that wait now.
    waiting,
    /// Steps computed.
    steps,
    /// Nanoseconds spent computing steps.
    busy_ns,
    /// Tokens of prompts of requests that started, each counted once.
    prompt_tokens,
    /// Those of them that the cache had.
    cached_tokens,
    /// Tokens of prompts computed, those again after a preemption included.
    computed_prompt_tokens,
    /// Sequences in their answer, summed over all steps.
    decode_rows,
    /// Tokens generated.
    generated_tokens,
    /// Times that a running request had to give back its cache blocks.
    preemptions,
    /// Steps given up because the spill file or the device failed, so that something had to be computed again.
    lost_steps,
    /// Cache blocks that running requests use now.
    blocks_used,
    /// Cache blocks in all.
    blocks_total,
    /// Cache blocks that nobody used and that were forgotten to make room.
    blocks_evicted,
    /// Cache blocks of preempted requests that were compressed.
    blocks_compressed,
    /// Cache blocks of preempted requests that were written to the spill file.
    blocks_spilled,
    /// Cache blocks of preempted requests that were forgotten, to be computed again.
    blocks_dropped,
    /// Bytes of memory that the cache takes now: blocks, compressed blocks, buffers and tables.
    cache_bytes,
}

impl Stats {
    /// Returns the share of prompt tokens that the cache had: 0 to 1.
    pub fn cache_hit_rate(&self) -> f64 {
        ratio(self.cached_tokens, self.prompt_tokens)
    }

    /// Returns the mean number of sequences in their answer per step.
    pub fn occupancy(&self) -> f64 {
        ratio(self.decode_rows, self.steps)
    }

    /// Returns the time spent computing.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Adds to a counter that only one thread writes.
pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

/// Sets a counter that says how things stand.
pub(crate) fn set(counter: &AtomicU64, value: usize) {
    counter.store(value as u64, Relaxed);
}
