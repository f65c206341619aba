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
mod unpack;

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use woolly_quant::TensorType;
use woolly_tensor::Activation;

use crate::buffer::{AlignedVec, SharedOut};
use crate::isa::{Amx, Tiles};
use crate::kernels::gemv::{self, Rows};
use out::Drain;
pub(crate) use pack::Tokens;
use unpack::{PART, UNIT, Unit, Unpack};

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

    /// Returns the columns of a piece.
    fn columns(&self, piece: usize) -> usize {
        PIECE.min(self.x.columns() - piece * PIECE)
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
        let Scratch { panels: [current, next], sums, results } = scratch;
        let (mut current, mut next) = (&mut **current, &mut **next);
        let mut drain = Drain::done(self);
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
            unsafe { self.multiply(&tiles, &stage, current, (sums, results), (&mut feeder, &mut drain)) };
            feeder.finish();
            let Some(following) = following else { break };
            stage = following;
            std::mem::swap(&mut current, &mut next);
        }
        // SAFETY: `amx` proves the instructions; an item is one thread's.
        unsafe { drain.write(drain.left(), results) };
    }

    /// Multiplies one piece of an item, `panel`, while `feeder` decodes the next one and `drain` writes what is finished.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,avx2,fma,f16c")]
    fn multiply<'s>(
        &'s self,
        tiles: &Tiles,
        stage: &Stage,
        panel: &[u16],
        (sums, results): (&mut [f32], &mut [f32]),
        (feeder, drain): (&mut Feeder<'_>, &mut Drain<'s>),
    ) {
        let (steps, count) = (self.x.steps(stage.piece), stage.item.strips.len());
        let (last, several) = (stage.piece + 1 == self.x.pieces(), self.x.pieces() > 1);
        let pauses = count * steps;
        let each = feeder.left.div_ceil(stage.item.tokens.len() * pauses);
        assert!(panel.len() >= count * steps * STEP && results.len() >= out::BUFFERS);
        assert!(!several || sums.len() >= stage.item.tokens.len() * count * BLOCK);
        for (t, tokens) in stage.item.tokens.clone().enumerate() {
            let right = self.x.strip(stage.piece, tokens).as_ptr();
            // What the next strip of tokens needs is asked for evenly, 64 bytes at a time. Beyond the last, that is harmless.
            let mut ahead = right.wrapping_add(steps * STEP);
            let lines = (STEP / LINE).div_ceil(count);
            let narrow = self.x.rows() - tokens * STRIP <= STRIP / 2;
            let mut pause = |drain: &mut Drain<'_>, results: &[f32]| {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line * LINE).cast());
                }
                ahead = ahead.wrapping_add(lines * LINE);
                feeder.feed(each);
                if drain.left() > 0 {
                    // SAFETY: its blocks are finished. An item is one thread's, and so is its part of the output.
                    unsafe { drain.write(drain.each, results) };
                }
            };
            for r in 0..count {
                let left = panel[r * steps * STEP..].as_ptr();
                // SAFETY: the operands hold `steps` steps, sums and results a block for each strip, by the assertions
                // and the layout of the tokens.
                unsafe {
                    let sums = sums.as_mut_ptr().add(if several { (t * count + r) * BLOCK } else { 0 });
                    match stage.piece {
                        0 => tiles.zero(),
                        _ => tiles.load(sums),
                    }
                    if narrow {
                        for step in 0..steps {
                            tiles.narrow_step(left.add(step * STEP), right.add(step * STEP));
                            pause(drain, results);
                        }
                    } else {
                        for step in 0..steps {
                            tiles.step(left.add(step * STEP), right.add(step * STEP));
                            pause(drain, results);
                        }
                    }
                    if !last {
                        tiles.store(sums);
                        continue;
                    }
                    let index = stage.item.strips.start + r;
                    let second = self.activation.is_some() && !index.is_multiple_of(2);
                    tiles.store(results[drain.free(second)..].as_mut_ptr());
                    if self.activation.is_none() || second {
                        drain.write(drain.left(), results);
                        let strip =
                            Strip { target: if second { 0 } else { self.strip(index).target }, ..self.strip(index) };
                        drain.start(self, strip, tokens, steps << usize::from(second));
                    }
                }
            }
        }
    }
}

/// bfloat16 numbers of a cache line.
const LINE: usize = 32;

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

/// Decodes the weights of a stage into a panel, [`PART`] columns of a row at a time.
///
/// The panel is `[strip][step][2][16 rows][32 columns]`. Rows that do not exist keep what they held: their results are
/// never read.
struct Feeder<'a> {
    operation: &'a Operation<'a>,
    panel: &'a mut [u16],
    /// Strips from the current one on, and the place of the current one in the panel.
    strips: Range<usize>,
    to: usize,
    piece: usize,
    /// Parts not yet decoded.
    left: usize,
    /// The next part, of how many in its unit.
    part: usize,
    parts: usize,
    unpack: Unpack,
    unit: Unit,
    row: Row<'a>,
}

/// A row of weights that is being decoded, and those of its strip that follow.
struct Row<'a> {
    /// The piece of this row and everything behind it.
    bytes: &'a [u8],
    row_bytes: usize,
    unit_bytes: usize,
    /// Where in the panel its first line is.
    to: usize,
    /// Columns of the piece from the current unit on.
    columns: usize,
    /// Rows of the strip from this one on.
    rows: usize,
    ty: TensorType,
}

impl<'a> Feeder<'a> {
    fn new(operation: &'a Operation<'a>, stage: &Stage, panel: &'a mut [u16]) -> Self {
        let strips = stage.item.strips.clone();
        let columns = operation.columns(stage.piece);
        let rows: usize = strips.clone().map(|strip| operation.strip(strip).rows).sum();
        let room = strips.len() * STRIP * columns.next_multiple_of(COLUMNS);
        assert!(panel.len() >= room, "a panel holds all strips of its item");
        let mut feeder = Self::done(operation, panel);
        (feeder.strips, feeder.piece, feeder.left) = (strips, stage.piece, rows * columns.div_ceil(PART));
        feeder.start_strip();
        feeder
    }

    /// A feeder with nothing to do.
    fn done(operation: &'a Operation<'a>, panel: &'a mut [u16]) -> Self {
        let ty = TensorType::F32;
        let unit = Unit { ty, from: std::ptr::null(), columns: 0, to: std::ptr::null_mut(), lines: [0.0; 16] };
        let row = Row { bytes: &[], row_bytes: 0, unit_bytes: 0, to: 0, columns: 0, rows: 0, ty };
        let unpack = unpack::of(ty);
        Self { operation, panel, strips: 0..0, to: 0, piece: 0, left: 0, part: 0, parts: 0, unpack, unit, row }
    }

    fn finish(&mut self) {
        self.feed(self.left);
    }

    /// Decodes the next `parts` parts, or those that are left.
    #[inline]
    fn feed(&mut self, parts: usize) {
        let mut rest = parts.min(self.left);
        while rest > 0 {
            let now = rest.min(self.parts - self.part);
            // SAFETY: the unit was checked when it was started, and the parts are some of its parts. That the instructions
            // are there is proved by the tiles of the thread.
            unsafe { (self.unpack)(&mut self.unit, self.part..self.part + now) };
            (rest, self.left, self.part) = (rest - now, self.left - now, self.part + now);
            if self.part == self.parts {
                self.next_unit();
            }
        }
    }

    fn next_unit(&mut self) {
        let Row { row_bytes, unit_bytes, .. } = self.row;
        if self.row.columns > UNIT {
            self.row.columns -= UNIT;
            self.start_unit(unit_bytes, UNIT * STRIP);
        } else if self.row.rows > 1 {
            let before = self.operation.columns(self.piece).div_ceil(UNIT) - 1;
            self.row.rows -= 1;
            self.row.columns = self.operation.columns(self.piece);
            self.row.to -= before * UNIT * STRIP;
            self.start_unit(row_bytes - before * unit_bytes, COLUMNS);
        } else if self.left > 0 {
            self.strips.start += 1;
            self.to += self.operation.columns(self.piece).next_multiple_of(COLUMNS) * STRIP;
            self.start_strip();
        }
    }

    fn start_strip(&mut self) {
        let Strip { target, first, rows } = self.operation.strip(self.strips.start);
        let weight = &self.operation.targets[target].weight;
        let row_bytes = weight.bytes.len() / weight.rows;
        let bytes_of = |columns: usize| columns / weight.ty.block_elements() * weight.ty.block_bytes();
        self.unpack = unpack::of(weight.ty);
        self.row = Row {
            bytes: &weight.bytes[first * row_bytes + bytes_of(self.piece * PIECE)..],
            row_bytes,
            unit_bytes: bytes_of(UNIT),
            to: self.to,
            columns: self.operation.columns(self.piece),
            rows,
            ty: weight.ty,
        };
        self.start_unit(0, 0);
    }

    /// Goes on by so many bytes of weights and elements of the panel.
    fn start_unit(&mut self, bytes: usize, elements: usize) {
        let row = &mut self.row;
        (row.bytes, row.to) = (&row.bytes[bytes..], row.to + elements);
        let (columns, needed) = match row.columns {
            whole if whole >= UNIT => (UNIT, row.unit_bytes),
            fewer => (fewer, fewer / row.ty.block_elements() * row.ty.block_bytes()),
        };
        let to = &mut self.panel[row.to..];
        assert!(row.bytes.len() >= needed && to.len() >= (columns.div_ceil(COLUMNS) - 1) * STEP + COLUMNS);
        prefetch(row.bytes.as_ptr().wrapping_add(ROWS_AHEAD * row.row_bytes), needed);
        (self.unit.ty, self.unit.columns) = (row.ty, columns);
        (self.unit.from, self.unit.to) = (row.bytes.as_ptr(), to.as_mut_ptr());
        (self.part, self.parts) = (0, columns.div_ceil(PART));
    }
}

/// Rows that weights are asked for ahead of being decoded.
const ROWS_AHEAD: usize = 8;

/// Asks for the cache lines of some bytes, which need not exist.
#[inline]
fn prefetch(from: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(64) {
        // SAFETY: a prefetch of any address does nothing but fill a cache; every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(offset).cast()) };
    }
}

/// Scratch of one thread: everything in it is overwritten before it is read.
pub(crate) struct Scratch {
    panels: [AlignedVec<u16>; 2],
    /// Sums between pieces: `[token strip][strip][block]`.
    sums: AlignedVec<f32>,
    /// Finished blocks on their way out.
    results: AlignedVec<f32>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let none = || AlignedVec::zeroed(0);
        Self { panels: [0; 2].map(AlignedVec::zeroed), sums: none(), results: none() }
    }

    /// Makes room for the items of `operation`.
    fn prepare(&mut self, operation: &Operation<'_>) {
        if self.results.is_empty() {
            self.panels = [PANEL_STRIPS * STRIP * PIECE; 2].map(AlignedVec::zeroed);
            self.results = AlignedVec::zeroed(out::BUFFERS);
        }
        let sums = operation.tokens * operation.panel * BLOCK;
        if operation.x.pieces() > 1 && self.sums.len() < sums {
            self.sums = AlignedVec::zeroed(sums);
        }
    }
}
