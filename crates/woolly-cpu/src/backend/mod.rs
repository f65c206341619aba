//! The operations of [`woolly_tensor::Backend`] on this machine's processor.
//!
//! Shapes are checked here, in safe code, before any kernel runs. Operations run at once and one at a time: scratch is
//! shared, made for the sizes seen so far, and grows only when a larger batch or model comes along.

mod attention;
mod experts;
mod linear;
#[cfg(target_arch = "x86_64")]
mod panels;
mod pieces;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod vectors;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use woolly_tensor::{Activation, Attention, Backend, BackendError, CacheSpec, Experts, Norm, Projection, WeightSource};

use crate::buffer::AlignedVec;
use crate::cache::CpuCache;
use crate::isa::{self, IsaError, Level};
use crate::kernels::attention::State;
use crate::kernels::disjoint::Disjoint;
use crate::kernels::gemm::Panel;
use crate::kernels::norm::rms_norm;
use crate::memory::{MemoryOptions, MemoryPool};
use crate::pool::{Sharing, ThreadPool};
use crate::tensor::CpuTensor;
use crate::topology::{self, CpuInfo};
use crate::weight::{self, CpuWeight};

/// Rows that an operation spreads over threads instead of computing them on the calling one.
const MANY_ROWS: usize = 8;

/// How to use the processor; the default is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Number of threads; [`crate::default_threads`] when absent.
    pub threads: Option<usize>,
    /// Instruction set; [`crate::isa::detect`] when absent.
    pub level: Option<Level>,
    /// Whether each thread is bound to a processor.
    pub pin: bool,
    /// Whether all threads stay on one memory node, that of the first processor allowed; without effect where the system
    /// names no nodes. The default number of threads is then that of the node's cores.
    pub one_node: bool,
    /// Take activations and logits from a pool with these rules; from the system when absent.
    pub memory: Option<MemoryOptions>,
    /// How work is spread over threads.
    pub sharing: Sharing,
}

impl CpuOptions {
    /// Returns the sets of processors that the threads are bound to in turn.
    fn places(&self) -> Vec<Vec<usize>> {
        let nodes = CpuInfo::new().map(|info| info.numa_nodes().to_vec()).unwrap_or_default();
        let node = if self.one_node { topology::first_node(&nodes) } else { Vec::new() };
        match (self.pin, node.is_empty()) {
            (true, true) => topology::allowed_processors().into_iter().map(|processor| vec![processor]).collect(),
            (true, false) => node.into_iter().map(|processor| vec![processor]).collect(),
            (false, false) => vec![node],
            (false, true) => Vec::new(),
        }
    }
}

/// Why the processor cannot be used as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The environment names an instruction set that is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The instruction set asked for is not available.
    #[error("instruction set {} asked for, but this processor offers no more than {}", wanted.name(), best.name())]
    Level {
        /// The level asked for.
        wanted: Level,
        /// The best level of this processor.
        best: Level,
    },
    /// The memory pool cannot be as asked.
    #[error(transparent)]
    Memory(BackendError),
    /// The system refused a thread.
    #[error("cannot start {threads} threads: {source}; ask for fewer")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// The system's words.
        source: io::Error,
    },
}

/// The processor, as a backend.
#[derive(Debug)]
pub struct Cpu {
    level: Level,
    pool: ThreadPool,
    /// The processors of a thread that calls and does nothing else; empty where threads are not bound.
    place: Vec<usize>,
    memory: Option<Arc<MemoryPool>>,
    shared: Mutex<Shared>,
    lanes: Box<[Mutex<Lane>]>,
}

/// Scratch of the operation in progress.
#[derive(Debug, Default)]
struct Shared {
    linear: linear::Scratch,
    attention: attention::Scratch,
    experts: experts::Scratch,
}

/// Scratch of one thread.
struct Lane {
    panel: Box<Panel>,
    /// Results of a strip: `[rows][strip rows]`, of two weights for gated operations.
    strips: [AlignedVec<f32>; 2],
    row: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    wide: Box<crate::kernels::gemm::avx512::Scratch>,
    #[cfg(target_arch = "x86_64")]
    tiled: crate::kernels::gemm::amx::Scratch,
    attention: State,
    #[cfg(target_arch = "x86_64")]
    tiled_attention: crate::kernels::attention::amx::Scratch,
    queries: AlignedVec<f32>,
    /// The positions that each query sees.
    seen: Vec<Range<usize>>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

impl Lane {
    fn new() -> Self {
        let (attention, queries) = (State::new(128), AlignedVec::default());
        Self {
            panel: Panel::new(),
            strips: Default::default(),
            row: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            wide: crate::kernels::gemm::avx512::Scratch::new(),
            #[cfg(target_arch = "x86_64")]
            tiled: crate::kernels::gemm::amx::Scratch::new(),
            attention,
            #[cfg(target_arch = "x86_64")]
            tiled_attention: crate::kernels::attention::amx::Scratch::default(),
            queries,
            seen: Vec::new(),
        }
    }
}

impl Cpu {
    /// Starts the threads and allocates their scratch.
    ///
    /// # Errors
    /// [`CpuError`] when the instruction set is not available or a thread cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self, CpuError> {
        let best = Level::best();
        let level = match options.level {
            None => isa::detect()?,
            Some(wanted) if wanted > best || !Level::ALL.contains(&wanted) => {
                return Err(CpuError::Level { wanted, best });
            }
            Some(level) => level,
        };
        let default = if options.one_node { topology::node_threads } else { crate::default_threads };
        let threads = options.threads.unwrap_or_else(default).max(1);
        let places = options.places();
        let pool = ThreadPool::bound(threads, &places, options.sharing)
            .map_err(|source| CpuError::Threads { threads, source })?;
        let lanes = (0..threads).map(|_| Mutex::new(Lane::new())).collect();
        let memory = options.memory.map(MemoryPool::new).transpose().map_err(CpuError::Memory)?.map(Arc::new);
        let place = places.into_iter().next().unwrap_or_default();
        Ok(Self { level, pool, place, memory, shared: Mutex::default(), lanes })
    }

    /// Returns the instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Returns the pool that activations come from, if there is one.
    pub fn memory_pool(&self) -> Option<&Arc<MemoryPool>> {
        self.memory.as_ref()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    fn lane(&self, thread: usize) -> MutexGuard<'_, Lane> {
        lock(&self.lanes[thread])
    }

    /// Calls `each(row, out row)` for all rows of `out`, on several threads when there are many.
    fn each_row(&self, columns: usize, out: &mut [f32], each: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let rows = out.len() / columns.max(1);
        let chunk = if rows <= MANY_ROWS { rows } else { rows.div_ceil(4 * self.threads()) };
        let out = Disjoint::new(out);
        self.pool.chunks(rows, chunk, &|range| {
            for row in range {
                // SAFETY: every row is in one chunk only, and rows do not overlap.
                each(row, unsafe { out.slice(row * columns..(row + 1) * columns) });
            }
        });
    }
}

/// Locks scratch; what a panic left in it is overwritten before it is read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A normalisation whose weight fits: values and ε.
type NormVector<'a> = (&'a [f32], f32);

fn norm_vector<'a>(
    op: &'static str,
    norm: Option<Norm<'a, Cpu>>,
    columns: usize,
) -> Result<Option<NormVector<'a>>, BackendError> {
    let Some(norm) = norm else { return Ok(None) };
    Ok(Some((norm.weight.vector(op, "norm weight length", columns)?, norm.epsilon)))
}

impl Backend for Cpu {
    type Tensor = CpuTensor;
    type Weight = CpuWeight;
    type Cache = CpuCache;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu ({}, {threads} thread{})", self.level.name(), if threads == 1 { "" } else { "s" })
    }

    /// Beyond, products go through the blocked kernels, and attention is no longer cut along the context.
    fn uniform_rows(&self) -> usize {
        vectors::uniform(self.level).min(MANY_ROWS)
    }

    fn tensor(&self, max_rows: usize, columns: usize) -> Result<CpuTensor, BackendError> {
        let tensor = CpuTensor::new(self.memory.as_ref(), max_rows, columns)?;
        self.shared().linear.reserve(self.threads(), max_rows, columns);
        Ok(tensor)
    }

    fn resize(&self, tensor: &mut CpuTensor, rows: usize) -> Result<(), BackendError> {
        tensor.set_rows("resize", rows)
    }

    fn write(&self, tensor: &mut CpuTensor, values: &[f32]) -> Result<(), BackendError> {
        let rows = values.len() / tensor.columns().max(1);
        BackendError::expect_size("write", "values", values.len(), rows * tensor.columns())?;
        tensor.set_rows("write", rows)?;
        tensor.values_mut().copy_from_slice(values);
        Ok(())
    }

    fn read(&self, tensor: &CpuTensor, out: &mut [f32]) -> Result<(), BackendError> {
        BackendError::expect_size("read", "destination", out.len(), tensor.values().len())?;
        out.copy_from_slice(tensor.values());
        Ok(())
    }

    fn weight(&self, source: WeightSource) -> Result<CpuWeight, BackendError> {
        CpuWeight::new(source)
    }

    fn adopt_thread(&self) {
        if !self.place.is_empty() {
            topology::bind_current_thread(&self.place);
        }
    }

    fn cache(&self, spec: &CacheSpec) -> Result<CpuCache, BackendError> {
        CpuCache::new(spec)
    }

    fn use_in_order(&self, cache: &mut CpuCache) {
        cache.use_in_order();
    }

    fn block_bytes(&self, cache: &CpuCache) -> usize {
        cache.block_bytes()
    }

    fn block_memory(&self, cache: &CpuCache) -> usize {
        cache.layout().block
    }

    fn keep_tokens(&self, cache: &CpuCache, tokens: usize, saved: &mut [u8]) -> Result<(), BackendError> {
        BackendError::expect_size("keep_tokens", "bytes of a block", saved.len(), cache.block_bytes())?;
        cache.layout().keep_tokens(tokens, saved);
        Ok(())
    }

    fn copy_block(&self, cache: &mut CpuCache, from: u32, to: u32) -> Result<(), BackendError> {
        cache.copy_block(from, to)
    }

    fn save_block(&self, cache: &CpuCache, block: u32, out: &mut [u8]) -> Result<(), BackendError> {
        cache.save_block(block, out)
    }

    fn load_block(&self, cache: &mut CpuCache, block: u32, bytes: &[u8]) -> Result<(), BackendError> {
        cache.load_block(block, bytes)
    }

    fn release_blocks(&self, cache: &mut CpuCache, blocks: &[u32]) -> Result<(), BackendError> {
        cache.release_blocks(blocks)
    }

    fn embed(&self, table: &CpuWeight, ids: &[u32], scale: f32, out: &mut CpuTensor) -> Result<(), BackendError> {
        BackendError::expect_size("embed", "output columns", out.columns(), table.columns())?;
        let rows = table.matrix(0)?;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= rows.rows) {
            return Err(BackendError::OutOfRange { op: "embed", what: "token id", index: id as usize, len: rows.rows });
        }
        out.set_rows("embed", ids.len())?;
        let row_bytes = rows.bytes.len() / rows.rows.max(1);
        let failure = Mutex::new(None);
        self.each_row(out.columns(), out.values_mut(), &|row, to| {
            let blocks = &rows.bytes[ids[row] as usize * row_bytes..][..row_bytes];
            match weight::decode(rows.ty, blocks, to) {
                Ok(()) => to.iter_mut().for_each(|x| *x *= scale),
                Err(error) => *lock(&failure) = Some(error),
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn norm(&self, x: &CpuTensor, norm: Norm<'_, Self>, out: &mut CpuTensor) -> Result<(), BackendError> {
        BackendError::expect_size("norm", "output columns", out.columns(), x.columns())?;
        let weight = norm.weight.vector("norm", "norm weight length", x.columns())?;
        out.set_rows("norm", x.rows())?;
        self.each_row(x.columns(), out.values_mut(), &|row, to| {
            rms_norm(self.level, x.row(row), weight, norm.epsilon, to);
        });
        Ok(())
    }

    fn project(
        &self,
        x: &CpuTensor,
        norm: Option<Norm<'_, Self>>,
        projections: &mut [Projection<'_, Self>],
    ) -> Result<(), BackendError> {
        linear::project(self, x, norm, projections)
    }

    fn gated(
        &self,
        x: &CpuTensor,
        norm: Option<Norm<'_, Self>>,
        gate: &CpuWeight,
        up: &CpuWeight,
        activation: Activation,
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        linear::gated(self, x, norm, [gate, up], activation, out)
    }

    fn attention(
        &self,
        args: Attention<'_, Self>,
        cache: &mut CpuCache,
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        attention::attend(self, args, cache, out)
    }

    fn experts(
        &self,
        x: &CpuTensor,
        norm: Option<Norm<'_, Self>>,
        experts: &Experts<'_, Self>,
        out: &mut CpuTensor,
    ) -> Result<(), BackendError> {
        experts::add(self, x, norm, experts, out)
    }

    fn gather(&self, x: &CpuTensor, rows: &[u32], out: &mut CpuTensor) -> Result<(), BackendError> {
        BackendError::expect_size("gather", "output columns", out.columns(), x.columns())?;
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= x.rows()) {
            return Err(BackendError::OutOfRange { op: "gather", what: "row", index: row as usize, len: x.rows() });
        }
        out.set_rows("gather", rows.len())?;
        for (to, &from) in out.values_mut().chunks_exact_mut(x.columns().max(1)).zip(rows) {
            to.copy_from_slice(x.row(from as usize));
        }
        Ok(())
    }
}
