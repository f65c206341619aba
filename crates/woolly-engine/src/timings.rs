//! How long a run took, and where the time went.

use std::time::Duration;

/// Counts and durations of one run; time the caller spends between tokens is not part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them found in the cache and not computed again.
    pub cached_tokens: usize,
    /// Time to compute the others.
    pub prompt_time: Duration,
    /// Tokens generated; the first of them comes out of the prompt's last step.
    pub generated_tokens: usize,
    /// Decode steps: forward passes of a single token.
    pub decode_steps: usize,
    /// Time of the decode steps and of drawing all generated tokens; in an engine, from the first token to the last,
    /// whatever else was computed meanwhile.
    pub decode_time: Duration,
    /// Time from being handed in to the start, in an engine; zero elsewhere.
    pub queue_time: Duration,
    /// Times that an engine took the cache blocks away, so that something had to be computed again or fetched.
    pub preemptions: usize,
}

impl Timings {
    /// Returns prompt tokens computed per second, or `None` when none were.
    pub fn prompt_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.prompt_time)
    }

    /// Returns decode steps per second, or `None` when there were none.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.decode_steps, self.decode_time)
    }
}

fn rate(count: usize, time: Duration) -> Option<f64> {
    (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_only_what_was_computed() {
        let timings = Timings {
            prompt_tokens: 30,
            cached_tokens: 10,
            prompt_time: Duration::from_secs(2),
            generated_tokens: 5,
            decode_steps: 4,
            decode_time: Duration::from_millis(500),
            ..Timings::default()
        };
        assert_eq!((timings.prompt_rate(), timings.decode_rate()), (Some(10.0), Some(8.0)));
        assert_eq!((Timings::default().prompt_rate(), Timings::default().decode_rate()), (None, None));
    }
}
