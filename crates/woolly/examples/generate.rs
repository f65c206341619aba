//! Continues a prompt: `cargo run --release --example generate -- model.gguf "Once upon a time"`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use woolly::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".to_owned());

    let model = Model::load(path)?;
    let answer = model.generate_with(&prompt, GenerateOptions::new().max_tokens(64))?;
    println!("{prompt}{answer}");
    Ok(())
}
