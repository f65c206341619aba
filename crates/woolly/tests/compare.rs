//! Comparing models, and quantising them in memory, on a model whose every answer is known.

mod fixture;

use std::path::Path;

use fixture::{Fixture, VOCAB, peak, successors};
use woolly::quantize::{QuantType, QuantizationConfig, QuantizeError, QuantizeOptions, quantize, quantize_in_memory};
use woolly::{
    CompareOptions, Comparison, Error, GGUFLoader, GGUFWriter, GenerateOptions, Model, TensorType, benchmark_perplexity,
};

fn fixture(dir: &Path) -> GGUFLoader {
    GGUFLoader::open(Fixture::default().write(dir)).expect("a valid file")
}

/// The fixture with its logits halved.
fn halved(dir: &Path) -> Model {
    let whole = fixture(dir);
    let mut writer = GGUFWriter::new();
    writer.extend(whole.metadata());
    for tensor in whole.tensors() {
        let halves: Vec<u8> = [0.5_f32; VOCAB].map(f32::to_le_bytes).concat();
        let bytes = if tensor.name() == "output_norm.weight" { halves } else { tensor.bytes().to_vec() };
        writer.tensor(tensor.name(), tensor.dims(), tensor.ty(), bytes);
    }
    let path = dir.join("halved.gguf");
    writer.write_file(&path).expect("written");
    Model::load(path).expect("valid")
}

fn compare(a: &Model, b: &Model, text: &str) -> Comparison {
    a.compare(b, text, CompareOptions { window: 8, ..CompareOptions::default() }).expect("compared")
}

#[test]
fn divergence_is_that_of_the_known_distributions() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, half) = (Model::from_gguf(&fixture(dir.path())).expect("valid"), halved(dir.path()));
    let others = (VOCAB - 1) as f64;
    let normaliser = |peak: f64| (peak.exp() + others).ln();
    let likely = |peak: f64| peak - normaliser(peak);
    // Both give all but the successor the logit 0, so that only the successor's term differs.
    let expected = |p: f64, q: f64| likely(p).exp() * (p - q) - normaliser(p) + normaliser(q);
    let text = "abcdefghijklmnopqrstuvw";
    for (a, b, p, q) in [(&whole, &half, peak(), peak() / 2.0), (&half, &whole, peak() / 2.0, peak())] {
        let result = compare(a, b, text);
        assert_eq!((result.reference.scored, result.other.windows), (9, 3));
        let [mean, max] = [result.divergence.mean, result.divergence.max()];
        assert!((mean - expected(p, q)).abs() < 1e-3 * expected(p, q), "{mean} for {}", expected(p, q));
        assert!((max - mean).abs() < 1e-4 && result.divergence.standard_error < 1e-4);
        assert!((result.reference.mean + likely(p)).abs() < 1e-4 && (result.other.mean + likely(q)).abs() < 1e-4);
        assert!((result.log_ratio.0 - likely(p) + likely(q)).abs() < 1e-4);
        let difference = likely(q).exp() - likely(p).exp();
        assert!((result.difference.mean - difference).abs() < 1e-4 && result.same_top.0 == 1.0);
        assert!((result.difference_rms.0 - difference.abs()).abs() < 1e-4);
    }
    let same = compare(&whole, &whole, text);
    assert_eq!((same.divergence.max(), same.log_ratio.0, same.same_top), (0.0, 0.0, (1.0, 0.0)));
}

#[test]
fn what_is_made_in_memory_is_what_is_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let input = fixture(dir.path());
    let config = QuantizationConfig { layer_config: vec![(0..1, QuantType::Q4_K_M)], embeddings: QuantType::FP16 };
    for target in [QuantType::Q8_0.into(), woolly::quantize::Target::from(config)] {
        let path = dir.path().join("output.gguf");
        let options = || QuantizeOptions { overwrite: true, ..QuantizeOptions::new(target.clone()) };
        let written = quantize(&input, &path, options()).expect("written");
        let (made, report) = quantize_in_memory(&input, options()).expect("made");
        let file = GGUFLoader::open(path).expect("valid");
        assert_eq!((report.bytes_after, report.file_bytes), (written.bytes_after, None));
        for (a, b) in made.tensors().iter().zip(file.tensors()) {
            assert_eq!((a.name(), a.ty(), a.dims()), (b.name(), b.ty(), b.dims()));
            assert!(a.bytes() == b.bytes(), "{}", a.name());
        }
        let keys = |loader: &GGUFLoader| loader.metadata().require_u32("general.file_type").expect("there");
        assert_eq!(keys(&made), keys(&file));
    }
}

#[test]
fn a_loaded_model_is_quantised_where_it_is() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Fixture::default().write(dir.path());
    let model = Model::builder(path).context(64).threads(1).load()?;
    let quantized = model.quantize(QuantType::Q4_0)?;
    let types = |model: &Model| model.summary().types.iter().map(|share| share.ty).collect::<Vec<_>>();
    assert!(types(&quantized).contains(&TensorType::Q4_0) && !types(&model).contains(&TensorType::Q4_0));
    assert_eq!((quantized.context(), quantized.device()), (64, model.device()));
    // A unit vector is exact in Q4_0, so that nothing is lost.
    let answer = quantized.generate_with("abc", GenerateOptions::new().greedy().max_tokens(5))?.text;
    assert_eq!(answer, successors("abc", 5));
    assert!(benchmark_perplexity(&model, &quantized)?.abs() < 1e-3);
    let loss = benchmark_perplexity(&model, &halved(dir.path()))?;
    assert!(loss < -0.5, "a model that is less sure of what is wrong errs less: {loss}");
    let again = quantized.quantize(QuantType::Q8_0).expect_err("refused");
    assert!(matches!(again, Error::Quantize(QuantizeError::Requantize { .. })), "{again}");
    let dry = model.quantize_with(QuantizeOptions { dry_run: true, ..QuantizeOptions::new(QuantType::Q8_0) });
    assert!(matches!(dry, Err(Error::Quantize(QuantizeError::DryRun))));
    Ok(())
}

#[test]
fn models_of_different_tokens_are_not_compared() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let whole = fixture(dir.path());
    let other = whole.with_metadata([("tokenizer.ggml.add_space_prefix", true.into())]);
    let [a, b] = [&whole, &other].map(|file| Model::from_gguf(file).expect("valid"));
    let refused = a.compare(&b, "abcdefgh", CompareOptions { window: 8, ..CompareOptions::default() });
    assert!(matches!(refused, Err(Error::Vocabulary { .. })), "{refused:?}");
    let short = a.compare(&a, "abc", CompareOptions { window: 8, ..CompareOptions::default() });
    assert!(matches!(short, Err(Error::TextTooShort { .. })), "{short:?}");
}
