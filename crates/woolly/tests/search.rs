//! Searching the smallest mix within a divergence, on the model of the repository.

use std::path::Path;

use woolly::quantize::{
    FoundMix, QuantType, QuantizeError, QuantizeOptions, SearchOptions, Target, quantize_in_memory,
};
use woolly::{CompareOptions, Error, GGUFLoader, Model, TensorType};

const TARGET: f64 = 0.02;
const WINDOW: usize = 128;

/// A few sentences; what they say does not matter, since the original's predictions are the truth.
fn text() -> String {
    let heroes = ["fox", "bird", "girl", "baker", "king", "cat"];
    let story = |hero: &&str| {
        format!(
            "Once upon a time there was a little {hero} who lived near a river. One day the {hero} found a red kite. "
        )
    };
    heroes.iter().map(story).collect::<String>().repeat(2)
}

fn original() -> GGUFLoader {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/woolly-lamb-Q8_0.gguf");
    let file = GGUFLoader::open(path).expect("the model of the repository");
    let options = QuantizeOptions { allow_requantize: true, ..QuantizeOptions::new(QuantType::F16) };
    quantize_in_memory(&file, options).expect("in half precision").0
}

fn measure(model: &Model, target: impl Into<Target>, pure: bool) -> (f64, u64) {
    let options = || QuantizeOptions { pure, without_importance: true, ..QuantizeOptions::new(target.into()) };
    let (file, report) = quantize_in_memory(&original(), options()).expect("made");
    let other = Model::from_gguf(&file).expect("valid");
    let options = CompareOptions { window: WINDOW, max_windows: Some(2), ..CompareOptions::default() };
    (model.compare(&other, &text(), options).expect("compared").divergence.mean, report.bytes_after)
}

#[test]
fn the_mix_is_within_the_target_and_smaller_than_one_type_for_all() {
    let model = Model::from_gguf(&original()).expect("valid");
    let mut seen = Vec::new();
    let options = SearchOptions {
        window: WINDOW,
        max_windows: 2,
        types: vec![TensorType::Q8_0, TensorType::Q6_K, TensorType::Q5_K, TensorType::Q4_K, TensorType::Q3_K],
        on_progress: Some(Box::new(|so_far| seen.push(so_far.what.to_owned()))),
        ..SearchOptions::new(TARGET)
    };
    let FoundMix { types, divergence, bytes, measured, .. } = model.search_mix(&text(), options).expect("found");
    assert_eq!(seen.len(), measured);
    let (again, same_bytes) = measure(&model, Target::Tensors(types), false);
    assert_eq!(bytes, same_bytes);
    assert!((again - divergence.0).abs() < 1e-9 && again <= TARGET, "{again} for {}", divergence.0);
    let uniform = [QuantType::Q8_0, QuantType::Q6_K, QuantType::Q5_K_S, QuantType::Q4_K_S, QuantType::Q3_K_S];
    let within = uniform.into_iter().map(|ty| measure(&model, ty, true)).filter(|(mean, _)| *mean <= TARGET);
    let smallest = within.map(|(_, bytes)| bytes).min().expect("eight bits are within it");
    assert!(bytes < smallest, "{bytes} bytes searched, {smallest} of one type");
}

#[test]
fn targets_that_cannot_be_met_are_told_with_what_can() {
    let model = Model::from_gguf(&original()).expect("valid");
    let options = |target| SearchOptions {
        window: WINDOW,
        max_windows: 1,
        types: vec![TensorType::Q4_0],
        ..SearchOptions::new(target)
    };
    for target in [0.0, -1.0, f64::NAN] {
        assert!(matches!(
            model.search_mix(&text(), options(target)),
            Err(Error::Quantize(QuantizeError::Target { .. }))
        ));
    }
    match model.search_mix(&text(), options(1e-7)) {
        Err(Error::Quantize(QuantizeError::Target { least, .. })) => assert!(least > 1e-7, "{least}"),
        other => panic!("{other:?}"),
    }
}
