//! The GPT-2 expression, alone or after a rule for digits (StarCoder, Falcon and the default).
//!
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`, from the tokenizer of GPT-2
//! (Radford et al., 2019).

use super::class::Class;
use super::scan::{contraction, isolate, run, run_at_most, see, white_space};

/// The GPT-2 expression on the whole text.
pub(super) fn split(text: &str, emit: &mut impl FnMut(&str)) {
    let mut at = 0;
    while at < text.len() {
        let end = next(text, at);
        match text.get(at..end) {
            Some(piece) if end > at => emit(piece),
            _ => break,
        }
        at = end;
    }
}

/// `\p{N}`, then the GPT-2 expression.
pub(super) fn split_single_digits(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, |t, at| run_at_most(t, at, 1, Class::number), &mut |piece: &str| split(piece, emit));
}

/// Punctuation, the GPT-2 expression, then groups of exactly three digits.
pub(super) fn split_falcon(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, |t, at| punctuation(t, at, true), &mut |a: &str| {
        split(a, &mut |b: &str| isolate(b, three_digits, emit))
    });
}

/// The rule for vocabularies that name no pre-tokenizer: as Falcon, with every run of numbers isolated in between.
pub(super) fn split_default(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, |t, at| punctuation(t, at, false), &mut |a: &str| {
        split(a, &mut |b: &str| {
            isolate(b, |t, at| run(t, at, Class::number), &mut |c: &str| isolate(c, three_digits, emit));
        });
    });
}

fn next(text: &str, at: usize) -> usize {
    let short = contraction(text, at, false);
    if short > at {
        return short;
    }
    let Some(first) = see(text, at) else { return at };
    let start = if first.c == ' ' { first.end } else { at };
    match see(text, start) {
        Some(seen) if seen.class.letter() => run(text, seen.end, Class::letter),
        Some(seen) if seen.class.number() => run(text, seen.end, Class::number),
        Some(seen) if seen.class.other() => run(text, seen.end, Class::other),
        _ => white_space(text, at, false),
    }
}

/// ``[\p{P}$+<=>^~|`]+``; the default expression lacks the back-tick.
fn punctuation(text: &str, at: usize, back_tick: bool) -> usize {
    super::scan::run_chars(text, at, |seen| {
        seen.class.punctuation()
            || matches!(seen.c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
            || (back_tick && seen.c == '`')
    })
}

/// `[0-9][0-9][0-9]`
fn three_digits(text: &str, at: usize) -> usize {
    match text.as_bytes().get(at..at + 3) {
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => at + 3,
        _ => at,
    }
}
