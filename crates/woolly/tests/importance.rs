//! Measuring importance on a model whose every activation is known.

mod fixture;

use std::collections::HashMap;

use fixture::{Fixture, VOCAB, peak};
use woolly::quantize::{ImportanceMatrix, ImportanceOptions};
use woolly::{CancelToken, Error, Model};

#[test]
fn inputs_of_the_known_model_are_summed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = Model::load(Fixture::default().write(dir.path())).expect("valid");
    let mut seen = Vec::new();
    let options = ImportanceOptions {
        window: 8,
        max_windows: Some(2),
        output: true,
        dataset: "letters".to_owned(),
        on_window: Some(Box::new(|done, total| seen.push((done, total)))),
        ..ImportanceOptions::default()
    };
    let matrix = model.importance("abcabcabcabcabcabcabcabc", options).expect("measured");
    assert_eq!(seen, [(1, 2), (2, 2)]);
    // The embedding of token i is the unit vector i, which the norm scales by the root of its length.
    let windows: [&[u32]; 2] = [&[1, 259, 260, 261, 259, 260, 261, 259], &[1, 261, 259, 260, 261, 259, 260, 261]];
    let mut times = HashMap::new();
    windows.iter().flat_map(|window| *window).for_each(|&id| *times.entry(id as usize).or_insert(0) += 1);
    for name in ["blk.0.attn_q.weight", "blk.0.ffn_up.weight", "output.weight"] {
        let entry = &matrix.entries[name];
        assert_eq!((entry.sums.len(), &entry.counts[..]), (VOCAB, &[16.0][..]), "{name}");
        for (id, &sum) in entry.sums.iter().enumerate() {
            let expected = f64::from(times.get(&id).copied().unwrap_or(0)) * peak().powi(2);
            assert!((f64::from(sum) - expected).abs() <= 1e-4 * expected, "{name}, {id}: {sum} for {expected}");
        }
    }
    assert!(matrix.entries["blk.0.ffn_down.weight"].sums.iter().all(|&sum| sum == 0.0), "what the zeros made");
    assert!(!matrix.entries.contains_key("token_embd.weight"));
    assert_eq!((matrix.windows, matrix.window, &matrix.datasets[..]), (2, 8, &["letters".to_owned()][..]));
    let path = dir.path().join("imatrix.gguf");
    matrix.write(&path).expect("written");
    assert_eq!(ImportanceMatrix::open(&path).expect("read").entries, matrix.entries);
}

#[test]
fn it_can_be_stopped_and_needs_a_text() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = Model::load(Fixture::default().write(dir.path())).expect("valid");
    let options = || ImportanceOptions { window: 8, ..ImportanceOptions::default() };
    assert!(matches!(model.importance("abc", options()), Err(Error::TextTooShort { .. })));
    let cancel = CancelToken::new();
    cancel.cancel();
    let stopped = model.importance("abcdefghijk", ImportanceOptions { cancel, ..options() });
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
