//! Q4_K and Q5_K on 512-bit vectors: sums of four products become words, of which one instruction scales and adds two.
//!
//! Four rows go through each step together, since their headers then share vectors, a 128-bit lane each. Counted for 256
//! weights of Q4_K: 19 vector instructions and a quarter of 24, where a conversion and a multiplication for each sum of four
//! took about 44. Activations are rounded as for [`super::words`].

use std::arch::x86_64::*;
use std::array;

use woolly_quant::TensorType;

use super::driver;
use super::input::Arrangement;
use super::words::Gemv;
use crate::buffer::Zeroed;
use crate::isa::{Avx512, Level};
use crate::kernels::rounding::{BLOCK, Unit};

/// Whether this file has a kernel that is to be used for `ty` at `level`.
pub(super) fn has(level: Level, ty: TensorType) -> bool {
    level.min(Level::best()) >= Level::Avx512 && matches!(ty, TensorType::Q4_K | TensorType::Q5_K)
}

/// Activations of a block of weights, rounded to eight bits as [`super::words::Words`] are.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Wide {
    /// In the order of the weights: those of 32 low nibbles twice, then those of the high ones.
    v: [i8; BLOCK],
    /// Scales of each 32, in natural order.
    scale: [i16; 8],
    /// Sums of each 32, in natural order.
    sum: [i16; 8],
    unit: f32,
}

// SAFETY: numbers, and padding.
unsafe impl Zeroed for Wide {}

impl Arrangement for Wide {
    const ELEMENTS: usize = BLOCK;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], _order: &[u8; 16]) {
        let simd = Avx512::new().expect("`has` asked the processor");
        // SAFETY: `simd` proves the features.
        unsafe { self.round(simd, x.as_array().expect("a row has whole blocks")) }
    }
}

impl Wide {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn round(&mut self, _simd: Avx512, x: &[f32; BLOCK]) {
        let groups = x.as_chunks::<32>().0;
        let mut largest = [0; 8];
        for (largest, group) in largest.iter_mut().zip(groups) {
            let [a, b] = halves(group);
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            // As integers, magnitudes order like the floats, and infinities and NaN stay visible above all of them.
            let both = _mm512_max_epu32(_mm512_slli_epi32::<1>(a), _mm512_slli_epi32::<1>(b));
            *largest = _mm512_reduce_max_epu32(both) >> 1;
        }
        let unit = Unit::new(largest.iter().fold(0, |m, x| m.max(*x)));
        self.unit = unit.size;
        for (g, group) in groups.iter().enumerate() {
            let scale = unit.multiple(largest[g]);
            let inverse = _mm512_set1_ps(unit.inverse(scale));
            let [a, b] = halves(group);
            let (a, b) = (_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
            let bytes = _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
            // Of each four groups the second and the third change places.
            let place = [0, 2, 1, 3][g % 4] + g / 4 * 4;
            // SAFETY: 32 bytes are writable.
            unsafe { _mm256_storeu_si256(self.v.as_chunks_mut::<32>().0[place].as_mut_ptr().cast(), bytes) };
            self.scale[g] = scale as i16;
            self.sum[g] = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)) as i16;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: &[f32; 32]) -> [__m512; 2] {
    // SAFETY: 16 floats are readable at both places.
    unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[16..].as_ptr())] }
}

impl Gemv<'_> {
    /// Computes at the level that this file is for.
    pub(super) fn run_wide(self) {
        let simd = Avx512::new().expect("`has` asked the processor");
        // Fewer columns than a kernel has repeat the last one: a few wasted products instead of more kernels to compile.
        match self.x.m {
            0 => {}
            1 => self.wide::<1>(simd),
            _ => self.wide::<2>(simd),
        }
    }

    fn wide<const C: usize>(&self, simd: Avx512) {
        // SAFETY: `simd` proves the features of both kernels.
        unsafe {
            match self.w.ty {
                TensorType::Q4_K => self.each_four(|rows, x| four_rows::<144, 16, C>(simd, rows, x)),
                TensorType::Q5_K => self.each_four(|rows, x| four_rows::<176, 48, C>(simd, rows, x)),
                other => unreachable!("{other} has no kernel here: `has` said so"),
            }
        }
    }

    /// Computes four rows far apart at a time, which the processor's prefetchers can follow each.
    fn each_four<const BYTES: usize, const C: usize>(
        &self,
        product: impl Fn([&[[u8; BYTES]]; 4], [&[Wide]; C]) -> [[f32; 4]; C],
    ) {
        let apart = self.range.len().div_ceil(4);
        for i in 0..apart {
            let rows: [usize; 4] = array::from_fn(|r| (self.range.start + r * apart + i).min(self.range.end - 1));
            let blocks = rows.map(|row| self.w.bytes[row * self.row_bytes..][..self.row_bytes].as_chunks().0);
            for first in (0..self.x.m).step_by(C) {
                let columns: [usize; C] = array::from_fn(|c| (first + c).min(self.x.m - 1));
                let sums = product(blocks, columns.map(|c| self.x.wide.column(c)));
                for (column, sums) in columns.iter().zip(sums) {
                    rows.iter().zip(sums).for_each(|(row, sum)| self.out.set(column * self.out_stride + row, sum));
                }
            }
        }
    }
}

/// Products of four rows of Q4_K or, where nibbles begin `AT` byte 48, of Q5_K.
///
/// Sums stay below 4 · 31 · 127 < 2¹⁵ as words and, scaled and four of them added, below 4 · 31 · 127 · 63 · 127 · 4 < 2³¹.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn four_rows<const BYTES: usize, const AT: usize, const C: usize>(
    simd: Avx512,
    rows: [&[[u8; BYTES]]; 4],
    x: [&[Wide]; C],
) -> [[f32; 4]; C] {
    // Written out here and below: closures handed to `map` would be called for each block.
    let count = rows[0].len();
    let rows = [rows[0], &rows[1][..count], &rows[2][..count], &rows[3][..count]];
    let mut columns = x;
    for (columns, x) in columns.iter_mut().zip(x) {
        *columns = &x[..count];
    }
    let mut sums = [[_mm512_setzero_ps(); 4]; C];
    let mut minimums = [_mm512_setzero_ps(); C];
    for i in 0..count {
        let blocks = [&rows[0][i], &rows[1][i], &rows[2][i], &rows[3][i]];
        let mut x = [&columns[0][i]; C];
        for (x, column) in x.iter_mut().zip(columns) {
            *x = &column[i];
        }
        let scales = headers(blocks, x, &mut minimums);
        row::<BYTES, AT, 0, C>(simd, blocks[0], &scales, x, &mut sums);
        row::<BYTES, AT, 1, C>(simd, blocks[1], &scales, x, &mut sums);
        row::<BYTES, AT, 2, C>(simd, blocks[2], &scales, x, &mut sums);
        row::<BYTES, AT, 3, C>(simd, blocks[3], &scales, x, &mut sums);
    }
    let mut totals = [[0.0; 4]; C];
    for c in 0..C {
        totals[c] = four_totals(sums[c], minimums[c]);
    }
    totals
}

/// Scales of a block of four rows for one input vector, a lane each.
#[derive(Clone, Copy)]
struct Scales {
    /// Integer scales times those of the activations, as words.
    own: __m512i,
    /// The scale of the row's block times the unit of the activations, in all elements.
    whole: __m512,
}

/// Unpacks the headers of Q4_K and Q5_K, and takes the minimums off.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn headers<const BYTES: usize, const C: usize>(
    blocks: [&[u8; BYTES]; 4],
    x: [&Wide; C],
    minimums: &mut [__m512; C],
) -> [Scales; C] {
    let [a, b, c, d] = blocks;
    let header = lanes([start(a), start(b), start(c), start(d)]);
    // Six bits each; of the last four, the low four bits share a byte and the high two lie above the first four.
    let low = _mm512_srlv_epi32(_mm512_shuffle_epi32::<0b11_10_11_01>(header), _mm512_set4_epi32(4, 0, 0, 0));
    let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi32::<0b10_00_01_00>(header));
    let low = _mm512_and_si512(low, _mm512_set4_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f));
    let high = _mm512_and_si512(high, _mm512_set4_epi32(0x3030_3030, 0, 0x3030_3030, 0));
    let (bytes, zero) = (_mm512_or_si512(low, high), _mm512_setzero_si512());
    let (scales, least) = (_mm512_unpacklo_epi8(bytes, zero), _mm512_unpackhi_epi8(bytes, zero));
    let (d, minimum) = (lane_halves::<0>(header), lane_halves::<1>(header));
    let mut all = [Scales { own: scales, whole: d }; C];
    for c in 0..C {
        let (scale, unit) = (broadcast(&x[c].scale), _mm512_set1_ps(x[c].unit));
        all[c] = Scales { own: _mm512_mullo_epi16(scales, scale), whole: _mm512_mul_ps(d, unit) };
        let offsets = _mm512_madd_epi16(_mm512_mullo_epi16(least, scale), broadcast(&x[c].sum));
        minimums[c] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(offsets), _mm512_mul_ps(minimum, unit), minimums[c]);
    }
    all
}

/// Adds the products of row `R` of the four.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn row<const BYTES: usize, const AT: usize, const R: usize, const C: usize>(
    simd: Avx512,
    block: &[u8; BYTES],
    scales: &[Scales; C],
    x: [&Wide; C],
    sums: &mut [[__m512; 4]; C],
) {
    driver::prefetch(simd, block);
    let mut weights = [
        low_nibbles(&block[AT..]),
        high_nibbles(&block[AT..]),
        low_nibbles(&block[AT + 64..]),
        high_nibbles(&block[AT + 64..]),
    ];
    if AT == 48 {
        let flags = twice(&block[16..]);
        weights[0] = with_fifth::<4, 2>(weights[0], flags);
        weights[1] = with_fifth::<3, 1>(weights[1], flags);
        weights[2] = with_fifth::<0, 30>(weights[2], flags);
        weights[3] = with_fifth::<31, 29>(weights[3], flags);
    }
    for c in 0..C {
        let (v, own) = (x[c].v.as_chunks::<64>().0, scales[c].own);
        let first = _mm512_packs_epi32(dot(weights[0], &v[0]), dot(weights[1], &v[1]));
        let second = _mm512_packs_epi32(dot(weights[2], &v[2]), dot(weights[3], &v[3]));
        let sums_of_two = _mm512_madd_epi16(first, _mm512_permutexvar_epi16(words(&const { spread(8 * R) }), own));
        let spread = _mm512_permutexvar_epi16(words(&const { spread(8 * R + 4) }), own);
        let products = _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(sums_of_two, second, spread));
        sums[c][R] = _mm512_fmadd_ps(products, lane::<R>(scales[c].whole), sums[c][R]);
    }
}

/// The places of four scales, from `first` on, for words packed from the sums of low and of high nibbles: the first two
/// belong to the lower half, four words each in both of its lanes, the other two to the upper half.
const fn spread(first: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (first + i / 16 * 2 + i / 4 % 2) as u16;
        i += 1;
    }
    index
}

/// The sums of four vectors, and of the lane of `less` that belongs to each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn four_totals(sums: [__m512; 4], less: __m512) -> [f32; 4] {
    let [a, b, c, d] = sums;
    let first = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let second = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (first, second) = (_mm512_castps_pd(first), _mm512_castps_pd(second));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
    let transposed = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let lanes = _mm512_add_ps(_mm512_add_ps(low, high), _mm512_permutexvar_ps(transposed, less));
    let halves = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let quarters = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    let mut totals = [0.0; 4];
    // SAFETY: four floats are writable.
    unsafe { _mm_storeu_ps(totals.as_mut_ptr(), quarters) };
    totals
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(weights: __m512i, x: &[i8; 64]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    let x = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
    _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn low_nibbles(from: &[u8]) -> __m512i {
    let from = &from[..64];
    // SAFETY: 64 bytes are readable.
    _mm512_and_si512(unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }, _mm512_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn high_nibbles(from: &[u8]) -> __m512i {
    let from = &from[..64];
    // SAFETY: 64 bytes are readable.
    let bytes = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
    _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15))
}

/// Adds the fifth bits: those of `flags` that moving up by `LOW` in the lower half and by `HIGH` in the upper one, 31 being
/// one down, brings to their place.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_fifth<const LOW: i32, const HIGH: i32>(weights: __m512i, flags: __m512i) -> __m512i {
    // Words of 32 bits go round: what comes in from neighbouring bytes is removed by the mask.
    let moved = _mm512_rolv_epi32(flags, _mm512_mask_set1_epi32(_mm512_set1_epi32(LOW), 0xff00, HIGH));
    _mm512_or_si512(weights, _mm512_and_si512(moved, _mm512_set1_epi8(16)))
}

/// 32 bytes in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(from: &[u8]) -> __m512i {
    let from = &from[..32];
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(from: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes are readable.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// The first 16 bytes.
#[inline]
fn start<const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; 16] {
    block.first_chunk().expect("16 bytes")
}

/// Four times 16 bytes, one a lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(from: [&[u8; 16]; 4]) -> __m512i {
    let low = _mm256_set_m128i(sixteen(from[1]), sixteen(from[0]));
    let high = _mm256_set_m128i(sixteen(from[3]), sixteen(from[2]));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The half-precision number at place `AT` of each lane, in all elements of the lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn lane_halves<const AT: usize>(from: __m512i) -> __m512 {
    let index = const {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[i] = (8 * (i / 4) + AT) as u16;
            i += 1;
        }
        index
    };
    _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(words(&index), from)))
}

/// Lane `R` in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane<const R: usize>(from: __m512) -> __m512 {
    match R {
        0 => _mm512_shuffle_f32x4::<0b00_00_00_00>(from, from),
        1 => _mm512_shuffle_f32x4::<0b01_01_01_01>(from, from),
        2 => _mm512_shuffle_f32x4::<0b10_10_10_10>(from, from),
        _ => _mm512_shuffle_f32x4::<0b11_11_11_11>(from, from),
    }
}

/// Eight words in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(from: &[i16; 8]) -> __m512i {
    // SAFETY: 16 bytes are readable.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn words(from: &[u16; 32]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}
