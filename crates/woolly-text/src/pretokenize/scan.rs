//! The few moves all pre-tokenizers are made of: look at a character, run over a class, isolate matches.
//!
//! Positions are byte offsets on character boundaries. Nothing here backtracks or recurses; every scanner built from
//! these looks at each character a bounded number of times.

use super::class::Class;

/// A character with its class and the position after it.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) c: char,
    pub(super) class: Class,
    pub(super) end: usize,
}

/// The character at `at`, or `None` at the end of `text`.
#[inline]
pub(super) fn see(text: &str, at: usize) -> Option<Seen> {
    let first = *text.as_bytes().get(at)?;
    let c = if first < 0x80 { char::from(first) } else { text.get(at..)?.chars().next()? };
    Some(Seen { c, class: Class::of(c), end: at + c.len_utf8() })
}

/// The end of the longest run of characters from `at` that `accept` takes; `at` itself when there is none.
#[inline]
pub(super) fn run(text: &str, mut at: usize, accept: impl Fn(Class) -> bool) -> usize {
    while let Some(seen) = see(text, at) {
        if !accept(seen.class) {
            break;
        }
        at = seen.end;
    }
    at
}

/// As [`run`], but takes at most `limit` characters.
#[inline]
pub(super) fn run_at_most(text: &str, mut at: usize, limit: usize, accept: impl Fn(Class) -> bool) -> usize {
    for _ in 0..limit {
        match see(text, at) {
            Some(seen) if accept(seen.class) => at = seen.end,
            _ => break,
        }
    }
    at
}

/// As [`run`], on characters instead of classes.
pub(super) fn run_chars(text: &str, mut at: usize, accept: impl Fn(Seen) -> bool) -> usize {
    while let Some(seen) = see(text, at) {
        if !accept(seen) {
            break;
        }
        at = seen.end;
    }
    at
}

/// Emits every match of `matcher` and every stretch of text between matches as a piece.
///
/// `matcher(text, at)` returns the end of the match that begins at `at`, or `at` when none does. It must decide a
/// failure in bounded time.
pub(super) fn isolate(text: &str, matcher: impl Fn(&str, usize) -> usize, emit: &mut impl FnMut(&str)) {
    let mut gap = 0;
    let mut at = 0;
    while let Some(seen) = see(text, at) {
        let end = matcher(text, at);
        if end == at {
            at = seen.end;
            continue;
        }
        emit_range(text, gap, at, emit);
        emit_range(text, at, end, emit);
        at = end;
        gap = end;
    }
    emit_range(text, gap, text.len(), emit);
}

fn emit_range(text: &str, start: usize, end: usize, emit: &mut impl FnMut(&str)) {
    match text.get(start..end) {
        Some(piece) if !piece.is_empty() => emit(piece),
        _ => {}
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d` at `at`: the end of the match, or `at`. With `any_case` the letters match in both cases.
pub(super) fn contraction(text: &str, at: usize, any_case: bool) -> usize {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'\'') {
        return at;
    }
    let letter = |offset: usize| bytes.get(at + offset).map(|b| if any_case { b.to_ascii_lowercase() } else { *b });
    match (letter(1), letter(2)) {
        (Some(b's' | b't' | b'm' | b'd'), _) => at + 2,
        (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => at + 3,
        _ => at,
    }
}

/// The white-space alternatives that most expressions end with: `\s*[\r\n]+|\s+(?!\S)|\s+`, or without the first one
/// when `newlines` is false. `at` must be at white space. Returns the end of the match, which is never `at`.
pub(super) fn white_space(text: &str, at: usize, newlines: bool) -> usize {
    let (mut end, mut last, mut after_newline) = (at, at, None);
    while let Some(seen) = see(text, end) {
        if !seen.class.space() {
            break;
        }
        last = end;
        end = seen.end;
        if seen.class.newline() {
            after_newline = Some(end);
        }
    }
    match after_newline {
        Some(newline) if newlines => newline,
        // The last white-space character is left to the word that follows.
        _ if end < text.len() && last > at => last,
        _ => end,
    }
}
