//! What is told after an answer: speeds, and why it ended if not by itself.

use std::time::Duration;

use serde_json::{Value, json};
use woolly::{Completion, FinishReason, Timings};

use crate::arguments::Verbosity;
use crate::output::Output;

/// Writes one line of speeds for a person or with `-v`, and always says when an answer was cut short.
pub(crate) fn after_answer(completion: &Completion, verbosity: Verbosity, output: &mut Output) {
    if verbosity.quiet {
        return;
    }
    if completion.finish_reason == FinishReason::ContextFull {
        output.note("note: the context is full and the answer incomplete; use a larger one with -c");
    }
    if output.notes_terminal || verbosity.verbose {
        output.note(&speeds(completion));
    }
}

fn speeds(completion: &Completion) -> String {
    let Completion { usage, timings, seed, .. } = completion;
    let prompt = format!(
        "prompt {} tokens ({} cached){}",
        usage.prompt_tokens,
        usage.cached_tokens,
        rate(timings.prompt_rate())
    );
    let answer = format!("answer {} tokens{}", usage.completion_tokens, rate(timings.decode_rate()));
    format!("[{prompt} | {answer} | {} | seed {seed}]", completion.finish_reason)
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map(|rate| format!(", {rate:.1} tokens/s")).unwrap_or_default()
}

/// The names are those of llama.cpp's server, so that scripts written for it find them.
pub(crate) fn timings_object(timings: &Timings) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "cache_n": timings.cached_tokens,
        "prompt_n": timings.prompt_tokens - timings.cached_tokens,
        "prompt_ms": ms(timings.prompt_time),
        "prompt_per_second": timings.prompt_rate(),
        "predicted_n": timings.generated_tokens,
        "predicted_ms": ms(timings.decode_time),
        "predicted_per_second": timings.decode_rate(),
    })
}
