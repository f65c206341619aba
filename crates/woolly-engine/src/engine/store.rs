//! The cache blocks of the engine's sequences: who has which, and where contents are that are not on the device.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use woolly_model::Decoder;
use woolly_tensor::CacheType;

use super::stats::{Counters, set};
use crate::kv::{
    BlockManager, CacheCompression, EvictionPolicy, Fingerprint, KvOptions, KvStats, KvStore, NoSpace, Preemption,
    Restored, SeqId, SessionError, StoreError,
};
use crate::schedule::Cached;

/// How an engine keeps keys and values; the decoder's cache is the most it can have on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheOptions {
    /// How the decoder's cache stores them.
    pub storage: CacheType,
    /// Most bytes of memory for all of it, compressed blocks and tables included; `None` for as many blocks as the
    /// decoder has.
    pub max_bytes: Option<usize>,
    /// What may be compressed, at some loss; the decoder's own storage is chosen by whoever makes it.
    pub compression: CacheCompression,
    /// Most bytes of a file for blocks of preempted requests; 0 for none.
    pub spill_bytes: u64,
    /// The folder of this file.
    pub spill_dir: PathBuf,
    /// Which of the blocks that nobody uses goes first.
    pub eviction: EvictionPolicy,
}

impl Default for CacheOptions {
    /// Half precision, nothing compressed, no file, least recently used first.
    fn default() -> Self {
        Self {
            storage: CacheType::F16,
            max_bytes: None,
            compression: CacheCompression::Disabled,
            spill_bytes: 0,
            spill_dir: std::env::temp_dir(),
            eviction: EvictionPolicy::LRU,
        }
    }
}

/// The blocks and their contents.
pub(crate) struct Store {
    manager: BlockManager,
    contents: KvStore,
    /// Most tokens of a sequence.
    context: usize,
}

impl Store {
    /// # Errors
    /// When the limit of memory leaves room for no block.
    pub(crate) fn new(
        decoder: &dyn Decoder,
        options: CacheOptions,
        sequences: usize,
        context: usize,
    ) -> Result<Self, NoSpace> {
        let CacheOptions { storage, max_bytes, compression, spill_bytes, spill_dir, eviction } = options;
        let block_bytes = decoder.block_bytes();
        let packed_bytes = match compression {
            CacheCompression::Disabled => None,
            CacheCompression::Preempted | CacheCompression::Enabled => KvStore::packed_bytes(storage, block_bytes),
        };
        let options = KvOptions {
            blocks: decoder.cache_blocks(),
            block_bytes,
            block_memory: decoder.block_memory(),
            packed_bytes,
            max_bytes: max_bytes.unwrap_or(usize::MAX),
            spill_bytes,
            eviction,
            sequences,
        };
        let contents = KvStore::new(storage, block_bytes, &spill_dir);
        Ok(Self { manager: BlockManager::new(options)?, contents, context })
    }

    pub(crate) fn total(&self) -> usize {
        self.manager.total_blocks()
    }

    pub(crate) fn free(&self) -> usize {
        self.manager.available_blocks()
    }

    /// Writes down what has given way so far and what memory is in use.
    pub(crate) fn report(&self, counters: &Counters) {
        let stats = self.manager.stats();
        let KvStats { evictions, packed, spilled, dropped, .. } = stats;
        counters.blocks_evicted.store(evictions, Relaxed);
        counters.blocks_compressed.store(packed, Relaxed);
        counters.blocks_spilled.store(spilled, Relaxed);
        counters.blocks_dropped.store(dropped, Relaxed);
        set(&counters.cache_bytes, stats.memory_bytes());
    }

    /// Returns what there is of a sequence that has not begun.
    pub(crate) fn lookup(&self, tokens: &[u32], salt: u64) -> Cached {
        let needed = self.manager.blocks_to_begin(tokens, salt);
        Cached { tokens: self.manager.cached_tokens(tokens, salt), needed, pending: false }
    }

    /// Returns what there is of a sequence of `known` tokens that was stopped.
    pub(crate) fn resume(&self, seq: &SeqId, known: usize) -> Cached {
        let tokens = self.manager.computed(seq);
        Cached { tokens, needed: self.manager.blocks_to_resume(seq, known + 1), pending: false }
    }

    /// Begins a sequence with what the cache has of its tokens.
    pub(crate) fn begin(&mut self, tokens: &[u32], salt: u64) -> SeqId {
        self.manager.begin(tokens, salt, self.context).seq
    }

    /// Gets blocks for the next `rows` tokens of a sequence; returns whether there were enough.
    pub(crate) fn reserve(&mut self, seq: &SeqId, rows: usize) -> bool {
        self.manager.reserve(seq, rows).is_ok()
    }

    /// Moves contents to where the sequences that were reserved for need them.
    ///
    /// # Errors
    /// When some are lost; each sequence must be looked at and reserved for again.
    pub(crate) fn prepare(&mut self, decoder: &mut dyn Decoder) -> Result<(), StoreError> {
        self.contents.carry_out(&mut self.manager, decoder)
    }

    pub(crate) fn computed(&self, seq: &SeqId) -> usize {
        self.manager.computed(seq)
    }

    /// Returns the blocks of a sequence that was reserved for, in the order of positions.
    pub(crate) fn blocks(&self, seq: &SeqId) -> &[u32] {
        self.manager.table(seq)
    }

    /// Returns how many more blocks the next `rows` tokens take, and how many come free when the sequence is stopped.
    pub(crate) fn demand(&self, seq: &SeqId, rows: usize) -> (usize, usize) {
        (self.manager.blocks_needed(seq, rows), self.manager.sole_blocks(seq))
    }

    /// Writes what the cache has of these tokens; returns how many that are.
    pub(crate) fn save(
        &mut self,
        decoder: &mut dyn Decoder,
        mut tokens: Vec<u32>,
        salt: u64,
        fingerprint: Fingerprint,
        out: &mut dyn Write,
    ) -> Result<usize, SessionError> {
        // A sequence leaves its last token to be computed: here that is one that nobody asked for.
        tokens.push(0);
        let seq = self.manager.begin(&tokens, salt, 0).seq;
        let saved = self.contents.save(&mut self.manager, decoder, &seq, fingerprint, out);
        let computed = self.manager.computed(&seq);
        self.manager.release(seq);
        saved.map(|()| computed)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub(crate) fn restore(
        &mut self,
        decoder: &mut dyn Decoder,
        salt: u64,
        fingerprint: Fingerprint,
        input: &mut dyn Read,
    ) -> Result<Restored, SessionError> {
        self.contents.restore(&mut self.manager, decoder, salt, fingerprint, input)
    }

    /// Notes that tokens were computed.
    pub(crate) fn commit(&mut self, seq: &SeqId, tokens: &[u32]) {
        self.manager.commit(seq, tokens);
    }

    /// Stops a sequence that will go on later.
    pub(crate) fn preempt(&mut self, seq: &SeqId) {
        self.manager.preempt(seq, Preemption::Hold);
    }

    /// Ends a sequence; what it computed may be found by others unless it `failed`.
    pub(crate) fn end(&mut self, seq: SeqId, failed: bool) {
        if failed {
            self.manager.discard(seq);
        } else {
            self.manager.release(seq);
        }
    }

    /// Proves the accounting, in debug builds; for idle moments.
    pub(crate) fn check(&self) {
        debug_assert_eq!(self.manager.audit(), Ok(()));
    }

    /// Changes the limit of memory; returns whether that was possible now.
    pub(crate) fn resize(&mut self, max_bytes: usize) -> bool {
        self.manager.resize(max_bytes).is_ok()
    }
}
