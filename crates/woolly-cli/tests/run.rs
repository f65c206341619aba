//! `woolly run` from outside: streams, flags, exit codes and signals.

#[path = "../../woolly/tests/fixture/mod.rs"]
mod fixture;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use fixture::{Fixture, successors};
use support::{command, piped, woolly};

/// Writes a model and returns its folder and path.
fn model(fixture: &Fixture) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = fixture.write(dir.path()).display().to_string();
    (dir, path)
}

#[test]
fn a_pipe_gets_the_models_text_and_nothing_else() {
    let (dir, path) = model(&Fixture { context: 2048, ..Fixture::default() });
    let file = dir.path().join("prompt.txt");
    fs::write(&file, "xy\n").expect("written");
    let file = file.display().to_string();
    let rest = ["--temp", "0", "-n", "5"];
    let cases: [(&str, Vec<&str>); 5] = [
        ("two positional arguments", vec![&path, "xy"]),
        ("-m and a prompt", vec!["-m", &path, "xy"]),
        ("-p", vec![&path, "-p", "xy"]),
        ("-f, whose last line end is not meant", vec![&path, "-f", &file]),
        (
            "llama.cpp's spellings",
            vec!["--model", &path, "--prompt", "xy", "-no-cnv", "-c", "1k", "-t", "1", "-s", "1"],
        ),
    ];
    for (reason, arguments) in cases {
        let arguments = [&["run"], &arguments[..], &rest].concat();
        let run = woolly(&arguments[..]);
        assert_eq!((run.code, run.stdout, run.stderr), (Some(0), successors("y", 5), String::new()), "{reason}");
    }
    let run = piped(&["run", &path, "--temp", "0", "-n", "5"], "xy\n");
    assert_eq!((run.stdout, run.stderr), (successors("y", 5), String::new()));
}

#[test]
fn models_with_a_template_are_asked_and_others_complete() {
    let marked = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}!";
    let (_dir, path) = model(&Fixture { template: Some(marked), ..Fixture::default() });
    let run = |extra: &[&str]| woolly(&[&["run", &path, "xy", "--temp", "0", "-n", "2"], extra].concat()).success();
    assert_eq!(run(&[]), "", "the template ends in `!`, after which the model ends");
    assert_eq!(run(&["--ignore-eos"]), "a", "the end is a token without text, and is followed by `a`");
    assert_eq!(run(&["--raw"]), "z ");
    let tokens = |extra: &[&str]| {
        let arguments = [&["run", &path, "xy", "--json", "-n", "0"], extra].concat();
        woolly(&arguments).json()["usage"]["prompt_tokens"].as_u64()
    };
    assert_eq!(tokens(&[]), Some(5), "begin, u, x, y, !");
    assert_eq!(tokens(&["-sys", "abc"]), Some(9), "and s, a, b, c before it");
    let (_dir, bare) = model(&Fixture::default());
    let insisted = woolly(&["run", &bare, "xy", "-cnv"]);
    assert!(insisted.code == Some(1) && insisted.stderr.contains("template"), "{}", insisted.stderr);
}

#[test]
fn answers_end_where_they_are_told_to() {
    let (_dir, path) = model(&Fixture::default());
    let run = |extra: &[&str]| woolly(&[&["run", &path, "a", "--temp", "0"], extra].concat());
    assert_eq!(run(&["-r", "zz", "--stop", "fgh"]).success(), "bcde");
    assert_eq!(run(&["--reverse-prompt", "d"]).success(), "bc");
    assert_eq!(run(&["-n", "0"]).success(), "");
    let full = run(&["-c", "32"]);
    assert!(full.stderr.contains("context is full"), "never silent: {}", full.stderr);
    assert_eq!(full.success(), successors("a", 31));
    let quiet = run(&["-c", "32", "-q"]);
    assert_eq!(quiet.stderr, "");
    assert!(run(&["-n", "3", "-v"]).stderr.contains("answer 3 tokens"));
}

#[test]
fn seeds_decide() {
    let (_dir, path) = model(&Fixture::default());
    let run = |seed: &str| {
        let hot = ["--temp", "12", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "20"];
        woolly(&[&["run", &path, "a", "--seed", seed], &hot[..]].concat()).success()
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
    assert_ne!(run("-1"), run("-1"), "two random seeds: equal once in 2^100 runs");
}

#[test]
fn sampling_is_as_the_file_recommends_unless_flags_say_otherwise() {
    // The successor's logit is 17 among 288 tokens: certain at temperature 0.8, one of many at 100.
    let (_dir, path) = model(&Fixture { temperature: Some(100.0), ..Fixture::default() });
    let wide = ["-n", "20", "--seed", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0"];
    let run = |extra: &[&str]| woolly(&[&["run", &path, "a"], &wide[..], extra].concat()).success();
    assert_ne!(run(&[]), successors("a", 20));
    assert_eq!(run(&["--temp", "0"]), successors("a", 20));
    assert!(woolly(&["show", &path]).success().contains("--temp 100"));
}

#[test]
fn names_of_control_tokens_are_text_unless_parsed() {
    let (_dir, path) = model(&Fixture::default());
    let tokens = |extra: &[&str]| {
        let arguments = [&["run", &path, "a</s>", "--raw", "--json", "-n", "0"], extra].concat();
        woolly(&arguments).json()["usage"]["prompt_tokens"].as_u64()
    };
    assert_eq!(tokens(&[]), Some(6), "begin, a, <, /, s, >");
    assert_eq!(tokens(&["--parse-special"]), Some(3), "begin, a, end");
    assert_eq!(woolly(&["run", &path, "a", "--parse-special"]).code, Some(2), "a chat's messages are text");
}

#[test]
fn json_is_one_object_with_the_answer() {
    let (_dir, path) = model(&Fixture::default());
    let object = woolly(&["run", &path, "a", "--temp", "0", "-r", "e", "--json", "--seed", "9"]).json();
    assert_eq!(object["text"], "bcd");
    assert_eq!((&object["finish_reason"], &object["stop"]), (&"stop_string".into(), &"e".into()));
    assert_eq!((&object["seed"], &object["usage"]["completion_tokens"]), (&9.into(), &4.into()));
    assert_eq!(object["timings"]["prompt_n"], 2);
}

#[cfg(feature = "lamb")]
#[test]
fn without_a_model_the_built_in_one_tells_the_story_asked_for() {
    let run = woolly(&["run", "Tell me a story about a fox and a river", "--temp", "0", "-n", "300"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("fox") && run.stdout.contains("river"), "{}", run.stdout);
    let shown = woolly(&["show", "woolly-lamb"]);
    assert!(shown.stdout.contains("llama") && shown.stdout.contains("Q8_0"), "{}", shown.stdout);
}

#[cfg(not(feature = "lamb"))]
#[test]
fn without_a_model_the_advice_is_to_name_one() {
    for arguments in [&["run"] as &[&str], &["run", "Once upon a time"]] {
        let run = woolly(arguments);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(
            run.stderr.contains("no model given") && run.stderr.contains("woolly run model.gguf"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn exit_codes_and_advice_are_those_promised() {
    let (dir, path) = model(&Fixture::default());
    let (_other, sheep) = model(&Fixture { architecture: "sheep", ..Fixture::default() });
    let html = dir.path().join("page.gguf").display().to_string();
    fs::write(&html, "<!DOCTYPE html><html></html>").expect("written");
    let long = "a".repeat(300);
    let cases: [(&[&str], i32, &[&str]); 12] = [
        (&["run", &path, "a", "-n", "1"], 0, &[]),
        (&["--help"], 0, &[]),
        (&[], 2, &["Usage"]),
        (&["run", &path, "a", "--no-such-flag"], 2, &["--no-such-flag"]),
        (&["run", &path, "a", "-c", "lots"], 2, &["lots", "32k"]),
        (&["run", &path, "a", "--temp", "-1"], 2, &["error: temperature is -1"]),
        (&["run", &path, "a", "--top-p", "nan"], 2, &["error: top_p is NaN"]),
        (&["run", &path, "a", "-c", "1m"], 2, &["1048576", "256"]),
        (&["run", "absent.gguf", "a"], 3, &["absent.gguf"]),
        (&["run", &html, "a"], 3, &["HTML"]),
        (&["run", &sheep, "a"], 3, &["`sheep`", "llama", "qwen2", "hint: "]),
        (&["run", &path, &long], 1, &["301", "256", "hint: "]),
    ];
    for (arguments, code, parts) in cases {
        let run = woolly(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(parts.iter().all(|part| run.stderr.contains(part)), "{arguments:?}: {}", run.stderr);
        assert!(code == 0 || run.stdout.is_empty(), "{arguments:?}: {}", run.stdout);
    }
    let unreadable = woolly(&["run", &path, "-f", "absent.txt"]);
    assert_eq!((unreadable.code, unreadable.stderr.contains("absent.txt")), (Some(1), true));
}

#[test]
#[cfg(target_os = "linux")]
fn a_context_beyond_the_memory_is_refused_with_one_that_fits() {
    // 2³⁰ tokens of 1 KiB each.
    let (_dir, path) = model(&Fixture { context: 1 << 30, ..Fixture::default() });
    let run = woolly(&["run", &path, "a", "-c", "0"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(
        run.stderr.contains("1024.00 GiB") && run.stderr.contains("hint: use a context of at most"),
        "{}",
        run.stderr
    );
}

/// A run that goes on for long, its first characters already read.
#[cfg(unix)]
fn endless(path: &str) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = command()
        .args(["run", path, "a", "--temp", "0", "-c", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    assert!(!stdout.fill_buf().expect("readable").is_empty(), "the answer began");
    (child, stdout)
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_answer_with_code_130() {
    let (_dir, path) = model(&Fixture { context: 100_000, ..Fixture::default() });
    for signal in ["-INT", "-TERM"] {
        let (mut child, mut stdout) = endless(&path);
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill exists");
        assert!(sent.success());
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("readable");
        let status = child.wait().expect("the program ends");
        assert_eq!(status.code(), Some(130), "{signal}");
        assert!(successors("a", text.len()) == text, "what was written is the answer's beginning");
    }
}

#[test]
#[cfg(unix)]
fn a_closed_pipe_ends_the_program_quietly() {
    let (_dir, path) = model(&Fixture { context: 100_000, ..Fixture::default() });
    let (mut child, stdout) = endless(&path);
    drop(stdout);
    let status = child.wait().expect("the program ends");
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("readable");
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
