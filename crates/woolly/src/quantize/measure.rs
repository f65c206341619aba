//! Measuring how much the inputs of each weight matter: a model reads a text while its matrices are watched.

use std::fmt;

use woolly_engine::{CancelToken, Generator};
use woolly_model::RunnerOptions;
use woolly_model::observe::Squares;
use woolly_tensor::CacheType;

use super::{Importance, ImportanceMatrix};
use crate::perplexity::Windows;
use crate::{Error, Model};

/// Rows computed at once; all of their logits are.
const ROWS: usize = 128;

/// What is called after each window, with the windows done and the windows in all.
pub type OnMeasured<'a> = Box<dyn FnMut(usize, usize) + 'a>;

/// How to measure importance.
pub struct ImportanceOptions<'a> {
    /// Tokens of a window, at least 4. Default 512.
    pub window: usize,
    /// Most windows to read; `None`, the default, reads all.
    pub max_windows: Option<usize>,
    /// Whether `output.weight` is watched too. Default `false`, as in llama.cpp: it is kept in a better type anyway.
    pub output: bool,
    /// What the matrix will call the text.
    pub dataset: String,
    /// Called after each window.
    pub on_window: Option<OnMeasured<'a>>,
    /// Stops the measurement from another thread.
    pub cancel: CancelToken,
}

impl Default for ImportanceOptions<'_> {
    fn default() -> Self {
        let (dataset, cancel) = (String::new(), CancelToken::new());
        Self { window: 512, max_windows: None, output: false, dataset, on_window: None, cancel }
    }
}

impl fmt::Debug for ImportanceOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportanceOptions")
            .field("window", &self.window)
            .field("max_windows", &self.max_windows)
            .field("output", &self.output)
            .field("dataset", &self.dataset)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Measures how much the columns of each weight of the layers matter when the model reads `text`.
    ///
    /// The model is best F32, F16 or Q8_0, and the text of the kind that the quantised model will be used for; some ten
    /// thousand tokens suffice. Every token of a window counts, and with mixtures of experts only those tokens that
    /// chose an expert count for it.
    ///
    /// # Errors
    /// As [`Model::perplexity`]; [`Error::Engine`] when the model computes what is not a number.
    pub fn importance(&self, text: &str, mut options: ImportanceOptions<'_>) -> Result<ImportanceMatrix, Error> {
        let windows = Windows::of(self, text, options.window, options.max_windows)?;
        let watched = self.watched()?;
        let rows = ROWS.min(options.window);
        let sizes =
            RunnerOptions { context: options.window, max_rows: rows, max_outputs: rows, storage: CacheType::F16 };
        let mut generator = Generator::new(watched.loaded.decoder(sizes)?, options.window);
        let mut done = 0;
        for ids in windows.iter() {
            let mut walk = generator.walk(&ids, 0..ids.len())?;
            while walk.advance()?.is_some() {
                if options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
            done += 1;
            if let Some(report) = &mut options.on_window {
                report(done, windows.total());
            }
        }
        let is_wanted = |name: &str| name.starts_with("blk.") || (options.output && name == "output.weight");
        let seen = (watched.squares)().into_iter().filter(|(name, _)| is_wanted(name));
        let entries = seen.map(|(name, squares)| Ok((name, importance(&squares)?))).collect::<Result<_, Error>>()?;
        Ok(ImportanceMatrix {
            entries,
            source: String::new(),
            datasets: vec![options.dataset],
            windows: u32::try_from(done).unwrap_or(u32::MAX),
            window: u32::try_from(options.window).unwrap_or(u32::MAX),
        })
    }
}

fn importance(squares: &Squares) -> Result<Importance, Error> {
    let sums: Vec<f32> = squares.sums.iter().map(|&sum| sum as f32).collect();
    match sums.iter().position(|sum| !sum.is_finite()) {
        Some(index) => {
            let id = u32::try_from(index).unwrap_or(u32::MAX);
            Err(Error::Engine(woolly_engine::Error::NumericFault { id, value: sums[index] }))
        }
        None => Ok(Importance { sums, counts: squares.counts.iter().map(|&count| count as f32).collect() }),
    }
}
