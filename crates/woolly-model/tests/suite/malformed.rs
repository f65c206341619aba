//! Damaged and hostile files: refused with an error or run, as their manifest says, and never a panic.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use woolly_gguf::GGUFLoader;
use woolly_tensor::{Backend, Reference};

use crate::drive::{logits, runner};

/// Files whose fault lies in the tokenizer or in a template, which are not this crate's to read.
const OF_THE_TEXT: [&str; 2] = ["vocab-", "template-"];

#[test]
fn malformed_models_are_refused_or_run() {
    check("malformed_models_are_refused_or_run", &Arc::new(Reference::new()));
}

/// Holds `backend` to what the manifest says of each file.
pub(crate) fn check<B: Backend>(test: &str, backend: &Arc<B>) {
    let Some(folder) = woolly_testdata::folder(test, "gguf/malformed") else { return };
    let text = std::fs::read_to_string(folder.join("manifest.json")).expect("the folder has a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("the manifest is JSON");
    let entries = manifest.as_array().expect("the manifest is a list");
    assert!(!entries.is_empty(), "the manifest is empty");
    for entry in entries {
        let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{entry} has no {key}"));
        check_file(&folder, text("file"), text("expect"), backend);
    }
}

fn check_file<B: Backend>(folder: &Path, file: &str, expect: &str, backend: &Arc<B>) {
    println!("{file}: {expect} expected");
    let outcome = load_and_run(&folder.join(file), backend);
    match (expect, outcome) {
        ("ok", Ok(logits)) => assert!(logits.iter().all(|x| x.is_finite()), "{file}: logits are not finite"),
        ("ok", Err(error)) => panic!("{file} must run, but: {error}"),
        ("error", Ok(_)) => {
            assert!(OF_THE_TEXT.iter().any(|prefix| file.starts_with(prefix)), "{file} must be refused")
        }
        ("error", Err(error)) => assert!(!error.is_empty(), "{file}: the error says nothing"),
        ("no_crash", _) => {}
        (other, _) => panic!("{file}: the manifest expects {other:?}, which this test does not know"),
    }
}

fn load_and_run<B: Backend>(path: &Path, backend: &Arc<B>) -> Result<Vec<f32>, String> {
    let loader = GGUFLoader::open(path).map_err(|e| e.to_string())?;
    let mut decoder = runner(&loader, backend).map_err(|e| e.to_string())?;
    logits(&mut decoder, &[1, 200, 3, 57, 129], 2).map_err(|e| e.to_string())
}
