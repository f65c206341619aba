//! Generation through the public API, against a model whose answers are known.

mod fixture;

use fixture::{Fixture, VOCAB, peak, successors};
use tempfile::TempDir;
use woolly::{CancelToken, Error, ErrorKind, FinishReason, GenerateOptions, Model, PerplexityOptions};

fn model(fixture: &Fixture) -> (Model, TempDir) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = Model::load(fixture.write(dir.path())).expect("a valid model");
    (model, dir)
}

fn greedy(count: usize) -> GenerateOptions {
    GenerateOptions::new().greedy().max_tokens(count)
}

#[test]
fn answers_and_reasons_are_those_of_the_model() {
    let (model, _dir) = model(&Fixture::default());
    let cases = [
        ("length", "ab", greedy(30), successors("ab", 30), FinishReason::MaxTokens),
        ("nothing asked for", "ab", greedy(0), String::new(), FinishReason::MaxTokens),
        ("the model ends", "ab.", greedy(30), "!".to_owned(), FinishReason::EndOfText),
        ("its end ignored", "ab.", greedy(4).ignore_end(), "!abc"[..3].to_owned(), FinishReason::MaxTokens),
        ("stop string", "a", greedy(30).stop("f"), "bcde".to_owned(), FinishReason::StopString("f".to_owned())),
        (
            "over several tokens",
            "a",
            greedy(30).stop("zz").stop("def"),
            "bc".to_owned(),
            FinishReason::StopString("def".to_owned()),
        ),
        ("begun, not completed", "a", greedy(4).stop("dex"), "bcde".to_owned(), FinishReason::MaxTokens),
        ("context", "a", GenerateOptions::new().greedy(), successors("a", 255), FinishReason::ContextFull),
        ("no prompt: the begin token", "", greedy(3), "abc".to_owned(), FinishReason::MaxTokens),
    ];
    for (reason, prompt, options, text, finish) in cases {
        let answer = model.generate_with(prompt, options).expect(reason);
        assert_eq!((answer.text, answer.finish_reason), (text, finish), "{reason}");
    }
}

#[test]
fn chunks_make_up_the_answer_and_the_counts_agree() {
    let (model, _dir) = model(&Fixture::default());
    let mut session = model.session().expect("memory");
    let mut stream = session.stream("xyz", greedy(10)).expect("accepted");
    let pieces: Vec<String> = stream.by_ref().map(|chunk| chunk.expect("no failure").into_text()).collect();
    let answer = stream.finish();
    assert_eq!((pieces.concat(), answer.text.as_str()), (successors("z", 10), successors("z", 10).as_str()));
    // Begin token and three letters.
    assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (4, 10));
    assert_eq!(answer.usage.total_tokens(), 14);
}

#[test]
fn a_session_reuses_what_it_computed_and_survives_dropped_streams() {
    let (model, _dir) = model(&Fixture::default());
    let mut session = model.session().expect("memory");
    let mut stream = session.stream("abc", greedy(100)).expect("accepted");
    assert_eq!(stream.next().and_then(Result::ok).map(|c| c.into_text()).as_deref(), Some("d"));
    assert_eq!(stream.text(), "d");
    assert_eq!(stream.finish().finish_reason, FinishReason::Cancelled);
    let answer = session.generate("abcd", greedy(2)).expect("accepted");
    // Begin, a, b and c were computed; d was drawn only.
    assert_eq!((answer.text.as_str(), answer.usage.cached_tokens), ("ef", 4));
}

#[test]
fn equal_seeds_give_equal_texts() {
    let (model, _dir) = model(&Fixture::default());
    let draw = |seed| {
        let options = GenerateOptions::new().temperature(12.0).top_k(0).top_p(1.0).min_p(0.0).max_tokens(20).seed(seed);
        model.generate_with("a", options).expect("accepted")
    };
    assert_eq!(draw(1).text, draw(1).text);
    assert_ne!(draw(1).text, draw(2).text);
    assert_eq!(draw(5).seed, 5);
    let unseeded = model.generate("a.").expect("accepted");
    assert_eq!(unseeded.text, "!", "the default draws are peaked enough");
}

#[test]
fn requests_that_cannot_be_served_say_why() {
    let (model, _dir) = model(&Fixture::default());
    let fail = |prompt: &str, options| model.generate_with(prompt, options).expect_err("refused");
    let long = fail(&"a".repeat(300), greedy(1));
    assert_eq!(
        (long.kind(), long.to_string().contains("301") && long.to_string().contains("256")),
        (ErrorKind::ContextExceeded, true)
    );
    let hot = fail("a", GenerateOptions::new().temperature(-1.0));
    assert_eq!((hot.kind(), hot.to_string().contains("temperature")), (ErrorKind::InvalidRequest, true));
    assert_eq!(fail("a", greedy(1).stop("")).kind(), ErrorKind::InvalidRequest);
    let mut session = model.session().expect("memory");
    assert!(matches!(session.stream_ids(&[5, 999], greedy(1)), Err(Error::Engine(_))));
    assert!(matches!(session.stream_ids(&[], greedy(1)), Err(Error::Engine(_))));
}

#[test]
fn cancelling_ends_an_answer_with_its_part() {
    let (model, _dir) = model(&Fixture::default());
    let cancel = CancelToken::new();
    let mut session = model.session().expect("memory");
    let mut stream = session.stream("a", greedy(100).cancel_with(&cancel)).expect("accepted");
    stream.next();
    cancel.cancel();
    assert!(stream.next().is_none());
    let answer = stream.finish();
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("b", FinishReason::Cancelled));
}

#[test]
fn contexts_are_the_models_a_default_or_what_was_asked() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = Fixture { context: 10_000, ..Fixture::default() }.write(dir.path());
    let context = |tokens| Model::builder(&path).context(tokens).load().map(|model| model.context());
    assert_eq!(Model::load(&path).expect("valid").context(), 4096);
    assert_eq!((context(0).ok(), context(50).ok()), (Some(10_000), Some(50)));
    assert!(matches!(context(10_001), Err(Error::ContextTooLong { asked: 10_001, limit: 10_000 })));
    let small = Model::builder(&path).context(50).load().expect("valid");
    let answer = small.generate_with("a", GenerateOptions::new().greedy()).expect("accepted");
    assert_eq!((answer.usage.total_tokens(), answer.finish_reason), (51, FinishReason::ContextFull));
}

#[test]
fn a_context_that_cannot_fit_is_refused_with_one_that_does() {
    if !cfg!(target_os = "linux") {
        return woolly_testdata::skip("a_context_that_cannot_fit", "the available memory is known on Linux only");
    }
    // 2³⁰ tokens of 1 KiB each.
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = Fixture { context: 1 << 30, ..Fixture::default() }.write(dir.path());
    let model = Model::builder(path).context(0).load().expect("valid");
    match model.session() {
        Err(error @ Error::OutOfMemory { cache_bytes, largest_context: Some(largest), .. }) => {
            assert_eq!((cache_bytes, error.kind()), (1 << 40, ErrorKind::OutOfMemory));
            assert!((32..1 << 30).contains(&largest), "{largest}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_are_no_models_say_what_is_wrong() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let unknown = Model::load(Fixture { architecture: "sheep", ..Fixture::default() }.write(dir.path()));
    let unknown = unknown.expect_err("refused");
    assert_eq!(unknown.kind(), ErrorKind::UnsupportedModel);
    assert!(unknown.to_string().contains("sheep") && unknown.to_string().contains("llama"), "{unknown}");
    let tokenizer = Model::load(Fixture { tokenizer: "goat", ..Fixture::default() }.write(dir.path()));
    assert_eq!(tokenizer.expect_err("refused").kind(), ErrorKind::UnsupportedModel);
    let missing = Model::load(dir.path().join("absent.gguf")).expect_err("refused");
    assert_eq!((missing.kind(), missing.to_string().contains("absent.gguf")), (ErrorKind::InvalidModel, true));
    std::fs::write(dir.path().join("text.gguf"), "<!DOCTYPE html>").expect("written");
    assert_eq!(Model::load(dir.path().join("text.gguf")).expect_err("refused").kind(), ErrorKind::InvalidModel);
}

#[test]
fn perplexity_is_that_of_the_known_model() {
    let (model, _dir) = model(&Fixture::default());
    let others = (VOCAB - 1) as f64;
    let likely = (1.0 + others * (-peak()).exp()).ln();
    let unlikely = peak() + likely;
    // Windows of 8: of tokens 5, 6 and 7, those after a repetition are unlikely. 23 letters and the begin token.
    let cases = [
        ("all as predicted", "abcdefghijklmnopqrstuvw", likely, 9),
        ("none as predicted", "aaaaaaaaaaaaaaaaaaaaaaa", unlikely, 9),
        ("an incomplete window is left out", "abcdefghijklmnopqrsaaaa", likely, 6),
    ];
    for (reason, text, mean, scored) in cases {
        let max_windows = Some(scored / 3);
        let options = PerplexityOptions { window: 8, max_windows, ..PerplexityOptions::default() };
        let result = model.perplexity(text, options).expect(reason);
        assert_eq!((result.scored, result.windows, result.tokens), (scored, scored / 3, 24), "{reason}");
        assert!((result.mean - mean).abs() < 1e-4, "{reason}: {} for {mean}", result.mean);
        assert!((result.value / mean.exp() - 1.0).abs() < 1e-4, "{reason}: {}", result.value);
    }
    let mut seen = 0;
    let report = Box::new(|_: &woolly::Perplexity| seen += 1);
    let options = PerplexityOptions { window: 8, on_window: Some(report), ..PerplexityOptions::default() };
    model.perplexity("abcdefghijklmnopqrstuvw", options).expect("measured");
    assert_eq!(seen, 3);
    let short = model.perplexity("abc", PerplexityOptions { window: 8, ..PerplexityOptions::default() });
    assert!(matches!(short, Err(Error::TextTooShort { found: 4, needed: 8 })));
}

#[test]
fn models_are_shared_between_threads() {
    let (model, _dir) = model(&Fixture::default());
    let answers: Vec<String> = std::thread::scope(|scope| {
        let run = |text: &'static str| {
            let model = model.clone();
            scope.spawn(move || model.generate_with(text, greedy(5)).expect("accepted").text)
        };
        [run("a"), run("m")].map(|thread| thread.join().expect("no panic")).into()
    });
    assert_eq!(answers, ["bcdef", "nopqr"]);
}
