//! Importance matrices: how much the inputs of each weight matter, in the files that llama.cpp writes and reads.
//!
//! The error that a changed weight w_ij makes in an output is its change times the input x_j, so the mean square of x_j
//! over a text is the weight with which the squared error of column j counts. A file holds, for each tensor, the sums of
//! squares (`NAME.in_sum2`, one row a matrix) and how many inputs they are sums of (`NAME.counts`, one a matrix).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use woolly_gguf::{GGUFLoader, GGUFWriter, SharedBytes, TensorInfo, Value};
use woolly_quant::TensorType;

use super::QuantizeError;
use crate::Error;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// How much the columns of a model's weights matter; made by [`Model::importance`](crate::Model::importance) or read from
/// a file.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImportanceMatrix {
    /// The importance of each tensor, by its name.
    pub entries: BTreeMap<String, Importance>,
    /// The file it was read from; empty for one just made.
    pub source: String,
    /// Names of the texts that it was measured on.
    pub datasets: Vec<String>,
    /// Windows of text that it was measured on.
    pub windows: u32,
    /// Tokens of a window.
    pub window: u32,
}

/// Squares of the inputs of one tensor, summed.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// `[matrices, columns]`, row-major: the sum of squares of each input.
    pub sums: Vec<f32>,
    /// For each matrix, how many inputs the sums are of; 0 for an expert that no token chose.
    pub counts: Vec<f32>,
}

impl Importance {
    /// Returns the mean squares of each matrix, `[matrices, columns]`; those of a matrix without inputs are all 1.
    pub(super) fn means(&self) -> Vec<f32> {
        let columns = self.sums.len() / self.counts.len().max(1);
        let mean = |(sums, &count): (&[f32], &f32)| -> Vec<f32> {
            sums.iter().map(|sum| if count > 0.0 { sum / count } else { 1.0 }).collect()
        };
        self.sums.chunks(columns.max(1)).zip(&self.counts).flat_map(mean).collect()
    }

    /// Whether every number is usable, and there are as many for each matrix.
    fn is_sound(&self) -> bool {
        let usable = |x: &f32| x.is_finite() && *x >= 0.0;
        !self.counts.is_empty()
            && self.sums.len().is_multiple_of(self.counts.len())
            && self.sums.iter().chain(&self.counts).all(usable)
    }
}

impl ImportanceMatrix {
    /// Reads the file at `path`, in GGUF or in the older form of llama.cpp (`imatrix.dat`).
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read; [`QuantizeError::ImportanceFile`] when it is no importance matrix.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let refused = |why: String| QuantizeError::ImportanceFile { path: path.to_owned(), why };
        let matrix = match GGUFLoader::open(path) {
            Ok(file) => Self::from_gguf(&file).map_err(refused)?,
            Err(error) if matches!(error.root(), woolly_gguf::Error::BadMagic { .. }) => {
                let bytes = fs::read(path).map_err(|error| refused(error.to_string()))?;
                let old = Self::from_old_form(&bytes);
                old.ok_or_else(|| refused("it is neither GGUF nor of the older form".to_owned()))?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { source: path.display().to_string(), ..matrix })
    }

    fn from_gguf(file: &GGUFLoader) -> Result<Self, String> {
        let text = |error: woolly_gguf::Error| error.to_string();
        let mut matrix = Self {
            windows: file.metadata().u32("imatrix.chunk_count").map_err(text)?.unwrap_or(0),
            window: file.metadata().u32("imatrix.chunk_size").map_err(text)?.unwrap_or(0),
            ..Self::default()
        };
        if let Some(names) = file.metadata().strings("imatrix.datasets").map_err(text)? {
            matrix.datasets = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        }
        for sums in file.tensors() {
            let Some(name) = sums.name().strip_suffix(SUMS) else { continue };
            let counts = file.tensor(&format!("{name}{COUNTS}")).ok_or_else(|| format!("{name} has no counts"))?;
            let entry = Importance { sums: floats(sums)?, counts: floats(counts)? };
            matrix.insert(name, entry)?;
        }
        if matrix.entries.is_empty() { Err("it holds no sums of squares".to_owned()) } else { Ok(matrix) }
    }

    /// Reads what llama.cpp wrote before it used GGUF: for each tensor its name, a number of calls and the means of the
    /// squares times that number; all integers of 32 bits with the lowest byte first.
    fn from_old_form(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut matrix = Self::default();
        for _ in 0..take_count(&mut rest)? {
            let length = take_count(&mut rest)?;
            let name = std::str::from_utf8(rest.split_off(..length)?).ok()?;
            let calls = take_count(&mut rest)?.max(1);
            let columns = take_count(&mut rest)?;
            let sums = rest.split_off(..columns.checked_mul(4)?)?;
            let sums = sums.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            matrix.insert(name, Importance { sums, counts: vec![calls as f32] }).ok()?;
        }
        matrix.windows = take_count(&mut rest).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        if let Some(name) = take_count(&mut rest).and_then(|length| rest.split_off(..length)) {
            matrix.datasets.push(String::from_utf8_lossy(name).into_owned());
        }
        (!matrix.entries.is_empty()).then_some(matrix)
    }

    fn insert(&mut self, name: &str, entry: Importance) -> Result<(), String> {
        if !entry.is_sound() {
            return Err(format!("the numbers of {name} are not sums of squares"));
        }
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes the matrix to `path` in the form that llama.cpp reads.
    ///
    /// # Errors
    /// [`Error::Output`] when writing fails; nothing is left behind then.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut file = GGUFWriter::new();
        file.set("general.type", "imatrix").set("imatrix.datasets", Value::strings(&self.datasets));
        file.set("imatrix.chunk_count", self.windows).set("imatrix.chunk_size", self.window);
        for (name, Importance { sums, counts }) in &self.entries {
            let matrices = counts.len() as u64;
            let dims = [sums.len() as u64 / matrices.max(1), matrices];
            file.tensor(&format!("{name}{SUMS}"), &dims, TensorType::F32, bytes(sums));
            file.tensor(&format!("{name}{COUNTS}"), &[1, matrices], TensorType::F32, bytes(counts));
        }
        file.write_file(path).map(drop).map_err(Error::Output)
    }

    /// Returns the importance of the columns of `tensor`, `[matrices, columns]`; `None` when the matrix does not know it.
    pub(super) fn of(&self, tensor: &TensorInfo) -> Result<Option<Vec<f32>>, QuantizeError> {
        let Some(entry) = self.entries.get(tensor.name()) else { return Ok(None) };
        let dims = tensor.dims();
        let columns = usize::try_from(dims.first().copied().unwrap_or(0)).unwrap_or(usize::MAX);
        let matrices = usize::try_from(dims.iter().skip(2).product::<u64>()).unwrap_or(usize::MAX);
        let means = entry.means();
        // One row of squares may stand for all matrices.
        let repeats = if means.len() == columns { matrices } else { 1 };
        if means.len().saturating_mul(repeats) == columns.saturating_mul(matrices) {
            return Ok(Some(means.repeat(repeats)));
        }
        let (found, expected) = (means.len(), columns.saturating_mul(matrices));
        Err(QuantizeError::ImportanceSize { tensor: tensor.name().to_owned(), found, expected })
    }

    /// The keys by which a quantised file tells what matrix was used.
    pub(super) fn keys(&self) -> Vec<(&'static str, Value)> {
        let entries = i32::try_from(self.entries.len()).unwrap_or(i32::MAX);
        let windows = i32::try_from(self.windows).unwrap_or(i32::MAX);
        vec![
            ("quantize.imatrix.file", self.source.as_str().into()),
            ("quantize.imatrix.dataset", self.datasets.join(", ").as_str().into()),
            ("quantize.imatrix.entries_count", entries.into()),
            ("quantize.imatrix.chunks_count", windows.into()),
        ]
    }
}

fn floats(tensor: &TensorInfo) -> Result<Vec<f32>, String> {
    if tensor.ty() != TensorType::F32 {
        return Err(format!("{} is {} instead of F32", tensor.name(), tensor.ty()));
    }
    Ok(tensor.bytes().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn bytes(values: &[f32]) -> SharedBytes {
    values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let bytes = rest.split_off(..4)?.try_into().ok()?;
    usize::try_from(i32::from_le_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> ImportanceMatrix {
        let entry = |sums: &[f32], counts: &[f32]| Importance { sums: sums.to_vec(), counts: counts.to_vec() };
        let entries = [
            ("blk.0.attn_q.weight".to_owned(), entry(&[2.0, 8.0, 0.0], &[4.0])),
            ("blk.0.ffn_up_exps.weight".to_owned(), entry(&[6.0, 3.0, 0.0, 0.0], &[3.0, 0.0])),
        ];
        let datasets = vec!["wiki".to_owned()];
        ImportanceMatrix { entries: entries.into(), datasets, windows: 5, window: 512, ..ImportanceMatrix::default() }
    }

    #[test]
    fn a_matrix_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("imatrix.gguf");
        matrix().write(&path).expect("written");
        let source = path.display().to_string();
        assert_eq!(ImportanceMatrix::open(&path).expect("read"), ImportanceMatrix { source, ..matrix() });
    }

    #[test]
    fn means_are_sums_over_counts_and_even_where_nothing_was_counted() {
        let means = |name: &str| matrix().entries[name].means();
        assert_eq!(means("blk.0.attn_q.weight"), [0.5, 2.0, 0.0]);
        assert_eq!(means("blk.0.ffn_up_exps.weight"), [2.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_older_form_is_read_and_cut_files_are_refused() {
        let mut bytes = Vec::new();
        let number = |x: i32, bytes: &mut Vec<u8>| bytes.extend(x.to_le_bytes());
        number(1, &mut bytes);
        number(3, &mut bytes);
        bytes.extend(b"a.b");
        number(7, &mut bytes);
        number(2, &mut bytes);
        bytes.extend([14.0_f32, 7.0].map(f32::to_le_bytes).as_flattened());
        let needed = bytes.len();
        number(7, &mut bytes);
        number(4, &mut bytes);
        bytes.extend(b"text");
        let matrix = ImportanceMatrix::from_old_form(&bytes).expect("valid");
        assert_eq!(matrix.entries["a.b"].means(), [2.0, 1.0]);
        assert_eq!((matrix.windows, matrix.datasets.as_slice()), (7, &["text".to_owned()][..]));
        for length in 0..needed {
            assert_eq!(ImportanceMatrix::from_old_form(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn files_that_are_no_matrix_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("bad.gguf");
        for spoil in [f32::NAN, -1.0, f32::INFINITY] {
            let mut bad = matrix();
            bad.entries.get_mut("blk.0.attn_q.weight").expect("there").sums[1] = spoil;
            bad.write(&path).expect("written");
            assert!(ImportanceMatrix::open(&path).is_err(), "{spoil}");
        }
        fs::write(&path, "a text, certainly no matrix").expect("written");
        assert!(ImportanceMatrix::open(&path).is_err());
    }
}
