//! Products of many rows on AVX-512, for the weights that are multiplied there as integers or as pairs of bfloat16.

use std::ops::Range;

use woolly_tensor::Activation;

use super::linear::{GROUP, Normed, Operand, Task, at_least, each_item, write};
use super::{Cpu, Lane};
use crate::buffer::SharedOut;
use crate::kernels::activation;
use crate::kernels::gemm::BLOCK_TILES;
use crate::kernels::gemm::avx512::{How, ROWS, STRIP, TILE, Tokens, product, takes};
use crate::kernels::gemv::Rows;

/// Strips for each thread below which they are made narrower, so that threads finish at the same time.
const STRIPS_EACH: usize = 4;

/// Computes the tasks whose weights are multiplied here and returns the others.
pub(super) fn products<'a>(
    cpu: &Cpu,
    tokens: &mut Tokens,
    x: Operand<'_>,
    tasks: &[Option<Task<'a>>],
) -> [Option<Task<'a>>; GROUP] {
    let mut rest = [None; GROUP];
    rest[..tasks.len()].copy_from_slice(tasks);
    let own = rest.each_mut().map(|task| task.take_if(|task| takes(cpu.level, &task.weight, x.rows).is_some()));
    let ways = || own.iter().flatten().filter_map(|task| Some(takes(cpu.level, &task.weight, x.rows)?.1));
    if ways().next().is_none() {
        return rest;
    }
    pack(cpu, tokens, x, ways());
    let tokens = &*tokens;
    let width = width(cpu, own.iter().flatten().map(|task| task.weight.rows).sum());
    let strips = |task: &Task<'_>| task.weight.rows.div_ceil(width);
    each_item(cpu, own.iter().flatten().map(strips).sum(), &|lane, mut index| {
        for task in own.iter().flatten() {
            if index >= strips(task) {
                index -= strips(task);
                continue;
            }
            let first = index * width;
            each_block(tokens, &mut |tiles| {
                let c = strip(cpu, lane, 0, &task.weight, (first, width), tokens, tiles.clone());
                let columns = first..task.weight.rows.min(first + width);
                for (tile, c) in tiles.zip(c.chunks_exact(TILE * width)) {
                    // SAFETY: a strip belongs to one thread.
                    unsafe { write(cpu, task, (c, width), columns.clone(), tokens.of_tile(tile)) };
                }
            });
            return;
        }
    });
    rest
}

/// Computes `out = act(gate · x) ⊙ (up · x)` when both weights are multiplied here; returns whether they were.
pub(super) fn gated(
    cpu: &Cpu,
    tokens: &mut Tokens,
    x: Operand<'_>,
    weights: [Rows<'_>; 2],
    activation: Activation,
    out: SharedOut<'_>,
) -> bool {
    let [Some((_, gate)), Some((_, up))] = weights.map(|weight| takes(cpu.level, &weight, x.rows)) else {
        return false;
    };
    pack(cpu, tokens, x, [gate, up].into_iter());
    let (tokens, inner) = (&*tokens, weights[0].rows);
    let width = width(cpu, inner);
    let task = Task { weight: weights[0], bias: None, accumulate: false, out };
    each_item(cpu, inner.div_ceil(width), &|lane, index| {
        let first = index * width;
        each_block(tokens, &mut |tiles| {
            for (i, weight) in weights.iter().enumerate() {
                strip(cpu, lane, i, weight, (first, width), tokens, tiles.clone());
            }
            let [gate, up] = lane.strips.each_mut().map(|strip| strip.chunks_exact_mut(TILE * width));
            for (tile, (gate, up)) in tiles.zip(gate.zip(up)) {
                let of_tile = tokens.of_tile(tile);
                let len = of_tile.len() * width;
                activation::gate(cpu.level, activation, &mut gate[..len], &up[..len]);
                // SAFETY: a strip belongs to one thread.
                unsafe { write(cpu, &task, (gate, width), first..inner.min(first + width), of_tile) };
            }
        });
    });
    true
}

/// Returns the number of weight rows of a strip when there are `rows`.
fn width(cpu: &Cpu, rows: usize) -> usize {
    (rows / (STRIPS_EACH * cpu.threads()) / ROWS * ROWS).clamp(ROWS, STRIP)
}

/// Computes one strip for a block of tiles, in the thread's result `which`.
fn strip<'a>(
    cpu: &Cpu,
    lane: &'a mut Lane,
    which: usize,
    weight: &Rows<'_>,
    (first, width): (usize, usize),
    tokens: &Tokens,
    tiles: Range<usize>,
) -> &'a [f32] {
    let taken = takes(cpu.level, weight, tokens.rows()).expect("only weights that are taken get here");
    let c = at_least(&mut lane.strips[which], tiles.len() * TILE * width);
    product(taken, weight, first, tokens, tiles, &mut lane.wide, c);
    c
}

/// Packs the operand, normalised, for weights that are multiplied in these ways.
fn pack(cpu: &Cpu, tokens: &mut Tokens, x: Operand<'_>, ways: impl Iterator<Item = How>) {
    let Some(simd) = crate::isa::Avx512::new() else { return };
    tokens.reset(x.rows, x.columns);
    ways.for_each(|how| tokens.want(how));
    let (tiles, source) = (tokens.tiles(), Normed { x, level: cpu.level });
    let writer = tokens.writer();
    each_item(cpu, tiles, &|lane, tile| {
        // SAFETY: every tile is one thread's.
        unsafe { writer.pack(simd, &source, tile, &mut lane.row) };
    });
}

/// Calls `each` with blocks of tiles that together cover the operand.
fn each_block(tokens: &Tokens, each: &mut dyn FnMut(Range<usize>)) {
    for start in (0..tokens.tiles()).step_by(BLOCK_TILES) {
        each(start..tokens.tiles().min(start + BLOCK_TILES));
    }
}
