//! Arguments that several commands share, spelled as in llama.cpp.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use woolly::{Device, SamplingParams};

use crate::failure::Failure;
use crate::numbers::{Limit, Seed, parse_count, parse_limit, parse_seed};

/// Which model, and where it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArguments {
    /// Model file in GGUF format; of a split model, any part [default: the built-in woolly-lamb]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Threads to compute with [default: the physical cores this process may use]
    #[arg(short, long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Device to compute on.
    #[arg(long, value_name = "NAME", default_value_t, hide_short_help = true)]
    pub(crate) device: Device,
}

/// How much is said beside the payload.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Verbosity {
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing on standard error but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Report speeds even when standard error is no terminal.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How tokens are drawn; what is not given is as the model's file recommends, or else the library's default.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Temperature; 0 always takes the likeliest token [default: the model's, else 0.8]
    #[arg(long = "temp", value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all [default: the model's, else 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the likeliest tokens that together reach probability P; 1 keeps all [default: the model's, else 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest; 0 keeps all [default: the model's, else 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Seed of the draws; -1 takes a random one [default: -1]
    #[arg(short, long, value_name = "N", value_parser = parse_seed, allow_negative_numbers = true)]
    seed: Option<Seed>,
    /// Penalty on recent tokens as a factor; 1 is off [default: the model's, else 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true, hide_short_help = true)]
    repeat_penalty: Option<f32>,
    /// Recent tokens that the penalties look at; -1 is all of them [default: the model's, else 64]
    #[arg(long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true, hide_short_help = true)]
    repeat_last_n: Option<Limit>,
    /// Penalty on tokens that occurred; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true, hide_short_help = true)]
    presence_penalty: Option<f32>,
    /// Penalty on tokens per occurrence; 0 is off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true, hide_short_help = true)]
    frequency_penalty: Option<f32>,
}

impl SamplingArguments {
    /// Returns what was given and, for the rest, `default`.
    pub(crate) fn params(&self, default: &SamplingParams) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            repeat_last_n: self.repeat_last_n.map_or(default.repeat_last_n, |Limit(n)| n.unwrap_or(usize::MAX)),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed.and_then(|Seed(seed)| seed),
        }
    }
}

/// Tokens of context: `-c 4096`, `-c 32k`, `-c 0`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ContextArguments {
    /// Tokens that prompt and answer can have together; 0 is the model's maximum [default: 4096 or that]
    #[arg(short, long = "ctx-size", value_name = "N", value_parser = parse_count, alias = "context")]
    pub(crate) context: Option<usize>,
}

/// What stands without a flag.
#[derive(Debug, Default, Args)]
pub(crate) struct Positional {
    /// Model file, unless -m names it
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// Text; may come from -f or standard input instead
    #[arg(value_name = "TEXT")]
    second: Option<String>,
}

/// Tells model and text apart among what stands without a flag: `[MODEL] [TEXT]`, either of which may be absent.
///
/// A single one is the model when no `-m` names one and it is a file or ends in `.gguf`; otherwise it is the text.
pub(crate) fn model_and_text(
    model: Option<PathBuf>,
    Positional { first, second }: Positional,
) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    match (model, first, second) {
        (None, Some(only), None) if looks_like_model(&only) => Ok((Some(only.into()), None)),
        (None, Some(model), Some(text)) => Ok((Some(model.into()), Some(text))),
        (Some(model), Some(_), Some(extra)) => {
            let message = format!("the model is named twice: by -m {} and before `{extra}`", model.display());
            Err(Failure::usage(message, "put the text in quotes, and name the model once"))
        }
        (model, text, _) => Ok((model, text)),
    }
}

fn looks_like_model(argument: &str) -> bool {
    let path = Path::new(argument);
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) || path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_and_text_are_told_apart() {
        let here = "Cargo.toml";
        type Found<'a> = (Option<&'a str>, Option<&'a str>);
        let cases: [(Option<&str>, &[&str], Found<'_>); 7] = [
            (None, &[], (None, None)),
            (None, &["Once upon"], (None, Some("Once upon"))),
            (None, &["absent.gguf"], (Some("absent.gguf"), None)),
            (None, &[here], (Some(here), None)), // an existing file, whatever its name
            (None, &["m", "Once"], (Some("m"), Some("Once"))),
            (Some("m"), &["x.gguf"], (Some("m"), Some("x.gguf"))),
            (Some("m"), &[], (Some("m"), None)),
        ];
        for (flag, positional, (model, text)) in cases {
            let mut words = positional.iter().map(ToString::to_string);
            let positional = Positional { first: words.next(), second: words.next() };
            let found = model_and_text(flag.map(PathBuf::from), positional).expect("unambiguous");
            assert_eq!(found, (model.map(PathBuf::from), text.map(str::to_owned)), "{flag:?}");
        }
        let twice =
            model_and_text(Some("m".into()), Positional { first: Some("x".to_owned()), second: Some("y".to_owned()) });
        assert!(matches!(twice, Err(Failure::Usage { .. })));
    }
}
