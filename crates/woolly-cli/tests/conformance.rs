//! Greedy text of trained models equals that of their reference results.
//!
//! Every folder of the models' data that has a `reference` folder is a set of cases: `reference/NAME.json` belongs to
//! `NAME.gguf`. A step is judged only while the reference's margin between its two likeliest tokens exceeds what
//! rounding may shift, and nothing is judged after the first step that is not.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::woolly;
use woolly::{GGUFLoader, Tokenizer};

/// Logits shift by this much through a cache in half precision, whatever the weights.
const CACHE_ERROR: f64 = 0.02;

#[test]
fn greedy_text_is_that_of_the_reference() {
    let Some(models) = woolly_testdata::folder("greedy_text_is_that_of_the_reference", "models") else { return };
    let cases = cases(&models);
    assert!(!cases.is_empty(), "no reference results below {}", models.display());
    let judged: Vec<usize> = cases.iter().flat_map(|(model, reference)| check_model(model, reference)).collect();
    let total: usize = judged.iter().sum();
    // Nearly every case begins with clear choices; a threshold that judges nothing would be no test.
    assert!(total > 4 * judged.len(), "only {total} steps of {} texts were judged", judged.len());
}

fn cases(models: &Path) -> Vec<(PathBuf, PathBuf)> {
    let folders = fs::read_dir(models).expect("readable").map(|entry| entry.expect("readable").path());
    let references = folders.map(|folder| folder.join("reference")).filter(|reference| reference.is_dir());
    let jsons = references.flat_map(|reference| woolly_testdata::files_ending_in(&reference, ".json"));
    let pair = |json: PathBuf| {
        let name = json.file_stem().expect("a name").to_string_lossy().into_owned();
        let model = json.parent()?.parent()?.join(format!("{name}.gguf"));
        model.is_file().then_some((model, json))
    };
    jsons.filter_map(pair).collect()
}

/// Returns the number of judged steps of each text.
fn check_model(model: &Path, reference: &Path) -> Vec<usize> {
    let text = fs::read_to_string(reference).expect("readable");
    let reference: Value = serde_json::from_str(&text).expect("JSON");
    let deviation = reference["llama_cpp_cpu_deviation"]["max_abs"].as_f64().unwrap_or_default();
    // Both of two logits may shift, in opposite directions.
    let threshold = 2.0 * deviation.max(CACHE_ERROR);
    let loader = GGUFLoader::open(model).expect("a valid model");
    let tokenizer = Tokenizer::from_metadata(loader.metadata()).expect("a known tokenizer");
    let texts = reference["greedy"].as_array().expect("a list of texts");
    texts.iter().map(|case| check_text(model, &tokenizer, case, threshold)).collect()
}

fn check_text(model: &Path, tokenizer: &Tokenizer, case: &Value, threshold: f64) -> usize {
    let prompt = case["prompt"].as_str().expect("a prompt");
    let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
    let margins: Vec<f64> = serde_json::from_value(case["margin"].clone()).expect("margins");
    let judged = margins.iter().take_while(|&&margin| margin > threshold).count();
    let path = model.to_str().expect("UTF-8");
    let run = woolly(&["run", "-m", path, "-p", prompt, "--raw", "--temp", "0", "-n", &judged.to_string(), "-q"]);
    assert_eq!(run.success(), continuation(tokenizer, prompt, &ids[..judged]), "{path}: {prompt:?}");
    judged
}

fn continuation(tokenizer: &Tokenizer, prompt: &str, ids: &[u32]) -> String {
    let stream = tokenizer.stream();
    let mut stream = if prompt.is_empty() { stream } else { stream.continuing() };
    let mut text = String::new();
    for &id in ids {
        text.push_str(stream.push(id).expect("a known id"));
    }
    text.push_str(stream.finish());
    text
}
