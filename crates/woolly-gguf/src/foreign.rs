//! Recognises what people open by mistake, by content and not by name, so that the error can say what to do.

use std::fmt;

use crate::error::Error;

/// A kind of file that is not GGUF but is often met where a GGUF file was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// A web page.
    Html,
    /// The stand-in that Git stores for a large file.
    GitLfsPointer,
    /// Weights in the safetensors format.
    Safetensors,
    /// Data compressed with gzip.
    Gzip,
    /// Data compressed with Zstandard, xz or bzip2.
    Compressed,
    /// A ZIP archive.
    Zip,
    /// A checkpoint of PyTorch in a ZIP archive.
    PytorchZip,
    /// A Python pickle, such as an old checkpoint of PyTorch.
    Pickle,
    /// GGML, GGMF, GGJT or GGLA: the formats before GGUF.
    Ggml,
    /// GGUF in big-endian byte order.
    BigEndianGguf,
    /// JSON text, such as a configuration or an error message of a server.
    Json,
}

impl Foreign {
    /// Recognises a file by its first bytes (a few hundred suffice); `None` for GGUF and for anything unknown.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        by_magic(bytes).or_else(|| is_safetensors(bytes).then_some(Self::Safetensors)).or_else(|| by_text(bytes))
    }

    /// Returns what to do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Html => {
                "the download saved a web page instead of the model (a log-in or error page): use the file's direct download link"
            }
            Self::GitLfsPointer => {
                "the repository was cloned without its large files: run `git lfs pull`, or download the file itself"
            }
            Self::Safetensors => {
                "convert the model to GGUF with llama.cpp's convert_hf_to_gguf.py, or download a GGUF version"
            }
            Self::Gzip => "unpack it first: `gunzip FILE`",
            Self::Compressed => "unpack it first",
            Self::Zip => "unpack it first: `unzip FILE`",
            Self::PytorchZip | Self::Pickle => {
                "convert the model to GGUF with llama.cpp's convert_hf_to_gguf.py, or download a GGUF version; do not unpickle files that you do not trust"
            }
            Self::Ggml => "this format was replaced by GGUF in 2023: download a GGUF version of the model",
            Self::BigEndianGguf => {
                "only little-endian files are supported: download the little-endian version or convert the model anew"
            }
            Self::Json => {
                "open the model file, not its configuration; if this was a download, its text says what failed"
            }
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Html => "an HTML page",
            Self::GitLfsPointer => "a Git LFS pointer",
            Self::Safetensors => "a safetensors file",
            Self::Gzip => "a gzip-compressed file",
            Self::Compressed => "a compressed file (zstd, xz or bzip2)",
            Self::Zip => "a ZIP archive",
            Self::PytorchZip => "a PyTorch checkpoint (ZIP)",
            Self::Pickle => "a Python pickle (an old PyTorch checkpoint)",
            Self::Ggml => "a model in the old GGML format",
            Self::BigEndianGguf => "a big-endian GGUF file",
            Self::Json => "a JSON file",
        })
    }
}

/// Refuses everything that does not begin like a little-endian GGUF file.
pub(crate) fn refuse_foreign(bytes: &[u8]) -> Result<(), Error> {
    const MAGIC: &[u8] = b"GGUF";
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(foreign) = Foreign::recognise(bytes) {
        return Err(Error::Foreign(foreign));
    }
    let start = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if MAGIC.starts_with(start) { Ok(()) } else { Err(Error::BadMagic { found: start.to_vec() }) }
}

fn by_magic(bytes: &[u8]) -> Option<Foreign> {
    const MAGICS: [(&[u8], Foreign); 15] = [
        (b"version https://git-lfs", Foreign::GitLfsPointer),
        (b"GGUF\0\0\0\x01", Foreign::BigEndianGguf),
        (b"GGUF\0\0\0\x02", Foreign::BigEndianGguf),
        (b"GGUF\0\0\0\x03", Foreign::BigEndianGguf),
        (b"\x1f\x8b", Foreign::Gzip),
        (b"\x28\xb5\x2f\xfd", Foreign::Compressed),
        (b"\xfd7zXZ\0", Foreign::Compressed),
        (b"BZh", Foreign::Compressed),
        // The magics of the old formats were u32 values, so their letters lie backwards in the file.
        (b"lmgg", Foreign::Ggml),
        (b"fmgg", Foreign::Ggml),
        (b"tjgg", Foreign::Ggml),
        (b"algg", Foreign::Ggml),
        (b"\x80\x02", Foreign::Pickle),
        (b"\x80\x04", Foreign::Pickle),
        (b"\x80\x05", Foreign::Pickle),
    ];
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(zip_kind(bytes));
    }
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, foreign)| foreign)
}

/// PyTorch stores `<name>/data.pkl` as the first member of its archive; the name begins at byte 30.
fn zip_kind(bytes: &[u8]) -> Foreign {
    const NAME: std::ops::Range<usize> = 30..286;
    let names = bytes.get(NAME.start..NAME.end.min(bytes.len())).unwrap_or_default();
    let is_pytorch = names.windows(9).any(|window| window == b"/data.pkl");
    if is_pytorch { Foreign::PytorchZip } else { Foreign::Zip }
}

/// A safetensors file begins with the length of its JSON header, then the header.
fn is_safetensors(bytes: &[u8]) -> bool {
    const LONGEST_HEADER: u64 = 100_000_000;
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    (2..=LONGEST_HEADER).contains(&u64::from_le_bytes(*length)) && rest.starts_with(b"{\"")
}

fn by_text(bytes: &[u8]) -> Option<Foreign> {
    const LOOKED_AT: usize = 512;
    let start = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start().to_ascii_lowercase();
    let html: [&[u8]; 4] = [b"<!doctype html", b"<html", b"<head", b"<?xml"];
    if html.iter().any(|tag| start.starts_with(tag)) {
        return Some(Foreign::Html);
    }
    let rest = start.strip_prefix(b"{")?.trim_ascii_start();
    rest.starts_with(b"\"").then_some(Foreign::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_recognised_by_its_first_bytes() {
        let cases: [(&[u8], Foreign); 17] = [
            (b"<!DOCTYPE html>\n<html>", Foreign::Html),
            (b"\xef\xbb\xbf  <HTML lang=en>", Foreign::Html),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", Foreign::GitLfsPointer),
            (b"\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", Foreign::Safetensors),
            (b"\x1f\x8b\x08\0", Foreign::Gzip),
            (b"\x28\xb5\x2f\xfd\0", Foreign::Compressed),
            (b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0readme.txt", Foreign::Zip),
            (
                b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl",
                Foreign::PytorchZip,
            ),
            (b"PK\x03\x04", Foreign::Zip),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", Foreign::Pickle),
            (b"lmgg\0\x7d\0\0", Foreign::Ggml),
            (b"fmgg\x01\0\0\0", Foreign::Ggml),
            (b"tjgg\x03\0\0\0", Foreign::Ggml),
            (b"algg\x01\0\0\0", Foreign::Ggml),
            (b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\x01", Foreign::BigEndianGguf),
            (b"{\n  \"architectures\": [", Foreign::Json),
            (b"{\"error\":\"Repository not found\"}", Foreign::Json),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Foreign::recognise(bytes), Some(expected), "{:?}", String::from_utf8_lossy(bytes));
            let message = Error::Foreign(expected).to_string();
            assert!(message.contains(&expected.to_string()) && message.contains(expected.hint()), "{message}");
        }
    }

    #[test]
    fn what_is_not_recognised_is_left_to_the_magic() {
        assert!(refuse_foreign(b"GGUF\x03\0\0\0").is_ok());
        assert!(refuse_foreign(b"GG").is_ok(), "cut short, which the reader reports with the missing bytes");
        assert!(matches!(refuse_foreign(b""), Err(Error::Empty)));
        assert!(matches!(refuse_foreign(b"FUGG\x03\0\0\0"), Err(Error::BadMagic { found }) if found == b"FUGG"));
        assert!(matches!(refuse_foreign(b"x"), Err(Error::BadMagic { .. })));
    }
}
