//! What a block manager may use and how it chooses.

/// Which block goes first among those that nobody uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// The least recently used.
    #[default]
    LRU,
    /// The least frequently used, with dynamic ageing (Arlitt et al., 2000), so that what was popular once leaves at last.
    LFU,
}

/// What may lose precision so that the cache takes less memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheCompression {
    /// Nothing: contents are kept as they were computed, or not at all.
    #[default]
    Disabled,
    /// What requests computed that had to give way, and only where memory is short: in 7.5 bits a number, less than half of
    /// half precision.
    Preempted,
    /// Everything, from the start: keys in eight and values in four bits, two and a half times less than half precision,
    /// scales included. A cache that is made of floats all the same compresses as with [`Preempted`](Self::Preempted).
    Enabled,
}

/// Sizes and rules of a [`BlockManager`](super::BlockManager).
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// Blocks that the device has.
    pub blocks: usize,
    /// Bytes of the contents of one block: all layers and heads of 32 tokens.
    pub block_bytes: usize,
    /// Bytes of memory that a block on the device takes once it is used; at least `block_bytes`.
    pub block_memory: usize,
    /// Bytes of one compressed block, or `None` where blocks must not or cannot be compressed.
    pub packed_bytes: Option<usize>,
    /// Most bytes of memory for everything: blocks on the device, compressed blocks, buffers, and the manager's own tables.
    pub max_bytes: usize,
    /// Most bytes of the spill file; 0 for none.
    pub spill_bytes: u64,
    /// Which unused block goes first.
    pub eviction: EvictionPolicy,
    /// Most sequences at a time that the manager keeps tables for without allocating.
    pub sequences: usize,
}
