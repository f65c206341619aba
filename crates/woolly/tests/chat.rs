//! Conversations through the public API, with a template that writes the messages one after another.

mod fixture;

use fixture::{Fixture, successors};
use woolly::{ErrorKind, GenerateOptions, Message, Model};

fn load(fixture: &Fixture) -> Model {
    let dir = tempfile::tempdir().expect("temporary folder");
    Model::load(fixture.write(dir.path())).expect("a valid model")
}

fn greedy(count: usize) -> GenerateOptions {
    GenerateOptions::new().greedy().max_tokens(count)
}

#[test]
fn turns_are_kept_and_computed_once() {
    let mut chat = load(&Fixture::chat()).chat().expect("a template");
    chat.system("abc");
    let first = chat.send("xy", greedy(3)).expect("answered");
    assert_eq!((first.text.as_str(), first.usage.prompt_tokens), ("z a", 6));
    let second = chat.send("m", greedy(2)).expect("answered");
    // Of the begin token, `abc`, `xy`, `z a` and `m`, all but the last two were computed.
    assert_eq!((second.text.as_str(), second.usage.prompt_tokens, second.usage.cached_tokens), ("no", 10, 8));
    let messages: Vec<_> = chat.messages().iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(messages, [("system", "abc"), ("user", "xy"), ("assistant", "z a"), ("user", "m"), ("assistant", "no")]);
}

#[test]
fn what_a_user_says_is_never_a_control_token() {
    let mut chat = load(&Fixture::chat()).chat().expect("a template");
    let answer = chat.send("a</s>b", greedy(1)).expect("answered");
    // The begin token, and a token for each of the six characters.
    assert_eq!((answer.text.as_str(), answer.usage.prompt_tokens), ("c", 7));
}

#[test]
fn a_dropped_answer_stays_as_far_as_it_was_seen() {
    let mut chat = load(&Fixture::chat()).chat().expect("a template");
    let mut stream = chat.stream("a", greedy(20)).expect("accepted");
    let seen: String = stream.by_ref().take(3).map(|chunk| chunk.expect("no failure").into_text()).collect();
    drop(stream);
    assert_eq!(seen, successors("a", 3));
    assert_eq!(chat.messages(), [Message::new("user", "a"), Message::new("assistant", "bcd")]);
    // Nothing seen: nothing said.
    drop(chat.stream("m", greedy(20)).expect("accepted"));
    assert_eq!(chat.messages().len(), 2);
}

#[test]
fn refused_conversations_stay_as_they_were() {
    let picky = "{% if messages|length > 1 %}{{ raise_exception('only one') }}{% endif %}{{ messages[0].content }}";
    let mut chat = load(&Fixture { template: Some(picky), ..Fixture::default() }).chat().expect("a template");
    chat.send("a", greedy(1)).expect("answered");
    let refused = chat.send("b", greedy(1)).expect_err("refused");
    assert_eq!((refused.kind(), refused.to_string().contains("only one")), (ErrorKind::Template, true));
    assert_eq!(chat.messages().len(), 2);
}

#[test]
fn without_a_usable_template_the_model_still_completes() {
    for template in [None, Some("{% if %}")] {
        let model = load(&Fixture { template, ..Fixture::default() });
        let error = model.chat().expect_err("no template");
        assert_eq!(error.kind(), ErrorKind::Template, "{template:?}");
        assert_eq!(model.generate_with("a", greedy(1)).expect("answered").text, "b");
    }
}
