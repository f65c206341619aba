//! Keeps the names of control tokens in a conversation from becoming control tokens.
//!
//! A prompt is one string, in which `<|im_end|>` written by the template and by a user look the same. Before rendering,
//! such names in the words of others than the assistant are broken up by a character that occurs nowhere else (a Unicode
//! noncharacter); after the prompt has been cut at its control tokens, that character is taken out again. The assistant's
//! own words are left alone: its tool calls and reasoning are marked by control tokens in some models.

use serde_json::{Map, Value};

use super::RenderInput;
use crate::partition::Partitioner;

/// An input with all names broken up, and the character that does it.
pub(super) struct Guarded {
    messages: Value,
    tools: Option<Value>,
    documents: Option<Value>,
    pub(super) mark: char,
}

impl Guarded {
    /// Breaks up the names that `names` finds in `input`; `None` when every noncharacter occurs in it already.
    pub(super) fn new(input: &RenderInput<'_>, names: &Partitioner) -> Option<Self> {
        let parts: Vec<&Value> = [Some(input.messages), input.tools, input.documents].into_iter().flatten().collect();
        let mark = ('\u{fdd0}'..='\u{fdef}').find(|mark| !parts.iter().any(|part| contains(part, *mark)))?;
        let guard = |value: &Value| break_up(value, names, mark);
        let messages = match input.messages {
            Value::Array(all) => {
                Value::Array(all.iter().map(|m| if is_assistant(m) { m.clone() } else { guard(m) }).collect())
            }
            other => guard(other),
        };
        Some(Self { messages, tools: input.tools.map(guard), documents: input.documents.map(guard), mark })
    }

    /// The input to render instead of `original`.
    pub(super) fn input<'a>(&'a self, original: &RenderInput<'a>) -> RenderInput<'a> {
        RenderInput {
            messages: &self.messages,
            tools: self.tools.as_ref(),
            documents: self.documents.as_ref(),
            ..original.clone()
        }
    }
}

fn is_assistant(message: &Value) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

fn contains(value: &Value, mark: char) -> bool {
    match value {
        Value::String(text) => text.contains(mark),
        Value::Array(items) => items.iter().any(|item| contains(item, mark)),
        Value::Object(entries) => entries.iter().any(|(key, value)| key.contains(mark) || contains(value, mark)),
        _ => false,
    }
}

fn break_up(value: &Value, names: &Partitioner, mark: char) -> Value {
    match value {
        Value::String(text) => Value::String(break_up_text(text, names, mark)),
        Value::Array(items) => items.iter().map(|item| break_up(item, names, mark)).collect(),
        Value::Object(entries) => {
            let guard =
                |(key, value): (&String, &Value)| (break_up_text(key, names, mark), break_up(value, names, mark));
            Value::Object(entries.iter().map(guard).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Puts `mark` behind the first character of every name. Names may overlap, so this is repeated until none is left; each
/// round breaks what it finds for good.
fn break_up_text(text: &str, names: &Partitioner, mark: char) -> String {
    let mut text = text.to_owned();
    loop {
        let fragments = names.split(&text);
        if fragments.iter().all(|fragment| fragment.token.is_none()) {
            return text;
        }
        let mut broken = String::with_capacity(text.len() + 16);
        for fragment in fragments {
            let part = text.get(fragment.range).unwrap_or_default();
            let first = part.chars().next().filter(|_| fragment.token.is_some());
            let (head, tail) = part.split_at(first.map_or(0, char::len_utf8));
            broken.push_str(head);
            broken.extend(first.map(|_| mark));
            broken.push_str(tail);
        }
        text = broken;
    }
}
