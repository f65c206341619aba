//! Rotary position embedding (Su et al., 2021) of the heads of one row, from ready-made angles.

use woolly_tensor::RopeStyle;

use crate::isa::Level;
use crate::kernels::simd::{TileKernel, TileSimd, dispatch};

/// Rotates every head of `row` (heads of `length` elements) by `angles`, `[pairs, 2]` of cosine and sine; elements beyond
/// the pairs pass unchanged.
pub(crate) fn rotate(level: Level, row: &mut [f32], length: usize, style: RopeStyle, angles: &[f32]) {
    assert!(angles.len() <= length && angles.len().is_multiple_of(2), "rope: more angles than elements");
    dispatch(level, Rotate { row, length, style, angles });
}

struct Rotate<'a> {
    row: &'a mut [f32],
    length: usize,
    style: RopeStyle,
    angles: &'a [f32],
}

impl TileKernel for Rotate<'_> {
    type Output = ();

    // Plain loops: the compiler vectorises them well enough for their share of the time (below 1 %).
    #[inline(always)]
    fn run<S: TileSimd>(self, _: S) {
        let (angles, _) = self.angles.as_chunks::<2>();
        for head in self.row.chunks_exact_mut(self.length) {
            let rotated = &mut head[..2 * angles.len()];
            match self.style {
                RopeStyle::Adjacent => {
                    for (pair, &[cos, sin]) in rotated.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                        let [x, y] = *pair;
                        *pair = [x * cos - y * sin, x * sin + y * cos];
                    }
                }
                RopeStyle::Halves => {
                    let (first, second) = rotated.split_at_mut(angles.len());
                    for ((x, y), &[cos, sin]) in first.iter_mut().zip(second).zip(angles) {
                        (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{levels, noise};

    #[test]
    fn heads_rotate_in_pairs_and_the_rest_stays() {
        for (length, dims, style) in [
            (16, 16, RopeStyle::Adjacent),
            (22, 10, RopeStyle::Adjacent),
            (64, 64, RopeStyle::Halves),
            (80, 34, RopeStyle::Halves),
        ] {
            let x = noise(3 * length, 9);
            let angles: Vec<f32> = (0..dims / 2).flat_map(|i| [(i as f32).cos(), (i as f32).sin()]).collect();
            for level in levels() {
                let mut row = x.clone();
                rotate(level, &mut row, length, style, &angles);
                for (at, &found) in row.iter().enumerate() {
                    let (head, e) = (at / length * length, at % length);
                    let (i, first) = match style {
                        RopeStyle::Adjacent => (e / 2, e.is_multiple_of(2)),
                        RopeStyle::Halves => (e % (dims / 2), e < dims / 2),
                    };
                    let partner = match style {
                        RopeStyle::Adjacent => e ^ 1,
                        RopeStyle::Halves => (e + dims / 2) % dims,
                    };
                    let (sin, cos) = f64::from(i as f32).sin_cos();
                    let (this, other) = (f64::from(x[at]), f64::from(x[(head + partner).min(x.len() - 1)]));
                    let expected = match e < dims {
                        true if first => this * cos - other * sin,
                        true => other * sin + this * cos,
                        false => this,
                    };
                    assert!((f64::from(found) - expected).abs() < 5e-7, "{level:?} {style:?} {length}/{dims} [{at}]");
                }
            }
        }
    }
}
