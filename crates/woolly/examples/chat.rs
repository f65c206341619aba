//! A conversation in which the second question needs the first: `cargo run --release --example chat -- model.gguf`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::{Write, stdout};

use woolly::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL")?;
    let model = Model::load(path)?;

    let mut chat = model.chat()?;
    chat.system("Answer in one short sentence.");
    for question in ["What is a sheep?", "And what is its wool good for?"] {
        println!("> {question}");
        let mut stream = chat.stream(question, GenerateOptions::new().max_tokens(100))?;
        for chunk in &mut stream {
            print!("{}", chunk?);
            stdout().flush()?;
        }
        let answer = stream.finish();
        println!("\n({} of {} prompt tokens were cached)", answer.usage.cached_tokens, answer.usage.prompt_tokens);
    }
    Ok(())
}
