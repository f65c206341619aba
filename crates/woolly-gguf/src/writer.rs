//! Writing GGUF version 3: to any writer, to a file that appears only when it is complete, or split over several files.
//!
//! Nothing is judged until the file is written; then names, dimensions, alignment and data lengths obey the same rules
//! as when reading, so that what was written can be read.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use woolly_quant::TensorType;

use crate::bytes::SharedBytes;
use crate::encode::{Pending, check_names, write_part};
use crate::error::{Error, SplitFault};
use crate::metadata::Metadata;
use crate::parse::ALIGNMENT_KEY;
use crate::split;
use crate::temporary::Temporary;
use crate::value::Value;

/// Metadata and tensors that become a GGUF file.
///
/// ```
/// use woolly_gguf::GGUFWriter;
/// use woolly_quant::TensorType;
///
/// # fn main() -> Result<(), woolly_gguf::Error> {
/// let mut writer = GGUFWriter::new();
/// writer.set("general.architecture", "llama").set("tokenizer.ggml.tokens", ["<s>", "a"]);
/// for layer in 0..2 {
///     writer.tensor(&format!("blk.{layer}.attn_norm.weight"), &[8], TensorType::F32, vec![0; 32]);
/// }
/// let bytes = writer.to_bytes()?;
/// # assert!(bytes.starts_with(b"GGUF"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct GGUFWriter<'a> {
    metadata: Metadata,
    tensors: Vec<Pending<'a>>,
}

impl<'a> GGUFWriter<'a> {
    /// Begins a file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a metadata value, in place of an earlier one with the same key.
    ///
    /// `general.alignment` (a `u32`, a power of two, at least 8) determines the alignment of the tensor data.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.metadata.insert(key, value.into());
        self
    }

    /// Sets all values of `metadata`, except for the keys `split.*`, which describe files and not the model.
    pub fn extend(&mut self, metadata: &Metadata) -> &mut Self {
        for (key, value) in metadata.iter().filter(|(key, _)| !split::KEYS.contains(key)) {
            self.metadata.insert(key, value.clone());
        }
        self
    }

    /// Adds a tensor of one to four dimensions, the row length first, whose data are rows of whole blocks of `ty`.
    ///
    /// The data may be a slice, a vector, an array, [`SharedBytes`] or a closure: [`TensorSource::stream`].
    pub fn tensor(&mut self, name: &str, dims: &[u64], ty: TensorType, data: impl Into<TensorSource<'a>>) -> &mut Self {
        self.tensors.push(Pending { name: name.to_owned(), dims: dims.to_vec(), ty, source: data.into() });
        self
    }

    /// Writes the file and returns its length in bytes.
    ///
    /// # Errors
    /// [`Error::Key`] and [`Error::Tensor`] for what the format does not allow, including data of the wrong length;
    /// [`Error::NoContent`] when there is nothing to write. What was written until then is incomplete.
    pub fn write_to(&mut self, mut out: impl Write) -> Result<u64, Error> {
        write_part(&self.metadata, &mut self.tensors, &mut out)
    }

    /// Writes the file into memory; errors as for [`write_to`](Self::write_to).
    pub fn to_bytes(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file to `path` and returns its length in bytes.
    ///
    /// The bytes go to a file beside it, which is flushed to the disk and renamed to `path` only when it is complete: an
    /// error or a crash leaves an existing file as it was. Errors as for [`write_to`](Self::write_to), and of the system.
    pub fn write_file(&mut self, path: impl AsRef<Path>) -> Result<u64, Error> {
        write_file(&self.metadata, &mut self.tensors, path.as_ref())
    }

    /// Writes a split model, `PREFIX-00001-of-0000N.gguf` and so on, and returns the paths.
    ///
    /// Every part holds as many whole tensors, in order, as fit into `max_data_bytes`, but at least one. The first part
    /// holds the metadata; the keys `split.no`, `split.count` and `split.tensors.count` are set in each. The parts get
    /// their names when all are complete. Errors as for [`write_file`](Self::write_file); when one of the last renamings
    /// fails, parts before it have their names already.
    pub fn write_split(&mut self, prefix: impl AsRef<Path>, max_data_bytes: u64) -> Result<Vec<PathBuf>, Error> {
        let paths = self.split_paths(prefix, max_data_bytes)?;
        let (total, count) = (self.tensors.len(), paths.len() as u16);
        let groups = group(&mut self.tensors, max_data_bytes)?;
        let mut parts = Vec::new();
        for ((tensors, no), path) in groups.into_iter().zip(0..).zip(&paths) {
            parts.push(write_temporary(&part_metadata(&self.metadata, no, count, total), tensors, path)?.0);
        }
        for (part, path) in parts.iter_mut().zip(&paths) {
            part.keep_as(path).map_err(Error::io("finish the file")).map_err(Error::in_file(path))?;
        }
        Ok(paths)
    }

    /// Returns the paths that [`write_split`](Self::write_split) would write.
    ///
    /// # Errors
    /// [`Error::Tensor`] for names and dimensions that the format does not allow; [`Error::Split`] for too many parts.
    pub fn split_paths(&mut self, prefix: impl AsRef<Path>, max_data_bytes: u64) -> Result<Vec<PathBuf>, Error> {
        check_names(&self.tensors)?;
        let parts = group(&mut self.tensors, max_data_bytes)?.len();
        let count = u16::try_from(parts).map_err(|_| Error::Split(SplitFault::TooManyParts { parts }))?;
        Ok((0..count).map(|no| split::part_path(prefix.as_ref(), no.into(), count.into())).collect())
    }
}

/// Where the data of a tensor to be written comes from.
pub enum TensorSource<'a> {
    /// Bytes in memory.
    Bytes(Cow<'a, [u8]>),
    /// A view of another file.
    Shared(SharedBytes),
    /// A function that writes the data when its turn comes.
    Stream(Stream<'a>),
}

type Stream<'a> = Box<dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a>;

impl<'a> TensorSource<'a> {
    /// Makes a source of a function that writes exactly the tensor's bytes; called once for each time a file is written.
    pub fn stream(write: impl FnMut(&mut dyn Write) -> io::Result<()> + 'a) -> Self {
        Self::Stream(Box::new(write))
    }

    pub(crate) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Shared(bytes) => out.write_all(bytes),
            Self::Stream(write) => write(out),
        }
    }
}

impl<'a> From<&'a [u8]> for TensorSource<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<'a> From<&'a Vec<u8>> for TensorSource<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Vec<u8>> for TensorSource<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<const N: usize> From<[u8; N]> for TensorSource<'_> {
    fn from(bytes: [u8; N]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<SharedBytes> for TensorSource<'_> {
    fn from(bytes: SharedBytes) -> Self {
        Self::Shared(bytes)
    }
}

impl fmt::Debug for TensorSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Shared(bytes) => bytes.fmt(f),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Cuts the tensors into runs of at most `limit` bytes of data, or of one tensor that is larger.
fn group<'t, 'a>(mut tensors: &'t mut [Pending<'a>], limit: u64) -> Result<Vec<&'t mut [Pending<'a>]>, Error> {
    let mut groups = Vec::new();
    while !tensors.is_empty() || groups.is_empty() {
        let mut taken = 0;
        let mut bytes = 0u64;
        for tensor in tensors.iter() {
            bytes = bytes.saturating_add(tensor.byte_len()?);
            if taken > 0 && bytes > limit {
                break;
            }
            taken += 1;
        }
        let (run, rest) = tensors.split_at_mut(taken);
        groups.push(run);
        tensors = rest;
    }
    Ok(groups)
}

fn part_metadata(whole: &Metadata, no: u16, count: u16, tensors: usize) -> Metadata {
    let mut metadata = if no == 0 { whole.clone() } else { Metadata::new() };
    if let Some(alignment) = whole.get(ALIGNMENT_KEY) {
        metadata.insert(ALIGNMENT_KEY, alignment.clone());
    }
    metadata.insert(split::NO_KEY, no.into());
    metadata.insert(split::COUNT_KEY, count.into());
    // Other programs expect an i32; more tensors than that need the wider type.
    let tensors = i32::try_from(tensors).map_or(Value::U64(tensors as u64), Value::I32);
    metadata.insert(split::TENSORS_KEY, tensors);
    metadata
}

fn write_file(metadata: &Metadata, tensors: &mut [Pending<'_>], path: &Path) -> Result<u64, Error> {
    let (mut temporary, length) = write_temporary(metadata, tensors, path)?;
    temporary.keep_as(path).map_err(Error::io("finish the file")).map_err(Error::in_file(path))?;
    Ok(length)
}

/// Writes all of a file that is to become `path`, and returns it with its length.
fn write_temporary(metadata: &Metadata, tensors: &mut [Pending<'_>], path: &Path) -> Result<(Temporary, u64), Error> {
    let mut temporary = Temporary::beside(path).map_err(Error::io("create a file")).map_err(Error::in_file(path))?;
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, &mut temporary.file);
        let length = write_part(metadata, tensors, &mut out)?;
        out.flush().map_err(Error::io("write"))?;
        Ok(length)
    })();
    let length = written.map_err(Error::in_file(path))?;
    Ok((temporary, length))
}
