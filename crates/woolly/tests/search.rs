//! The search for the smallest mix within a divergence, on the built-in model.

#![cfg(feature = "lamb")]

use woolly::quantize::{
    FoundMix, QuantType, QuantizeError, QuantizeOptions, SearchOptions, Target, quantize_in_memory,
};
use woolly::{CompareOptions, Error, GGUFLoader, Model, TensorType as T};

const TEXT: &str = include_str!("../src/quantize/benchmark.txt");
const WINDOW: usize = 128;
const WINDOWS: usize = 2;

struct Lamb {
    file: GGUFLoader,
    model: Model,
}

impl Lamb {
    fn new() -> Self {
        let file = woolly::lamb::open().expect("a valid file");
        Self { model: Model::from_gguf(&file).expect("a valid model"), file }
    }

    /// The built-in file is quantised already; no larger one is at hand.
    fn search(&self, target: f64) -> Result<FoundMix, woolly::Error> {
        self.search_among(&[T::Q8_0, T::Q4_K, T::Q2_K], target)
    }

    fn search_among(&self, types: &[T], target: f64) -> Result<FoundMix, woolly::Error> {
        let options = SearchOptions {
            types: types.to_vec(),
            window: WINDOW,
            max_windows: WINDOWS,
            allow_requantize: true,
            ..SearchOptions::new(target)
        };
        self.model.search_mix(TEXT, options)
    }

    /// Bytes of the tensors, and divergence on the text of the search.
    fn measure(&self, target: impl Into<Target>, pure: bool) -> (u64, f64) {
        let options = QuantizeOptions { allow_requantize: true, pure, ..QuantizeOptions::new(target) };
        let (file, report) = quantize_in_memory(&self.file, options).expect("quantised");
        let options = CompareOptions { window: WINDOW, max_windows: Some(WINDOWS), ..CompareOptions::default() };
        let other = Model::from_gguf(&file).expect("a valid model");
        (report.bytes_after, self.model.compare(&other, TEXT, options).expect("compared").divergence.mean)
    }
}

#[test]
fn a_mix_within_the_divergence_is_smaller_than_one_type_for_all() {
    let lamb = Lamb::new();
    let (four, two) = (lamb.measure(QuantType::Q4_K_S, true), lamb.measure(QuantType::Q2_K, true));
    assert!(two.0 < four.0 && two.1 > four.1, "fewer bits cost more: {four:?}, {two:?}");
    // Too little for two bits everywhere, and too much to spend four.
    let target = four.1 + (two.1 - four.1) / 3.0;
    let found = lamb.search(target).expect("found");
    assert!(found.divergence.0 <= target, "{} exceeds {target}", found.divergence.0);
    assert!(found.bytes < four.0 && found.bytes > two.0, "{} bytes, {four:?}, {two:?}", found.bytes);

    // What was found is what a file with these types would be.
    let (bytes, divergence) = lamb.measure(Target::Tensors(found.types.clone()), false);
    assert_eq!(bytes, found.bytes);
    assert!((divergence - found.divergence.0).abs() < 1e-3 * target, "{divergence}, searched {}", found.divergence.0);

    // Allowing less cannot make it smaller.
    let closer = lamb.search(four.1 / 2.0).expect("found");
    assert!(closer.divergence.0 <= four.1 / 2.0, "{}", closer.divergence.0);
    assert!(closer.bytes > found.bytes, "{} bytes within less, {} within more", closer.bytes, found.bytes);
}

#[test]
fn what_is_no_divergence_or_out_of_reach_is_refused() {
    let lamb = Lamb::new();
    for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = lamb.search(target).expect_err("it is no divergence");
        assert!(matches!(&error, Error::Quantize(QuantizeError::NoDivergence { .. })), "{error}");
        assert!(error.to_string().contains(&target.to_string()) && error.to_string().contains("above 0"), "{error}");
    }
    let error = lamb.search_among(&[T::Q2_K], 1e-6).expect_err("two bits are not as close as this");
    assert!(matches!(&error, Error::Quantize(QuantizeError::Target { least, .. }) if *least > 1e-6), "{error}");
}
