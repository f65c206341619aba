//! Converting one tensor after another, in pieces of rows on several threads.

use std::cell::RefCell;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::slice::{Chunks, ChunksMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use woolly_cpu::encode::encode;
use woolly_cpu::isa::{self, Level};
use woolly_engine::CancelToken;
use woolly_gguf::{GGUFLoader, TensorInfo};
use woolly_quant::{CodecError, TensorType};

use super::{ImportanceMatrix, OnProgress, Progress, QuantizeError, QuantizeOptions};
use crate::Error;

/// Weights converted before they are written: at most 16 MiB of output.
const PIECE: usize = 1 << 22;
/// Weights that a thread takes at a time; decoded, they stay in its cache.
const SHARE: usize = 1 << 16;

/// What a whole conversion shares among its tensors.
pub(super) struct Conversion<'a> {
    input: &'a GGUFLoader,
    importance: Option<Arc<ImportanceMatrix>>,
    threads: NonZeroUsize,
    level: Level,
    cancel: CancelToken,
    bytes_total: u64,
    /// Whether the input is read only once, so that its pages need not stay in memory.
    releases: bool,
    state: RefCell<State<'a>>,
}

struct State<'a> {
    bytes_done: u64,
    on_progress: Option<OnProgress<'a>>,
    /// Why it stopped, unless writing failed.
    failure: Option<Error>,
}

impl<'a> Conversion<'a> {
    /// Takes what it needs from the options.
    pub(super) fn new(input: &'a GGUFLoader, options: QuantizeOptions<'a>, bytes_total: u64) -> Result<Self, Error> {
        let threads = options.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let state = State { bytes_done: 0, on_progress: options.on_progress, failure: None };
        let (importance, cancel) = (options.importance, options.cancel);
        let (level, state) = (isa::detect().map_err(woolly_cpu::CpuError::from)?, RefCell::new(state));
        Ok(Self { input, importance, threads, level, cancel, bytes_total, releases: false, state })
    }

    /// Gives the input's memory back piece by piece.
    pub(super) fn releasing(self) -> Self {
        Self { releases: true, ..self }
    }

    /// Takes the reason for which [`write`](Self::write) failed, if it was not the writer's.
    pub(super) fn failure(&self) -> Option<Error> {
        self.state.borrow_mut().failure.take()
    }

    /// Writes the tensor as `to`.
    pub(super) fn write(&self, info: &TensorInfo, to: TensorType, out: &mut dyn Write) -> io::Result<()> {
        let importance = self.importance.as_ref().map_or(Ok(None), |matrix| matrix.of(info));
        let importance = importance.map_err(|error| self.stop(error.into()))?;
        let rows =
            Rows::of(self, info, to, importance.as_deref()).ok_or_else(|| self.stop(partial(info, to).into()))?;
        let mut converted = Vec::new();
        let piece_bytes = rows.per(PIECE) * rows.from_bytes;
        for (index, piece) in info.bytes().chunks(piece_bytes).enumerate() {
            self.go_on()?;
            let first = index * rows.per(PIECE);
            if rows.from == to {
                rows.check(first, piece).map_err(|fault| self.stop(fault.of(info, to).into()))?;
                out.write_all(piece)?;
            } else {
                converted.resize(piece.len() / rows.from_bytes * rows.to_bytes, 0);
                let done = rows.convert(first, piece, &mut converted, self.threads);
                done.map_err(|fault| self.stop(fault.of(info, to).into()))?;
                self.go_on()?;
                out.write_all(&converted)?;
            }
            if self.releases {
                self.input.release(info, index * piece_bytes..(index + 1) * piece_bytes);
            }
            self.advance(info, piece.len());
        }
        Ok(())
    }

    /// Converts the tensor in memory.
    pub(super) fn to_bytes(&self, info: &TensorInfo, to: TensorType) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let blocks = info.elements() / to.block_elements() as u64;
        bytes.reserve_exact(usize::try_from(blocks).unwrap_or(0).saturating_mul(to.block_bytes()));
        match self.write(info, to, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => {
                let unexpected = || woolly_gguf::Error::Io { action: "keep the weights in memory", error }.into();
                Err(self.failure().unwrap_or_else(unexpected))
            }
        }
    }

    /// Fails when the work is cancelled.
    fn go_on(&self) -> io::Result<()> {
        if self.cancel.is_cancelled() { Err(self.stop(Error::Cancelled)) } else { Ok(()) }
    }

    /// Remembers why; what the writer is told only ends it.
    fn stop(&self, failure: Error) -> io::Error {
        self.state.borrow_mut().failure = Some(failure);
        io::Error::other("stopped")
    }

    fn advance(&self, info: &TensorInfo, bytes: usize) {
        let State { bytes_done, on_progress, .. } = &mut *self.state.borrow_mut();
        *bytes_done += bytes as u64;
        if let Some(call) = on_progress {
            call(&Progress { tensor: info.name(), bytes_done: *bytes_done, bytes_total: self.bytes_total });
        }
    }
}

fn partial(info: &TensorInfo, ty: TensorType) -> QuantizeError {
    let elements = info.dims().first().map_or(0, |&row| usize::try_from(row).unwrap_or(usize::MAX));
    QuantizeError::Codec { tensor: info.name().to_owned(), source: CodecError::PartialBlock { ty, elements } }
}

/// How the rows of a tensor are stored before and after.
#[derive(Clone, Copy)]
struct Rows<'a> {
    from: TensorType,
    to: TensorType,
    elements: usize,
    from_bytes: usize,
    to_bytes: usize,
    /// The instructions to encode with.
    level: Level,
    /// Looked at between shares: a piece of the slow types takes seconds.
    cancel: &'a CancelToken,
    /// How much each column matters, `[matrices, elements]`.
    importance: Option<&'a [f32]>,
    /// Rows of a matrix.
    per_matrix: usize,
}

/// A weight that stops the conversion, and where it is.
struct Fault {
    row: usize,
    elements: usize,
    cause: CodecError,
}

/// Shares of a piece that wait for a thread: the number of the share, its blocks before, and room for those after.
type Shares<'a> = Mutex<std::iter::Enumerate<std::iter::Zip<Chunks<'a, u8>, ChunksMut<'a, u8>>>>;

impl<'a> Rows<'a> {
    fn of(
        conversion: &'a Conversion<'_>,
        info: &TensorInfo,
        to: TensorType,
        importance: Option<&'a [f32]>,
    ) -> Option<Self> {
        let elements = usize::try_from(*info.dims().first()?).ok().filter(|&elements| elements > 0)?;
        let per_matrix = usize::try_from(info.dims().get(1).copied().unwrap_or(1)).ok()?;
        let from = info.ty();
        let (from_bytes, to_bytes) = (from.row_bytes(elements)?, to.row_bytes(elements)?);
        let (level, cancel) = (conversion.level, &conversion.cancel);
        Some(Self { from, to, elements, from_bytes, to_bytes, level, cancel, importance, per_matrix })
    }

    /// Rows that hold about `weights` weights, at least one.
    fn per(&self, weights: usize) -> usize {
        (weights / self.elements).max(1)
    }

    /// Converts whole rows, of which the first has the number `first`.
    fn convert(&self, first: usize, blocks: &[u8], out: &mut [u8], threads: NonZeroUsize) -> Result<(), Fault> {
        let rows = self.per(SHARE);
        let shares = blocks.chunks(rows * self.from_bytes).zip(out.chunks_mut(rows * self.to_bytes)).enumerate();
        let (shares, fault): (Shares<'_>, Mutex<Option<Fault>>) = (Mutex::new(shares), Mutex::new(None));
        let work = || self.take_shares(first, &shares, &fault);
        thread::scope(|scope| {
            for _ in 1..threads.get().min(blocks.len().div_ceil(rows * self.from_bytes)) {
                // Where no thread can be had, the others do its work.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        fault.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Converts shares until none is left or the work is cancelled; of several faults the first in the tensor remains.
    fn take_shares(&self, first: usize, shares: &Shares<'_>, fault: &Mutex<Option<Fault>>) {
        let mut values = Vec::new();
        while !self.cancel.is_cancelled() {
            let next = shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, (blocks, out))) = next else { return };
            let row = first + index * self.per(SHARE);
            if let Err(found) = self.convert_share(row, blocks, out, &mut values) {
                let mut fault = fault.lock().unwrap_or_else(PoisonError::into_inner);
                if fault.as_ref().is_none_or(|other| found.row < other.row) {
                    *fault = Some(found);
                }
            }
        }
    }

    fn convert_share(&self, row: usize, blocks: &[u8], out: &mut [u8], values: &mut Vec<f32>) -> Result<(), Fault> {
        let fault = |cause| Fault { row, elements: self.elements, cause };
        self.decode(blocks, values).map_err(fault)?;
        let Some(importance) = self.importance else {
            return encode(self.level, self.to, values, None, out).map_err(fault);
        };
        // Rows one by one: a share may reach from one matrix into the next.
        let rows = values.chunks(self.elements).zip(out.chunks_mut(self.to_bytes)).enumerate();
        rows.into_iter().try_for_each(|(index, (values, out))| {
            let start = (row + index) / self.per_matrix * self.elements;
            let weights = importance.get(start..start + self.elements).unwrap_or_default();
            let encoded = encode(self.level, self.to, values, Some(weights), out);
            encoded.map_err(|cause| Fault { row: row + index, ..fault(cause) })
        })
    }

    /// Decodes whole rows, which must be finite.
    fn decode(&self, blocks: &[u8], values: &mut Vec<f32>) -> Result<(), CodecError> {
        values.resize(blocks.len() / self.from_bytes * self.elements, 0.0);
        self.from.decode(blocks, values)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(not_finite(self.to, index, values)),
            None => Ok(()),
        }
    }

    /// Checks that rows of a float type, which are not converted, are finite.
    fn check(&self, first: usize, blocks: &[u8]) -> Result<(), Fault> {
        use TensorType as T;
        if !matches!(self.from, T::F32 | T::F16 | T::BF16) {
            return Ok(());
        }
        let rows = self.per(SHARE);
        let mut values = Vec::new();
        let mut shares = blocks.chunks(rows * self.from_bytes).enumerate();
        shares.try_for_each(|(index, share)| {
            let fault = |cause| Fault { row: first + index * rows, elements: self.elements, cause };
            self.decode(share, &mut values).map_err(fault)
        })
    }
}

fn not_finite(ty: TensorType, index: usize, values: &[f32]) -> CodecError {
    CodecError::OutOfRange { ty, index, value: values.get(index).copied().unwrap_or(f32::NAN), limit: f32::MAX }
}

impl Fault {
    fn of(self, info: &TensorInfo, to: TensorType) -> QuantizeError {
        let tensor = info.name().to_owned();
        match self.cause {
            CodecError::OutOfRange { index, value, limit, .. } => {
                let (row, column) = ((self.row + index / self.elements) as u64, (index % self.elements) as u64);
                if value.is_finite() {
                    QuantizeError::TooLarge { tensor, row, column, value, ty: to, limit }
                } else {
                    QuantizeError::NotFinite { tensor, row, column, value }
                }
            }
            source => QuantizeError::Codec { tensor, source },
        }
    }
}
