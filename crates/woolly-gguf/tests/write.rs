//! What is written is what is read: in memory, as a file and split, and nothing invalid is written.

mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::io;

use fixture::{floats, scalars, small_model};
use proptest::prelude::*;
use woolly_gguf::{Array, Error, GGUFLoader, GGUFWriter, KeyFault, SharedBytes, TensorFault, TensorSource, Value};
use woolly_quant::TensorType;

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn any_array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        prop::collection::vec(any::<i32>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::from),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Value::from),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9).prop_map(Value::strings),
    ];
    let flat = flat.prop_map(|value| match value {
        Value::Array(array) => array,
        other => unreachable!("{other:?} was made of a vector"),
    });
    flat.prop_recursive(2, 12, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|arrays| Array::Arrays(arrays.into()))
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any_text().prop_map(Value::from),
        any_array().prop_map(Value::from),
    ]
}

fn any_tensor() -> impl Strategy<Value = (TensorType, Vec<u64>)> {
    let types = prop::sample::select(TensorType::ALL);
    (types, 1u64..4, prop::collection::vec(1u64..4, 0..4))
        .prop_map(|(ty, blocks, rest)| (ty, [vec![blocks * ty.block_elements() as u64], rest].concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::btree_map("[a-z.]{1,12}", any_value(), 1..8),
        tensors in prop::collection::btree_map("[a-z.]{1,64}", any_tensor(), 0..6),
        alignment in prop::sample::select(vec![None, Some(8u32), Some(64), Some(4096)]),
    ) {
        let tensors: BTreeMap<_, _> = tensors.into_iter().map(|(name, (ty, dims))| {
            let rows: u64 = dims[1..].iter().product();
            let bytes = ty.row_bytes(dims[0] as usize).expect("whole blocks") * rows as usize;
            (name, (ty, dims, (0..bytes).map(|i| (i * 7) as u8).collect::<Vec<_>>()))
        }).collect();
        let mut writer = GGUFWriter::new();
        for (key, value) in &entries {
            writer.set(key, value.clone());
        }
        if let Some(alignment) = alignment {
            writer.set("general.alignment", alignment);
        }
        for (name, (ty, dims, data)) in &tensors {
            writer.tensor(name, dims, *ty, data);
        }

        let loader = GGUFLoader::from_bytes(writer.to_bytes()?.into())?;

        let alignment = u64::from(alignment.unwrap_or(32));
        prop_assert_eq!((loader.version(), loader.alignment()), (3, alignment));
        let read = loader.metadata().iter().filter(|(key, _)| *key != "general.alignment");
        prop_assert!(read.eq(entries.iter().map(|(key, value)| (key.as_str(), value))));
        prop_assert_eq!(loader.tensors().len(), tensors.len());
        for (info, (name, (ty, dims, data))) in loader.tensors().iter().zip(&tensors) {
            prop_assert_eq!((info.name(), info.ty(), info.dims()), (name.as_str(), *ty, dims.as_slice()));
            prop_assert_eq!(&info.bytes()[..], &data[..]);
            prop_assert_eq!(info.file_offset() % alignment, 0);
        }
    }
}

#[test]
fn the_layout_is_that_of_the_specification() {
    let bytes = GGUFWriter::new().set("k", 7u8).tensor("t", &[1], TensorType::F32, [1, 2, 3, 4]).to_bytes();
    let expected = [
        &b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..],
        b"\x01\0\0\0\0\0\0\0k\0\0\0\0\x07",
        b"\x01\0\0\0\0\0\0\0t\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        &[0; 25],
        b"\x01\x02\x03\x04",
        &[0; 28],
    ]
    .concat();
    assert_eq!(bytes.expect("valid"), expected);
}

#[test]
fn a_streamed_tensor_must_be_as_long_as_announced() {
    for length in [0, 31, 32, 33] {
        let stream = TensorSource::stream(move |out: &mut dyn io::Write| out.write_all(&vec![1; length]));
        let result = GGUFWriter::new().tensor("t", &[8], TensorType::F32, stream).to_bytes();
        match result {
            Ok(_) => assert_eq!(length, 32),
            Err(Error::Tensor { fault, .. }) => {
                assert_eq!(fault, TensorFault::DataLength { given: length as u64, needed: 32 });
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn nothing_invalid_is_written() {
    let deep = (0..4).fold(scalars([1u8]), |array, _| Array::Arrays([array].into()));
    let keys = [
        (GGUFWriter::new().set("", 1u8).to_bytes(), KeyFault::Empty),
        (GGUFWriter::new().set(&"k".repeat(65_536), 1u8).to_bytes(), KeyFault::TooLong { bytes: 65_536 }),
        (GGUFWriter::new().set("k", deep).to_bytes(), KeyFault::TooDeep),
        (
            GGUFWriter::new().set("general.alignment", 12u32).to_bytes(),
            KeyFault::BadAlignment { found: "u32 12".into() },
        ),
    ];
    for (result, expected) in keys {
        assert!(matches!(&result, Err(Error::Key { fault, .. }) if *fault == expected), "{result:?}");
    }
    let tensor = |name: &str, dims: &[u64], ty| GGUFWriter::new().tensor(name, dims, ty, []).to_bytes();
    let tensors = [
        (tensor("", &[1], TensorType::F32), TensorFault::EmptyName),
        (tensor(&"n".repeat(65), &[1], TensorType::F32), TensorFault::NameTooLong { bytes: 65 }),
        (tensor("t", &[], TensorType::F32), TensorFault::Dimensions { count: 0 }),
        (tensor("t", &[0], TensorType::F32), TensorFault::ZeroDimension { axis: 0 }),
        (tensor("t", &[31], TensorType::Q4_0), TensorFault::PartialBlock { elements: 31, ty: "Q4_0", block: 32 }),
        (
            GGUFWriter::new().tensor("t", &[1], TensorType::I8, [1]).tensor("t", &[1], TensorType::I8, [1]).to_bytes(),
            TensorFault::Duplicate,
        ),
    ];
    for (result, expected) in tensors {
        assert!(matches!(&result, Err(Error::Tensor { fault, .. }) if *fault == expected), "{result:?}");
    }
    assert!(matches!(GGUFWriter::new().to_bytes(), Err(Error::NoContent)));
}

#[test]
fn a_file_appears_only_when_it_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let length = small_model().write_file(&path).expect("written");
    let before = fs::read(&path).expect("readable");
    assert_eq!((before.len() as u64, &before), (length, &small_model().to_bytes().expect("valid")));

    let fails = TensorSource::stream(|_: &mut dyn io::Write| Err(io::Error::other("the source failed")));
    let error = small_model().tensor("d", &[1], TensorType::I8, fails).write_file(&path).expect_err("a failing source");
    assert!(error.to_string().contains("the source failed"), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), before);
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing else stays behind");
}

#[test]
fn a_model_read_from_a_file_can_be_written_again() {
    let first = small_model().to_bytes().expect("valid");
    let loader = GGUFLoader::from_bytes(first.clone().into()).expect("valid");
    let mut writer = GGUFWriter::new();
    writer.extend(loader.metadata());
    for tensor in loader.tensors() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.ty(), loader.tensor_bytes(tensor));
    }
    assert_eq!(writer.to_bytes().expect("valid"), first);
}

#[test]
fn split_parts_hold_whole_tensors_up_to_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    // 96, 68 and 32 bytes of data: the last two fit together.
    let paths = small_model().write_split(folder.path().join("m"), 100).expect("written");
    let tensors = |path| {
        let bytes = SharedBytes::from_vec(fs::read(path).expect("readable"));
        match GGUFLoader::from_bytes(bytes.clone()) {
            Err(Error::Split(_)) => bytes[8],
            other => panic!("one part alone is no model: {other:?}"),
        }
    };
    assert_eq!(paths.iter().map(tensors).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(small_model().write_split(folder.path().join("n"), 0).expect("written").len(), 3);
    assert_eq!(small_model().write_split(folder.path().join("o"), u64::MAX).expect("written").len(), 1);
    let whole = GGUFLoader::open(folder.path().join("o-00001-of-00001.gguf")).expect("one part is a whole model");
    assert_eq!(&whole.tensor("a.weight").expect("present").bytes()[..], floats(24));
}

#[test]
fn parts_can_be_joined_to_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = small_model().write_split(folder.path().join("m"), 0).expect("written");
    let parts = GGUFLoader::open(&paths[0]).expect("all parts");
    let mut writer = GGUFWriter::new();
    writer.extend(parts.metadata());
    for tensor in parts.tensors() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.ty(), tensor.bytes().clone());
    }
    assert_eq!(writer.to_bytes().expect("valid"), small_model().to_bytes().expect("valid"));
}
