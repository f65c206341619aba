//! The key-value cache: block after block, each with its part of every layer and key-value head.
//!
//! A block lies in one piece, so that it is copied, saved and given back to the system at once, and starts on a page. Of
//! its 32 tokens a head has the keys transposed, so that scores of many tokens come out in the lanes of a vector, and the
//! values as they are, each with its scales behind it where the storage type has some ([`crate::kernels::storage`] says
//! how). The cache does not know which block belongs to which sequence. The layout is the same on every instruction set:
//! saved blocks can be loaded on another.

use std::fmt;
use std::ops::Range;

use woolly_tensor::{BLOCK_TOKENS, BackendError, CacheSpec, CacheType};

use crate::buffer::ALIGNMENT;
use crate::kernels::storage::{clear_from, sizes};
use crate::pages::Pages;

/// Keys and values of all layers; memory is taken as blocks are first written.
pub struct CpuCache {
    pub(crate) spec: CacheSpec,
    pub(crate) memory: Pages,
    layout: Layout,
}

impl fmt::Debug for CpuCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuCache").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl CpuCache {
    pub(crate) fn new(spec: &CacheSpec) -> Result<Self, BackendError> {
        let refused = |bytes| BackendError::OutOfMemory { what: "key-value cache", bytes };
        let layout = Layout::new(spec).ok_or(refused(usize::MAX))?;
        let total = layout.block.checked_mul(spec.blocks).ok_or(refused(usize::MAX))?;
        let memory = Pages::reserve(total).ok_or(refused(total))?;
        Ok(Self { spec: spec.clone(), memory, layout })
    }

    /// Returns where things lie.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of a block that hold something: what lies between it and the next page is left out.
    pub(crate) fn block_bytes(&self) -> usize {
        self.layout.head * self.spec.layers * self.spec.kv_heads
    }

    /// Takes memory in huge pages from now on, of which only the last may be partly in use while blocks are used in order.
    pub(crate) fn use_in_order(&mut self) {
        self.memory.prefer_huge(0..self.memory.bytes().len());
    }

    pub(crate) fn copy_block(&mut self, from: u32, to: u32) -> Result<(), BackendError> {
        BackendError::expect_blocks("copy_block", &[from, to], self.spec.blocks)?;
        let (from, to) = (self.bytes_of(from), self.bytes_of(to));
        self.memory.bytes_mut().copy_within(from, to.start);
        Ok(())
    }

    pub(crate) fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        self.check_block("save_block", block, out.len())?;
        out.copy_from_slice(&self.memory.bytes()[self.bytes_of(block)]);
        Ok(())
    }

    pub(crate) fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_block("load_block", block, bytes.len())?;
        let range = self.bytes_of(block);
        self.memory.bytes_mut()[range].copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), BackendError> {
        BackendError::expect_blocks("release_blocks", blocks, self.spec.blocks)?;
        let stride = self.layout.block;
        for &block in blocks {
            self.memory.release(block as usize * stride..(block as usize + 1) * stride);
        }
        Ok(())
    }

    fn check_block(&self, op: &'static str, block: u32, bytes: usize) -> Result<(), BackendError> {
        BackendError::expect_blocks(op, &[block], self.spec.blocks)?;
        BackendError::expect_size(op, "bytes of a block", bytes, self.block_bytes())
    }

    fn bytes_of(&self, block: u32) -> Range<usize> {
        let start = block as usize * self.layout.block;
        start..start + self.block_bytes()
    }
}

/// Where things lie within the cache, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) storage: CacheType,
    pub(crate) key_length: usize,
    pub(crate) value_length: usize,
    /// Elements of a value row: whole vectors, the surplus staying zero.
    pub(crate) columns: usize,
    kv_heads: usize,
    /// Where the scales of the keys, the values, and their scales start in a head's part of a block.
    pub(crate) key_scales: usize,
    pub(crate) values: usize,
    pub(crate) value_scales: usize,
    /// Bytes from one value to the next.
    pub(crate) value_row: usize,
    /// Bytes of one head's part of a block: whole cache lines.
    pub(crate) head: usize,
    /// Bytes from one block to the next: whole pages.
    pub(crate) block: usize,
}

impl Layout {
    pub(crate) fn new(spec: &CacheSpec) -> Option<Self> {
        let CacheSpec { storage, key_length, value_length, kv_heads, .. } = *spec;
        let sizes = sizes(storage, key_length, value_length)?;
        let values = sizes.keys.checked_add(sizes.key_scales)?;
        let value_scales = sizes.value_row.checked_mul(BLOCK_TOKENS)?.checked_add(values)?;
        let head = value_scales.checked_add(sizes.value_scales)?.checked_next_multiple_of(ALIGNMENT)?;
        let block = head.checked_mul(kv_heads)?.checked_mul(spec.layers)?;
        let block = block.checked_next_multiple_of(Pages::page_size())?;
        let (columns, key_scales, value_row) = (sizes.columns, sizes.keys, sizes.value_row);
        let at = Self {
            storage,
            key_length,
            value_length,
            columns,
            kv_heads,
            key_scales,
            values,
            value_scales,
            value_row,
            head,
            block,
        };
        Some(at)
    }

    /// Zeros in the contents of a block what follows its first `tokens` tokens.
    pub(crate) fn keep_tokens(&self, tokens: usize, contents: &mut [u8]) {
        let kept = tokens.min(BLOCK_TOKENS);
        contents.chunks_exact_mut(self.head).for_each(|head| clear_from(self, head, kept));
    }

    /// Returns the bytes of one head of one layer in a block.
    pub(crate) fn of_head(&self, layer: usize, head: usize, block: usize) -> Range<usize> {
        let start = block * self.block + (layer * self.kv_heads + head) * self.head;
        start..start + self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CacheSpec {
        CacheSpec { layers: 2, kv_heads: 3, key_length: 5, value_length: 9, blocks: 4, storage: CacheType::F16 }
    }

    #[test]
    fn heads_of_all_layers_tile_a_block_and_blocks_start_on_pages() {
        let cache = CpuCache::new(&spec()).unwrap();
        let layout = cache.layout();
        let mut next = 0;
        for (block, layer, head) in (0..24).map(|i| (i / 6, i / 3 % 2, i % 3)) {
            if (layer, head) == (0, 0) {
                assert!(next <= block * layout.block && block * layout.block < next + Pages::page_size());
                next = block * layout.block;
                assert!(next.is_multiple_of(Pages::page_size()));
            }
            assert_eq!(layout.of_head(layer, head, block).start, next);
            next = layout.of_head(layer, head, block).end;
        }
        assert!(next <= cache.memory.bytes().len());
        assert_eq!(cache.block_bytes(), 2 * 3 * (5 + 16) * BLOCK_TOKENS * 2);
    }

    #[test]
    fn use_in_order_changes_no_contents() {
        let mut cache = CpuCache::new(&CacheSpec { blocks: 2000, ..spec() }).unwrap();
        let block = vec![7; cache.block_bytes()];
        cache.load_block(3, &block).unwrap();
        cache.use_in_order();
        cache.load_block(1900, &block).unwrap();
        for (number, expected) in [(3, 7), (1900, 7), (4, 0), (1899, 0)] {
            let mut saved = vec![1; block.len()];
            cache.save_block(number, &mut saved).unwrap();
            assert!(saved.iter().all(|&byte| byte == expected), "block {number}");
        }
    }

    #[test]
    fn sizes_that_overflow_or_cannot_be_had_are_errors() {
        for blocks in [usize::MAX / 2, 1 << 50] {
            let error = CpuCache::new(&CacheSpec { blocks, ..spec() }).unwrap_err();
            assert!(matches!(error, BackendError::OutOfMemory { .. }), "{error}");
        }
    }
}
