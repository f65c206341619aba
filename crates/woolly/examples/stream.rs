//! Shows an answer while it is made, then its speed: `cargo run --release --example stream -- model.gguf "Once"`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::io::{Write, stdout};

use woolly::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: stream MODEL [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".to_owned());

    let model = Model::builder(path)
        .on_progress(|p| eprint!("\rloading: {} of {} MiB", p.bytes_done >> 20, p.bytes_total >> 20))
        .load()?;
    eprintln!("\nrunning on {}", model.device());

    let mut session = model.session()?;
    let mut stream = session.stream(&prompt, GenerateOptions::new().max_tokens(64).temperature(0.7).stop("\n\n"))?;
    for chunk in &mut stream {
        print!("{}", chunk?);
        stdout().flush()?;
    }
    let answer = stream.finish();
    let rate = answer.timings.decode_rate().unwrap_or_default();
    eprintln!("\n{} tokens at {rate:.1} tokens/s, ended by {}", answer.usage.completion_tokens, answer.finish_reason);
    Ok(())
}
