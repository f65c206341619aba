//! Quantising: models built here, and those of the data folder against what llama.cpp made of them.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use woolly::quantize::{
    Importance, ImportanceMatrix, Progress, QuantType, QuantizationConfig, QuantizeError, QuantizeOptions, Report,
    Target, TensorReport, quantize,
};
use woolly::{CancelToken, Error, ErrorKind, GGUFLoader, GGUFWriter, TensorInfo, TensorType as T, Value};

const ROW: usize = 256;
const LAYERS: usize = 4;

/// Two of each layer's rows fit K-quants, those of `ffn_down` do not.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let matrix = |name: String, row: usize, rows: usize| (name, vec![row as u64, rows as u64]);
    let mut tensors = vec![
        matrix("token_embd.weight".to_owned(), ROW, 40),
        ("output_norm.weight".to_owned(), vec![ROW as u64]),
        matrix("output.weight".to_owned(), ROW, 40),
    ];
    for i in 0..LAYERS {
        tensors.push((format!("blk.{i}.attn_norm.weight"), vec![ROW as u64]));
        tensors.push(matrix(format!("blk.{i}.attn_v.weight"), ROW, 64));
        tensors.push(matrix(format!("blk.{i}.ffn_down.weight"), 96, ROW));
        tensors.push((format!("blk.{i}.ffn_up_exps.weight"), vec![ROW as u64, 16, 3]));
    }
    tensors
}

/// Uneven values between -1 and 1, different in each tensor.
fn weight(tensor: usize, index: usize) -> f32 {
    ((tensor * 977 + index) as f32 * 0.7).sin() * ((index % 7) as f32 + 1.0) / 7.0
}

fn values(tensor: usize, dims: &[u64]) -> Vec<f32> {
    (0..dims.iter().product::<u64>() as usize).map(|index| weight(tensor, index)).collect()
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a model as `ty`, with `spoil` applied to the weights of each tensor.
    fn model(&self, ty: T, spoil: impl Fn(&str, &mut Vec<f32>)) -> GGUFLoader {
        let mut writer = GGUFWriter::new();
        writer.set("general.architecture", "sheep").set("general.file_type", 1u64).set("general.alignment", 64u32);
        writer.set("sheep.block_count", LAYERS as u32).set("sheep.attention.head_count", 8u32);
        writer.set("tokenizer.ggml.tokens", Value::strings(["<s>", "a"])).set("sheep.scales", [0.5f32, 2.0]);
        for (number, (name, dims)) in tensors().into_iter().enumerate() {
            let mut weights = values(number, &dims);
            spoil(&name, &mut weights);
            let ty = if dims.len() > 1 { ty } else { T::F32 };
            let mut bytes = vec![0; ty.row_bytes(weights.len()).expect("whole blocks")];
            ty.encode(&weights, &mut bytes).expect("encodable");
            writer.tensor(&name, &dims, ty, bytes);
        }
        let path = self.path("input.gguf");
        writer.write_file(&path).expect("written");
        GGUFLoader::open(path).expect("a valid file")
    }

    fn plain(&self) -> GGUFLoader {
        self.model(T::F32, |_, _| ())
    }

    /// Quantises and opens the result.
    fn run(&self, input: &GGUFLoader, options: QuantizeOptions<'_>) -> (GGUFLoader, Report) {
        let path = self.path("output.gguf");
        let report = quantize(input, &path, QuantizeOptions { overwrite: true, ..options }).expect("quantised");
        assert_eq!(report.file_bytes, Some(fs::metadata(&path).expect("the file").len()));
        (GGUFLoader::open(path).expect("a valid file"), report)
    }

    fn refusal(&self, input: &GGUFLoader, options: QuantizeOptions<'_>) -> Error {
        let error = quantize(input, self.path("refused.gguf"), options).expect_err("refused");
        let left: Vec<_> = fs::read_dir(self.dir.path()).expect("listable").map(|e| e.expect("entry").path()).collect();
        assert!(left.iter().all(|path| !path.to_string_lossy().contains("refused")), "{left:?}");
        error
    }
}

fn types(loader: &GGUFLoader) -> HashMap<&str, T> {
    loader.tensors().iter().map(|tensor| (tensor.name(), tensor.ty())).collect()
}

fn decode(loader: &GGUFLoader, name: &str) -> Vec<f32> {
    let tensor = loader.tensor(name).expect("a tensor");
    let mut values = vec![0.0; tensor.elements() as usize];
    tensor.ty().decode(tensor.bytes(), &mut values).expect("whole blocks");
    values
}

/// Root of the mean squared error over that of the values.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = squares(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (error / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn weights_survive_within_the_error_of_their_type() {
    let bench = Bench::new();
    let input = bench.plain();
    // A step of a b-bit code over the range of a block is 2 / (2^b - 1) of the largest weight; its rounding error is
    // about 0.29 steps, relative to weights of a third to a half of the largest.
    let bounds = [
        (QuantType::F16, 0.0005),
        (QuantType::BF16, 0.004),
        (QuantType::Q8_0, 0.01),
        (QuantType::Q6_K, 0.03),
        (QuantType::Q5_K_M, 0.06),
        (QuantType::Q4_K_M, 0.12),
        (QuantType::Q4_0, 0.15),
        (QuantType::IQ4_XS, 0.15),
        (QuantType::Q3_K_M, 0.25),
    ];
    for (target, bound) in bounds {
        let (output, report) = bench.run(&input, QuantizeOptions::new(target));
        for (number, (name, dims)) in tensors().iter().enumerate() {
            let error = relative_error(&decode(&output, name), &values(number, dims));
            assert!(error < bound, "{target} {name}: {error}");
            assert!(dims.len() > 1 || error == 0.0, "{name} must stay as it is");
        }
        let found: Vec<T> = output.tensors().iter().map(|tensor| tensor.ty()).collect();
        assert_eq!(found, report.tensors.iter().map(|tensor| tensor.to).collect::<Vec<_>>());
        let bytes: u64 = output.tensors().iter().map(|tensor| tensor.byte_len()).sum();
        assert_eq!((report.bytes_after, report.file_type), (bytes, target));
    }
}

#[test]
fn the_blocks_are_those_of_the_codec_whatever_the_threads() {
    let bench = Bench::new();
    let input = bench.plain();
    let mut files = Vec::new();
    for threads in [1, 2, 7] {
        let threads = NonZeroUsize::new(threads);
        let (output, _) = bench.run(&input, QuantizeOptions { threads, ..QuantizeOptions::new(QuantType::Q4_K_M) });
        files.push(fs::read(output.path().expect("a file")).expect("readable"));
        for (number, (name, dims)) in tensors().iter().enumerate().filter(|(_, (_, dims))| dims.len() > 1) {
            let tensor = output.tensor(name).expect("a tensor");
            let mut blocks = vec![0; tensor.byte_len() as usize];
            tensor.ty().encode(&values(number, dims), &mut blocks).expect("encodable");
            assert_eq!(&**tensor.bytes(), blocks, "{name}");
        }
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_same_type_changes_no_weight_and_metadata_stays() {
    let bench = Bench::new();
    let input = bench.plain();
    let (output, report) = bench.run(&input, QuantizeOptions::new(QuantType::F32));
    assert_eq!(input.tensors().len(), output.tensors().len());
    for (before, after) in input.tensors().iter().zip(output.tensors()) {
        assert_eq!((before.name(), before.ty(), before.dims()), (after.name(), after.ty(), after.dims()));
        assert_eq!(**before.bytes(), **after.bytes());
    }
    assert_eq!(report.bytes_before, report.bytes_after);
    assert_eq!(report.bits_per_weight(), 32.0);
    for (key, value) in input.metadata().iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(output.metadata().get(key), Some(value), "{key}");
    }
    assert_eq!(output.metadata().get("general.file_type"), Some(&Value::U32(0)));
    assert_eq!(output.metadata().get("general.quantization_version"), Some(&Value::U32(2)));
    assert_eq!((output.alignment(), output.metadata().len()), (64, input.metadata().len() + 1));
}

#[test]
fn what_is_asked_for_by_name_counts_over_the_mix() {
    let bench = Bench::new();
    let input = bench.plain();
    let new = || QuantizeOptions::new(QuantType::Q4_K_S);
    let overrides = vec!["blk\\.(0|1)\\.attn_v=q8_0".parse().expect("valid"), "attn_v=f16".parse().expect("valid")];
    let cases = [
        (new(), vec![("output.weight", T::Q6_K), ("token_embd.weight", T::Q4_K), ("blk.3.ffn_down.weight", T::Q5_0)]),
        (QuantizeOptions { pure: true, ..new() }, vec![("output.weight", T::Q4_K), ("blk.0.attn_v.weight", T::Q4_K)]),
        (
            QuantizeOptions { keep_output: true, ..new() },
            vec![("output.weight", T::F32), ("blk.3.attn_v.weight", T::Q5_K)],
        ),
        (
            QuantizeOptions { output_type: Some(T::Q8_0), embedding_type: Some(T::F16), ..new() },
            vec![("output.weight", T::Q8_0), ("token_embd.weight", T::F16)],
        ),
        (
            QuantizeOptions { overrides, ..new() },
            vec![("blk.1.attn_v.weight", T::Q8_0), ("blk.2.attn_v.weight", T::F16), ("blk.2.attn_norm.weight", T::F32)],
        ),
    ];
    for (options, expected) in cases {
        let (output, _) = bench.run(&input, options);
        for (name, ty) in expected {
            assert_eq!(types(&output).get(name), Some(&ty), "{name}");
        }
    }
}

#[test]
fn layers_can_differ_as_the_guide_shows() {
    let bench = Bench::new();
    let config = QuantizationConfig {
        layer_config: vec![(0..1, QuantType::Q8_0), (2..4, QuantType::Q4_K_M)],
        embeddings: QuantType::FP16,
    };
    let (output, report) = bench.run(&bench.plain(), QuantizeOptions::new(config.clone()));
    let expected = [
        ("token_embd.weight", T::F16),
        ("output.weight", T::F16),
        ("blk.0.attn_v.weight", T::Q8_0),
        ("blk.1.attn_v.weight", T::F32), // of no range
        ("blk.2.ffn_up_exps.weight", T::Q4_K),
        ("blk.3.attn_v.weight", T::Q6_K), // 3 >= 7 * 4 / 8: the last layers are worth more bits
        ("blk.3.attn_norm.weight", T::F32),
    ];
    for (name, ty) in expected {
        assert_eq!(types(&output).get(name), Some(&ty), "{name}");
    }
    assert_eq!(report.file_type, QuantType::Q4_K_M);
    let beyond = QuantizationConfig { layer_config: vec![(0..5, QuantType::Q8_0)], ..config.clone() };
    let twice = QuantizationConfig { layer_config: vec![(0..3, QuantType::Q8_0), (2..4, QuantType::Q8_0)], ..config };
    for (config, names) in [(beyond, ["0 to 5", "4 layers"]), (twice, ["layer 2", "two ranges"])] {
        let error = bench.refusal(&bench.plain(), QuantizeOptions::new(config));
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(names.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let input = bench.plain();
    let new = QuantizeOptions::new;
    let pattern = |text: &str| vec![text.parse().expect("valid")];
    let cases = [
        (new(QuantType::IQ2_XS), "importance matrix"),
        (QuantizeOptions { overrides: pattern("attn_w=q4_0"), ..new(QuantType::Q8_0) }, "attn_w"),
        (QuantizeOptions { overrides: pattern("attn_norm=q4_0"), ..new(QuantType::Q8_0) }, "attn_norm"),
        (QuantizeOptions { overrides: pattern("attn_v=q8_1"), ..new(QuantType::Q8_0) }, "Q8_1"),
        (QuantizeOptions { output_type: Some(T::I8), ..new(QuantType::Q8_0) }, "I8"),
    ];
    for (options, part) in cases {
        let error = bench.refusal(&input, options);
        assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    let (_, report) = bench.run(&input, QuantizeOptions { without_importance: true, ..new(QuantType::IQ2_XS) });
    assert!(report.tensors.iter().any(|tensor| tensor.to == T::IQ2_XS));
}

#[test]
fn quantised_weights_are_only_changed_when_that_is_allowed() {
    let bench = Bench::new();
    let input = bench.model(T::Q8_0, |_, _| ());
    let error = bench.refusal(&input, QuantizeOptions::new(QuantType::Q4_0));
    assert!(matches!(&error, Error::Quantize(QuantizeError::Requantize { from: T::Q8_0, .. })), "{error}");
    let (same, _) = bench.run(&input, QuantizeOptions::new(QuantType::Q8_0));
    assert_eq!(types(&same), types(&input));
    let allowed = QuantizeOptions { allow_requantize: true, ..QuantizeOptions::new(QuantType::Q6_K) };
    let (output, _) = bench.run(&input, allowed);
    assert_eq!(types(&output)["blk.0.attn_v.weight"], T::Q6_K);
}

#[test]
fn damaged_weights_are_named() {
    let bench = Bench::new();
    let cases = [
        ("blk.2.attn_v.weight", 5 * ROW + 9, f32::NAN, QuantType::Q4_K_M, "row 5, column 9"),
        ("blk.1.ffn_down.weight", 3, f32::INFINITY, QuantType::F16, "inf in row 0, column 3"),
        ("blk.0.attn_norm.weight", 4, f32::NAN, QuantType::Q8_0, "row 0, column 4"),
        ("blk.2.attn_v.weight", ROW, f32::NEG_INFINITY, QuantType::F32, "row 1, column 0"),
        ("blk.3.ffn_up_exps.weight", 17 * ROW, 70_000.0, QuantType::F16, "65504"),
    ];
    for (name, index, value, target, part) in cases {
        let input = bench.model(T::F32, |tensor, weights| {
            if tensor == name {
                weights[index] = value;
            }
        });
        let error = bench.refusal(&input, QuantizeOptions::new(target)).to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
}

#[test]
fn outputs_are_neither_the_input_nor_replaced_unasked() {
    let bench = Bench::new();
    let input = bench.plain();
    let path = input.path().expect("a file").to_owned();
    let before = fs::read(&path).expect("readable");
    let overwrite = QuantizeOptions { overwrite: true, ..QuantizeOptions::new(QuantType::Q8_0) };
    let onto = quantize(&input, bench.dir.path().join("./input.gguf"), overwrite).expect_err("the input itself");
    assert!(matches!(onto, Error::Quantize(QuantizeError::OntoInput { .. })), "{onto}");
    assert_eq!(fs::read(&path).expect("readable"), before);
    let there = bench.path("there.gguf");
    fs::write(&there, "precious").expect("written");
    let exists = quantize(&input, &there, QuantizeOptions::new(QuantType::Q8_0)).expect_err("it exists");
    assert!(matches!(exists, Error::Quantize(QuantizeError::Exists { .. })), "{exists}");
    let nowhere = quantize(&input, bench.path("absent/x.gguf"), QuantizeOptions::new(QuantType::Q8_0));
    let nowhere = nowhere.expect_err("no such folder");
    assert!(matches!(nowhere, Error::Output(_)) && nowhere.to_string().contains("absent"), "{nowhere}");
    assert_eq!(fs::read_to_string(&there).expect("readable"), "precious");
}

#[test]
fn a_dry_run_foresees_everything_and_touches_nothing() {
    let bench = Bench::new();
    let input = bench.plain();
    let dry = QuantizeOptions { dry_run: true, ..QuantizeOptions::new(QuantType::Q4_K_M) };
    let foreseen = quantize(&input, Path::new("/nowhere/at/all.gguf"), dry).expect("nothing is written");
    let (output, report) = bench.run(&input, QuantizeOptions::new(QuantType::Q4_K_M));
    let sizes = |(tensor, made): (&TensorReport, &TensorInfo)| (tensor.bytes_after, made.byte_len());
    let sizes: Vec<(u64, u64)> = foreseen.tensors.iter().zip(output.tensors()).map(sizes).collect();
    assert!(sizes.iter().all(|(foreseen, made)| foreseen == made), "{sizes:?}");
    assert_eq!((foreseen.tensors, foreseen.bytes_after), (report.tensors, report.bytes_after));
    assert_eq!(foreseen.file_bytes, None);
}

#[test]
fn progress_ends_with_everything_and_cancelling_leaves_nothing() {
    let bench = Bench::new();
    let input = bench.plain();
    let total: u64 = input.tensors().iter().map(|tensor| tensor.byte_len()).sum();
    let mut calls: Vec<(String, u64)> = Vec::new();
    let on_progress = |at: &Progress<'_>| {
        assert_eq!(at.bytes_total, total);
        calls.push((at.tensor.to_owned(), at.bytes_done));
    };
    let options = QuantizeOptions { on_progress: Some(Box::new(on_progress)), ..QuantizeOptions::new(QuantType::Q8_0) };
    bench.run(&input, options);
    assert!(calls.is_sorted_by_key(|(_, done)| *done));
    assert_eq!(calls.last().map(|(tensor, done)| (tensor.as_str(), *done)), Some(("blk.3.ffn_up_exps.weight", total)));
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let on_progress: Box<dyn FnMut(&Progress<'_>)> = Box::new(move |_| token.cancel());
    let options = QuantizeOptions { on_progress: Some(on_progress), cancel, ..QuantizeOptions::new(QuantType::Q8_0) };
    assert!(matches!(bench.refusal(&input, options), Error::Cancelled));
    // And what is cancelled before it begins writes nothing either.
    let cancel = CancelToken::new();
    cancel.cancel();
    let options = QuantizeOptions { cancel, ..QuantizeOptions::new(QuantType::Q8_0) };
    assert!(matches!(bench.refusal(&input, options), Error::Cancelled));
}

#[test]
fn targets_are_mixes_or_layers() {
    assert_eq!(Target::from(QuantType::FP16), Target::Mix("f16".parse().expect("a name")));
    let config = QuantizationConfig { layer_config: Vec::new(), embeddings: QuantType::Q8_0 };
    assert_eq!(Target::from(config.clone()), Target::Layers(config));
}

#[test]
fn files_have_the_size_and_types_of_llama_cpp() {
    let test = "files_have_the_size_and_types_of_llama_cpp";
    let Some(models) = woolly_testdata::folder(test, "models") else { return };
    let bench = Bench::new();
    let mut compared = 0;
    for dir in woolly_testdata::files_ending_in(&models, "").iter().filter(|path| path.is_dir()) {
        for original in woolly_testdata::files_ending_in(dir, "-f32.gguf") {
            let name = original.file_name().expect("a name").to_string_lossy().into_owned();
            let input = GGUFLoader::open(&original).expect("a valid file");
            for theirs in woolly_testdata::files_ending_in(dir, ".gguf") {
                let Some(mix) = mix_of(&theirs, &name) else { continue };
                let (ours, _) = bench.run(&input, QuantizeOptions::new(mix));
                compare(&ours, &GGUFLoader::open(&theirs).expect("a valid file"), mix);
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "{} holds no original with quantised files", models.display());
}

/// The mix in the name of a file that was made of `original`: `NAME-q4_0.gguf` of `NAME-f32.gguf`.
fn mix_of(path: &Path, original: &str) -> Option<QuantType> {
    let name = path.file_name()?.to_str()?;
    let mix = name.strip_prefix(original.strip_suffix("f32.gguf")?)?.strip_suffix(".gguf")?;
    mix.parse().ok()
}

/// Types agree; in the formats of one possible encoding the blocks do too, in the others the decoded weights are close.
fn compare(ours: &GGUFLoader, theirs: &GGUFLoader, mix: QuantType) {
    for expected in theirs.tensors() {
        let name = expected.name();
        let found = ours.tensor(name).expect(name);
        assert_eq!((found.ty(), found.dims()), (expected.ty(), expected.dims()), "{mix} {name}");
        match found.ty() {
            T::F32 | T::F16 | T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::Q8_0 => {
                assert_eq!(**found.bytes(), **expected.bytes(), "{mix} {name}");
            }
            _ => {
                let error = relative_error(&decode(ours, name), &decode(theirs, name));
                assert!(error < 0.1, "{mix} {name}: {error}");
            }
        }
    }
}

/// Even columns matter a hundred times as much as odd ones; of the experts, each a little more than the one before.
fn importance(columns: usize, matrices: usize) -> Importance {
    let weight = |i: usize| if i.is_multiple_of(2) { 100.0 } else { 1.0 } * (1 + i / columns) as f32;
    Importance { sums: (0..columns * matrices).map(weight).collect(), counts: vec![2.0; matrices] }
}

fn matrix(entries: impl IntoIterator<Item = (String, Importance)>) -> Arc<ImportanceMatrix> {
    let mut matrix = ImportanceMatrix::default();
    matrix.entries.extend(entries);
    Arc::new(matrix)
}

#[test]
fn an_importance_matrix_weighs_the_columns_of_each_matrix() {
    let bench = Bench::new();
    let input = bench.plain();
    let entries = tensors().into_iter().filter(|(name, _)| name.starts_with("blk.") && name.ends_with(".weight"));
    let entries = entries.filter(|(_, dims)| dims.len() > 1).map(|(name, dims)| {
        let entry = importance(dims[0] as usize, dims.get(2).map_or(1, |&matrices| matrices as usize));
        (name, entry)
    });
    let known = matrix(entries);
    let refused = bench.refusal(&input, QuantizeOptions::new(QuantType::IQ2_XXS));
    assert!(matches!(refused, Error::Quantize(QuantizeError::NeedsImportance { .. })), "{refused}");
    let options = |importance| QuantizeOptions { importance, ..QuantizeOptions::new(QuantType::IQ2_XXS) };
    let (output, _) = bench.run(&input, options(Some(known.clone())));
    for (number, (name, dims)) in tensors().iter().enumerate() {
        let Some(entry) = known.entries.get(name) else { continue };
        let (ty, columns) = (output.tensor(name).expect("there").ty(), dims[0] as usize);
        let rows = values(number, dims);
        let per_matrix = dims[1] as usize;
        let mut expected = Vec::new();
        for (row, values) in rows.chunks(columns).enumerate() {
            let weights = &entry.sums[row / per_matrix * columns..][..columns];
            let mut blocks = vec![0; ty.row_bytes(columns).expect("whole blocks")];
            ty.encode_weighted(values, weights, &mut blocks).expect("encodable");
            expected.extend(blocks);
        }
        assert!(output.tensor(name).expect("there").bytes()[..] == expected[..], "{name} as {ty}");
    }
    assert_eq!(output.metadata().i64("quantize.imatrix.entries_count").ok(), Some(Some(known.entries.len() as i64)));
}

#[test]
fn a_matrix_of_another_model_is_refused() {
    let bench = Bench::new();
    let input = bench.plain();
    let name = "blk.0.attn_v.weight".to_owned();
    let options = |matrix| QuantizeOptions { importance: Some(matrix), ..QuantizeOptions::new(QuantType::Q4_K_M) };
    let wrong = bench.refusal(&input, options(matrix([(name, importance(ROW / 2, 1))])));
    assert!(
        matches!(wrong, Error::Quantize(QuantizeError::ImportanceSize { found: 128, expected: 256, .. })),
        "{wrong}"
    );
    let foreign = bench.refusal(&input, options(matrix([("blk.0.wool".to_owned(), importance(ROW, 1))])));
    assert!(matches!(foreign, Error::Quantize(QuantizeError::ImportanceForeign)), "{foreign}");
}

#[test]
fn a_split_model_is_the_same_model() {
    let bench = Bench::new();
    let input = bench.plain();
    let (whole, _) = bench.run(&input, QuantizeOptions::new(QuantType::Q8_0));
    let options = || QuantizeOptions { split_bytes: Some(20_000), ..QuantizeOptions::new(QuantType::Q8_0) };
    let report = quantize(&input, bench.path("split.gguf"), options()).expect("written");
    let names: Vec<String> =
        (1..=report.paths.len()).map(|no| format!("split-{no:05}-of-{:05}.gguf", report.paths.len())).collect();
    assert!(names.len() > 2 && report.paths.iter().zip(&names).all(|(path, name)| path.ends_with(name)), "{report:?}");
    let split = GGUFLoader::open(&report.paths[1]).expect("valid");
    for (a, b) in split.tensors().iter().zip(whole.tensors()) {
        assert!(a.name() == b.name() && a.bytes() == b.bytes(), "{}", a.name());
    }
    let again = quantize(&input, bench.path("split.gguf"), options()).expect_err("refused");
    assert!(matches!(again, Error::Quantize(QuantizeError::Exists { path }) if path == report.paths[0]));
}
