//! What can be said about one answer.

use woolly_engine::{CancelToken, SamplingParams};

/// How to generate: length, sampling, stop strings. Everything has a default, those of llama.cpp.
///
/// ```
/// use woolly::GenerateOptions;
///
/// let options = GenerateOptions::new().max_tokens(100).temperature(0.2).seed(7).stop("\n\n");
/// assert_eq!(options.sampling.seed, Some(7));
/// ```
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None`, the default, goes on until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether tokens by which the model ends its answer are treated as ordinary ones.
    pub ignore_end: bool,
    /// Stops the answer from another thread; dropping a stream needs no token.
    pub cancel: CancelToken,
}

impl GenerateOptions {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the likeliest token every time instead of drawing.
    pub fn greedy(self) -> Self {
        self.temperature(0.0)
    }

    /// Sets the most tokens to generate.
    pub fn max_tokens(self, count: usize) -> Self {
        Self { max_tokens: Some(count), ..self }
    }

    /// Sets the divisor of the logits; 0 is greedy.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = temperature;
        self
    }

    /// Sets the number of likeliest tokens kept; 0 keeps all.
    pub fn top_k(mut self, k: usize) -> Self {
        self.sampling.top_k = k;
        self
    }

    /// Sets the probability mass kept; 1 keeps all.
    pub fn top_p(mut self, p: f32) -> Self {
        self.sampling.top_p = p;
        self
    }

    /// Sets the least probability relative to the likeliest token; 0 keeps all.
    pub fn min_p(mut self, p: f32) -> Self {
        self.sampling.min_p = p;
        self
    }

    /// Sets the repetition penalty; 1 is off.
    pub fn repeat_penalty(mut self, factor: f32) -> Self {
        self.sampling.repeat_penalty = factor;
        self
    }

    /// Sets how many recent tokens the penalties look at.
    pub fn repeat_last_n(mut self, count: usize) -> Self {
        self.sampling.repeat_last_n = count;
        self
    }

    /// Sets what every recent token loses; 0 is off.
    pub fn presence_penalty(mut self, penalty: f32) -> Self {
        self.sampling.presence_penalty = penalty;
        self
    }

    /// Sets what a recent token loses per occurrence; 0 is off.
    pub fn frequency_penalty(mut self, penalty: f32) -> Self {
        self.sampling.frequency_penalty = penalty;
        self
    }

    /// Sets the start of the random sequence: equal seeds give equal answers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = Some(seed);
        self
    }

    /// Adds a text that ends the answer and is not part of it.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Goes on when the model ends its answer.
    pub fn ignore_end(self) -> Self {
        Self { ignore_end: true, ..self }
    }

    /// Lets `token` stop the answer from another thread.
    pub fn cancel_with(self, token: &CancelToken) -> Self {
        Self { cancel: token.clone(), ..self }
    }
}
