//! The JSON of every command has exactly the keys that README.md documents.

#[path = "../../woolly/tests/fixture/mod.rs"]
mod fixture;
mod support;

use std::collections::BTreeSet;
use std::fs;

use fixture::Fixture;
use serde_json::Value;
use support::woolly;

/// Returns the keys of the table below the heading that names `command`.
fn documented(command: &str) -> BTreeSet<String> {
    let readme = include_str!("../README.md");
    let heading = format!("### `woolly {command} --json`");
    let (_, section) = readme.split_once(&heading).unwrap_or_else(|| panic!("README.md has no {heading}"));
    let section = section.split("\n### ").next().unwrap_or(section);
    let key = |line: &str| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned());
    section.lines().filter_map(key).collect()
}

/// Collects the paths to everything that is no object.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            fields.iter().for_each(|(key, value)| keys(value, &name(key), found));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| keys(item, &format!("{path}[]"), found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn documentation_and_output_have_the_same_keys() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = Fixture::chat().write(dir.path()).display().to_string();
    let text = dir.path().join("text").display().to_string();
    fs::write(&text, "abcdefghijklmnop").expect("written");
    let imatrix = dir.path().join("imatrix.gguf").display().to_string();
    let cases: [(&str, &[&str]); 7] = [
        ("run", &["run", &model, "ab", "-n", "3", "--json"]),
        ("show", &["show", &model, "--tensors", "--template", "--json"]),
        ("tokenize", &["tokenize", &model, "ab", "--json"]),
        ("compare", &["compare", &model, &model, "-f", &text, "-c", "8", "--json"]),
        ("imatrix", &["imatrix", "-m", &model, "-f", &text, "-c", "8", "-o", &imatrix, "--json"]),
        ("quantize", &["quantize", "--dry-run", &model, "Q8_0", "--json"]),
        ("perplexity", &["perplexity", "-m", &model, "-f", &text, "-c", "8", "--json"]),
    ];
    for (command, arguments) in cases {
        let mut found = BTreeSet::new();
        keys(&woolly(arguments).json(), "", &mut found);
        assert_eq!(found, documented(command), "woolly {command}");
    }
}
