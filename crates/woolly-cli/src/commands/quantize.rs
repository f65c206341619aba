//! `woolly quantize`: a smaller file of a model.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use woolly::quantize::{
    FoundMix, ImportanceMatrix, OnSearched, Progress, QuantType, QuantizeOptions, Report, SearchOptions, Target, TensorReport, TypeOverride, quantize,
};
use woolly::{GGUFLoader, Model, TensorType};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::input;
use crate::numbers::{Bytes, parse_count};
use crate::output::Output;

/// Make a smaller file of a model.
#[derive(Debug, Args)]
#[command(override_usage = "woolly quantize [OPTIONS] <IN> <OUT> <TYPE> [THREADS]")]
#[command(after_help = "\
Types: Q4_K_M is the usual choice, Q5_K_M and Q6_K are closer to the original, Q8_0 is hardly told from it; also F32, \
F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q5_K_S, IQ4_NL, IQ4_XS, IQ3_S, IQ3_M, \
MXFP4_MOE, TQ1_0, TQ2_0 and more.

Example: woolly quantize model-f16.gguf model-q4_k_m.gguf Q4_K_M")]
pub(crate) struct Arguments {
    /// Model file in GGUF format, best F32, F16 or BF16; of a split model, any part.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write, type, and threads to compute with; the file can be left out in a dry run.
    #[arg(value_names = ["OUT", "TYPE", "THREADS"], num_args = 0..=3)]
    rest: Vec<String>,
    /// Show what would be made, and make nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write several files, OUT-00001-of-0000N.gguf and so on, of at most N bytes of tensors each, as in 500M or 2G.
    #[arg(long, value_name = "N(M|G)", value_parser = parse_split)]
    split_max_size: Option<u64>,
    /// Replace the file if it exists.
    #[arg(short, long)]
    force: bool,
    /// Allow to quantise what is quantised already, at a loss.
    #[arg(long)]
    allow_requantize: bool,
    /// Importance matrix of the model, made by `woolly imatrix` or llama.cpp.
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Allow types that are of little use without an importance matrix.
    #[arg(long)]
    without_imatrix: bool,
    /// Type of the tensors whose name a regular expression matches, such as attn_v=q6_K; can be repeated.
    #[arg(long, value_name = "PATTERN=TYPE")]
    tensor_type: Vec<TypeOverride>,
    /// Use one type for all, without more bits for the more important tensors.
    #[arg(long)]
    pure: bool,
    /// Leave output.weight as it is.
    #[arg(long, conflicts_with = "output_tensor_type")]
    leave_output_tensor: bool,
    /// Type of output.weight.
    #[arg(long, value_name = "TYPE")]
    output_tensor_type: Option<TensorType>,
    /// Type of token_embd.weight.
    #[arg(long, value_name = "TYPE")]
    token_embedding_type: Option<TensorType>,
    /// Instead of a TYPE: search the smallest mix whose predictions of --text diverge by at most X nats a token.
    ///
    /// The measure is the mean Kullback-Leibler divergence from the input's predictions; 0.01 is little. Weights of each of
    /// up to eight bands of layers are quantised alone, in four parts, to each of Q8_0, Q6_K, Q5_K, Q4_K, IQ4_XS, Q3_K and
    /// Q2_K, and measured; then those get fewer bits that save the most for what they cost, as far as the model, measured
    /// as a whole, stays within X.
    #[arg(long, value_name = "X", allow_negative_numbers = true, requires = "text", conflicts_with_all = ["pure", "split_max_size"])]
    target_kld: Option<f64>,
    /// File with the text for --target-kld, of the kind that the model is used for.
    #[arg(long, value_name = "FILE", requires = "target_kld")]
    text: Option<PathBuf>,
    /// Windows of 512 tokens of the text to read for each measurement.
    #[arg(long, value_name = "N", value_parser = parse_count, default_value = "8")]
    chunks: usize,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Say nothing on standard error but errors.
    #[arg(short, long)]
    quiet: bool,
}

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let Request { path, target, threads } = Request::read(&self.rest, self.dry_run, self.target_kld.is_some())?;
        let interrupt = Interrupt::install()?;
        // Every byte is read once, in order: asking for all of it beforehand only fills memory.
        let input = GGUFLoader::builder().prefetch_size_mb(0).build(&self.input).map_err(woolly::Error::from)?;
        let importance = self.imatrix.as_ref().map(ImportanceMatrix::open).transpose()?.map(Arc::new);
        let (target, found) = match (target, self.target_kld.zip(self.text.as_ref())) {
            (Some(target), _) => (Target::from(target), None),
            (None, Some((divergence, text))) => {
                let found = self.search(divergence, text, &input, &importance, &interrupt, output)?;
                (Target::Tensors(found.types.clone()), Some(found))
            }
            (None, None) => return Err(Failure::usage("no type given", USAGE)),
        };
        let bar = if output.notes_terminal && !self.quiet { bar() } else { ProgressBar::hidden() };
        let options = QuantizeOptions {
            threads,
            cancel: interrupt.token(),
            on_progress: Some(Box::new(|progress| show(&bar, progress))),
            importance,
            ..self.options(target)
        };
        let report = quantize(&input, path.unwrap_or(Path::new("")), options);
        bar.finish_and_clear();
        self.tell(&report?, path, found.as_ref(), output)
    }

    fn search(
        &self,
        divergence: f64,
        text: &Path,
        input: &GGUFLoader,
        importance: &Option<Arc<ImportanceMatrix>>,
        interrupt: &Interrupt,
        output: &mut Output,
    ) -> Result<FoundMix, Failure> {
        let text = input::read_file(text)?;
        let model = Model::from_gguf(input)?;
        let tells = output.notes_terminal && !self.quiet;
        let options = SearchOptions {
            max_windows: self.chunks,
            importance: importance.clone(),
            allow_requantize: self.allow_requantize,
            cancel: interrupt.token(),
            on_progress: tells.then(|| -> OnSearched<'_> {
                Box::new(|so_far| {
                    output.note(&format!("{}: {} {:.6}", so_far.what, Bytes(so_far.bytes), so_far.divergence));
                })
            }),
            ..SearchOptions::new(divergence)
        };
        Ok(model.search_mix(&text, options)?)
    }

    fn options(&self, target: Target) -> QuantizeOptions<'static> {
        QuantizeOptions {
            overrides: self.tensor_type.clone(),
            output_type: self.output_tensor_type,
            embedding_type: self.token_embedding_type,
            keep_output: self.leave_output_tensor,
            pure: self.pure,
            allow_requantize: self.allow_requantize,
            without_importance: self.without_imatrix,
            dry_run: self.dry_run,
            split_bytes: self.split_max_size,
            overwrite: self.force,
            ..QuantizeOptions::new(target)
        }
    }

    fn tell(
        &self,
        report: &Report,
        path: Option<&Path>,
        found: Option<&FoundMix>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if self.json {
            return output.json(&object(report, path, found));
        }
        if self.dry_run {
            report.tensors.iter().try_for_each(|tensor| output.line(&tensor_line(tensor)))?;
        }
        output.line(&summary(report))?;
        if let Some(FoundMix { divergence: (mean, error), measured, .. }) = found {
            output.line(&format!("divergence {mean:.6} +/- {error:.6}, {measured} measurements"))?;
        }
        let parts = if report.paths.len() > 1 { &report.paths[..] } else { &[] };
        parts.iter().try_for_each(|path| output.line(&path.display().to_string()))
    }
}

/// What stands without a flag: `[OUT] TYPE [THREADS]`, or `[OUT] [THREADS]` where the types are searched.
#[derive(Debug, PartialEq)]
struct Request<'a> {
    path: Option<&'a Path>,
    target: Option<QuantType>,
    threads: Option<NonZeroUsize>,
}

impl<'a> Request<'a> {
    /// A single word is the type, and so is the first of two when it is one and the second a number: `TYPE THREADS`.
    fn read(words: &'a [String], dry_run: bool, searched: bool) -> Result<Self, Failure> {
        let (path, ty, threads) = match words {
            [path] if searched => (Some(path), None, None),
            [_, ty, ..] if searched && (words.len() > 2 || ty.parse::<QuantType>().is_ok()) => {
                return Err(Failure::usage(format!("`{ty}` is a type, but --target-kld searches types"), USAGE));
            }
            [path, threads] if searched => (Some(path), None, Some(threads)),
            [ty] => (None, Some(ty), None),
            [ty, threads] if dry_run && ty.parse::<QuantType>().is_ok() && threads.parse::<usize>().is_ok() => {
                (None, Some(ty), Some(threads))
            }
            [path, ty] => (Some(path), Some(ty), None),
            [path, ty, threads, ..] => (Some(path), Some(ty), Some(threads)),
            [] if searched && dry_run => (None, None, None),
            [] => return Err(Failure::usage("no file to write and no type given", USAGE)),
        };
        if path.is_none() && !dry_run {
            return Err(Failure::usage("no file to write given", USAGE));
        }
        let unknown = |error: woolly::quantize::UnknownQuantType| Failure::usage(error.to_string(), USAGE);
        let target = ty.map(|ty| ty.parse().map_err(unknown)).transpose()?;
        let count = |text: &String| {
            text.parse().map_err(|_| Failure::usage(format!("`{text}` is no number of threads"), USAGE))
        };
        Ok(Self { path: path.map(Path::new), target, threads: threads.map(count).transpose()? })
    }
}

/// As `llama-gguf-split` reads it: millions or thousand millions of bytes.
fn parse_split(text: &str) -> Result<u64, String> {
    let (number, factor) = match (text.strip_suffix('M'), text.strip_suffix('G')) {
        (Some(number), _) => (number, 1_000_000),
        (_, Some(number)) => (number, 1_000_000_000),
        _ => return Err("expected a size such as 500M or 2G".to_owned()),
    };
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "expected a size such as 500M or 2G".to_owned())
}

const USAGE: &str = "woolly quantize IN.gguf OUT.gguf Q4_K_M";

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}");
    let bar = ProgressBar::new(0);
    // The template is ours; should it ever be wrong, the default style says the same less well.
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
    bar.set_message(progress.tensor.to_owned());
}

fn tensor_line(tensor: &TensorReport) -> String {
    let dims = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    let (from, to) = (tensor.from.name(), tensor.to.name());
    format!("{from:<7} -> {to:<7} {dims:>18} {:>10}  {}", Bytes(tensor.bytes_after).to_string(), tensor.name)
}

fn summary(report: &Report) -> String {
    let (before, after) = (Bytes(report.bytes_before), Bytes(report.bytes_after));
    let end = match report.file_bytes {
        Some(_) => format!("{:.1} s", report.time.as_secs_f64()),
        None => "nothing written".to_owned(),
    };
    format!("{}: {before} -> {after}, {:.2} bits per weight, {end}", report.file_type, report.bits_per_weight())
}

fn object(report: &Report, path: Option<&Path>, found: Option<&FoundMix>) -> Value {
    let tensors = report.tensors.iter().map(|tensor| {
        json!({
            "name": tensor.name,
            "dims": tensor.dims,
            "from": tensor.from.name(),
            "to": tensor.to.name(),
            "bytes_before": tensor.bytes_before,
            "bytes_after": tensor.bytes_after,
        })
    });
    json!({
        "path": path,
        "paths": report.paths,
        "type": report.file_type.name(),
        "elements": report.elements,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "bits_per_weight": report.bits_per_weight(),
        "file_bytes": report.file_bytes,
        "divergence": found.map(|found| found.divergence.0),
        "divergence_error": found.map(|found| found.divergence.1),
        "seconds": report.time.as_secs_f64(),
        "tensors": tensors.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_parts_are_millions() {
        let cases = [("500M", Some(500_000_000)), ("2G", Some(2_000_000_000)), ("0M", None), ("5", None), ("1.5G", None)];
        for (text, bytes) in cases {
            assert_eq!(parse_split(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn what_stands_without_a_flag_is_told_apart() {
        let request = |path: Option<&'static str>, target, threads| Request {
            path: path.map(Path::new),
            target: Some(target),
            threads: NonZeroUsize::new(threads),
        };
        let cases: [(&[&str], bool, Request<'_>); 6] = [
            (&["out.gguf", "q4_k_m"], false, request(Some("out.gguf"), QuantType::Q4_K_M, 0)),
            (&["out.gguf", "Q8_0", "2"], false, request(Some("out.gguf"), QuantType::Q8_0, 2)),
            (&["Q8_0"], true, request(None, QuantType::Q8_0, 0)),
            (&["Q8_0", "2"], true, request(None, QuantType::Q8_0, 2)),
            (&["out.gguf", "15"], true, request(Some("out.gguf"), QuantType::Q4_K_M, 0)),
            (&["Q8_0", "Q4_0"], false, request(Some("Q8_0"), QuantType::Q4_0, 0)), // a file may be called anything
        ];
        for (words, dry_run, expected) in cases {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(Request::read(&words, dry_run, false).expect("understood"), expected, "{words:?}");
        }
        for words in [vec!["Q8_0"], vec!["out.gguf", "Q8"], vec!["out.gguf", "Q8_0", "0"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert!(matches!(Request::read(&words, false, false), Err(Failure::Usage { .. })), "{words:?}");
        }
    }
}
