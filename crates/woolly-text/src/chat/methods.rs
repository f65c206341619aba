//! Python methods that templates call on strings, lists and dictionaries, beyond those of the engine's own collection.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Answers a method call that the engine does not know.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        match method {
            "split" => return split(text, args),
            "rsplit" => return rsplit(text, args),
            "partition" => return partition(text, args),
            "rpartition" => return rpartition(text, args),
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Map && method == "copy" {
        return Ok(value.clone());
    }
    unknown_method_callback(state, value, method, args)
}

/// `sep` and `maxsplit`, by position or by name.
fn split_args(args: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (separator, limit, named): (Option<Value>, Option<Value>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(value) => Some(value),
        None => named.get("sep")?,
    };
    let limit = match limit {
        Some(value) => Some(value),
        None => named.get("maxsplit")?,
    };
    named.assert_all_used()?;
    let separator = separator.filter(|value| !value.is_none()).map(|value| match value.as_str() {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::new(ErrorKind::InvalidOperation, "the separator must be a string")),
    });
    // A negative limit means none.
    let limit = limit.map(i64::try_from).transpose()?.and_then(|limit| usize::try_from(limit).ok());
    Ok((separator.transpose()?, limit))
}

fn split(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit) = split_args(args)?;
    let parts = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    Ok(match separator {
        Some(separator) => text.splitn(parts, separator.as_str()).map(Value::from).collect(),
        None => split_white_space(text, parts),
    })
}

fn split_white_space(text: &str, parts: usize) -> Value {
    let mut rest = text.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let end = if found.len() + 1 < parts { rest.find(char::is_whitespace) } else { None };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        found.push(Value::from(word));
        rest = after.trim_start();
    }
    Value::from(found)
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit) = split_args(args)?;
    let parts = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut found: Vec<Value> = match separator {
        Some(separator) => text.rsplitn(parts, separator.as_str()).map(Value::from).collect(),
        None => {
            text.trim().rsplitn(parts, char::is_whitespace).filter(|word| !word.is_empty()).map(Value::from).collect()
        }
    };
    found.reverse();
    Ok(Value::from(found))
}

fn partition(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let (before, separator, after) = match text.split_once(separator) {
        Some((before, after)) => (before, separator, after),
        None => (text, "", ""),
    };
    Ok([before, separator, after].into_iter().map(Value::from).collect())
}

fn rpartition(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let (before, separator, after) = match text.rsplit_once(separator) {
        Some((before, after)) => (before, separator, after),
        None => ("", "", text),
    };
    Ok([before, separator, after].into_iter().map(Value::from).collect())
}

/// The function with which a template refuses a conversation.
pub(super) fn raise_exception(message: Rest<Value>) -> Result<Value, Error> {
    let message = message.first().map(Value::to_string).unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Marks an error that the template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);
