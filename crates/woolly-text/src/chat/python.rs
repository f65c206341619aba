//! How Python writes numbers, strings and containers: `repr`, which templates print without knowing.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Containers nested deeper than this are refused, as Python refuses them at its recursion limit.
pub(super) const MAX_DEPTH: usize = 256;

pub(super) fn too_deep() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("recursion limit exceeded: values are nested deeper than {MAX_DEPTH}"),
    )
}

/// `str(value)`: strings as they are, everything else as [`repr`].
pub(super) fn str(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            out.push_str(text);
            Ok(())
        }
        None => repr(value, 0, out),
    }
}

/// `repr(value)`
pub(super) fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::String => repr_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::Seq if value.is_tuple() => repr_tuple(value, depth, out)?,
        ValueKind::Seq => repr_items(value, '[', ']', depth, out)?,
        ValueKind::Map => repr_map(value, depth, out)?,
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn repr_tuple(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    repr_items(value, '(', ')', depth, out)?;
    if value.len() == Some(1) {
        out.insert(out.len() - 1, ',');
    }
    Ok(())
}

fn repr_items(value: &Value, open: char, close: char, depth: usize, out: &mut String) -> Result<(), Error> {
    out.push(open);
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        repr(&item, depth + 1, out)?;
    }
    out.push(close);
    Ok(())
}

fn repr_map(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    out.push('{');
    for (index, key) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        repr(&key, depth + 1, out)?;
        out.push_str(": ");
        repr(&value.get_item(&key)?, depth + 1, out)?;
    }
    out.push('}');
    Ok(())
}

fn repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if c <= '\u{ff}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// `str.isprintable`: everything but separators (except the space), control, format, surrogate, private and unassigned
/// characters.
fn is_printable(c: char) -> bool {
    use unicode_general_category::GeneralCategory as G;
    match unicode_general_category::get_general_category(c) {
        G::Control | G::Format | G::Surrogate | G::PrivateUse | G::Unassigned => false,
        G::LineSeparator | G::ParagraphSeparator | G::SpaceSeparator => c == ' ',
        _ => true,
    }
}

/// `repr(float)`: the shortest digits that give the number back; exponents below -4 and from 16 on are written out.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// `str.splitlines`: the lines of `text` without their ends, and no empty line after a last end.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(is_line_end).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let mut chars = after.chars();
        rest = match chars.next() {
            Some('\r') => chars.as_str().strip_prefix('\n').unwrap_or(chars.as_str()),
            _ => chars.as_str(),
        };
        Some(line)
    })
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr_of(value: Value) -> String {
        let mut out = String::new();
        repr(&value, 0, &mut out).expect("not nested");
        out
    }

    #[test]
    fn lines_as_python_splits_them() {
        let cases: [(&str, &[&str]); 4] =
            [("", &[]), ("a", &["a"]), ("a\r\n\nb\n", &["a", "", "b"]), ("a\u{2028}b\rc", &["a", "b", "c"])];
        for (text, expected) in cases {
            assert_eq!(lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn floats_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "inf"),
        ];
        for (number, expected) in cases {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn containers_and_strings_as_python_writes_them() {
        assert_eq!(
            repr_of(Value::from(vec![Value::from("it's"), Value::from("a\n\"'"), Value::from(())])),
            "[\"it's\", 'a\\n\"\\'', None]"
        );
        assert_eq!(
            repr_of(Value::from_pairs([("a", Value::from(true)), ("b", Value::from(1.0))])),
            "{'a': True, 'b': 1.0}"
        );
        assert_eq!(repr_of(Value::from("\u{a0}é\u{1}\u{200b}")), "'\\xa0é\\x01\\u200b'");
    }
}
