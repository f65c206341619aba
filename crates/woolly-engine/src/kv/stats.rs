//! Counts of what the cache saved and what it cost.

/// Counters since the manager was made, and bytes as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvStats {
    /// Tokens of all prompts begun.
    pub prompt_tokens: u64,
    /// Those of them whose keys and values were there already.
    pub cached_tokens: u64,
    /// Blocks found as a whole or in part.
    pub hits: u64,
    /// Whole or partial blocks of prompts that were not.
    pub misses: u64,
    /// Unused blocks forgotten to make room.
    pub evictions: u64,
    /// Blocks copied because a sequence wrote to what others share.
    pub copies: u64,
    /// Blocks compressed.
    pub packed: u64,
    /// Blocks written to the spill file.
    pub spilled: u64,
    /// Blocks brought back to the device.
    pub restored: u64,
    /// Blocks of preempted sequences forgotten, to be computed again.
    pub dropped: u64,
    /// Blocks of two sequences found to be equal and stored once from then on.
    pub merged: u64,
    /// Blocks of running and preempted sequences on the device.
    pub used_blocks: usize,
    /// Blocks on the device that nobody uses and that later prompts may find.
    pub cached_blocks: usize,
    /// Blocks that running sequences could be given at once, after everything else gave way.
    pub available_blocks: usize,
    /// Bytes of blocks on the device whose memory is in use.
    pub device_bytes: usize,
    /// Bytes of compressed blocks.
    pub packed_bytes: usize,
    /// Bytes of buffers and of the manager's tables.
    pub overhead_bytes: usize,
    /// Bytes in the spill file, which is not memory and not part of the limit.
    pub spilled_bytes: u64,
}

impl KvStats {
    /// Returns the share of prompt tokens that did not have to be computed, 0 to 1; 0 before the first prompt.
    pub fn cache_hit_rate(&self) -> f64 {
        if self.prompt_tokens == 0 { 0.0 } else { self.cached_tokens as f64 / self.prompt_tokens as f64 }
    }

    /// Returns the bytes that count towards the limit.
    pub fn memory_bytes(&self) -> usize {
        self.device_bytes + self.packed_bytes + self.overhead_bytes
    }
}
