//! `woolly compare`, from outside.

#[path = "../../woolly/tests/fixture/mod.rs"]
mod fixture;
mod support;

use std::fs;

use fixture::Fixture;
use support::woolly;

struct Bench {
    dir: tempfile::TempDir,
    model: String,
    text: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let model = Fixture::default().write(dir.path()).display().to_string();
        let text = dir.path().join("text").display().to_string();
        fs::write(&text, "abcdefghijklmnopqrstuvw\n").expect("written");
        Self { dir, model, text }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

#[test]
fn a_model_is_no_way_from_itself() {
    let bench = Bench::new();
    let text = woolly(&["compare", &bench.model, &bench.model, "-f", &bench.text, "-c", "8"]).success();
    for part in ["9 in 3 windows", "divergence, mean", "0.000000 +/- 0.000000", "100.000 +/- 0.000 %"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let quiet = woolly(&["compare", &bench.model, &bench.model, "-f", &bench.text, "-c", "8", "--chunks", "2", "-v"]);
    assert!(quiet.stderr.contains("[2/2]") && quiet.stdout.contains("6 in 2 windows"), "{}", quiet.stderr);
}

#[test]
fn what_cannot_be_compared_says_why() {
    let bench = Bench::new();
    let absent = bench.path("absent.gguf");
    let cases: [(&[&str], i32, &str); 4] = [
        (&[&bench.model, &absent, "-f", &bench.text], 3, "absent.gguf"),
        (&[&bench.model, &bench.model, "-f", &bench.text, "-c", "32"], 2, "one window needs 32"),
        (&[&bench.model, &bench.model, "-f", &absent], 1, "absent.gguf"),
        (&[&bench.model, "-f", &bench.text], 2, "<MODEL>"),
    ];
    for (arguments, code, part) in cases {
        let run = woolly(&[&["compare"], arguments].concat());
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);

        assert!(run.stderr.contains(part), "{arguments:?}: {}", run.stderr);
    }
}
