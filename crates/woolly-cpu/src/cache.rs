//! The key-value cache: one contiguous run of memory for each layer and key-value head, block after block.
//!
//! Of each block of 32 tokens a head has its keys transposed, `[key_length][32]`, so that scores of many tokens come out
//! in the lanes of a vector, and its values as they are, `[32][value stride]`. It does not know which block belongs to
//! which sequence.

use std::fmt;
use std::ops::Range;

use woolly_tensor::{BLOCK_TOKENS, BackendError, CacheSpec, CacheType};

use crate::buffer::AlignedVec;
use crate::kernels::disjoint::Disjoint;
use crate::kernels::element::Element;
use crate::kernels::simd::MAX_LANES;

/// Keys and values of all layers.
pub struct CpuCache {
    pub(crate) spec: CacheSpec,
    pub(crate) elements: Elements,
}

/// The stored numbers: `[layer][kv head][block][keys then values]`.
pub(crate) enum Elements {
    F32(AlignedVec<f32>),
    F16(AlignedVec<u16>),
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
        let total = layout.head.checked_mul(spec.kv_heads).and_then(|n| n.checked_mul(spec.layers));
        let total = total.ok_or(refused(usize::MAX))?;
        let elements = match spec.storage {
            CacheType::F32 => AlignedVec::try_zeroed(total).map(Elements::F32),
            CacheType::F16 => AlignedVec::try_zeroed(total).map(Elements::F16),
            _ => return Err(BackendError::Unsupported { backend: "cpu", what: "this storage type of the cache" }),
        };
        let elements = elements.ok_or(refused(total.saturating_mul(spec.storage.bytes())))?;
        Ok(Self { spec: spec.clone(), elements })
    }

    /// Returns where things lie. A cache that exists has sizes that do not overflow.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.spec).expect("checked when the cache was made")
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
    /// Elements of one block of one head.
    pub(crate) block: usize,
    /// Elements of all blocks of one head.
    pub(crate) head: usize,
}

impl Layout {
    fn new(spec: &CacheSpec) -> Option<Self> {
        let value_stride = spec.value_length.checked_next_multiple_of(MAX_LANES)?;
        let block = spec.key_length.checked_add(value_stride)?.checked_mul(BLOCK_TOKENS)?;
        let (key_length, value_length, kv_heads) = (spec.key_length, spec.value_length, spec.kv_heads);
        Some(Self { key_length, value_stride, value_length, kv_heads, block, head: block.checked_mul(spec.blocks)? })
    }

    /// Returns the elements of one head in one layer.
    pub(crate) fn of_head(&self, layer: usize, head: usize) -> Range<usize> {
        let start = (layer * self.kv_heads + head) * self.head;
        start..start + self.head
    }

    /// Returns the elements of one block of one head in one layer.
    pub(crate) fn of_block(&self, layer: usize, head: usize, block: usize) -> Range<usize> {
        let start = (layer * self.kv_heads + head) * self.head + block * self.block;
        start..start + self.block
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
    fn blocks_of_all_layers_and_heads_tile_the_memory() {
        let cache = CpuCache::new(&spec()).unwrap();
        let layout = cache.layout();
        let mut next = 0;
        for (layer, head, block) in (0..24).map(|i| (i / 12, i / 4 % 3, i % 4)) {
            assert_eq!(layout.of_block(layer, head, block).start, next);
            next = layout.of_block(layer, head, block).end;
        }
        let Elements::F16(elements) = &cache.elements else { panic!("asked for half precision") };
        assert_eq!(elements.len(), next);
    }

    #[test]
    fn keys_lie_transposed_and_values_in_rows() {
        let layout = CpuCache::new(&spec()).unwrap().layout();
        let mut block = vec![0.0_f32; layout.block];
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
