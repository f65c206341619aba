//! The Llama 3 expression and its relatives with other rules for digits and marks (Qwen 2, Qwen 3.5).
//!
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
//! which OpenAI published as `cl100k_base` in tiktoken.

use super::class::Class;
use super::scan::{contraction, run, run_at_most, see, white_space};

/// What distinguishes the members of the family.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Most digits in a piece.
    pub(super) digits: usize,
    /// Whether combining marks belong to words (Qwen 3.5) or to punctuation.
    pub(super) marks_in_words: bool,
}

/// Splits `text` by the expression of `style`.
pub(super) fn split(text: &str, style: Style, emit: &mut impl FnMut(&str)) {
    let mut at = 0;
    while at < text.len() {
        let end = if style.marks_in_words {
            next(text, at, style.digits, Class::letter_or_mark, |class| class.other() && !class.mark())
        } else {
            next(text, at, style.digits, Class::letter, Class::other)
        };
        match text.get(at..end) {
            Some(piece) if end > at => emit(piece),
            _ => break,
        }
        at = end;
    }
}

#[inline]
fn next(text: &str, at: usize, digits: usize, word: impl Fn(Class) -> bool, other: impl Fn(Class) -> bool) -> usize {
    let short = contraction(text, at, true);
    if short > at {
        return short;
    }
    let Some(first) = see(text, at) else { return at };
    if word(first.class) {
        return run(text, first.end, word);
    }
    if first.class.number() {
        return run_at_most(text, at, digits, Class::number);
    }
    let second = see(text, first.end);
    if let Some(second) = second
        && !first.class.newline()
        && word(second.class)
    {
        return run(text, second.end, word);
    }
    let body = match second {
        _ if other(first.class) => first.end,
        Some(second) if first.c == ' ' && other(second.class) => second.end,
        _ => return white_space(text, at, true),
    };
    run(text, run(text, body, other), Class::newline)
}
