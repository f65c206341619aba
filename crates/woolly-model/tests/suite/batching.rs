//! However tokens are divided into steps, sequences and cache blocks: the logits stay the same. On the reference backend
//! they do bit for bit, since it computes every row by itself.

use std::sync::Arc;

use woolly_gguf::GGUFLoader;
use woolly_model::{Decoder, Step};
use woolly_tensor::{Backend, Batch, Reference, Sequence};

use crate::drive::{deviation, logits, runner};
use crate::fixture::{Fixture, Spec};

/// More than two cache blocks, so that sequences lie in several.
const TOKENS: usize = 75;

#[test]
fn the_division_into_steps_does_not_change_logits() {
    check(&Arc::new(Reference::new()), 0.0);
}

/// Divides the same tokens in many ways; logits may differ by `tolerance`.
pub(crate) fn check<B: Backend>(backend: &Arc<B>, tolerance: f64) {
    check_chunks(backend, tolerance);
    check_neighbours(backend, tolerance);
    check_outputs(backend, tolerance);
}

fn check_chunks<B: Backend>(backend: &Arc<B>, tolerance: f64) {
    for (name, loader) in models() {
        let ids = ids(5, TOKENS);
        let whole = run_in_chunks(&loader, backend, &ids, TOKENS);
        for chunk in [1, 3, 7, 32, 64] {
            let found = run_in_chunks(&loader, backend, &ids, chunk);
            assert_near(&found, &whole, tolerance, &format!("{name}: chunks of {chunk}"));
        }
    }
}

fn check_neighbours<B: Backend>(backend: &Arc<B>, tolerance: f64) {
    for (name, loader) in models() {
        let (a, b) = (ids(5, TOKENS), ids(11, TOKENS - 20));
        let mut decoder = runner(&loader, backend).expect(name);
        let vocab = decoder.config().vocab_size;
        // Blocks of the two are interleaved and out of order; the second starts later and moves in other strides.
        let mut a_logits = vec![0.0; a.len() * vocab];
        let mut b_logits = vec![0.0; b.len() * vocab];
        let (mut a_done, mut b_done) = (0, 0);
        for (a_rows, b_rows) in [(30, 1), (5, 40), (1, 1), (1, 13), (38, 0)] {
            let mut ids = a[a_done..a_done + a_rows].to_vec();
            ids.extend(&b[b_done..b_done + b_rows]);
            let mut sequences = vec![Sequence { rows: 0..a_rows, start: a_done, blocks: &[3, 0, 2] }];
            if b_rows > 0 {
                sequences.push(Sequence { rows: a_rows..a_rows + b_rows, start: b_done, blocks: &[5, 1, 4] });
            }
            let outputs: Vec<u32> = (0..ids.len() as u32).collect();
            let mut found = vec![0.0; ids.len() * vocab];
            decoder
                .forward(Step { ids: &ids, batch: Batch { sequences: &sequences }, outputs: &outputs }, &mut found)
                .expect(name);
            a_logits[a_done * vocab..(a_done + a_rows) * vocab].copy_from_slice(&found[..a_rows * vocab]);
            b_logits[b_done * vocab..(b_done + b_rows) * vocab].copy_from_slice(&found[a_rows * vocab..]);
            (a_done, b_done) = (a_done + a_rows, b_done + b_rows);
        }
        assert_eq!((a_done, b_done), (a.len(), b.len()), "the strides do not add up");
        for (ids, found) in [(a, a_logits), (b, b_logits)] {
            let alone = run_in_chunks(&loader, backend, &ids, TOKENS);
            assert_near(&found, &alone, tolerance, &format!("{name}: {} tokens beside others", ids.len()));
        }
    }
}

fn check_outputs<B: Backend>(backend: &Arc<B>, tolerance: f64) {
    for (name, loader) in models() {
        let ids = ids(5, TOKENS);
        let mut decoder = runner(&loader, backend).expect(name);
        let vocab = decoder.config().vocab_size;
        let whole = logits(&mut decoder, &ids, TOKENS).expect(name);
        let sequences = [Sequence { rows: 0..TOKENS, start: 0, blocks: &[0, 1, 2] }];
        for outputs in [&[][..], &[0], &[74], &[3, 31, 32, 74]] {
            let mut found = vec![0.0; outputs.len() * vocab];
            decoder
                .forward(Step { ids: &ids, batch: Batch { sequences: &sequences }, outputs }, &mut found)
                .expect(name);
            let expected: Vec<f32> =
                outputs.iter().flat_map(|&row| whole[row as usize * vocab..][..vocab].to_vec()).collect();
            assert_near(&found, &expected, tolerance, &format!("{name}: outputs {outputs:?}"));
        }
    }
}

fn run_in_chunks<B: Backend>(loader: &GGUFLoader, backend: &Arc<B>, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut decoder = runner(loader, backend).expect("the model can be loaded");
    logits(&mut decoder, ids, chunk).expect("the steps are valid")
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f64, what: &str) {
    let (largest, _) = deviation(found, expected);
    assert!(largest <= tolerance, "{what}: logits differ by {largest:e}");
}

/// Models with room for two sequences, with and without what is computed per head and per row.
fn models() -> Vec<(&'static str, GGUFLoader)> {
    let context = 6 * 32;
    let llama = Spec { context, ..Spec::new("llama") };
    let qwen3 = Spec { context, head_norms: true, tied: true, ..Spec::new("qwen3") };
    vec![("llama", Fixture::new(&llama).open()), ("qwen3", Fixture::new(&qwen3).open())]
}

fn ids(seed: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 3 + seed * i + seed) % 37) as u32).collect()
}
