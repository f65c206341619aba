//! Matrix times few vectors: decoding, where every weight is read once and bandwidth is what counts.

mod driver;
mod floats;
mod input;
mod k_quants;
mod nibbles;
mod pairs;
mod streams;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;
mod unpacked;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(target_arch = "x86_64")]
mod words;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use woolly_quant::TensorType;

use crate::buffer::SharedOut;
use crate::isa::Level;
use crate::kernels::unpacked::{layout, with_unpack};
use driver::{Format, Gemv};
use floats::Decode;
use input::{Arrangements, Exact, Int8, Plain, Slot};

/// Runs `$body` with `$format` naming the [`driver::Format`] of a tensor type: the list of types with their own path.
macro_rules! with_format {
    (float $ty:expr, $format:ident => $body:expr) => {
        with_format!(@list $ty, $format, $body; F32: floats::F32, F16: floats::F16, BF16: floats::Bf16)
    };
    (exact $ty:expr, $format:ident => $body:expr) => {
        with_format!(@quantised $ty, $format, $body;)
    };
    (rounded $ty:expr, $format:ident => $body:expr) => {
        with_unpack!($ty, $format => $body, _ => with_format!(@quantised $ty, $format, $body; TQ2_0: pairs::Tq20))
    };
    (@quantised $ty:expr, $format:ident, $body:expr; $($more:tt)*) => {
        with_format!(@list $ty, $format, $body;
            Q4_0: nibbles::Q40, Q4_1: nibbles::Q41, Q5_0: nibbles::Q50, Q5_1: nibbles::Q51, Q8_0: nibbles::Q80,
            IQ4_NL: nibbles::Iq4Nl, MXFP4: nibbles::Mxfp4, IQ4_XS: nibbles::Iq4Xs,
            Q2_K: pairs::Q2K, Q3_K: pairs::Q3K, Q4_K: k_quants::Q4K, Q5_K: k_quants::Q5K, Q6_K: k_quants::Q6K,
            $($more)*)
    };
    (@list $ty:expr, $format:ident, $body:expr; $($name:ident: $path:path),+ $(,)?) => {
        match $ty {
            $(TensorType::$name => { type $format = $path; $body })+
            other => unreachable!("{other} has no path of its own: `path` chose decoding"),
        }
    };
}

/// Most vectors that one pass over the weights is multiplied with.
pub const MAX_COLUMNS: usize = 8;

/// The same for weights that are floats, whose rows stay in the cache while they are multiplied with four vectors after four.
pub const MAX_COLUMNS_OF_FLOATS: usize = 32;

/// A weight matrix where it lies: row-major GGUF blocks at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Type of the blocks.
    pub ty: TensorType,
    /// `rows · row_bytes` bytes.
    pub bytes: &'a [u8],
    /// Elements of a row: the length of an input vector.
    pub columns: usize,
    /// Number of rows: the length of an output vector.
    pub rows: usize,
}

/// Input vectors, prepared for the weight types they will be multiplied with.
pub struct Input {
    plain: Slot<Plain>,
    int8: Arrangements<Int8>,
    exact: Arrangements<Exact>,
    #[cfg(target_arch = "x86_64")]
    words: words::Slots,
    #[cfg(target_arch = "x86_64")]
    wide: wide::Slots,
    m: usize,
    k: usize,
}

impl Input {
    /// Reserves all that [`Input::prepare`] will need for up to `max_columns` vectors of up to `max_k` elements, of floats
    /// `max_of_floats`; memory is only used for the arrangements that come up.
    pub fn with_capacity(max_columns: usize, max_of_floats: usize, max_k: usize) -> Self {
        let order = [0; 16];
        Self {
            plain: Slot::new(order, max_of_floats, max_k),
            int8: Arrangements::new(max_columns, max_k),
            exact: Arrangements::new(max_columns, max_k),
            #[cfg(target_arch = "x86_64")]
            words: words::Slots::new(max_columns, max_k),
            #[cfg(target_arch = "x86_64")]
            wide: wide::Slots::new(max_columns, max_k),
            m: 0,
            k: 0,
        }
    }

    /// Forgets what was prepared: to be called when the input vectors have changed.
    pub fn invalidate(&mut self) {
        (self.m, self.k) = (0, 0);
        self.plain.invalidate();
        self.int8.invalidate();
        self.exact.invalidate();
        #[cfg(target_arch = "x86_64")]
        {
            self.words.invalidate();
            self.wide.invalidate();
        }
    }

    /// Prepares `m` vectors of `k` elements (`x`, row-major) for `w`; returns at once if matrices like `w` had it done.
    ///
    /// # Panics
    /// When `x` is no `m · k` elements, `m` exceeds [`MAX_COLUMNS`] or [`MAX_COLUMNS_OF_FLOATS`], or `x` the capacity.
    pub fn prepare(&mut self, level: Level, w: &Rows<'_>, x: &[f32], m: usize, k: usize) {
        assert_eq!(x.len(), m * k, "{m} input vectors of {k} elements");
        let path = path(level, w);
        let most = if matches!(path, Path::Float(_)) { MAX_COLUMNS_OF_FLOATS } else { MAX_COLUMNS };
        assert!(m <= most, "{m} input vectors at once");
        self.prepare_path(level, path, x, m, k);
    }

    fn prepare_path(&mut self, level: Level, path: Path, x: &[f32], m: usize, k: usize) {
        if (self.m, self.k) != (m, k) {
            self.invalidate();
            (self.m, self.k) = (m, k);
        }
        match path {
            Path::Decode => self.plain.prepare(level, x, k),
            Path::Float(format) => with_format!(float format, F => F::slot_mut::<Exact>(self).prepare(level, x, k)),
            Path::Exact(format) => with_format!(exact format, F => F::slot_mut::<Exact>(self).prepare(level, x, k)),
            Path::Int8(format) => with_format!(rounded format, F => F::slot_mut::<Int8>(self).prepare(level, x, k)),
            #[cfg(target_arch = "x86_64")]
            Path::Words(ty) => self.words.prepare(ty, level, x, k),
            #[cfg(target_arch = "x86_64")]
            Path::Wide(ty) => wide::prepare(&mut self.wide, ty, level, x, k),
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("m", &self.m).field("k", &self.k).finish_non_exhaustive()
    }
}

/// Computes `out[c · out_stride + r] = Σ w[r] · x[c]` for the rows `r` of `range` and all vectors `c` of `x`.
///
/// A row's result does not depend on `range`, nor on how many vectors there are: it is the same to the last bit.
///
/// # Panics
/// When `range` is outside of the matrix, its bytes are not what its shape needs, or `x` is not prepared for it.
pub fn gemv(level: Level, w: &Rows<'_>, range: Range<usize>, x: &Input, out: &SharedOut<'_>, out_stride: usize) {
    assert_eq!(x.k, w.columns, "the input vectors are as long as a row");
    assert!(range.end <= w.rows, "rows {range:?} of {}", w.rows);
    gemv_path(level, path(level, w), w, range, x, out, out_stride);
}

fn gemv_path(
    level: Level,
    path: Path,
    w: &Rows<'_>,
    range: Range<usize>,
    x: &Input,
    out: &SharedOut<'_>,
    out_stride: usize,
) {
    let row_bytes = w.ty.row_bytes(w.columns).expect("a weight has whole blocks");
    if range.is_empty() || w.columns == 0 {
        return range.for_each(|r| (0..x.m).for_each(|c| out.set(c * out_stride + r, 0.0)));
    }
    match path {
        Path::Decode => level.run(Decode { w, row_bytes, range, x, out, out_stride }),
        Path::Float(format) => with_format!(float format, F => {
            level.run_bytes(Gemv::<F, Exact> { w, row_bytes, range, x, out, out_stride, kind: PhantomData }).unwrap_or_default();
        }),
        Path::Exact(format) => with_format!(exact format, F => {
            level.run_bytes(Gemv::<F, Exact> { w, row_bytes, range, x, out, out_stride, kind: PhantomData }).unwrap_or_default();
        }),
        Path::Int8(format) => with_format!(rounded format, F => {
            level.run_bytes(Gemv::<F, Int8> { w, row_bytes, range, x, out, out_stride, kind: PhantomData }).unwrap_or_default();
        }),
        #[cfg(target_arch = "x86_64")]
        Path::Words(_) => words::Gemv { w, row_bytes, range, x, out, out_stride }.run(level),
        #[cfg(target_arch = "x86_64")]
        Path::Wide(_) => words::Gemv { w, row_bytes, range, x, out, out_stride }.run_wide(),
    }
}

/// How a matrix is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// Decoded first, then as floats.
    Decode,
    /// Floats as they are.
    Float(TensorType),
    /// In its own format, with float activations.
    Exact(TensorType),
    /// In its own format, with 8-bit activations.
    Int8(TensorType),
    /// In its own format, with 8-bit activations whose scales are integers as those of the weights are.
    #[cfg(target_arch = "x86_64")]
    Words(TensorType),
    /// The same on 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Wide(TensorType),
}

fn path(level: Level, w: &Rows<'_>) -> Path {
    match w.ty {
        _ if level.min(Level::best()) == Level::Scalar => Path::Decode,
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => Path::Float(w.ty),
        ty if exact(w) && has_exact(ty) => Path::Exact(ty),
        ty if exact(w) || !has_format(ty) => Path::Decode,
        #[cfg(target_arch = "x86_64")]
        ty if words::has(level, ty) => Path::Words(ty),
        #[cfg(target_arch = "x86_64")]
        ty if wide::has(level, ty) && wide::pays(ty) => Path::Wide(ty),
        ty => Path::Int8(ty),
    }
}

/// Whether `w` is multiplied with float activations instead of 8-bit ones.
///
/// Rounding activations only pays where arithmetic has to keep up with memory. A matrix this small stays in the cache
/// from token to token in small models, and is a small part of large ones; so it gets the full precision. Types without a kernel
/// for it are decoded first, for which they must be smaller still.
pub(crate) fn exact(w: &Rows<'_>) -> bool {
    const SMALL: usize = 256 << 10;
    const SMALL_WITHOUT_KERNEL: usize = 64 << 10;
    let most = if w.ty.block_elements() == 1 || has_exact(w.ty) { SMALL } else { SMALL_WITHOUT_KERNEL };
    w.bytes.len() <= SMALL && w.columns * w.rows <= most
}

/// Whether products with up to [`MAX_COLUMNS_OF_FLOATS`] vectors can be computed at once.
#[cfg(target_arch = "x86_64")]
pub(crate) fn takes_many(level: Level, w: &Rows<'_>) -> bool {
    matches!(path(level, w), Path::Float(_))
}

/// Whether [`with_format`] lists the type for eight-bit activations.
fn has_format(ty: TensorType) -> bool {
    has_exact(ty) || ty == TensorType::TQ2_0 || layout(ty).is_some()
}

/// Whether [`with_format`] lists the type for exact activations, too.
fn has_exact(ty: TensorType) -> bool {
    use TensorType::*;
    matches!(ty, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL | MXFP4 | IQ4_XS | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K)
}
