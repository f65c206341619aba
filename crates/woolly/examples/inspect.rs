//! Says what a model file holds, without loading it: `cargo run --example inspect -- model.gguf`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use woolly::{GGUFLoader, Summary};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: inspect MODEL")?;
    let loader = GGUFLoader::open(path)?;
    let summary = Summary::of(&loader)?;
    println!("architecture: {}", summary.architecture.as_deref().unwrap_or("unknown"));
    println!("parameters:   {}", summary.parameters);
    for share in &summary.types {
        println!("{:>13} {} tensors, {} bytes", share.ty, share.tensors, share.bytes);
    }
    for tensor in loader.tensors().iter().take(10) {
        println!("{:>13} {:?} {}", tensor.ty(), tensor.dims(), tensor.name());
    }
    Ok(())
}
