//! Where a model comes from: a file, or this program itself.

use std::fmt;
use std::path::PathBuf;

use woolly::GGUFLoader;

use crate::failure::Failure;

/// A model that was named, or the built-in one.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    File(PathBuf),
    #[cfg(feature = "lamb")]
    BuiltIn,
}

impl Source {
    /// Takes the file that was named or, if none was, the built-in model; a program without one says how to name a file.
    pub(crate) fn new(model: Option<PathBuf>, command: &str) -> Result<Self, Failure> {
        match model {
            #[cfg(feature = "lamb")]
            Some(path) if path.as_os_str() == woolly::lamb::NAME && !path.exists() => Ok(Self::BuiltIn),
            Some(path) => Ok(Self::File(path)),
            None => default(command),
        }
    }

    /// Opens the model's file.
    pub(crate) fn open(&self) -> Result<GGUFLoader, Failure> {
        match self {
            Self::File(path) => Ok(GGUFLoader::open(path).map_err(woolly::Error::from)?),
            #[cfg(feature = "lamb")]
            Self::BuiltIn => Ok(woolly::lamb::open()?),
        }
    }
}

#[cfg(feature = "lamb")]
fn default(_command: &str) -> Result<Source, Failure> {
    Ok(Source::BuiltIn)
}

#[cfg(not(feature = "lamb"))]
fn default(command: &str) -> Result<Source, Failure> {
    let hint = format!("name a GGUF file: woolly {command} model.gguf, or woolly {command} -m model.gguf");
    Err(Failure::usage("no model given", hint))
}

/// The path as given, or the name of the built-in model.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            #[cfg(feature = "lamb")]
            Self::BuiltIn => f.write_str(woolly::lamb::NAME),
        }
    }
}
