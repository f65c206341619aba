//! The commands that look into a file, from outside: show, tokenize, perplexity.

#[path = "../../woolly/tests/fixture/mod.rs"]
mod fixture;
mod support;

use std::fs;

use fixture::{Fixture, VOCAB, peak};
use support::{piped, woolly};

fn model(fixture: &Fixture) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = fixture.write(dir.path()).display().to_string();
    (dir, path)
}

#[test]
fn show_tells_what_the_file_holds() {
    let (_dir, path) = model(&Fixture::chat());
    let text = woolly(&["show", &path]).success();
    let size = fs::metadata(&path).expect("the file").len();
    for part in [
        "llama",
        "fixture",
        "F32 100.0 %",
        "256 tokens",
        "1, width 288",
        "288 tokens",
        "yes",
        "1.00 MiB per 1024 tokens",
    ] {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
    let object = woolly(&["show", "-m", &path, "--json"]).json();
    assert_eq!((&object["architecture"], &object["supported"]), (&"llama".into(), &true.into()));
    assert_eq!((&object["file_bytes"], &object["tensor_count"]), (&size.into(), &12.into()));
    // 8 heads of 32 + 32 elements of 2 bytes in one layer.
    assert_eq!((&object["kv_bytes_per_token"], &object["types"][0]["type"]), (&1024.into(), &"F32".into()));
    assert!(object.get("tensors").is_none() && object.get("chat_template").is_none());
    // Embeddings and output; four attention and three feed-forward matrices; three norms.
    let parameters = 2 * VOCAB * VOCAB + 4 * VOCAB * 256 + 3 * VOCAB * 32 + 3 * VOCAB;
    assert_eq!(object["parameters"], parameters);
}

#[test]
fn show_lists_tensors_and_prints_the_template_on_request() {
    let (_dir, path) = model(&Fixture::chat());
    let listed = woolly(&["show", &path, "--tensors"]).success();
    assert!(listed.contains("288 x 256") && listed.contains("blk.0.attn_q.weight"), "{listed}");
    let template = woolly(&["show", &path, "--template"]).success();
    assert_eq!(template.trim_end(), Fixture::chat().template.expect("a template"));
    let object = woolly(&["show", &path, "--tensors", "--template", "--json"]).json();
    assert_eq!(object["tensors"].as_array().map(Vec::len), Some(12));
    assert_eq!(object["chat_template"], Fixture::chat().template.expect("a template"));
    let (_bare, bare) = model(&Fixture::default());
    assert_eq!(woolly(&["show", &bare, "--template"]).code, Some(2));
}

#[test]
fn show_describes_models_that_cannot_be_run() {
    let (_dir, path) = model(&Fixture { architecture: "sheep", tokenizer: "goat", ..Fixture::default() });
    let text = woolly(&["show", &path]).success();
    assert!(text.contains("sheep (not supported; known are") && text.contains("goat"), "{text}");
    let missing = woolly(&["show", "absent.gguf"]);
    assert_eq!((missing.code, missing.stderr.contains("absent.gguf")), (Some(3), true));
    let without = if cfg!(feature = "lamb") { 0 } else { 2 };
    assert_eq!(woolly(&["show"]).code, Some(without), "the built-in model, where there is one");
}

#[test]
fn texts_survive_the_way_to_ids_and_back() {
    let (_dir, path) = model(&Fixture::default());
    let texts = ["abc xyz.", "", "Grüße, 世界! 🐑", "  two  spaces \n\tand a tab ", "<s> is text here"];
    for text in texts {
        let ids = piped(&["tokenize", &path, "--ids", "--no-parse-special"], text).success();
        let back = piped(&["tokenize", &path, "--decode"], &ids).success();
        assert_eq!(back, text);
        let object = woolly(&["tokenize", &path, "-p", text, "--json", "--no-bos", "--no-parse-special"]).json();
        assert_eq!(object["text"], text);
        assert_eq!(object["ids"].as_array().map(Vec::len), object["pieces"].as_array().map(Vec::len));
    }
}

#[test]
fn tokenize_shows_ids_with_their_pieces() {
    let (_dir, path) = model(&Fixture::default());
    assert_eq!(woolly(&["tokenize", &path, "ab"]).success(), "     1 \"<s>\"\n   259 \"a\"\n   260 \"b\"\n");
    assert_eq!(woolly(&["tokenize", &path, "ab", "--no-bos", "--ids"]).success(), "259 260\n");
    assert_eq!(woolly(&["tokenize", &path, "</s>", "--no-bos", "--ids"]).success(), "2\n");
    assert_eq!(woolly(&["tokenize", &path, "[1, 259,260]", "--decode"]).success(), "ab");
    let wrong = woolly(&["tokenize", &path, "12 sheep", "--decode"]);
    assert_eq!((wrong.code, wrong.stderr.contains("sheep")), (Some(2), true));
    let beyond = woolly(&["tokenize", &path, "9999", "--decode"]);
    assert_eq!((beyond.code, beyond.stderr.contains("9999")), (Some(2), true));
}

#[test]
fn perplexity_is_that_of_the_known_model() {
    let (dir, path) = model(&Fixture::default());
    let file = dir.path().join("text.txt");
    fs::write(&file, "abcdefghijklmnopqrstuvw").expect("written");
    let file = file.display().to_string();
    let run = |extra: &[&str]| woolly(&[&["perplexity", "-m", &path, "-f", &file, "-c", "8"], extra].concat());
    let others = (VOCAB - 1) as f64;
    let mean = (1.0 + others * (-peak()).exp()).ln();
    let object = run(&["--json"]).json();
    assert!((object["mean_nll"].as_f64().expect("a number") - mean).abs() < 1e-4, "{object}");
    assert_eq!((&object["windows"], &object["scored_tokens"], &object["tokens"]), (&3.into(), &9.into(), &24.into()));
    let text = run(&["--chunks", "2"]);
    assert_eq!(text.stderr, "");
    assert!(text.success().starts_with("Final estimate: PPL = 1.0000 +/- 0.0000"));
    assert!(run(&["-v"]).stderr.contains("[3/3] 1.0000"));
    let short = woolly(&["perplexity", "-m", &path, "-f", &file]);
    assert_eq!((short.code, short.stderr.contains("512")), (Some(2), true), "{}", short.stderr);
}
