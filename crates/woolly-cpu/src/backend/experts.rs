//! Mixtures of experts: route, group the rows by expert, run each expert once on its rows, add up.

use woolly_tensor::{BackendError, Experts, Gating, Norm, ops};

use super::linear::{self, Operand, Task, at_least};
use super::{Cpu, Shared, norm_vector};
use crate::buffer::{AlignedVec, SharedOut};
use crate::kernels::norm::rms_norm;
use crate::tensor::CpuTensor;

/// Sum below which renormalisation stops dividing: 2⁻¹⁴, as the contract says.
const SMALLEST_SUM: f32 = 6.103_515_6e-5;

/// Buffers between the steps; they grow to the largest batch seen.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: AlignedVec<f32>,
    /// `[rows, experts]`.
    logits: AlignedVec<f32>,
    choices: Vec<Choice>,
    order: Vec<usize>,
    /// Input, inner and output rows of one expert.
    gathered: AlignedVec<f32>,
    inner: AlignedVec<f32>,
    result: AlignedVec<f32>,
}

/// A row's share of an expert.
#[derive(Clone, Copy, Debug)]
struct Choice {
    expert: usize,
    row: usize,
    weight: f32,
}

pub(super) fn add(
    cpu: &Cpu,
    x: &CpuTensor,
    norm: Option<Norm<'_, Cpu>>,
    experts: &Experts<'_, Cpu>,
    out: &mut CpuTensor,
) -> Result<(), BackendError> {
    check(x, experts, out)?;
    let norm = norm_vector("experts", norm, x.columns())?;
    let shared = &mut *cpu.shared();
    let columns = x.columns();
    let values = match norm {
        None => x.values(),
        Some((weight, epsilon)) => {
            let normed = at_least(&mut shared.experts.normed, x.values().len());
            cpu.each_row(columns, normed, &|row, to| rms_norm(cpu.level, x.row(row), weight, epsilon, to));
            &shared.experts.normed[..x.values().len()]
        }
    };
    let Shared { linear, experts: Scratch { logits, choices, order, gathered, inner, result, .. }, .. } = shared;
    let count = experts.gate.matrices();
    let logits = at_least(logits, x.rows() * count);
    let router = Task { weight: experts.router.matrix(0)?, bias: None, accumulate: false, out: SharedOut::new(logits) };
    let operand = Operand { values, rows: x.rows(), columns, norm: None };
    linear::products(cpu, linear, operand, &[Some(router)]);
    choices.clear();
    for (row, logits) in logits.chunks_exact_mut(count).enumerate() {
        choose(logits, experts, row, order, choices);
    }
    // Rows of an expert stay in order, and each row adds its experts by number: the sum depends on nothing else.
    choices.sort_unstable_by_key(|choice| (choice.expert, choice.row));
    for own in choices.chunk_by(|a, b| a.expert == b.expert) {
        let rows = own.len();
        let gathered = at_least(gathered, rows * columns);
        for (to, choice) in gathered.chunks_exact_mut(columns).zip(own) {
            to.copy_from_slice(&values[choice.row * columns..(choice.row + 1) * columns]);
        }
        let expert = own[0].expert;
        let inner = at_least(inner, rows * experts.gate.rows());
        let operand = Operand { values: gathered, rows, columns, norm: None };
        let weights = [experts.gate.matrix(expert)?, experts.up.matrix(expert)?];
        linear::gated_products(cpu, linear, operand, weights, experts.activation, SharedOut::new(inner));
        let result = at_least(result, rows * columns);
        let down =
            Task { weight: experts.down.matrix(expert)?, bias: None, accumulate: false, out: SharedOut::new(result) };
        let operand = Operand { values: inner, rows, columns: experts.gate.rows(), norm: None };
        linear::products(cpu, linear, operand, &[Some(down)]);
        for (from, choice) in result.chunks_exact(columns).zip(own) {
            let to = &mut out.values_mut()[choice.row * columns..(choice.row + 1) * columns];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += choice.weight * from);
        }
    }
    Ok(())
}

fn check(x: &CpuTensor, experts: &Experts<'_, Cpu>, out: &CpuTensor) -> Result<(), BackendError> {
    let (inputs, inner, count) = (experts.gate.columns(), experts.gate.rows(), experts.gate.matrices());
    let sizes = [
        ("input columns", x.columns(), inputs),
        ("output columns", out.columns(), inputs),
        ("output rows", out.rows(), x.rows()),
        ("router inputs", experts.router.columns(), inputs),
        ("router outputs", experts.router.rows(), count),
        ("router matrices", experts.router.matrices(), 1),
        ("columns of up", experts.up.columns(), inputs),
        ("rows of up", experts.up.rows(), inner),
        ("experts of up", experts.up.matrices(), count),
        ("columns of down", experts.down.columns(), inner),
        ("rows of down", experts.down.rows(), inputs),
        ("experts of down", experts.down.matrices(), count),
        ("experts", count, count.max(1)),
        ("columns", inputs, inputs.max(1)),
        ("experts used", experts.used.clamp(1, count.max(1)), experts.used),
    ];
    sizes
        .into_iter()
        .try_for_each(|(what, found, expected)| BackendError::expect_size("experts", what, found, expected))
}

/// Appends the chosen experts of one row with their weights; among equals, the lower numbers win.
fn choose(
    logits: &mut [f32],
    experts: &Experts<'_, Cpu>,
    row: usize,
    order: &mut Vec<usize>,
    choices: &mut Vec<Choice>,
) {
    match experts.gating {
        Gating::Sigmoid => logits.iter_mut().for_each(|x| *x = ops::sigmoid(*x)),
        _ => ops::softmax(logits),
    }
    order.clear();
    order.extend(0..logits.len());
    order.sort_unstable_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(experts.used);
    let sum: f32 = order.iter().map(|&expert| logits[expert]).sum();
    let divisor = if experts.renormalise { sum.max(SMALLEST_SUM) } else { 1.0 };
    let weight = |expert: usize| logits[expert] / divisor * experts.scale;
    choices.extend(order.iter().map(|&expert| Choice { expert, row, weight: weight(expert) }));
}
