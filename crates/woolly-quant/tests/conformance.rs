//! Agreement with the reference implementation on the data of `gguf/dequant` and `gguf/iq-grids`, discovered from the
//! index files there. Skipped, with a report, where the data is absent.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use woolly_quant::{TensorType, grids};
use woolly_testdata::{files_ending_in, folder, read_f32};

/// One tensor type of the folder: blocks, and the values that two independent decoders gave for them.
struct Case {
    ty: TensorType,
    blocks: Vec<u8>,
    values: Vec<f32>,
    /// The first so many elements are the reference encoder's result for `source`.
    source: Vec<f32>,
}

impl Case {
    fn load(dir: &Path, name: &str, entry: &Value) -> Self {
        let ty: TensorType = name.parse().unwrap();
        let blocks = fs::read(dir.join(format!("{name}.blocks"))).unwrap();
        let values = read_f32(&dir.join(format!("{name}.f32")));
        let number = |key: &str| usize::try_from(entry[key].as_u64().expect(key)).unwrap();
        assert_eq!(ty.id() as usize, number("ggml_type"), "{name}");
        assert_eq!(ty.block_elements(), number("block_elements"), "{name}");
        assert_eq!(ty.block_bytes(), number("block_bytes"), "{name}");
        assert_eq!(values.len(), number("elements"), "{name}");
        assert_eq!(ty.row_bytes(values.len()), Some(blocks.len()), "{name}");
        let mut source = read_f32(&dir.join("source.f32"));
        source.truncate(number("from_source_elements"));
        Self { ty, blocks, values, source }
    }

    fn reference_blocks(&self) -> &[u8] {
        &self.blocks[..self.ty.row_bytes(self.source.len()).unwrap()]
    }

    fn reference_error(&self) -> f64 {
        rms(&self.source, &self.values[..self.source.len()])
    }

    fn encode(&self) -> Vec<u8> {
        let mut blocks = vec![0; self.reference_blocks().len()];
        self.ty.encode(&self.source, &mut blocks).unwrap();
        blocks
    }
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

fn cases(dir: &Path) -> Vec<Case> {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    index.as_object().unwrap().iter().map(|(name, entry)| Case::load(dir, name, entry)).collect()
}

fn dequant(test: &str) -> Option<PathBuf> {
    folder(test, "gguf/dequant")
}

#[test]
fn every_type_decodes_bit_for_bit() {
    let Some(dir) = dequant("every_type_decodes_bit_for_bit") else { return };
    let cases = cases(&dir);
    for Case { ty, blocks, values, .. } in &cases {
        let mut decoded = vec![f32::NAN; values.len()];
        ty.decode(blocks, &mut decoded).unwrap();
        for (i, (found, expected)) in decoded.iter().zip(values).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{ty}, element {i}: {found:e} instead of {expected:e}");
        }
    }
    let indexed: BTreeSet<String> = cases.iter().map(|case| format!("{}.blocks", case.ty)).collect();
    let present = files_ending_in(&dir, ".blocks");
    let present: BTreeSet<String> =
        present.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(indexed, present, "the index names the files that are there");
    assert!(!cases.is_empty());
}

/// The formats whose encoding is a rule, without a search.
fn is_exact(ty: TensorType) -> bool {
    use TensorType as T;
    matches!(
        ty,
        T::F16 | T::BF16 | T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::Q8_0 | T::TQ1_0 | T::TQ2_0 | T::MXFP4 | T::F32
    )
}

#[test]
fn simple_encoders_give_the_reference_blocks() {
    let Some(dir) = dequant("simple_encoders_give_the_reference_blocks") else { return };
    for case in cases(&dir).iter().filter(|case| is_exact(case.ty)) {
        let size = case.ty.block_bytes();
        for (i, (found, expected)) in case.encode().chunks(size).zip(case.reference_blocks().chunks(size)).enumerate() {
            assert_eq!(found, expected, "{}, block {i}", case.ty);
        }
    }
}

#[test]
fn searching_encoders_are_no_worse_than_the_reference() {
    let Some(dir) = dequant("searching_encoders_are_no_worse_than_the_reference") else { return };
    let mut worse = Vec::new();
    for case in cases(&dir).iter().filter(|case| case.ty.can_encode() && !is_exact(case.ty)) {
        let mut decoded = vec![0.0; case.source.len()];
        case.ty.decode(&case.encode(), &mut decoded).unwrap();
        let (found, reference) = (rms(&case.source, &decoded), case.reference_error());
        let ratio = found / reference;
        println!("{:8} rms error {found:.5}, reference {reference:.5}, ratio {ratio:.4}", case.ty);
        if found > reference {
            worse.push(format!("{}: {ratio:.4} times the reference", case.ty));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
fn grids_are_those_of_the_reference() {
    let Some(dir) = folder("grids_are_those_of_the_reference", "gguf/iq-grids") else { return };
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (name, entry) in index.as_object().unwrap() {
        let Some(file) = entry["file"].as_str() else {
            assert_eq!((name.as_str(), entry["same_grid_as"].as_str()), ("IQ1_M", Some("IQ1_S")));
            continue;
        };
        assert_eq!(fs::read(dir.join(file)).unwrap(), our_grid(name), "{name}");
        compared += 1;
    }
    assert!(compared > 0);
}

fn our_grid(name: &str) -> Vec<u8> {
    let flat8 = |grid: &[[i8; 8]]| grid.as_flattened().iter().map(|&x| x as u8).collect();
    let flat4 = |grid: &[[i8; 4]]| grid.as_flattened().iter().map(|&x| x as u8).collect();
    match name {
        "IQ2_XXS" => flat8(&grids::IQ2_XXS),
        "IQ2_XS" => flat8(&grids::IQ2_XS),
        "IQ2_S" => flat8(&grids::IQ2_S),
        "IQ3_XXS" => flat4(&grids::IQ3_XXS),
        "IQ3_S" => flat4(&grids::IQ3_S),
        "IQ1_S" => flat8(&grids::IQ1),
        "ksigns" => (0..128).map(grids::even_signs).collect(),
        _ => panic!("no table for {name}"),
    }
}
