//! Filters and tests that differ between the template engine and Jinja2.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python;

/// Wider indentation is refused: no prompt needs it, and width times lines is memory.
const MAX_WIDTH: usize = 1024;

/// `indent(s, width=4, first=False, blank=False)`, which keeps a newline at the end.
pub(super) fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = width.or(named.get("width")?);
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let indention = match width {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(width)?),
        },
    };
    if indention.len() > MAX_WIDTH {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("indentation is wider than {MAX_WIDTH}")));
    }
    let mut out = String::with_capacity(text.len());
    for (number, line) in python::lines(&format!("{text}\n")).enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let wanted = if number == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `string`: `str(value)`.
pub(super) fn string(value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value.clone());
    }
    let mut out = String::new();
    python::str(value, &mut out)?;
    Ok(Value::from(out))
}

/// The test `iterable`: whether Python could iterate over the value. None cannot be iterated over.
pub(super) fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined => true,
        ValueKind::Plain => value.try_iter().is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    use super::*;

    #[test]
    fn indentation_as_jinja_does_it() {
        let mut environment = Environment::new();
        environment.add_filter("indent", indent);
        let cases = [
            ("{{ 'a\n'|indent(2, first=true) }}|", "  a\n|"),
            ("{{ 'a\nb\n\nc'|indent }}", "a\n    b\n\n    c"),
            ("{{ 'a\n\nb'|indent(1, true, true) }}", " a\n \n b"),
            ("{{ 'a\r\nb'|indent(width='> ') }}", "a\n> b"),
            ("{{ ''|indent(2) }}", ""),
        ];
        for (template, expected) in cases {
            assert_eq!(environment.render_str(template, context! {}).expect("renders"), expected, "{template:?}");
        }
        assert!(environment.render_str("{{ 'a'|indent(100000000) }}", context! {}).is_err());
    }

    #[test]
    fn what_is_iterable() {
        let cases = [
            (Value::from(()), false),
            (Value::from(1), false),
            (Value::from(true), false),
            (Value::from("a"), true),
            (Value::from(vec![1]), true),
            (Value::UNDEFINED, true),
        ];
        for (value, expected) in cases {
            assert_eq!(is_iterable(&value), expected, "{value:?}");
        }
    }
}
