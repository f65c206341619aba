//! A backend that watches another one at work: it sums the squares of what each matrix is multiplied with.
//!
//! [`Observed`] does every operation by handing it on, so that a model computes with it what it computes without;
//! mixtures of experts are taken apart into one expert at a time, because which inputs reach which expert is decided
//! inside the operation. Inputs are read back from the device, which costs time: this is for measuring importance, and
//! nothing else pays for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use woolly_tensor::{Activation, Attention, Backend, BackendError, CacheSpec, Experts, Norm, Projection, WeightSource};

/// The backend `B`, observed.
pub struct Observed<B: Backend> {
    inner: B,
    squares: Mutex<BTreeMap<String, Squares>>,
}

/// What the matrices of one tensor were multiplied with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Squares {
    /// `[matrices, columns]`, row-major: the sum of squares of each input.
    pub sums: Vec<f64>,
    /// For each matrix the number of input rows.
    pub counts: Vec<u64>,
}

/// A tensor of the observed backend, and its size.
pub struct ObservedTensor<B: Backend> {
    inner: B::Tensor,
    rows: usize,
    columns: usize,
}

/// A weight of the observed backend, and what it is.
pub struct ObservedWeight<B: Backend> {
    inner: B::Weight,
    name: String,
    /// `[columns, rows, matrices]`.
    dims: [usize; 3],
    /// Each matrix of a stack for itself.
    matrices: Vec<B::Weight>,
}

impl<B: Backend> Observed<B> {
    /// Observes `inner`.
    pub fn new(inner: B) -> Self {
        Self { inner, squares: Mutex::default() }
    }

    /// Returns what was seen so far, by the names of tensors.
    pub fn squares(&self) -> BTreeMap<String, Squares> {
        self.squares.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the rows of `inputs`, which one matrix of `weight` is multiplied with.
    fn see(&self, weight: &ObservedWeight<B>, matrix: usize, inputs: &[f32]) {
        let [columns, _, matrices] = weight.dims;
        let mut squares = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = squares
            .entry(weight.name.clone())
            .or_insert_with(|| Squares { sums: vec![0.0; columns * matrices], counts: vec![0; matrices] });
        let sums = entry.sums.get_mut(matrix * columns..(matrix + 1) * columns).unwrap_or_default();
        for row in inputs.chunks_exact(columns.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x).powi(2));
        }
        if let Some(count) = entry.counts.get_mut(matrix) {
            *count += (inputs.len() / columns.max(1)) as u64;
        }
    }

    fn values(&self, tensor: &ObservedTensor<B>) -> Result<Vec<f32>, BackendError> {
        let mut values = vec![0.0; tensor.rows * tensor.columns];
        self.inner.read(&tensor.inner, &mut values)?;
        Ok(values)
    }

    /// The input of a product: `x`, or `norm(x)`.
    fn input(&self, x: &ObservedTensor<B>, norm: Option<Norm<'_, Self>>) -> Result<Vec<f32>, BackendError> {
        let Some(norm) = norm else { return self.values(x) };
        let mut normalised = self.tensor(x.rows.max(1), x.columns)?;
        self.norm(x, norm, &mut normalised)?;
        self.values(&normalised)
    }

    fn tensor_of(&self, columns: usize, values: &[f32]) -> Result<ObservedTensor<B>, BackendError> {
        let mut tensor = self.tensor((values.len() / columns.max(1)).max(1), columns)?;
        self.write(&mut tensor, values)?;
        Ok(tensor)
    }

    /// What one expert makes of the rows of `inputs`.
    fn expert(&self, inputs: &[f32], experts: &Experts<'_, Self>, expert: usize) -> Result<Vec<f32>, BackendError> {
        let [width, inner, _] = experts.gate.dims;
        let rows = inputs.len() / width.max(1);
        let [gate, up, down] = [experts.gate, experts.up, experts.down].map(|weight| weight.matrix(expert));
        let (gate, up, down) = (gate?, up?, down?);
        let x = self.tensor_of(width, inputs)?;
        let mut hidden = self.tensor(rows.max(1), inner)?;
        self.inner.gated(&x.inner, None, gate, up, experts.activation, &mut hidden.inner)?;
        hidden.rows = rows;
        self.see(experts.gate, expert, inputs);
        self.see(experts.up, expert, inputs);
        self.see(experts.down, expert, &self.values(&hidden)?);
        let mut result = self.tensor(rows.max(1), width)?;
        let projection = Projection { weight: down, bias: None, out: &mut result.inner, accumulate: false };
        self.inner.project(&hidden.inner, None, &mut [projection])?;
        result.rows = rows;
        self.values(&result)
    }
}

impl<B: Backend> ObservedWeight<B> {
    /// One matrix of a stack; a single matrix is a stack of one.
    fn matrix(&self, index: usize) -> Result<&B::Weight, BackendError> {
        if index == 0 && self.matrices.is_empty() {
            return Ok(&self.inner);
        }
        let len = self.matrices.len();
        self.matrices.get(index).ok_or(BackendError::OutOfRange { op: "experts", what: "expert", index, len })
    }
}

fn unwrapped<'a, B: Backend>(norm: Option<Norm<'a, Observed<B>>>) -> Option<Norm<'a, B>> {
    norm.map(|norm| Norm { weight: &norm.weight.inner, epsilon: norm.epsilon })
}

impl<B: Backend> Backend for Observed<B> {
    type Tensor = ObservedTensor<B>;
    type Weight = ObservedWeight<B>;
    type Cache = B::Cache;

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn uniform_rows(&self) -> usize {
        self.inner.uniform_rows()
    }

    fn tensor(&self, max_rows: usize, columns: usize) -> Result<Self::Tensor, BackendError> {
        Ok(ObservedTensor { inner: self.inner.tensor(max_rows, columns)?, rows: max_rows, columns })
    }

    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), BackendError> {
        self.inner.resize(&mut tensor.inner, rows)?;
        tensor.rows = rows;
        Ok(())
    }

    fn write(&self, tensor: &mut Self::Tensor, values: &[f32]) -> Result<(), BackendError> {
        self.inner.write(&mut tensor.inner, values)?;
        tensor.rows = values.len() / tensor.columns.max(1);
        Ok(())
    }

    fn read(&self, tensor: &Self::Tensor, out: &mut [f32]) -> Result<(), BackendError> {
        self.inner.read(&tensor.inner, out)
    }

    fn weight(&self, source: WeightSource) -> Result<Self::Weight, BackendError> {
        let (name, dims) = (source.name.clone(), source.dims);
        let bytes = source.bytes()?.len() / dims[2].max(1);
        let matrix = |index: usize| {
            let start = source.range.start + index * bytes;
            let range = start..start + bytes;
            self.inner.weight(WeightSource { dims: [dims[0], dims[1], 1], range, ..source.clone() })
        };
        let matrices = if dims[2] > 1 { (0..dims[2]).map(matrix).collect::<Result<_, _>>()? } else { Vec::new() };
        Ok(ObservedWeight { inner: self.inner.weight(source)?, name, dims, matrices })
    }

    fn cache(&self, spec: &CacheSpec) -> Result<Self::Cache, BackendError> {
        self.inner.cache(spec)
    }

    fn block_bytes(&self, cache: &Self::Cache) -> usize {
        self.inner.block_bytes(cache)
    }

    fn adopt_thread(&self) {
        self.inner.adopt_thread();
    }

    fn use_in_order(&self, cache: &mut Self::Cache) {
        self.inner.use_in_order(cache);
    }

    fn block_memory(&self, cache: &Self::Cache) -> usize {
        self.inner.block_memory(cache)
    }

    fn keep_tokens(&self, cache: &Self::Cache, tokens: usize, saved: &mut [u8]) -> Result<(), BackendError> {
        self.inner.keep_tokens(cache, tokens, saved)
    }

    fn copy_block(&self, cache: &mut Self::Cache, from: u32, to: u32) -> Result<(), BackendError> {
        self.inner.copy_block(cache, from, to)
    }

    fn save_block(&self, cache: &Self::Cache, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        self.inner.save_block(cache, block, out)
    }

    fn load_block(&self, cache: &mut Self::Cache, block: u32, saved: &[u8]) -> Result<(), BackendError> {
        self.inner.load_block(cache, block, saved)
    }

    fn release_blocks(&self, cache: &mut Self::Cache, blocks: &[u32]) -> Result<(), BackendError> {
        self.inner.release_blocks(cache, blocks)
    }

    fn embed(&self, table: &Self::Weight, ids: &[u32], scale: f32, out: &mut Self::Tensor) -> Result<(), BackendError> {
        self.inner.embed(&table.inner, ids, scale, &mut out.inner)?;
        out.rows = ids.len();
        Ok(())
    }

    fn norm(&self, x: &Self::Tensor, norm: Norm<'_, Self>, out: &mut Self::Tensor) -> Result<(), BackendError> {
        self.inner.norm(&x.inner, Norm { weight: &norm.weight.inner, epsilon: norm.epsilon }, &mut out.inner)?;
        out.rows = x.rows;
        Ok(())
    }

    fn project(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        projections: &mut [Projection<'_, Self>],
    ) -> Result<(), BackendError> {
        let input = self.input(x, norm)?;
        let mut unwrapped_projections: Vec<Projection<'_, B>> = projections
            .iter_mut()
            .map(|projection| {
                projection.out.rows = x.rows;
                let bias = projection.bias.map(|bias| &bias.inner);
                let (out, accumulate) = (&mut projection.out.inner, projection.accumulate);
                Projection { weight: &projection.weight.inner, bias, out, accumulate }
            })
            .collect();
        self.inner.project(&x.inner, unwrapped(norm), &mut unwrapped_projections)?;
        projections.iter().for_each(|projection| self.see(projection.weight, 0, &input));
        Ok(())
    }

    fn gated(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        gate: &Self::Weight,
        up: &Self::Weight,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError> {
        self.inner.gated(&x.inner, unwrapped(norm), &gate.inner, &up.inner, activation, &mut out.inner)?;
        out.rows = x.rows;
        let input = self.input(x, norm)?;
        self.see(gate, 0, &input);
        self.see(up, 0, &input);
        Ok(())
    }

    fn attention(
        &self,
        args: Attention<'_, Self>,
        cache: &mut Self::Cache,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError> {
        let Attention { layer, q, k, v, q_norm, k_norm, rope, shape, batch } = args;
        let rows = q.rows;
        let (q_norm, k_norm) = (unwrapped(q_norm), unwrapped(k_norm));
        let (q, k, v) = (&mut q.inner, &mut k.inner, &v.inner);
        let args = Attention { layer, q, k, v, q_norm, k_norm, rope, shape, batch };
        self.inner.attention(args, cache, &mut out.inner)?;
        out.rows = rows;
        Ok(())
    }

    fn experts(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        experts: &Experts<'_, Self>,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError> {
        let [width, _, count] = experts.gate.dims;
        BackendError::expect_size("experts", "output rows", out.rows, x.rows)?;
        BackendError::expect_size("experts", "input columns", x.columns, width)?;
        let input = self.input(x, norm)?;
        let normalised = self.tensor_of(width, &input)?;
        let mut routed = self.tensor(x.rows.max(1), count)?;
        let projection = Projection { weight: experts.router, bias: None, out: &mut routed, accumulate: false };
        self.project(&normalised, None, &mut [projection])?;
        let logits = self.values(&routed)?;
        let chosen: Vec<_> = logits.chunks_exact(count.max(1)).map(|row| experts.choose(row)).collect();
        let mut sum = self.values(out)?;
        for expert in 0..count {
            let rows: Vec<(usize, f32)> = rows_of(expert, &chosen).collect();
            let inputs: Vec<f32> =
                rows.iter().flat_map(|&(row, _)| &input[row * width..(row + 1) * width]).copied().collect();
            if rows.is_empty() {
                continue;
            }
            let results = self.expert(&inputs, experts, expert)?;
            for (&(row, weight), result) in rows.iter().zip(results.chunks_exact(width)) {
                let sum = &mut sum[row * width..(row + 1) * width];
                sum.iter_mut().zip(result).for_each(|(sum, r)| *sum += weight * r);
            }
        }
        self.write(out, &sum)
    }

    fn gather(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor) -> Result<(), BackendError> {
        self.inner.gather(&x.inner, rows, &mut out.inner)?;
        out.rows = rows.len();
        Ok(())
    }
}

/// The rows that chose `expert`, with their weights.
fn rows_of(expert: usize, chosen: &[Vec<(usize, f32)>]) -> impl Iterator<Item = (usize, f32)> {
    let weight =
        move |choices: &Vec<(usize, f32)>| choices.iter().find(|(e, _)| *e == expert).map(|&(_, weight)| weight);
    chosen.iter().enumerate().filter_map(move |(row, choices)| Some((row, weight(choices)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_tensor::conformance::Tolerance;
    use woolly_tensor::{Gating, Reference};

    woolly_tensor::conformance!(observed, Observed::new(Reference::new()), Tolerance::F32);

    fn backend() -> Observed<Reference> {
        Observed::new(Reference::new())
    }

    fn matrix(backend: &Observed<Reference>, name: &str, dims: [usize; 3], value: f32) -> ObservedWeight<Reference> {
        let values = vec![value; dims.iter().product()];
        backend.weight(WeightSource::from_f32(name, dims, &values)).expect("a weight")
    }

    #[test]
    fn inputs_are_seen_as_the_matrices_see_them() {
        let backend = backend();
        let (a, b) = (matrix(&backend, "a", [2, 3, 1], 1.0), matrix(&backend, "b", [2, 1, 1], 1.0));
        let norm = backend.weight(WeightSource::from_f32("norm", [2, 1, 1], &[1.0, 10.0])).expect("a weight");
        let x = backend.tensor_of(2, &[3.0, 4.0, 0.0, 2.0]).expect("memory");
        let (mut out, mut other) = (backend.tensor(2, 3).expect("memory"), backend.tensor(2, 1).expect("memory"));
        let projections = &mut [
            Projection { weight: &a, bias: None, out: &mut out, accumulate: false },
            Projection { weight: &b, bias: None, out: &mut other, accumulate: false },
        ];
        backend.project(&x, None, projections).expect("computed");
        backend.project(&x, Some(Norm { weight: &norm, epsilon: 0.0 }), &mut projections[..1]).expect("computed");
        let squares = backend.squares();
        assert_eq!(squares["b"], Squares { sums: vec![9.0, 20.0], counts: vec![2] });
        // Mean squares are 25/2 and 4/2: normalised, 9/12.5 + 0 and 100 (16/12.5 + 4/2) come to what was there before.
        let [first, second] = squares["a"].sums[..] else { panic!("two columns") };
        assert!((first - 9.0 - 0.72).abs() < 1e-5 && (second - 20.0 - 328.0).abs() < 1e-3, "{first} {second}");
        assert_eq!(squares["a"].counts, [4]);
    }

    #[test]
    fn each_expert_sees_the_rows_that_chose_it() {
        let backend = backend();
        let router = WeightSource::from_f32("router", [2, 3, 1], &[1.0, 0.0, 0.0, 1.0, -1.0, -1.0]);
        let router = backend.weight(router).expect("a weight");
        let [gate, up, down] = ["gate", "up", "down"].map(|name| matrix(&backend, name, [2, 2, 3], 1.0));
        let experts = Experts {
            router: &router,
            gate: &gate,
            up: &up,
            down: &down,
            used: 1,
            gating: Gating::Softmax,
            renormalise: true,
            scale: 1.0,
            activation: Activation::Silu,
        };
        let x = backend.tensor_of(2, &[3.0, 1.0, 1.0, 2.0, 5.0, 4.0]).expect("memory");
        let mut out = backend.tensor_of(2, &[0.0; 6]).expect("memory");
        backend.experts(&x, None, &experts, &mut out).expect("computed");
        let squares = backend.squares();
        for name in ["gate", "up"] {
            assert_eq!(squares[name].counts, [2, 1, 0], "{name}");
            assert_eq!(squares[name].sums, [34.0, 17.0, 1.0, 4.0, 0.0, 0.0], "{name}");
        }
        // Row 1 sums to 3: silu(3) · 3, twice.
        let hidden = (3.0 / (1.0 + (-3.0_f64).exp()) * 3.0).powi(2);
        assert!((squares["down"].sums[2] - hidden).abs() < 1e-4 && squares["down"].counts == [2, 1, 0]);
        assert_eq!((squares["router"].counts.as_slice(), squares.len()), (&[3][..], 4));
    }
}
