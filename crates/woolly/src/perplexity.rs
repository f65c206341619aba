//! Perplexity of a text, counted as llama.cpp counts it so that figures can be compared.
//!
//! The text is tokenised once and cut into windows; the first token of each window is replaced by BOS where the model
//! uses one; only the second half of each window is scored, so that every scored token has a context; the result is the
//! exponential of the mean negative log-likelihood. An incomplete last window is left out.

use std::fmt;
use std::time::{Duration, Instant};

use woolly_engine::{CancelToken, Generator};

use crate::{Error, Model};

/// Rows computed, and logits held, at once while scoring.
const SCORE_ROWS: usize = 64;

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
        let window = options.window;
        self.check_window(window)?;
        let ids = self.tokenizer().encode(text, true, false);
        let total_windows = (ids.len() / window).min(options.max_windows.unwrap_or(usize::MAX));
        if total_windows == 0 {
            return Err(Error::TextTooShort { found: ids.len(), needed: window });
        }
        let mut generator = self.generator(window, SCORE_ROWS, SCORE_ROWS.min(window))?;
        let mut surprises = Vec::with_capacity(total_windows * window / 2);
        let mut result = Perplexity { total_windows, window, tokens: ids.len(), ..Perplexity::default() };
        let begin = Instant::now();
        for ids in ids.chunks_exact(window).take(total_windows) {
            self.score_window(&mut generator, ids, &options.cancel, &mut surprises)?;
            result.time = begin.elapsed();
            result.windows += 1;
            result.update(&surprises);
            if let Some(report) = &mut options.on_window {
                report(&result);
            }
        }
        Ok(result)
    }

    fn check_window(&self, window: usize) -> Result<(), Error> {
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

    fn score_window(
        &self,
        generator: &mut Generator,
        ids: &[u32],
        cancel: &CancelToken,
        surprises: &mut Vec<f64>,
    ) -> Result<(), Error> {
        let mut ids = ids.to_vec();
        if let (true, Some(bos), Some(first)) = (self.tokenizer().add_bos(), self.tokenizer().bos(), ids.first_mut()) {
            *first = bos;
        }
        let first = ids.len() / 2 + 1;
        if generator.score(&ids, first, cancel, surprises)? { Ok(()) } else { Err(Error::Cancelled) }
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
