//! Tokenizers of tiny vocabularies built in code: rules, edge cases, damage and scale.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;
use woolly_gguf::{GGUFLoader, Metadata, Value};
use woolly_testdata::{folder, root};
use woolly_text::{ChatTemplate, Error, RenderInput, Special, TokenType, Tokenizer};

/// A vocabulary of the `llama` kind: three special tokens, all bytes, then `tokens` with falling scores.
fn llama(tokens: &[&str]) -> Metadata {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let texts: Vec<String> = special.into_iter().chain(bytes).chain(tokens.iter().map(|&t| t.to_owned())).collect();
    let types: Vec<i32> =
        (0..texts.len()).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "llama".into());
    metadata.insert("tokenizer.ggml.scores", Value::from((0..texts.len()).map(|id| -(id as f32)).collect::<Vec<_>>()));
    metadata.insert("tokenizer.ggml.token_type", Value::from(types));
    metadata.insert("tokenizer.ggml.tokens", Value::strings(texts));
    metadata
}

/// A vocabulary of the `gpt2` kind over the bytes of ` abcé`, with merges and `<|end|>` as a control token.
fn gpt2(pre: &str) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "gpt2".into());
    metadata.insert("tokenizer.ggml.pre", pre.into());
    let tokens = ["<|end|>", "a", "b", "c", "Ġ", "Ã", "©", "ab", "Ġab", "bc", "abc", "Ã©", "[X]"];
    metadata.insert("tokenizer.ggml.tokens", Value::strings(tokens));
    metadata.insert("tokenizer.ggml.merges", Value::strings(["a b", "Ġ ab", "b c", "Ã ©"]));
    metadata.insert("tokenizer.ggml.token_type", Value::from(vec![3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]));
    metadata
}

fn tokenizer(metadata: &Metadata) -> Tokenizer {
    Tokenizer::from_metadata(metadata).expect("a valid vocabulary")
}

#[test]
fn llama_merges_by_score_and_falls_back_to_bytes() {
    // Ids from 259 on; a lower id has a higher score.
    let tokens = tokenizer(&llama(&["▁a", "ab", "a", "b", "▁", "▁▁"]));
    let (sp_a, ab, a, b, sp, sp_sp) = (259, 260, 261, 262, 263, 264);
    let byte = |byte: u32| 3 + byte;
    let cases: &[(&str, &[u32], &str)] = &[
        ("", &[], "nothing, not even a prefix"),
        ("a", &[sp_a], "a space is put in front"),
        ("ab", &[sp_a, b], "the higher score merges first"),
        ("bab", &[sp, b, ab], "not at the start"),
        (" ", &[sp_sp], "prefix and text"),
        ("▁a", &[sp, sp_a], "the space symbol is a space"),
        ("é", &[sp, byte(0xC3), byte(0xA9)], "bytes of an unknown character"),
        ("\0", &[sp, byte(0)], "a NUL byte is a byte"),
        ("aaa", &[sp_a, a, a], "no merge"),
    ];
    for (text, expected, why) in cases {
        assert_eq!(tokens.encode(text, false, false), *expected, "{text:?}: {why}");
    }
    assert_eq!(tokens.encode("a", true, false), [1, sp_a], "BOS by default");
    assert_eq!(tokens.encode("a</s>a", false, true), [sp_a, 2, sp_a], "a prefix after each special token");
    assert_eq!(tokens.decode(&[1, sp_a, b], false).expect("in range"), "ab");
    assert_eq!(tokens.decode(&[1, sp_a, b], true).expect("in range"), "<s>ab");
}

#[test]
fn llama_without_byte_tokens_uses_the_unknown_token() {
    let mut metadata = llama(&[]);
    metadata.insert("tokenizer.ggml.tokens", Value::strings(["<unk>", "<s>", "</s>", "▁", "a"]));
    metadata.insert("tokenizer.ggml.scores", Value::from(vec![0f32; 5]));
    metadata.insert("tokenizer.ggml.token_type", Value::from(vec![2, 3, 3, 1, 1]));
    assert_eq!(tokenizer(&metadata).encode("aéa", false, false), [3, 4, 0, 4]);
}

#[test]
fn gpt2_merges_by_rank_within_pieces() {
    let cases: &[(&str, &str, &[u32], &str)] = &[
        ("gpt-2", "ab ab", &[7, 8], "a space belongs to the word"),
        ("gpt-2", "abc", &[7, 3], "rank decides, though the whole is a token"),
        ("llama-bpe", "abc", &[10], "the whole word first"),
        ("gpt-2", "é", &[11], "bytes merge to a character"),
        ("gpt-2", "a<|end|>", &[1], "names are text; bytes without token and unknown token are lost and reported"),
        ("gpt-2", "a[X]b", &[1, 12, 2], "user-defined tokens always"),
    ];
    for (pre, text, expected, why) in cases {
        assert_eq!(tokenizer(&gpt2(pre)).encode(text, false, false), *expected, "{pre} {text:?}: {why}");
    }
    assert_eq!(tokenizer(&gpt2("gpt-2")).encode("a<|end|>b", false, true), [1, 0, 2]);
    assert_eq!(tokenizer(&gpt2("gpt-2")).decode(&[8, 11], false).expect("in range"), " abé");
}

#[test]
fn a_character_over_several_tokens_is_held_back() {
    let tokens = tokenizer(&gpt2("gpt-2"));
    let mut stream = tokens.stream();
    assert_eq!(stream.push(5).expect("in range"), "");
    assert_eq!(stream.push(0).expect("in range"), "", "a control token between does not disturb");
    assert_eq!(stream.push(6).expect("in range"), "é");
    assert_eq!(stream.push(5).expect("in range"), "");
    assert_eq!(stream.push(1).expect("in range"), "\u{fffd}a");
    assert_eq!(stream.push(5).expect("in range"), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert!(matches!(stream.push(13), Err(Error::TokenOutOfRange { id: 13, tokens: 13 })));
    assert!(tokens.token_bytes(13).is_none() && tokens.token_type(u32::MAX).is_none());
}

#[test]
fn the_space_in_front_is_kept_when_a_text_goes_on() {
    let tokens = tokenizer(&llama(&["▁a"]));
    assert_eq!(tokens.stream().push(259).expect("in range"), "a");
    assert_eq!(tokens.stream().continuing().push(259).expect("in range"), " a");
}

#[test]
fn the_end_of_generation_is_found_by_key_and_by_text() {
    let mut metadata = gpt2("gpt-2");
    metadata.insert("tokenizer.ggml.eos_token_id", 3u32.into());
    let tokens = tokenizer(&metadata);
    assert_eq!(tokens.end_of_generation(), [0, 3]);
    assert!(tokens.is_end_of_generation(0) && !tokens.is_end_of_generation(1) && !tokens.is_end_of_generation(99));
    assert_eq!((tokens.eot(), tokens.eos(), tokens.bos()), (Some(0), Some(3), None));

    metadata.insert("tokenizer.ggml.tokens", Value::strings(["<|end|>", "<|return|>", "<|call|>"]));
    metadata.insert("tokenizer.ggml.token_type", Value::from(vec![3, 3, 1]));
    metadata.insert("tokenizer.ggml.eos_token_id", 1u32.into());
    let harmony = tokenizer(&metadata);
    assert_eq!(harmony.end_of_generation(), [1, 2], "there, <|end|> ends a message only");
    assert_eq!(harmony.token_type(2), Some(TokenType::Control), "a name of this kind is a control token");
}

#[test]
fn damage_is_named() {
    let with = |key: &str, value: Value| {
        let mut metadata = gpt2("gpt-2");
        metadata.insert(key, value);
        Tokenizer::from_metadata(&metadata).expect_err(key).to_string()
    };
    let cases = [
        (with("tokenizer.ggml.model", "xyz".into()), vec!["xyz", "llama", "gpt2"]),
        (with("tokenizer.ggml.pre", "xyz".into()), vec!["xyz", "llama-bpe", "tekken"]),
        (with("tokenizer.ggml.tokens", Value::strings::<&str>([])), vec!["tokens", "empty"]),
        (with("tokenizer.ggml.tokens", 7u32.into()), vec!["tokenizer.ggml.tokens"]),
        (with("tokenizer.ggml.token_type", Value::from(vec![1, 2])), vec!["token_type", "2", "13"]),
        (with("tokenizer.ggml.token_type", Value::from(vec![9; 13])), vec!["token_type[0]", "9"]),
        (with("tokenizer.ggml.merges", Value::strings(["a b", "ab"])), vec!["merges[1]", "ab"]),
        (with("tokenizer.ggml.merges", Value::strings([""])), vec!["merges[0]"]),
        (with("tokenizer.ggml.eos_token_id", 13u32.into()), vec!["eos_token_id", "13"]),
        (with("tokenizer.ggml.bos_token_id", (-2i32).into()), vec!["bos_token_id", "-2"]),
    ];
    for (message, parts) in cases {
        assert!(parts.iter().all(|part| message.contains(part)), "{message:?} should contain {parts:?}");
    }
    let mut scores = llama(&[]);
    scores.insert("tokenizer.ggml.scores", Value::from(vec![1f32]));
    assert!(matches!(Tokenizer::from_metadata(&scores), Err(Error::LengthMismatch { found: 1, tokens: 259, .. })));
}

#[test]
fn odd_vocabularies_are_usable() {
    let mut metadata = gpt2("gpt-2");
    metadata.insert("tokenizer.ggml.merges", Value::strings(["a a", "aa b", "q r", "Ġ a", "a  "]));
    metadata.insert("tokenizer.ggml.padding_token_id", 5000u32.into());
    metadata.insert("tokenizer.ggml.bos_token_id", u32::MAX.into());
    let tokens = tokenizer(&metadata);
    // Merges through "aa", which is no token, fall apart again.
    assert_eq!(tokens.encode("aab", false, false), [1, 1, 2]);
    assert_eq!((tokens.special(Special::Padding), tokens.bos()), (None, None));

    metadata.insert("tokenizer.ggml.tokens", Value::strings([&b"\xff\xfe"[..], b"", b"a", b"a", b"\xe8\xaa\x9e"]));
    metadata.insert("tokenizer.ggml.token_type", Value::from(vec![3, 4, 1, 1, 1]));
    let tokens = tokenizer(&metadata);
    assert_eq!(tokens.encode("a", false, true), [2], "the first of equal tokens");
    assert_eq!(tokens.decode(&[0, 1, 2, 4], true).expect("in range"), "\u{fffd}\u{fffd}a語");
}

#[test]
fn damaged_files_are_refused_or_harmless() {
    let Some(dir) = folder("damaged_files_are_refused_or_harmless", "gguf/malformed") else { return };
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).expect("a manifest");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&manifest).expect("JSON");
    for entry in entries {
        let name = entry["file"].as_str().expect("a name");
        let Ok(model) = GGUFLoader::open(dir.join(name)) else { continue };
        let result = Tokenizer::from_metadata(model.metadata());
        if name.starts_with("vocab-") && entry["expect"] == "error" {
            assert!(result.is_err(), "{name} must be refused");
        }
        let Ok(tokens) = result else { continue };
        for text in ["", "Hello wörld \u{0}\u{1f999}<s></s><unk>", "ｆｕｌｌ", "\n\n  \t"] {
            for flags in 0..4 {
                let ids = tokens.encode(text, flags & 1 == 1, flags & 2 == 2);
                tokens.decode(&ids, true).expect("its own ids");
            }
        }
        let size = tokens.vocab_size() as u32;
        let all: Vec<u32> = (0..size).collect();
        tokens.decode(&all, true).expect("all ids");
        assert!(tokens.decode(&[size], true).is_err() && tokens.decode(&[u32::MAX], false).is_err());
    }
}

#[test]
fn ten_megabytes_of_one_character_are_fine() {
    let runs = llama(&["a", "aa", "▁", "▁▁", "\n", "\n\n"]);
    for (metadata, units) in [(runs, &["a", " "][..]), (gpt2("llama-bpe"), &["a"]), (gpt2("deepseek-llm"), &["\n"])] {
        let tokens = tokenizer(&metadata);
        for unit in units {
            let text = unit.repeat(10_000_000 / unit.len());
            let start = Instant::now();
            assert!(tokens.encode(&text, false, true).len() < text.len() + 2);
            // Generous, because tests run unoptimised and side by side; a quadratic method would take hours.
            assert!(start.elapsed() < Duration::from_secs(120), "runs of {unit:?}");
        }
    }
}

#[test]
fn names_in_the_words_of_a_user_are_text() {
    let mut metadata = llama(&["▁", "a"]);
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content | trim }}</s>{% endfor %}";
    metadata.insert("tokenizer.chat_template", template.into());
    let tokens = tokenizer(&metadata);
    let chat = ChatTemplate::from_metadata(&metadata, &tokens);
    let count_ends = |role: &str, content: &str| {
        let messages = json!([{"role": role, "content": content}]);
        let ids = chat.encode(&tokens, &RenderInput::new(&messages)).expect("renders");
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1, "BOS once");
        let shown = tokens.decode(&ids, true).expect("its own ids");
        assert_eq!(shown.replace(' ', ""), format!("<s>{}</s>", content.replace(' ', "")), "the text is unchanged");
        ids.iter().filter(|id| **id == 2).count()
    };
    assert_eq!(count_ends("user", "a </s> a"), 1);
    assert_eq!(count_ends("user", "</s></s><</s>s>\u{fdd0}"), 1);
    assert_eq!(count_ends("tool", "</s>"), 1);
    assert_eq!(count_ends("assistant", "a</s>"), 2, "the assistant's own");
    let plain = tokens.encode_prompt("<s>a</s>");
    assert_eq!((plain.first(), plain.last()), (Some(&1), Some(&2)));
    assert_eq!(tokens.encode_prompt("a")[0], 1, "BOS is added when the template did not");
}

proptest! {
    #[test]
    fn text_survives_encoding_and_decoding(text in "\\PC{0,60}", spaces in "[ \\n\\ta]{0,20}") {
        let tokens = tokenizer(&llama(&["▁a", "a", "▁", "▁▁", "e", "▁▁▁▁"]));
        // U+2581 is how the vocabulary writes a space, so it cannot survive.
        let text = (text + &spaces).replace('\u{2581}', " ");
        let ids = tokens.encode(&text, false, false);
        prop_assert_eq!(tokens.decode(&ids, false).expect("its own ids"), text);
    }

    #[test]
    fn a_stream_gives_what_decoding_gives(ids in proptest::collection::vec(0u32..260, 0..40)) {
        let tokens = tokenizer(&llama(&["▁a"]));
        let mut stream = tokens.stream();
        let mut text = String::new();
        for id in &ids {
            text.push_str(stream.push(*id).expect("in range"));
        }
        text.push_str(stream.finish());
        prop_assert_eq!(text, tokens.decode(&ids, false).expect("in range"));
    }
}

#[test]
fn published_vocabularies_decode_what_they_encode() {
    let Some(dir) = folder("published_vocabularies_decode_what_they_encode", "vocab") else { return };
    let text = std::fs::read_to_string(root().join("text/botchan-en.txt"))
        .unwrap_or_else(|_| "Grüße, 世界! 🦙\n\n  x".to_owned());
    for path in woolly_testdata::files_ending_in(&dir, ".gguf") {
        let model = GGUFLoader::open(&path).expect("a model");
        let Ok(tokens) = Tokenizer::from_metadata(model.metadata()) else { continue };
        if model.metadata().str("tokenizer.ggml.model").ok().flatten() == Some("bert") {
            continue;
        }
        let ids = tokens.encode(&text, false, false);
        assert_eq!(tokens.decode(&ids, true).expect("its own ids"), text, "{}", path.display());
        let distinct: HashSet<u32> = ids.iter().copied().collect();
        assert!(distinct.len() > 10, "{} uses the vocabulary", path.display());
    }
}
