//! The built-in model under load: greedy answers alone and in company.

#![cfg(feature = "lamb")]

use std::sync::Arc;

use woolly::prelude::*;
use woolly_cpu::{Cpu, CpuOptions};
use woolly_model::{Decoder, Runner, RunnerOptions, Step};
use woolly_tensor::{Batch, CacheType, Sequence};

const TOKENS: usize = 40;

/// Prompts of different lengths, some with beginnings in common.
fn prompts(session: &InferenceSession) -> Vec<Vec<u32>> {
    let subjects = ["a fox", "a little boat", "the old baker", "two sheep", "a red kite", "the moon"];
    let opening = "Once upon a time, in a small village by the river, there lived";
    let long = "Every morning the sun came up over the hill, and everyone was glad. ".repeat(4);
    let each = |n: usize| match (n % 4, subjects[n % 6]) {
        (0, subject) => format!("{opening} {subject}"),
        (1, subject) => format!("{opening} {subject}. One day"),
        (2, subject) => format!("Tell me about {subject}"),
        (_, subject) => format!("{long}{opening} {subject}"),
    };
    (0..12).map(|n| session.encode(&each(n))).collect()
}

fn session(config: EngineConfig) -> InferenceSession {
    let model = Model::from_gguf(&woolly::lamb::open().expect("a valid file")).expect("a model");
    let engine = InferenceEngine::new(config);
    engine.load_model(&model).expect("taken");
    engine.session().expect("a session")
}

/// Answers all prompts at once, handed in in this order.
fn answers(session: &InferenceSession, order: impl Iterator<Item = usize>) -> Vec<Vec<u32>> {
    let options = GenerateOptions::new().greedy().max_tokens(TOKENS).ignore_end();
    let prompts = prompts(session);
    let running: Vec<_> = order.map(|n| (n, session.infer_with(&prompts[n], options.clone()))).collect();
    let mut found = vec![Vec::new(); prompts.len()];
    for (n, answer) in running {
        found[n] = answer.wait().expect("an answer").tokens;
    }
    found
}

/// Each prompt on an engine of its own.
fn alone(config: &EngineConfig) -> Vec<Vec<u32>> {
    let one = |n: usize| answers(&session(config.clone()), std::iter::once(n)).swap_remove(n);
    (0..12).map(one).collect()
}

#[test]
fn in_deterministic_mode_answers_are_the_same_in_any_company() {
    let config = EngineConfig { deterministic: true, ..EngineConfig::default() };
    let expected = alone(&config);
    // Small enough that requests have to give way: sixteen blocks are less than four of the long prompts need.
    let cramped = CacheConfig { max_cache_mb: 1, ..CacheConfig::default() };
    let cases = [
        ("one at a time", config.clone().with_batch_size(1)),
        ("all that fit", config.clone()),
        ("a small cache", EngineConfig { cache: cramped, ..config }),
    ];
    for (name, config) in cases {
        let session = session(config);
        for round in 0..2 {
            assert_eq!(answers(&session, 0..12), expected, "{name}, round {round}: later rounds find the cache warm");
        }
        assert_eq!(answers(&session, (0..12).rev()), expected, "{name}, in the other order");
        assert!(session.stats().cached_tokens > 0, "{name}: nothing was shared, so that the test says little");
    }
}

#[test]
fn otherwise_answers_differ_at_most_where_two_tokens_are_nearly_equal() {
    let expected = alone(&EngineConfig::default());
    let session = session(EngineConfig::default());
    let prompts = prompts(&session);
    let mut decoder = decoder();
    for (n, found) in answers(&session, 0..12).into_iter().enumerate() {
        let different = expected[n].iter().zip(&found).position(|(a, b)| a != b);
        if let Some(at) = different {
            let logits = logits(&mut *decoder, &[&prompts[n], &found[..at]].concat());
            let [a, b] = [expected[n][at], found[at]].map(|id| logits[id as usize]);
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            assert!((a - b).abs() < 0.3 && best - a.min(b) < 0.3, "prompt {n}, token {at}: {a} and {b}, best {best}");
        }
    }
}

fn decoder() -> Box<dyn Decoder> {
    let loader = woolly::lamb::open().expect("a valid file");
    let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("a processor");
    let model = woolly_model::Model::load(&loader, &cpu, &mut |_| ()).expect("a model");
    let options = RunnerOptions { context: 512, max_rows: 512, max_outputs: 1, storage: CacheType::F16 };
    Box::new(Runner::new(Arc::new(cpu), Arc::new(model), options).expect("memory"))
}

fn logits(decoder: &mut dyn Decoder, ids: &[u32]) -> Vec<f32> {
    let blocks: Vec<u32> = (0..16).collect();
    let sequences = [Sequence { rows: 0..ids.len(), start: 0, blocks: &blocks }];
    let mut logits = vec![0.0; decoder.config().vocab_size];
    let step = Step { ids, batch: Batch { sequences: &sequences }, outputs: &[ids.len() as u32 - 1] };
    decoder.forward(step, &mut logits).expect("a valid step");
    logits
}
