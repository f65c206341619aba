//! Storage, embedding, normalisation and products.

use woolly_quant::TensorType;

use super::Tolerance;
use super::random::{Random, weight_types};
use crate::{Activation, Backend, BackendError, Norm, Projection, Reference, WeightSource, ops};

/// Writes values to a new tensor of `backend`.
pub(super) fn tensor<B: Backend>(backend: &B, columns: usize, values: &[f32]) -> B::Tensor {
    let mut tensor = backend.tensor(values.len() / columns, columns).expect("a small tensor");
    backend.write(&mut tensor, values).expect("the tensor was made for these values");
    tensor
}

/// Reads `n` values of a tensor of `backend`.
pub(super) fn values<B: Backend>(backend: &B, tensor: &B::Tensor, n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    backend.read(tensor, &mut out).expect("the tensor holds as many values");
    out
}

pub(super) fn weight<B: Backend>(backend: &B, source: &WeightSource) -> B::Weight {
    backend.weight(source.clone()).unwrap_or_else(|e| panic!("{source:?} was refused: {e}"))
}

/// Checks `got` against `want` with an absolute bound an element.
pub(super) fn assert_close(case: &str, got: &[f32], want: &[f32], bounds: &[f64]) {
    assert_eq!(got.len(), want.len(), "{case}: number of values");
    for (i, ((&g, &w), &bound)) in got.iter().zip(want).zip(bounds).enumerate() {
        let error = (f64::from(g) - f64::from(w)).abs();
        assert!(error <= bound, "{case}: element {i} is {g}, expected {w} within {bound:e}, off by {error:e}");
    }
}

/// Checks that tensors keep what is written, row counts change, and rows are gathered in order.
///
/// # Panics
/// When a check fails.
pub fn storage<B: Backend>(backend: &B) {
    let data: Vec<f32> = (0..15).map(|i| i as f32).collect();
    let mut x = tensor(backend, 5, &data);
    assert_eq!(values(backend, &x, 15), data, "what is written is read");
    backend.write(&mut x, &data[..5]).expect("fewer rows fit");
    assert_eq!(values(backend, &x, 5), data[..5], "the tensor has as many rows as were written last");
    backend.write(&mut x, &data).expect("all rows fit again");
    let mut picked = backend.tensor(4, 5).expect("a small tensor");
    backend.gather(&x, &[2, 0, 2], &mut picked).expect("rows in range");
    let want: Vec<f32> = [&data[10..15], &data[0..5], &data[10..15]].concat();
    assert_eq!(values(backend, &picked, 15), want, "gathered rows come in the order asked for");
}

/// Checks embedding lookup of every tensor type: a decoded row, times the scale.
///
/// # Panics
/// When a check fails.
pub fn embed<B: Backend>(backend: &B) {
    let mut random = Random::new(1);
    for ty in weight_types() {
        let columns = ty.block_elements() * if ty.block_elements() == 1 { 37 } else { 3 };
        let source = random.weight(ty, [columns, 11, 1]);
        let ids = [10, 0, 3, 3];
        let n = ids.len() * columns;
        let mut want = Reference::new().tensor(4, columns).expect("a small tensor");
        Reference::new().embed(&weight(&Reference::new(), &source), &ids, 2.5, &mut want).expect("ids in range");
        let mut got = backend.tensor(4, columns).expect("a small tensor");
        backend.embed(&weight(backend, &source), &ids, 2.5, &mut got).expect("ids in range");
        let want = values(&Reference::new(), &want, n);
        let bounds: Vec<f64> = want.iter().map(|w| f64::from(w.abs()) * 1e-6).collect();
        assert_close(&format!("embed {ty}"), &values(backend, &got, n), &want, &bounds);
    }
}

/// Checks RMS normalisation over row lengths that are no multiple of any vector.
///
/// # Panics
/// When a check fails.
pub fn norms<B: Backend>(backend: &B, tolerance: Tolerance) {
    let mut random = Random::new(2);
    for columns in [1, 3, 16, 31, 64, 100, 256, 1027] {
        for rows in [1, 2, 9] {
            let x = random.values(rows * columns);
            let w = WeightSource::from_f32("norm", [columns, 1, 1], &random.values(columns));
            let got = normalise(backend, &x, columns, &w);
            let want = normalise(&Reference::new(), &x, columns, &w);
            let bounds: Vec<f64> = want.iter().map(|w| f64::from(w.abs()) * tolerance.relative + 1e-12).collect();
            assert_close(&format!("norm of {rows} x {columns}"), &got, &want, &bounds);
        }
    }
}

fn normalise<B: Backend>(backend: &B, x: &[f32], columns: usize, w: &WeightSource) -> Vec<f32> {
    let mut out = backend.tensor(x.len() / columns, columns).expect("a small tensor");
    let norm = weight(backend, w);
    backend.norm(&tensor(backend, columns, x), Norm { weight: &norm, epsilon: 1e-5 }, &mut out).expect("sizes agree");
    values(backend, &out, x.len())
}

/// One product: `x` of `rows` rows times `w`.
struct Product {
    w: WeightSource,
    x: Vec<f32>,
}

impl Product {
    fn new(random: &mut Random, ty: TensorType, columns: usize, outputs: usize, rows: usize) -> Self {
        Self { w: random.weight(ty, [columns, outputs, 1]), x: random.values(rows * columns) }
    }

    fn columns(&self) -> usize {
        self.w.dims[0]
    }

    fn outputs(&self) -> usize {
        self.w.dims[1]
    }

    fn rows(&self) -> usize {
        self.x.len() / self.columns()
    }

    /// Multiplies on `backend`, with nothing fused.
    fn compute<B: Backend>(&self, backend: &B) -> Vec<f32> {
        let mut out = backend.tensor(self.rows(), self.outputs()).expect("a small tensor");
        let w = weight(backend, &self.w);
        let projection = Projection { weight: &w, bias: None, out: &mut out, accumulate: false };
        let x = tensor(backend, self.columns(), &self.x);
        backend.project(&x, None, &mut [projection]).expect("sizes agree");
        values(backend, &out, self.rows() * self.outputs())
    }

    /// Returns the largest error a backend of this tolerance may make, for each element of the product.
    fn bounds(&self, tolerance: Tolerance) -> Vec<f64> {
        let columns = self.columns();
        let rounds = tolerance.integer_activations && self.w.ty.block_elements() > 1;
        let mut weights = vec![0.0; columns * self.outputs()];
        self.w.ty.decode(self.w.bytes().expect("made whole"), &mut weights).expect("made whole");
        let mut bounds = Vec::with_capacity(self.rows() * self.outputs());
        for x in self.x.chunks_exact(columns) {
            for w in weights.chunks_exact(columns) {
                let magnitude: f64 = w.iter().zip(x).map(|(&w, &x)| f64::from((w * x).abs())).sum();
                let rounding = match self.w.ty {
                    TensorType::BF16 if tolerance.bf16_activations => magnitude / 512.0,
                    _ if rounds => activation_rounding(w, x),
                    _ => 0.0,
                };
                bounds.push(magnitude * tolerance.relative + rounding * 1.01 + 1e-30);
            }
        }
        bounds
    }
}

/// Half a step of an eight-bit rounding of `x` in blocks of 256, at every weight.
fn activation_rounding(w: &[f32], x: &[f32]) -> f64 {
    let blocks = w.chunks(256).zip(x.chunks(256));
    blocks
        .map(|(w, x)| {
            let largest = x.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            f64::from(largest) / 254.0 * w.iter().map(|v| f64::from(v.abs())).sum::<f64>()
        })
        .sum()
}

/// Checks products of every tensor type with few and many rows, odd output counts, biases and accumulation.
///
/// # Panics
/// When a check fails.
pub fn projections<B: Backend>(backend: &B, tolerance: Tolerance) {
    let mut random = Random::new(3);
    for ty in weight_types() {
        for (blocks, outputs, rows) in [(1, 1, 1), (2, 13, 2), (3, 37, 1), (1, 7, 5), (3, 66, 9), (2, 35, 33)] {
            let columns = ty.block_elements() * if ty.block_elements() == 1 { blocks * 43 } else { blocks };
            let product = Product::new(&mut random, ty, columns, outputs, rows);
            let case = format!("{ty}: {rows} x {columns} times {columns} x {outputs}");
            let want = product.compute(&Reference::new());
            let small = Tolerance { bf16_activations: false, ..tolerance };
            assert_close(&case, &product.compute(backend), &want, &product.bounds(small));
        }
    }
    large_projections(backend, tolerance);
    fused_projections(backend);
}

/// Checks products with half a mebibyte of weights: a backend may treat small matrices in another way.
fn large_projections<B: Backend>(backend: &B, tolerance: Tolerance) {
    let mut random = Random::new(7);
    for ty in weight_types().filter(|&ty| ty.block_elements() > 1 || ty == TensorType::BF16) {
        let columns = 2048;
        let outputs = (512 << 10) / ty.row_bytes(columns).expect("whole blocks") + 5;
        let mut product = Product::new(&mut random, ty, columns, outputs, 1);
        for rows in [1, 3, 17] {
            product.x = random.values(rows * columns);
            let case = format!("{ty}: {rows} x {columns} times {columns} x {outputs}");
            let want = product.compute(&Reference::new());
            assert_close(&case, &product.compute(backend), &want, &product.bounds(tolerance));
        }
    }
}

/// Checks norm, bias and accumulation around several products of one input, against the same done separately.
fn fused_projections<B: Backend>(backend: &B) {
    let mut random = Random::new(4);
    for rows in [1, 4, 20] {
        let (columns, sizes) = (64, [48, 16, 5]);
        let x = random.values(rows * columns);
        let norm = WeightSource::from_f32("norm", [columns, 1, 1], &random.values(columns));
        let sources: Vec<_> = sizes.iter().map(|&n| random.weight(TensorType::F32, [columns, n, 1])).collect();
        let biases: Vec<_> = sizes.iter().map(|&n| WeightSource::from_f32("b", [n, 1, 1], &random.values(n))).collect();
        let before: Vec<_> = sizes.iter().map(|&n| random.values(rows * n)).collect();
        let got = fused(backend, (&x, columns), &norm, (&sources, &biases), &before);
        let want = fused(&Reference::new(), (&x, columns), &norm, (&sources, &biases), &before);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let scale = want.iter().fold(1.0_f64, |m, v| m.max(f64::from(v.abs())));
            let bounds = vec![scale * 1e-4; want.len()];
            assert_close(&format!("fused projection {i} of {rows} rows"), got, want, &bounds);
        }
    }
}

fn fused<B: Backend>(
    backend: &B,
    (x, columns): (&[f32], usize),
    norm: &WeightSource,
    (sources, biases): (&[WeightSource], &[WeightSource]),
    before: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let rows = x.len() / columns;
    let weights: Vec<_> = sources.iter().map(|s| weight(backend, s)).collect();
    let biases: Vec<_> = biases.iter().map(|s| weight(backend, s)).collect();
    let mut outs: Vec<_> = before.iter().map(|b| tensor(backend, b.len() / rows, b)).collect();
    let mut projections: Vec<_> = weights
        .iter()
        .zip(&biases)
        .zip(&mut outs)
        .enumerate()
        .map(|(i, ((weight, bias), out))| Projection {
            weight,
            bias: (i != 1).then_some(bias),
            out,
            accumulate: i != 2,
        })
        .collect();
    let norm = weight(backend, norm);
    let norm = Norm { weight: &norm, epsilon: 1e-6 };
    backend.project(&tensor(backend, columns, x), Some(norm), &mut projections).expect("sizes agree");
    outs.iter().zip(before).map(|(out, b)| values(backend, out, b.len())).collect()
}

/// Checks gated feed-forwards with both activations, for a float and for quantised types.
///
/// # Panics
/// When a check fails.
pub fn gated<B: Backend>(backend: &B, tolerance: Tolerance) {
    let mut random = Random::new(5);
    for ty in [TensorType::F32, TensorType::F16, TensorType::Q4_K, TensorType::Q8_0, TensorType::Q6_K] {
        for (activation, rows) in [(Activation::Silu, 1), (Activation::Gelu, 3), (Activation::Silu, 40)] {
            let columns = ty.block_elements().max(32) * 2;
            let gate = Product::new(&mut random, ty, columns, 21, rows);
            let up = Product { w: random.weight(ty, [columns, 21, 1]), x: gate.x.clone() };
            let case = format!("gated {ty}, {activation:?}, {rows} rows");
            let (g, u) = (gate.compute(&Reference::new()), up.compute(&Reference::new()));
            let want: Vec<f32> = g.iter().zip(&u).map(|(&g, &u)| ops::activate(activation, g) * u).collect();
            let bounds = gated_bounds(activation, (&g, &gate.bounds(tolerance)), (&u, &up.bounds(tolerance)));
            assert_close(&case, &compute_gated(backend, &gate, &up, activation), &want, &bounds);
        }
    }
}

/// Propagates the bounds of gate and up through `act(g) · u`; both activations have slopes below 1.13.
fn gated_bounds(activation: Activation, gate: (&[f32], &[f64]), up: (&[f32], &[f64])) -> Vec<f64> {
    let pairs = gate.0.iter().zip(gate.1).zip(up.0.iter().zip(up.1));
    pairs
        .map(|((&g, &dg), (&u, &du))| {
            let a = f64::from(ops::activate(activation, g).abs());
            let exact = a * f64::from(u.abs());
            1.13 * dg * (f64::from(u.abs()) + du) + a * du + exact * 1e-5 + 1e-9
        })
        .collect()
}

fn compute_gated<B: Backend>(backend: &B, gate: &Product, up: &Product, activation: Activation) -> Vec<f32> {
    let mut out = backend.tensor(gate.rows(), gate.outputs()).expect("a small tensor");
    let x = tensor(backend, gate.columns(), &gate.x);
    let (g, u) = (weight(backend, &gate.w), weight(backend, &up.w));
    backend.gated(&x, None, &g, &u, activation, &mut out).expect("sizes agree");
    values(backend, &out, gate.rows() * gate.outputs())
}

/// Checks that what does not fit is refused with an error that names it, and not with a panic.
///
/// # Panics
/// When a check fails.
pub fn refusals<B: Backend>(backend: &B) {
    let table = weight(backend, &WeightSource::from_f32("table", [4, 3, 1], &[0.0; 12]));
    let mut out = backend.tensor(2, 4).expect("a small tensor");
    let error = backend.embed(&table, &[3], 1.0, &mut out).expect_err("the table has three rows");
    assert!(matches!(error, BackendError::OutOfRange { index: 3, len: 3, .. }), "{error}");
    let error = backend.embed(&table, &[0, 1, 2], 1.0, &mut out).expect_err("the tensor has room for two rows");
    assert!(matches!(error, BackendError::Shape { .. }), "{error}");
    let error = backend.write(&mut out, &[0.0; 5]).expect_err("five values are no whole rows of four");
    assert!(matches!(error, BackendError::Shape { .. }), "{error}");
    let wide = tensor(backend, 5, &[0.0; 5]);
    let projection = Projection { weight: &table, bias: None, out: &mut out, accumulate: false };
    let error = backend.project(&wide, None, &mut [projection]).expect_err("five columns against four");
    assert!(matches!(error, BackendError::Shape { .. }), "{error}");
    let error = backend.gather(&wide, &[1], &mut out).expect_err("columns and row do not fit");
    assert!(matches!(error, BackendError::Shape { .. } | BackendError::OutOfRange { .. }), "{error}");
    let mut short = WeightSource::from_f32("short", [4, 3, 1], &[0.0; 12]);
    short.range.end -= 1;
    let error = backend.weight(short).err().expect("a byte is missing");
    assert!(matches!(error, BackendError::WeightBytes { found: 47, expected: 48, .. }), "{error}");
}
