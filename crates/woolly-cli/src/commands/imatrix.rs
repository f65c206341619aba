//! `woolly imatrix`: how much the inputs of each weight matter.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use woolly::quantize::ImportanceOptions;

use crate::arguments::{ModelArguments, Verbosity};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::numbers::parse_count;
use crate::output::Output;
use crate::source::Source;
use crate::{input, loading};

/// Measure which inputs of a model's weights matter, for better quantisation.
#[derive(Debug, Args)]
#[command(after_help = "\
Use the best file of the model there is, and a text like those it will be used for: some ten thousand tokens suffice. \
llama.cpp reads the file too.

Example: woolly imatrix -m model-f16.gguf -f text.txt -o imatrix.gguf
         woolly quantize --imatrix imatrix.gguf model-f16.gguf model-iq3_xs.gguf IQ3_XS")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// File with the text.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// File to write, in GGUF format.
    #[arg(short, long, value_name = "FILE", default_value = "imatrix.gguf", alias = "output-file")]
    output: PathBuf,
    /// Tokens of a window.
    #[arg(short, long = "ctx-size", value_name = "N", value_parser = parse_count, default_value = "512")]
    context: usize,
    /// Read only the first N windows.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    chunks: Option<usize>,
    /// Measure output.weight too.
    #[arg(long)]
    process_output: bool,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let source = Source::new(self.model.model.clone(), "imatrix")?;
        let interrupt = Interrupt::install()?;
        let text = input::read_file(&self.file)?;
        let model = loading::load(&source, &self.model, None, self.verbosity, output)?;
        let begin = std::time::Instant::now();
        let mut options = ImportanceOptions {
            window: self.context,
            max_windows: self.chunks,
            output: self.process_output,
            dataset: self.file.display().to_string(),
            cancel: interrupt.token(),
            ..ImportanceOptions::default()
        };
        if !self.verbosity.quiet && (output.notes_terminal || self.verbosity.verbose) {
            options.on_window = Some(Box::new(|done, total| output.note(&format!("[{done}/{total}]"))));
        }
        let matrix = model.importance(&text, options)?;
        matrix.write(&self.output)?;
        let idle = matrix.entries.values().flat_map(|entry| &entry.counts).filter(|&&count| count == 0.0).count();
        let seconds = begin.elapsed().as_secs_f64();
        if self.verbosity.json {
            return output.json(&json!({
                "path": self.output,
                "model": source.to_string(),
                "entries": matrix.entries.len(),
                "windows": matrix.windows,
                "window": matrix.window,
                "matrices_without_input": idle,
                "seconds": seconds,
            }));
        }
        if idle > 0 && !self.verbosity.quiet {
            output.note(&format!("note: {idle} matrices of experts got no input; a longer text may reach them"));
        }
        let (entries, windows, path) = (matrix.entries.len(), matrix.windows, self.output.display());
        output.line(&format!("{path}: {entries} tensors, {windows} windows of {}, {seconds:.1} s", matrix.window))
    }
}
