//! The built-in model against an independent implementation: logits of transformers, in single precision, for 20 prompts.
//!
//! `lamb/prompts.json` and `lamb/logits.f32` were written from the file that ships by `training/lamb/logits.py`.

#![cfg(feature = "lamb")]
#![allow(clippy::print_stdout, reason = "how far each backend is from the reference is of interest")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use woolly::quantize::{QuantType, QuantizeOptions, quantize};
use woolly::{GGUFLoader, Tokenizer, lamb};
use woolly_cpu::isa::Level;
use woolly_cpu::{Cpu, CpuOptions};
use woolly_model::{Decoder, Model, Runner, RunnerOptions, Step};
use woolly_tensor::{BLOCK_TOKENS, Backend, Batch, CacheType, Reference, Sequence};

/// Largest difference of a logit.
const BOUND: f32 = 1e-3;
const CONTEXT: usize = 1024;

struct Prompt {
    text: String,
    ids: Vec<u32>,
    /// After the last token.
    logits: Vec<f32>,
}

fn prompts() -> Vec<Prompt> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lamb");
    let json = fs::read_to_string(folder.join("prompts.json")).expect("the fixture");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let vocab_size = json["vocabulary"].as_u64().expect("a number") as usize;
    let logits = woolly_testdata::read_f32(&folder.join("logits.f32"));
    let entries = json["prompts"].as_array().expect("a list");
    assert_eq!((entries.len(), logits.len()), (20, 20 * vocab_size));
    let prompt = |(entry, logits): (&Value, &[f32])| Prompt {
        text: entry["text"].as_str().expect("a text").to_owned(),
        ids: serde_json::from_value(entry["ids"].clone()).expect("ids"),
        logits: logits.to_vec(),
    };
    entries.iter().zip(logits.chunks_exact(vocab_size)).map(prompt).collect()
}

#[test]
fn the_tokenizer_agrees_with_tokenizers() {
    let tokenizer = Tokenizer::from_metadata(lamb::open().expect("valid").metadata()).expect("a known tokenizer");
    for Prompt { text, ids, .. } in prompts() {
        assert_eq!(tokenizer.encode(&text, false, true), ids, "{text}");
    }
}

#[test]
fn logits_agree_with_transformers_on_the_reference_backend() {
    // It expands weights of any type itself.
    check(&lamb::open().expect("valid"), &Arc::new(Reference::new()), &prompts()[..4]);
}

#[test]
fn logits_agree_with_transformers_at_every_instruction_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let loader = GGUFLoader::open(expanded(folder.path())).expect("a valid file");
    let prompts = prompts();
    for level in Level::available() {
        let options = CpuOptions { level: Some(level), threads: Some(2), ..CpuOptions::default() };
        check(&loader, &Arc::new(Cpu::new(options).expect("an available level")), &prompts);
    }
}

/// Writes the model with its weights expanded: the CPU backend rounds what it multiplies quantised weights with.
fn expanded(folder: &Path) -> PathBuf {
    let path = folder.join("lamb-F32.gguf");
    let options = QuantizeOptions {
        allow_requantize: true,
        threads: NonZeroUsize::new(2),
        ..QuantizeOptions::new(QuantType::F32)
    };
    quantize(&lamb::open().expect("valid"), &path, options).expect("room for a file");
    path
}

fn check<B: Backend>(loader: &GGUFLoader, backend: &Arc<B>, prompts: &[Prompt]) {
    let model = Arc::new(Model::load(loader, backend.as_ref(), &mut |_| ()).expect("a supported model"));
    let options = RunnerOptions { context: CONTEXT, max_rows: CONTEXT, max_outputs: 1, storage: CacheType::F32 };
    let mut runner = Runner::new(Arc::clone(backend), model, options).expect("memory");
    let worst = prompts.iter().map(|prompt| deviation(&mut runner, prompt)).fold(0.0, f32::max);
    println!("{}: {worst:.1e} over {} prompts", backend.describe(), prompts.len());
}

/// Returns the largest difference from the logits after the prompt, which the bound must hold for.
fn deviation(decoder: &mut dyn Decoder, prompt: &Prompt) -> f32 {
    let ids = &prompt.ids;
    let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
    let sequences = [Sequence { rows: 0..ids.len(), start: 0, blocks: &blocks }];
    let mut logits = vec![f32::NAN; prompt.logits.len()];
    let step = Step { ids, batch: Batch { sequences: &sequences }, outputs: &[ids.len() as u32 - 1] };
    decoder.forward(step, &mut logits).expect("a valid step");
    let differences = logits.iter().zip(&prompt.logits).map(|(found, expected)| (found - expected).abs());
    let mut worst = 0.0;
    for (id, difference) in differences.enumerate() {
        assert!(difference <= BOUND, "token {id} is off by {difference} after {}", prompt.text);
        worst = f32::max(worst, difference);
    }
    worst
}
