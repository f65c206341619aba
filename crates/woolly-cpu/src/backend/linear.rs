//! Products of activations with weights: one fork-join for all weights of one input.
//!
//! Up to [`MAX_COLUMNS`] rows, with wide vectors or tiles up to sixteen, with wide ones beside floats up to 32, on 256 bits fewer
//! ([`vectors::many`]), go through the matrix-vector kernels, which are bound by reading the weights: each thread begins with
//! an equal share of their bytes. More rows go through the blocked product: threads take strips of weight rows one after the
//! other.

use std::ops::Range;

use woolly_tensor::{Activation, BackendError, Norm, Projection};

use super::pieces::{Piece, Pieces};
use super::vectors::{self, Vectors};
use super::{Cpu, Lane, NormVector, norm_vector};
use crate::buffer::{AlignedVec, SharedOut};
use crate::isa::Level;
use crate::kernels::gemm::{self, Packed, TILE};
use crate::kernels::gemv::{MAX_COLUMNS, Rows};
use crate::kernels::simd::{self, TileKernel, TileSimd};
use crate::kernels::{activation, norm};
use crate::tensor::CpuTensor;
use crate::weight::CpuWeight;

/// Weights multiplied in one fork-join; more are done in several.
pub(super) const GROUP: usize = 4;

/// Most rows of decoding: more are prefill, whose scratch grows with what comes.
const MOST_FEW: usize = 16;

/// Bytes of weights below which waking other threads costs more than it gains.
const ALONE: usize = 16 << 10;

/// Buffers between the steps of a product; they grow to the largest batch and row seen.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    vectors: Vectors,
    normed: AlignedVec<f32>,
    results: AlignedVec<f32>,
    packed: Packed,
    pieces: Pieces,
    #[cfg(target_arch = "x86_64")]
    tokens: crate::kernels::gemm::amx::Tokens,
    #[cfg(target_arch = "x86_64")]
    wide: crate::kernels::gemm::avx512::Tokens,
}

impl Scratch {
    /// Makes room for decoding with tensors of this width, so that it need not allocate; what is not used takes no memory.
    pub(super) fn reserve(&mut self, threads: usize, rows: usize, columns: usize) {
        self.vectors.reserve(columns);
        self.pieces.reserve(threads);
        let len = rows.min(MOST_FEW).saturating_mul(columns);
        for buffer in [&mut self.normed, &mut self.results].into_iter().filter(|buffer| buffer.len() < len) {
            *buffer = AlignedVec::zeroed(len);
        }
    }
}

/// A matrix of activations, and the normalisation its rows are to pass through.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    /// `[rows, columns]`.
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) norm: Option<NormVector<'a>>,
}

/// One weight to multiply with, and where the result goes.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) weight: Rows<'a>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) accumulate: bool,
    /// `[rows, weight rows]`.
    pub(super) out: SharedOut<'a>,
}

pub(super) fn project(
    cpu: &Cpu,
    x: &CpuTensor,
    norm: Option<Norm<'_, Cpu>>,
    projections: &mut [Projection<'_, Cpu>],
) -> Result<(), BackendError> {
    let op = "project";
    let norm = norm_vector(op, norm, x.columns())?;
    for projection in projections.iter_mut() {
        check(x, projection)?;
    }
    let operand = Operand { values: x.values(), rows: x.rows(), columns: x.columns(), norm };
    let shared = &mut *cpu.shared();
    for group in projections.chunks_mut(GROUP) {
        let mut tasks = [None; GROUP];
        for (slot, projection) in tasks.iter_mut().zip(group.iter_mut()) {
            let bias = projection.bias.map(|b| b.vector(op, "bias length", projection.weight.rows())).transpose()?;
            *slot = Some(Task {
                weight: projection.weight.matrix(0)?,
                bias,
                accumulate: projection.accumulate,
                out: SharedOut::new(projection.out.values_mut()),
            });
        }
        products(cpu, &mut shared.linear, operand, &tasks);
    }
    Ok(())
}

/// Checks one projection and sets the rows of its output.
fn check(x: &CpuTensor, projection: &mut Projection<'_, Cpu>) -> Result<(), BackendError> {
    let (op, weight) = ("project", projection.weight);
    BackendError::expect_size(op, "input columns", x.columns(), weight.columns())?;
    BackendError::expect_size(op, "output columns", projection.out.columns(), weight.rows())?;
    BackendError::expect_size(op, "matrices of the weight", weight.matrices(), 1)?;
    if let Some(bias) = projection.bias {
        bias.vector(op, "bias length", weight.rows())?;
    }
    if projection.accumulate {
        BackendError::expect_size(op, "rows accumulated into", projection.out.rows(), x.rows())?;
    }
    projection.out.set_rows(op, x.rows())
}

pub(super) fn gated(
    cpu: &Cpu,
    x: &CpuTensor,
    norm: Option<Norm<'_, Cpu>>,
    weights: [&CpuWeight; 2],
    activation: Activation,
    out: &mut CpuTensor,
) -> Result<(), BackendError> {
    let op = "gated";
    let norm = norm_vector(op, norm, x.columns())?;
    for weight in weights {
        BackendError::expect_size(op, "input columns", x.columns(), weight.columns())?;
        BackendError::expect_size(op, "output columns", out.columns(), weight.rows())?;
        BackendError::expect_size(op, "matrices of the weight", weight.matrices(), 1)?;
    }
    let rows = [weights[0].matrix(0)?, weights[1].matrix(0)?];
    out.set_rows(op, x.rows())?;
    let operand = Operand { values: x.values(), rows: x.rows(), columns: x.columns(), norm };
    gated_products(cpu, &mut cpu.shared().linear, operand, rows, activation, SharedOut::new(out.values_mut()));
    Ok(())
}

/// Computes all tasks; sizes have been checked.
pub(super) fn products(cpu: &Cpu, scratch: &mut Scratch, x: Operand<'_>, tasks: &[Option<Task<'_>>]) {
    if x.rows == 0 {
        return;
    }
    if are_few(cpu, x.rows, tasks.iter().flatten().map(|task| task.weight)) {
        few_products(cpu, scratch, x, tasks);
    } else {
        many_products(cpu, scratch, x, tasks);
    }
}

/// Computes `out = act(gate · n(x)) ⊙ (up · n(x))`; sizes have been checked.
pub(super) fn gated_products(
    cpu: &Cpu,
    scratch: &mut Scratch,
    x: Operand<'_>,
    weights: [Rows<'_>; 2],
    activation: Activation,
    out: SharedOut<'_>,
) {
    if x.rows == 0 {
        return;
    }
    if are_few(cpu, x.rows, weights.into_iter()) {
        few_gated(cpu, scratch, x, weights, activation, out);
    } else {
        many_gated(cpu, scratch, x, weights, activation, out);
    }
}

fn few_products(cpu: &Cpu, scratch: &mut Scratch, x: Operand<'_>, tasks: &[Option<Task<'_>>]) {
    let weights = || tasks.iter().flatten().map(|task| task.weight);
    let Scratch { vectors, normed, results, pieces, .. } = scratch;
    let vectors = prepared(cpu, vectors, normed, x, weights());
    let stored = |task: &Task<'_>| if task.accumulate { x.rows * task.weight.rows } else { 0 };
    let mut results = at_least(results, tasks.iter().flatten().map(stored).sum());
    let mut targets = [None; GROUP];
    for (target, task) in targets.iter_mut().zip(tasks) {
        let Some(task) = task else { continue };
        let (own, rest) = results.split_at_mut(stored(task));
        results = rest;
        *target = Some(if task.accumulate { SharedOut::new(own) } else { task.out });
    }
    let (total, rows) = weights().fold((0, 0), |(bytes, rows), w| (bytes + w.bytes.len(), rows + w.rows));
    each_piece(cpu, pieces, (total, rows), &|piece| {
        let mut before = 0;
        for (task, target) in tasks.iter().zip(&targets) {
            let (Some(task), Some(target)) = (task, target) else { continue };
            let range = share(&task.weight, before, total, piece);
            before += task.weight.bytes.len();
            // SAFETY: pieces do not overlap, and each is computed by one thread.
            unsafe {
                vectors.multiply(cpu.level, &task.weight, range.clone(), target, task.weight.rows);
                complete(task, target, range, x.rows);
            }
        }
    });
}

/// Adds what the matrix-vector kernel leaves out: the bias, and what the output held before.
///
/// # Safety
/// No other thread accesses these weight rows' part of the output or of `result`.
unsafe fn complete(task: &Task<'_>, result: &SharedOut<'_>, range: Range<usize>, rows: usize) {
    if task.bias.is_none() && !task.accumulate {
        return;
    }
    for row in 0..rows {
        let at = row * task.weight.rows + range.start..row * task.weight.rows + range.end;
        // SAFETY: passed on from the caller; with `accumulate`, `result` is a buffer of its own.
        let out = unsafe { task.out.slice_mut(at.clone()) };
        if task.accumulate {
            // SAFETY: as above.
            let result = unsafe { result.slice_mut(at) };
            out.iter_mut().zip(result).for_each(|(out, result)| *out += *result);
        }
        add(out, task.bias.map(|bias| &bias[range.clone()]));
    }
}

#[inline(always)]
fn add(out: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

fn few_gated(
    cpu: &Cpu,
    scratch: &mut Scratch,
    x: Operand<'_>,
    weights: [Rows<'_>; 2],
    activation: Activation,
    out: SharedOut<'_>,
) {
    let inner = weights[0].rows;
    let Scratch { vectors, normed, results, pieces, .. } = scratch;
    let vectors = prepared(cpu, vectors, normed, x, weights.into_iter());
    let up = SharedOut::new(at_least(results, x.rows * inner));
    let total = weights[0].bytes.len();
    each_piece(cpu, pieces, (total, inner), &|piece| {
        let range = share(&weights[0], 0, total, piece);
        // SAFETY: pieces do not overlap, each is computed by one thread, and the two outputs are different buffers.
        unsafe {
            vectors.multiply(cpu.level, &weights[0], range.clone(), &out, inner);
            vectors.multiply(cpu.level, &weights[1], range.clone(), &up, inner);
        }
        for row in 0..x.rows {
            let at = row * inner + range.start..row * inner + range.end;
            // SAFETY: as above.
            let (gate, up) = unsafe { (out.slice_mut(at.clone()), up.slice_mut(at)) };
            activation::gate(cpu.level, activation, gate, up);
        }
    });
}

/// Whether so few rows are multiplied with these weights that reading the weights is what takes time.
fn are_few<'w>(cpu: &Cpu, rows: usize, mut weights: impl Iterator<Item = Rows<'w>>) -> bool {
    if rows <= MAX_COLUMNS {
        return !weights.any(|weight| vectors::many(cpu.level, rows, &weight));
    }
    weights.all(|weight| Vectors::together(cpu.level, rows, &weight))
}

/// Normalises the operand if need be and prepares it for all weights.
fn prepared<'a, 'w>(
    cpu: &Cpu,
    vectors: &'a mut Vectors,
    normed: &mut AlignedVec<f32>,
    x: Operand<'_>,
    weights: impl Iterator<Item = Rows<'w>>,
) -> &'a Vectors {
    let values = match x.norm {
        None => x.values,
        Some((weight, epsilon)) => {
            let normed = at_least(normed, x.values.len());
            for (from, to) in x.values.chunks_exact(x.columns.max(1)).zip(normed.chunks_exact_mut(x.columns.max(1))) {
                norm::rms_norm(cpu.level, from, weight, epsilon, to);
            }
            normed
        }
    };
    vectors.reset(x.rows, x.columns);
    for weight in weights {
        vectors.prepare(cpu.level, &weight, values);
    }
    vectors.complete(values);
    vectors
}

/// Computes all pieces of work on so many bytes and rows of weights, on all threads, or on this one alone when there is
/// little to read.
fn each_piece(cpu: &Cpu, pieces: &mut Pieces, (bytes, rows): (usize, usize), compute: &(dyn Fn(Piece) + Sync)) {
    let threads = if bytes < ALONE { 1 } else { cpu.threads() };
    pieces.reset(threads, bytes, rows, cpu.pool.sharing());
    let pieces = &*pieces;
    let work = |thread: usize| std::iter::from_fn(|| pieces.claim(thread)).for_each(compute);
    if threads == 1 { work(0) } else { cpu.pool.work(&work) }
}

/// Returns the rows of `weight` that fall into a piece of `total` bytes, of which `before` precede it.
///
/// Pieces start at multiples of 16 rows, so that no two threads write to the same cache line.
fn share(weight: &Rows<'_>, before: usize, total: usize, piece: Piece) -> Range<usize> {
    let row_bytes = (weight.bytes.len() / weight.rows.max(1)).max(1);
    let boundary = |(part, of): (usize, usize)| {
        if part == of {
            return weight.rows;
        }
        // In 128 bits: bytes times parts may exceed 64 on no machine, but the proof is not worth the saving.
        let byte = (total as u128 * part as u128 / of as u128) as usize;
        (byte.saturating_sub(before) / row_bytes).next_multiple_of(16).min(weight.rows)
    };
    boundary((piece.start, piece.of))..boundary((piece.end, piece.of))
}

fn many_products(cpu: &Cpu, scratch: &mut Scratch, x: Operand<'_>, tasks: &[Option<Task<'_>>]) {
    #[cfg(target_arch = "x86_64")]
    let tasks = &super::tiled::products(cpu, &mut scratch.tokens, x, tasks);
    #[cfg(target_arch = "x86_64")]
    let tasks = &super::panels::products(cpu, &mut scratch.wide, x, tasks);
    if tasks.iter().flatten().next().is_none() {
        return;
    }
    pack(cpu, &mut scratch.packed, x, tasks.iter().flatten().map(|task| task.weight));
    let (packed, width) = (&scratch.packed, gemm::strip_rows(cpu.level));
    let strips = |task: &Task<'_>| task.weight.rows.div_ceil(width);
    each_item(cpu, tasks.iter().flatten().map(strips).sum(), &|lane, mut index| {
        for task in tasks.iter().flatten() {
            if index >= strips(task) {
                index -= strips(task);
                continue;
            }
            let first = index * width;
            let columns = first..task.weight.rows.min(first + width);
            let form = gemm::form(cpu.level, &task.weight);
            each_tile_block(packed, &mut |tiles| {
                let Lane { panel, strips: [c, _], .. } = &mut *lane;
                let c = at_least(c, tiles.len() * TILE * width);
                gemm::product(cpu.level, (&task.weight, form), first, packed, tiles.clone(), panel, c);
                // SAFETY: a strip belongs to one thread.
                unsafe { write(cpu, task, (c, width), columns.clone(), tiles.start * TILE..x.rows) };
            });
            return;
        }
    });
}

/// Writes the results of a strip to the weight rows `columns` of the output, for the activation rows of `rows` it holds.
///
/// # Safety
/// No other thread accesses these parts of the output.
pub(super) unsafe fn write(
    cpu: &Cpu,
    task: &Task<'_>,
    (c, width): (&[f32], usize),
    columns: Range<usize>,
    rows: Range<usize>,
) {
    simd::dispatch(cpu.level, Write { task, c, width, columns, rows });
}

/// The work of [`write`]; its caller vouches for what that asks.
struct Write<'a> {
    task: &'a Task<'a>,
    c: &'a [f32],
    width: usize,
    columns: Range<usize>,
    rows: Range<usize>,
}

/// Rows of the output that are asked for ahead: each begins far from the one before, which no prefetcher foresees.
const ROWS_AHEAD: usize = 2;

impl TileKernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        let Self { task, columns, .. } = self;
        for (row, c) in self.rows.zip(self.c.chunks_exact(self.width)) {
            let start = row * task.weight.rows + columns.start;
            let ahead = task.out.as_ptr().wrapping_add(start + ROWS_AHEAD * task.weight.rows);
            (0..columns.len()).step_by(16).for_each(|i| s.prefetch_at(ahead.wrapping_add(i).cast()));
            // SAFETY: passed on from the caller of `write`.
            let out = unsafe { task.out.slice_mut(start..start + columns.len()) };
            if task.accumulate {
                out.iter_mut().zip(c).for_each(|(out, c)| *out += c);
            } else {
                out.copy_from_slice(&c[..columns.len()]);
            }
            add(out, task.bias.map(|bias| &bias[columns.clone()]));
        }
    }
}

fn many_gated(
    cpu: &Cpu,
    scratch: &mut Scratch,
    x: Operand<'_>,
    weights: [Rows<'_>; 2],
    activation: Activation,
    out: SharedOut<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    if super::tiled::gated(cpu, &mut scratch.tokens, x, weights, activation, out)
        || super::panels::gated(cpu, &mut scratch.wide, x, weights, activation, out)
    {
        return;
    }
    pack(cpu, &mut scratch.packed, x, weights.into_iter());
    let (packed, width, inner) = (&scratch.packed, gemm::strip_rows(cpu.level), weights[0].rows);
    let task = Task { weight: weights[0], bias: None, accumulate: false, out };
    each_item(cpu, inner.div_ceil(width), &|lane, index| {
        let first = index * width;
        each_tile_block(packed, &mut |tiles| {
            let Lane { panel, strips: [gate, up], .. } = &mut *lane;
            let gate = at_least(gate, tiles.len() * TILE * width);
            let up = at_least(up, tiles.len() * TILE * width);
            for (weight, c) in weights.iter().zip([&mut *gate, &mut *up]) {
                let form = gemm::form(cpu.level, weight);
                gemm::product(cpu.level, (weight, form), first, packed, tiles.clone(), panel, c);
            }
            activation::gate(cpu.level, activation, gate, up);
            // SAFETY: a strip belongs to one thread.
            unsafe { write(cpu, &task, (gate, width), first..inner.min(first + width), tiles.start * TILE..x.rows) };
        });
    });
}

/// Packs the operand, normalised, in the forms that the weights need.
fn pack<'w>(cpu: &Cpu, packed: &mut Packed, x: Operand<'_>, weights: impl Iterator<Item = Rows<'w>> + Clone) {
    packed.reset(x.rows, x.columns, weights.clone().map(|w| gemm::form(cpu.level, &w)));
    let tiles = packed.tiles();
    let chunk = tiles.div_ceil(4 * cpu.threads());
    let writer = packed.writer();
    let source = Normed { x, level: cpu.level };
    each_item(cpu, tiles.div_ceil(chunk), &|lane, index| {
        let range = index * chunk..tiles.min((index + 1) * chunk);
        // SAFETY: chunks of tiles do not overlap, and each is one thread's.
        unsafe { writer.pack(cpu.level, &source, range, &mut lane.row) };
    });
    for weight in weights {
        packed.prepare(gemm::form(cpu.level, &weight));
    }
}

pub(super) struct Normed<'a> {
    pub(super) x: Operand<'a>,
    pub(super) level: Level,
}

impl gemm::Source for Normed<'_> {
    fn row(&self, row: usize, out: &mut [f32]) {
        let from = &self.x.values[row * self.x.columns..(row + 1) * self.x.columns];
        match self.x.norm {
            Some((weight, epsilon)) => norm::rms_norm(self.level, from, weight, epsilon, out),
            None => out.copy_from_slice(from),
        }
    }

    fn plain(&self, row: usize) -> Option<&[f32]> {
        self.x.norm.is_none().then(|| &self.x.values[row * self.x.columns..(row + 1) * self.x.columns])
    }
}

/// Calls `each` with blocks of tiles that together cover the operand.
fn each_tile_block(packed: &Packed, each: &mut dyn FnMut(Range<usize>)) {
    for start in (0..packed.tiles()).step_by(gemm::BLOCK_TILES) {
        each(start..packed.tiles().min(start + gemm::BLOCK_TILES));
    }
}

/// Calls `each(scratch, item)` for items `0..n`, each on whichever thread is free, or on the one that it falls to.
pub(super) fn each_item(cpu: &Cpu, n: usize, each: &(dyn Fn(&mut Lane, usize) + Sync)) {
    let deal = cpu.pool.deal(n, 1);
    cpu.pool.work(&|thread| {
        let lane = &mut *cpu.lane(thread);
        deal.of(thread).flatten().for_each(|item| each(lane, item));
    });
}

/// Returns the first `len` elements of a buffer that grows when it is shorter.
pub(super) fn at_least(buffer: &mut AlignedVec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        *buffer = AlignedVec::zeroed(len.max(2 * buffer.len()));
    }
    &mut buffer[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Sharing;
    use woolly_quant::TensorType;

    #[test]
    fn pieces_cover_every_row_once_and_shares_are_even() {
        let bytes = vec![0; 4 * 8 * 50_000];
        let weight = |rows: usize| Rows { ty: TensorType::F32, bytes: &bytes[..rows * 32], columns: 8, rows };
        for (sizes, threads) in [([2048, 256, 256], 2), ([7, 0, 1], 3), ([50_000, 1, 40], 5), ([16, 16, 16], 64)] {
            let weights = sizes.map(weight);
            let total: usize = weights.iter().map(|w| w.bytes.len()).sum();
            let mut pieces = Pieces::default();
            pieces.reset(threads, total, sizes.iter().sum(), Sharing::default());
            let mut most = 0;
            let mut seen = sizes.map(|rows| vec![0; rows]);
            for thread in 0..threads {
                let mut own = 0;
                while let Some(piece) = pieces.claim_own(thread) {
                    let mut before = 0;
                    for (seen, w) in seen.iter_mut().zip(&weights) {
                        let range = share(w, before, total, piece);
                        (own, before) = (own + range.len(), before + w.bytes.len());
                        range.for_each(|row| seen[row] += 1);
                    }
                }
                most = most.max(own);
            }
            assert!(seen.iter().flatten().all(|&times| times == 1), "{sizes:?} over {threads}: a gap or an overlap");
            assert!(most <= sizes.iter().sum::<usize>() / threads + 3 * 16, "{sizes:?} over {threads}: {most} rows");
        }
    }
}
