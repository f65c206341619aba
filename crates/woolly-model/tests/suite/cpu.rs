//! The same checks on the CPU backend, at every level this processor has.
//!
//! Its quantised kernels round activations to 8 bits, as llama.cpp's do, but not for matrices as small as those of the
//! published models. No quantised model may be farther from the published results than llama.cpp is.

use std::sync::Arc;

use woolly_cpu::isa::Level;
use woolly_cpu::{Cpu, CpuOptions};

use woolly_tensor::Backend;

use crate::golden::{Distance, Golden, Storage};
use crate::{batching, generated, golden, hostile, malformed};

/// Sums of these models' sizes in single precision, in any order.
const SINGLE_PRECISION: f64 = 1e-4;

fn on_every_level(test: &str, check: impl Fn(&Arc<Cpu>)) {
    let mut checked = 0;
    for level in Level::ALL {
        match Cpu::new(CpuOptions { level: Some(level), threads: Some(2), ..CpuOptions::default() }) {
            Ok(cpu) => {
                check(&Arc::new(cpu));
                checked += 1;
            }
            Err(error) => woolly_testdata::skip(test, &error.to_string()),
        }
    }
    assert!(checked > 0, "not even the scalar level could be used");
}

#[test]
fn cpu_is_no_farther_from_published_results_than_llama_cpp() {
    let test = "cpu_is_no_farther_from_published_results_than_llama_cpp";
    on_every_level(test, |cpu| {
        let ratios = golden::check(test, cpu, bound);
        let worst = |of: fn(&Distance) -> f64| ratios.iter().map(of).fold(0.0, f64::max);
        let (max, rms) = (worst(|ratio| ratio.max), worst(|ratio| ratio.rms));
        println!("{}: quantised models are at most {max:.2} (max), {rms:.2} (rms) as far as llama.cpp", cpu.describe());
    });
}

fn bound(golden: &Golden, storage: Storage) -> Distance {
    let Distance { max, rms } = golden.peer;
    match storage {
        Storage::Single => Distance { max: max.max(SINGLE_PRECISION), rms: rms.max(SINGLE_PRECISION) },
        Storage::Half | Storage::Quantised => golden.peer,
    }
}

#[test]
fn cpu_agrees_with_the_naive_implementation() {
    on_every_level("cpu_agrees_with_the_naive_implementation", |cpu| generated::check(cpu, SINGLE_PRECISION));
}

#[test]
fn cpu_gives_the_same_logits_however_tokens_are_divided_into_steps() {
    let test = "cpu_gives_the_same_logits_however_tokens_are_divided_into_steps";
    on_every_level(test, |cpu| batching::check(cpu, SINGLE_PRECISION));
}

#[test]
fn cpu_refuses_or_runs_malformed_models() {
    let test = "cpu_refuses_or_runs_malformed_models";
    on_every_level(test, |cpu| malformed::check(test, cpu));
}

#[test]
fn cpu_survives_every_value_of_every_key() {
    on_every_level("cpu_survives_every_value_of_every_key", hostile::check_keys);
}

#[test]
fn cpu_survives_every_weight_and_hides_none_that_is_not_a_number() {
    on_every_level("cpu_survives_every_weight_and_hides_none_that_is_not_a_number", |cpu| {
        hostile::check_weights(cpu);
        hostile::check_not_numbers(cpu);
    });
}
