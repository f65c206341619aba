//! How fast one thread quantises with each level's instructions, in millions of weights a second, and the error it leaves.
//!
//! `cargo run --release -p woolly-cpu --example encode_speed [TYPE]...`

#![allow(clippy::print_stdout, reason = "an example that reports")]

use std::time::Instant;

use woolly_cpu::encode::encode;
use woolly_cpu::isa::Level;
use woolly_quant::TensorType;

fn main() {
    let named: Vec<TensorType> = std::env::args().skip(1).filter_map(|name| name.parse().ok()).collect();
    let all = TensorType::ALL.iter().copied().filter(|ty| ty.can_encode() && ty.block_elements() > 1);
    let types = if named.is_empty() { all.collect() } else { named };
    let values = bell(1 << 17);
    let importance: Vec<f32> = (0..4096).map(|i| 0.5 + (i % 13) as f32).collect();
    for ty in types {
        let mut line = format!("{:8}", ty.name());
        let mut blocks = vec![0; ty.row_bytes(values.len()).unwrap_or(0)];
        for level in Level::available() {
            let plain = speed(|| encode(level, ty, &values, None, &mut blocks), values.len());
            let weighted = speed(|| encode(level, ty, &values, Some(&importance), &mut blocks), values.len());
            line += &format!("  {} {plain:7.1} {weighted:7.1}", level.name());
        }
        let mut decoded = vec![0.0; values.len()];
        let done =
            encode(Level::best(), ty, &values, None, &mut blocks).and_then(|()| ty.decode(&blocks, &mut decoded));
        let squares: f64 = values.iter().zip(&decoded).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        println!(
            "{line}  rms {:.6}{}",
            (squares / values.len() as f64).sqrt(),
            if done.is_ok() { "" } else { " failed" }
        );
    }
}

fn speed<T>(mut work: impl FnMut() -> T, weights: usize) -> f64 {
    let (begin, mut rounds) = (Instant::now(), 0);
    while begin.elapsed().as_secs_f64() < 0.1 {
        std::hint::black_box(work());
        rounds += 1;
    }
    (weights * rounds) as f64 / begin.elapsed().as_secs_f64() / 1e6
}

/// Values of a bell-shaped distribution: sums of six uniform numbers.
fn bell(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..6).map(|_| uniform()).sum()).collect()
}
