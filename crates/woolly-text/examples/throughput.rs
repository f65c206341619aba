//! Measures a tokenizer: `throughput VOCABULARY.gguf TEXT`.
//!
//! Prints the time to build the tokenizer, to encode the first words, and the speed of encoding and decoding the whole
//! text on one core; of several runs, the fastest. On Linux the time is that of the processor, which other programs on the
//! same machine disturb least.
#![expect(clippy::print_stdout, reason = "printing the figures is what the program is for")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use woolly_gguf::GGUFLoader;
use woolly_text::Tokenizer;

const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let [vocabulary, text] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: throughput VOCABULARY.gguf TEXT")?;
    let text = std::fs::read_to_string(text)?;
    let model = GGUFLoader::open(vocabulary)?;

    let build = fastest(|| Tokenizer::from_metadata(model.metadata()).is_ok());
    let tokenizer = Tokenizer::from_metadata(model.metadata())?;
    let first = timed(|| tokenizer.encode("The first words of a prompt.", true, true));

    let ids = tokenizer.encode(&text, false, false);
    let encode = fastest(|| tokenizer.encode(&text, false, false).len());
    let decode = fastest(|| tokenizer.decode(&ids, false).map(|text| text.len()).unwrap_or(0));
    let speed = |time: Duration| text.len() as f64 / 1e6 / time.as_secs_f64();
    println!("tokens      {:>9}", tokenizer.vocab_size());
    println!("build       {:>9.2} ms", build.as_secs_f64() * 1e3);
    println!("first words {:>9.3} ms", first.as_secs_f64() * 1e3);
    println!("encode      {:>9.1} MB/s, {} bytes to {} ids", speed(encode), text.len(), ids.len());
    println!("decode      {:>9.1} MB/s", speed(decode));
    Ok(())
}

fn fastest<T>(mut run: impl FnMut() -> T) -> Duration {
    (0..RUNS).map(|_| timed(&mut run)).min().unwrap_or_default()
}

fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let (start, start_cpu) = (Instant::now(), processor_time());
    black_box(run());
    let elapsed = start.elapsed();
    match (start_cpu, processor_time()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => elapsed,
    }
}

/// The time this thread has run, where the system tells.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
