//! The filter `tojson` of transformers: Python's `json.dumps` without HTML escaping.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python::{MAX_DEPTH, float, too_deep};

/// How to write.
struct Style {
    ascii: bool,
    /// Spaces, or the text, for one level; none for one line.
    indent: Option<String>,
    item: String,
    colon: String,
    sort_keys: bool,
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, the last by name only.
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let pick = |positional: Option<Value>, name: &str| match positional {
        Some(value) => Ok(Some(value)),
        None => named.get::<Option<Value>>(name),
    };
    let indent = read_indent(pick(indent, "indent")?)?;
    let (item, colon) = read_separators(pick(separators, "separators")?, indent.is_some())?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let style = Style {
        ascii: is_true(pick(ensure_ascii, "ensure_ascii")?),
        sort_keys: is_true(named.get("sort_keys")?),
        indent,
        item,
        colon,
    };
    named.assert_all_used()?;
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

fn read_indent(indent: Option<Value>) -> Result<Option<String>, Error> {
    const MAX_INDENT: usize = 64;
    match indent {
        Some(value) if value.kind() == ValueKind::String => Ok(value.as_str().map(str::to_owned)),
        Some(value) if !value.is_none() && !value.is_undefined() => {
            Ok(Some(" ".repeat(usize::try_from(value)?.min(MAX_INDENT))))
        }
        _ => Ok(None),
    }
}

fn read_separators(separators: Option<Value>, indented: bool) -> Result<(String, String), Error> {
    match separators.filter(|value| !value.is_none() && !value.is_undefined()) {
        None => Ok((if indented { "," } else { ", " }.to_owned(), ": ".to_owned())),
        Some(pair) => Ok((pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string())),
    }
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => push_number(value, out),
            ValueKind::String => self.push_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => self.push_list(value, depth, out)?,
            ValueKind::Map => self.push_map(value, depth, out)?,
            kind => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of type {kind} has no JSON form"),
                ));
            }
        }
        Ok(())
    }

    fn push_list(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        out.push('[');
        let mut any = false;
        for item in value.try_iter()? {
            self.begin_item(any, depth, out);
            self.write(&item, depth + 1, out)?;
            any = true;
        }
        self.end_items(any, depth, out);
        out.push(']');
        Ok(())
    }

    fn push_map(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        out.push('{');
        let mut any = false;
        for key in keys {
            self.begin_item(any, depth, out);
            match key.as_str() {
                Some(text) => self.push_string(text, out),
                None => self.push_key(&key, depth, out)?,
            }
            out.push_str(&self.colon);
            self.write(&value.get_item(&key)?, depth + 1, out)?;
            any = true;
        }
        self.end_items(any, depth, out);
        out.push('}');
        Ok(())
    }

    /// Keys that are no strings are written as strings.
    fn push_key(&self, key: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        out.push('"');
        self.write(key, depth + 1, out)?;
        out.push('"');
        Ok(())
    }

    fn begin_item(&self, any: bool, depth: usize, out: &mut String) {
        if any {
            out.push_str(&self.item);
        }
        self.break_line(depth + 1, out);
    }

    fn end_items(&self, any: bool, depth: usize, out: &mut String) {
        if any {
            self.break_line(depth, out);
        }
    }

    fn break_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn push_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => push_escape(c, out),
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn push_escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

fn push_number(value: &Value, out: &mut String) {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => out.push_str(match number {
            number if number.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => return out.push_str(&float(number)),
        }),
        _ => out.push_str(&value.to_string()),
    }
}
