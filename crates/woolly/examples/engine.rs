//! Answers many prompts at once, then says how: `cargo run --release --example engine -- model.gguf "Once" "A fox"`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use woolly::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: engine MODEL [PROMPT ...]")?;
    let mut prompts: Vec<String> = args.collect();
    if prompts.is_empty() {
        prompts = ["Once upon a time", "A fox", "The river"].map(String::from).to_vec();
    }

    let engine = InferenceEngine::new(EngineConfig::high_throughput());
    engine.load(path)?;
    let session = engine.session()?;
    let monitor = PerformanceMonitor::of(&engine);

    // Handed in together, computed together; `.await` instead of `.wait()` works under any executor.
    let options = GenerateOptions::new().max_tokens(64).temperature(0.7).seed(1);
    let answers: Vec<_> = prompts.iter().map(|p| session.infer_with(&session.encode(p), options.clone())).collect();
    for (prompt, answer) in prompts.iter().zip(answers) {
        println!("{prompt}{}\n", answer.wait()?.text);
    }

    let metrics = monitor.snapshot();
    println!("{:.1} tokens/s, {:.2} answers a step", metrics.tokens_per_second, engine.stats().occupancy());
    Ok(())
}
