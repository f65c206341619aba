//! Perplexity of a text, counted as llama.cpp counts it so that figures can be compared.
//!
//! The text is tokenised once and cut into windows; the first token of each window is replaced by BOS where the model
//! uses one; only the second half of each window is scored, so that every scored token has a context; the result is the
//! exponential of the mean negative log-likelihood. An incomplete last window is left out.

use std::fmt;
use std::time::{Duration, Instant};

use woolly_engine::CancelToken;

use crate::{Error, Model};

/// Rows computed, and logits held, at once while scoring.
pub(crate) const SCORE_ROWS: usize = 64;

/// What is called after each window.
pub type OnWindow<'a> = Box<dyn FnMut(&Perplexity) + 'a>;

/// How to measure; see the module.
pub struct PerplexityOptions<'a> {
    /// Tokens of a window, at least 4. Default 512.
    pub window: usize,
    /// Most windows to score; `None`, the default, scores all.
    pub max_windows: Option<usize>,
    /// Called after each window with the result so far.
    pub on_window: Option<OnWindow<'a>>,
    /// Stops the measurement from another thread.
    pub cancel: CancelToken,
}

impl Default for PerplexityOptions<'_> {
    fn default() -> Self {
        Self { window: 512, max_windows: None, on_window: None, cancel: CancelToken::new() }
    }
}

impl fmt::Debug for PerplexityOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerplexityOptions")
            .field("window", &self.window)
            .field("max_windows", &self.max_windows)
            .finish_non_exhaustive()
    }
}

/// The result of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// `exp(mean)`.
    pub value: f64,
    /// One standard error of `value`.
    pub standard_error: f64,
    /// Mean negative log-likelihood of a scored token, in nats.
    pub mean: f64,
    /// Tokens scored.
    pub scored: usize,
    /// Windows scored.
    pub windows: usize,
    /// Windows to score in all.
    pub total_windows: usize,
    /// Tokens of a window.
    pub window: usize,
    /// Tokens of the text.
    pub tokens: usize,
    /// Time spent computing.
    pub time: Duration,
}

impl Model {
    /// Measures the perplexity of `text`.
    ///
    /// # Errors
    /// [`Error::TextTooShort`] for less than one window of tokens, [`Error::ContextTooLong`] for a window beyond the
    /// model's context, [`Error::Engine`] for a window of less than 4, [`Error::Cancelled`].
    pub fn perplexity(&self, text: &str, mut options: PerplexityOptions<'_>) -> Result<Perplexity, Error> {
        let windows = Windows::of(self, text, options.window, options.max_windows)?;
        let mut generator = self.generator(options.window, SCORE_ROWS, SCORE_ROWS.min(options.window))?;
        let mut surprises = Vec::new();
        let mut result = Perplexity::default();
        let begin = Instant::now();
        for ids in windows.iter() {
            if !generator.score(&ids, ids.len() / 2 + 1, &options.cancel, &mut surprises)? {
                return Err(Error::Cancelled);
            }
            result = windows.result(&surprises, begin.elapsed());
            if let Some(report) = &mut options.on_window {
                report(&result);
            }
        }
        Ok(result)
    }

    pub(crate) fn check_window(&self, window: usize) -> Result<(), Error> {
        let limit = self.config().context_length;
        if window > limit {
            return Err(Error::ContextTooLong { asked: window, limit });
        }
        if window < 4 {
            let (value, allowed) = (window.to_string(), "at least 4 tokens");
            return Err(Error::Engine(woolly_engine::Error::Parameter { name: "window", value, allowed }));
        }
        Ok(())
    }
}

/// A text, cut into windows of tokens as the model wants them.
pub(crate) struct Windows {
    ids: Vec<u32>,
    window: usize,
    total: usize,
    /// What the first token of each window is replaced by.
    bos: Option<u32>,
}

impl Windows {
    /// Cuts `text` into at least one window.
    pub(crate) fn of(model: &Model, text: &str, window: usize, most: Option<usize>) -> Result<Self, Error> {
        model.check_window(window)?;
        let tokenizer = model.tokenizer();
        let ids = tokenizer.encode(text, true, false);
        let total = (ids.len() / window).min(most.unwrap_or(usize::MAX));
        if total == 0 {
            return Err(Error::TextTooShort { found: ids.len(), needed: window });
        }
        Ok(Self { ids, window, total, bos: tokenizer.bos().filter(|_| tokenizer.add_bos()) })
    }

    /// The number of windows.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The ids of each window.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Vec<u32>> {
        self.ids.chunks_exact(self.window).take(self.total).map(|ids| {
            let mut ids = ids.to_vec();
            if let (Some(bos), Some(first)) = (self.bos, ids.first_mut()) {
                *first = bos;
            }
            ids
        })
    }

    /// The result of the windows whose second halves have these surprises.
    pub(crate) fn result(&self, surprises: &[f64], time: Duration) -> Perplexity {
        let per_window = self.window - self.window / 2 - 1;
        let mut result = Perplexity {
            windows: surprises.len() / per_window.max(1),
            total_windows: self.total,
            window: self.window,
            tokens: self.ids.len(),
            time,
            ..Perplexity::default()
        };
        result.update(surprises);
        result
    }
}

impl Perplexity {
    fn update(&mut self, surprises: &[f64]) {
        let count = surprises.len() as f64;
        self.scored = surprises.len();
        self.mean = surprises.iter().sum::<f64>() / count;
        self.value = self.mean.exp();
        let variance = surprises.iter().map(|x| (x - self.mean).powi(2)).sum::<f64>() / count;
        self.standard_error = if count > 1.0 { (variance / (count - 1.0)).sqrt() * self.value } else { 0.0 };
    }
}
