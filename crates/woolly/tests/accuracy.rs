//! What the processor's kernels cost, as a divergence of predictions from exact arithmetic on the same weights.
//!
//! The bounds: a matrix of a block-quantised type is multiplied with activations rounded to eight bits in blocks of 32, an
//! error of 1/(127·√12) of the largest of a block, about 0.6 % of a usual activation. Logits of woolly-lamb spread by some
//! five nats, so they move by δ of about 0.03, and a divergence is half the variance of δ: 5·10⁻⁴. Twice that is allowed,
//! and 10⁻⁴ to float types, whose inputs are rounded to bfloat16 (0.1 %) at most. A wrong scale, code or block is far
//! beyond: it moves logits by nats.

#![allow(clippy::print_stdout, reason = "the figures are what the test is about")]

use std::path::Path;

use woolly::quantize::{QuantType, QuantizeOptions, quantize_in_memory};
use woolly::{CompareOptions, Comparison, Device, GGUFLoader, Model, ModelBuilder};

/// A story as the model tells them.
const TEXT: &str = "Once upon a time there was a little fox who lived near a river. Every day the fox went to the river to \
look at the water. One day a small bird fell into the water and could not get out. The fox was afraid of the water, but \
the bird was more afraid. So the fox took a long stick and held it out to the bird. The bird climbed on the stick and \
was safe. From that day on the fox and the bird were friends, and they shared their bread every evening by the river.";

fn compare(ty: QuantType, rows: usize) -> Comparison {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/woolly-lamb-Q8_0.gguf");
    let original = GGUFLoader::open(path).expect("the model of the repository");
    let options = QuantizeOptions { pure: true, allow_requantize: true, ..QuantizeOptions::new(ty) };
    let (file, _) =
        quantize_in_memory(&original, QuantizeOptions { without_importance: true, ..options }).expect("made");
    let on = |device| ModelBuilder::default().device(device).load_from(&file).expect("loaded");
    let [exact, fast]: [Model; 2] = [Device::Reference, Device::Cpu].map(on);
    let options = CompareOptions { window: 64, max_windows: Some(1), rows, ..CompareOptions::default() };
    exact.compare(&fast, TEXT, options).expect("compared")
}

/// Reads as prompts are read and as answers are written.
fn check(ty: QuantType, bound: f64) {
    for (path, rows) in [("prefill", 64), ("decode", 1)] {
        let result = compare(ty, rows);
        let (mean, max) = (result.divergence.mean, result.divergence.max());
        println!("{ty} {path}: divergence {mean:.2e}, at most {max:.2e}, bound {bound:.0e}");
        assert!(mean >= -1e-9 && mean < bound, "{ty} {path}: {mean:.2e}");
    }
}

macro_rules! types {
    ($($name:ident: $ty:ident within $bound:literal;)+) => {
        $(#[test] fn $name() {
            check(QuantType::$ty, $bound);
        })+
    };
}

types! {
    f32: F32 within 1e-4;
    f16: F16 within 1e-4;
    bf16: BF16 within 1e-4;
    q8_0: Q8_0 within 1e-3;
    q4_0: Q4_0 within 1e-3;
    q5_1: Q5_1 within 1e-3;
    q6_k: Q6_K within 1e-3;
    q4_k: Q4_K_S within 1e-3;
    q3_k: Q3_K_S within 1e-3;
    q2_k: Q2_K within 1e-3;
    iq4_xs: IQ4_XS within 1e-3;
}
