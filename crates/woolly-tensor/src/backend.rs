//! The operations model code is written in.
//!
//! Model code calls them in order; a backend may run each at once (CPU), record a lazy graph (MLX) or fill a stream
//! (CUDA), and synchronises only in [`Backend::read`]. Activations are `f32` matrices `[rows, columns]`, one row a
//! token; how they lie in memory is the backend's business. Weights stay in the type the file stores them in.

use std::fmt;
use std::str::FromStr;

use crate::{BackendError, Batch, WeightSource};

/// A device that runs models; see the module for the execution model and [`mod@crate::conformance`] for what it must pass.
pub trait Backend: Send + Sync + Sized + 'static {
    /// A matrix of `f32` activations with a fixed column count and up to a fixed number of rows.
    type Tensor: Send;
    /// A read-only weight: vector, matrix, or stack of matrices (experts).
    type Weight: Send + Sync;
    /// The key-value cache of all layers, divided into blocks of [`crate::BLOCK_TOKENS`] tokens.
    type Cache: Send;

    /// Returns a short name of the device and what it uses, for logs: `cpu (avx512, 2 threads)`.
    fn describe(&self) -> String;

    /// Returns the rows up to which results of a step are the same bit for bit however rows are put together: with more,
    /// another kernel may round differently. One row alone always is.
    fn uniform_rows(&self) -> usize {
        1
    }

    /// Allocates a tensor of `columns` columns and room for `max_rows` rows; it starts with `max_rows` rows of zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`].
    fn tensor(&self, max_rows: usize, columns: usize) -> Result<Self::Tensor, BackendError>;

    /// Sets the number of rows in use; contents of the rows are unspecified afterwards.
    ///
    /// # Errors
    /// [`BackendError::Shape`] when the tensor has no room for them.
    fn resize(&self, tensor: &mut Self::Tensor, rows: usize) -> Result<(), BackendError>;

    /// Copies `values` (`[rows, columns]`, row-major) into the tensor and sets its rows to fit.
    ///
    /// # Errors
    /// [`BackendError::Shape`] when the values are no whole number of rows or too many.
    fn write(&self, tensor: &mut Self::Tensor, values: &[f32]) -> Result<(), BackendError>;

    /// Waits for everything that leads to `tensor` and copies its rows in use to `out` (`[rows, columns]`, row-major).
    ///
    /// # Errors
    /// [`BackendError::Shape`] when `out` has another size; any deferred failure of the device.
    fn read(&self, tensor: &Self::Tensor, out: &mut [f32]) -> Result<(), BackendError>;

    /// Prepares a weight for use; the CPU keeps the bytes where they lie.
    ///
    /// # Errors
    /// [`BackendError::WeightBytes`], [`BackendError::UnsupportedType`], [`BackendError::OutOfMemory`].
    fn weight(&self, source: WeightSource) -> Result<Self::Weight, BackendError>;

    /// Says that the calling thread is there for this backend's operations alone, so that it may be bound to a processor.
    /// By default nothing happens.
    fn adopt_thread(&self) {}

    /// Allocates a key-value cache.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], [`BackendError::Unsupported`] for a storage type the device lacks.
    fn cache(&self, spec: &CacheSpec) -> Result<Self::Cache, BackendError>;

    /// Says that blocks of the cache are used from the first on and kept, so that memory may be taken in larger steps than a
    /// block, which makes reading a long context faster. Contents stay. By default nothing happens.
    fn use_in_order(&self, _cache: &mut Self::Cache) {}

    /// Returns the bytes that [`save_block`](Self::save_block) writes for one block: all layers and heads.
    fn block_bytes(&self, cache: &Self::Cache) -> usize;

    /// Returns the bytes of memory that a block of the cache takes once it is written to, what keeps it apart from the next
    /// included; at least [`block_bytes`](Self::block_bytes), which is the default.
    fn block_memory(&self, cache: &Self::Cache) -> usize {
        self.block_bytes(cache)
    }

    /// Copies the contents of block `from` to block `to`, all layers and heads: what a sequence needs that is to write to
    /// a partly filled block it shares with another. A block copied to itself stays as it is.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for a block outside the cache.
    fn copy_block(&self, cache: &mut Self::Cache, from: u32, to: u32) -> Result<(), BackendError>;

    /// Writes the stored contents of a block to `out`, which has exactly [`block_bytes`](Self::block_bytes) bytes.
    ///
    /// The form is the backend's own. It suits every cache that this kind of backend makes from an equal [`CacheSpec`],
    /// the number of blocks aside, and nothing else.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for a block outside the cache; [`BackendError::Shape`] when `out` has another size.
    fn save_block(&self, cache: &Self::Cache, block: u32, out: &mut [u8]) -> Result<(), BackendError>;

    /// Restores, bit for bit, what [`save_block`](Self::save_block) wrote, as the contents of `block`.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for a block outside the cache; [`BackendError::Shape`] when `bytes` has another size
    /// than [`block_bytes`](Self::block_bytes).
    fn load_block(&self, cache: &mut Self::Cache, block: u32, bytes: &[u8]) -> Result<(), BackendError>;

    /// Zeros in `saved`, contents of a block that [`save_block`](Self::save_block) wrote, whatever belongs to other tokens
    /// than the first `tokens`: what is left depends on nothing that the block held before.
    ///
    /// # Errors
    /// [`BackendError::Shape`] when `saved` has another size than [`block_bytes`](Self::block_bytes).
    fn keep_tokens(&self, cache: &Self::Cache, tokens: usize, saved: &mut [u8]) -> Result<(), BackendError>;

    /// Gives the memory of `blocks` back to the system as far as the device can; they stay usable, and their contents are
    /// unspecified until they are written again. Other blocks keep theirs.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for a block outside the cache; no memory has been given back then.
    fn release_blocks(&self, cache: &mut Self::Cache, blocks: &[u32]) -> Result<(), BackendError>;

    /// Looks up embeddings: `out[i] = scale · table[ids[i]]`, with as many rows as ids.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for an id beyond the table; [`BackendError::Shape`].
    fn embed(&self, table: &Self::Weight, ids: &[u32], scale: f32, out: &mut Self::Tensor) -> Result<(), BackendError>;

    /// Normalises every row: `out = norm(x)`.
    ///
    /// # Errors
    /// [`BackendError::Shape`].
    fn norm(&self, x: &Self::Tensor, norm: Norm<'_, Self>, out: &mut Self::Tensor) -> Result<(), BackendError>;

    /// Multiplies one input with several weights: for each projection, `out = W · n(x) + b`, or `out += …` when it
    /// accumulates; `n` is the normalisation, if any. Outputs get as many rows as `x`.
    ///
    /// # Errors
    /// [`BackendError::Shape`].
    fn project(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        projections: &mut [Projection<'_, Self>],
    ) -> Result<(), BackendError>;

    /// Computes the inner part of a gated feed-forward: `out = act(gate · n(x)) ⊙ (up · n(x))`.
    ///
    /// # Errors
    /// [`BackendError::Shape`].
    fn gated(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        gate: &Self::Weight,
        up: &Self::Weight,
        activation: Activation,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Runs causal attention of one layer over the batch: normalises and rotates `q` and `k`, writes `k` and `v` to the
    /// cache, and attends every row to its own sequence up to its own position.
    ///
    /// # Errors
    /// [`BackendError::Shape`]; [`BackendError::OutOfRange`] for a block, layer or position outside the cache.
    fn attention(
        &self,
        args: Attention<'_, Self>,
        cache: &mut Self::Cache,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Adds a mixture of experts to `out`: `out += Σ_e p_e · down_e(act(gate_e · n(x)) ⊙ (up_e · n(x)))` over each row's
    /// chosen experts.
    ///
    /// # Errors
    /// [`BackendError::Shape`].
    fn experts(
        &self,
        x: &Self::Tensor,
        norm: Option<Norm<'_, Self>>,
        experts: &Experts<'_, Self>,
        out: &mut Self::Tensor,
    ) -> Result<(), BackendError>;

    /// Copies the named rows of `x`, in the order given, to `out`, which gets as many rows as are named.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for a row beyond `x`; [`BackendError::Shape`].
    fn gather(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor) -> Result<(), BackendError>;
}

/// Root-mean-square normalisation `x / sqrt(mean(x²) + ε) · w` (Zhang and Sennrich, 2019).
pub struct Norm<'a, B: Backend> {
    /// Weight vector as long as a row.
    pub weight: &'a B::Weight,
    /// ε, added to the mean square.
    pub epsilon: f32,
}

impl<B: Backend> Clone for Norm<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Norm<'_, B> {}

/// One output of [`Backend::project`].
pub struct Projection<'a, B: Backend> {
    /// Matrix `[inputs, outputs]`.
    pub weight: &'a B::Weight,
    /// Vector added to every row, as long as the output's columns.
    pub bias: Option<&'a B::Weight>,
    /// Destination `[rows, outputs]`.
    pub out: &'a mut B::Tensor,
    /// Whether the result is added to what `out` holds (a residual connection) instead of replacing it.
    pub accumulate: bool,
}

/// Non-linearity of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`.
    Gelu,
}

/// Operands of [`Backend::attention`].
pub struct Attention<'a, B: Backend> {
    /// Layer whose part of the cache is used.
    pub layer: usize,
    /// Queries `[rows, heads · key_length]`; holds the rotated queries afterwards or is left unspecified.
    pub q: &'a mut B::Tensor,
    /// New keys `[rows, kv_heads · key_length]`; likewise.
    pub k: &'a mut B::Tensor,
    /// New values `[rows, kv_heads · value_length]`.
    pub v: &'a B::Tensor,
    /// Per-head normalisation of the queries before rotation, weight `[key_length]`.
    pub q_norm: Option<Norm<'a, B>>,
    /// Per-head normalisation of the keys before rotation, weight `[key_length]`.
    pub k_norm: Option<Norm<'a, B>>,
    /// Rotary position embedding of queries and keys.
    pub rope: Option<Rope<'a>>,
    /// Numbers of heads, sizes and score rules.
    pub shape: AttentionShape,
    /// Sequences, positions and cache blocks.
    pub batch: Batch<'a>,
}

/// Numbers of heads, sizes and score rules of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`, query head `h` uses key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of a key or query head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// Factor on the scores, usually `1 / sqrt(key_length)`.
    pub scale: f32,
    /// `cap · tanh(score / cap)` on the scaled scores, where given.
    pub softcap: Option<f32>,
    /// Sliding window `w`: position `p` sees only `p'` with `p − p' < w`.
    pub window: Option<usize>,
}

/// Rotary position embedding (Su et al., 2021) with the angles of this step's rows already computed.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Rotated elements of each head, `2 × pairs`; the rest pass unchanged.
    pub dims: usize,
    /// `[rows, pairs, 2]`: cosine and sine, with any magnitude factor multiplied in.
    pub angles: &'a [f32],
}

/// Which two elements of a head a rotation acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Elements `2i` and `2i + 1`.
    Adjacent,
    /// Elements `i` and `i + dims / 2`.
    Halves,
}

/// Size and storage of a key-value cache.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheSpec {
    /// Number of layers.
    pub layers: usize,
    /// Key-value heads of each layer.
    pub kv_heads: usize,
    /// Elements of a key head.
    pub key_length: usize,
    /// Elements of a value head.
    pub value_length: usize,
    /// Number of blocks of [`crate::BLOCK_TOKENS`] tokens, shared by all sequences.
    pub blocks: usize,
    /// How keys and values are stored.
    pub storage: CacheType,
}

/// How keys and values are stored in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheType {
    /// Single precision: 4 bytes an element.
    F32,
    /// Half precision: 2 bytes an element.
    F16,
    /// A byte an element: each key and each value of a head is a half-precision scale, its largest magnitude over 127,
    /// times whole numbers.
    Q8,
    /// Keys as [`Q8`](Self::Q8); values in four bits: of every 32 elements, the last being possibly fewer, there is a
    /// half-precision scale, the element of largest magnitude over -8, times whole numbers from -8 to 7.
    Q8Q4,
}

impl CacheType {
    /// All types, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8, Self::Q8Q4];

    /// Returns the name: `f32`, `f16`, `q8`, `q8q4`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q8Q4 => "q8q4",
        }
    }

    /// Returns the bytes of one token's key and value of one head, scales included, or `None` on overflow.
    pub fn token_bytes(self, key_length: usize, value_length: usize) -> Option<usize> {
        let (key, value) = match self {
            Self::F32 => (key_length.checked_mul(4)?, value_length.checked_mul(4)?),
            Self::F16 => (key_length.checked_mul(2)?, value_length.checked_mul(2)?),
            Self::Q8 => (key_length.checked_add(2)?, value_length.checked_add(2)?),
            Self::Q8Q4 => (key_length.checked_add(2)?, value_length.div_ceil(32).checked_mul(18)?),
        };
        key.checked_add(value)
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CacheType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|ty| ty.name() == name);
        found.ok_or_else(|| format!("unknown cache type `{name}`; known are {}", known()))
    }
}

impl CacheSpec {
    /// Returns the bytes of one block over all layers, or `None` on overflow.
    pub fn block_bytes(&self) -> Option<usize> {
        let token = self.storage.token_bytes(self.key_length, self.value_length)?.checked_mul(self.kv_heads)?;
        token.checked_mul(self.layers)?.checked_mul(crate::BLOCK_TOKENS)
    }

    /// Returns the bytes of the whole cache, or `None` on overflow.
    pub fn bytes(&self) -> Option<usize> {
        self.block_bytes()?.checked_mul(self.blocks)
    }
}

/// A mixture of experts: a router that chooses, and stacks of feed-forward matrices.
pub struct Experts<'a, B: Backend> {
    /// Router `[inputs, experts]`.
    pub router: &'a B::Weight,
    /// Gate matrices `[inputs, inner, experts]`.
    pub gate: &'a B::Weight,
    /// Up matrices `[inputs, inner, experts]`.
    pub up: &'a B::Weight,
    /// Down matrices `[inner, inputs, experts]`.
    pub down: &'a B::Weight,
    /// Experts chosen for each row.
    pub used: usize,
    /// How router outputs become weights.
    pub gating: Gating,
    /// Whether the chosen weights are divided by their sum (clamped to at least 2⁻¹⁴).
    pub renormalise: bool,
    /// Factor on the chosen weights.
    pub scale: f32,
    /// Non-linearity of the experts.
    pub activation: Activation,
}

/// How router outputs become expert weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gating {
    /// Softmax over all experts, then the largest are chosen.
    Softmax,
    /// Logistic function of each output.
    Sigmoid,
}
