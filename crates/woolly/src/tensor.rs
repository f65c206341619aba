//! Float tensors and what is computed with them, for programs that compute beside a model.
//!
//! ```
//! use woolly::tensor::{self, Tensor};
//!
//! let a = Tensor::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! let b = Tensor::new(&[3, 1], vec![1.0, 0.0, -1.0]);
//! let mut c = Tensor::zeros(&[2, 1]);
//! tensor::matmul(&a, &b, &mut c);
//! assert_eq!(c.data(), [-2.0, -2.0]);
//! ```
//!
//! Shapes that do not fit are programming errors and panic. Results have the precision of `f32`; the best instructions of
//! the processor are used, and all its cores for large products.

use std::num::NonZeroUsize;

use woolly_cpu::dense;

/// Keeps the square root of a variance of zero apart from zero; the value that most models were trained with.
const EPSILON: f32 = 1e-5;

/// Numbers in rows: the last dimension is contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// Takes `data` in this shape, the last dimension being contiguous.
    ///
    /// # Panics
    /// When the shape has another number of elements.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "the shape {shape:?} does not fit the data");
        Self { shape: shape.to_vec(), data }
    }

    /// Makes a tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Copies a vector.
    pub fn from_slice(data: &[f32]) -> Self {
        Self { shape: vec![data.len()], data: data.to_vec() }
    }

    /// Returns the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns all elements, row after row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Returns all elements to be changed.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// Returns the elements of a row: the last dimension, 1 for a single number.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the two dimensions of a matrix.
    fn matrix(&self, name: &str) -> [usize; 2] {
        match self.shape[..] {
            [rows, columns] => [rows, columns],
            _ => panic!("matmul: {name} has the shape {:?}, but a matrix has two dimensions", self.shape),
        }
    }
}

/// Multiplies two matrices: `c[m, n] = a[m, k] · b[k, n]`.
///
/// # Panics
/// When the shapes are not those.
pub fn matmul(a: &Tensor, b: &Tensor, c: &mut Tensor) {
    let [[m, k], [inner, n]] = [a.matrix("a"), b.matrix("b")];
    assert_eq!(k, inner, "matmul: a is {:?}, b is {:?}", a.shape, b.shape);
    assert_eq!(c.matrix("c"), [m, n], "matmul: a is {:?}, b is {:?}", a.shape, b.shape);
    let threads = NonZeroUsize::new(woolly_cpu::default_threads()).unwrap_or(NonZeroUsize::MIN);
    dense::matmul(&a.data, &b.data, &mut c.data, [m, k, n], threads);
}

/// Computes the tanh form of the Gaussian error linear unit of every element (Hendrycks and Gimpel, 2016).
///
/// # Panics
/// When the shapes differ.
pub fn gelu(input: &Tensor, output: &mut Tensor) {
    assert_eq!(input.shape, output.shape, "gelu: shapes differ");
    dense::gelu(&input.data, &mut output.data);
}

/// Computes the softmax of every row; a row whose entries are all `-∞` becomes zeros, one with a NaN all NaN.
///
/// # Panics
/// When the shapes differ.
pub fn softmax(input: &Tensor, output: &mut Tensor) {
    each_row("softmax", input, output, dense::softmax);
}

/// Normalises every row: `(x − mean) / sqrt(variance + 1e-5) · weights` (Ba et al., 2016).
///
/// # Panics
/// When the shapes differ, or there is not one weight for each column.
pub fn layer_norm(input: &Tensor, output: &mut Tensor, weights: &Tensor) {
    let bias = vec![0.0; input.columns()];
    assert_eq!(weights.data.len(), bias.len(), "layer_norm: one weight for each column is needed");
    each_row("layer_norm", input, output, |x, out| dense::layer_norm(x, &weights.data, &bias, EPSILON, out));
}

fn each_row(op: &str, input: &Tensor, output: &mut Tensor, each: impl Fn(&[f32], &mut [f32])) {
    assert_eq!(input.shape, output.shape, "{op}: shapes differ");
    let columns = input.columns().max(1);
    for (x, out) in input.data.chunks(columns).zip(output.data.chunks_mut(columns)) {
        each(x, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_independent() {
        let input = Tensor::new(&[2, 2], vec![0.0, 0.0, 1.0, 3.0]);
        let mut output = Tensor::zeros(&[2, 2]);
        softmax(&input, &mut output);
        assert_eq!(output.data()[..2], [0.5, 0.5]);
        assert!((output.data()[2] + output.data()[3] - 1.0).abs() < 1e-6);
        layer_norm(&input, &mut output, &Tensor::from_slice(&[1.0, 2.0]));
        assert_eq!(output.data()[..2], [0.0, 0.0]);
        assert!((output.data()[2] + 1.0).abs() < 1e-4 && (output.data()[3] - 2.0).abs() < 1e-4);
    }

    #[test]
    #[should_panic(expected = "a is [2, 3], b is [2, 3]")]
    fn shapes_that_do_not_fit_are_named() {
        let a = Tensor::zeros(&[2, 3]);
        matmul(&a, &a, &mut Tensor::zeros(&[2, 3]));
    }
}
