//! A 128-bit hash of words: FNV-1a (Fowler, Noll and Vo; RFC 9923) with 32-bit and 64-bit words in place of bytes.
//!
//! Each step is a bijection of the state, so that a change of any one word changes the result. It is an index and a
//! checksum, not a proof: whoever could profit from a collision compares contents.

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The state before any word.
pub(super) const EMPTY: u128 = OFFSET;

/// Returns the hash of what `state` stands for, followed by `words`.
pub(super) fn words(state: u128, words: &[u32]) -> u128 {
    words.iter().fold(state, |state, &word| step(state, u128::from(word)))
}

/// Returns the hash of what `state` stands for, followed by `bytes` and their number.
pub(super) fn bytes(state: u128, bytes: &[u8]) -> u128 {
    let (whole, rest) = bytes.as_chunks::<8>();
    let state = whole.iter().fold(state, |state, &word| step(state, u128::from(u64::from_le_bytes(word))));
    let state = rest.iter().fold(state, |state, &byte| step(state, u128::from(byte)));
    step(state, bytes.len() as u128)
}

fn step(state: u128, word: u128) -> u128 {
    // The rotation carries high bits down: multiplication alone only ever moves information up.
    (state ^ word).wrapping_mul(PRIME).rotate_right(61)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_and_its_place_count() {
        let base: Vec<u32> = (0..32).collect();
        let hash = words(EMPTY, &base);
        for i in 0..32 {
            let mut other = base.clone();
            other[i] ^= 1;
            assert_ne!(words(EMPTY, &other), hash);
            other[i] ^= 1;
            other.swap(i, (i + 1) % 32);
            assert_ne!(words(EMPTY, &other), hash);
        }
        assert_eq!(words(words(EMPTY, &base[..7]), &base[7..]), hash, "a chain is the hash of the whole");
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let base = [7_u8; 21];
        let hash = bytes(EMPTY, &base);
        for i in 0..base.len() {
            let mut other = base;
            other[i] ^= 0x80;
            assert_ne!(bytes(EMPTY, &other), hash);
        }
        assert_ne!(bytes(EMPTY, &[0; 8]), bytes(EMPTY, &[0; 7]));
    }
}
