//! `woolly perplexity`: how well a model predicts a text.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use woolly::PerplexityOptions;

use crate::arguments::{ModelArguments, Verbosity};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::numbers::parse_count;
use crate::output::Output;
use crate::source::Source;
use crate::{input, loading};

/// Measure how well a model predicts a text.
#[derive(Debug, Args)]
#[command(after_help = "Example: woolly perplexity -m model.gguf -f wiki.test.raw")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// File with the text.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window, the second half of which is scored.
    #[arg(short, long = "ctx-size", value_name = "N", value_parser = parse_count, default_value = "512")]
    context: usize,
    /// Score only the first N windows.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    chunks: Option<usize>,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let source = Source::new(self.model.model.clone(), "perplexity")?;
        let interrupt = Interrupt::install()?;
        let text = input::read_file(&self.file)?;
        let model = loading::load(&source, &self.model, None, self.verbosity, output)?;
        let mut options = PerplexityOptions {
            window: self.context,
            max_windows: self.chunks,
            cancel: interrupt.token(),
            ..PerplexityOptions::default()
        };
        if !self.verbosity.quiet && (output.notes_terminal || self.verbosity.verbose) {
            options.on_window = Some(Box::new(|so_far| output.note(&progress(so_far))));
        }
        let result = model.perplexity(&text, options)?;
        if self.verbosity.json {
            return output.json(&object(&result, &source.to_string()));
        }
        output.line(&format!("Final estimate: PPL = {:.4} +/- {:.5}", result.value, result.standard_error))
    }
}

fn progress(so_far: &woolly::Perplexity) -> String {
    let computed = (so_far.windows * so_far.window) as f64;
    let rate = computed / so_far.time.as_secs_f64().max(f64::MIN_POSITIVE);
    format!("[{}/{}] {:.4} ({rate:.0} tokens/s)", so_far.windows, so_far.total_windows, so_far.value)
}

fn object(result: &woolly::Perplexity, model: &str) -> Value {
    json!({
        "model": model,
        "perplexity": result.value,
        "standard_error": result.standard_error,
        "mean_nll": result.mean,
        "scored_tokens": result.scored,
        "windows": result.windows,
        "window": result.window,
        "tokens": result.tokens,
        "seconds": result.time.as_secs_f64(),
    })
}
