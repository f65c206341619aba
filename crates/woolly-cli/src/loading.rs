//! Loading a model with a progress bar.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use woolly::{LoadProgress, Model, ModelBuilder};

use crate::arguments::{ModelArguments, Verbosity};
use crate::failure::Failure;
use crate::output::Output;
use crate::source::Source;

/// Loading that is done within this time needs no bar.
const UNNOTICED: Duration = Duration::from_millis(200);

/// Loads the model; a person at standard error sees how far it is.
pub(crate) fn load(
    source: &Source,
    arguments: &ModelArguments,
    context: Option<usize>,
    verbosity: Verbosity,
    output: &Output,
) -> Result<Model, Failure> {
    let bar = if output.notes_terminal && !verbosity.quiet { bar() } else { ProgressBar::hidden() };
    let begin = Instant::now();
    let loader = source.open()?;
    let mut builder = ModelBuilder::default().device(arguments.device).on_progress(|progress| {
        if begin.elapsed() > UNNOTICED {
            show(&bar, progress);
        }
    });
    if let Some(threads) = arguments.threads {
        builder = builder.threads(threads.get());
    }
    if let Some(context) = context {
        builder = builder.context(context);
    }
    let model = builder.load_from(&loader);
    bar.finish_and_clear();
    Ok(model?)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("loading {wide_bar} {bytes}/{total_bytes} {eta}");
    let bar = ProgressBar::new(0);
    // The template is ours; should it ever be wrong, the default style says the same less well.
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

fn show(bar: &ProgressBar, progress: LoadProgress) {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
}
