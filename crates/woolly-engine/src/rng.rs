//! The random numbers of sampling: xoshiro256++ seeded by SplitMix64 (Blackman and Vigna, 2019).
//!
//! Written out here so that a seed means the same sequence on every platform and in every release. Not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A deterministic stream of random numbers: equal seeds give equal streams.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Starts the stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// Returns a seed from the operating system's entropy, for callers that were given none.
    ///
    /// Only 32 bits of it, as a seed is read out, typed in, and passed through JSON readers that know only `f64`.
    pub fn random_seed() -> u64 {
        RandomState::new().hash_one(0_u64) >> 32
    }

    /// Returns the next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns the next number in `[0, 1)`, uniform on multiples of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * SCALE
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_the_published_generator() {
        // First outputs of the authors' C code from the state 1, 2, 3, 4.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let found: [u64; 4] = std::array::from_fn(|_| rng.next_u64());
        assert_eq!(found, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn seeding_is_split_mix() {
        // First outputs of the authors' C code for the seed 1234567.
        let mut state = 1_234_567;
        let found: [u64; 3] = std::array::from_fn(|_| split_mix(&mut state));
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn units_fill_the_interval_evenly() {
        let mut rng = Rng::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            let x = rng.unit();
            assert!((0.0..1.0).contains(&x));
            counts[(x * 10.0) as usize] += 1;
        }
        // Standard deviation of a count is 30; six of them is beyond chance.
        assert!(counts.iter().all(|&n| n.abs_diff(1000) < 180), "{counts:?}");
    }
}
