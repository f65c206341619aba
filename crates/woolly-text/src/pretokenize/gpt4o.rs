//! The GPT-4o expression, which also splits words where upper case follows lower case, and Mistral's Tekken variant.
//!
//! `[^\r\n\p{L}\p{N}]?U*L+C?|[^\r\n\p{L}\p{N}]?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! with U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, L = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]` and C a contraction in any case; published
//! as `o200k_base` in tiktoken.

use super::class::Class;
use super::scan::{contraction, run, run_at_most, run_chars, see, white_space};

/// What distinguishes GPT-4o from Tekken.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Most digits in a piece.
    pub(super) digits: usize,
    /// Whether a contraction stays with its word.
    pub(super) contractions: bool,
}

/// Splits `text` by the expression of `style`.
pub(super) fn split(text: &str, style: Style, emit: &mut impl FnMut(&str)) {
    let mut at = 0;
    while at < text.len() {
        let end = next(text, at, style);
        match text.get(at..end) {
            Some(piece) if end > at => emit(piece),
            _ => break,
        }
        at = end;
    }
}

fn next(text: &str, at: usize, style: Style) -> usize {
    if let Some(end) = word(text, at) {
        return if style.contractions { contraction(text, end, true) } else { end };
    }
    let Some(first) = see(text, at) else { return at };
    if first.class.number() {
        return run_at_most(text, at, style.digits, Class::number);
    }
    let body = match see(text, first.end) {
        _ if first.class.other() => first.end,
        Some(second) if first.c == ' ' && second.class.other() => second.end,
        _ => return white_space(text, at, true),
    };
    run_chars(text, run(text, body, Class::other), |seen| seen.class.newline() || seen.c == '/')
}

/// The two alternatives for words: the one that ends in lower case is preferred, first with the optional character in
/// front, then without.
fn word(text: &str, at: usize) -> Option<usize> {
    let first = see(text, at)?;
    let prefix = !first.class.newline() && !first.class.letter() && !first.class.number();
    let with_prefix = |alternative: fn(&str, usize) -> Option<usize>| {
        prefix.then(|| alternative(text, first.end)).flatten().or_else(|| alternative(text, at))
    };
    with_prefix(ending_lower).or_else(|| with_prefix(starting_upper))
}

/// `U*L+` with the backtracking of a regular expression: U takes all it can and gives back as little as L needs.
fn ending_lower(text: &str, at: usize) -> Option<usize> {
    let mut upper_end = at;
    let mut last_shared = None;
    while let Some(seen) = see(text, upper_end) {
        if !seen.class.not_lower() {
            break;
        }
        if seen.class.not_upper() {
            last_shared = Some(upper_end);
        }
        upper_end = seen.end;
    }
    let lower_end = run(text, upper_end, Class::not_upper);
    if lower_end > upper_end {
        return Some(lower_end);
    }
    last_shared.map(|start| run(text, start, Class::not_upper))
}

/// `U+L*`
fn starting_upper(text: &str, at: usize) -> Option<usize> {
    let upper_end = run(text, at, Class::not_lower);
    (upper_end > at).then(|| run(text, upper_end, Class::not_upper))
}
