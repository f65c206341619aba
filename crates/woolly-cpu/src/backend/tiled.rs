//! Products of many rows on AMX tiles, for the weights that are multiplied there.

use std::cell::RefCell;

use woolly_tensor::Activation;

use super::Cpu;
use super::linear::{GROUP, Normed, Operand, Task, each_item};
use crate::buffer::SharedOut;
use crate::isa::{Amx, Level};
use crate::kernels::gemm::amx::{Operation, Target, Tokens, takes};
use crate::kernels::gemv::Rows;

/// Returns the proof that tiles can be used, if they are to be.
fn amx(cpu: &Cpu) -> Option<Amx> {
    if cpu.level >= Level::Amx { Amx::new() } else { None }
}

/// Computes the tasks whose weights are multiplied on tiles and returns the others.
pub(super) fn products<'a>(
    cpu: &Cpu,
    tokens: &mut Tokens,
    x: Operand<'_>,
    tasks: &[Option<Task<'a>>],
) -> [Option<Task<'a>>; GROUP] {
    let mut rest = [None; GROUP];
    rest[..tasks.len()].copy_from_slice(tasks);
    let Some(amx) = amx(cpu) else { return rest };
    let own = rest.each_mut().map(|task| task.take_if(|task| takes(&task.weight)));
    let mut targets = own.iter().flatten().map(target);
    let Some(first) = targets.next() else { return rest };
    let mut list = [first; GROUP];
    let mut count = 1;
    for target in targets {
        list[count] = target;
        count += 1;
    }
    pack(cpu, amx, tokens, x);
    run(cpu, amx, &Operation::new(&list[..count], None, tokens, cpu.threads()));
    rest
}

fn target<'a>(task: &Task<'a>) -> Target<'a> {
    Target { weight: task.weight, bias: task.bias, accumulate: task.accumulate, out: task.out }
}

/// Computes `out = act(gate · x) ⊙ (up · x)` when both weights are multiplied on tiles; returns whether they were.
pub(super) fn gated(
    cpu: &Cpu,
    tokens: &mut Tokens,
    x: Operand<'_>,
    weights: [Rows<'_>; 2],
    activation: Activation,
    out: SharedOut<'_>,
) -> bool {
    let Some(amx) = amx(cpu) else { return false };
    if !weights.iter().all(takes) {
        return false;
    }
    pack(cpu, amx, tokens, x);
    let targets = weights.map(|weight| Target { weight, bias: None, accumulate: false, out });
    run(cpu, amx, &Operation::new(&targets, Some(activation), tokens, cpu.threads()));
    true
}

fn pack(cpu: &Cpu, amx: Amx, tokens: &mut Tokens, x: Operand<'_>) {
    tokens.reset(x.rows, x.columns);
    let (tiles, source) = (tokens.tiles(), Normed { x, level: cpu.level });
    let writer = tokens.writer();
    each_item(cpu, tiles, &|lane, tile| {
        // SAFETY: every tile is one thread's.
        unsafe { writer.pack(amx, &source, tile, &mut lane.row) };
    });
}

fn run(cpu: &Cpu, amx: Amx, operation: &Operation<'_>) {
    let deal = cpu.pool.deal(operation.items(), 1);
    cpu.pool.work(&|thread| {
        let items = RefCell::new(deal.of(thread).flatten());
        operation.work(amx, &mut cpu.lane(thread).tiled, &|| items.borrow_mut().next());
    });
}
