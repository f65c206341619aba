//! How far one model's predictions are from another's: what quantisation costs, seen token by token.
//!
//! Both models read the text in step, window by window as for perplexity, and the distributions of each scored token are
//! compared where they arise: nothing is written. The measures are those of llama.cpp (`--kl-divergence`), but exact in
//! the reference's probabilities, which llama.cpp rounds to 16 bits to store them.

use std::fmt;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use woolly_engine::{CancelToken, Rows};

use crate::perplexity::{SCORE_ROWS, Windows};
use crate::{Error, Model, Perplexity};

/// What is called after each window.
pub type OnCompared<'a> = Box<dyn FnMut(&Comparison) + 'a>;

/// How to compare; see the module.
pub struct CompareOptions<'a> {
    /// Tokens of a window, at least 4, of which the second half is scored. Default 512.
    pub window: usize,
    /// Most windows to score; `None`, the default, scores all.
    pub max_windows: Option<usize>,
    /// Rows computed at once. Default 64, which is how prompts are read; 1 is how answers are decoded, on other kernels.
    pub rows: usize,
    /// Called after each window with the result so far.
    pub on_window: Option<OnCompared<'a>>,
    /// Stops the comparison from another thread.
    pub cancel: CancelToken,
}

impl Default for CompareOptions<'_> {
    fn default() -> Self {
        Self { window: 512, max_windows: None, rows: SCORE_ROWS, on_window: None, cancel: CancelToken::new() }
    }
}

impl fmt::Debug for CompareOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompareOptions")
            .field("window", &self.window)
            .field("max_windows", &self.max_windows)
            .finish_non_exhaustive()
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Perplexity of the reference.
    pub reference: Perplexity,
    /// Perplexity of the other model.
    pub other: Perplexity,
    /// `ln` of the ratio of perplexities, other over reference, with its standard error.
    pub log_ratio: (f64, f64),
    /// Kullback-Leibler divergence Σ p ln(p/q) of the other's distribution q from the reference's p, in nats a token.
    pub divergence: Distribution,
    /// How much more probable the other holds the token that follows: its probability less that of the reference.
    pub difference: Distribution,
    /// Root of the mean square of that difference, with its standard error.
    pub difference_rms: (f64, f64),
    /// Share of tokens for which both hold the same token to be the likeliest, with its standard error.
    pub same_top: (f64, f64),
    /// Time spent.
    pub time: Duration,
}

/// The values of a quantity over all scored tokens.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// Their mean.
    pub mean: f64,
    /// One standard error of the mean.
    pub standard_error: f64,
    sorted: Vec<f32>,
}

impl Distribution {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let (mean, standard_error) = mean_of(values.iter().copied());
        let mut sorted: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        Self { mean, standard_error, sorted }
    }

    /// Returns the value that a share of `share` (0 to 1) of all lie below, interpolated; 0 when there are none.
    pub fn percentile(&self, share: f64) -> f64 {
        let place = share.clamp(0.0, 1.0) * self.sorted.len().saturating_sub(1) as f64;
        let at = |place: f64| self.sorted.get(place as usize).map_or(0.0, |&x| f64::from(x));
        let (below, above) = (at(place.floor()), at(place.ceil()));
        below + (above - below) * place.fract()
    }

    /// Returns the largest value.
    pub fn max(&self) -> f64 {
        self.percentile(1.0)
    }

    /// Returns the smallest value.
    pub fn min(&self) -> f64 {
        self.percentile(0.0)
    }
}

impl Model {
    /// Compares the predictions of `other` with those of this model, the reference, on `text`.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] when the models do not have the same tokens; as [`Model::perplexity`].
    pub fn compare(&self, other: &Self, text: &str, mut options: CompareOptions<'_>) -> Result<Comparison, Error> {
        self.check_vocabulary(other, text)?;
        let windows = Windows::of(self, text, options.window, options.max_windows)?;
        other.check_window(options.window)?;
        let rows = options.rows.clamp(1, options.window);
        let mut generators = [self, other].map(|model| model.generator(options.window, rows, rows));
        let [Ok(reference), Ok(compared)] = &mut generators else {
            let failed = generators.into_iter().find_map(Result::err);
            return Err(failed.unwrap_or(Error::Cancelled));
        };
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut tokens = Vec::new();
        let mut result = Comparison::default();
        let begin = Instant::now();
        for ids in windows.iter() {
            let rows = ids.len() / 2..ids.len() - 1;
            let (mut a, mut b) = (reference.walk(&ids, rows.clone())?, compared.walk(&ids, rows)?);
            loop {
                if options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let (Some(a), Some(b)) = (a.advance()?, b.advance()?) else { break };
                tokens.extend(compare_rows(a, b, &ids, threads)?);
            }
            result.update(&tokens, &windows, begin.elapsed());
            if let Some(report) = &mut options.on_window {
                report(&result);
            }
        }
        Ok(result)
    }

    /// Checks that both models split `text` into the same tokens of the same vocabulary.
    pub(crate) fn check_vocabulary(&self, other: &Self, text: &str) -> Result<(), Error> {
        let (a, b) = (self.config().vocab_size, other.config().vocab_size);
        if a != b {
            return Err(Error::Vocabulary { why: format!("one has {a} tokens, the other {b}") });
        }
        let ids = |model: &Self| (model.tokenizer().encode(text, true, false), model.tokenizer().bos());
        if ids(self) == ids(other) {
            return Ok(());
        }
        Err(Error::Vocabulary { why: "they split the text into different tokens".to_owned() })
    }
}

/// What two models say about one token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Token {
    /// Negative log-likelihood of the token by the reference and by the other.
    surprises: [f64; 2],
    pub(crate) divergence: f64,
    same_top: bool,
}

impl Token {
    /// How much more probable the other holds the token.
    fn difference(&self) -> f64 {
        let [reference, other] = self.surprises.map(|surprise| (-surprise).exp());
        other - reference
    }
}

/// Compares rows that both models have computed, on several threads.
pub(crate) fn compare_rows(a: Rows<'_>, b: Rows<'_>, ids: &[u32], threads: NonZeroUsize) -> Result<Vec<Token>, Error> {
    let count = a.logits.len() / a.columns;
    let mut tokens = vec![Ok(Token::default()); count];
    let per_thread = count.div_ceil(threads.get()).max(1);
    let compare = |start: usize, tokens: &mut [Result<Token, Fault>]| {
        for (row, token) in (start..).zip(tokens) {
            let columns = row * a.columns..(row + 1) * a.columns;
            *token = compare_row(&a.logits[columns.clone()], &b.logits[columns], ids[a.first + 1 + row]);
        }
    };
    thread::scope(|scope| {
        let mut shares = (0..).step_by(per_thread).zip(tokens.chunks_mut(per_thread));
        let own = shares.next();
        for (start, tokens) in shares {
            scope.spawn(move || compare(start, tokens));
        }
        if let Some((start, tokens)) = own {
            compare(start, tokens);
        }
    });
    tokens.into_iter().map(|token| token.map_err(Fault::error)).collect()
}

/// A logit that is not a number.
#[derive(Clone, Copy, Debug)]
struct Fault {
    id: u32,
    value: f32,
}

impl Fault {
    fn error(self) -> Error {
        Error::Engine(woolly_engine::Error::NumericFault { id: self.id, value: self.value })
    }
}

fn compare_row(a: &[f32], b: &[f32], target: u32) -> Result<Token, Fault> {
    let (a_top, b_top) = (top(a)?, top(b)?);
    let (a_max, b_max) = (a[a_top], b[b_top]);
    // With p = e^(a − max) / Σ e^(a − max): Σ p (ln p − ln q) = Σ p ((a − max a) − (b − max b)) − ln Σ_a + ln Σ_b.
    let (mut a_sum, mut b_sum, mut product) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (a - a_max, b - b_max);
        let p = f64::from(a.exp());
        a_sum += p;
        b_sum += f64::from(b.exp());
        product += p * (f64::from(a) - f64::from(b));
    }
    let (a_log, b_log) = (a_sum.ln(), b_sum.ln());
    let target = target as usize;
    let surprise = |row: &[f32], max: f32, log: f64| log - f64::from(row.get(target).copied().unwrap_or(max) - max);
    Ok(Token {
        surprises: [surprise(a, a_max, a_log), surprise(b, b_max, b_log)],
        divergence: product / a_sum - a_log + b_log,
        same_top: a_top == b_top,
    })
}

/// The place of the first largest logit.
fn top(row: &[f32]) -> Result<usize, Fault> {
    let mut best = 0;
    for (i, &value) in row.iter().enumerate() {
        if !value.is_finite() {
            return Err(Fault { id: i as u32, value });
        }
        if value > row[best] {
            best = i;
        }
    }
    Ok(best)
}

impl Comparison {
    fn update(&mut self, tokens: &[Token], windows: &Windows, time: Duration) {
        let surprises = |which: usize| tokens.iter().map(|token| token.surprises[which]).collect::<Vec<_>>();
        let (a, b) = (surprises(0), surprises(1));
        self.reference = windows.result(&a, time);
        self.other = windows.result(&b, time);
        self.log_ratio = mean_of(b.iter().zip(&a).map(|(b, a)| b - a));
        self.divergence = Distribution::of(tokens.iter().map(|token| token.divergence));
        self.difference = Distribution::of(tokens.iter().map(Token::difference));
        let (square, error) = mean_of(tokens.iter().map(|token| token.difference().powi(2)));
        let rms = square.sqrt();
        self.difference_rms = (rms, if rms > 0.0 { 0.5 / rms * error } else { 0.0 });
        self.same_top = mean_of(tokens.iter().map(|token| f64::from(u8::from(token.same_top))));
        self.time = time;
    }
}

/// The mean and its standard error.
pub(crate) fn mean_of(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    if count < 1.0 {
        return (0.0, 0.0);
    }
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, if count > 1.0 { (variance / (count - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_textbook() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): Σ p ln(p/q) = ½ ln 2 − ¼ ln 2.
        let logits = |p: [f32; 3], shift: f32| p.map(|p| p.ln() + shift);
        let (a, b) = (logits([0.5, 0.25, 0.25], 3.0), logits([0.25, 0.5, 0.25], -7.0));
        let token = compare_row(&a, &b, 0).expect("finite");
        let ln2 = std::f64::consts::LN_2;
        assert!((token.divergence - 0.25 * ln2).abs() < 1e-6, "{}", token.divergence);
        assert!((token.surprises[0] - ln2).abs() < 1e-6 && (token.surprises[1] - 2.0 * ln2).abs() < 1e-6);
        assert!((token.difference() + 0.25).abs() < 1e-6 && !token.same_top);
        let same = compare_row(&a, &a.map(|x| x + 1.0), 2).expect("finite");
        assert!(same.divergence.abs() < 1e-6 && same.same_top);
        assert!(compare_row(&a, &[0.0, f32::NAN, 0.0], 0).is_err());
    }

    #[test]
    fn percentiles_interpolate_between_sorted_values() {
        let values = Distribution::of([4.0, 1.0, 3.0, 2.0, 5.0].into_iter());
        let cases = [(0.0, 1.0), (0.5, 3.0), (0.625, 3.5), (1.0, 5.0), (2.0, 5.0)];
        for (share, expected) in cases {
            assert!((values.percentile(share) - expected).abs() < 1e-9, "{share}");
        }
        assert_eq!((values.mean, values.min(), values.max()), (3.0, 1.0, 5.0));
        assert!((values.standard_error - 0.5_f64.sqrt()).abs() < 1e-9); // variance 2, four degrees of freedom
        assert_eq!(Distribution::default().percentile(0.5), 0.0);
    }

    #[test]
    fn rows_are_compared_alike_on_any_number_of_threads() {
        let columns = 5;
        let logits = |salt: usize| -> Vec<f32> { (0..7 * columns).map(|i| ((i * salt) % 11) as f32).collect() };
        let (a, b, ids) = (logits(3), logits(7), [4, 3, 2, 1, 0, 1, 2, 3, 4]);
        let rows = |logits| Rows { first: 1, logits, columns };
        let compare = |threads| {
            let threads = NonZeroUsize::new(threads).expect("some");
            compare_rows(rows(&a), rows(&b), &ids, threads).expect("finite")
        };
        let expected: Vec<Token> = (0..7)
            .map(|i| {
                let row = i * columns..(i + 1) * columns;
                compare_row(&a[row.clone()], &b[row], ids[i + 2]).expect("finite")
            })
            .collect();
        for threads in [1, 2, 3, 16] {
            assert_eq!(compare(threads), expected, "{threads} threads");
        }
    }
}
