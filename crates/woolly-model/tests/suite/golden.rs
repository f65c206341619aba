//! Every model of the data folder that comes with results, on every backend, against those results.
//!
//! A result is a JSON file anywhere under `models/`: either of one model (`model`, `logits`, `greedy`, `scoring`), or a
//! table of models (`file`, `ids`, `logits`). Both were computed in double precision over the decoded weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use woolly_gguf::GGUFLoader;
use woolly_model::{Decoder, Error, architectures};
use woolly_quant::TensorType;
use woolly_tensor::{Backend, Reference};

use crate::drive::{append, argmax, deviation, logits, runner};

/// What is known of one model.
pub(crate) struct Golden {
    file: PathBuf,
    ids: Vec<u32>,
    /// `[ids, vocab_size]`.
    logits: Vec<f32>,
    /// How far llama.cpp's CPU kernels are from the logits.
    pub(crate) peer: Distance,
    greedy: Vec<Greedy>,
    /// Ids of a text and the negative log-likelihood of each after the first.
    scoring: Option<(Vec<u32>, Vec<f64>, f64)>,
}

struct Greedy {
    prompt: Vec<u32>,
    ids: Vec<u32>,
    /// Best logit minus second best at each step.
    margins: Vec<f64>,
}

/// Distance of logits from the results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Distance {
    pub(crate) max: f64,
    pub(crate) rms: f64,
}

/// How the weights of a model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// All in single precision.
    Single,
    /// Some in half precision, none quantised.
    Half,
    Quantised,
}

/// How far from its results a model may be.
pub(crate) type Bound = fn(&Golden, Storage) -> Distance;

/// The reference backend computes with decoded weights in double precision and stores activations in single.
fn reference_bound(_: &Golden, storage: Storage) -> Distance {
    let bound = if storage == Storage::Single { 1e-4 } else { 1e-3 };
    Distance { max: bound, rms: bound }
}

#[test]
fn reference_agrees_with_published_results() {
    check("reference_agrees_with_published_results", &Arc::new(Reference::new()), reference_bound);
}

/// Walks the results, holds `backend` to them, and returns how far it was from them in multiples of llama.cpp's distance
/// for every quantised model.
pub(crate) fn check<B: Backend>(test: &str, backend: &Arc<B>, bound: Bound) -> Vec<Distance> {
    let Some(folder) = woolly_testdata::folder(test, "models") else { return Vec::new() };
    let cases = discover(&folder);
    assert!(!cases.is_empty(), "{} holds no results", folder.display());
    let mut walk = Walk { test, bound, checked: 0, too_far: Vec::new(), ratios: Vec::new() };
    cases.iter().for_each(|case| walk.model(case, backend));
    println!("{}: {} of {} models checked", backend.describe(), walk.checked, cases.len());
    assert!(walk.checked > 0, "none of the {} models has a known architecture", cases.len());
    let Walk { too_far, ratios, .. } = walk;
    assert!(too_far.is_empty(), "{}: too far from the results:\n{}", backend.describe(), too_far.join("\n"));
    ratios
}

/// A walk over all results.
struct Walk<'a> {
    test: &'a str,
    bound: Bound,
    checked: usize,
    /// A line for each model that is farther from its results than it may be.
    too_far: Vec<String>,
    ratios: Vec<Distance>,
}

impl Walk<'_> {
    /// Checks a model; one of an unknown architecture is reported as skipped.
    fn model<B: Backend>(&mut self, golden: &Golden, backend: &Arc<B>) {
        let name = stem(&golden.file);
        let loader = GGUFLoader::open(&golden.file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut decoder = match runner(&loader, backend) {
            Ok(runner) => runner,
            Err(Error::UnknownArchitecture { name: architecture, .. }) => {
                assert!(!architectures().contains(&architecture.as_str()), "{name}: {architecture} is listed as known");
                woolly_testdata::skip(self.test, &format!("{name}: architecture {architecture} is not known"));
                return;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        self.checked += 1;
        let storage = storage(&loader);
        let bound = (self.bound)(golden, storage);
        for (how, chunk) in [("at once", golden.ids.len()), ("one by one", 1)] {
            let label = format!("{name}, {how}");
            let found = check_logits(&label, golden, &mut decoder, chunk, bound);
            if !(found.max <= bound.max && found.rms <= bound.rms) {
                self.too_far.push(format!("{label}: {found:?}, allowed {bound:?}"));
            }
            if storage == Storage::Quantised {
                self.ratios.push(Distance { max: found.max / golden.peer.max, rms: found.rms / golden.peer.rms });
            }
        }
        check_texts(&name, golden, &mut decoder, bound.max);
    }
}

fn storage(loader: &GGUFLoader) -> Storage {
    let all = |types: &[TensorType]| loader.tensors().iter().all(|tensor| types.contains(&tensor.ty()));
    match () {
        () if all(&[TensorType::F32]) => Storage::Single,
        () if all(&[TensorType::F32, TensorType::F16, TensorType::BF16]) => Storage::Half,
        () => Storage::Quantised,
    }
}

fn check_texts(name: &str, golden: &Golden, decoder: &mut dyn Decoder, error: f64) {
    let judged: usize = golden.greedy.iter().map(|greedy| check_greedy(name, greedy, decoder, 2.0 * error)).sum();
    assert!(golden.greedy.is_empty() || judged > 0, "{name}: no greedy step could be judged");
    if let Some((ids, nll, perplexity)) = &golden.scoring {
        check_scoring(name, ids, nll, *perplexity, decoder, error);
    }
}

/// Returns how far the logits are from the results; the most likely token must be theirs where that leaves no doubt.
fn check_logits(name: &str, golden: &Golden, decoder: &mut dyn Decoder, chunk: usize, bound: Distance) -> Distance {
    let found = logits(decoder, &golden.ids, chunk).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (max, rms) = deviation(&found, &golden.logits);
    let peer = golden.peer;
    println!("{name}: max {max:.2e} ({:.2} of llama.cpp's), rms {rms:.2e} ({:.2})", max / peer.max, rms / peer.rms);
    let vocab_size = found.len() / golden.ids.len();
    for (row, (found, expected)) in found.chunks(vocab_size).zip(golden.logits.chunks(vocab_size)).enumerate() {
        if margin(expected) > 2.0 * bound.max {
            assert_eq!(argmax(found), argmax(expected), "{name}: most likely token after row {row}");
        }
    }
    Distance { max, rms }
}

fn margin(logits: &[f32]) -> f64 {
    let best = argmax(logits);
    let others = logits.iter().enumerate().filter(|&(i, _)| i != best).map(|(_, &x)| x);
    f64::from(logits[best]) - f64::from(others.fold(f32::NEG_INFINITY, f32::max))
}

/// Decodes greedily as long as the choice is clearer than the error; returns the number of steps judged.
fn check_greedy(name: &str, greedy: &Greedy, decoder: &mut dyn Decoder, needed: f64) -> usize {
    let mut logits = vec![0.0; decoder.config().vocab_size];
    let (mut ids, mut start) = (greedy.prompt.clone(), 0);
    for (step, (&expected, &margin)) in greedy.ids.iter().zip(&greedy.margins).enumerate() {
        if margin <= needed {
            return step;
        }
        let last = ids.len() as u32 - 1;
        append(decoder, &ids, start, &[last], &mut logits).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = argmax(&logits) as u32;
        assert_eq!(found, expected, "{name}: greedy step {step} after prompt {:?}", greedy.prompt);
        start += ids.len();
        ids = vec![found];
    }
    greedy.ids.len()
}

/// A logit off by at most `error` moves a log-probability by at most twice that.
fn check_scoring(name: &str, ids: &[u32], nll: &[f64], perplexity: f64, decoder: &mut dyn Decoder, error: f64) {
    const PRINTED: f64 = 1e-6;
    let vocab_size = decoder.config().vocab_size;
    let logits = logits(decoder, ids, ids.len()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let found: Vec<f64> = logits.chunks(vocab_size).zip(&ids[1..]).map(|(row, &id)| negative_log(row, id)).collect();
    assert_eq!(found.len(), nll.len(), "{name}: number of scored tokens");
    for (position, (found, expected)) in found.iter().zip(nll).enumerate() {
        assert!((found - expected).abs() <= 2.0 * error + PRINTED, "{name}: token {position}: {found}, not {expected}");
    }
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    println!("{name}: perplexity {:.6}, expected {perplexity:.6}", mean.exp());
    assert!((mean - perplexity.ln()).abs() <= error, "{name}: perplexity {}, not {perplexity}", mean.exp());
}

fn negative_log(logits: &[f32], id: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    sum.ln() + f64::from(largest) - f64::from(logits[id as usize])
}

/// A file without results of its own, but named after one that has them, holds the same weights in another container.
#[test]
fn other_containers_of_the_same_weights_give_the_same_logits() {
    let test = "other_containers_of_the_same_weights_give_the_same_logits";
    let Some(folder) = woolly_testdata::folder(test, "models") else { return };
    let cases = discover(&folder);
    let backend = Arc::new(Reference::new());
    for file in files_below(&folder, "gguf") {
        let stem = stem(&file);
        let twin = cases.iter().find(|case| stem.starts_with(&format!("{}-gguf", self::stem(&case.file))));
        if let Some(golden) = twin {
            let loader = GGUFLoader::open(&file).unwrap_or_else(|e| panic!("{stem}: {e}"));
            let mut decoder = runner(&loader, &backend).unwrap_or_else(|e| panic!("{stem}: {e}"));
            let bound = reference_bound(golden, Storage::Single);
            let found = check_logits(&stem, golden, &mut decoder, golden.ids.len(), bound);
            assert!(found.max <= bound.max, "{stem}: {found:?}, allowed {bound:?}");
        }
    }
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn discover(folder: &Path) -> Vec<Golden> {
    let mut cases = Vec::new();
    for file in files_below(folder, "json") {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let dir = file.parent().expect("a file lies in a folder");
        match json.get("model") {
            Some(_) => cases.push(single(dir, &json)),
            None => cases.extend(json.as_object().into_iter().flatten().map(|(_, entry)| tabled(dir, entry))),
        }
    }
    cases
}

fn single(dir: &Path, json: &Value) -> Golden {
    let logits = &json["logits"];
    let greedy = json["greedy"].as_array().into_iter().flatten().map(|entry| Greedy {
        prompt: ids(&entry["prompt_ids"]),
        ids: ids(&entry["ids"]),
        margins: numbers(&entry["margin"]),
    });
    let scoring = &json["scoring"];
    Golden {
        file: beside(dir, &json["model"]),
        ids: ids(&logits["ids"]),
        logits: woolly_testdata::read_f32(&beside(dir, &logits["file"])),
        peer: peer(json),
        greedy: greedy.collect(),
        scoring: scoring["perplexity"].as_f64().map(|p| (ids(&scoring["ids"]), numbers(&scoring["nll"]), p)),
    }
}

fn tabled(dir: &Path, json: &Value) -> Golden {
    Golden {
        file: beside(dir, &json["file"]),
        ids: ids(&json["ids"]),
        logits: woolly_testdata::read_f32(&beside(dir, &json["logits"])),
        peer: peer(json),
        greedy: Vec::new(),
        scoring: None,
    }
}

fn peer(json: &Value) -> Distance {
    let peer = &json["llama_cpp_cpu_deviation"];
    let number = |key: &str| peer[key].as_f64().unwrap_or_else(|| panic!("llama_cpp_cpu_deviation has no {key}"));
    Distance { max: number("max_abs"), rms: number("rms") }
}

/// A file named in a result lies beside it or in the folder above.
fn beside(dir: &Path, name: &Value) -> PathBuf {
    let name = name.as_str().expect("a file name");
    let here = dir.join(name);
    if here.exists() { here } else { dir.join("..").join(name) }
}

fn numbers(json: &Value) -> Vec<f64> {
    let number = |value: &Value| value.as_f64().expect("a number");
    json.as_array().expect("an array").iter().map(number).collect()
}

fn ids(json: &Value) -> Vec<u32> {
    numbers(json).into_iter().map(|id| id as u32).collect()
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}
