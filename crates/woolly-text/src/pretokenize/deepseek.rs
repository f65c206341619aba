//! The pre-tokenizers of DeepSeek Coder, DeepSeek LLM and DeepSeek V3: sequences of expressions, each applied within
//! the pieces of the one before.
//!
//! In the classes that are written as ranges of code points, characters that are white space never match: the
//! reference replaces them by a control character first.

use super::class::Class;
use super::deepseek_letters::is_deepseek_letter;
use super::scan::{Seen, isolate, run, run_at_most, run_chars, see, white_space};

/// `[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`
pub(super) fn split_coder(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, newline, &mut |a: &str| {
        isolate(a, |t, at| after_space(t, at, |seen| seen.class.letter()), &mut |b: &str| {
            isolate(b, |t, at| after_space(t, at, |seen| seen.class.punctuation()), &mut |c: &str| {
                isolate(c, |t, at| run_chars(t, at, is_east_asian), &mut |d: &str| {
                    isolate(d, |t, at| run_at_most(t, at, 1, Class::number), emit);
                });
            });
        });
    });
}

/// `[\r\n]`, `\s?[letters]+`, `\s?[punctuation]+`, `\s+$`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}+`
pub(super) fn split_llm(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, newline, &mut |a: &str| {
        isolate(a, |t, at| after_space(t, at, is_llm_letter), &mut |b: &str| {
            isolate(b, |t, at| after_space(t, at, is_llm_punctuation), &mut |c: &str| {
                split_trailing_space(c, &mut |d: &str| {
                    isolate(d, |t, at| run_chars(t, at, is_east_asian), &mut |e: &str| {
                        isolate(e, |t, at| run(t, at, Class::number), emit);
                    });
                });
            });
        });
    });
}

/// `\p{N}{1,3}`, `[一-龥぀-ゟ゠-ヿ]+`, then one expression of the Llama 3 kind.
pub(super) fn split_v3(text: &str, emit: &mut impl FnMut(&str)) {
    isolate(text, |t, at| run_at_most(t, at, 3, Class::number), &mut |a: &str| {
        isolate(a, |t, at| run_chars(t, at, is_han_or_kana), &mut |b: &str| isolate(b, v3_word, emit));
    });
}

fn newline(text: &str, at: usize) -> usize {
    run_at_most(text, at, 1, Class::newline)
}

/// `\s?X+`
fn after_space(text: &str, at: usize, accept: impl Fn(Seen) -> bool) -> usize {
    let start = match see(text, at) {
        Some(seen) if seen.class.space() && !accept(seen) => seen.end,
        _ => at,
    };
    let end = run_chars(text, start, accept);
    if end > start { end } else { at }
}

/// `\s+$`
fn split_trailing_space(text: &str, emit: &mut impl FnMut(&str)) {
    let (body, space) = text.split_at(text.trim_end().len());
    for piece in [body, space] {
        if !piece.is_empty() {
            emit(piece);
        }
    }
}

/// `[一-龥ࠀ-一가-퟿]`
fn is_east_asian(seen: Seen) -> bool {
    matches!(seen.c, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}') && !seen.class.space()
}

fn is_llm_letter(seen: Seen) -> bool {
    is_deepseek_letter(seen.c) && !seen.class.space()
}

/// `[!-/:-~！-／：-～‘-‟　-。]`
fn is_llm_punctuation(seen: Seen) -> bool {
    matches!(seen.c, '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '‘'..='‟' | '\u{3000}'..='。')
        && !seen.class.space()
}

/// `[一-龥぀-ゟ゠-ヿ]`
fn is_han_or_kana(seen: Seen) -> bool {
    matches!(seen.c, '\u{4e00}'..='\u{9fa5}' | '\u{3040}'..='\u{30ff}')
}

/// ``[ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``
fn v3_word(text: &str, at: usize) -> usize {
    let Some(first) = see(text, at) else { return at };
    if first.c.is_ascii_punctuation() {
        let end = run_chars(text, first.end, |seen| seen.c.is_ascii_alphabetic());
        if end > first.end {
            return end;
        }
    }
    let may_lead = !(first.class.newline() || first.class.letter() || first.class.punctuation_or_symbol());
    if may_lead {
        let end = run(text, first.end, Class::letter_or_mark);
        if end > first.end {
            return end;
        }
    }
    if first.class.letter_or_mark() {
        return run(text, at, Class::letter_or_mark);
    }
    v3_punctuation(text, at, first)
}

fn v3_punctuation(text: &str, at: usize, first: Seen) -> usize {
    let start = if first.c == ' ' { first.end } else { at };
    let end = run(text, start, Class::punctuation_or_symbol);
    if end > start {
        return run(text, end, Class::newline);
    }
    if first.class.space() { white_space(text, at, true) } else { at }
}
