//! The scalar backend: every operation as its definition says, in `f64`, one element at a time.
//!
//! It decodes weights row by row with the codecs of `woolly-quant` and is meant to be right, not fast. Storage and
//! dense operations are here; [`attention`] and [`experts`] have files of their own.

mod attention;
mod experts;

use woolly_quant::TensorType;

use crate::{Activation, Attention, Backend, BackendError, CacheSpec, Experts, Norm, Projection, WeightSource, ops};

pub use attention::ReferenceCache;

/// The scalar reference backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference(());

/// A row-major matrix in ordinary memory.
#[derive(Clone, Debug)]
pub struct ReferenceTensor {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    max_rows: usize,
}

/// A weight in its stored type, decoded row by row when it is used.
#[derive(Debug)]
pub struct ReferenceWeight {
    source: WeightSource,
    row_bytes: usize,
}

impl Reference {
    /// Returns the backend; it has no state.
    pub const fn new() -> Self {
        Self(())
    }
}

impl ReferenceTensor {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), BackendError> {
        if rows > self.max_rows {
            return Err(BackendError::Shape { op, what: "rows", found: rows, expected: self.max_rows });
        }
        self.rows = rows;
        Ok(())
    }

    fn in_use(&self) -> &[f32] {
        &self.values[..self.rows * self.columns]
    }
}

impl ReferenceWeight {
    fn columns(&self) -> usize {
        self.source.dims[0]
    }

    /// Decodes row `row`, counted over all experts.
    fn row(&self, row: usize) -> Result<Vec<f32>, BackendError> {
        let op = "weight row";
        let bytes = self.source.bytes()?;
        let index = BackendError::OutOfRange { op, what: "row", index: row, len: self.source.total_rows() };
        let blocks = bytes.get(row * self.row_bytes..(row + 1) * self.row_bytes).ok_or(index)?;
        let mut values = vec![0.0; self.columns()];
        decode(&self.source, blocks, &mut values)?;
        Ok(values)
    }

    /// Decodes a vector weight that must have `length` elements.
    fn vector(&self, op: &'static str, what: &'static str, length: usize) -> Result<Vec<f32>, BackendError> {
        BackendError::expect_size(op, what, self.columns() * self.source.total_rows(), length)?;
        self.row(0)
    }
}

fn decode(source: &WeightSource, blocks: &[u8], out: &mut [f32]) -> Result<(), BackendError> {
    source.ty.decode(blocks, out).map_err(|e| BackendError::Device { op: "decode", message: e.to_string() })
}

/// Normalises all rows of `x`, or copies them when there is no norm.
fn normalised(x: &ReferenceTensor, norm: Option<Norm<'_, Reference>>) -> Result<ReferenceTensor, BackendError> {
    let mut out = x.clone();
    if let Some(norm) = norm {
        let weight = norm.weight.vector("norm", "weight length", x.columns)?;
        for row in 0..x.rows {
            ops::rms_norm(x.row(row), &weight, norm.epsilon, out.row_mut(row));
        }
    }
    Ok(out)
}

/// Computes `W · x` for every row of `x` with rows `first..first + outputs` of `weight`: `[rows, outputs]`.
fn multiply(
    x: &ReferenceTensor,
    weight: &ReferenceWeight,
    first: usize,
    outputs: usize,
) -> Result<ReferenceTensor, BackendError> {
    BackendError::expect_size("project", "input columns", x.columns, weight.columns())?;
    let mut out =
        ReferenceTensor { values: vec![0.0; x.rows * outputs], rows: x.rows, columns: outputs, max_rows: x.rows };
    for output in 0..outputs {
        let weights = weight.row(first + output)?;
        for row in 0..x.rows {
            out.values[row * outputs + output] = ops::dot(x.row(row), &weights) as f32;
        }
    }
    Ok(out)
}

impl Backend for Reference {
    type Tensor = ReferenceTensor;
    type Weight = ReferenceWeight;
    type Cache = ReferenceCache;

    fn describe(&self) -> String {
        "reference (scalar f64)".to_owned()
    }

    /// Every row is computed by itself.
    fn uniform_rows(&self) -> usize {
        usize::MAX
    }

    fn tensor(&self, max_rows: usize, columns: usize) -> Result<ReferenceTensor, BackendError> {
        let bytes = max_rows.checked_mul(columns).and_then(|n| n.checked_mul(4));
        let Some(bytes) = bytes else {
            return Err(BackendError::OutOfMemory { what: "activations", bytes: usize::MAX });
        };
        Ok(ReferenceTensor { values: vec![0.0; bytes / 4], rows: max_rows, columns, max_rows })
    }

    fn resize(&self, tensor: &mut ReferenceTensor, rows: usize) -> Result<(), BackendError> {
        tensor.set_rows("resize", rows)
    }

    fn write(&self, tensor: &mut ReferenceTensor, values: &[f32]) -> Result<(), BackendError> {
        let rows = values.len() / tensor.columns.max(1);
        BackendError::expect_size("write", "values", values.len(), rows * tensor.columns)?;
        tensor.set_rows("write", rows)?;
        tensor.values[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn read(&self, tensor: &ReferenceTensor, out: &mut [f32]) -> Result<(), BackendError> {
        BackendError::expect_size("read", "destination", out.len(), tensor.in_use().len())?;
        out.copy_from_slice(tensor.in_use());
        Ok(())
    }

    fn weight(&self, source: WeightSource) -> Result<ReferenceWeight, BackendError> {
        source.bytes()?;
        let unsupported =
            || BackendError::UnsupportedType { name: source.name.clone(), ty: source.ty, backend: "reference" };
        if matches!(source.ty, TensorType::Q8_1 | TensorType::Q8_K) {
            return Err(unsupported());
        }
        let row_bytes = source.ty.row_bytes(source.dims[0]).ok_or_else(unsupported)?;
        Ok(ReferenceWeight { source, row_bytes })
    }

    fn cache(&self, spec: &CacheSpec) -> Result<ReferenceCache, BackendError> {
        ReferenceCache::new(spec)
    }

    fn block_bytes(&self, cache: &ReferenceCache) -> usize {
        cache.block_bytes()
    }

    fn copy_block(&self, cache: &mut ReferenceCache, from: u32, to: u32) -> Result<(), BackendError> {
        let mut contents = vec![0; cache.block_bytes()];
        cache.save("copy_block", from, &mut contents)?;
        cache.load("copy_block", to, &contents)
    }

    fn save_block(&self, cache: &ReferenceCache, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        cache.save("save_block", block, out)
    }

    fn load_block(&self, cache: &mut ReferenceCache, block: u32, bytes: &[u8]) -> Result<(), BackendError> {
        cache.load("load_block", block, bytes)
    }

    fn keep_tokens(&self, cache: &ReferenceCache, tokens: usize, saved: &mut [u8]) -> Result<(), BackendError> {
        cache.keep_tokens(tokens, saved)
    }

    fn release_blocks(&self, cache: &mut ReferenceCache, blocks: &[u32]) -> Result<(), BackendError> {
        cache.forget(blocks)
    }

    fn embed(
        &self,
        table: &ReferenceWeight,
        ids: &[u32],
        scale: f32,
        out: &mut ReferenceTensor,
    ) -> Result<(), BackendError> {
        BackendError::expect_size("embed", "output columns", out.columns, table.columns())?;
        out.set_rows("embed", ids.len())?;
        for (row, &id) in ids.iter().enumerate() {
            let len = table.source.dims[1];
            if id as usize >= len {
                return Err(BackendError::OutOfRange { op: "embed", what: "token id", index: id as usize, len });
            }
            for (o, v) in out.row_mut(row).iter_mut().zip(table.row(id as usize)?) {
                *o = v * scale;
            }
        }
        Ok(())
    }

    fn norm(&self, x: &ReferenceTensor, norm: Norm<'_, Self>, out: &mut ReferenceTensor) -> Result<(), BackendError> {
        BackendError::expect_size("norm", "output columns", out.columns, x.columns)?;
        out.set_rows("norm", x.rows)?;
        let result = normalised(x, Some(norm))?;
        self.write(out, result.in_use())
    }

    fn project(
        &self,
        x: &ReferenceTensor,
        norm: Option<Norm<'_, Self>>,
        projections: &mut [Projection<'_, Self>],
    ) -> Result<(), BackendError> {
        let x = normalised(x, norm)?;
        for projection in projections {
            project_one(&x, projection)?;
        }
        Ok(())
    }

    fn gated(
        &self,
        x: &ReferenceTensor,
        norm: Option<Norm<'_, Self>>,
        gate: &ReferenceWeight,
        up: &ReferenceWeight,
        activation: Activation,
        out: &mut ReferenceTensor,
    ) -> Result<(), BackendError> {
        let inner = gate.source.dims[1];
        BackendError::expect_size("gated", "rows of up", up.source.dims[1], inner)?;
        BackendError::expect_size("gated", "output columns", out.columns, inner)?;
        let x = normalised(x, norm)?;
        let result = gated_product(&x, (gate, 0), (up, 0), inner, activation)?;
        self.write(out, result.in_use())
    }

    fn attention(
        &self,
        args: Attention<'_, Self>,
        cache: &mut ReferenceCache,
        out: &mut ReferenceTensor,
    ) -> Result<(), BackendError> {
        attention::attend(args, cache, out)
    }

    fn experts(
        &self,
        x: &ReferenceTensor,
        norm: Option<Norm<'_, Self>>,
        experts: &Experts<'_, Self>,
        out: &mut ReferenceTensor,
    ) -> Result<(), BackendError> {
        let x = normalised(x, norm)?;
        experts::add(&x, experts, out)
    }

    fn gather(&self, x: &ReferenceTensor, rows: &[u32], out: &mut ReferenceTensor) -> Result<(), BackendError> {
        BackendError::expect_size("gather", "output columns", out.columns, x.columns)?;
        out.set_rows("gather", rows.len())?;
        for (to, &from) in rows.iter().enumerate() {
            if from as usize >= x.rows {
                let index = from as usize;
                return Err(BackendError::OutOfRange { op: "gather", what: "row", index, len: x.rows });
            }
            out.row_mut(to).copy_from_slice(x.row(from as usize));
        }
        Ok(())
    }
}

fn project_one(x: &ReferenceTensor, projection: &mut Projection<'_, Reference>) -> Result<(), BackendError> {
    let outputs = projection.weight.source.dims[1];
    let out = &mut *projection.out;
    BackendError::expect_size("project", "output columns", out.columns, outputs)?;
    let product = multiply(x, projection.weight, 0, outputs)?;
    let bias = projection.bias.map(|bias| bias.vector("project", "bias length", outputs)).transpose()?;
    if projection.accumulate {
        BackendError::expect_size("project", "rows accumulated into", out.rows, x.rows)?;
    }
    out.set_rows("project", x.rows)?;
    for row in 0..x.rows {
        for (column, value) in out.row_mut(row).iter_mut().enumerate() {
            let before = if projection.accumulate { *value } else { 0.0 };
            *value = before + product.row(row)[column] + bias.as_ref().map_or(0.0, |b| b[column]);
        }
    }
    Ok(())
}

/// Computes `act(gate · x) ⊙ (up · x)` with `inner` rows of each weight, starting at the row beside it.
fn gated_product(
    x: &ReferenceTensor,
    gate: (&ReferenceWeight, usize),
    up: (&ReferenceWeight, usize),
    inner: usize,
    activation: Activation,
) -> Result<ReferenceTensor, BackendError> {
    let mut result = multiply(x, gate.0, gate.1, inner)?;
    let up = multiply(x, up.0, up.1, inner)?;
    for (g, u) in result.values.iter_mut().zip(&up.values) {
        *g = ops::activate(activation, *g) * u;
    }
    Ok(result)
}
