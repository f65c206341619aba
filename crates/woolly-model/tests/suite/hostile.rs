//! Values that no writer would store, one at a time in a model that is otherwise sound: an error or a run, never a panic.

use std::sync::Arc;

use woolly_gguf::Value;
use woolly_model::Error;
use woolly_tensor::{Backend, Reference};

use crate::drive::{logits, runner};
use crate::fixture::{ExpertSpec, Fixture, Scaling, Spec};

/// One model of every kind of layer, with every key that is read.
fn models() -> Vec<Fixture> {
    let experts =
        ExpertSpec { count: 3, used: 2, inner: 12, renormalise: true, shared: Some(16), one_by_one: false, scale: 1.0 };
    let mut stretched = Spec { layers: 1, ..Spec::new("llama") };
    stretched.rope.scaling = Scaling::Yarn { factor: 4.0, original: 4096, log_multiplier: 0.5 };
    stretched.rope.divisors = true;
    let mut stretched = Fixture::new(&stretched);
    for key in ["yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"] {
        stretched.set(&format!("rope.scaling.{key}"), 1f32);
    }
    stretched.set("vocab_size", 37u32).set("attention.sliding_window", 8u32).set("attention.causal", true);
    let biases = [true, true, true, false];
    let mixture = Fixture::new(&Spec { layers: 1, biases, experts: Some(experts), ..Spec::new("qwen2moe") });
    vec![stretched, mixture]
}

fn run<B: Backend>(fixture: &Fixture, backend: &Arc<B>) -> Result<Vec<f32>, Error> {
    let mut decoder = runner(&fixture.open(), backend)?;
    logits(&mut decoder, &[0, 3, 36, 1], 3)
}

#[test]
fn no_value_of_any_key_causes_a_panic() {
    check_keys(&Arc::new(Reference::new()));
}

#[test]
fn weights_that_are_not_numbers_show_in_the_logits() {
    check_not_numbers(&Arc::new(Reference::new()));
}

#[test]
fn no_weight_causes_a_panic() {
    check_weights(&Arc::new(Reference::new()));
}

/// Puts every value in the place of every key.
pub(crate) fn check_keys<B: Backend>(backend: &Arc<B>) {
    let integers = [0, 1, 2, 3, 4, 5, 6, 7, 36, 38, 1 << 13, 1 << 20, 1 << 29, u64::from(u32::MAX), u64::MAX];
    let floats = [0.0, -0.0, -1.0, 1.0, 1e-38, 1e-45, 1e30, f32::MAX, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let others: [Value; 7] = [
        Value::from(-1i64),
        Value::from(true),
        Value::from(""),
        Value::from("yarn"),
        Value::from(&[][..] as &[u32]),
        Value::from(&[u64::MAX, 1][..]),
        Value::strings(["a", "b"]),
    ];
    let values: Vec<Value> =
        integers.iter().map(|&i| i.into()).chain(floats.iter().map(|&x| x.into())).chain(others).collect();
    let (mut ran, mut refused) = (0, 0);
    for fixture in models() {
        run(&fixture, backend).expect("the unchanged model runs");
        for (key, value) in fixture.keys.keys().flat_map(|key| values.iter().map(move |value| (key, value))) {
            let mut changed = fixture.clone();
            changed.keys.insert(key.clone(), value.clone());
            // Shown only when the run below panics.
            println!("{key} = {value}");
            let outcome = run(&changed, backend);
            ran += usize::from(outcome.is_ok());
            refused += usize::from(outcome.is_err_and(|error| !error.to_string().is_empty()));
        }
    }
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused: the values do not test both");
}

/// A model with a weight that is not a number must not answer as if nothing were wrong.
pub(crate) fn check_not_numbers<B: Backend>(backend: &Arc<B>) {
    for fixture in models() {
        // Of the experts, only those that are chosen can show.
        for name in fixture.tensors.keys().filter(|name| !name.contains("exps")) {
            match run(&poisoned(&fixture, name, f32::NAN), backend) {
                Ok(logits) => assert!(logits.iter().any(|x| x.is_nan()), "{name} is hidden"),
                Err(error) => assert!(error.to_string().contains(name), "{name}: {error}"),
            }
        }
    }
}

/// Puts extreme values into every tensor.
pub(crate) fn check_weights<B: Backend>(backend: &Arc<B>) {
    for fixture in models() {
        for name in fixture.tensors.keys() {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45] {
                // Shown only when the run below panics.
                println!("{name}: {value}");
                let outcome = run(&poisoned(&fixture, name, value), backend);
                assert!(outcome.is_ok() || name == "rope_freqs.weight", "{name}: {:?}", outcome.err());
            }
        }
    }
}

/// The model with `value` in the first place of a tensor and in its last, which are of different rows and experts.
fn poisoned(fixture: &Fixture, name: &str, value: f32) -> Fixture {
    let mut poisoned = fixture.clone();
    let (_, values) = poisoned.tensors.get_mut(name).expect("the name is that of a tensor");
    let last = values.len() - 1;
    (values[0], values[last]) = (value, value);
    poisoned
}
