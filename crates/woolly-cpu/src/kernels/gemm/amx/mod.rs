//! Products on AMX tiles: weights decoded to bfloat16 panels, accumulated in `f32`.
//!
//! Weight rows are the left operand, so that a row of any format is decoded straight into tile rows; activations, packed
//! once for all weights of an operation, are the right one. Work is cut into items: up to [`PANEL_STRIPS`] strips of
//! [`STRIP`] weight rows times up to [`TOKEN_STRIPS`] strips of [`STRIP`] tokens. A thread goes through the columns of an
//! item in pieces of [`PIECE`]; while the tiles multiply one piece, the vector units decode the next, a few blocks
//! between every four steps of the tile loop: near enough that out-of-order execution overlaps the two.
//!
//! Of one piece, a strip of tokens (32 KiB) stays in the L1 cache and the panel of weights (256 KiB) streams from L2 past
//! it. Sums stay in a block of scratch from piece to piece, exactly as the tiles held them, and the order of the columns
//! is that of the matrix: a result depends on nothing but its row and its token.

mod out;
mod pack;
#[cfg(test)]
mod tests;
mod transpose;
mod unpack;

use std::ops::Range;

use woolly_quant::TensorType;
use woolly_tensor::Activation;

use crate::buffer::{AlignedVec, SharedOut};
use crate::isa::{Amx, Tiles};
use crate::kernels::gemv::{self, Rows};
pub(crate) use pack::Tokens;
use unpack::{UNIT, Unpack};

/// Weight rows, or tokens, of two tiles side by side.
pub(crate) const STRIP: usize = 32;

/// Columns multiplied at a time.
const PIECE: usize = 512;

/// Columns of a step of the tile loop.
const COLUMNS: usize = 32;

/// Elements of a step of either operand.
const STEP: usize = Tiles::STEP;

/// Elements of a block of results: a strip of weight rows times a strip of tokens.
const BLOCK: usize = Tiles::BLOCK;

/// Most strips of weight rows in a panel.
const PANEL_STRIPS: usize = 8;

/// Most strips of tokens that a decoded panel is multiplied with.
const TOKEN_STRIPS: usize = 16;

/// Whether `weight` is multiplied here: it is of a type that gains and loses nothing that matters.
///
/// Whoever keeps a matrix in single precision, such as the router of a mixture, wants it; and small matrices get the
/// full precision of [`gemv::exact`].
pub(crate) fn takes(weight: &Rows<'_>) -> bool {
    use TensorType::*;
    !matches!(weight.ty, F32 | F64 | I8 | I16 | I32 | I64) && !gemv::exact(weight)
}

/// A weight to multiply with, and where the result goes.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) weight: Rows<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    /// Whether the product is added to what the output holds.
    pub(crate) accumulate: bool,
    /// `[tokens, weight rows]`.
    pub(crate) out: SharedOut<'a>,
}

/// The products of one input with all weights of an operation.
pub(crate) struct Operation<'a> {
    /// Weights with outputs of their own; with an activation two of the same shape, gate and up, and one output: the
    /// first's.
    targets: &'a [Target<'a>],
    activation: Option<Activation>,
    x: &'a Tokens,
    /// Strips of a panel.
    panel: usize,
    /// Strips of tokens of an item.
    tokens: usize,
}

/// Up to [`STRIP`] rows of one weight.
#[derive(Clone, Copy)]
struct Strip {
    target: usize,
    first: usize,
    rows: usize,
}

impl<'a> Operation<'a> {
    /// Cuts the products of `x` with all `targets` into items for `threads` threads.
    pub(crate) fn new(
        targets: &'a [Target<'a>],
        activation: Option<Activation>,
        x: &'a Tokens,
        threads: usize,
    ) -> Self {
        let strips: usize = targets.iter().map(|t| t.weight.rows.div_ceil(STRIP)).sum();
        // As many items for every thread, as large as possible; gate and up stay together.
        let rounds = strips.div_ceil(PANEL_STRIPS * threads);
        let panel = strips.div_ceil((rounds * threads).max(1)).next_multiple_of(2).clamp(2, PANEL_STRIPS);
        let blocks = x.strips().div_ceil(TOKEN_STRIPS).max(1);
        Self { targets, activation, x, panel, tokens: x.strips().div_ceil(blocks).max(1) }
    }

    /// Returns the number of items.
    pub(crate) fn items(&self) -> usize {
        self.strips().div_ceil(self.panel) * self.x.strips().div_ceil(self.tokens)
    }

    fn strips(&self) -> usize {
        self.targets.iter().map(|t| t.weight.rows.div_ceil(STRIP)).sum()
    }

    fn item(&self, index: usize) -> Item {
        let blocks = self.x.strips().div_ceil(self.tokens);
        let (panel, block) = (index / blocks * self.panel, index % blocks * self.tokens);
        Item {
            strips: panel..self.strips().min(panel + self.panel),
            tokens: block..self.x.strips().min(block + self.tokens),
        }
    }

    fn strip(&self, index: usize) -> Strip {
        let of = |target: usize, index: usize| {
            let first = index * STRIP;
            Strip { target, first, rows: STRIP.min(self.targets[target].weight.rows - first) }
        };
        if self.activation.is_some() {
            return of(index % 2, index / 2);
        }
        let mut index = index;
        for (target, each) in self.targets.iter().enumerate() {
            let strips = each.weight.rows.div_ceil(STRIP);
            if index < strips {
                return of(target, index);
            }
            index -= strips;
        }
        unreachable!("an item's strips are those of its operation")
    }

    /// Computes the items that `claim` hands out, one after the other, until it has no more.
    pub(crate) fn work(&self, amx: Amx, scratch: &mut Scratch, claim: &dyn Fn() -> Option<usize>) {
        let Some(first) = claim() else { return };
        scratch.prepare(self);
        let tiles = amx.tiles();
        let mut stage = Stage { item: self.item(first), piece: 0 };
        let Scratch { panels: [current, next], sums, blocks } = scratch;
        let (mut current, mut next) = (&mut **current, &mut **next);
        Feeder::new(self, &stage, current).finish();
        loop {
            let following = match stage.piece + 1 < self.x.pieces() {
                true => Some(Stage { item: stage.item.clone(), piece: stage.piece + 1 }),
                false => claim().map(|index| Stage { item: self.item(index), piece: 0 }),
            };
            let mut feeder = match &following {
                Some(following) => Feeder::new(self, following, next),
                None => Feeder::done(self, next),
            };
            // SAFETY: `amx` proves the instructions.
            unsafe { self.multiply(&tiles, &stage, current, sums, blocks, &mut feeder) };
            feeder.finish();
            let Some(following) = following else { return };
            stage = following;
            std::mem::swap(&mut current, &mut next);
        }
    }

    /// Multiplies one piece of an item, `panel`, while `feeder` decodes the next one.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,avx2,fma,f16c")]
    fn multiply(
        &self,
        tiles: &Tiles,
        stage: &Stage,
        panel: &[u16],
        sums: &mut [f32],
        blocks: &mut [f32],
        feeder: &mut Feeder<'_>,
    ) {
        let steps = self.x.steps(stage.piece);
        let last = stage.piece + 1 == self.x.pieces();
        let count = stage.item.strips.len();
        let pauses = stage.item.tokens.len() * count * steps.div_ceil(PAUSE);
        let each = feeder.left.div_ceil(pauses);
        assert!(panel.len() >= count * steps * STEP && blocks.len() >= 2 * BLOCK);
        assert!(self.x.pieces() == 1 || sums.len() >= stage.item.tokens.len() * count * BLOCK);
        for (t, strip) in stage.item.tokens.clone().enumerate() {
            let right = self.x.strip(stage.piece, strip);
            let narrow = self.x.rows() - strip * STRIP <= STRIP / 2;
            for r in 0..count {
                let sums = sums[(t * count + r) * BLOCK * usize::from(self.x.pieces() > 1)..].as_mut_ptr();
                let left = panel[r * steps * STEP..].as_ptr();
                // SAFETY: the operands hold `steps` steps, the sums and blocks a block of results, by the assertions and
                // the layout of the tokens.
                unsafe {
                    match stage.piece {
                        0 => tiles.zero(),
                        _ => tiles.load(sums),
                    }
                    steps_with_pauses(tiles, (left, right.as_ptr()), steps, narrow, &mut || feeder.feed(each));
                    if last {
                        let block = &mut blocks[r % 2 * BLOCK..];
                        tiles.store(block.as_mut_ptr());
                        self.finish(stage.item.strips.start + r, strip, blocks);
                    } else {
                        tiles.store(sums);
                    }
                }
            }
        }
    }

    /// Writes a finished block to the output; with an activation, only when gate and up are both there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,avx2,fma,f16c")]
    unsafe fn finish(&self, strip: usize, tokens: usize, blocks: &mut [f32]) {
        let Strip { target, first, rows } = self.strip(strip);
        let tokens = tokens * STRIP..self.x.rows().min((tokens + 1) * STRIP);
        let (even, odd) = blocks[..2 * BLOCK].split_at_mut(BLOCK);
        match self.activation {
            None => {
                let block = if strip.is_multiple_of(2) { even } else { odd };
                // SAFETY: an item belongs to one thread, and the rows and tokens are those of the block.
                unsafe { out::write(&self.targets[target], first..first + rows, tokens, block) };
            }
            Some(activation) if target == 1 => {
                out::gate(activation, even, odd);
                // SAFETY: as above.
                unsafe { out::write(&self.targets[0], first..first + rows, tokens, even) };
            }
            Some(_) => {}
        }
    }
}

/// Steps of the tile loop between two pauses, in which the feeder decodes.
const PAUSE: usize = 4;

/// Multiplies `steps` steps, calling `pause` after every [`PAUSE`] of them.
///
/// # Safety
/// Both operands hold `steps` steps.
#[inline(always)]
unsafe fn steps_with_pauses(
    tiles: &Tiles,
    (mut left, mut right): (*const u16, *const u16),
    steps: usize,
    narrow: bool,
    pause: &mut impl FnMut(),
) {
    let mut left_over = steps;
    // SAFETY: passed on from the caller; the pointers advance once a step.
    unsafe {
        while left_over >= PAUSE {
            for step in 0..PAUSE {
                let (left, right) = (left.add(step * STEP), right.add(step * STEP));
                if narrow { tiles.narrow_step(left, right) } else { tiles.step(left, right) }
            }
            (left, right) = (left.add(PAUSE * STEP), right.add(PAUSE * STEP));
            left_over -= PAUSE;
            pause();
        }
        for step in 0..left_over {
            let (left, right) = (left.add(step * STEP), right.add(step * STEP));
            if narrow { tiles.narrow_step(left, right) } else { tiles.step(left, right) }
        }
        if left_over > 0 {
            pause();
        }
    }
}

/// A panel's strips and the strips of tokens it is multiplied with.
#[derive(Clone)]
struct Item {
    strips: Range<usize>,
    tokens: Range<usize>,
}

/// One piece of the columns of an item.
struct Stage {
    item: Item,
    piece: usize,
}

/// Decodes the weights of a stage into a panel, a unit of up to [`UNIT`] columns of a row at a time.
///
/// The panel is `[strip][step][2][16 rows][32 columns]`. Rows that do not exist keep what they held: their results are
/// never read.
struct Feeder<'a> {
    operation: &'a Operation<'a>,
    panel: &'a mut [u16],
    strips: Range<usize>,
    piece: usize,
    steps: usize,
    /// Units not yet decoded.
    left: usize,
    /// The next unit: its row in the current strip, and its place in the row.
    row: usize,
    unit: usize,
    current: Current<'a>,
}

/// What a feeder knows of its current strip.
struct Current<'a> {
    rows: usize,
    /// The bytes of the strip's rows.
    bytes: &'a [u8],
    row_bytes: usize,
    /// Where in a row the piece starts.
    start: usize,
    unit_bytes: usize,
    ty: TensorType,
    unpack: Unpack,
    /// Where in the panel the strip starts.
    to: usize,
}

impl<'a> Feeder<'a> {
    fn new(operation: &'a Operation<'a>, stage: &Stage, panel: &'a mut [u16]) -> Self {
        let steps = operation.x.steps(stage.piece);
        let units = (steps * COLUMNS).div_ceil(UNIT);
        let strips = stage.item.strips.clone();
        assert!(panel.len() >= strips.len() * steps * STEP, "a panel holds all strips of its item");
        let left = strips.clone().map(|strip| operation.strip(strip).rows * units).sum();
        let current = Current::new(operation, strips.start, stage.piece, 0);
        Self { operation, panel, strips, piece: stage.piece, steps, left, row: 0, unit: 0, current }
    }

    /// A feeder with nothing to do.
    fn done(operation: &'a Operation<'a>, panel: &'a mut [u16]) -> Self {
        let current = Current::new(operation, 0, 0, 0);
        Self { operation, panel, strips: 0..0, piece: 0, steps: 0, left: 0, row: 0, unit: 0, current }
    }

    fn finish(&mut self) {
        self.feed(self.left);
    }

    /// Decodes the next `units` units, or those that are left.
    #[inline]
    fn feed(&mut self, units: usize) {
        for _ in 0..units.min(self.left) {
            self.one();
        }
    }

    #[inline]
    fn one(&mut self) {
        let Current { bytes, row_bytes, start, unit_bytes, ty, unpack, to, rows } = self.current;
        let columns = self.operation.x.columns() - self.piece * PIECE - self.unit * UNIT;
        let columns = columns.min(UNIT).min(PIECE - self.unit * UNIT);
        let from = &bytes[self.row * row_bytes + start + self.unit * unit_bytes..(self.row + 1) * row_bytes];
        let to = to + self.unit * UNIT * STRIP + self.row * COLUMNS;
        let to = &mut self.panel[to..];
        debug_assert!(to.len() >= (columns.div_ceil(COLUMNS) - 1) * STEP + COLUMNS);
        // SAFETY: the row goes on for `columns` columns, and the panel has a step for each 32 of them. That the
        // instructions are there is proved by the tiles of the thread.
        unsafe { unpack(ty, from.as_ptr(), columns, to.as_mut_ptr()) };
        self.left -= 1;
        self.unit += 1;
        if self.unit * UNIT < self.steps * COLUMNS {
            return;
        }
        (self.unit, self.row) = (0, self.row + 1);
        if self.row == rows && self.left > 0 {
            self.row = 0;
            self.strips.start += 1;
            let to = self.current.to + self.steps * STEP;
            self.current = Current::new(self.operation, self.strips.start, self.piece, to);
        }
    }
}

impl<'a> Current<'a> {
    fn new(operation: &'a Operation<'a>, strip: usize, piece: usize, to: usize) -> Self {
        let Strip { target, first, rows } = operation.strip(strip);
        let weight = &operation.targets[target].weight;
        let row_bytes = weight.bytes.len() / weight.rows;
        let bytes_of = |columns: usize| columns / weight.ty.block_elements() * weight.ty.block_bytes();
        Self {
            rows,
            bytes: &weight.bytes[first * row_bytes..(first + rows) * row_bytes],
            row_bytes,
            start: bytes_of(piece * PIECE),
            unit_bytes: bytes_of(UNIT),
            ty: weight.ty,
            unpack: unpack::of(weight.ty),
            to,
        }
    }
}

/// Scratch of one thread: everything in it is overwritten before it is read.
pub(crate) struct Scratch {
    panels: [AlignedVec<u16>; 2],
    /// Sums between pieces: `[token strip][strip][block]`.
    sums: AlignedVec<f32>,
    blocks: AlignedVec<f32>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { panels: [0; 2].map(AlignedVec::zeroed), sums: AlignedVec::zeroed(0), blocks: AlignedVec::zeroed(0) }
    }

    /// Makes room for the items of `operation`.
    fn prepare(&mut self, operation: &Operation<'_>) {
        if self.blocks.is_empty() {
            self.panels = [PANEL_STRIPS * STRIP * PIECE; 2].map(AlignedVec::zeroed);
            self.blocks = AlignedVec::zeroed(2 * BLOCK);
        }
        let sums = operation.tokens * operation.panel * BLOCK;
        if operation.x.pieces() > 1 && self.sums.len() < sums {
            self.sums = AlignedVec::zeroed(sums);
        }
    }
}
