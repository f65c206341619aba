//! How sums of products are scaled.

use std::arch::x86_64::*;

use super::Format;
use super::activations::Wide;
use super::vectors::{broadcast8, broadcast16, lane, load, words};

/// Types whose scales are applied to words.
pub(super) trait InWords: Format<Scales = Integers> {
    /// Scales of a row, 8 or 16.
    const EACH: usize;
    /// Which of them belong to the lanes of the four vectors of weights.
    const PLACES: Places = natural(Self::EACH);
}

/// Which scale belongs to each lane of four vectors.
pub(super) type Places = [[usize; 4]; 4];

/// Of so many scales, where the weights are in natural order.
pub(super) const fn natural(each: usize) -> Places {
    let mut places = [[0; 4]; 4];
    let mut i = 0;
    while i < 16 {
        places[i / 4][i % 4] = i * each / 16;
        i += 1;
    }
    places
}

/// Scales of a block of four rows for words.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    /// Integer scales times those of the activations, row after row; where a row has eight, both are the same.
    own: [__m512i; 2],
    /// The scale of the row's block times the unit of the activations, in all elements of the row's lane.
    whole: __m512,
}

impl Integers {
    /// Moves the integer scales up by as many bits as `shifts` says of each, and the scale of the block down by four.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn shifted(self, shifts: __m512i) -> Self {
        let own = [_mm512_sllv_epi16(self.own[0], shifts), _mm512_sllv_epi16(self.own[1], shifts)];
        Self { own, whole: _mm512_mul_ps(self.whole, _mm512_set1_ps(1.0 / 16.0)) }
    }
}

/// Eight scales for each row, of which `d` multiplies all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn eight<const C: usize>(own: __m512i, d: __m512, x: [&Wide; C]) -> [Integers; C] {
    let mut all = [Integers { own: [own; 2], whole: d }; C];
    for c in 0..C {
        let own = _mm512_mullo_epi16(own, broadcast8(&x[c].scale32));
        all[c] = Integers { own: [own; 2], whole: _mm512_mul_ps(d, _mm512_set1_ps(x[c].unit)) };
    }
    all
}

/// Sixteen scales for each row, of which `d` multiplies all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn sixteen<const C: usize>(own: [__m512i; 2], d: __m512, x: [&Wide; C]) -> [Integers; C] {
    let mut all = [Integers { own, whole: d }; C];
    for c in 0..C {
        let scale = broadcast16(&x[c].scale);
        let own = [_mm512_mullo_epi16(own[0], scale), _mm512_mullo_epi16(own[1], scale)];
        all[c] = Integers { own, whole: _mm512_mul_ps(d, _mm512_set1_ps(x[c].unit)) };
    }
    all
}

/// Takes `by` times what each of 32 weights is too large by off.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn take_off8<const C: usize>(offsets: __m512i, by: __m512, x: [&Wide; C], less: &mut [__m512; C]) {
    for c in 0..C {
        let offsets = _mm512_mullo_epi16(offsets, broadcast8(&x[c].scale32));
        let sums = _mm512_cvtepi32_ps(_mm512_madd_epi16(offsets, broadcast8(&x[c].sum32)));
        less[c] = _mm512_fnmadd_ps(sums, _mm512_mul_ps(by, _mm512_set1_ps(x[c].unit)), less[c]);
    }
}

/// Takes `by` times what each of 16 weights is too large by off.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn take_off16<const C: usize>(offsets: [__m512i; 2], by: __m512, x: [&Wide; C], less: &mut [__m512; C]) {
    for c in 0..C {
        let (scale, sum) = (broadcast16(&x[c].scale), broadcast16(&x[c].sum));
        let first = _mm512_madd_epi16(_mm512_mullo_epi16(offsets[0], scale), sum);
        let second = _mm512_madd_epi16(_mm512_mullo_epi16(offsets[1], scale), sum);
        // Two lanes for each row become one.
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(first, second);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(first, second);
        let sums = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        less[c] = _mm512_fnmadd_ps(sums, _mm512_mul_ps(by, _mm512_set1_ps(x[c].unit)), less[c]);
    }
}

/// Adds the products of row `R`: sums of four products become words, of which pairs are scaled and added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn add_integers<F: InWords, const R: usize>(dots: [__m512i; 4], scales: Integers, sum: __m512) -> __m512 {
    let own = scales.own[R * F::EACH / 32];
    let (low, high) = (_mm512_packs_epi32(dots[0], dots[1]), _mm512_packs_epi32(dots[2], dots[3]));
    let spread_low = words(&const { spread(R * F::EACH % 32, [F::PLACES[0], F::PLACES[1]]) });
    let spread_high = words(&const { spread(R * F::EACH % 32, [F::PLACES[2], F::PLACES[3]]) });
    let sums_of_two = _mm512_madd_epi16(low, _mm512_permutexvar_epi16(spread_low, own));
    let products = _mm512_dpwssd_epi32(sums_of_two, high, _mm512_permutexvar_epi16(spread_high, own));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), lane::<R>(scales.whole), sum)
}

/// Adds the products of row `R`, sums of 16 weights each in their order, which have `EACH` scales, 8 or 16, none of them negative.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn whole_sums<const R: usize, const EACH: usize>(
    products: __m512i,
    scales: Integers,
    sum: __m512,
) -> __m512 {
    let spread = const {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[2 * i] = (R * EACH % 32 + i * EACH / 16) as u16;
            i += 1;
        }
        index
    };
    let own = _mm512_maskz_permutexvar_epi16(0x5555_5555, words(&spread), scales.own[R * EACH / 32]);
    let products = _mm512_cvtepi32_ps(_mm512_mullo_epi32(products, own));
    _mm512_fmadd_ps(products, lane::<R>(scales.whole), sum)
}

/// Where the scales of words packed from two vectors are, of which the row's begin at `first`: in each lane four words of one
/// vector and four of the other.
const fn spread(first: usize, places: [[usize; 4]; 2]) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (first + places[i / 4 % 2][i / 8]) as u16;
        i += 1;
    }
    index
}

/// Sums of four products of weights without a sign.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn dots(weights: [__m512i; 4], x: &Wide) -> [__m512i; 4] {
    let (v, [a, b, c, d]) = (x.v.as_chunks().0, weights);
    [dot(a, load(&v[0])), dot(b, load(&v[1])), dot(c, load(&v[2])), dot(d, load(&v[3]))]
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(weights: __m512i, x: __m512i) -> __m512i {
    _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, x)
}

/// Scales of a block of four rows for sums as floats: groups 0 to 3, and 4 to 7, a lane for each row.
#[derive(Clone, Copy)]
pub(super) struct Floats(pub(super) [__m512; 2]);

impl Floats {
    /// Adds the products of row `R`, in which a lane of two vectors belongs to a group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn add<const R: usize>(self, weights: [__m512i; 4], x: &Wide, sum: __m512) -> __m512 {
        let v = x.v.as_chunks().0;
        let r = 4 * R as i32;
        let spread = _mm512_setr_epi32(
            r,
            r,
            r,
            r,
            r + 1,
            r + 1,
            r + 1,
            r + 1,
            r + 2,
            r + 2,
            r + 2,
            r + 2,
            r + 3,
            r + 3,
            r + 3,
            r + 3,
        );
        let low = _mm512_dpbusd_epi32(dot(weights[0], load(&v[0])), weights[1], load(&v[1]));
        let high = _mm512_dpbusd_epi32(dot(weights[2], load(&v[2])), weights[3], load(&v[3]));
        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_permutexvar_ps(spread, self.0[0]), sum);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_permutexvar_ps(spread, self.0[1]), sum)
    }
}
