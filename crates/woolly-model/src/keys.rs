//! Typed and bounded reading of the metadata keys of one architecture.
//!
//! Every number of a file is untrusted: it is read together with the range it must lie in, so that nothing is divided,
//! multiplied or allocated with a value that was not checked.

use std::fmt::Display;
use std::ops::RangeInclusive;

use woolly_gguf::{GGUFLoader, Value};

use crate::Error;

/// The metadata of a file, seen through the prefix of its architecture.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    loader: &'a GGUFLoader,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(loader: &'a GGUFLoader, architecture: &'a str) -> Self {
        Self { loader, architecture }
    }

    pub(crate) fn loader(&self) -> &'a GGUFLoader {
        self.loader
    }

    pub(crate) fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// Returns the full name of `key`.
    pub(crate) fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Returns the error that `key` holds `value` although `why`; of a long text only the beginning is repeated.
    pub(crate) fn invalid(&self, key: &str, value: impl Display, why: impl Into<String>) -> Error {
        let value = value.to_string().chars().take(64).collect();
        Error::InvalidKey { key: self.full(key), value, why: why.into() }
    }

    /// Reads an integer of any width that must lie in `limits`.
    pub(crate) fn count(&self, key: &str, limits: RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        let value = self.loader.metadata().u64(&self.full(key))?;
        value.map(|value| self.bounded(key, value, limits)).transpose()
    }

    /// As [`Self::count`], for a key that must be there.
    pub(crate) fn require_count(&self, key: &str, limits: RangeInclusive<usize>) -> Result<usize, Error> {
        let value = self.loader.metadata().require_u64(&self.full(key))?;
        self.bounded(key, value, limits)
    }

    /// Reads an integer that may be stored once, or once a layer with the same value in each.
    pub(crate) fn uniform(
        &self,
        key: &str,
        limits: RangeInclusive<usize>,
        layers: usize,
    ) -> Result<Option<usize>, Error> {
        let full = self.full(key);
        let Some(Value::Array(_)) = self.loader.metadata().get(&full) else { return self.count(key, limits) };
        let values = self.loader.metadata().u64s(&full)?.unwrap_or_default();
        if values.len() != layers {
            return Err(self.invalid(
                key,
                format!("an array of {}", values.len()),
                format!("there are {layers} layers"),
            ));
        }
        let first = values.first().copied().unwrap_or_default();
        match values.iter().find(|&&value| value != first) {
            None => self.bounded(key, first, limits).map(Some),
            Some(other) => {
                Err(self.invalid(key, format!("{first} and {other}"), "layers of different sizes are not supported"))
            }
        }
    }

    /// As [`Self::uniform`], for a key that must be there.
    pub(crate) fn require_uniform(
        &self,
        key: &str,
        limits: RangeInclusive<usize>,
        layers: usize,
    ) -> Result<usize, Error> {
        match self.uniform(key, limits.clone(), layers)? {
            Some(value) => Ok(value),
            None => self.require_count(key, limits),
        }
    }

    /// Reads a real number that must be finite and lie above `above`.
    pub(crate) fn number(&self, key: &str, above: f32) -> Result<Option<f32>, Error> {
        let value = self.loader.metadata().f32(&self.full(key))?;
        value.map(|value| self.above(key, value, above)).transpose()
    }

    /// As [`Self::number`], for a key that must be there.
    pub(crate) fn require_number(&self, key: &str, above: f32) -> Result<f32, Error> {
        let value = self.loader.metadata().require_f32(&self.full(key))?;
        self.above(key, value, above)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        Ok(self.loader.metadata().bool(&self.full(key))?)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        Ok(self.loader.metadata().str(&self.full(key))?)
    }

    fn bounded(&self, key: &str, value: u64, limits: RangeInclusive<usize>) -> Result<usize, Error> {
        match usize::try_from(value) {
            Ok(value) if limits.contains(&value) => Ok(value),
            _ => Err(self.invalid(key, value, format!("it must lie between {} and {}", limits.start(), limits.end()))),
        }
    }

    fn above(&self, key: &str, value: f32, above: f32) -> Result<f32, Error> {
        if value.is_finite() && value > above {
            return Ok(value);
        }
        Err(self.invalid(key, value, format!("it must be a finite number greater than {above}")))
    }
}
