//! Tensors that the architecture has no use for are named in a warning.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use woolly_model::Model;
use woolly_tensor::Reference;

use crate::fixture::{Fixture, Spec};

/// Collects the warnings of the thread that it is the default of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<String>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Text(&mut self.0.lock().expect("no test panics while it holds the lock")));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").expect("a string takes any text");
    }
}

fn warnings(change: impl FnOnce(&mut Fixture)) -> String {
    let mut fixture = Fixture::new(&Spec::new("qwen2"));
    (0..2).flat_map(|l| [("q", 24, l), ("k", 12, l), ("v", 16, l)]).for_each(|(name, len, layer)| {
        fixture.tensor(&format!("blk.{layer}.attn_{name}.bias"), &[len], 0.0, 1.0);
    });
    change(&mut fixture);
    let warnings = Warnings::default();
    let load = || Model::load(&fixture.open(), &Reference::new(), &mut |_| ()).map(drop);
    tracing::subscriber::with_default(warnings.clone(), load).expect("the model is valid");
    let text = warnings.0.lock().expect("no test panics while it holds the lock");
    text.clone()
}

#[test]
fn a_complete_model_gives_no_warning() {
    assert_eq!(warnings(|_| ()), "");
}

#[test]
fn tensors_without_a_use_are_named() {
    let text = warnings(|fixture| {
        fixture.tensor("blk.0.attn_sinks.weight", &[4], 0.0, 1.0);
        fixture.tensor("blk.2.attn_norm.weight", &[20], 0.0, 1.0);
    });
    assert!(text.contains("blk.0.attn_sinks.weight, blk.2.attn_norm.weight"), "{text:?}");
    assert!(!text.contains("blk.1."), "tensors that are used are named: {text:?}");
}

#[test]
fn redundant_tensors_give_no_warning() {
    let redundant = |fixture: &mut Fixture| {
        fixture.tensor("rope_freqs.weight", &[3], 1.0, 0.0);
        fixture.tensor("blk.0.attn_rot_embd.weight", &[3], 1.0, 0.0);
    };
    assert_eq!(warnings(redundant), "");
}

#[test]
fn a_window_that_is_not_applied_is_named() {
    let cases = [(8u32, true), (0, false), (128, false), (4096, false)];
    for (window, expected) in cases {
        let text =
            warnings(|fixture| drop(fixture.keys.insert("qwen2.attention.sliding_window".into(), window.into())));
        assert_eq!(text.contains("sliding_window"), expected, "window of {window} in a context of 128: {text:?}");
    }
}
