//! What each storage type of the cache costs, in divergence of the built-in model's predictions.

#![cfg(feature = "lamb")]

use woolly::{CacheType, CompareOptions, Model};

const TEXT: &str = "Once upon a time there was a little lamb who lived on a hill with her mother. Every morning she ran down to \
the river to drink, and every evening she came back before the sun went down. One day the river was gone. The lamb looked \
left and right, but there were only stones. \"Where is the water?\" she asked a frog. \"Up in the hills,\" said the frog, \
\"a beaver has built a dam.\" So the lamb climbed up into the hills. It was a long way, and the sun was hot. At last she \
found the beaver. \"Please, beaver,\" said the lamb, \"we are all thirsty down there.\" The beaver was surprised. \"I did not \
know that anybody lived down there,\" he said. He opened the dam a little, and the water ran down to the valley again. From \
that day on the lamb and the beaver were friends, and there was always enough water for all of them.";

fn model(storage: CacheType) -> Model {
    let file = woolly::lamb::open().expect("a valid file");
    Model::builder("built in").cache_type(storage).load_from(&file).expect("a model")
}

/// The more is rounded, the farther off, and no type is farther off than it may be.
///
/// Keys and values rounded to a 127th of the largest of 32 are off by 0.7 % of their size (rms, the largest being three times
/// the rms: 3 / 127 / √12), both together by 1 %. Logits that spread by 6, as those of a model sure of most tokens do, are then
/// off by δ = 0.06, which costs about δ²/2 = 1.8e-3 nats a token. Half precision is 30 times as fine and more. Divergence grows
/// with the square of the noise, and so with that of the step, which is an eighth of the largest value with four bits and a
/// 127th with eight: 252-fold if all of it came from the values.
#[test]
fn divergence_grows_with_rounding_and_stays_within_its_bound() {
    let exact = model(CacheType::F32);
    let divergence = |storage| {
        let options = CompareOptions { window: 64, ..CompareOptions::default() };
        exact.compare(&model(storage), TEXT, options).expect("compared").divergence.mean
    };
    let [half, eight, four] = [CacheType::F16, CacheType::Q8, CacheType::Q8Q4].map(divergence);
    println!("f16 {half:.2e}, q8 {eight:.2e}, q8q4 {four:.2e}");
    assert!(0.0 < half && half < 1e-4, "f16: {half}");
    assert!(half < eight && eight < 1.8e-3, "q8: {eight}, f16: {half}");
    assert!(eight < four && four < 252.0 * eight, "q8q4: {four}, q8: {eight}");
}
