//! Models of random weights, as GGUF in memory, so that the path of a real file is the one that is measured.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use woolly_cpu::ceiling::HugeMemory;
use woolly_engine::Rng;
use woolly_gguf::{GGUFLoader, GGUFWriter, SharedBytes, TensorSource, Value};
use woolly_model::mix::{Mix, ModelFacts, TensorFacts};
use woolly_quant::TensorType;

use super::Shape;
use crate::Error;

/// Elements of the pattern that fills the tensors of a type: too many for a first-level cache, few enough to encode at once.
const PATTERN: usize = 1 << 16;
/// Token types of the vocabulary, as GGUF numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// A shape with random weights in a quantisation.
///
/// Speed does not depend on the values. Nothing the model says means anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// The sizes.
    pub shape: Shape,
    /// The tensor types.
    pub mix: Mix,
}

/// A tensor to be made.
struct Planned {
    name: String,
    dims: Vec<u64>,
    ty: TensorType,
}

impl Synthetic {
    /// Makes the model in memory, for contexts of at least `context` tokens.
    ///
    /// # Errors
    /// [`Error::Memory`] before anything is allocated, [`Error::Weights`] for a type without encoder.
    pub fn build(&self, context: usize) -> Result<SharedBytes, Error> {
        let patterns = Patterns::new(self)?;
        let available = woolly::available_memory().unwrap_or(u64::MAX);
        let memory = |needed| Error::Memory { name: self.to_string(), needed, available };
        let weights = patterns.bytes();
        if weights > available {
            return Err(memory(weights));
        }
        let mut writer = patterns.writer(self, context);
        // Written twice: the first time to nowhere, for the length with all headers.
        let length = writer.write_to(io::sink())?;
        let bytes = usize::try_from(length).ok().and_then(HugeMemory::zeroed);
        let mut bytes = bytes.ok_or_else(|| memory(length))?;
        writer.write_to(&mut bytes[..])?;
        Ok(SharedBytes::from_owner(Arc::new(bytes)))
    }

    /// Writes the model to a file, for contexts of at least `context` tokens; for other engines to read.
    ///
    /// # Errors
    /// As [`build`](Self::build), and of the system.
    pub fn write(&self, context: usize, path: &Path) -> Result<u64, Error> {
        Ok(Patterns::new(self)?.writer(self, context).write_file(path)?)
    }

    /// Returns the path of the model in a folder, `TinyLlama-1.1B-Q4_K_M.gguf`, and writes it there if there is none; one
    /// that exists is only checked for contexts of `context` tokens.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::Parameter`] when what exists has shorter contexts, for nothing is overwritten.
    pub fn in_folder(&self, folder: &Path, context: usize) -> Result<PathBuf, Error> {
        let path = folder.join(self.file_name());
        if !path.exists() {
            self.write(context, &path)?;
            return Ok(path);
        }
        let metadata_key = format!("{}.context_length", self.shape.architecture);
        let found = GGUFLoader::open(&path)?.metadata().u32(&metadata_key).ok().flatten().unwrap_or(0);
        if (found as usize) < context {
            let why =
                format!("{} has contexts of {found} tokens, but {context} are needed; move it away", path.display());
            return Err(Error::Parameter(why));
        }
        Ok(path)
    }

    fn file_name(&self) -> String {
        format!("{}.gguf", self.to_string().replace(':', "-"))
    }

    /// Writes the model to a file in a new temporary folder, which goes when the first value returned is dropped.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_temporary(&self, context: usize) -> Result<(TempDir, PathBuf), Error> {
        let io = |source| Error::Io { what: "make a temporary folder".to_owned(), source };
        let folder = tempfile::tempdir().map_err(io)?;
        let path = self.in_folder(folder.path(), context)?;
        Ok((folder, path))
    }

    fn planned(&self) -> Vec<Planned> {
        let Shape { architecture, layers, heads, kv_heads, experts, .. } = self.shape;
        let experts = experts.map_or(0, |(count, _)| count);
        let facts = ModelFacts { architecture: architecture.to_owned(), block_count: layers, heads, kv_heads, experts };
        let tensors = self.shape.tensors();
        let described: Vec<_> =
            tensors.iter().map(|(name, dims)| TensorFacts { name, dims, ty: TensorType::F32 }).collect();
        let types = self.mix.assign(&facts, &described, false);
        tensors.into_iter().zip(types).map(|((name, dims), ty)| Planned { name, dims, ty }).collect()
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.mix)
    }
}

/// What the tensors of each type are filled with, again and again; every tensor still has memory of its own.
struct Patterns {
    tensors: Vec<Planned>,
    by_type: Vec<(TensorType, Vec<u8>)>,
    ones: Vec<u8>,
}

impl Patterns {
    fn new(model: &Synthetic) -> Result<Self, Error> {
        let tensors = model.planned();
        let mut rng = Rng::new(1);
        // Four uniform numbers make a good enough bell, of the spread that trained weights have.
        let mut draw = || (0..4).map(|_| rng.unit() - 0.5).sum::<f64>() as f32 * 0.04;
        let values: Vec<f32> = (0..PATTERN).map(|_| draw()).collect();
        let mut by_type: Vec<(TensorType, Vec<u8>)> = Vec::new();
        for Planned { ty, .. } in &tensors {
            if by_type.iter().all(|(known, _)| known != ty) {
                by_type.push((*ty, encoded(model, *ty, &values)?));
            }
        }
        Ok(Self { tensors, by_type, ones: 1_f32.to_le_bytes().repeat(1 << 12) })
    }

    /// Bytes of all tensors.
    fn bytes(&self) -> u64 {
        let bytes = self.tensors.iter().map(|tensor| bytes_of(tensor.ty, &tensor.dims) as u64);
        bytes.fold(0, u64::saturating_add)
    }

    fn writer(&self, model: &Synthetic, context: usize) -> GGUFWriter<'_> {
        let mut writer = GGUFWriter::new();
        writer
            .set("general.architecture", model.shape.architecture)
            .set("general.name", format!("{model} (random weights)"))
            .set("general.file_type", model.mix.file_type());
        for (key, value) in model.shape.metadata(context) {
            writer.set(&key, value);
        }
        set_vocabulary(&mut writer, model.shape.vocabulary as usize);
        for Planned { name, dims, ty } in &self.tensors {
            let pattern = if name.ends_with("norm.weight") { &self.ones } else { self.of(*ty) };
            let bytes = bytes_of(*ty, dims);
            writer.tensor(name, dims, *ty, TensorSource::stream(move |out| fill(out, pattern, bytes)));
        }
        writer
    }

    fn of(&self, ty: TensorType) -> &[u8] {
        self.by_type.iter().find(|(known, _)| *known == ty).map_or(&[], |(_, pattern)| pattern)
    }
}

fn encoded(model: &Synthetic, ty: TensorType, values: &[f32]) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Weights { shape: model.shape.name.to_owned(), mix: model.mix.to_string(), why };
    let bytes = ty.row_bytes(values.len()).ok_or_else(|| failed(format!("{ty} has blocks of another size")))?;
    let mut pattern = vec![0; bytes];
    ty.encode(values, &mut pattern).map_err(|error| failed(error.to_string()))?;
    Ok(pattern)
}

/// Bytes of a tensor; rows that are no whole number of blocks are the writer's to refuse.
fn bytes_of(ty: TensorType, dims: &[u64]) -> usize {
    let elements = dims.iter().product::<u64>();
    usize::try_from(elements).ok().and_then(|elements| ty.row_bytes(elements)).unwrap_or(0)
}

fn fill(out: &mut dyn Write, pattern: &[u8], mut bytes: usize) -> io::Result<()> {
    while bytes > 0 && !pattern.is_empty() {
        let piece = bytes.min(pattern.len());
        out.write_all(&pattern[..piece])?;
        bytes -= piece;
    }
    Ok(())
}

/// A vocabulary that SentencePiece tokenizers of all engines accept: special tokens, every byte, and numbered words.
fn set_vocabulary(writer: &mut GGUFWriter<'_>, size: usize) {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let words = (0..).map(|number| format!("\u{2581}w{number}"));
    let tokens: Vec<String> = special.chain(bytes).chain(words).take(size).collect();
    let kinds = [UNKNOWN, CONTROL, CONTROL].into_iter().chain([BYTE; 256]).chain(std::iter::repeat(NORMAL));
    let scores: Vec<f32> = (0..size).map(|rank| -(rank as f32)).collect();
    writer
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.scores", scores)
        .set("tokenizer.ggml.token_type", Value::from(kinds.take(size).collect::<Vec<i32>>()))
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32)
        .set("tokenizer.ggml.unknown_token_id", 0_u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_model::mix::is_quantisable;

    #[test]
    fn what_is_in_a_folder_is_used_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let tiny = Synthetic { shape: Shape::tiny(), mix: Mix::Q8_0 };
        let path = tiny.in_folder(dir.path(), 100).expect("written");
        assert!(path.ends_with("tiny-Q8_0.gguf"), "{path:?}");
        let written = path.metadata().and_then(|file| file.modified()).expect("a time");
        assert_eq!(tiny.in_folder(dir.path(), 80).expect("used"), path);
        let refused = tiny.in_folder(dir.path(), 200).expect_err("too short").to_string();
        assert!(refused.contains("100") && refused.contains("200"), "{refused}");
        assert_eq!(path.metadata().and_then(|file| file.modified()).expect("a time"), written);
    }

    #[test]
    fn the_types_are_those_of_the_mix_and_the_vocabulary_has_its_size() {
        let model = Synthetic { shape: Shape::tiny(), mix: Mix::Q4_K_M };
        let loader = GGUFLoader::from_bytes(model.build(100).expect("fits")).expect("valid");
        assert_eq!(loader.metadata().require_u32("llama.context_length").expect("set"), 100);
        assert_eq!(loader.metadata().require_u32("general.file_type").expect("set"), 15);
        let ty = |name: &str| loader.tensor(name).map(woolly_gguf::TensorInfo::ty);
        assert_eq!(ty("blk.0.attn_q.weight"), Some(TensorType::Q4_K));
        assert_eq!(ty("output.weight"), Some(TensorType::Q6_K));
        assert_eq!(ty("blk.0.attn_norm.weight"), Some(TensorType::F32));
        for facts in TensorFacts::of(&loader) {
            assert_eq!(is_quantisable(&facts), facts.ty != TensorType::F32, "{}", facts.name);
        }
        let tokenizer = woolly::Tokenizer::from_metadata(loader.metadata()).expect("a tokenizer");
        assert_eq!(tokenizer.vocab_size(), 320);
    }

    #[test]
    fn tensors_of_one_type_lie_in_memory_of_their_own() {
        let model = Synthetic { shape: Shape::tiny(), mix: Mix::Q8_0 };
        let loader = GGUFLoader::from_bytes(model.build(0).expect("fits")).expect("valid");
        let mut ranges: Vec<_> = loader.tensors().iter().map(|info| loader.tensor_bytes(info).range()).collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let total: u64 = loader.tensors().iter().map(woolly_gguf::TensorInfo::byte_len).sum();
        assert!(loader.file_bytes() >= total);
    }

    #[test]
    fn a_model_larger_than_memory_is_refused_before_it_is_made() {
        let shape = Shape { inner: 1 << 40, ..Shape::tiny() };
        let refused = Synthetic { shape, mix: Mix::Q8_0 }.build(0);
        assert!(matches!(refused, Err(Error::Memory { .. })), "{refused:?}");
    }
}
