//! Hostile and broken templates: every one ends in an error, none in a crash or a long wait.

use serde_json::{Value, json};
use woolly_gguf::{GGUFLoader, Metadata};
use woolly_testdata::{files_ending_in, folder};
use woolly_text::{ChatTemplate, Error, RenderInput, Tokenizer};

fn render(source: &str, messages: &Value) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>").render(&RenderInput::new(messages))
}

#[test]
fn hostile_templates_end_in_an_error() {
    let cases = [
        ("{% for i in range(1000000000000) %}x{% endfor %}", "a range beyond Python's limit in sandboxes"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "endless work"),
        ("{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}", "endless output"),
        ("{{ 'x' * 100000000000 }}", "a huge string at once"),
        ("{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "doubling"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "endless recursion"),
        ("{% include 'x' %}", "there is nothing to include"),
        ("{{ messages.foo.bar }}", "an undefined value has no attributes"),
        ("{{ 1|nothing }}", "an unknown filter"),
        ("{{ raise_exception('no') }}", "an exception"),
        ("{{ [1]|tojson(indent=99999999999999999999) }}", "an absurd indentation"),
    ];
    for (source, why) in cases {
        assert!(render(source, &json!([])).is_err(), "{why}: {source}");
    }
}

#[test]
fn values_nested_by_a_loop_do_not_overflow_the_stack() {
    let nest = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    for end in ["", "{{ ns.x }}", "{{ ns.x|tojson }}", "{{ ns.x|string }}", "{{ ns.x == [ns.x] }}", "{{ 'a' ~ ns.x }}"]
    {
        // The result does not matter, only that there is one.
        _ = render(&format!("{nest}{end}"), &json!([]));
    }
}

#[test]
fn errors_tell_what_happened() {
    let raised = render("{{ raise_exception('roles must alternate') }}", &json!([]));
    assert!(matches!(raised, Err(Error::Raised { message }) if message == "roles must alternate"));
    let endless = render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", &json!([]));
    assert!(matches!(endless, Err(Error::TemplateLimit { .. })));
    let syntax = render("{% if %}", &json!([]));
    assert!(matches!(syntax, Err(Error::BadTemplate { reason }) if reason.contains(":1")));
    let missing = render("line\n{{ messages.a.b }}", &json!([]));
    assert!(matches!(missing, Err(Error::Render { reason }) if reason.contains(":2")));
}

#[test]
fn templates_of_damaged_files_do_not_block_loading() {
    let test = "templates_of_damaged_files_do_not_block_loading";
    let Some(dir) = folder(test, "gguf/malformed") else { return };
    for path in files_ending_in(&dir, ".gguf") {
        let Ok(model) = GGUFLoader::open(&path) else { continue };
        let Ok(tokenizer) = Tokenizer::from_metadata(model.metadata()) else { continue };
        let template = ChatTemplate::from_metadata(model.metadata(), &tokenizer);
        let result = template.render(&RenderInput::new(&json!([{"role": "user", "content": "Hi"}])));
        let has_template = model.metadata().get("tokenizer.chat_template").is_some();
        assert!(has_template || matches!(result, Err(Error::NoTemplate)), "{}", path.display());
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("template-")) {
            assert!(result.is_err(), "{}", path.display());
        }
    }
}

#[test]
fn a_template_that_is_no_string_is_told_when_used() {
    let mut metadata = tiny_vocabulary();
    metadata.insert("tokenizer.chat_template", 7u32.into());
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a vocabulary");
    let template = ChatTemplate::from_metadata(&metadata, &tokenizer);
    assert!(
        matches!(template.check(), Err(Error::BadTemplate { reason }) if reason.contains("tokenizer.chat_template"))
    );
}

#[test]
fn tools_select_the_template_for_tools() {
    let mut metadata = tiny_vocabulary();
    metadata.insert("tokenizer.chat_template", "{{ bos_token }}plain".into());
    metadata.insert("tokenizer.chat_template.tool_use", "{{ eos_token }}with {{ tools|length }}".into());
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a vocabulary");
    let template = ChatTemplate::from_metadata(&metadata, &tokenizer);
    let (messages, tools) = (json!([]), json!([{}, {}]));
    let input = RenderInput::new(&messages);
    assert_eq!(template.render(&input).expect("renders"), "<s>plain");
    assert_eq!(template.render(&RenderInput { tools: Some(&tools), ..input }).expect("renders"), "</s>with 2");
}

fn tiny_vocabulary() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", "llama".into());
    metadata.insert("tokenizer.ggml.tokens", woolly_gguf::Value::strings(["<unk>", "<s>", "</s>", "a"]));
    metadata
}
