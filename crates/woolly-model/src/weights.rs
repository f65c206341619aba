//! Tensors of the file, checked against the hyper-parameters and handed to the backend where they lie.
//!
//! Nothing is copied except stacks of experts that early files store one by one. Whatever no architecture asked for is
//! remembered and reported by [`Tensors::finish`].

use std::collections::HashSet;

use woolly_gguf::{GGUFLoader, TensorInfo};
use woolly_quant::TensorType;
use woolly_tensor::{Backend, WeightSource};

use crate::Error;

const EMBEDDING: &str = "token_embd.weight";

/// Tensors that repeat what the hyper-parameters say and that readers are expected to ignore.
const REDUNDANT: [&str; 3] = ["rope_freqs.weight", "attn_rot_embd.weight", "rotary_emb.inv_freq"];

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of tensors handed to the backend.
    pub bytes_done: u64,
    /// Bytes of all tensors of the file.
    pub bytes_total: u64,
}

/// Returns the number of rows of the embedding table.
pub(crate) fn embedding_rows(loader: &GGUFLoader) -> Result<u64, Error> {
    let info = loader.tensor(EMBEDDING).ok_or_else(|| missing(EMBEDDING))?;
    Ok(info.dims().get(1).copied().unwrap_or(1))
}

/// The tensors of a file on their way to a backend.
pub(crate) struct Tensors<'a, B: Backend> {
    loader: &'a GGUFLoader,
    backend: &'a B,
    on_progress: &'a mut dyn FnMut(LoadProgress),
    progress: LoadProgress,
    used: HashSet<String>,
}

impl<'a, B: Backend> Tensors<'a, B> {
    pub(crate) fn new(loader: &'a GGUFLoader, backend: &'a B, on_progress: &'a mut dyn FnMut(LoadProgress)) -> Self {
        let bytes_total = loader.tensors().iter().map(TensorInfo::byte_len).fold(0, u64::saturating_add);
        let progress = LoadProgress { bytes_done: 0, bytes_total };
        on_progress(progress);
        Self { loader, backend, on_progress, progress, used: HashSet::new() }
    }

    /// Returns the embedding table `[embedding_length, vocab_size]`.
    pub(crate) fn embedding(&mut self, dims: &[usize]) -> Result<B::Weight, Error> {
        self.required(EMBEDDING, dims)
    }

    /// Returns the tensor `name`, which must have the dimensions `dims` (fastest-running first; missing ones are 1).
    pub(crate) fn required(&mut self, name: &str, dims: &[usize]) -> Result<B::Weight, Error> {
        let source = self.source(name, dims)?;
        Ok(self.backend.weight(source)?)
    }

    /// As [`Self::required`], but `None` when the file has no such tensor.
    pub(crate) fn optional(&mut self, name: &str, dims: &[usize]) -> Result<Option<B::Weight>, Error> {
        if self.has(name) { self.required(name, dims).map(Some) } else { Ok(None) }
    }

    /// Returns the values of the vector `name`, `None` when the file has no such tensor.
    pub(crate) fn optional_values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if !self.has(name) {
            return Ok(None);
        }
        let source = self.source(name, &[len])?;
        let mut values = vec![0.0; len];
        let decoded = source.ty.decode(source.bytes()?, &mut values);
        decoded.map_err(|e| Error::InvalidTensor { name: name.to_owned(), why: format!("cannot be decoded: {e}") })?;
        Ok(Some(values))
    }

    /// Gives access to the tensors of one layer by their names within it.
    pub(crate) fn block(&mut self, index: usize) -> Block<'_, 'a, B> {
        Block { prefix: format!("blk.{index}."), tensors: self }
    }

    /// Warns of every tensor that nothing asked for and reports the end of loading.
    pub(crate) fn finish(self) {
        let unused: Vec<&str> =
            self.loader.tensors().iter().map(TensorInfo::name).filter(|n| self.is_lost(n)).collect();
        if !unused.is_empty() {
            tracing::warn!(
                count = unused.len(),
                names = unused.join(", "),
                "the file holds tensors that its architecture does not use; they have no effect"
            );
        }
        let bytes_total = self.progress.bytes_total;
        (self.on_progress)(LoadProgress { bytes_done: bytes_total, bytes_total });
    }

    fn is_lost(&self, name: &str) -> bool {
        !self.used.contains(name) && !REDUNDANT.iter().any(|suffix| name.ends_with(suffix))
    }

    fn has(&self, name: &str) -> bool {
        self.loader.tensor(name).is_some()
    }

    fn source(&mut self, name: &str, dims: &[usize]) -> Result<WeightSource, Error> {
        let info = self.loader.tensor(name).ok_or_else(|| missing(name))?;
        check_dims(info, dims)?;
        let bytes = self.loader.tensor_bytes(info);
        self.count(info)?;
        let (owner, range) = (bytes.owner(), bytes.range());
        Ok(WeightSource { name: name.to_owned(), ty: info.ty(), dims: padded(dims), owner, range })
    }

    /// Joins matrices that the file stores one by one into a stack of `dims`; the only copy of weights in this crate.
    fn stacked(&mut self, names: &[String], dims: [usize; 3]) -> Result<B::Weight, Error> {
        let (Some(first), mut bytes) = (names.first(), Vec::new()) else { return Err(missing("experts")) };
        let mut ty = None;
        for name in names {
            let source = self.source(name, &dims[..2])?;
            check_same_type(name, *ty.get_or_insert(source.ty), source.ty)?;
            bytes.extend_from_slice(source.bytes()?);
        }
        let ty = ty.unwrap_or(TensorType::F32);
        tracing::info!(first, bytes = bytes.len(), "copied experts stored one by one into a stack");
        Ok(self.backend.weight(WeightSource::from_bytes(first, ty, dims, bytes))?)
    }

    /// Tensors that overlap could make a small file fill any memory once they are copied to a device.
    fn count(&mut self, info: &TensorInfo) -> Result<(), Error> {
        self.used.insert(info.name().to_owned());
        self.progress.bytes_done = self.progress.bytes_done.saturating_add(info.byte_len());
        if self.progress.bytes_done > self.loader.file_bytes() {
            let why = "overlaps other tensors: together they have more bytes than the file".to_owned();
            return Err(Error::InvalidTensor { name: info.name().to_owned(), why });
        }
        (self.on_progress)(self.progress);
        Ok(())
    }
}

/// The tensors of one layer.
pub(crate) struct Block<'t, 'a, B: Backend> {
    prefix: String,
    tensors: &'t mut Tensors<'a, B>,
}

impl<B: Backend> Block<'_, '_, B> {
    /// As [`Tensors::required`], by the name within the layer.
    pub(crate) fn required(&mut self, name: &str, dims: &[usize]) -> Result<B::Weight, Error> {
        self.tensors.required(&self.full(name), dims)
    }

    /// As [`Tensors::optional`], by the name within the layer.
    pub(crate) fn optional(&mut self, name: &str, dims: &[usize]) -> Result<Option<B::Weight>, Error> {
        self.tensors.optional(&self.full(name), dims)
    }

    /// Returns a stack of expert matrices: `<name>_exps.weight`, or in early files `<name>.<expert>.weight` each.
    pub(crate) fn experts(&mut self, name: &str, dims: [usize; 3]) -> Result<B::Weight, Error> {
        let stack = self.full(&format!("{name}_exps.weight"));
        let single = |expert: usize| self.full(&format!("{name}.{expert}.weight"));
        if self.tensors.has(&stack) || !self.tensors.has(&single(0)) {
            return self.tensors.required(&stack, &dims);
        }
        let names: Vec<String> = (0..dims[2]).map(single).collect();
        self.tensors.stacked(&names, dims)
    }

    /// Fails when the layer has a tensor `name`, because leaving it out would change every result.
    pub(crate) fn refuse(&self, name: &str, why: &str) -> Result<(), Error> {
        let name = self.full(name);
        if self.tensors.has(&name) { Err(Error::InvalidTensor { name, why: why.to_owned() }) } else { Ok(()) }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}

fn check_dims(info: &TensorInfo, expected: &[usize]) -> Result<(), Error> {
    let found = info.dims();
    let agree = |i: usize| {
        let expected = u64::try_from(expected.get(i).copied().unwrap_or(1));
        expected.is_ok_and(|expected| found.get(i).copied().unwrap_or(1) == expected)
    };
    if (0..found.len().max(expected.len())).all(agree) {
        return Ok(());
    }
    Err(Error::TensorShape { name: info.name().to_owned(), found: found.to_vec(), expected: expected.to_vec() })
}

fn check_same_type(name: &str, first: TensorType, this: TensorType) -> Result<(), Error> {
    if first == this {
        return Ok(());
    }
    let why = format!("has type {this}, but the first expert has {first}; experts of one stack must agree");
    Err(Error::InvalidTensor { name: name.to_owned(), why })
}

fn padded(dims: &[usize]) -> [usize; 3] {
    std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1))
}
