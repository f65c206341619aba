//! Conformance with the expected ids of published vocabularies: every file of the folder, every case of each.

use std::fs;
use std::path::Path;

use serde_json::Value;
use woolly_gguf::GGUFLoader;
use woolly_testdata::{files_ending_in, folder, skip};
use woolly_text::{Error, Tokenizer};

/// The kinds of tokenizers that every case must pass for.
const IMPLEMENTED: [&str; 3] = ["llama", "gpt2", "gemma4"];
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

struct Case {
    text: String,
    add_special: bool,
    parse_special: bool,
    ids: Vec<u32>,
}

#[test]
fn published_vocabularies_encode_as_expected() {
    let Some(dir) = folder("published_vocabularies_encode_as_expected", "vocab") else { return };
    let vocabularies = files_ending_in(&dir, ".gguf");
    assert!(!vocabularies.is_empty(), "no vocabularies in {}", dir.display());
    let mut failures = Vec::new();
    for path in vocabularies {
        failures.extend(check_vocabulary(&path));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn check_vocabulary(path: &Path) -> Vec<String> {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let model = GGUFLoader::open(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    let kind = model.metadata().str("tokenizer.ggml.model").expect("a string").unwrap_or_default().to_owned();
    let tokenizer = match Tokenizer::from_metadata(model.metadata()) {
        Ok(tokenizer) => tokenizer,
        // A kind that is not implemented must say so; anything else is a failure.
        Err(Error::UnknownModel { found, .. }) if found == kind && !IMPLEMENTED.contains(&&*kind) => {
            skip("published_vocabularies_encode_as_expected", &format!("{name} is of the kind {kind}"));
            return Vec::new();
        }
        Err(e) => return vec![format!("{name} ({kind}): {e}")],
    };
    let cases: Vec<Case> = listed_cases(path).into_iter().chain(extra_cases(path, &name)).collect();
    assert!(!cases.is_empty(), "{name} has no cases");
    cases.iter().filter_map(|case| check_case(&name, &tokenizer, case)).collect()
}

fn check_case(name: &str, tokenizer: &Tokenizer, case: &Case) -> Option<String> {
    let found = tokenizer.encode(&case.text, case.add_special, case.parse_special);
    (found != case.ids).then(|| {
        let flags = format!("add_special {}, parse_special {}", case.add_special, case.parse_special);
        format!("{name}: {:?} ({flags})\n  found    {found:?}\n  expected {:?}", case.text, case.ids)
    })
}

/// The cases of the `.inp` and `.out` files beside the vocabulary.
fn listed_cases(path: &Path) -> Vec<Case> {
    let beside = |suffix: &str| fs::read_to_string(format!("{}{suffix}", path.display())).unwrap_or_default();
    let (texts, ids) = (beside(".inp"), beside(".out"));
    let texts = texts.strip_suffix(SEPARATOR).unwrap_or(&texts);
    let parse = |line: &str| line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    let cases = texts.split(SEPARATOR).zip(ids.lines());
    let case = |(text, line): (&str, &str)| Case {
        text: text.to_owned(),
        add_special: false,
        parse_special: false,
        ids: parse(line),
    };
    cases.map(case).collect()
}

/// The cases of `extra/NAME.json`, where the vocabulary is `ggml-vocab-NAME.gguf`.
fn extra_cases(path: &Path, name: &str) -> Vec<Case> {
    let short = name.trim_start_matches("ggml-vocab-").trim_end_matches(".gguf");
    let file = path.with_file_name("extra").join(format!("{short}.json"));
    let Ok(text) = fs::read_to_string(&file) else { return Vec::new() };
    let parsed: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let case = |case: &Value| Case {
        text: case["text"].as_str().expect("text").to_owned(),
        add_special: case["add_special"].as_bool().expect("add_special"),
        parse_special: case["parse_special"].as_bool().expect("parse_special"),
        ids: case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect(),
    };
    parsed["cases"].as_array().expect("cases").iter().map(case).collect()
}
