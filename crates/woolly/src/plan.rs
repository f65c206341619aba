//! How much memory a session takes, and whether that is there: decided before anything is allocated.

use woolly_model::{Config, RunnerOptions};
use woolly_tensor::{BLOCK_TOKENS, CacheSpec};

use crate::device::Loaded;
use crate::{Error, memory};

/// What a session will allocate, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    cache: u64,
    compute: u64,
}

/// Refuses sizes that would not fit the memory available now.
pub(crate) fn check(loaded: &dyn Loaded, options: &RunnerOptions) -> Result<(), Error> {
    match memory::available() {
        Some(available) => check_against(loaded, options, available),
        None => Ok(()),
    }
}

fn check_against(loaded: &dyn Loaded, options: &RunnerOptions, available: u64) -> Result<(), Error> {
    let block = block_bytes(&loaded.cache_spec(1, options.storage));
    let need = Need {
        cache: block.saturating_mul(options.context.div_ceil(BLOCK_TOKENS) as u64),
        compute: compute_bytes(loaded.config(), options),
    };
    if need.cache.saturating_add(need.compute) <= available {
        return Ok(());
    }
    let blocks = available.saturating_sub(need.compute).checked_div(block).unwrap_or(0);
    let largest = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(BLOCK_TOKENS);
    Err(Error::OutOfMemory {
        context: options.context,
        cache_bytes: need.cache,
        compute_bytes: need.compute,
        available_bytes: available,
        largest_context: (largest > 0).then_some(largest),
    })
}

/// A size beyond 64 bits certainly does not fit.
pub(crate) fn block_bytes(one_block: &CacheSpec) -> u64 {
    one_block.bytes().map_or(u64::MAX, |bytes| bytes as u64)
}

/// Bytes of the buffers of a step: what the model's scratch holds, and the logits handed to the engine.
pub(crate) fn compute_bytes(config: &Config, options: &RunnerOptions) -> u64 {
    let attended = config.heads * config.value_length;
    let feed = config.feed_forward_length.max(config.embedding_length);
    let stream = config.embedding_length + attended + feed;
    let heads = config.heads * config.key_length + config.kv_heads * (config.key_length + config.value_length);
    let row = stream + heads + config.rope.dims;
    let output = stream + 2 * config.vocab_size;
    let elements = (row as u64).saturating_mul(options.max_rows as u64);
    let elements = elements.saturating_add((output as u64).saturating_mul(options.max_outputs as u64));
    elements.saturating_mul(size_of::<f32>() as u64)
}
