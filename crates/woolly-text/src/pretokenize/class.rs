//! Classes of characters that the pre-tokenizers of byte-level BPE distinguish.
//!
//! ASCII is answered from a table; the rest from the general category (Unicode 16), which is a two-stage table too.
//! A class is a set of bits because `\p{M}` and the letter cases overlap in the expressions of GPT-4o.

use unicode_general_category::{GeneralCategory, get_general_category};

/// The properties of one character, as bits.
#[derive(Clone, Copy)]
pub(super) struct Class(u16);

impl Class {
    const LETTER: u16 = 1;
    const NUMBER: u16 = 1 << 1;
    const PUNCTUATION: u16 = 1 << 2;
    const SYMBOL: u16 = 1 << 3;
    const MARK: u16 = 1 << 4;
    const SPACE: u16 = 1 << 5;
    const NOT_LOWER: u16 = 1 << 6;
    const NOT_UPPER: u16 = 1 << 7;
    const NEWLINE: u16 = 1 << 8;

    const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// `\p{L}`
    pub(super) const fn letter(self) -> bool {
        self.has(Self::LETTER)
    }

    /// `\p{N}`
    pub(super) const fn number(self) -> bool {
        self.has(Self::NUMBER)
    }

    /// `\p{P}`
    pub(super) const fn punctuation(self) -> bool {
        self.has(Self::PUNCTUATION)
    }

    /// `[\p{P}\p{S}]`
    pub(super) const fn punctuation_or_symbol(self) -> bool {
        self.has(Self::PUNCTUATION | Self::SYMBOL)
    }

    /// `\p{M}`
    pub(super) const fn mark(self) -> bool {
        self.has(Self::MARK)
    }

    /// `[\p{L}\p{M}]`
    pub(super) const fn letter_or_mark(self) -> bool {
        self.has(Self::LETTER | Self::MARK)
    }

    /// `\s`, the Unicode property White_Space.
    pub(super) const fn space(self) -> bool {
        self.has(Self::SPACE)
    }

    /// `[\r\n]`
    pub(super) const fn newline(self) -> bool {
        self.has(Self::NEWLINE)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
    pub(super) const fn not_lower(self) -> bool {
        self.has(Self::NOT_LOWER)
    }

    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
    pub(super) const fn not_upper(self) -> bool {
        self.has(Self::NOT_UPPER)
    }

    /// `[^\s\p{L}\p{N}]`
    pub(super) const fn other(self) -> bool {
        !self.has(Self::SPACE | Self::LETTER | Self::NUMBER)
    }

    /// Classifies `c`.
    pub(super) fn of(c: char) -> Self {
        match ASCII.get(c as usize) {
            Some(class) => *class,
            None => Self::of_wide(c),
        }
    }

    fn of_wide(c: char) -> Self {
        use GeneralCategory as G;
        let category = match get_general_category(c) {
            G::UppercaseLetter | G::TitlecaseLetter => Self::LETTER | Self::NOT_LOWER,
            G::LowercaseLetter => Self::LETTER | Self::NOT_UPPER,
            G::ModifierLetter | G::OtherLetter => Self::LETTER | Self::NOT_LOWER | Self::NOT_UPPER,
            G::NonspacingMark | G::SpacingMark | G::EnclosingMark => Self::MARK | Self::NOT_LOWER | Self::NOT_UPPER,
            G::DecimalNumber | G::LetterNumber | G::OtherNumber => Self::NUMBER,
            G::CurrencySymbol | G::MathSymbol | G::ModifierSymbol | G::OtherSymbol => Self::SYMBOL,
            G::ClosePunctuation
            | G::ConnectorPunctuation
            | G::DashPunctuation
            | G::FinalPunctuation
            | G::InitialPunctuation
            | G::OpenPunctuation
            | G::OtherPunctuation => Self::PUNCTUATION,
            _ => 0,
        };
        Self(category | if c.is_whitespace() { Self::SPACE } else { 0 })
    }
}

static ASCII: [Class; 128] = ascii_table();

const fn ascii_table() -> [Class; 128] {
    let mut table = [Class(0); 128];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = Class(match byte as u8 {
            b'\n' | b'\r' => Class::SPACE | Class::NEWLINE,
            b'\t' | 0x0B | 0x0C | b' ' => Class::SPACE,
            b'0'..=b'9' => Class::NUMBER,
            b'A'..=b'Z' => Class::LETTER | Class::NOT_LOWER,
            b'a'..=b'z' => Class::LETTER | Class::NOT_UPPER,
            b'$' | b'+' | b'<'..=b'>' | b'^' | b'`' | b'|' | b'~' => Class::SYMBOL,
            b'!'..=b'~' => Class::PUNCTUATION,
            _ => 0,
        });
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ascii_table_agrees_with_the_general_category() {
        for c in (0..128u8).map(char::from) {
            let wide = Class::of_wide(c).0;
            assert_eq!(Class::of(c).0 & !Class::NEWLINE, wide, "{c:?}");
            assert_eq!(Class::of(c).newline(), matches!(c, '\r' | '\n'), "{c:?}");
        }
    }

    #[test]
    fn classes_of_wide_characters() {
        type Case = (char, fn(Class) -> bool, &'static str);
        let cases: [Case; 9] = [
            ('é', Class::letter, "lower-case letter"),
            ('語', Class::not_lower, "letters without case count as upper"),
            ('語', Class::not_upper, "and as lower"),
            ('\u{301}', Class::mark, "combining acute accent"),
            ('Ⅷ', Class::number, "letter number"),
            ('\u{a0}', Class::space, "no-break space is white space"),
            ('\u{85}', Class::space, "next line is white space though a control character"),
            ('。', Class::punctuation, "ideographic full stop"),
            ('\u{200d}', Class::other, "a joiner is neither letter, number nor space"),
        ];
        for (c, expected, why) in cases {
            assert!(expected(Class::of(c)), "{c:?}: {why}");
        }
    }
}
