//! Files whose hyper-parameters or tensors are wrong: each is refused by an error that names what is wrong.

use woolly_gguf::Value;
use woolly_model::{Error, LoadProgress, Model};
use woolly_tensor::Reference;

use crate::fixture::{ExpertSpec, Fixture, Spec};

fn load(fixture: &Fixture) -> Result<Model<Reference>, Error> {
    Model::load(&fixture.open(), &Reference::new(), &mut |_| ())
}

fn assert_refused(name: &str, fixture: &Fixture, parts: &[&str]) {
    let Err(error) = load(fixture) else { panic!("{name} was accepted") };
    let error = error.to_string();
    for part in parts {
        assert!(error.contains(part), "{name}: {error:?} does not mention {part:?}");
    }
}

fn experts() -> ExpertSpec {
    ExpertSpec { count: 4, used: 2, inner: 12, renormalise: true, shared: None, one_by_one: false, scale: 1.0 }
}

#[test]
fn hyper_parameters_out_of_range_are_refused_with_key_and_value() {
    let cases: &[(&str, Value)] = &[
        ("block_count", 0u32.into()),
        ("block_count", 2_147_483_648u32.into()),
        ("block_count", u64::MAX.into()),
        ("block_count", (-1i32).into()),
        ("block_count", "two".into()),
        ("context_length", 0u32.into()),
        ("context_length", u64::MAX.into()),
        ("embedding_length", 0u32.into()),
        ("embedding_length", (1u64 << 40).into()),
        ("feed_forward_length", 0u32.into()),
        ("feed_forward_length", u32::MAX.into()),
        ("attention.head_count", 0u32.into()),
        ("attention.head_count", u32::MAX.into()),
        ("attention.head_count_kv", 0u32.into()),
        ("attention.head_count_kv", 3u32.into()),
        ("attention.head_count_kv", 8u32.into()),
        ("attention.key_length", 0u32.into()),
        ("attention.key_length", u32::MAX.into()),
        ("attention.value_length", 0u32.into()),
        ("attention.causal", false.into()),
        ("attention.layer_norm_rms_epsilon", 0f32.into()),
        ("attention.layer_norm_rms_epsilon", (-1e-5f32).into()),
        ("attention.layer_norm_rms_epsilon", f32::NAN.into()),
        ("attention.layer_norm_rms_epsilon", f32::INFINITY.into()),
        ("rope.dimension_count", 0u32.into()),
        ("rope.dimension_count", 5u32.into()),
        ("rope.dimension_count", 8u32.into()),
        ("rope.freq_base", 0f32.into()),
        ("rope.freq_base", (-10_000f32).into()),
        ("rope.freq_base", f32::NAN.into()),
        ("rope.freq_base", f32::INFINITY.into()),
        ("rope.scaling.factor", 0f32.into()),
        ("rope.scaling.factor", f32::NAN.into()),
        ("rope.scaling.attn_factor", f32::NEG_INFINITY.into()),
        ("rope.scaling.type", "longrope".into()),
        ("rope.scaling.type", "dynamic".into()),
        ("vocab_size", 38u32.into()),
        ("expert_count", u32::MAX.into()),
    ];
    for (key, value) in cases {
        let mut fixture = Fixture::new(&Spec::new("llama"));
        fixture.set(key, value.clone());
        assert_refused(&format!("{key} = {value}"), &fixture, &[&format!("llama.{key}")]);
    }
}

#[test]
fn keys_that_must_be_there_are_named_when_they_are_not() {
    let keys = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ];
    for key in keys {
        let mut fixture = Fixture::new(&Spec::new("llama"));
        assert_refused(key, fixture.unset(key), &[&format!("llama.{key}")]);
    }
    let mut fixture = Fixture::new(&Spec::new("llama"));
    fixture.keys.remove("general.architecture");
    assert_refused("no architecture", &fixture, &["general.architecture"]);
}

#[test]
fn contradictions_are_refused() {
    let mut indivisible = Fixture::new(&Spec::new("llama"));
    indivisible.unset("attention.key_length").set("attention.head_count", 6u32);
    assert_refused("20 columns, 6 heads", &indivisible, &["`llama.attention.head_count` is 6", "20"]);

    let mut vocabulary = Fixture::new(&Spec::new("llama"));
    vocabulary.keys.insert("tokenizer.ggml.tokens".to_owned(), Value::strings(["t"; 38]));
    assert_refused("38 tokens, 37 embeddings", &vocabulary, &["tokenizer.ggml.tokens", "38", "37"]);

    let mut uneven = Fixture::new(&Spec::new("llama"));
    uneven.set("feed_forward_length", &[28u32, 32][..]);
    assert_refused("layers of different widths", &uneven, &["`llama.feed_forward_length` is 28 and 32"]);

    let mut few = Fixture::new(&Spec::new("llama"));
    few.set("attention.head_count", &[4u32][..]);
    assert_refused("one number for two layers", &few, &["llama.attention.head_count", "2 layers"]);

    let mut yarn = Fixture::new(&Spec::new("llama"));
    yarn.set("rope.scaling.type", "yarn").set("rope.scaling.yarn_beta_fast", 0f32);
    assert_refused("beta of 0", &yarn, &["llama.rope.scaling.yarn_beta_fast"]);
}

#[test]
fn impossible_experts_are_refused() {
    let spec = Spec { experts: Some(experts()), ..Spec::new("llama") };
    let cases: &[(&str, Value)] = &[
        ("expert_used_count", 0u32.into()),
        ("expert_used_count", 5u32.into()),
        ("expert_gating_func", 7u32.into()),
        ("expert_group_count", 2u32.into()),
        ("leading_dense_block_count", 1u32.into()),
        ("expert_weights_scale", f32::NAN.into()),
        ("expert_feed_forward_length", 0u32.into()),
    ];
    for (key, value) in cases {
        let mut fixture = Fixture::new(&spec);
        fixture.set(key, value.clone());
        assert_refused(&format!("{key} = {value}"), &fixture, &[&format!("llama.{key}"), &value.to_string()]);
    }
    let mut none = Fixture::new(&Spec { experts: Some(experts()), head_norms: true, ..Spec::new("qwen3moe") });
    assert_refused("no experts", none.set("expert_count", 0u32), &["`qwen3moe.expert_count` is 0"]);
}

#[test]
fn every_tensor_is_required_in_its_shape() {
    let shared = ExpertSpec { shared: Some(16), ..experts() };
    let specs = [
        Spec::new("llama"),
        Spec { biases: [true, true, true, false], ..Spec::new("qwen2") },
        Spec { head_norms: true, ..Spec::new("qwen3") },
        Spec { biases: [true, true, true, false], experts: Some(shared), ..Spec::new("qwen2moe") },
    ];
    for spec in specs {
        let whole = Fixture::new(&spec);
        load(&whole).unwrap_or_else(|e| panic!("{}: {e}", spec.architecture));
        for name in whole.tensors.keys().filter(|name| *name != "output.weight") {
            let mut without = whole.clone();
            without.tensors.remove(name);
            assert_refused(&format!("{} without {name}", spec.architecture), &without, &[name, "missing"]);
        }
        for (name, (dims, _)) in &whole.tensors {
            let mut longer = dims.clone();
            longer[0] += 1;
            let mut wrong = whole.clone();
            wrong.tensor(name, &longer, 0.0, 1.0);
            assert_refused(&format!("{} with {name} {longer:?}", spec.architecture), &wrong, &[name]);
        }
    }
}

#[test]
fn tensors_that_would_change_results_are_not_ignored() {
    let cases =
        [("blk.0.ffn_gate.bias", 28, "bias"), ("blk.1.ffn_up.bias", 28, "bias"), ("rope_freqs.weight", 2, "[3]")];
    for (name, len, part) in cases {
        let mut fixture = Fixture::new(&Spec::new("llama"));
        fixture.tensor(name, &[len], 1.0, 0.1);
        assert_refused(name, &fixture, &[name, part]);
    }
    for name in ["exp_probs_b.bias", "ffn_gate_up_exps.weight"] {
        let mut fixture = Fixture::new(&Spec { experts: Some(experts()), ..Spec::new("llama") });
        fixture.tensor(&format!("blk.1.{name}"), &[4], 0.0, 1.0);
        assert_refused(name, &fixture, &[&format!("blk.1.{name}"), "not supported"]);
    }
    let mut divisor = Fixture::new(&Spec::new("llama"));
    divisor.tensors.insert("rope_freqs.weight".to_owned(), (vec![3], vec![1.0, 0.0, 2.0]));
    assert_refused("divisor of 0", &divisor, &["rope_freqs.weight", "holds 0"]);
}

/// Early files leave the width of an expert to be derived, in Qwen's from that of all chosen ones together.
#[test]
fn the_width_of_an_expert_has_a_default() {
    for (architecture, head_norms, length) in [("llama", false, 12u32), ("qwen3moe", true, 24)] {
        let mut fixture = Fixture::new(&Spec { experts: Some(experts()), head_norms, ..Spec::new(architecture) });
        fixture.unset("expert_feed_forward_length").set("feed_forward_length", length);
        let model = load(&fixture).unwrap_or_else(|e| panic!("{architecture}: {e}"));
        let found = model.config().experts.as_ref().map(|experts| experts.feed_forward_length);
        assert_eq!(found, Some(12), "{architecture}");
    }
}

#[test]
fn experts_stored_one_by_one_must_agree_with_each_other() {
    let one_by_one = ExpertSpec { one_by_one: true, ..experts() };
    let whole = Fixture::new(&Spec { experts: Some(one_by_one), ..Spec::new("llama") });
    let name = "blk.1.ffn_down.2.weight";
    let mut without = whole.clone();
    without.tensors.remove(name);
    assert_refused("an expert too few", &without, &[name, "missing"]);
    let mut wrong = whole.clone();
    wrong.tensor(name, &[12, 21], 0.0, 1.0);
    assert_refused("an expert of another size", &wrong, &[name, "[12, 21]", "[12, 20]"]);
}

#[test]
fn unknown_architectures_are_refused_with_a_hint() {
    let mut fixture = Fixture::new(&Spec::new("llama"));
    fixture.keys.insert("general.architecture".to_owned(), "qwen".into());
    assert_refused("qwen", &fixture, &["`qwen`", "llama", "did you mean `qwen2`"]);
}

#[test]
fn integers_of_any_width_and_arrays_of_equal_values_are_accepted() {
    let sizes: &[(&str, Value)] = &[
        ("block_count", 2u8.into()),
        ("context_length", 128u64.into()),
        ("embedding_length", 20i16.into()),
        ("feed_forward_length", (&[28i32, 28][..]).into()),
        ("attention.head_count", (&[4u64, 4][..]).into()),
        ("attention.head_count_kv", 2i64.into()),
        ("attention.layer_norm_rms_epsilon", 1e-5f64.into()),
    ];
    let mut fixture = Fixture::new(&Spec::new("llama"));
    for (key, value) in sizes {
        fixture.set(key, value.clone());
    }
    let found = load(&fixture).expect("widths do not matter");
    let expected = load(&Fixture::new(&Spec::new("llama"))).expect("the fixture is valid");
    assert_eq!(found.config(), expected.config());
}

#[test]
fn progress_runs_from_nothing_to_everything() {
    let mut fixture = Fixture::new(&Spec::new("llama"));
    fixture.tensor("blk.7.unused.weight", &[9], 0.0, 1.0);
    let bytes_total = fixture.tensors.values().map(|(_, values)| 4 * values.len() as u64).sum();
    let mut seen: Vec<LoadProgress> = Vec::new();
    Model::load(&fixture.open(), &Reference::new(), &mut |p| seen.push(p)).expect("the fixture is valid");
    assert_eq!(seen.first(), Some(&LoadProgress { bytes_done: 0, bytes_total }));
    assert_eq!(seen.last(), Some(&LoadProgress { bytes_done: bytes_total, bytes_total }));
    assert!(seen.is_sorted_by_key(|p| p.bytes_done), "progress goes back");
    assert_eq!(
        seen.len(),
        fixture.tensors.len() + 1,
        "one report at the start, one for each used tensor, one at the end"
    );
}
