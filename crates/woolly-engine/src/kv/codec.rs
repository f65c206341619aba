//! Compression of cache blocks: 7-bit integers with one half-precision scale for every 32 of them.
//!
//! 32 elements become 28 bytes of codes and 2 of scale: 7.5 bits each, 2.13 times smaller than half precision. (8-bit codes
//! with a scale, as in Q8_0, miss a factor of two: 8.5 bits.) Groups follow the stored order whatever it is; where keys lie
//! transposed, as in the CPU's cache, a group is one channel of 32 tokens, which is what keys need (Liu et al., 2024, KIVI).

use woolly_quant::half::{f16_to_f32, f32_to_f16};
use woolly_tensor::CacheType;

/// Elements that share a scale.
const GROUP: usize = 32;
/// Bytes of a scale.
const SCALE: usize = 2;
/// Bytes of the codes of a group: 7 bits each.
const CODES: usize = GROUP * 7 / 8;
/// Largest code; the smallest is its negative.
const LARGEST: f32 = 63.0;

/// Numbers of the backend's own width, as bytes.
#[derive(Clone, Copy, Debug)]
enum Width {
    F32,
    F16,
}

/// The compressed form of blocks of one size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    width: Width,
    elements: usize,
}

/// A number of a block is infinite or NaN, or too large to be compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFinite;

impl Codec {
    /// Returns the codec for saved blocks of `block_bytes`, or `None` for storage that is no plain array of floats.
    pub(super) fn new(storage: CacheType, block_bytes: usize) -> Option<Self> {
        let (width, size) = match storage {
            CacheType::F32 => (Width::F32, 4),
            CacheType::F16 => (Width::F16, 2),
            _ => return None,
        };
        block_bytes.is_multiple_of(size).then_some(Self { width, elements: block_bytes / size })
    }

    /// Returns the bytes of a compressed block.
    pub(super) fn packed_bytes(&self) -> usize {
        self.elements.div_ceil(GROUP) * (SCALE + CODES)
    }

    /// Compresses a saved block.
    pub(super) fn pack(&self, block: &[u8], out: &mut [u8]) -> Result<(), NotFinite> {
        let groups = block.chunks(GROUP * self.size());
        for (from, to) in groups.zip(out.as_chunks_mut::<{ SCALE + CODES }>().0) {
            let mut group = [0.0; GROUP];
            self.read(from, &mut group);
            pack_group(&group, to)?;
        }
        Ok(())
    }

    /// Restores a saved block, with the precision that is left.
    pub(super) fn unpack(&self, packed: &[u8], block: &mut [u8]) {
        let groups = packed.as_chunks::<{ SCALE + CODES }>().0;
        for (from, to) in groups.iter().zip(block.chunks_mut(GROUP * self.size())) {
            self.write(&unpack_group(from), to);
        }
    }

    fn size(&self) -> usize {
        match self.width {
            Width::F32 => 4,
            Width::F16 => 2,
        }
    }

    fn read(&self, bytes: &[u8], group: &mut [f32; GROUP]) {
        match self.width {
            Width::F32 => {
                let floats = bytes.as_chunks::<4>().0.iter().map(|&float| f32::from_le_bytes(float));
                group.iter_mut().zip(floats).for_each(|(to, from)| *to = from);
            }
            Width::F16 => {
                let halves = bytes.as_chunks::<2>().0.iter().map(|&half| f16_to_f32(u16::from_le_bytes(half)));
                group.iter_mut().zip(halves).for_each(|(to, from)| *to = from);
            }
        }
    }

    fn write(&self, group: &[f32; GROUP], bytes: &mut [u8]) {
        match self.width {
            Width::F32 => {
                let floats = bytes.as_chunks_mut::<4>().0.iter_mut();
                floats.zip(group).for_each(|(to, from)| *to = from.to_le_bytes());
            }
            Width::F16 => {
                let halves = bytes.as_chunks_mut::<2>().0.iter_mut();
                halves.zip(group).for_each(|(to, &from)| *to = f32_to_f16(from).to_le_bytes());
            }
        }
    }
}

fn pack_group(group: &[f32; GROUP], out: &mut [u8; SCALE + CODES]) -> Result<(), NotFinite> {
    if group.iter().any(|x| !x.is_finite()) {
        return Err(NotFinite);
    }
    let largest = group.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let half = f32_to_f16(largest / LARGEST);
    let scale = f16_to_f32(half);
    if !scale.is_finite() {
        return Err(NotFinite);
    }
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let (to_scale, to_codes) = out.split_at_mut(SCALE);
    to_scale.copy_from_slice(&half.to_le_bytes());
    for (eight, to) in group.as_chunks::<8>().0.iter().zip(to_codes.as_chunks_mut::<7>().0) {
        let code = |x: f32| (x * inverse).round_ties_even().clamp(-LARGEST, LARGEST) + 64.0;
        let bits = eight.iter().rev().fold(0_u64, |bits, &x| bits << 7 | code(x) as u64);
        to.copy_from_slice(&bits.to_le_bytes()[..7]);
    }
    Ok(())
}

fn unpack_group(packed: &[u8; SCALE + CODES]) -> [f32; GROUP] {
    let scale = f16_to_f32(u16::from_le_bytes([packed[0], packed[1]]));
    let mut group = [0.0; GROUP];
    for (from, to) in packed[SCALE..].as_chunks::<7>().0.iter().zip(group.as_chunks_mut::<8>().0) {
        let mut bits = [0; 8];
        bits[..7].copy_from_slice(from);
        let bits = u64::from_le_bytes(bits);
        for (i, to) in to.iter_mut().enumerate() {
            *to = scale * ((bits >> (7 * i) & 127) as f32 - 64.0);
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&x| f32_to_f16(x).to_le_bytes()).collect()
    }

    #[test]
    fn the_saving_over_half_precision_is_more_than_twofold_scales_included() {
        for bytes in [64, 4096, 1 << 20] {
            let packed = Codec::new(CacheType::F16, bytes).unwrap().packed_bytes();
            assert!(bytes as f64 / packed as f64 >= 2.0, "{bytes} become {packed}");
        }
    }

    #[test]
    fn no_element_is_off_by_more_than_half_a_step_of_its_group() {
        let mut rng = Rng::new(3);
        for (storage, size) in [(CacheType::F16, 2), (CacheType::F32, 4)] {
            for elements in [1, 31, 32, 33, 500] {
                let values: Vec<f32> =
                    (0..elements).map(|i| (rng.unit() as f32 - 0.5) * 10_f32.powi(i % 5 - 2)).collect();
                let raw: Vec<u8> = match size {
                    2 => halves(&values),
                    _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                };
                let codec = Codec::new(storage, raw.len()).unwrap();
                let (mut packed, mut back) = (vec![0; codec.packed_bytes()], vec![0; raw.len()]);
                codec.pack(&raw, &mut packed).unwrap();
                codec.unpack(&packed, &mut back);
                for (at, group) in values.chunks(GROUP).enumerate() {
                    let step = group.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())) / 63.0;
                    let mut read = [0.0; GROUP];
                    codec.read(&back[at * GROUP * size..][..group.len() * size], &mut read);
                    for (x, y) in group.iter().zip(read) {
                        // The rounding of the scale adds up to 63 times 2⁻¹¹ of a step, that of half precision as much again.
                        assert!((x - y).abs() <= step * 0.565, "{x} became {y}, step {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zero_and_what_is_not_finite_is_refused() {
        let codec = Codec::new(CacheType::F16, 64).unwrap();
        let mut packed = vec![7; codec.packed_bytes()];
        let mut back = vec![7; 64];
        codec.pack(&[0; 64], &mut packed).unwrap();
        codec.unpack(&packed, &mut back);
        assert_eq!(back, [0; 64]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 32];
            values[17] = bad;
            assert_eq!(codec.pack(&halves(&values), &mut packed), Err(NotFinite));
        }
        let huge = [f32::MAX; 32].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(Codec::new(CacheType::F32, 128).unwrap().pack(&huge, &mut packed), Err(NotFinite));
    }
}
