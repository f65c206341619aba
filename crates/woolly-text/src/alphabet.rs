//! The printable alphabet in which byte-level BPE vocabularies are written down.
//!
//! GPT-2 (Radford et al., 2019) stores each byte as a printable character: the printable Latin-1 characters stand for
//! themselves, the other 68 bytes, in ascending order, for U+0100 onwards; a space is `Ġ` (U+0120). Here tokens are
//! turned back into bytes once, when the vocabulary is built, so that text needs no mapping.

/// Appends the bytes that `text` stands for to `out` and returns true; appends nothing and returns false when `text` is
/// not written in the alphabet.
pub(crate) fn append_bytes(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut rest = text;
    loop {
        let (byte, length) = match *rest {
            [] => return true,
            [ascii @ b'!'..=b'~', ..] => (ascii, 1),
            [lead @ 0xC2..=0xC5, tail @ 0x80..=0xBF, ..] => {
                let code = (u16::from(lead) & 0x1F) << 6 | (u16::from(tail) & 0x3F);
                match byte_of(code) {
                    Some(byte) => (byte, 2),
                    None => break,
                }
            }
            _ => break,
        };
        out.push(byte);
        rest = rest.get(length..).unwrap_or_default();
    }
    out.truncate(start);
    false
}

/// The byte that the character `code` (from U+0080 on) stands for.
fn byte_of(code: u16) -> Option<u8> {
    match code {
        0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The text that stands for `bytes`, the inverse of [`append_bytes`].
#[cfg(test)]
pub(crate) fn text_of(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            0..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("below the surrogates"),
            0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte - 0x7F)).expect("below the surrogates"),
            0xAD => '\u{143}',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=255u8 {
            let mut out = Vec::new();
            assert!(append_bytes(text_of(&[byte]).as_bytes(), &mut out), "{byte}");
            assert_eq!(out, [byte]);
        }
    }

    #[test]
    fn known_characters() {
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("Ġhello", Some(b" hello")),
            ("Ċ", Some(b"\n")),
            ("Ã©", Some("é".as_bytes())),
            ("a b", None),
            ("語", None),
            ("\u{144}", None),
        ];
        for (text, expected) in cases {
            let mut out = b"kept".to_vec();
            assert_eq!(append_bytes(text.as_bytes(), &mut out), expected.is_some(), "{text:?}");
            assert_eq!(&out[4..], expected.unwrap_or_default(), "{text:?}");
        }
    }
}
