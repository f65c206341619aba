//! The "letters" of DeepSeek LLM's pre-tokenizer: a fixed list of ranges instead of a Unicode property.
//!
//! The model's own list has the Kelvin sign in `K-ℭ`. The normalised form that GGUF files are tokenised with has the
//! letter K there, so that one range runs from U+004B to U+212D and takes in much that is no letter. Tokens must agree
//! with that form, not with the intention.

/// Whether `c` is in the list.
pub(super) fn is_deepseek_letter(c: char) -> bool {
    let after = RANGES.partition_point(|(first, _)| *first <= c);
    after.checked_sub(1).and_then(|i| RANGES.get(i)).is_some_and(|(_, last)| c <= *last)
}

/// First and last character of each range, in ascending order.
#[rustfmt::skip]
static RANGES: [(char, char); 28] = [
    ('\u{41}', '\u{212d}'), ('\u{212f}', '\u{2134}'), ('\u{2139}', '\u{2139}'), ('\u{213c}', '\u{213f}'),
    ('\u{2145}', '\u{2149}'), ('\u{214e}', '\u{214e}'), ('\u{2183}', '\u{2184}'), ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'), ('\u{2ceb}', '\u{2cee}'), ('\u{2cf3}', '\u{2cf3}'), ('\u{a640}', '\u{a66d}'),
    ('\u{a680}', '\u{a69b}'), ('\u{a722}', '\u{a76f}'), ('\u{a771}', '\u{a787}'), ('\u{a78b}', '\u{a78e}'),
    ('\u{ab70}', '\u{abbf}'), ('\u{fb00}', '\u{fb06}'), ('\u{fb13}', '\u{fb17}'), ('\u{ff21}', '\u{ff3a}'),
    ('\u{ff41}', '\u{ff5a}'), ('\u{10400}', '\u{1044f}'), ('\u{104b0}', '\u{104d3}'), ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'), ('\u{10cc0}', '\u{10cf2}'), ('\u{118a0}', '\u{118df}'), ('\u{1e900}', '\u{1e943}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_ascend() {
        assert!(RANGES.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(RANGES.iter().all(|(first, last)| first <= last));
    }

    #[test]
    fn letters_and_others() {
        let cases = [('A', true), ('@', false), ('z', true), ('é', true), ('ж', true), ('中', false), ('ﬀ', true)];
        for (c, expected) in cases {
            assert_eq!(is_deepseek_letter(c), expected, "{c:?}");
        }
    }
}
