//! What a GGUF file holds, told without loading the model and without knowing its architecture.

use std::path::PathBuf;

use woolly_engine::SamplingParams;
use woolly_gguf::{GGUFLoader, Metadata};
use woolly_quant::TensorType;
use woolly_tensor::CacheType;

use crate::{Error, recommended};

/// The facts about a model file that one wants before loading it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The (first) file; `None` for a model in memory.
    pub path: Option<PathBuf>,
    /// Bytes of all files together.
    pub file_bytes: u64,
    /// Version of the file format.
    pub gguf_version: u32,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// Whether this version of Woolly can run the architecture.
    pub supported: bool,
    /// `general.name`.
    pub name: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Number of tensors.
    pub tensor_count: usize,
    /// Storage types, the one with the most bytes first.
    pub types: Vec<TypeShare>,
    /// Most tokens the model was made for.
    pub context_length: Option<u64>,
    /// Number of layers.
    pub block_count: Option<u64>,
    /// Size of a token's vector.
    pub embedding_length: Option<u64>,
    /// `tokenizer.ggml.model`.
    pub tokenizer: Option<String>,
    /// `tokenizer.ggml.pre`.
    pub pre_tokenizer: Option<String>,
    /// Number of tokens of the vocabulary.
    pub vocab_size: Option<usize>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
    /// How the file recommends to draw tokens (`general.sampling.*`); the default where it says nothing.
    pub sampling: SamplingParams,
    /// Bytes of keys and values one token of context takes in half precision.
    pub kv_bytes_per_token: Option<u64>,
}

/// How much of a file is stored in one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeShare {
    /// The type.
    pub ty: TensorType,
    /// Number of tensors.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Summary {
    /// Collects the facts from an opened file.
    ///
    /// # Errors
    /// Where a key holds a value of a type that it cannot have; a missing key is no error.
    pub fn of(loader: &GGUFLoader) -> Result<Self, Error> {
        let metadata = loader.metadata();
        let architecture = text(metadata, "general.architecture")?;
        let known = woolly_model::architectures();
        let keys = Keys { metadata, architecture: architecture.as_deref().unwrap_or_default() };
        Ok(Self {
            path: loader.path().map(PathBuf::from),
            file_bytes: loader.file_bytes(),
            gguf_version: loader.version(),
            supported: known.contains(&keys.architecture),
            name: text(metadata, "general.name")?,
            parameters: loader.tensors().iter().map(|t| t.elements()).sum(),
            tensor_count: loader.tensors().len(),
            types: type_shares(loader),
            context_length: keys.number("context_length")?,
            block_count: keys.number("block_count")?,
            embedding_length: keys.number("embedding_length")?,
            tokenizer: text(metadata, "tokenizer.ggml.model")?,
            pre_tokenizer: text(metadata, "tokenizer.ggml.pre")?,
            vocab_size: metadata.strings("tokenizer.ggml.tokens")?.map(|tokens| tokens.len()),
            chat_template: text(metadata, "tokenizer.chat_template")?,
            sampling: recommended::sampling(metadata)?,
            kv_bytes_per_token: keys.kv_bytes_per_token()?,
            architecture,
        })
    }
}

/// Metadata keys that begin with the architecture's name.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.metadata.u64(&format!("{}.{name}", self.architecture))?)
    }

    /// Layers × key-value heads × (key + value elements) × 2 bytes.
    fn kv_bytes_per_token(&self) -> Result<Option<u64>, Error> {
        let numbers =
            (self.number("block_count")?, self.number("embedding_length")?, self.heads("attention.head_count")?);
        let (Some(layers), Some(width), Some(heads)) = numbers else { return Ok(None) };
        let kv_heads = self.heads("attention.head_count_kv")?.unwrap_or(heads);
        let head = width.checked_div(heads).unwrap_or(0);
        let key = self.number("attention.key_length")?.unwrap_or(head);
        let value = self.number("attention.value_length")?.unwrap_or(head);
        let lengths = (usize::try_from(key), usize::try_from(value));
        let (Ok(key), Ok(value)) = lengths else { return Ok(None) };
        let Some(token) = CacheType::F16.token_bytes(key, value) else { return Ok(None) };
        let factors = [layers, kv_heads, token as u64];
        Ok(factors.into_iter().try_fold(1_u64, u64::checked_mul))
    }

    /// Head counts that differ by layer are an array; nothing is said about these.
    fn heads(&self, name: &str) -> Result<Option<u64>, Error> {
        let key = format!("{}.{name}", self.architecture);
        match self.metadata.get(&key) {
            Some(woolly_gguf::Value::Array(_)) => Ok(None),
            _ => Ok(self.metadata.u64(&key)?),
        }
    }
}

fn text(metadata: &Metadata, key: &str) -> Result<Option<String>, Error> {
    Ok(metadata.str(key)?.map(str::to_owned))
}

fn type_shares(loader: &GGUFLoader) -> Vec<TypeShare> {
    let mut shares: Vec<TypeShare> = Vec::new();
    for tensor in loader.tensors() {
        let (ty, bytes) = (tensor.ty(), tensor.byte_len());
        match shares.iter_mut().find(|share| share.ty == ty) {
            Some(share) => {
                share.tensors += 1;
                share.bytes += bytes;
            }
            None => shares.push(TypeShare { ty, tensors: 1, bytes }),
        }
    }
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}
