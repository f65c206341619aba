//! What quantising costs, in one number and without a text at hand.

use crate::{Error, Model, PerplexityOptions};

/// The beginning of Botchan by Natsume Soseki (1906) in the translation of Yasotaro Morri (1919): plain English prose in
/// the public domain, about 2,000 tokens.
const TEXT: &str = include_str!("benchmark.txt");

/// Tokens of a window, where both models can hold as many.
const WINDOW: usize = 512;

/// Returns by what share of the perplexity of `model` that of `other` is higher, on a page of English prose that is part
/// of this library: 0.02 for 2 %. Negative when `other` predicts the page better, which differences of less than the
/// noise of so short a text may do.
///
/// For a figure on a text of your own, measured more finely, see [`Model::compare`].
///
/// # Errors
/// [`Error::Vocabulary`] when the models do not have the same tokens; as [`Model::perplexity`].
pub fn benchmark_perplexity(model: &Model, other: &Model) -> Result<f64, Error> {
    model.check_vocabulary(other, TEXT)?;
    let window = WINDOW.min(model.config().context_length).min(other.config().context_length);
    let measure = |model: &Model| model.perplexity(TEXT, PerplexityOptions { window, ..PerplexityOptions::default() });
    Ok(measure(other)?.value / measure(model)?.value - 1.0)
}
