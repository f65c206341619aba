//! The key-value cache: block after block, each with its part of every layer and key-value head.
//!
//! A block lies in one piece, so that it is copied, saved and given back to the system at once, and starts on a page. Of
//! its 32 tokens a head has the keys transposed, `[key_length][32]`, so that scores of many tokens come out in the lanes
//! of a vector, and the values as they are, `[32][value stride]`. The cache does not know which block belongs to which
//! sequence. The layout is the same on every instruction set: saved blocks can be loaded on another.

use std::fmt;
use std::ops::Range;

use woolly_tensor::{BLOCK_TOKENS, BackendError, CacheSpec, CacheType};

use crate::kernels::disjoint::Disjoint;
use crate::kernels::element::Element;
use crate::kernels::simd::MAX_LANES;
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
        if !matches!(spec.storage, CacheType::F32 | CacheType::F16) {
            return Err(Self::unsupported());
        }
        let refused = |bytes| BackendError::OutOfMemory { what: "key-value cache", bytes };
        let layout = Layout::new(spec).ok_or(refused(usize::MAX))?;
        let total = layout.block.checked_mul(spec.blocks).and_then(|n| n.checked_mul(spec.storage.bytes()));
        let total = total.ok_or(refused(usize::MAX))?;
        let memory = Pages::reserve(total).ok_or(refused(total))?;
        Ok(Self { spec: spec.clone(), memory, layout })
    }

    pub(crate) fn unsupported() -> BackendError {
        BackendError::Unsupported { backend: "cpu", what: "this storage type of the cache" }
    }

    /// Returns where things lie.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of a block that hold something: what lies between it and the next page is left out.
    pub(crate) fn block_bytes(&self) -> usize {
        self.layout.head * self.spec.layers * self.spec.kv_heads * self.spec.storage.bytes()
    }

    pub(crate) fn copy_block(&mut self, from: u32, to: u32) -> Result<(), BackendError> {
        BackendError::expect_blocks("copy_block", &[from, to], self.spec.blocks)?;
        let (from, to) = (self.bytes_of(from), self.bytes_of(to));
        self.memory.of_mut::<u8>().copy_within(from, to.start);
        Ok(())
    }

    pub(crate) fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        self.check_block("save_block", block, out.len())?;
        out.copy_from_slice(&self.memory.of::<u8>()[self.bytes_of(block)]);
        Ok(())
    }

    pub(crate) fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_block("load_block", block, bytes.len())?;
        let range = self.bytes_of(block);
        self.memory.of_mut::<u8>()[range].copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), BackendError> {
        BackendError::expect_blocks("release_blocks", blocks, self.spec.blocks)?;
        let stride = self.layout.block * self.spec.storage.bytes();
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
        let start = block as usize * self.layout.block * self.spec.storage.bytes();
        start..start + self.block_bytes()
    }
}

/// Sizes within the cache, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) key_length: usize,
    /// Elements from one value to the next: whole vectors, the surplus staying zero.
    pub(crate) value_stride: usize,
    pub(crate) value_length: usize,
    kv_heads: usize,
    /// Elements of one head's part of a block: keys, then values.
    pub(crate) head: usize,
    /// Elements from one block to the next: a whole number of pages.
    pub(crate) block: usize,
}

impl Layout {
    fn new(spec: &CacheSpec) -> Option<Self> {
        let value_stride = spec.value_length.checked_next_multiple_of(MAX_LANES)?;
        let head = spec.key_length.checked_add(value_stride)?.checked_mul(BLOCK_TOKENS)?;
        let block = head.checked_mul(spec.kv_heads)?.checked_mul(spec.layers)?;
        // The size of an element and that of a page are powers of two.
        let block = block.checked_next_multiple_of(Pages::page_size() / spec.storage.bytes())?;
        let (key_length, value_length, kv_heads) = (spec.key_length, spec.value_length, spec.kv_heads);
        Some(Self { key_length, value_stride, value_length, kv_heads, head, block })
    }

    /// Returns the elements of one head of one layer in a block.
    pub(crate) fn of_head(&self, layer: usize, head: usize, block: usize) -> Range<usize> {
        let start = block * self.block + (layer * self.kv_heads + head) * self.head;
        start..start + self.head
    }
}

/// Writes one token's key and value into its slot of a block of one head.
pub(crate) fn store<T: Element>(layout: &Layout, block: &mut [T], slot: usize, key: &[f32], value: &[f32]) {
    let (keys, values) = block.split_at_mut(layout.key_length * BLOCK_TOKENS);
    for (to, &from) in keys.as_chunks_mut::<BLOCK_TOKENS>().0.iter_mut().zip(key) {
        to[slot] = T::from_f32(from);
    }
    for (to, &from) in values[slot * layout.value_stride..].iter_mut().zip(value) {
        *to = T::from_f32(from);
    }
}

/// A cache that several threads write different blocks of.
pub(crate) type Shared<'a, T> = Disjoint<'a, T>;

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
                assert!((2 * next).is_multiple_of(Pages::page_size()));
            }
            assert_eq!(layout.of_head(layer, head, block).start, next);
            next = layout.of_head(layer, head, block).end;
        }
        assert!(2 * next <= cache.memory.of::<u8>().len());
        assert_eq!(cache.block_bytes(), 2 * 3 * (5 + 16) * BLOCK_TOKENS * 2);
    }

    #[test]
    fn keys_lie_transposed_and_values_in_rows() {
        let layout = CpuCache::new(&spec()).unwrap().layout();
        let mut block = vec![0.0_f32; layout.head];
        store(&layout, &mut block, 7, &[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0; 9]);
        assert_eq!(block[2 * BLOCK_TOKENS + 7], 3.0, "key element 2 of token 7");
        assert_eq!(block[5 * BLOCK_TOKENS + 7 * 16 + 8], 6.0, "value element 8 of token 7");
        assert_eq!(block.iter().filter(|&&x| x != 0.0).count(), 14);
    }

    #[test]
    fn sizes_that_overflow_or_cannot_be_had_are_errors() {
        for blocks in [usize::MAX / 2, 1 << 50] {
            let error = CpuCache::new(&CacheSpec { blocks, ..spec() }).unwrap_err();
            assert!(matches!(error, BackendError::OutOfMemory { .. }), "{error}");
        }
    }
}
