//! Weight rows side by side, one in each lane of a vector, from the first load on; and asking for them ahead.

use std::marker::PhantomData;
use std::ops::Range;

use super::unpack::PIECE;
use crate::kernels::gemv::Rows;
use crate::kernels::simd::{MAX_LANES, TileSimd};

/// Takes what blocks are unpacked to, a lane a row: scales before the quants of their groups.
///
/// Methods are to be inlined into functions with the instructions of `S`.
pub(super) trait Sink<S: TileSimd> {
    fn scale(&mut self, group: usize, scale: S::F);
    fn minimum(&mut self, group: usize, minimum: S::F);
    /// Says that a block of 256 has given all its scales and minimums, and that its quants follow.
    #[inline(always)]
    fn scaled(&mut self) {}
    /// Takes the quants of a group, eight words of four where it has 32 columns, or four.
    fn quads<const Q: usize>(&mut self, group: usize, quads: [S::I; Q]);
}

/// Copies of the last rows of a matrix, with zeros for the rows that would follow.
#[repr(align(64))]
pub(super) struct Tail([[u8; MOST_BYTES]; MAX_LANES]);

/// Bytes of the largest piece, that of Q8_0.
const MOST_BYTES: usize = PIECE / 32 * 34;

impl Tail {
    pub(super) const ZERO: Self = Self([[0; MOST_BYTES]; MAX_LANES]);

    #[cold]
    fn copy(&mut self, w: &Rows<'_>, first: usize, column: usize, len: usize) {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        for (lane, copy) in self.0.iter_mut().enumerate() {
            match first + lane {
                row if row < w.rows => copy[..len].copy_from_slice(&w.bytes[row * row_bytes + column..][..len]),
                _ => copy.fill(0),
            }
        }
    }
}

/// A matrix and the lengths that its rows are cut to: made once, since a division takes as long as tens of products.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) rows: &'a Rows<'a>,
    /// Bytes of a row, of a whole piece and of a block.
    row: usize,
    piece: usize,
    block: usize,
    /// Blocks of a whole piece.
    blocks: usize,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(rows: &'a Rows<'a>) -> Self {
        let (block, blocks) = (rows.ty.block_bytes(), PIECE / rows.ty.block_elements());
        Self { rows, row: rows.bytes.len() / rows.rows.max(1), piece: blocks * block, block, blocks }
    }

    /// Returns which bytes of each row a piece is; the last one can be shorter than the others.
    #[inline(always)]
    fn bytes(self, piece: usize) -> Range<usize> {
        let start = (piece * self.piece).min(self.row);
        start..(start + self.piece).min(self.row)
    }

    /// Returns the number of blocks of a piece.
    #[inline(always)]
    pub(super) fn blocks(self, piece: usize) -> usize {
        match self.bytes(piece).len() {
            len if len == self.piece => self.blocks,
            len => len / self.block,
        }
    }
}

/// A piece of as many rows as there are lanes.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    /// Of the first row.
    start: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    /// Bytes of each row.
    len: usize,
    rows: PhantomData<&'a [u8]>,
}

impl<'a> Pieces<'a> {
    /// Returns a piece of the rows from `first` on; rows that do not exist are zeros.
    #[inline(always)]
    pub(super) fn new<S: TileSimd>(_: S, w: Matrix<'a>, first: usize, piece: usize, tail: &'a mut Tail) -> Self {
        let bytes = w.bytes(piece);
        let (column, len) = (bytes.start, bytes.len());
        assert!(w.row * w.rows.rows <= w.rows.bytes.len() && len <= MOST_BYTES, "a piece beyond the end of its row");
        if first + S::LANES <= w.rows.rows {
            let start = w.rows.bytes[first * w.row + column..].as_ptr();
            return Self { start, stride: w.row, len, rows: PhantomData };
        }
        tail.copy(w.rows, first, column, len);
        Self { start: tail.0.as_ptr().cast(), stride: MOST_BYTES, len, rows: PhantomData }
    }

    /// Returns the blocks of `len` bytes that are `by` bytes into the pieces.
    #[inline(always)]
    pub(super) fn block(self, by: usize, len: usize) -> Block<'a> {
        assert!(by + len <= self.len, "a block beyond the end of its piece");
        Block(Self { start: self.start.wrapping_add(by), len, ..self })
    }
}

/// A block in each of the rows, all of whose bytes exist.
#[derive(Clone, Copy)]
pub(super) struct Block<'a>(Pieces<'a>);

impl Block<'_> {
    /// Returns bytes `by..by + 16` of the rows, four in each vector: vector `i` holds bytes `by + 4i..` of all rows.
    ///
    /// # Safety
    /// The block has these bytes.
    #[inline(always)]
    pub(super) unsafe fn sixteen<S: TileSimd>(self, s: S, by: usize) -> [S::I; 4] {
        debug_assert!(by + 16 <= self.0.len);
        // SAFETY: the bytes exist: the caller vouches for the block's, `Pieces` for the block in all rows.
        unsafe { s.load_four_of_rows(self.0.start.add(by), self.0.stride) }
    }

    /// Returns bytes `by..by + 32` of the rows, as [`sixteen`](Self::sixteen) does.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn thirty_two<S: TileSimd>(self, s: S, by: usize) -> [S::I; 8] {
        // SAFETY: passed on from the caller.
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (self.sixteen(s, by), self.sixteen(s, by + 16)) };
        [a, b, c, d, e, f, g, h]
    }

    /// Returns the bytes of one row.
    ///
    /// # Safety
    /// `lane` is one of those that the pieces were made for.
    #[inline(always)]
    pub(super) unsafe fn row(&self, lane: usize) -> &[u8] {
        // SAFETY: the bytes exist in all rows, which are as many as lanes.
        unsafe { std::slice::from_raw_parts(self.0.start.add(lane * self.0.stride), self.0.len) }
    }

    /// Returns bytes `by..by + 4` of the rows.
    ///
    /// # Safety
    /// The block has these bytes.
    #[inline(always)]
    pub(super) unsafe fn word<S: TileSimd>(self, s: S, by: usize) -> S::I {
        debug_assert!(by + 4 <= self.0.len);
        // SAFETY: as in `sixteen`.
        unsafe { s.load_word_of_rows(self.0.start.add(by), self.0.stride) }
    }
}

/// Asks for weights to come, a few cache lines at a time.
///
/// A processor has some sixteen lines of a thread on their way at most, and whoever asks for more waits for them; so they
/// are spread over the work on the weights before. It stands in loops of products, whose ports its instructions take: hence
/// as many lines a turn as are written out, and a copy of it for each loop, which stays in registers.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    at: *const u8,
    /// Bytes from one line to the next of a turn.
    stride: usize,
    /// Turns that follow each other line by line, how many of them are left, and bytes from where they end to the next.
    run: usize,
    left: usize,
    jump: usize,
    /// Turns and the steps that they are spread over, and what has been added up of the former.
    turns: usize,
    steps: usize,
    due: usize,
}

/// Lines of a turn, far from each other: lines in the order of the memory came no faster than a core can have them on their way
/// (docs/performance.md).
const TURN: usize = 4;

impl Ahead {
    /// Whole rows, as far as they exist; `steps` steps ask for all of them.
    pub(super) fn strip(w: Matrix<'_>, rows: Range<usize>, steps: usize) -> Self {
        let lines = (rows.end.min(w.rows.rows).saturating_sub(rows.start) * w.row).div_ceil(LINE);
        let turns = lines.div_ceil(TURN);
        let at = w.rows.bytes.as_ptr().wrapping_add(rows.start * w.row);
        // Fewer lines than a turn has are asked for beyond the end, which does nothing or is of use to the next strip.
        Self::new(at, turns * LINE, (turns, 0), turns, steps)
    }

    /// A piece of each of the rows, as far as they exist, a line of [`TURN`] rows each time; `steps` steps ask for all of them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn piece(w: Matrix<'_>, rows: Range<usize>, piece: usize, steps: usize) -> Self {
        let (count, bytes) = (rows.end.min(w.rows.rows).saturating_sub(rows.start), w.bytes(piece));
        let lines = bytes.len().div_ceil(LINE);
        let at = w.rows.bytes.as_ptr().wrapping_add(rows.start * w.row + bytes.start);
        let jump = (TURN * w.row).wrapping_sub(lines * LINE);
        Self::new(at, w.row, (lines, jump), count.div_ceil(TURN) * lines, steps)
    }

    fn new(at: *const u8, stride: usize, (run, jump): (usize, usize), turns: usize, steps: usize) -> Self {
        Self { at, stride, run, left: run, jump, turns, steps: steps.max(1), due: 0 }
    }

    /// Takes the turns that are due after one more step; steps beyond those announced ask for what follows.
    #[inline(always)]
    pub(super) fn step<S: TileSimd>(&mut self, s: S) {
        self.due += self.turns;
        while self.due >= self.steps {
            self.due -= self.steps;
            self.turn(|line| s.prefetch_beyond_at(line));
        }
    }

    #[inline(always)]
    fn turn(&mut self, mut ask: impl FnMut(*const u8)) {
        for i in 0..TURN {
            ask(self.at.wrapping_add(i * self.stride));
        }
        self.at = self.at.wrapping_add(LINE);
        self.left -= 1;
        if self.left == 0 {
            self.left = self.run;
            self.at = self.at.wrapping_add(self.jump);
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Scalar;
    use woolly_quant::TensorType;

    /// Offsets of the lines asked for, in order.
    fn asked(w: &Rows<'_>, mut ahead: Ahead) -> Vec<usize> {
        let mut lines = Vec::new();
        for _ in 0..ahead.turns {
            ahead.turn(|line| lines.push(line.addr() - w.bytes.as_ptr().addr()));
        }
        lines
    }

    #[test]
    fn every_line_of_a_strip_is_asked_for_once() {
        for (rows, columns) in [(40, 256), (33, 2048), (32, 5632), (3, 256)] {
            let bytes = vec![0; rows * columns / 256 * 144];
            let w = Rows { ty: TensorType::Q4_K, bytes: &bytes, columns, rows };
            let (start, end) = (bytes.len() / rows, bytes.len());
            let mut found = asked(&w, Ahead::strip(Matrix::new(&w), 1..rows + 9, 10));
            found.sort_unstable();
            assert_eq!(found[0], start);
            assert!(found.windows(2).all(|pair| pair[1] == pair[0] + LINE), "{rows} x {columns}: {found:?}");
            assert!((end..end + TURN * LINE).contains(&(found[found.len() - 1] + LINE)), "{rows} x {columns}");
        }
        let w = Rows { ty: TensorType::Q4_K, bytes: &[0; 288], columns: 256, rows: 2 };
        assert!(asked(&w, Ahead::strip(Matrix::new(&w), 2..34, 10)).is_empty(), "no rows are left");
    }

    #[test]
    fn the_steps_that_were_announced_ask_for_everything_and_no_step_for_much() {
        for (turns, steps) in [(64, 1376), (64, 64), (65, 64), (144, 85), (1, 1), (7, 1), (0, 9), (200, 399), (3, 0)] {
            let mut ahead = Ahead::new(std::ptr::null(), LINE, (turns, 0), turns, steps);
            let mut before = 0;
            for step in 0..steps.max(1) {
                ahead.step(Scalar);
                let asked = ahead.at.addr() / LINE;
                assert!(asked - before <= turns.div_ceil(steps.max(1)), "{turns} turns in {steps} steps: {step}");
                before = asked;
            }
            assert_eq!(before, turns, "{turns} turns in {steps} steps");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_piece_is_asked_for_in_four_rows_at_a_time() {
        let bytes = vec![0; 11 * 8 * 144];
        let w = Rows { ty: TensorType::Q4_K, bytes: &bytes, columns: 2048, rows: 11 };
        let four = |first: usize| {
            (0..3).flat_map(move |line| (first..first + 4).map(move |row| row * 8 * 144 + 144 + line * LINE))
        };
        let expected: Vec<_> = four(3).chain(four(7)).collect();
        assert_eq!(asked(&w, Ahead::piece(Matrix::new(&w), 3..64, 1, 10)), expected);
        assert!(asked(&w, Ahead::piece(Matrix::new(&w), 11..64, 1, 10)).is_empty(), "no rows are left");
    }
}
