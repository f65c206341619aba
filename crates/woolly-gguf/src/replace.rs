//! The same model with other data: what a quantised model in memory is, without writing a file.

use std::sync::Arc;

use woolly_quant::TensorType;

use crate::bytes::SharedBytes;
use crate::error::{Error, TensorFault};
use crate::loader::GGUFLoader;
use crate::value::Value;

/// New data for one tensor, of another type but the same dimensions.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The tensor's place in [`GGUFLoader::tensors`].
    pub index: usize,
    /// The type of the new data.
    pub ty: TensorType,
    /// The new data, in as many blocks as the dimensions need.
    pub bytes: SharedBytes,
}

impl GGUFLoader {
    /// Returns this model with the data of some tensors replaced; everything else is shared and nothing is copied.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the new data have not the length that dimensions and type need, or a row is no whole
    /// number of blocks. A replacement beyond the last tensor replaces nothing.
    pub fn with_tensors(&self, replacements: impl IntoIterator<Item = Replacement>) -> Result<Self, Error> {
        let mut tensors = self.tensors.to_vec();
        let mut file_bytes = self.file_bytes;
        for Replacement { index, ty, bytes } in replacements {
            let Some(tensor) = tensors.get_mut(index) else { continue };
            let (given, fault) = (bytes.len() as u64, |fault| Error::tensor(tensor.name(), None, fault));
            let needed = tensor.dims.byte_len(ty).map_err(fault)?;
            if given != needed {
                return Err(fault(TensorFault::DataLength { given, needed }));
            }
            file_bytes = file_bytes.saturating_sub(tensor.byte_len()).saturating_add(given);
            (tensor.ty, tensor.bytes) = (ty, bytes);
        }
        let mut other = self.clone();
        (other.tensors, other.file_bytes) = (tensors.into(), file_bytes);
        Ok(other)
    }

    /// Returns this model with some values of its metadata set; its tensors are shared.
    pub fn with_metadata<'a>(&self, entries: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut metadata = (*self.metadata).clone();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        let mut other = self.clone();
        other.metadata = Arc::new(metadata);
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GGUFWriter;

    fn model() -> GGUFLoader {
        let mut writer = GGUFWriter::new();
        writer.set("general.file_type", 0u32).set("other", 5u32);
        for name in ["a", "b"] {
            writer.tensor(name, &[32, 2], TensorType::F32, vec![1; 256]);
        }
        GGUFLoader::from_bytes(writer.to_bytes().expect("valid").into()).expect("valid")
    }

    #[test]
    fn only_what_is_replaced_changes() {
        let model = model();
        let bytes = SharedBytes::from_vec(vec![2; 68]);
        let new = Replacement { index: 1, ty: TensorType::Q8_0, bytes };
        let other = model.with_metadata([("general.file_type", 7u32.into())]).with_tensors([new]).expect("fits");
        let [a, b] = other.tensors() else { panic!("two tensors") };
        assert_eq!((a.ty(), a.byte_len(), b.ty(), b.byte_len()), (TensorType::F32, 256, TensorType::Q8_0, 68));
        assert_eq!((b.dims(), b.elements(), &b.bytes()[..2]), (&[32, 2][..], 64, &[2, 2][..]));
        assert_eq!(other.tensor("b").map(|tensor| tensor.ty()), Some(TensorType::Q8_0));
        assert_eq!(other.file_bytes(), model.file_bytes() - 256 + 68);
        let key = |model: &GGUFLoader, key| model.metadata().require_u32(key).expect("there");
        assert_eq!((key(&other, "general.file_type"), key(&other, "other")), (7, 5));
        assert_eq!((key(&model, "general.file_type"), model.tensors()[1].ty()), (0, TensorType::F32));
    }

    #[test]
    fn data_that_do_not_fit_are_refused() {
        for (ty, length) in [(TensorType::Q8_0, 67), (TensorType::Q8_0, 0), (TensorType::Q4_K, 36)] {
            let new = Replacement { index: 0, ty, bytes: vec![0; length].into() };
            assert!(model().with_tensors([new]).is_err(), "{ty}, {length} bytes");
        }
    }
}
