//! What the rules of the mixes look at: a few hyper-parameters, and names and shapes of tensors.

use woolly_gguf::{GGUFLoader, Metadata, TensorInfo, Value};
use woolly_quant::TensorType;

use crate::Error;

/// The hyper-parameters that decide about types; read leniently, since any model can be quantised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of layers.
    pub block_count: u32,
    /// Query heads of the first layer; 0 for models without attention.
    pub heads: u32,
    /// Key-value heads of the first layer; 0 for models without attention.
    pub kv_heads: u32,
    /// Experts of a layer; 0 for dense models.
    pub experts: u32,
}

impl ModelFacts {
    /// Reads the facts from a model's metadata.
    ///
    /// # Errors
    /// [`Error::Gguf`] when the architecture or its number of layers is missing or a value is of another type.
    pub fn read(metadata: &Metadata) -> Result<Self, Error> {
        let architecture = metadata.require_str("general.architecture")?;
        let key = |key: &str| format!("{architecture}.{key}");
        let heads = first(metadata, &key("attention.head_count"))?.unwrap_or_default();
        Ok(Self {
            architecture: architecture.to_owned(),
            block_count: metadata.require_u32(&key("block_count"))?,
            heads,
            kv_heads: first(metadata, &key("attention.head_count_kv"))?.unwrap_or(heads),
            experts: metadata.u32(&key("expert_count"))?.unwrap_or_default(),
        })
    }

    /// Query heads that share a key-value head; 0 without attention.
    pub(super) fn heads_per_kv_head(&self) -> u32 {
        self.heads.checked_div(self.kv_heads).unwrap_or_default()
    }
}

/// An integer that may be stored once or once a layer.
fn first(metadata: &Metadata, key: &str) -> Result<Option<u32>, Error> {
    match metadata.get(key) {
        Some(Value::Array(_)) => {
            let values = metadata.u64s(key)?.unwrap_or_default();
            let first = values.first().map(|&value| u32::try_from(value));
            first.transpose().map_err(|_| invalid(key, &values))
        }
        _ => Ok(metadata.u32(key)?),
    }
}

fn invalid(key: &str, values: &[u64]) -> Error {
    let value = values.first().map(u64::to_string).unwrap_or_default();
    Error::InvalidKey { key: key.to_owned(), value, why: format!("it must not exceed {}", u32::MAX) }
}

/// A tensor as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorFacts<'a> {
    /// Its name, as in `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// Its dimensions, the row length first.
    pub dims: &'a [u64],
    /// The type it has now, which it keeps if it is never quantised.
    pub ty: TensorType,
}

impl<'a> TensorFacts<'a> {
    /// Returns the facts of every tensor of a file, in its order.
    pub fn of(loader: &'a GGUFLoader) -> Vec<Self> {
        loader.tensors().iter().map(Self::from).collect()
    }

    /// Elements of a row; 0 only for a tensor without dimensions.
    pub(super) fn row(&self) -> u64 {
        self.dims.first().copied().unwrap_or_default()
    }
}

impl<'a> From<&'a TensorInfo> for TensorFacts<'a> {
    fn from(info: &'a TensorInfo) -> Self {
        Self { name: info.name(), dims: info.dims(), ty: info.ty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, Value)]) -> Metadata {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value.clone());
        }
        metadata
    }

    #[test]
    fn facts_are_read_whatever_the_architecture() {
        let mut entries = vec![("general.architecture", "sheep".into()), ("sheep.block_count", 3u32.into())];
        let bare = ModelFacts { architecture: "sheep".to_owned(), block_count: 3, ..ModelFacts::default() };
        assert_eq!(ModelFacts::read(&metadata(&entries)).expect("valid"), bare);
        entries.push(("sheep.attention.head_count", 8u32.into()));
        let one = ModelFacts { heads: 8, kv_heads: 8, ..bare.clone() };
        assert_eq!(ModelFacts::read(&metadata(&entries)).expect("valid"), one);
        entries.push(("sheep.attention.head_count_kv", [2i32, 0, 4].into()));
        entries.push(("sheep.expert_count", 64u16.into()));
        let facts = ModelFacts::read(&metadata(&entries)).expect("valid");
        assert_eq!(facts, ModelFacts { heads: 8, kv_heads: 2, experts: 64, ..bare });
        assert_eq!(facts.heads_per_kv_head(), 4);
    }

    #[test]
    fn missing_and_absurd_values_are_errors() {
        let name = || ("general.architecture", Value::from("sheep"));
        let layers = || ("sheep.block_count", Value::from(3u32));
        for entries in [
            vec![],
            vec![name()],
            vec![name(), ("sheep.block_count", "three".into())],
            vec![name(), layers(), ("sheep.expert_count", u64::MAX.into())],
            vec![name(), layers(), ("sheep.attention.head_count_kv", [u64::MAX].into())],
        ] {
            assert!(ModelFacts::read(&metadata(&entries)).is_err(), "{entries:?}");
        }
    }
}
