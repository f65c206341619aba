//! Numbers as people write and read them: `32k` in, `1.1 GiB` out.

use std::fmt;

/// Reads a count with an optional factor: `4096`, `32k` or `32K` (× 1024), `1m` (× 1024²).
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let count: usize = digits.parse().map_err(|_| "expected a count such as 4096 or 32k".to_owned())?;
    count.checked_mul(factor).ok_or_else(|| "the count is too large".to_owned())
}

/// Reads a count of which −1 means "no limit".
pub(crate) fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "-1" { Ok(Limit(None)) } else { parse_count(text).map(|count| Limit(Some(count))) }
}

/// Reads a seed of which −1 means "a random one".
pub(crate) fn parse_seed(text: &str) -> Result<Seed, String> {
    let wrong = |_| "expected a number from 0, or -1 for a random seed".to_owned();
    if text == "-1" { Ok(Seed(None)) } else { text.parse().map(|seed| Seed(Some(seed))).map_err(wrong) }
}

/// Reads llama-bench's lists of counts: `1,2`, `1-4`, `128-512+128`, `16-256*2`.
pub(crate) fn parse_ranges(text: &str) -> Result<Ranges, String> {
    let parts = text.split(',').map(parse_range).collect::<Option<Vec<_>>>();
    let wrong = || "expected counts such as 512, 1,2, 1-4, 128-512+128 or 16-256*2".to_owned();
    parts.map(|parts| Ranges(parts.concat())).ok_or_else(wrong)
}

/// Counts from first to last; a step that would not lead upwards makes no range.
fn parse_range(text: &str) -> Option<Vec<usize>> {
    let Some((first, rest)) = text.split_once('-') else { return Some(vec![text.parse().ok()?]) };
    let (last, factor, step) = match rest.split_once(['+', '*']) {
        None => (rest, 1, 1),
        Some((last, step)) if rest.contains('*') => (last, step.parse().ok()?, 0),
        Some((last, step)) => (last, 1, step.parse().ok()?),
    };
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let next = |&value: &usize| value.checked_mul(factor)?.checked_add(step).filter(|&next| next <= last);
    let rises = first.checked_mul(factor)?.checked_add(step)? > first;
    let values: Vec<usize> = std::iter::successors(Some(first), next).take(MAX_RANGE + 1).collect();
    (rises && first <= last && values.len() <= MAX_RANGE).then_some(values)
}

/// More values than anybody measures.
const MAX_RANGE: usize = 4096;

/// The values of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges(pub(crate) Vec<usize>);

/// A count, or `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<usize>);

/// A seed, or `None` for a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) Option<u64>);

/// A number of bytes, written with three digits: `936 B`, `1.17 MiB`, `13.5 GiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0 as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
    }
}

/// A number of things, written with three digits: `936`, `260 K`, `1.10 B`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0 as f64, 1000.0, &["", "K", "M", "B", "T"])
    }
}

fn write_scaled(f: &mut fmt::Formatter<'_>, mut value: f64, base: f64, units: &[&str]) -> fmt::Result {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 || value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ => 2,
    };
    let space = if units[unit].is_empty() { "" } else { " " };
    write!(f, "{value:.digits$}{space}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_factors() {
        let cases =
            [("0", Some(0)), ("4096", Some(4096)), ("32k", Some(32_768)), ("1M", Some(1 << 20)), ("2K", Some(2048))];
        for (text, count) in cases {
            assert_eq!(parse_count(text).ok(), count, "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "4096 ", "99999999999999999m", "ten"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        assert_eq!((parse_limit("-1"), parse_limit("5")), (Ok(Limit(None)), Ok(Limit(Some(5)))));
        assert_eq!((parse_seed("-1"), parse_seed("7")), (Ok(Seed(None)), Ok(Seed(Some(7)))));
        assert!(parse_seed("-2").is_err() && parse_limit("-2").is_err());
    }

    #[test]
    fn ranges_are_those_of_llama_bench() {
        let cases: [(&str, &[usize]); 8] = [
            ("512", &[512]),
            ("0", &[0]),
            ("1,2,4", &[1, 2, 4]),
            ("1-4", &[1, 2, 3, 4]),
            ("128-500+128", &[128, 256, 384]),
            ("16-256*2", &[16, 32, 64, 128, 256]),
            ("1,16-64*2,7", &[1, 16, 32, 64, 7]),
            ("5-5", &[5]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_ranges(text), Ok(Ranges(expected.to_vec())), "{text}");
        }
        for text in ["", ",", "1,", "x", "-1", "4-1", "1-4+0", "1-4*1", "0-4*2", "1-4*0", "1-", "0-99999999"] {
            assert!(parse_ranges(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let bytes = [(936, "936 B"), (1_226_833, "1.17 MiB"), (14_495_514_624, "13.5 GiB"), (1024, "1.00 KiB")];
        for (value, text) in bytes {
            assert_eq!(Bytes(value).to_string(), text);
        }
        for (value, text) in [(7, "7"), (260_032, "260 K"), (1_100_048_384, "1.10 B")] {
            assert_eq!(Count(value).to_string(), text);
        }
    }
}
