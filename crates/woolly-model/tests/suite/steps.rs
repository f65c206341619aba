//! Steps that do not fit model, buffers or cache are errors, and the runner works on after them.

use std::sync::Arc;

use woolly_model::{Decoder, Error, Model, Runner, RunnerOptions, Step};
use woolly_tensor::{Batch, CacheType, Reference, Sequence};

use crate::drive::logits;
use crate::fixture::{Fixture, Spec};

const VOCAB: usize = 37;

fn small() -> Runner<Reference> {
    let backend = Arc::new(Reference::new());
    let loader = Fixture::new(&Spec { context: 40, vocab: VOCAB, ..Spec::new("llama") }).open();
    let model = Arc::new(Model::load(&loader, backend.as_ref(), &mut |_| ()).expect("the model is valid"));
    let options = RunnerOptions { context: 96, max_rows: 36, max_outputs: 2, storage: CacheType::F16 };
    Runner::new(backend, model, options).expect("the options are valid")
}

#[test]
fn sizes_are_those_asked_for() {
    let decoder: Box<dyn Decoder> = Box::new(small());
    assert_eq!((decoder.max_rows(), decoder.max_outputs(), decoder.cache_blocks()), (36, 2, 3));
    assert_eq!(decoder.config().name.as_deref(), Some("fixture"));
}

#[test]
fn invalid_steps_are_refused_and_leave_the_runner_usable() {
    type Rows = std::ops::Range<usize>;
    type Case = (&'static str, &'static [u32], &'static [(Rows, usize, &'static [u32])], &'static [u32], &'static str);
    const TOO_MANY: [u32; 37] = [1; 37];
    let cases: &[Case] = &[
        ("no tokens", &[], &[], &[], "number of tokens"),
        ("more tokens than rows", &TOO_MANY, &[(0..37, 0, &[0, 1])], &[], "number of tokens"),
        ("id beyond the vocabulary", &[1, 37], &[(0..2, 0, &[0])], &[], "token id 37 in row 1"),
        ("largest id", &[u32::MAX], &[(0..1, 0, &[0])], &[], "token id 4294967295"),
        ("sequence not at row 0", &[1, 2], &[(1..2, 0, &[0])], &[], "first row of a sequence: 1"),
        ("gap between sequences", &[1, 2, 3], &[(0..1, 0, &[0]), (2..3, 0, &[1])], &[], "first row of a sequence: 2"),
        ("sequence without rows", &[1], &[(0..0, 0, &[0]), (0..1, 0, &[1])], &[], "without rows"),
        (
            "rows that run backwards",
            &[1],
            &[(0..1, 0, &[0]), (Rows { start: 1, end: 0 }, 0, &[1])],
            &[],
            "without rows",
        ),
        ("fewer rows than ids", &[1, 2], &[(0..1, 0, &[0])], &[], "rows of all sequences: 1"),
        ("more rows than ids", &[1], &[(0..2, 0, &[0])], &[], "rows of all sequences: 2"),
        ("beyond the context", &[1], &[(0..1, 40, &[0, 1])], &[], "41 tokens"),
        ("start that overflows", &[1], &[(0..1, usize::MAX, &[0])], &[], "context of 40"),
        ("too few blocks", &[1], &[(0..1, 32, &[0])], &[], "cache blocks hold: 33 (limit 32)"),
        ("block beyond the cache", &[1], &[(0..1, 0, &[3])], &[], "cache block: 3"),
        ("earlier block beyond the cache", &[1], &[(0..1, 32, &[9, 0])], &[], "cache block: 9"),
        ("block written twice", &[1, 2], &[(0..1, 0, &[1]), (1..2, 0, &[1])], &[], "two parts of a step write: 1"),
        ("block read and written", &[1, 2], &[(0..1, 32, &[2, 0]), (1..2, 0, &[2])], &[], "while it is written: 2"),
        ("output beyond the rows", &[1], &[(0..1, 0, &[0])], &[1], "output row, counted from 0: 1"),
        ("outputs not ascending", &[1, 2], &[(0..2, 0, &[0])], &[1, 0], "out of ascending order: 0"),
        ("output given twice", &[1, 2], &[(0..2, 0, &[0])], &[1, 1], "out of ascending order: 1"),
        ("too many outputs", &[1, 2, 3], &[(0..3, 0, &[0])], &[0, 1, 2], "number of output rows"),
    ];
    let mut decoder = small();
    let before = one_token(&mut decoder);
    for (name, ids, sequences, outputs, expected) in cases {
        let sequence = |(rows, start, blocks): &(Rows, usize, &'static [u32])| Sequence {
            rows: rows.clone(),
            start: *start,
            blocks,
        };
        let sequences: Vec<Sequence<'_>> = sequences.iter().map(sequence).collect();
        let step = Step { ids, batch: Batch { sequences: &sequences }, outputs };
        let error = decoder.forward(step, &mut vec![0.0; outputs.len() * VOCAB]).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error:?} does not mention {expected:?}");
    }
    assert_eq!(one_token(&mut decoder), before, "a refused step has changed what is computed");
}

fn one_token(decoder: &mut dyn Decoder) -> Vec<f32> {
    logits(decoder, &[5], 1).expect("the step is valid")
}

#[test]
fn a_buffer_of_the_wrong_size_is_refused() {
    let sequences = [Sequence { rows: 0..1, start: 0, blocks: &[0] }];
    let step = Step { ids: &[1], batch: Batch { sequences: &sequences }, outputs: &[0] };
    for size in [0, VOCAB - 1, VOCAB + 1] {
        let error = small().forward(step, &mut vec![0.0; size]).expect_err("the size is wrong");
        assert!(matches!(error, Error::Step { found, limit: VOCAB, .. } if found == size), "{error}");
    }
}

#[test]
fn options_of_zero_and_beyond_memory_are_refused() {
    let backend = Arc::new(Reference::new());
    let loader = Fixture::new(&Spec::new("llama")).open();
    let model = Arc::new(Model::load(&loader, backend.as_ref(), &mut |_| ()).expect("the model is valid"));
    let good = RunnerOptions { context: 32, max_rows: 1, max_outputs: 1, storage: CacheType::F32 };
    for options in [
        RunnerOptions { context: 0, ..good },
        RunnerOptions { max_rows: 0, ..good },
        RunnerOptions { max_outputs: 0, ..good },
        RunnerOptions { max_rows: usize::MAX, ..good },
        RunnerOptions { context: usize::MAX, ..good },
    ] {
        assert!(Runner::new(Arc::clone(&backend), Arc::clone(&model), options).is_err(), "{options:?} was accepted");
    }
}
