//! Files that lie, built here: each field at its extremes, cuts at every byte, and random damage.

mod fixture;

use fixture::{small_model, touch_everything};
use proptest::prelude::*;
use woolly_gguf::{Error, GGUFLoader, KeyFault, TensorFault};

/// Bytes of a file, field by field.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(version: u32, tensors: u64, entries: u64) -> Self {
        let raw = Self(b"GGUF".to_vec()).u32(version);
        if version == 1 { raw.u32(tensors as u32).u32(entries as u32) } else { raw.u64(tensors).u64(entries) }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn text(self, text: &[u8]) -> Self {
        self.u64(text.len() as u64).bytes(text)
    }

    /// A description of a tensor of floats.
    fn tensor(self, name: &str, dims: &[u64], offset: u64) -> Self {
        let named = self.text(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(named, |raw, &size| raw.u64(size)).u32(0).u64(offset)
    }

    /// Fills up to the data section and adds `length` bytes of data.
    fn data(mut self, length: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + length, 0);
        self
    }

    fn load(self) -> Result<GGUFLoader, Error> {
        GGUFLoader::from_bytes(self.0.into())
    }

    fn error(self) -> Error {
        self.load().expect_err("a file that must be refused")
    }
}

fn one_entry() -> Raw {
    Raw::header(3, 0, 1)
}

fn key_fault(raw: Raw) -> KeyFault {
    match raw.bytes(&[0; 64]).error() {
        Error::Key { fault, offset: Some(_), .. } => fault,
        other => panic!("not a fault of a key: {other}"),
    }
}

fn tensor_fault(raw: Raw) -> TensorFault {
    match raw.data(4096).error() {
        Error::Tensor { fault, offset: Some(_), .. } => fault,
        other => panic!("not a fault of a tensor: {other}"),
    }
}

#[test]
fn keys_and_values_that_break_a_rule_are_named() {
    let nested = (0..4).fold(one_entry().text(b"k").u32(9), |raw, _| raw.u32(9).u64(1));
    let alignment = |ty, bytes: &[u8]| one_entry().text(b"general.alignment").u32(ty).bytes(bytes);
    let cases = [
        (one_entry().text(b"").u32(4), KeyFault::Empty),
        (one_entry().text(&[b'k'; 65_536]), KeyFault::TooLong { bytes: 65_536 }),
        (one_entry().u64(u64::MAX), KeyFault::TooLong { bytes: u64::MAX }),
        (one_entry().text(b"k").u32(13), KeyFault::UnknownType { id: 13 }),
        (one_entry().text(b"k").u32(9).u32(99), KeyFault::UnknownType { id: 99 }),
        (one_entry().text(b"k").u32(7).bytes(&[2]), KeyFault::InvalidBool { byte: 2 }),
        (one_entry().text(b"k").u32(9).u32(7).u64(2).bytes(&[1, 3]), KeyFault::InvalidBool { byte: 3 }),
        (nested, KeyFault::TooDeep),
        (alignment(4, &0u32.to_le_bytes()), KeyFault::BadAlignment { found: "u32 0".into() }),
        (alignment(4, &13u32.to_le_bytes()), KeyFault::BadAlignment { found: "u32 13".into() }),
        (alignment(4, &4u32.to_le_bytes()), KeyFault::BadAlignment { found: "u32 4".into() }),
        (alignment(5, &32i32.to_le_bytes()), KeyFault::BadAlignment { found: "i32 32".into() }),
        (alignment(10, &32u64.to_le_bytes()), KeyFault::BadAlignment { found: "u64 32".into() }),
        (Raw::header(3, 0, 2).text(b"k").u32(0).bytes(&[1]).text(b"k").u32(0).bytes(&[2]), KeyFault::Duplicate),
    ];
    for (raw, expected) in cases {
        assert_eq!(key_fault(raw), expected);
    }
}

#[test]
fn a_key_of_the_longest_length_is_accepted() {
    let loader = one_entry().text(&[b'k'; 65_535]).u32(0).bytes(&[1]).load().expect("at the limit, not beyond");
    assert_eq!(loader.metadata().len(), 1);
}

#[test]
fn tensors_that_break_a_rule_are_named() {
    let one = || Raw::header(3, 1, 0);
    let two = || Raw::header(3, 2, 0);
    let of_type = |id: u32, size: u64| one().text(b"t").u32(1).u64(size).u32(id).u64(0);
    let cases = [
        (one().tensor("", &[1], 0), TensorFault::EmptyName),
        (one().tensor(&"n".repeat(65), &[1], 0), TensorFault::NameTooLong { bytes: 65 }),
        (one().u64(u64::MAX), TensorFault::NameTooLong { bytes: u64::MAX }),
        (two().tensor("t", &[8], 0).tensor("t", &[8], 32), TensorFault::Duplicate),
        (one().tensor("t", &[], 0), TensorFault::Dimensions { count: 0 }),
        (one().tensor("t", &[1; 5], 0), TensorFault::Dimensions { count: 5 }),
        (one().text(b"t").u32(u32::MAX), TensorFault::Dimensions { count: u32::MAX.into() }),
        (one().tensor("t", &[4, 0, 4], 0), TensorFault::ZeroDimension { axis: 1 }),
        (of_type(4, 32), TensorFault::UnknownType { id: 4 }),
        (of_type(31, 32), TensorFault::UnknownType { id: 31 }),
        (of_type(u32::MAX, 32), TensorFault::UnknownType { id: u32::MAX }),
        (of_type(8, 33), TensorFault::PartialBlock { elements: 33, ty: "Q8_0", block: 32 }),
        (one().tensor("t", &[1 << 63], 0), TensorFault::TooLarge { dims: vec![1 << 63] }),
        (one().tensor("t", &[8], 16), TensorFault::Unaligned { offset: 16, alignment: 32 }),
        (one().tensor("t", &[8], u64::MAX - 31), TensorFault::OffsetTooLarge { offset: u64::MAX - 31 }),
        (two().tensor("a", &[16], 0).tensor("b", &[8], 32), TensorFault::Overlap { other: "a".into() }),
        (two().tensor("a", &[8], 0).tensor("b", &[8], 0), TensorFault::Overlap { other: "a".into() }),
    ];
    for (raw, expected) in cases {
        assert_eq!(tensor_fault(raw), expected);
    }
}

#[test]
fn tensors_may_lie_apart_and_in_any_order() {
    let raw = Raw::header(2, 2, 0).tensor("late", &[8], 128).tensor("early", &[8], 0).data(160);
    let loader = raw.load().expect("gaps and order are the writer's business");
    assert_eq!(loader.version(), 2);
    assert_eq!(loader.tensor("late").map(|t| t.file_offset()), loader.tensor("early").map(|t| t.file_offset() + 128));
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    let array = |ty: u32, count: u64| one_entry().text(b"k").u32(9).u32(ty).u64(count).bytes(&[0; 64]);
    for (raw, field) in [
        (Raw::header(3, u64::MAX, 1).bytes(&[0; 64]), "tensor_count"),
        (Raw::header(3, 1 << 40, 0).bytes(&[0; 64]), "tensor_count"),
        (Raw::header(3, 0, u64::MAX).bytes(&[0; 64]), "metadata_kv_count"),
        (Raw::header(1, 0, u32::MAX.into()).bytes(&[0; 64]), "metadata_kv_count"),
        (array(10, 1 << 61), "array length"),
        (array(8, 1 << 60), "array length"),
        (array(9, 1 << 60), "array length"),
        (array(0, 65), "array length"),
    ] {
        let error = raw.error();
        assert!(matches!(&error, Error::ImplausibleCount { field: f, .. } if f.contains(field)), "{error}");
    }
}

#[test]
fn strings_beyond_the_file_say_how_many_bytes_are_missing() {
    let raw = one_entry().text(b"general.name").u32(8).u64(1 << 63).bytes(b"short");
    match raw.error() {
        Error::Truncated { field, offset: 56, needed, available: 5 } => {
            assert!(field.contains("general.name") && needed == 1 << 63, "{field}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_except_in_arrays() {
    for raw in [
        one_entry().text(b"\xff").u32(0).bytes(&[1]),
        one_entry().text(b"k").u32(8).text(b"\xff"),
        Raw::header(3, 1, 0).text(b"\xff").bytes(&[0; 64]),
    ] {
        let error = raw.error();
        assert!(matches!(error, Error::NotUtf8 { .. }), "{error}");
    }
    let array = one_entry().text(b"k").u32(9).u32(8).u64(1).text(b"\xff").load().expect("a token of any bytes");
    assert_eq!(array.metadata().require_strings("k").expect("strings").get(0), Some(&b"\xff"[..]));
}

#[test]
fn nested_arrays_are_read_to_the_limit() {
    let raw = (0..3).fold(one_entry().text(b"k").u32(9), |raw, _| raw.u32(9).u64(1)).u32(0).u64(1).bytes(&[7]);
    touch_everything(&raw.load().expect("four deep"));
}

#[test]
fn a_header_without_a_model_is_refused() {
    assert!(matches!(Raw::header(3, 0, 0).error(), Error::NoContent));
    for version in [0, 4, u32::MAX] {
        let error = Raw::header(version, 0, 0).error();
        assert!(matches!(error, Error::UnsupportedVersion { version: v } if v == version), "{error}");
    }
}

/// A version-1 file with an entry of each form and a tensor.
fn version_1() -> Vec<u8> {
    let text = |raw: Raw, text: &str| raw.u32(text.len() as u32).bytes(text.as_bytes());
    let raw = text(Raw::header(1, 1, 3), "name").u32(8);
    let raw = text(text(raw, "tiny"), "tokens").u32(9).u32(8).u32(2);
    let raw = text(text(text(raw, "a"), "bc"), "scores").u32(9).u32(6).u32(1).u32(1f32.to_bits());
    text(raw, "t").u32(2).u32(4).u32(2).u32(0).u64(0).data(32).0
}

#[test]
fn version_1_has_narrow_lengths() {
    let loader = GGUFLoader::from_bytes(version_1().into()).expect("valid");
    let metadata = loader.metadata();
    assert_eq!((loader.version(), metadata.require_str("name").ok()), (1, Some("tiny")));
    assert_eq!(metadata.require_strings("tokens").expect("strings").iter().collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
    assert_eq!(metadata.require_f32s("scores").expect("floats"), [1.0]);
    assert_eq!(loader.tensor("t").map(|t| (t.dims().to_vec(), t.byte_len())), Some((vec![4, 2], 32)));
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_that_says_so() {
    for whole in [small_model().to_bytes().expect("valid"), version_1()] {
        touch_everything(&GGUFLoader::from_bytes(whole.clone().into()).expect("the whole file is valid"));
        for length in 1..whole.len() {
            let error = GGUFLoader::from_bytes(whole[..length].to_vec().into()).expect_err("cut short");
            let reported =
                matches!(error, Error::Truncated { .. } | Error::DataTruncated { .. } | Error::ImplausibleCount { .. });
            assert!(reported, "{length} of {} bytes: {error}", whole.len());
        }
    }
}

#[test]
fn missing_data_is_counted_to_the_end_of_the_last_tensor() {
    let mut whole = small_model().to_bytes().expect("valid");
    let (needed, offset) = {
        let loader = GGUFLoader::from_bytes(whole.clone().into()).expect("valid");
        (loader.file_bytes(), loader.tensor("b.weight").expect("present").file_offset())
    };
    whole.truncate(offset as usize + 10);
    match GGUFLoader::from_bytes(whole.into()) {
        Err(Error::DataTruncated { tensor, offset: at, needed: n, available }) => {
            assert_eq!((tensor.as_str(), at, n, available), ("b.weight", offset, needed, offset + 10));
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_an_error_or_another_valid_file(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        old in any::<bool>(),
    ) {
        let mut bytes = if old { version_1() } else { small_model().to_bytes().expect("valid") };
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(loader) = GGUFLoader::from_bytes(bytes.into()) {
            touch_everything(&loader);
        }
    }

    #[test]
    fn any_bytes_behind_a_header_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), version in 1u32..4) {
        for raw in [Raw::header(version, 1, 1), Raw::header(version, 1, 0), Raw::header(version, 0, 2)] {
            if let Ok(loader) = raw.bytes(&bytes).load() {
                touch_everything(&loader);
            }
        }
    }
}
