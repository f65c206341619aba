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

/// Whether blocks of preempted sequences may lose precision to stay in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheCompression {
    /// Contents are kept exactly or not at all.
    #[default]
    Disabled,
    /// Blocks of preempted sequences may be kept in fewer than half the bits of half precision.
    Enabled,
}

/// Sizes and rules of a [`BlockManager`](super::BlockManager).
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// Blocks that the device has.
    pub blocks: usize,
    /// Bytes of one block on the device: all layers and heads of 32 tokens.
    pub block_bytes: usize,
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
