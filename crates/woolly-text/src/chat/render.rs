//! The environment of a template, and rendering within limits.

use std::error::Error as _;
use std::io::{self, Write};
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

use super::clock::LocalTime;
use super::methods::{self, Raised};
use super::{RenderInput, filters, json, python, value};
use crate::error::Error;

const NAME: &str = "chat_template";

/// Work that every rendering may do: a unit is an instruction, or 64 bytes of data. Of over two thousand renderings of a
/// hundred published templates, none needs more than 3,400.
const BASE_FUEL: u64 = 250_000;
/// Further work for every byte of the conversation.
const FUEL_PER_BYTE: u64 = 2;
/// Work that no rendering may exceed.
const MAX_FUEL: u64 = 4_000_000;
/// A loop can nest values as deep as its work allows, and the engine frees, compares and prints them recursively. Measured
/// without optimisation, that takes up to 280 bytes of stack for a unit of work. Only what is touched is real memory.
const STACK_PER_FUEL: usize = 300;
const BASE_STACK: usize = 4 << 20;
/// Output that every rendering may produce, in bytes, and for every byte of the conversation.
const BASE_OUTPUT: usize = 1 << 20;
const OUTPUT_PER_BYTE: usize = 16;
/// Nesting of blocks, macros and calls.
const MAX_RECURSION: usize = 200;

/// Compiles a template; the error is its reason in words.
pub(super) fn compile(source: &str) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| e.to_string())?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(format_value);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("indent", filters::indent);
    environment.add_filter("string", filters::string);
    environment.add_test("iterable", filters::is_iterable);
    environment.add_function("raise_exception", methods::raise_exception);
    environment.add_function("cycler", minijinja_contrib::globals::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_template_owned(NAME, without_generation_blocks(source)).map_err(|e| e.to_string())?;
    Ok(environment)
}

/// Renders the template of `environment`.
pub(super) fn render(
    environment: &Environment<'static>,
    input: &RenderInput<'_>,
    bos_token: &str,
    eos_token: &str,
) -> Result<String, Error> {
    let size = input_size(input);
    let fuel = FUEL_PER_BYTE.saturating_mul(size as u64).saturating_add(BASE_FUEL).min(MAX_FUEL);
    let limit = BASE_OUTPUT.saturating_add(OUTPUT_PER_BYTE.saturating_mul(size));
    let mut environment = environment.clone();
    environment.set_fuel(Some(fuel));
    let now = input.now;
    environment.add_function("strftime_now", move |format: &str| LocalTime::format(now, format));
    let run = || render_here(&environment, context(input, bos_token, eos_token), limit);
    on_own_stack(BASE_STACK + STACK_PER_FUEL * fuel as usize, run)
}

/// Runs `run` on a thread of its own with `stack` bytes of stack.
fn on_own_stack<T: Send>(stack: usize, run: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |reason: String| Error::Render { reason };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(stack);
        let handle = builder.spawn_scoped(scope, run).map_err(|e| failed(format!("cannot start a thread: {e}")))?;
        handle.join().unwrap_or_else(|_| Err(failed("the template engine panicked".to_owned())))
    })
}

fn render_here(environment: &Environment<'_>, context: Value, limit: usize) -> Result<String, Error> {
    let template = environment.get_template(NAME).map_err(|e| explain(&e))?;
    let mut out = Limited { bytes: Vec::new(), limit };
    let rendered = template.render_captured_to(context, &mut out).map_err(|e| explain(&e))?;
    if let Some((used, left)) = rendered.state().fuel_levels() {
        tracing::debug!(used, left, "fuel of the chat template");
    }
    String::from_utf8(out.bytes).map_err(|e| Error::Render { reason: e.to_string() })
}

fn context(input: &RenderInput<'_>, bos_token: &str, eos_token: &str) -> Value {
    let optional = |json: Option<&Json>| json.map_or(Value::from(()), value::from_json);
    let fixed = [
        ("messages", value::from_json(input.messages)),
        ("tools", optional(input.tools)),
        ("documents", optional(input.documents)),
        ("add_generation_prompt", Value::from(input.add_generation_prompt)),
        ("bos_token", Value::from(bos_token)),
        ("eos_token", Value::from(eos_token)),
    ];
    let further = input.variables.into_iter().flatten().map(|(name, json)| (name.as_str(), value::from_json(json)));
    Value::from_pairs(fixed.into_iter().chain(further))
}

/// The bytes of all strings of the input, and one for everything else.
fn input_size(input: &RenderInput<'_>) -> usize {
    fn size(json: &Json) -> usize {
        1 + match json {
            Json::String(text) => text.len(),
            Json::Array(items) => items.iter().map(size).sum(),
            Json::Object(entries) => entries.iter().map(|(key, value)| key.len() + size(value)).sum(),
            _ => 0,
        }
    }
    let optional = [Some(input.messages), input.tools, input.documents];
    let further = input.variables.into_iter().flat_map(|variables| variables.values());
    optional.into_iter().flatten().chain(further).map(size).sum()
}

/// Prints containers and floats as Python does.
fn format_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Number => {
            let mut text = String::new();
            python::str(value, &mut text)?;
            out.write_str(&text).map_err(minijinja::Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn explain(error: &minijinja::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Error::Raised { message: message.clone() };
        }
        if let Some(OutputLimit(limit)) = cause.downcast_ref() {
            return Error::TemplateLimit { reason: format!("the prompt is longer than {limit} bytes") };
        }
        source = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    let reason = error.to_string();
    let is_limit = error.kind() == ErrorKind::OutOfFuel || reason.contains("recursion limit exceeded");
    if is_limit { Error::TemplateLimit { reason } } else { Error::Render { reason } }
}

/// A buffer that takes no more than a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("output limit of {0} bytes")]
struct OutputLimit(usize);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.bytes.len()) {
            return Err(io::Error::other(OutputLimit(self.limit)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Replaces `{% generation %}` blocks, which mark the assistant's words for training, by blocks that output their body.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let end = tag.find("%}").unwrap_or(tag.len());
        let (inside, after) = tag.split_at(end);
        match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&inside.replace("generation", "with")),
            "endgeneration" => out.push_str(&inside.replace("endgeneration", "endwith")),
            _ => out.push_str(inside),
        }
        rest = after;
    }
    out + rest
}
