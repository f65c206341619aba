//! What a caller can say about sampling, with llama.cpp's names, defaults and ranges.

use crate::Error;

/// How the next token is drawn; the defaults are those of llama.cpp.
///
/// Fields set to their neutral value switch the sampler off. Sources: top-p, Holtzman et al. 2020; min-p, Nguyen et
/// al. 2024; repetition penalty, Keskar et al. 2019.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divisor of the logits; 0 always takes the likeliest token. Default 0.8.
    pub temperature: f32,
    /// Number of likeliest tokens kept; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Probability mass kept, from the likeliest down; 1 keeps all. Default 0.95.
    pub top_p: f32,
    /// Least probability relative to the likeliest token; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// Divisor of positive and factor on negative logits of recent tokens; 1 is off, the default.
    pub repeat_penalty: f32,
    /// How many recent tokens, the prompt's included, the penalties look at; 0 is off. Default 64.
    pub repeat_last_n: usize,
    /// Subtracted from the logit of every recent token; 0 is off, the default.
    pub presence_penalty: f32,
    /// Subtracted once per occurrence from the logit of every recent token; 0 is off, the default.
    pub frequency_penalty: f32,
    /// Start of the random sequence; `None` takes one from the operating system.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }
}

impl SamplingParams {
    /// Always takes the likeliest token: no randomness, no penalties.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first field that is out of range, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        let rules: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, self.temperature >= 0.0, "a number from 0"),
            ("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "a number from 0 to 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number from 0 to 1"),
            ("repeat_penalty", self.repeat_penalty, self.repeat_penalty > 0.0, "a number above 0"),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
        ];
        match rules.into_iter().find(|(_, value, in_range, _)| !value.is_finite() || !in_range) {
            None => Ok(()),
            Some((name, value, _, allowed)) => Err(Error::Parameter { name, value: value.to_string(), allowed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_out_of_range_is_named() {
        let ok = SamplingParams::default;
        let cases = [
            ("temperature", SamplingParams { temperature: f32::NAN, ..ok() }),
            ("temperature", SamplingParams { temperature: -0.1, ..ok() }),
            ("temperature", SamplingParams { temperature: f32::INFINITY, ..ok() }),
            ("top_p", SamplingParams { top_p: 1.01, ..ok() }),
            ("top_p", SamplingParams { top_p: -1.0, ..ok() }),
            ("min_p", SamplingParams { min_p: f32::NAN, ..ok() }),
            ("min_p", SamplingParams { min_p: 2.0, ..ok() }),
            ("repeat_penalty", SamplingParams { repeat_penalty: 0.0, ..ok() }),
            ("presence_penalty", SamplingParams { presence_penalty: f32::NAN, ..ok() }),
            ("frequency_penalty", SamplingParams { frequency_penalty: f32::NEG_INFINITY, ..ok() }),
        ];
        for (field, params) in cases {
            match params.validate() {
                Err(Error::Parameter { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        for params in [ok(), SamplingParams::greedy(), SamplingParams { top_p: 0.0, min_p: 1.0, ..ok() }] {
            assert!(params.validate().is_ok(), "{params:?}");
        }
    }
}
