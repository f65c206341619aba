//! Float matrices and rows at full speed, for programs that compute beside a model.
//!
//! Slices are row-major. A wrong length is a programming error and panics, as in [`woolly_tensor::ops`], whose definitions
//! these follow in single precision.

use std::num::NonZeroUsize;
use std::thread;

use crate::isa::Level;
use crate::kernels::dense;

/// Multiplications from which on starting threads costs little beside them.
const WORTH_THREADS: usize = 1 << 25;

/// Computes `c[m, n] = a[m, k] · b[k, n]` with the best instructions of this processor, on `threads` threads when the product
/// is large.
///
/// # Panics
/// When the slices are not of these sizes.
pub fn matmul(a: &[f32], b: &[f32], c: &mut [f32], [m, k, n]: [usize; 3], threads: NonZeroUsize) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "matmul: slices do not match {m} x {k} x {n}");
    let threads = threads.get().min(m);
    if threads <= 1 || m.saturating_mul(k).saturating_mul(n) < WORTH_THREADS {
        return dense::matmul(Level::best(), a, b, c, [m, k, n]);
    }
    let rows = m.div_ceil(threads);
    thread::scope(|scope| {
        for (a, c) in a.chunks(rows * k).zip(c.chunks_mut(rows * n)) {
            scope.spawn(move || dense::matmul(Level::best(), a, b, c, [a.len() / k, k, n]));
        }
    });
}

/// Computes the tanh form of the Gaussian error linear unit of every element (Hendrycks and Gimpel, 2016).
///
/// # Panics
/// When the lengths differ.
pub fn gelu(x: &[f32], out: &mut [f32]) {
    dense::gelu(Level::best(), x, out);
}

/// Computes the softmax of one row; a row whose entries are all `-∞` becomes zeros, one with a NaN all NaN.
///
/// # Panics
/// When the lengths differ.
pub fn softmax(x: &[f32], out: &mut [f32]) {
    dense::softmax(Level::best(), x, out);
}

/// Normalises one row: `out = (x − mean) / sqrt(variance + ε) · weight + bias` (Ba et al., 2016).
///
/// # Panics
/// When the lengths differ.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    dense::layer_norm(Level::best(), x, weight, bias, epsilon, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::noise;

    #[test]
    fn threads_change_nothing_in_a_product() {
        let shape @ [m, k, n] = [700, 300, 200];
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let product = |threads| {
            let mut c = vec![0.0; m * n];
            matmul(&a, &b, &mut c, shape, NonZeroUsize::new(threads).unwrap());
            c
        };
        let alone = product(1);
        assert!([2, 3, 7].into_iter().all(|threads| product(threads) == alone));
    }
}
