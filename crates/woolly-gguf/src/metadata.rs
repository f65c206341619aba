//! Key-value metadata in the order of the file, with getters that check types.

use std::collections::HashMap;
use std::sync::Arc;

use crate::array::{Array, ScalarArray, StringArray};
use crate::error::Error;
use crate::value::Value;

/// Metadata entries in insertion order, with unique keys.
///
/// Every typed getter returns `Ok(None)` when the key is absent and an error when the value is of another type. Integers
/// of any width are accepted where their value fits, floats of either width.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(Arc<str>, Value)>,
    by_key: HashMap<Arc<str>, usize>,
}

impl Metadata {
    /// Makes metadata without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `key` and returns the one it replaces, whose place in the order it takes.
    pub fn insert(&mut self, key: &str, value: Value) -> Option<Value> {
        let known = self.by_key.get(key).and_then(|&index| self.entries.get_mut(index));
        if let Some((_, old)) = known {
            return Some(std::mem::replace(old, value));
        }
        let key: Arc<str> = key.into();
        self.by_key.insert(Arc::clone(&key), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let (_, value) = self.entries.get(*self.by_key.get(key)?)?;
        Some(value)
    }

    /// Iterates over the entries in insertion order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns an integer of any width that fits a `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.integer(key, "u32")
    }

    /// Returns an integer of any width that fits a `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.integer(key, "u64")
    }

    /// Returns an integer of any width that fits an `i64`.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, Error> {
        self.integer(key, "i64")
    }

    /// Returns a float; one stored as `f64` is rounded.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a float", |value| value.as_float().map(|v| v as f32))
    }

    /// Returns a boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "a bool", as_bool)
    }

    /// Returns a string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string", Value::as_str)
    }

    /// Returns an array of strings, which may be invalid UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<&StringArray>, Error> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Strings(strings)) => Some(strings),
            _ => None,
        })
    }

    /// Returns an array of floats; those stored as `f64` are rounded.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.scalars(key, "an array of floats", |value| value.as_float().map(|v| v as f32))
    }

    /// Returns an array of integers of any width that fit an `i64`.
    pub fn i64s(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        self.integers(key, "i64")
    }

    /// Returns an array of integers of any width that fit a `u64`.
    pub fn u64s(&self, key: &str) -> Result<Option<Vec<u64>>, Error> {
        self.integers(key, "u64")
    }

    /// Returns an array of booleans.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, Error> {
        self.scalars(key, "an array of bools", as_bool)
    }

    /// Like [`u32`](Self::u32), but absence is an error.
    pub fn require_u32(&self, key: &str) -> Result<u32, Error> {
        require(key, self.u32(key)?)
    }

    /// Like [`u64`](Self::u64), but absence is an error.
    pub fn require_u64(&self, key: &str) -> Result<u64, Error> {
        require(key, self.u64(key)?)
    }

    /// Like [`i64`](Self::i64), but absence is an error.
    pub fn require_i64(&self, key: &str) -> Result<i64, Error> {
        require(key, self.i64(key)?)
    }

    /// Like [`f32`](Self::f32), but absence is an error.
    pub fn require_f32(&self, key: &str) -> Result<f32, Error> {
        require(key, self.f32(key)?)
    }

    /// Like [`bool`](Self::bool), but absence is an error.
    pub fn require_bool(&self, key: &str) -> Result<bool, Error> {
        require(key, self.bool(key)?)
    }

    /// Like [`str`](Self::str), but absence is an error.
    pub fn require_str(&self, key: &str) -> Result<&str, Error> {
        require(key, self.str(key)?)
    }

    /// Like [`strings`](Self::strings), but absence is an error.
    pub fn require_strings(&self, key: &str) -> Result<&StringArray, Error> {
        require(key, self.strings(key)?)
    }

    /// Like [`f32s`](Self::f32s), but absence is an error.
    pub fn require_f32s(&self, key: &str) -> Result<Vec<f32>, Error> {
        require(key, self.f32s(key)?)
    }

    /// Like [`i64s`](Self::i64s), but absence is an error.
    pub fn require_i64s(&self, key: &str) -> Result<Vec<i64>, Error> {
        require(key, self.i64s(key)?)
    }

    /// Like [`u64s`](Self::u64s), but absence is an error.
    pub fn require_u64s(&self, key: &str) -> Result<Vec<u64>, Error> {
        require(key, self.u64s(key)?)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong_type(key, expected, value))
    }

    fn scalars<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        self.typed(key, expected, |value| as_scalars(value)?.iter().map(|element| read(&element)).collect())
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.typed(key, "an integer", Value::as_integer)? else { return Ok(None) };
        fit(key, expected, value).map(Some)
    }

    fn integers<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<Option<Vec<T>>, Error> {
        let Some(array) = self.typed(key, "an array of integers", as_scalars)? else { return Ok(None) };
        let values = array.iter().map(|element| {
            let value = element.as_integer().ok_or_else(|| Error::WrongType {
                key: key.to_owned(),
                expected: "an array of integers",
                found: format!("[{}; {}]", array.element_type(), array.len()),
            })?;
            fit(key, expected, value)
        });
        values.collect::<Result<_, _>>().map(Some)
    }
}

fn as_bool(value: &Value) -> Option<bool> {
    match *value {
        Value::Bool(flag) => Some(flag),
        _ => None,
    }
}

fn as_scalars(value: &Value) -> Option<&ScalarArray> {
    match value {
        Value::Array(Array::Scalars(array)) => Some(array),
        _ => None,
    }
}

fn fit<T: TryFrom<i128>>(key: &str, expected: &'static str, value: i128) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::OutOfRange { key: key.to_owned(), value, expected })
}

fn require<T>(key: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
}

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> Error {
    Error::WrongType { key: key.to_owned(), expected, found: value.describe() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        let entries: [(&str, Value); 9] = [
            ("u8", 7u8.into()),
            ("negative", (-1i32).into()),
            ("huge", u64::MAX.into()),
            ("f64", 0.5f64.into()),
            ("text", "words".into()),
            ("flag", true.into()),
            ("ints", [1i16, -2].into()),
            ("floats", [1.0f32, 2.0].into()),
            ("flags", [true, false].into()),
        ];
        for (key, value) in entries {
            assert_eq!(metadata.insert(key, value), None);
        }
        metadata
    }

    #[test]
    fn integers_of_any_width_are_accepted_where_they_fit() {
        let metadata = sample();
        assert_eq!(metadata.u32("u8").ok(), Some(Some(7)));
        assert_eq!(metadata.i64("negative").ok(), Some(Some(-1)));
        assert_eq!(metadata.require_u64("huge").ok(), Some(u64::MAX));
        assert!(matches!(metadata.u32("negative"), Err(Error::OutOfRange { value: -1, .. })));
        assert!(matches!(metadata.i64("huge"), Err(Error::OutOfRange { .. })));
        assert_eq!(metadata.i64s("ints").ok().flatten(), Some(vec![1, -2]));
        assert!(matches!(metadata.u64s("ints"), Err(Error::OutOfRange { value: -2, .. })));
    }

    #[test]
    fn other_types_are_errors_that_say_what_was_found() {
        let metadata = sample();
        let error = metadata.u32("text").expect_err("a string").to_string();
        assert!(error.contains("\"text\"") && error.contains("\"words\""), "{error}");
        for result in [
            metadata.str("flag").err(),
            metadata.bool("u8").err(),
            metadata.f32("u8").err(),
            metadata.f32s("ints").err(),
            metadata.i64s("floats").err(),
            metadata.bools("ints").err(),
            metadata.strings("ints").err(),
        ] {
            assert!(matches!(result, Some(Error::WrongType { .. })), "{result:?}");
        }
    }

    #[test]
    fn absence_is_none_or_an_error_where_required() {
        let metadata = sample();
        assert_eq!(metadata.u32("absent").ok(), Some(None));
        assert!(matches!(metadata.require_str("absent"), Err(Error::MissingKey { key }) if key == "absent"));
    }

    #[test]
    fn a_key_set_again_keeps_its_place() {
        let mut metadata = sample();
        assert_eq!(metadata.insert("u8", 8u8.into()), Some(7u8.into()));
        assert_eq!(metadata.iter().next(), Some(("u8", &Value::U8(8))));
        assert_eq!(metadata.len(), 9);
        assert_eq!(metadata.f32("f64").ok(), Some(Some(0.5)));
        assert_eq!(metadata.bools("flags").ok().flatten(), Some(vec![true, false]));
    }
}
