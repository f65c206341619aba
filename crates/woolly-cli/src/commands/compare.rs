//! `woolly compare`: how far one model's predictions are from another's.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use woolly::{CompareOptions, Comparison, Device, Distribution, Model, Perplexity};

use crate::arguments::{ModelArguments, Verbosity};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::numbers::parse_count;
use crate::output::Output;
use crate::source::Source;
use crate::{input, loading};

/// Compare the predictions of two models, such as an original and what was quantised of it.
#[derive(Debug, Args)]
#[command(after_help = "\
The Kullback-Leibler divergence is what the second model loses: 0 when it predicts exactly as the first, below 0.01 for \
good quantisations. No file of logits is written: both models read the text in step.

Example: woolly compare model-f16.gguf model-q4_k_m.gguf -f wiki.test.raw")]
pub(crate) struct Arguments {
    /// Model to compare with: the original.
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// Model to judge.
    #[arg(value_name = "MODEL")]
    other: PathBuf,
    /// File with the text.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window, the second half of which is scored.
    #[arg(short, long = "ctx-size", value_name = "N", value_parser = parse_count, default_value = "512")]
    context: usize,
    /// Score only the first N windows.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    chunks: Option<usize>,
    /// Threads to compute with [default: the physical cores this process may use]
    #[arg(short, long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Device to compute on.
    #[arg(long, value_name = "NAME", default_value_t, hide_short_help = true)]
    device: Device,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let interrupt = Interrupt::install()?;
        let text = input::read_file(&self.file)?;
        let reference = self.load(&self.reference, output)?;
        let other = self.load(&self.other, output)?;
        let mut options = CompareOptions {
            window: self.context,
            max_windows: self.chunks,
            cancel: interrupt.token(),
            ..CompareOptions::default()
        };
        if !self.verbosity.quiet && (output.notes_terminal || self.verbosity.verbose) {
            options.on_window = Some(Box::new(|so_far| output.note(&progress(so_far))));
        }
        let result = reference.compare(&other, &text, options)?;
        if self.verbosity.json {
            return output.json(&self.object(&result));
        }
        lines(&result).iter().try_for_each(|(label, text)| output.line(&format!("{label:<24} {text}")))
    }

    fn load(&self, path: &std::path::Path, output: &Output) -> Result<Model, Failure> {
        let source = Source::new(Some(path.to_owned()), "compare")?;
        let arguments = ModelArguments { model: None, threads: self.threads, device: self.device };
        loading::load(&source, &arguments, None, self.verbosity, output)
    }

    fn object(&self, result: &Comparison) -> Value {
        json!({
            "reference": self.reference,
            "model": self.other,
            "reference_perplexity": result.reference.value,
            "reference_perplexity_error": result.reference.standard_error,
            "perplexity": result.other.value,
            "perplexity_error": result.other.standard_error,
            "log_ratio": result.log_ratio.0,
            "log_ratio_error": result.log_ratio.1,
            "kl_divergence": distribution(&result.divergence),
            "probability_difference": distribution(&result.difference),
            "probability_difference_rms": result.difference_rms.0,
            "probability_difference_rms_error": result.difference_rms.1,
            "same_top": result.same_top.0,
            "same_top_error": result.same_top.1,
            "scored_tokens": result.reference.scored,
            "windows": result.reference.windows,
            "window": result.reference.window,
            "tokens": result.reference.tokens,
            "seconds": result.time.as_secs_f64(),
        })
    }
}

fn progress(so_far: &Comparison) -> String {
    let Perplexity { windows, total_windows, .. } = so_far.reference;
    let (divergence, top) = (&so_far.divergence, so_far.same_top.0 * 100.0);
    let error = divergence.standard_error;
    format!("[{windows}/{total_windows}] divergence {:.6} +/- {error:.6}, same top {top:.2} %", divergence.mean)
}

fn lines(result: &Comparison) -> Vec<(&'static str, String)> {
    let perplexity = |p: &Perplexity| format!("{:.4} +/- {:.4}", p.value, p.standard_error);
    let (ratio, error) = (result.log_ratio.0.exp(), result.log_ratio.1);
    let percent = |(value, error): (f64, f64)| format!("{:.3} +/- {:.3} %", value * 100.0, error * 100.0);
    let kld = &result.divergence;
    let at = |share: f64| format!("{:.6}", kld.percentile(share));
    let difference = |share: f64| format!("{:+.3}", result.difference.percentile(share) * 100.0);
    vec![
        ("tokens scored", format!("{} in {} windows", result.reference.scored, result.reference.windows)),
        ("perplexity, reference", perplexity(&result.reference)),
        ("perplexity, model", perplexity(&result.other)),
        ("  ratio", format!("{ratio:.5} +/- {:.5}", ratio * error)),
        ("divergence, mean", format!("{:.6} +/- {:.6}", kld.mean, kld.standard_error)),
        ("  median", at(0.5)),
        ("  90 % 95 % 99 % 99.9 %", [0.9, 0.95, 0.99, 0.999].map(at).join("  ")),
        ("  largest", at(1.0)),
        ("same likeliest token", percent(result.same_top)),
        ("difference of p, RMS", percent(result.difference_rms)),
        ("  1 % 10 % 50 % 90 % 99 %", [0.01, 0.1, 0.5, 0.9, 0.99].map(difference).join("  ")),
    ]
}

fn distribution(values: &Distribution) -> Value {
    json!({
        "mean": values.mean,
        "error": values.standard_error,
        "min": values.min(),
        "p1": values.percentile(0.01),
        "p5": values.percentile(0.05),
        "p10": values.percentile(0.1),
        "median": values.percentile(0.5),
        "p90": values.percentile(0.9),
        "p95": values.percentile(0.95),
        "p99": values.percentile(0.99),
        "p999": values.percentile(0.999),
        "max": values.max(),
    })
}
