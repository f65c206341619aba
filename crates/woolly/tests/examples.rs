//! The examples run, each against a tiny model.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{Fixture, successors};

/// Cargo builds the examples beside the tests: `target/<profile>/examples`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn run(name: &str, model: &Path) -> String {
    let output = Command::new(example(name)).arg(model).output().expect("the example starts");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_example_runs() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = Fixture::chat().write(dir.path());
    let prompt = "Once upon a time";
    let answer = successors(prompt, 64);
    let cases = [
        ("generate", vec![format!("{prompt}{answer}")]),
        ("stream", vec![answer.clone()]),
        ("chat", vec!["> What is a sheep?".to_owned(), "prompt tokens were cached".to_owned()]),
        ("engine", vec![format!("{prompt}{answer}"), "answers a step".to_owned()]),
        ("inspect", vec!["architecture: llama".to_owned(), "F32 12 tensors".to_owned()]),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let name = entry.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned();
        // Measures every type for minutes: a tool for the documentation.
        if name == "quality_table" {
            continue;
        }
        let expected = cases.iter().find(|(case, _)| *case == name);
        let (_, parts) = expected.unwrap_or_else(|| panic!("{name} has no expectation here"));
        let output = run(&name, &model);
        assert!(parts.iter().all(|part| output.contains(part)), "{name}: {output}");
    }
}
