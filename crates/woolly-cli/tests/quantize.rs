//! `woolly quantize`, from outside.

#[path = "../../woolly/tests/fixture/mod.rs"]
mod fixture;
mod support;

use std::fs;

use fixture::Fixture;
use support::{Run, woolly};

struct Bench {
    dir: tempfile::TempDir,
    input: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let input = Fixture::default().write(dir.path()).display().to_string();
        Self { dir, input }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs with the output `out.gguf`.
    fn run(&self, flags: &[&str], rest: &[&str]) -> Run {
        woolly(&[&["quantize"], flags, &[&self.input, &self.path("out.gguf")], rest].concat())
    }
}

#[test]
fn what_is_written_can_be_shown_and_run() {
    let bench = Bench::new();
    let text = bench.run(&[], &["Q8_0", "2"]).success();
    assert!(text.starts_with("Q8_0: ") && text.contains("bits per weight"), "{text}");
    let shown = woolly(&["show", &bench.path("out.gguf"), "--json", "--tensors"]).json();
    let tensors = shown["tensors"].as_array().expect("a list");
    assert!(tensors.iter().all(|t| t["type"] == if t["dims"][1].is_null() { "F32" } else { "Q8_0" }), "{shown}");
    // The successor of each letter is the next, whatever the type of the weights.
    let answer =
        woolly(&["run", &bench.path("out.gguf"), "abc", "-n", "4", "--temp", "0", "--no-conversation"]).success();
    assert!(answer.contains("defg"), "{answer}");
}

#[test]
fn flags_are_those_of_llama_cpp() {
    let bench = Bench::new();
    let flags =
        ["--output-tensor-type", "q8_0", "--token-embedding-type", "f16", "--tensor-type", "attn_v=q5_1", "--pure"];
    let object = bench.run(&[&flags[..], &["--json"]].concat(), &["q4_0"]).json();
    let to = |name: &str| {
        let tensors = object["tensors"].as_array().expect("a list");
        tensors.iter().find(|tensor| tensor["name"] == name).expect(name)["to"].clone()
    };
    let expected = [
        ("output.weight", "Q8_0"),
        ("token_embd.weight", "F16"),
        ("blk.0.attn_v.weight", "Q5_1"),
        ("blk.0.attn_q.weight", "Q4_0"),
        ("output_norm.weight", "F32"),
    ];
    for (name, ty) in expected {
        assert_eq!(to(name), ty, "{name}");
    }
    let size = fs::metadata(bench.path("out.gguf")).expect("the file").len();
    assert_eq!((&object["type"], &object["file_bytes"]), (&"Q4_0".into(), &size.into()));
    assert_eq!(bench.run(&["--force", "--leave-output-tensor"], &["Q4_0"]).code, Some(0));
}

#[test]
fn a_dry_run_lists_types_and_writes_nothing() {
    let bench = Bench::new();
    for rest in [&["Q4_K_M"][..], &["Q4_K_M", "1"]] {
        let text = woolly(&[&["quantize", "--dry-run", &bench.input], rest].concat()).success();
        assert!(text.contains("F32     -> Q5_0") && text.contains("blk.0.ffn_down.weight"), "{text}");
        assert!(text.contains("nothing written"), "{text}");
    }
    assert_eq!(fs::read_dir(bench.dir.path()).expect("listable").count(), 1);
}

#[test]
fn refusals_say_why_and_what_to_do() {
    let bench = Bench::new();
    let input = bench.input.as_str();
    let there = bench.path("there.gguf");
    fs::write(&there, "precious").expect("written");
    let cases: [(&[&str], &str); 8] = [
        (&[input, &there, "Q4_0"], "--force"),
        (&[input, input, "Q4_0"], "is the input"),
        (&[input, "Q4_0"], "no file to write"),
        (&[input, &there, "Q4_K_XL"], "Q4_K_M"),
        (&[input, &there, "Q4_0", "many"], "`many`"),
        (&["--force", input, &there, "IQ2_XXS"], "--without-imatrix"),
        (&["--force", "--tensor-type", "sheep=q4_0", input, &there, "Q4_0"], "sheep"),
        (&["--tensor-type", "attn_v", input, &there, "Q4_0"], "PATTERN=TYPE"),
    ];
    for (arguments, part) in cases {
        let run = woolly(&[&["quantize"], arguments].concat());
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(part), "{arguments:?}: {}", run.stderr);
    }
    assert_eq!(fs::read_to_string(&there).expect("readable"), "precious");
    let absent = woolly(&["quantize", "absent.gguf", &there, "Q4_0"]);
    assert_eq!((absent.code, absent.stderr.contains("absent.gguf")), (Some(3), true));
}

#[test]
fn quantised_files_are_quantised_again_only_on_request() {
    let bench = Bench::new();
    bench.run(&["--quiet"], &["Q8_0"]).success();
    let again = |flags: &[&str]| {
        let (from, to) = (bench.path("out.gguf"), bench.path("again.gguf"));
        woolly(&[&["quantize"], flags, &[from.as_str(), &to, "Q4_0"]].concat())
    };
    let refused = again(&[]);
    assert_eq!((refused.code, refused.stderr.contains("--allow-requantize")), (Some(2), true), "{}", refused.stderr);
    again(&["--allow-requantize"]).success();
}

#[test]
fn an_importance_matrix_is_made_and_used() {
    let bench = Bench::new();
    let (matrix, text) = (bench.path("imatrix.gguf"), bench.path("text"));
    fs::write(&text, "abcdefghijklmnopqrstuvwxyz").expect("written");
    let made = woolly(&["imatrix", "-m", &bench.input, "-f", &text, "-c", "8", "-o", &matrix]).success();
    assert!(made.contains("7 tensors, 3 windows of 8"), "{made}");
    bench.run(&["--imatrix", &matrix], &["IQ2_XXS"]).success();
    let shown =
        woolly(&["run", &bench.path("out.gguf"), "abc", "-n", "4", "--temp", "0", "--no-conversation"]).success();
    assert!(shown.contains("defg"), "{shown}");
    for (file, part) in [(text.as_str(), "is no importance matrix"), (&bench.input, "is no importance matrix")] {
        let refused = bench.run(&["--force", "--imatrix", file], &["Q4_0"]);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(part) && refused.stderr.contains("woolly imatrix"), "{}", refused.stderr);
    }
}

#[test]
fn parts_of_a_split_are_named_as_others_name_them() {
    let bench = Bench::new();
    let text = bench.run(&["--split-max-size", "1M"], &["F32"]).success();
    let first = bench.path("out-00001-of-00002.gguf");
    assert!(text.contains(&first), "{text}");
    let answer = woolly(&["run", &first, "abc", "-n", "4", "--temp", "0", "--no-conversation"]).success();
    assert!(answer.contains("defg"), "{answer}");
    let refused = bench.run(&["--split-max-size", "1M"], &["F32"]);
    assert_eq!((refused.code, refused.stderr.contains("--force")), (Some(2), true), "{}", refused.stderr);
    assert_eq!(bench.run(&["--split-max-size", "1"], &["F32"]).code, Some(2));
}

#[test]
fn a_mix_is_searched_on_request() {
    let bench = Bench::new();
    let text = bench.path("text");
    fs::write(&text, "abcdefghijklmnopqrstuvwxyz".repeat(30)).expect("written");
    let (out, input) = (bench.path("out.gguf"), bench.input.as_str());
    let search = |flags: &[&str]| woolly(&[&["quantize", input, &out, "--target-kld"], flags].concat());
    // The fixture's context is 256 tokens, less than a window.
    let short = search(&["0.01", "--text", &text]);
    assert_eq!((short.code, short.stderr.contains("256")), (Some(2), true), "{}", short.stderr);
    for (flags, part) in [(&["0.01"][..], "--text"), (&["-1", "--text", &text], "above 0"), (&["x"], "x")] {
        let refused = search(flags);
        assert_eq!((refused.code, refused.stderr.contains(part)), (Some(2), true), "{flags:?}: {}", refused.stderr);
    }
    let typed = woolly(&["quantize", input, &out, "Q4_0", "--target-kld", "0.1", "--text", &text]);
    assert_eq!((typed.code, typed.stderr.contains("searches types")), (Some(2), true), "{}", typed.stderr);
}

/// A file with one weight that takes seconds to quantise; returns the folder and the path.
#[cfg(unix)]
fn much_work() -> (tempfile::TempDir, String) {
    const COLUMNS: usize = 4096;
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("large.gguf");
    let weights: Vec<u8> = (0..COLUMNS * COLUMNS).flat_map(|i| ((i * 977 % 30_011) as u16).to_le_bytes()).collect();
    let mut file = woolly::GGUFWriter::new();
    file.set("general.architecture", "llama").set("llama.block_count", 1_u32);
    file.tensor("blk.0.ffn_up.weight", &[COLUMNS as u64; 2], woolly::TensorType::F16, weights);
    file.write_file(&path).expect("a writable folder");
    (dir, path.display().to_string())
}

/// The names in a folder, in order.
#[cfg(unix)]
fn names(dir: &std::path::Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name().display().to_string();
    let mut names: Vec<String> = fs::read_dir(dir).expect("listable").map(name).collect();
    names.sort();
    names
}

#[test]
#[cfg(unix)]
fn what_is_interrupted_leaves_no_half_a_file() {
    let (dir, input) = much_work();
    let out = dir.path().join("out.gguf").display().to_string();
    for (signal, code, left) in [("-INT", Some(130), 1), ("-TERM", Some(130), 1), ("-KILL", None, 2)] {
        let mut child = support::command();
        child.args(["quantize", "--without-imatrix", &input, &out, "IQ1_S"]).stderr(std::process::Stdio::null());
        let mut child = child.spawn().expect("the program starts");
        while names(dir.path()).len() == 1 {
            assert!(child.try_wait().expect("a child").is_none(), "it ended before it began to write");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill exists").success());
        assert_eq!(child.wait().expect("it ends").code(), code, "{signal}");
        let names = names(dir.path());
        assert_eq!(names.len(), left, "{signal}: {names:?}");
        assert!(!names.contains(&"out.gguf".to_owned()), "{signal}: {names:?}");
    }
    // What a killed process left is in nobody's way.
    woolly(&["quantize", &input, &out, "Q8_0"]).success();
}

#[test]
#[cfg(unix)]
fn what_cannot_be_written_leaves_nothing_and_is_no_fault_of_the_model() {
    let (dir, input) = much_work();
    let out = dir.path().join("out.gguf").display().to_string();
    // A limit on the size of files stands for a full disk; the shell's trap makes it an error instead of a signal.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" quantize \"$1\" \"$2\" Q8_0";
    let mut shell = std::process::Command::new("sh");
    let full = shell.args(["-c", script, env!("CARGO_BIN_EXE_woolly"), &input, &out]).output().expect("a shell");
    let text = String::from_utf8_lossy(&full.stderr);
    assert!(full.status.code() == Some(1) && text.contains("out.gguf: cannot write"), "{text}");
    assert!(text.contains("free space"), "{text}");
    assert_eq!(names(dir.path()), ["large.gguf"]);
    let absent = woolly(&["quantize", &input, &dir.path().join("absent/out.gguf").display().to_string(), "Q8_0"]);
    assert_eq!((absent.code, absent.stderr.contains("absent/out.gguf")), (Some(1), true), "{}", absent.stderr);
}
