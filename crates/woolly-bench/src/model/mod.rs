//! Models to measure: files, and random weights in the shape of a known model.

mod shape;
mod synthetic;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use woolly_gguf::GGUFLoader;
use woolly_model::mix::Mix;

use crate::Error;

pub use shape::Shape;
pub use synthetic::Synthetic;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// A GGUF file.
    File(PathBuf),
    /// Random weights made in memory.
    Synthetic(Synthetic),
}

impl Source {
    /// Opens the model; a synthetic one is made with room for contexts of `context` tokens.
    ///
    /// # Errors
    /// [`Error::Woolly`] for a bad file; those of [`Synthetic::build`].
    pub fn open(&self, context: usize) -> Result<GGUFLoader, Error> {
        match self {
            Self::File(path) => Ok(GGUFLoader::open(path)?),
            Self::Synthetic(synthetic) => Ok(GGUFLoader::from_bytes(synthetic.build(context)?)?),
        }
    }

    /// Returns the path of the file, `None` for a model in memory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Synthetic(_) => None,
        }
    }

    /// Returns the path of the file, or `synthetic:` with shape and quantisation.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Synthetic(synthetic) => format!("synthetic:{synthetic}"),
        }
    }
}

/// Reads `SHAPE[:QUANT]`, names in any case; the quantisation is `Q4_K_M` when none is given.
impl FromStr for Synthetic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (shape, mix) = text.split_once(':').unwrap_or((text, "Q4_K_M"));
        Ok(Self { shape: Shape::named(shape)?, mix: mix.parse::<Mix>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_model_is_named_by_shape_and_quantisation() {
        for (text, name) in [
            ("tinyllama-1.1b:Q4_K_M", "TinyLlama-1.1B:Q4_K_M"),
            ("Llama-2-7B", "Llama-2-7B:Q4_K_M"),
            ("QWEN2.5-0.5B:q8_0", "Qwen2.5-0.5B:Q8_0"),
        ] {
            assert_eq!(text.parse::<Synthetic>().expect("known").to_string(), name);
        }
        let error = "llama-9".parse::<Synthetic>().expect_err("unknown").to_string();
        assert!(error.contains("Mixtral-8x7B"), "{error}");
        assert!("Llama-2-7B:Q99".parse::<Synthetic>().is_err());
    }
}
