//! Opening a model: one file, or all parts of a split one, as one set of metadata and tensors.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::bytes::SharedBytes;
use crate::error::{Error, SplitFault, TensorFault};
use crate::map;
use crate::metadata::Metadata;
use crate::parse::{Parsed, parse};
use crate::source::{Access, Source};
use crate::split::{self, Place};
use crate::tensor::TensorInfo;

/// An opened model of one or several files.
///
/// Dropping it does not invalidate what was taken from it: [`SharedBytes`] keep their file mapped. Clones are cheap and
/// share everything.
#[derive(Clone, Debug)]
pub struct GGUFLoader {
    parts: Arc<[Part]>,
    version: u32,
    alignment: u64,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) tensors: Arc<[TensorInfo]>,
    by_name: Arc<HashMap<Arc<str>, usize>>,
    pub(crate) file_bytes: u64,
}

impl GGUFLoader {
    /// Returns a builder with which to choose how the file is brought into memory.
    pub fn builder() -> LoaderBuilder {
        LoaderBuilder::default()
    }

    /// Opens the model at `path` with the default settings. Of a split model any part may be named.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().build(path)
    }

    /// Opens a model that is in memory.
    ///
    /// The alignment of tensor data counts from the start of the bytes; their address is aligned no better than the
    /// buffer they came in.
    ///
    /// # Errors
    /// As for a file; one part of a split model is [`SplitFault::InMemory`].
    pub fn from_bytes(bytes: SharedBytes) -> Result<Self, Error> {
        Self::from_parts(vec![bytes])
    }

    /// Opens a split model that is in memory, given all of its parts in order.
    pub fn from_parts(parts: Vec<SharedBytes>) -> Result<Self, Error> {
        let given = parts.len();
        let parts = parts.into_iter().map(in_memory).collect::<Result<Vec<_>, _>>()?;
        if let Some((_, first)) = parts.first()
            && let Some(place) = Place::of(&first.metadata)?
            && place.count != given as u64
        {
            return Err(Error::Split(SplitFault::InMemory { count: place.count }));
        }
        Self::join(parts)
    }

    /// Returns the GGUF version of the (first) file: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the alignment of tensor data in the (first) file, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Returns the length of all files together, in bytes; with tensors [replaced](Self::with_tensors), about what it
    /// would be if the model were written.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns the path of the (first) file; `None` for a model in memory.
    pub fn path(&self) -> Option<&Path> {
        self.paths().next()
    }

    /// Iterates over the paths of all files; nothing for a model in memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| part.path.as_deref())
    }

    /// Returns the metadata; of a split model, that of all parts joined.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the tensors of all parts in the order in which the files describe them.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Returns the tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// Returns the data of a tensor, without copying it: [`TensorInfo::byte_len`] bytes.
    pub fn tensor_bytes(&self, info: &TensorInfo) -> SharedBytes {
        info.bytes.clone()
    }

    /// Gives back the memory of the pages that hold `range` of a tensor's data, counted from its first byte, and nothing
    /// else; they come from the file again when they are next read. For passes over a model larger than the memory to be
    /// spent on it; a help only, without effect on models in memory and on systems other than Linux.
    pub fn release(&self, info: &TensorInfo, range: Range<usize>) {
        let source = self.parts.get(info.part).and_then(|part| Some((part.source.as_ref()?, &part.bytes)));
        let Some((source, whole)) = source else { return };
        let mapping = source.mapping.as_ref().and_then(Weak::upgrade);
        let (Some(mapping), Ok(offset)) = (mapping, usize::try_from(info.offset)) else { return };
        // The data of a replaced tensor lie elsewhere.
        if !std::ptr::addr_eq(Arc::as_ptr(&info.bytes.owner()), Arc::as_ptr(&whole.owner())) {
            return;
        }
        mapping.release(offset.saturating_add(range.start)..offset.saturating_add(range.end.min(info.bytes.len())));
    }

    /// Compares the files' lengths and modification times with those at opening.
    ///
    /// # Errors
    /// [`Error::Changed`] when a file was truncated, extended or overwritten; what was mapped of it must then no longer
    /// be used. A file that was replaced by renaming is unchanged: the old contents are still the ones mapped.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.parts.iter().try_for_each(Part::check_unchanged)
    }

    /// `opened` are all parts of a model, in order.
    fn join(opened: Vec<(Part, Parsed)>) -> Result<Self, Error> {
        check_places(&opened)?;
        let (parts, parsed): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let Parsed { version, alignment, metadata, tensors } = split::join(parsed)?;
        let by_name = Arc::new(index(&tensors, &parts)?);
        let file_bytes = parts.iter().map(|part| part.bytes.len() as u64).sum();
        let (metadata, tensors, parts) = (Arc::new(metadata), tensors.into(), parts.into());
        Ok(Self { parts, version, alignment, metadata, tensors, by_name, file_bytes })
    }
}

/// How a model is brought into memory; made by [`GGUFLoader::builder`].
///
/// ```no_run
/// # fn main() -> Result<(), woolly_gguf::Error> {
/// let loader = woolly_gguf::GGUFLoader::builder()
///     .use_mmap(true)
///     .prefetch_size_mb(512)
///     .page_aligned(true)
///     .build("model.gguf")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LoaderBuilder {
    use_mmap: bool,
    /// `None`: not chosen by the caller.
    prefetch_size_mb: Option<usize>,
    page_aligned: bool,
    /// `None`: not chosen by the caller.
    copy_small_pages: Option<bool>,
}

/// Mapped, aligned, populated in the background 512 MiB at a time.
impl Default for LoaderBuilder {
    fn default() -> Self {
        Self { use_mmap: true, prefetch_size_mb: None, page_aligned: true, copy_small_pages: None }
    }
}

impl LoaderBuilder {
    const DEFAULT_PREFETCH_MB: usize = 512;

    /// Chooses between mapping the file (`true`, the default) and reading all of it before [`build`](Self::build)
    /// returns.
    ///
    /// Mapping is instant, shares memory between processes and lets the system drop pages that are not in use. Reading,
    /// by two threads, is for file systems on which page faults are slow and for files that may shrink while in use.
    pub fn use_mmap(mut self, enabled: bool) -> Self {
        self.use_mmap = enabled;
        self
    }

    /// Sets how many MiB of a mapped file the background thread asks for at a time, in the order of the file; 0 leaves
    /// every page to its first use. The default is 512.
    ///
    /// The thread ends when everything that was taken from the loader has been dropped, at the end of the piece it is
    /// at. On systems other than Linux it touches the pages itself.
    pub fn prefetch_size_mb(mut self, mebibytes: usize) -> Self {
        self.prefetch_size_mb = Some(mebibytes);
        self
    }

    /// Chooses whether the bytes begin at a multiple of 2 MiB and the kernel is asked for huge pages (`true`, the
    /// default). It never fails for want of huge pages.
    ///
    /// On systems other than Linux the bytes begin at a multiple of the system's page size when they are mapped.
    pub fn page_aligned(mut self, enabled: bool) -> Self {
        self.page_aligned = enabled;
        self
    }

    /// Chooses whether what the system's cache of the file holds in small pages is copied to huge ones, in the background, half a second
    /// after all of it is populated, as far as a quarter of the memory available goes and 32 GiB at most. The copies are in place of the mapping,
    /// and belong to this process alone.
    ///
    /// By default that is done on processors of AMD, on which it was measured to make reading weights up to a fifth faster. Only
    /// Linux 6.7 and later can tell where small pages are; elsewhere nothing is copied.
    pub fn copy_small_pages(mut self, enabled: bool) -> Self {
        self.copy_small_pages = Some(enabled);
        self
    }

    /// Opens the model at `path`. Of a split model any part may be named; the others are found beside it.
    ///
    /// # Errors
    /// [`Error::File`] naming the file and what is wrong with it; [`Error::Config`] when background population or copies are asked
    /// for (`prefetch_size_mb` above 0, `copy_small_pages`) of a file that is to be read instead of mapped, or copies of one that
    /// is not populated or not aligned.
    pub fn build(&self, path: impl AsRef<Path>) -> Result<GGUFLoader, Error> {
        let access = self.access()?;
        let path = path.as_ref();
        let named = open(path, access)?;
        let opened = match Place::of(&named.1.metadata).map_err(Error::in_file(path))? {
            None => vec![named],
            Some(place) => open_all(path, place, named, access)?,
        };
        let loader = GGUFLoader::join(opened).map_err(Error::in_file(path))?;
        self.populate(&loader);
        Ok(loader)
    }

    fn access(&self) -> Result<Access, Error> {
        let aligned = self.page_aligned;
        if self.copy_small_pages == Some(true) && !(self.use_mmap && aligned && self.prefetch_size_mb != Some(0)) {
            return Err(Error::Config {
                field: "copy_small_pages",
                reason: "copies take the place of a mapping at multiples of 2 MiB once it is populated: set use_mmap and page_aligned, and prefetch_size_mb above 0, or leave it out",
            });
        }
        match (self.use_mmap, self.prefetch_size_mb) {
            (true, _) => Ok(Access::Map { aligned }),
            (false, None | Some(0)) => Ok(Access::Read { aligned }),
            (false, Some(_)) => Err(Error::Config {
                field: "prefetch_size_mb",
                reason: "without mmap the file is read before it is used, so there is nothing to prefetch: set it to 0 or leave it out",
            }),
        }
    }

    fn populate(&self, loader: &GGUFLoader) {
        let chunk = self.prefetch_size_mb.unwrap_or(Self::DEFAULT_PREFETCH_MB).saturating_mul(1 << 20);
        let mappings: Vec<_> = loader.parts.iter().filter_map(|part| part.source.as_ref()?.mapping.clone()).collect();
        if chunk > 0 && !mappings.is_empty() {
            map::populate_in_background(mappings, chunk, self.copy_small_pages.unwrap_or_else(small_pages_are_slow));
        }
    }
}

/// Whether the processor is one of those on which small pages were measured to make reading weights slower.
fn small_pages_are_slow() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// One file of a model.
#[derive(Debug)]
struct Part {
    bytes: SharedBytes,
    /// `None` for bytes in memory.
    path: Option<PathBuf>,
    source: Option<Source>,
}

impl Part {
    /// Adds the path, where there is one, to an error.
    fn name_error(&self, error: Error) -> Error {
        match &self.path {
            Some(path) => Error::in_file(path)(error),
            None => error,
        }
    }

    fn check_unchanged(&self) -> Result<(), Error> {
        self.source.as_ref().map_or(Ok(()), Source::check_unchanged).map_err(|error| self.name_error(error))
    }
}

fn in_memory(bytes: SharedBytes) -> Result<(Part, Parsed), Error> {
    let parsed = parse(&bytes)?;
    Ok((Part { bytes, path: None, source: None }, parsed))
}

fn open(path: &Path, access: Access) -> Result<(Part, Parsed), Error> {
    let opened = Source::open(path, access).and_then(|source| Ok((parse(&source.bytes)?, source)));
    let (parsed, source) = opened.map_err(Error::in_file(path))?;
    Ok((Part { bytes: source.bytes.clone(), path: Some(path.to_owned()), source: Some(source) }, parsed))
}

/// Opens the parts other than `named`, which lies at `path`.
fn open_all(path: &Path, place: Place, named: (Part, Parsed), access: Access) -> Result<Vec<(Part, Parsed)>, Error> {
    let paths = split::all_paths(path, place).map_err(Error::in_file(path))?;
    let mut named = Some(named);
    let parts = paths.iter().zip(0..).map(|(part_path, no)| match named.take_if(|_| no == place.no) {
        Some(named) => Ok(named),
        None => open(part_path, access),
    });
    parts.collect()
}

/// Checks that each part of a split model says to be the one it is taken for.
fn check_places(opened: &[(Part, Parsed)]) -> Result<(), Error> {
    let count = opened.len() as u64;
    let parts = opened.iter().zip(0..).filter(|_| count > 1);
    parts
        .map(|((part, parsed), no)| (part, Place { no, count }.check(&parsed.metadata)))
        .try_for_each(|(part, result)| result.map_err(|error| part.name_error(error)))
}

fn index(tensors: &[TensorInfo], parts: &[Part]) -> Result<HashMap<Arc<str>, usize>, Error> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (position, tensor) in tensors.iter().enumerate() {
        if by_name.insert(Arc::clone(&tensor.name), position).is_some() {
            let error = Error::tensor(&tensor.name, Some(tensor.described_at), TensorFault::Duplicate);
            return Err(match parts.get(tensor.part) {
                Some(part) => part.name_error(error),
                None => error,
            });
        }
    }
    Ok(by_name)
}
