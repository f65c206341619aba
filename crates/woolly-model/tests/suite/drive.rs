//! Loading models and running token ids through them.

use std::sync::Arc;

use woolly_gguf::GGUFLoader;
use woolly_model::{Decoder, Error, Model, Runner, RunnerOptions, Step};
use woolly_tensor::{BLOCK_TOKENS, Backend, Batch, CacheType, Sequence};

/// Loads a model onto `backend` and gives it a cache for one context of the model (512 tokens at most), with room for
/// the logits of every row.
pub(crate) fn runner<B: Backend>(loader: &GGUFLoader, backend: &Arc<B>) -> Result<Runner<B>, Error> {
    let model = Arc::new(Model::load(loader, backend.as_ref(), &mut |_| ())?);
    let context = model.config().context_length.min(512);
    let options = RunnerOptions { context, max_rows: context, max_outputs: context, storage: CacheType::F32 };
    Runner::new(Arc::clone(backend), model, options)
}

/// Returns the logits of all rows of `ids`, computed from position 0 in steps of at most `chunk` tokens.
pub(crate) fn logits(decoder: &mut dyn Decoder, ids: &[u32], chunk: usize) -> Result<Vec<f32>, Error> {
    let vocab_size = decoder.config().vocab_size;
    let mut logits = vec![f32::NAN; ids.len() * vocab_size];
    for (index, (part, out)) in ids.chunks(chunk).zip(logits.chunks_mut(chunk * vocab_size)).enumerate() {
        let outputs: Vec<u32> = (0..part.len() as u32).collect();
        append(decoder, part, index * chunk, &outputs, out)?;
    }
    Ok(logits)
}

/// Computes one step of a single sequence that has `start` tokens in the cache, whose blocks lie in order.
pub(crate) fn append(
    decoder: &mut dyn Decoder,
    ids: &[u32],
    start: usize,
    outputs: &[u32],
    logits: &mut [f32],
) -> Result<(), Error> {
    let needed = (start + ids.len()).div_ceil(BLOCK_TOKENS);
    let blocks: Vec<u32> = (0..needed as u32).collect();
    let sequences = [Sequence { rows: 0..ids.len(), start, blocks: &blocks }];
    decoder.forward(Step { ids, batch: Batch { sequences: &sequences }, outputs }, logits)
}

/// Returns the index of the largest value; the first of equal ones.
pub(crate) fn argmax(values: &[f32]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).expect("there are values")
}

/// Returns the largest difference and the root of the mean square of the differences.
pub(crate) fn deviation(found: &[f32], expected: &[f32]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len(), "numbers of logits differ");
    let differences = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    // `f64::max` would forget a NaN.
    let largest = differences.clone().fold(0.0, |max: f64, d| if d <= max || max.is_nan() { max } else { d });
    (largest, (differences.map(|d| d * d).sum::<f64>() / found.len() as f64).sqrt())
}
