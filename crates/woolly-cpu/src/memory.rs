//! A pool of buffers: a limit on what they take together, an alignment, and the choice to use them again.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use woolly_tensor::BackendError;

use crate::buffer::{ALIGNMENT, AlignedVec};

/// Rules of a [`MemoryPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Most bytes of all buffers of the pool together, those kept for later included.
    pub limit: usize,
    /// Bytes that the address of a buffer is a multiple of: a power of two.
    pub alignment: usize,
    /// Whether a buffer that is no longer needed is kept for the next of its size.
    pub reuse: bool,
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes of buffers in use.
    pub used_bytes: usize,
    /// Bytes of buffers kept for later.
    pub idle_bytes: usize,
    /// Buffers that were used again instead of being allocated.
    pub reused: usize,
}

/// Hands out zeroed buffers of floats within its limit.
#[derive(Debug)]
pub struct MemoryPool {
    options: MemoryOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stats: PoolStats,
    idle: Vec<AlignedVec<f32>>,
}

/// Zeroed floats, from a pool or from the system.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// `None` only while the buffer is dropped.
    values: Option<AlignedVec<f32>>,
    start: usize,
    len: usize,
    pool: Option<Arc<MemoryPool>>,
}

impl MemoryPool {
    /// Makes an empty pool; nothing is allocated yet. An alignment below that of every vector (64) is met by it.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] for an alignment that is no power of two.
    pub fn new(options: MemoryOptions) -> Result<Self, BackendError> {
        if !options.alignment.is_power_of_two() {
            return Err(BackendError::Unsupported { backend: "cpu", what: "an alignment that is no power of two" });
        }
        Ok(Self { options, state: Mutex::default() })
    }

    /// Returns what the pool holds now.
    pub fn stats(&self) -> PoolStats {
        self.lock().stats
    }

    /// Returns a buffer of `len` zeros.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Result<Buffer, BackendError> {
        let slack = self.options.alignment.saturating_sub(ALIGNMENT) / size_of::<f32>();
        let total = len.checked_add(slack).ok_or(full(usize::MAX))?;
        let values = match self.take_idle(total) {
            Some(mut values) => {
                values.fill(0.0);
                values
            }
            None => self.allocate(total)?,
        };
        let address = values.as_ptr().addr();
        let start = (address.next_multiple_of(self.options.alignment) - address) / size_of::<f32>();
        Ok(Buffer { values: Some(values), start, len, pool: Some(self.clone()) })
    }

    /// Returns a kept buffer of exactly this size: one that is larger would waste what the limit counts.
    fn take_idle(&self, len: usize) -> Option<AlignedVec<f32>> {
        let mut state = self.lock();
        let at = state.idle.iter().position(|values| values.len() == len)?;
        let values = state.idle.swap_remove(at);
        state.stats.idle_bytes -= bytes(len);
        state.stats.used_bytes += bytes(len);
        state.stats.reused += 1;
        Some(values)
    }

    fn allocate(&self, len: usize) -> Result<AlignedVec<f32>, BackendError> {
        let mut state = self.lock();
        let size = len.checked_mul(size_of::<f32>()).ok_or(full(usize::MAX))?;
        // Kept buffers of other sizes go before anything is refused.
        while size > self.options.limit.saturating_sub(state.stats.used_bytes + state.stats.idle_bytes) {
            let idle = state.idle.pop().ok_or(full(size))?;
            state.stats.idle_bytes -= bytes(idle.len());
        }
        let refused = BackendError::OutOfMemory { what: "activations", bytes: size };
        let values = AlignedVec::try_zeroed(len).ok_or(refused)?;
        state.stats.used_bytes += size;
        Ok(values)
    }

    fn give_back(&self, values: AlignedVec<f32>) {
        let mut state = self.lock();
        let size = bytes(values.len());
        state.stats.used_bytes -= size;
        if self.options.reuse {
            state.stats.idle_bytes += size;
            state.idle.push(values);
        }
    }

    /// Locks whether or not a holder panicked: counts and buffers are changed together, without anything in between.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(len: usize) -> usize {
    len * size_of::<f32>()
}

fn full(bytes: usize) -> BackendError {
    BackendError::OutOfMemory { what: "activations within the memory pool, whose size is configured", bytes }
}

impl Buffer {
    /// Allocates `len` zeros from the system, or returns `None` when it refuses.
    pub(crate) fn try_zeroed(len: usize) -> Option<Self> {
        Some(Self { values: Some(AlignedVec::try_zeroed(len)?), start: 0, len, pool: None })
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.values {
            Some(values) => &values[self.start..self.start + self.len],
            None => &[],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.values {
            Some(values) => &mut values[self.start..self.start + self.len],
            None => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(pool), Some(values)) = (&self.pool, self.values.take()) {
            pool.give_back(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(limit: usize, alignment: usize, reuse: bool) -> Arc<MemoryPool> {
        Arc::new(MemoryPool::new(MemoryOptions { limit, alignment, reuse }).unwrap())
    }

    #[test]
    fn buffers_are_zeroed_and_aligned_as_asked() {
        for alignment in [1, 64, 256, 4096] {
            let pool = pool(1 << 20, alignment, true);
            for _ in 0..3 {
                let mut buffers = [1, 100, 1000].map(|len| pool.take(len).unwrap());
                for buffer in &mut buffers {
                    assert!(buffer.as_ptr().addr().is_multiple_of(alignment.max(ALIGNMENT)));
                    assert!(buffer.iter().all(|&x| x == 0.0));
                    buffer.fill(7.0);
                }
                assert_eq!(buffers.each_ref().map(|buffer| buffer.len()), [1, 100, 1000]);
            }
            assert_eq!(pool.stats().reused, 6);
        }
        let odd = MemoryPool::new(MemoryOptions { limit: 1, alignment: 48, reuse: true });
        assert!(odd.unwrap_err().to_string().contains("power of two"));
    }

    #[test]
    fn the_limit_counts_everything_and_what_is_kept_gives_way() {
        let pool = pool(4000, 64, true);
        let half = pool.take(500).unwrap();
        let error = pool.take(501).unwrap_err().to_string();
        assert!(error.contains("memory pool") && error.contains("2004 bytes"), "{error}");
        drop(half);
        assert_eq!(pool.stats(), PoolStats { used_bytes: 0, idle_bytes: 2000, reused: 0 });
        let other = pool.take(501).unwrap();
        assert_eq!(pool.stats(), PoolStats { used_bytes: 2004, idle_bytes: 0, reused: 0 });
        drop(other);
        assert!(pool.take(usize::MAX).is_err() && pool.take(usize::MAX / 4).is_err());
    }

    #[test]
    fn without_reuse_nothing_is_kept() {
        let pool = pool(4000, 64, false);
        for _ in 0..3 {
            drop(pool.take(1000).unwrap());
        }
        assert_eq!(pool.stats(), PoolStats::default());
    }
}
