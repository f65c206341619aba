//! Tiny models of every architecture and of every way to vary one, against the naive implementation.

use std::sync::Arc;

use woolly_model::architectures;
use woolly_quant::TensorType;
use woolly_tensor::{Backend, Reference};

use crate::drive::{deviation, logits, runner};
use crate::fixture::{ExpertSpec, Fixture, RopeSpec, Scaling, Spec};
use crate::naive;

/// Activations are stored in single precision; logits of these models are below 10.
const REFERENCE_BOUND: f64 = 2e-5;

#[test]
fn generated_models_agree_with_the_naive_implementation() {
    check(&Arc::new(Reference::new()), REFERENCE_BOUND);
}

#[test]
fn quantised_models_agree_with_the_naive_implementation_over_decoded_weights() {
    let experts =
        ExpertSpec { count: 3, used: 2, inner: 64, renormalise: true, shared: None, one_by_one: true, scale: 1.0 };
    let dense = Spec { width: 32, inner: 64, ..Spec::new("llama") };
    let mixture = Spec { experts: Some(experts), ..dense.clone() };
    for ty in [TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0, TensorType::Q5_1] {
        for spec in [&dense, &mixture] {
            let fixture = Fixture::new(spec).quantised(ty);
            check_one(&format!("{ty}"), spec, &fixture, &Arc::new(Reference::new()), REFERENCE_BOUND);
        }
    }
}

#[test]
fn every_architecture_has_a_generated_model() {
    let covered: Vec<&str> = variants().iter().map(|(_, spec)| spec.architecture).collect();
    for architecture in architectures() {
        assert!(covered.contains(architecture), "{architecture} has no generated model");
    }
}

/// If two variants gave the same logits, one of them would not test what it is named after.
#[test]
fn variants_of_an_architecture_differ() {
    let ids = ids(40);
    let mut seen: Vec<(&str, Vec<f64>)> = Vec::new();
    for (name, spec) in variants() {
        let last = naive::logits(&spec, &Fixture::new(&spec), &ids).pop().expect("there are positions");
        for (other, logits) in seen.iter().filter(|(_, logits)| logits.len() == last.len()) {
            let apart = logits.iter().zip(&last).any(|(a, b)| (a - b).abs() > 100.0 * REFERENCE_BOUND);
            assert!(apart, "{name} and {other} give the same logits");
        }
        seen.push((name, last));
    }
}

/// Holds `backend` to the naive implementation for every variant.
pub(crate) fn check<B: Backend>(backend: &Arc<B>, bound: f64) {
    for (name, spec) in variants() {
        check_one(name, &spec, &Fixture::new(&spec), backend, bound);
    }
}

fn check_one<B: Backend>(name: &str, spec: &Spec, fixture: &Fixture, backend: &Arc<B>, bound: f64) {
    let ids = ids(40);
    let expected: Vec<f32> = naive::logits(spec, fixture, &ids).concat().iter().map(|&x| x as f32).collect();
    let mut decoder = runner(&fixture.open(), backend).unwrap_or_else(|e| panic!("{name}: {e}"));
    let found = logits(&mut decoder, &ids, ids.len()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (largest, _) = deviation(&found, &expected);
    println!("{}: {name}: {largest:.2e}", backend.describe());
    assert!(largest <= bound, "{name}: logits differ by {largest:e}");
}

fn ids(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i) % 37).collect()
}

/// Name and description of each variant; the name says what is particular.
fn variants() -> Vec<(&'static str, Spec)> {
    let yarn = Scaling::Yarn { factor: 4.0, original: 4096, log_multiplier: 0.0 };
    let yarn_log = Scaling::Yarn { factor: 4.0, original: 4096, log_multiplier: 0.7 };
    let experts =
        ExpertSpec { count: 5, used: 2, inner: 12, renormalise: true, shared: None, one_by_one: false, scale: 1.0 };
    vec![
        ("llama", Spec::new("llama")),
        ("llama, tied", Spec { tied: true, ..Spec::new("llama") }),
        ("llama, one head per query head", Spec { kv_heads: 4, ..Spec::new("llama") }),
        ("llama, one layer", Spec { layers: 1, ..Spec::new("llama") }),
        ("llama, biases", Spec { biases: [true; 4], ..Spec::new("llama") }),
        ("llama, frequency divisors", roped(|rope| rope.divisors = true)),
        ("llama, partly rotated", roped(|rope| rope.dims = 4)),
        ("llama, other base", roped(|rope| rope.base = 500.0)),
        ("llama, linear", roped(|rope| rope.scaling = Scaling::Linear(2.5))),
        ("llama, linear by the old key", roped(|rope| rope.scaling = Scaling::OldLinear(3.5))),
        (
            "llama, no scaling but a magnitude",
            roped(|rope| (rope.scaling, rope.attn_factor) = (Scaling::None(8.0), 1.3)),
        ),
        ("llama, yarn", roped(|rope| rope.scaling = yarn)),
        ("llama, yarn with a multiplier", roped(|rope| rope.scaling = yarn_log)),
        ("llama, yarn with divisors", roped(|rope| (rope.scaling, rope.divisors) = (yarn, true))),
        ("llama, experts", Spec { experts: Some(experts.clone()), ..Spec::new("llama") }),
        (
            "llama, experts one by one",
            Spec { experts: Some(ExpertSpec { one_by_one: true, ..experts.clone() }), ..Spec::new("llama") },
        ),
        (
            "llama, scaled experts",
            Spec { experts: Some(ExpertSpec { scale: 2.5, ..experts.clone() }), ..Spec::new("llama") },
        ),
        ("qwen2", Spec { biases: [true, true, true, false], ..Spec::new("qwen2") }),
        ("qwen3", Spec { head_norms: true, ..Spec::new("qwen3") }),
        (
            "qwen2moe",
            Spec {
                biases: [true, true, true, false],
                experts: Some(ExpertSpec { renormalise: false, shared: Some(16), ..experts.clone() }),
                ..Spec::new("qwen2moe")
            },
        ),
        ("qwen3moe", Spec { head_norms: true, experts: Some(experts), ..Spec::new("qwen3moe") }),
    ]
}

/// A llama whose rotary embedding differs.
fn roped(change: impl FnOnce(&mut RopeSpec)) -> Spec {
    let mut spec = Spec::new("llama");
    change(&mut spec.rope);
    spec
}
