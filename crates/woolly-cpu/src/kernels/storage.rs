//! How the cache stores keys and values: rounded when a token is written, widened when a vector is loaded.
//!
//! Keys of a block lie `[key_length][32]`, values `[32][value row]`; see [`Layout`]. Eight-bit ones lie in fours, as products
//! of bytes take them: keys `[key_length / 4][32][4]`, values `[32 / 4][columns][4]`. Scales of whole tokens are not applied
//! on loading: they are factors of scores and weights, which are fewer.

use woolly_quant::half::{f16_to_f32, f32_to_f16};
use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::simd::TileSimd;
use crate::cache::Layout;

/// Bytes of a block of 32 four-bit values: a half-precision scale, then two values a byte, the first sixteen low.
const BLOCK4: usize = 18;

/// A storage type, as kernels see it.
pub(crate) trait Storage: 'static {
    /// Bytes of an element of a key.
    const KEY_WIDTH: usize;
    /// Whether there is a scale for each token's key.
    const KEY_SCALES: bool = false;
    /// Whether there is a scale for each token's value.
    const VALUE_SCALES: bool = false;
    /// Whether the keys are bytes in fours.
    const KEY_BYTES: bool = Self::KEY_SCALES;
    /// Whether the values are bytes in fours.
    const VALUE_BYTES: bool = Self::VALUE_SCALES;

    /// Returns the bytes of the keys of a block, `length` elements each.
    #[inline(always)]
    fn key_bytes(length: usize) -> usize {
        let length = if Self::KEY_BYTES { length.next_multiple_of(4) } else { length };
        Self::KEY_WIDTH * BLOCK_TOKENS * length
    }

    /// Loads element `element` of the keys of as many tokens as a vector has, from `token` on.
    ///
    /// # Safety
    /// `keys` heads the keys of a block with more than `element` elements; the tokens lie in the block.
    unsafe fn key<S: TileSimd>(s: S, keys: *const u8, element: usize, token: usize) -> S::F;

    /// Loads a vector of elements of the value of `token`, from `column` on, a multiple of the vector's elements.
    ///
    /// # Safety
    /// `values` heads the values of a block whose rows take `row` bytes each and reach as far; the token lies in the block.
    unsafe fn value<S: TileSimd>(s: S, values: *const u8, row: usize, token: usize, column: usize) -> S::F;
}

/// Single precision.
pub(crate) struct F32;
/// Half precision.
pub(crate) struct F16;
/// Eight bits with a scale for each key and each value of a head.
pub(crate) struct Q8;
/// Keys as [`Q8`], values in four bits with a scale for every 32 elements.
pub(crate) struct Q8Q4;

impl Storage for F32 {
    const KEY_WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn key<S: TileSimd>(s: S, keys: *const u8, element: usize, token: usize) -> S::F {
        // SAFETY: passed on from the caller; blocks start on cache lines.
        unsafe { s.load_at(keys.cast::<f32>().add(element * BLOCK_TOKENS + token)) }
    }

    #[inline(always)]
    unsafe fn value<S: TileSimd>(s: S, values: *const u8, row: usize, token: usize, column: usize) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_at(values.add(token * row).cast::<f32>().add(column)) }
    }
}

impl Storage for F16 {
    const KEY_WIDTH: usize = 2;

    #[inline(always)]
    unsafe fn key<S: TileSimd>(s: S, keys: *const u8, element: usize, token: usize) -> S::F {
        // SAFETY: passed on from the caller; blocks start on cache lines.
        unsafe { s.load_half_at(keys.cast::<u16>().add(element * BLOCK_TOKENS + token)) }
    }

    #[inline(always)]
    unsafe fn value<S: TileSimd>(s: S, values: *const u8, row: usize, token: usize, column: usize) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_half_at(values.add(token * row).cast::<u16>().add(column)) }
    }
}

impl Storage for Q8 {
    const KEY_WIDTH: usize = 1;
    const KEY_SCALES: bool = true;
    const VALUE_SCALES: bool = true;

    #[inline(always)]
    unsafe fn key<S: TileSimd>(s: S, keys: *const u8, element: usize, token: usize) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_quarter_at(keys.cast::<i32>().add(element / 4 * BLOCK_TOKENS + token), element % 4) }
    }

    #[inline(always)]
    unsafe fn value<S: TileSimd>(s: S, values: *const u8, row: usize, token: usize, column: usize) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_quarter_at(values.cast::<i32>().add(token / 4 * row + column), token % 4) }
    }
}

impl Storage for Q8Q4 {
    const KEY_WIDTH: usize = 1;
    const KEY_SCALES: bool = true;

    #[inline(always)]
    unsafe fn key<S: TileSimd>(s: S, keys: *const u8, element: usize, token: usize) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { Q8::key(s, keys, element, token) }
    }

    #[inline(always)]
    unsafe fn value<S: TileSimd>(s: S, values: *const u8, row: usize, token: usize, column: usize) -> S::F {
        // SAFETY: the caller's rows reach to the end of the block of 32 that holds `column`.
        unsafe {
            let block = values.add(token * row + column / 32 * BLOCK4);
            let scale = s.splat_half(block.cast::<u16>().read_unaligned());
            let q = s.load_nibbles_at(block.add(2 + column % 16), column % 32 >= 16);
            s.mul(s.sub(q, s.splat(8.0)), scale)
        }
    }
}

/// Bytes of the parts of one head of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) keys: usize,
    pub(crate) key_scales: usize,
    pub(crate) value_row: usize,
    pub(crate) value_scales: usize,
    /// Elements of a value row, those of the padding included.
    pub(crate) columns: usize,
}

/// Returns how much room heads of these lengths take; `None` on overflow or for a type unknown here.
pub(crate) fn sizes(storage: CacheType, key_length: usize, value_length: usize) -> Option<Sizes> {
    let fours = matches!(storage, CacheType::Q8 | CacheType::Q8Q4);
    let elements = if fours { key_length.checked_next_multiple_of(4)? } else { key_length };
    let keys = elements.checked_mul(BLOCK_TOKENS)?;
    // A half-precision number for each token.
    let scales = 2 * BLOCK_TOKENS;
    let (columns, wide) = (value_length.checked_next_multiple_of(16)?, value_length.checked_next_multiple_of(32)?);
    let sizes = |width, key_scales, value_row, value_scales, columns| {
        Some(Sizes { keys: keys.checked_mul(width)?, key_scales, value_row, value_scales, columns })
    };
    match storage {
        CacheType::F32 => sizes(4, 0, columns.checked_mul(4)?, 0, columns),
        CacheType::F16 => sizes(2, 0, columns.checked_mul(2)?, 0, columns),
        CacheType::Q8 => sizes(1, scales, columns, scales, columns),
        CacheType::Q8Q4 => sizes(1, scales, (wide / 32).checked_mul(BLOCK4)?, 0, wide),
        _ => None,
    }
}

/// Writes one token's key and value into its slot of one head's part of a block.
pub(crate) fn store(layout: &Layout, head: &mut [u8], slot: usize, key: &[f32], value: &[f32]) {
    let (keys, values) = head.split_at_mut(layout.values);
    let (row, columns) = (slot * layout.value_row..(slot + 1) * layout.value_row, layout.columns);
    match layout.storage {
        CacheType::F32 => {
            store_key(keys, slot, key.iter().map(|x| x.to_ne_bytes()));
            let row = values[row].as_chunks_mut().0;
            row.iter_mut().zip(value).for_each(|(to, x)| *to = x.to_ne_bytes());
        }
        CacheType::Q8 | CacheType::Q8Q4 => {
            let scale = scale(key, 127.0);
            for (to, x) in keys.chunks_exact_mut(4 * BLOCK_TOKENS).zip(key.chunks(4)) {
                to[4 * slot..4 * slot + 4]
                    .copy_from_slice(&four(|i| x.get(i).map_or(0, |x| quantise(*x, scale, 127.0))));
            }
            put_half(&mut keys[layout.key_scales..], slot, scale);
            if layout.storage == CacheType::Q8 {
                let scale = self::scale(value, 127.0);
                let fours = values[slot / 4 * 4 * columns..].as_chunks_mut::<4>().0;
                fours.iter_mut().zip(value).for_each(|(to, x)| to[slot % 4] = quantise(*x, scale, 127.0) as u8);
                put_half(&mut values[layout.value_scales - layout.values..], slot, scale);
            } else {
                values[row].chunks_exact_mut(BLOCK4).zip(value.chunks(32)).for_each(|(to, x)| store_nibbles(to, x));
            }
        }
        _ => {
            store_key(keys, slot, key.iter().map(|x| f32_to_f16(*x).to_ne_bytes()));
            let row = values[row].as_chunks_mut().0;
            row.iter_mut().zip(value).for_each(|(to, x)| *to = f32_to_f16(*x).to_ne_bytes());
        }
    }
}

/// Zeros in one head's part of a block what belongs to the tokens from slot `first` on.
pub(crate) fn clear_from(layout: &Layout, head: &mut [u8], first: usize) {
    let (keys, values) = head.split_at_mut(layout.values);
    let (keys, key_scales) = keys.split_at_mut(layout.key_scales);
    let (values, value_scales) = values.split_at_mut(layout.value_scales - layout.values);
    // Bytes of a token in what lies side by side: elements of a key, or four of them.
    let width = match layout.storage {
        CacheType::F32 | CacheType::Q8 | CacheType::Q8Q4 => 4,
        _ => 2,
    };
    keys.chunks_exact_mut(width * BLOCK_TOKENS).for_each(|side| side[width * first..].fill(0));
    // Half-precision numbers; without scales there is nothing, or less than a cache line of padding.
    for scales in [key_scales, value_scales].into_iter().filter(|scales| scales.len() >= 2 * BLOCK_TOKENS) {
        scales[2 * first..].fill(0);
    }
    if layout.storage == CacheType::Q8 {
        for (i, four) in values.chunks_exact_mut(4 * layout.columns).enumerate() {
            let kept = first.saturating_sub(4 * i).min(4);
            four.as_chunks_mut::<4>().0.iter_mut().for_each(|tokens| tokens[kept..].fill(0));
        }
    } else {
        values[first * layout.value_row..].fill(0);
    }
}

fn store_key<const WIDTH: usize>(keys: &mut [u8], slot: usize, key: impl Iterator<Item = [u8; WIDTH]>) {
    let elements = keys.as_chunks_mut::<WIDTH>().0.iter_mut().skip(slot).step_by(BLOCK_TOKENS);
    elements.zip(key).for_each(|(to, from)| *to = from);
}

/// Returns the bytes of four numbers.
fn four(at: impl Fn(usize) -> i8) -> [u8; 4] {
    std::array::from_fn(|i| at(i) as u8)
}

fn put_half(to: &mut [u8], index: usize, x: f32) {
    to[2 * index..2 * index + 2].copy_from_slice(&f32_to_f16(x).to_ne_bytes());
}

/// Returns the scale of values that are stored as whole numbers up to `most`: one that half precision holds exactly.
fn scale(values: &[f32], most: f32) -> f32 {
    let largest = values.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    f16_to_f32(f32_to_f16((largest / most).min(65504.0)))
}

/// Returns `x / scale` as a whole number of at most `most` in magnitude; 0 for a scale of 0 and for NaN.
fn quantise(x: f32, scale: f32, most: f32) -> i8 {
    if scale == 0.0 { 0 } else { (x / scale).round_ties_even().clamp(-most, most) as i8 }
}

/// Writes up to 32 elements as a block of four-bit values, -8 to 7 times the scale.
///
/// The element of largest magnitude becomes -8, whatever its sign (so does ggml's `Q4_0`).
fn store_nibbles(to: &mut [u8], values: &[f32]) {
    let extreme = values.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    let scale = f16_to_f32(f32_to_f16((extreme / -8.0).clamp(-65504.0, 65504.0)));
    to[..2].copy_from_slice(&f32_to_f16(scale).to_ne_bytes());
    let nibble = |x: f32| if scale == 0.0 { 8 } else { ((x / scale).round_ties_even().clamp(-8.0, 7.0) + 8.0) as u8 };
    let at = |i: usize| values.get(i).copied().map_or(8, nibble);
    for (i, byte) in to[2..].iter_mut().enumerate() {
        *byte = at(i) | at(i + 16) << 4;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use woolly_tensor::CacheSpec;

    use super::*;
    use crate::kernels::simd::{MAX_LANES, TileKernel, dispatch};
    use crate::test_data::{levels, noise};

    /// Loads a key and a value of a head's part of a block.
    struct Read<'a, T> {
        layout: &'a Layout,
        part: &'a [u8],
        slot: usize,
        storage: T,
    }

    impl<T: Storage> TileKernel for Read<'_, T> {
        type Output = [Vec<f32>; 2];

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) -> [Vec<f32>; 2] {
            let Layout { key_length, values, value_row, columns, .. } = *self.layout;
            let half = |at: usize| f16_to_f32(u16::from_ne_bytes([self.part[at], self.part[at + 1]]));
            let key_scale = if T::KEY_SCALES { half(self.layout.key_scales + 2 * self.slot) } else { 1.0 };
            let value_scale = if T::VALUE_SCALES { half(self.layout.value_scales + 2 * self.slot) } else { 1.0 };
            let mut lanes = [0.0; MAX_LANES];
            let token = self.slot / S::LANES * S::LANES;
            let mut key = Vec::new();
            for element in 0..key_length {
                // SAFETY: the element is one of the key's, the vector of tokens lies in the block.
                s.store(&mut lanes, unsafe { T::key(s, self.part.as_ptr(), element, token) });
                key.push(lanes[self.slot - token] * key_scale);
            }
            let rows = &self.part[values..][..BLOCK_TOKENS * value_row];
            let mut value = Vec::new();
            for column in (0..columns).step_by(S::LANES) {
                // SAFETY: the vector lies in the row.
                s.store(&mut lanes, unsafe { T::value(s, rows.as_ptr(), value_row, self.slot, column) });
                value.extend(lanes[..S::LANES].iter().map(|x| x * value_scale));
            }
            let _ = self.storage;
            [key, value]
        }
    }

    /// Returns the key and the value in a slot of a head's part of a block, as the vectors of `level` see them.
    pub(crate) fn read(level: crate::isa::Level, layout: &Layout, part: &[u8], slot: usize) -> [Vec<f32>; 2] {
        match layout.storage {
            CacheType::F32 => dispatch(level, Read { layout, part, slot, storage: F32 }),
            CacheType::Q8 => dispatch(level, Read { layout, part, slot, storage: Q8 }),
            CacheType::Q8Q4 => dispatch(level, Read { layout, part, slot, storage: Q8Q4 }),
            _ => dispatch(level, Read { layout, part, slot, storage: F16 }),
        }
    }

    #[test]
    fn every_type_reads_back_what_was_stored_within_its_step_and_leaves_other_tokens_alone() {
        for (storage, (key_length, value_length)) in
            CacheType::ALL.into_iter().flat_map(|ty| [(64, 64), (5, 9), (80, 40), (128, 33)].map(|n| (ty, n)))
        {
            let spec = CacheSpec { layers: 1, kv_heads: 1, key_length, value_length, blocks: 1, storage };
            let layout = Layout::new(&spec).unwrap();
            let mut part = vec![0; layout.head];
            let tokens: Vec<_> = (0..32).map(|t| (noise(key_length, t), noise(value_length, 99 + t))).collect();
            for (slot, (key, value)) in tokens.iter().enumerate() {
                store(&layout, &mut part, slot, key, value);
            }
            // Half a step of magnitudes up to 1; the largest element of four bits may lose a whole one.
            let [key_step, value_step] = match storage {
                CacheType::F32 => [0.0; 2],
                CacheType::F16 => [2.0_f32.powi(-12); 2],
                CacheType::Q8 => [0.501 / 127.0; 2],
                _ => [0.501 / 127.0, 1.001 / 8.0],
            };
            for (level, slot) in levels().into_iter().flat_map(|level| [0, 7, 8, 31].map(|slot| (level, slot))) {
                let [key, value] = read(level, &layout, &part, slot);
                let near = |a: &[f32], b: &[f32], step: f32| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= step);
                let case = format!("{storage} {key_length}/{value_length} {level:?} slot {slot}");
                assert!(near(&key, &tokens[slot].0, key_step), "{case}: key");
                assert!(near(&value, &tokens[slot].1, value_step), "{case}: value");
                assert!(value[value_length..].iter().all(|&x| x == 0.0), "{case}: padding");
            }
        }
    }

    #[test]
    fn extreme_values_stay_finite_and_zeros_stay_zero() {
        for storage in [CacheType::Q8, CacheType::Q8Q4] {
            let spec = CacheSpec { layers: 1, kv_heads: 1, key_length: 4, value_length: 4, blocks: 1, storage };
            let layout = Layout::new(&spec).unwrap();
            let mut part = vec![0; layout.head];
            store(&layout, &mut part, 0, &[f32::MAX, -1.0, 0.0, 1.0], &[f32::MIN, 1.0, 0.0, -1.0]);
            store(&layout, &mut part, 1, &[0.0; 4], &[0.0; 4]);
            for level in levels() {
                assert!(read(level, &layout, &part, 0).iter().flatten().all(|x| x.is_finite()), "{storage} {level:?}");
                assert!(read(level, &layout, &part, 1).iter().flatten().all(|&x| x == 0.0), "{storage} {level:?}");
            }
        }
    }
}
