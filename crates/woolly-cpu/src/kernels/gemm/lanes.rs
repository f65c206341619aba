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
    /// Returns bytes `column..column + len` of the rows from `first` on; rows that do not exist are zeros.
    #[inline(always)]
    pub(super) fn new<S: TileSimd>(
        _: S,
        w: &Rows<'a>,
        first: usize,
        column: usize,
        len: usize,
        tail: &'a mut Tail,
    ) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        assert!(column + len <= row_bytes && len <= MOST_BYTES, "a piece beyond the end of its row");
        if first + S::LANES <= w.rows {
            let start = w.bytes[first * row_bytes + column..].as_ptr();
            return Self { start, stride: row_bytes, len, rows: PhantomData };
        }
        tail.copy(w, first, column, len);
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
/// are spread over the work on the weights before.
pub(super) struct Ahead {
    at: *const u8,
    /// Bytes from one line to the next of a turn, and from the end of a turn to the next.
    stride: usize,
    skip: usize,
    /// Lines of a turn, and of these, how many are left.
    turn: usize,
    left_of_turn: usize,
    /// Lines left, and how many to ask for each time.
    left: usize,
    each: usize,
}

/// Runs of lines that a strip is asked for in: a single one came no faster than the lines that a core can have on their way
/// (docs/performance.md).
const RUNS: usize = 4;

impl Ahead {
    /// Whole rows, as far as they exist, as [`RUNS`] runs of lines in turn; `steps` steps ask for all of them.
    pub(super) fn strip(w: &Rows<'_>, rows: Range<usize>, steps: usize) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        let lines = (rows.end.min(w.rows).saturating_sub(rows.start) * row_bytes).div_ceil(LINE);
        let run = lines.div_ceil(RUNS);
        // Up to three lines beyond the end are asked for, which does nothing or is of use to the next strip.
        Self::new(w.bytes.as_ptr().wrapping_add(rows.start * row_bytes), (run * LINE, RUNS), (LINE, run), steps)
    }

    /// Bytes `bytes` of each of the rows, as far as they exist; `steps` steps ask for all of them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn piece(w: &Rows<'_>, rows: Range<usize>, bytes: Range<usize>, steps: usize) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        let rows = rows.start..rows.end.min(w.rows).max(rows.start);
        let at = w.bytes.as_ptr().wrapping_add(rows.start * row_bytes + bytes.start);
        Self::new(at, (LINE, bytes.len().div_ceil(LINE)), (row_bytes, rows.len()), steps)
    }

    /// `turn` lines that are `stride` bytes apart, and the same `distance` bytes further on, `turns` times in all.
    fn new(at: *const u8, (stride, turn): (usize, usize), (distance, turns): (usize, usize), steps: usize) -> Self {
        let left = turns * turn;
        let skip = distance.wrapping_sub(stride * turn);
        Self { at, stride, skip, turn, left_of_turn: turn, left, each: left.div_ceil(steps.max(1)) }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn step<S: TileSimd>(&mut self, s: S) {
        let count = self.each.min(self.left);
        for _ in 0..count {
            s.prefetch_beyond_at(self.next());
        }
        self.left -= count;
    }

    #[inline(always)]
    fn next(&mut self) -> *const u8 {
        let line = self.at;
        self.at = self.at.wrapping_add(self.stride);
        self.left_of_turn -= 1;
        if self.left_of_turn == 0 {
            self.left_of_turn = self.turn;
            self.at = self.at.wrapping_add(self.skip);
        }
        line
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_quant::TensorType;

    /// Offsets of the lines asked for, in order.
    fn asked(w: &Rows<'_>, mut ahead: Ahead) -> Vec<usize> {
        (0..ahead.left).map(|_| ahead.next().addr() - w.bytes.as_ptr().addr()).collect()
    }

    #[test]
    fn every_line_of_a_strip_is_asked_for_once() {
        for (rows, columns) in [(40, 256), (33, 2048), (32, 5632), (3, 256)] {
            let bytes = vec![0; rows * columns / 256 * 144];
            let w = Rows { ty: TensorType::Q4_K, bytes: &bytes, columns, rows };
            let (start, end) = (bytes.len() / rows, bytes.len());
            let mut found = asked(&w, Ahead::strip(&w, 1..rows + 9, 10));
            found.sort_unstable();
            assert_eq!(found[0], start);
            assert!(found.windows(2).all(|pair| pair[1] == pair[0] + LINE), "{rows} x {columns}: {found:?}");
            assert!((end..end + RUNS * LINE).contains(&(found[found.len() - 1] + LINE)), "{rows} x {columns}");
        }
        let w = Rows { ty: TensorType::Q4_K, bytes: &[0; 288], columns: 256, rows: 2 };
        assert!(asked(&w, Ahead::strip(&w, 2..34, 10)).is_empty(), "no rows are left");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_piece_is_asked_for_row_by_row() {
        let bytes = vec![0; 5 * 8 * 144];
        let w = Rows { ty: TensorType::Q4_K, bytes: &bytes, columns: 2048, rows: 5 };
        let expected: Vec<_> =
            (3..5).flat_map(|row| (0..3).map(move |line| row * 8 * 144 + 144 + line * LINE)).collect();
        assert_eq!(asked(&w, Ahead::piece(&w, 3..64, 144..288, 10)), expected);
        assert!(asked(&w, Ahead::piece(&w, 5..64, 144..288, 10)).is_empty(), "no rows are left");
    }
}
