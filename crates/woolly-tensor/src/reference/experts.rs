//! Mixture of experts by definition: route each row, then add its experts one after the other.

use super::{Reference, ReferenceTensor, gated_product, multiply};
use crate::{Backend, BackendError, Experts, Gating, ops};

/// Sum below which renormalisation stops dividing, as the reference implementation of Mixtral clamps it.
const SMALLEST_SUM: f32 = 6.103_515_6e-5;

pub(super) fn add(
    x: &ReferenceTensor,
    experts: &Experts<'_, Reference>,
    out: &mut ReferenceTensor,
) -> Result<(), BackendError> {
    let [inputs, inner, count] = experts.gate.source.dims;
    let sizes = [
        ("input columns", x.columns, inputs),
        ("output columns", out.columns, inputs),
        ("output rows", out.rows, x.rows),
        ("router outputs", experts.router.source.dims[1], count),
        ("rows of up", experts.up.source.dims[1], inner),
        ("experts of up", experts.up.source.dims[2], count),
        ("columns of down", experts.down.source.dims[0], inner),
        ("rows of down", experts.down.source.dims[1], inputs),
        ("experts of down", experts.down.source.dims[2], count),
        ("experts used", experts.used.clamp(1, count.max(1)), experts.used),
    ];
    for (what, found, expected) in sizes {
        BackendError::expect_size("experts", what, found, expected)?;
    }
    let router = multiply(x, experts.router, 0, count)?;
    for row in 0..x.rows {
        let input = ReferenceTensor { values: x.row(row).to_vec(), rows: 1, columns: x.columns, max_rows: 1 };
        for (expert, weight) in experts.choose(router.row(row)) {
            let rows = expert * inner;
            let hidden = gated_product(&input, (experts.gate, rows), (experts.up, rows), inner, experts.activation)?;
            let result = multiply(&hidden, experts.down, expert * inputs, inputs)?;
            for (o, r) in out.row_mut(row).iter_mut().zip(result.row(0)) {
                *o += weight * r;
            }
        }
    }
    Ok(())
}

impl<B: Backend> Experts<'_, B> {
    /// Returns the experts that one row's router outputs choose, with their weights, best first; ties go to the lower
    /// number. What every backend's choice must equal.
    pub fn choose(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let mut weights = logits.to_vec();
        match self.gating {
            Gating::Softmax => ops::softmax(&mut weights),
            Gating::Sigmoid => weights.iter_mut().for_each(|w| *w = ops::sigmoid(*w)),
        }
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        order.truncate(self.used);
        let sum: f32 = order.iter().map(|&e| weights[e]).sum();
        let divisor = if self.renormalise { sum.max(SMALLEST_SUM) } else { 1.0 };
        order.into_iter().map(|e| (e, weights[e] / divisor * self.scale)).collect()
    }
}
