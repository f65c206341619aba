//! What a replay measured.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use woolly_engine::Stats;

use super::Batching;

/// Order statistics of a duration, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Half are below.
    pub p50: f64,
    /// Nine tenths are below.
    pub p90: f64,
    /// Ninety-nine of a hundred are below.
    pub p99: f64,
}

/// A request's answer.
pub(super) struct Answered {
    pub(super) due: Instant,
    pub(super) drawn: Vec<Instant>,
    pub(super) queued: Duration,
}

/// What a replay measured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServeReport {
    /// How requests were put together.
    pub batching: Batching,
    /// Requests answered.
    pub requests: usize,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens of their answers.
    pub output_tokens: u64,
    /// From the first arrival to the last token, in seconds.
    pub seconds: f64,
    /// From arrival to first token.
    pub ttft_ms: Percentiles,
    /// From one token of an answer to its next.
    pub inter_token_ms: Percentiles,
    /// From arrival to the start of computing.
    pub queue_ms: Percentiles,
    /// Mean number of answers written per step.
    pub occupancy: f64,
    /// Share of prompt tokens that the cache had.
    pub hit_rate: f64,
    /// Times that a request had to give way.
    pub preemptions: u64,
    /// Share of the time in which a step was computed.
    pub busy: f64,
}

impl ServeReport {
    pub(super) fn new(batching: Batching, answered: &[Answered], time: Duration, stats: &Stats) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let first = |answer: &Answered| answer.drawn.first().map(|drawn| ms(drawn.duration_since(answer.due)));
        let gaps = |answer: &Answered| answer.drawn.windows(2).map(|pair| ms(pair[1] - pair[0])).collect::<Vec<_>>();
        let seconds = time.as_secs_f64();
        Self {
            batching,
            requests: answered.len(),
            prompt_tokens: stats.prompt_tokens,
            output_tokens: stats.generated_tokens,
            seconds,
            ttft_ms: Percentiles::of(answered.iter().filter_map(first).collect()),
            inter_token_ms: Percentiles::of(answered.iter().flat_map(gaps).collect()),
            queue_ms: Percentiles::of(answered.iter().map(|answer| ms(answer.queued)).collect()),
            occupancy: stats.occupancy(),
            hit_rate: stats.cache_hit_rate(),
            preemptions: stats.preemptions,
            busy: stats.busy().as_secs_f64() / seconds,
        }
    }

    /// Returns answer tokens per second.
    pub fn output_rate(&self) -> f64 {
        self.output_tokens as f64 / self.seconds
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> Value {
        let percentiles = |p: &Percentiles| json!({ "p50": p.p50, "p90": p.p90, "p99": p.p99 });
        json!({
            "batching": self.batching.name(),
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "seconds": self.seconds,
            "output_tokens_per_second": self.output_rate(),
            "ttft_ms": percentiles(&self.ttft_ms),
            "inter_token_ms": percentiles(&self.inter_token_ms),
            "queue_ms": percentiles(&self.queue_ms),
            "occupancy": self.occupancy,
            "hit_rate": self.hit_rate,
            "preemptions": self.preemptions,
            "busy": self.busy,
        })
    }

    /// Returns the head of a table of reports.
    pub fn table_head() -> &'static str {
        "| batching | requests | prompt | output | time s | out t/s | TTFT p50/p90/p99 ms | inter-token p50/p90/p99 ms | \
         queue p90 ms | occupancy | hit rate | preempted | busy |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    }
}

/// A row of a table under [`ServeReport::table_head`].
impl fmt::Display for ServeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, prompt_tokens, output_tokens, seconds, preemptions, .. } = self;
        write!(f, "| {} | {requests} | {prompt_tokens} | {output_tokens} | {seconds:.2} ", self.batching.name())?;
        write!(f, "| {:.1} | {} | {} ", self.output_rate(), self.ttft_ms, self.inter_token_ms)?;
        write!(f, "| {:.0} | {:.2} | {:.1} % ", self.queue_ms.p90, self.occupancy, self.hit_rate * 100.0)?;
        write!(f, "| {preemptions} | {:.0} % |", self.busy * 100.0)
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} / {:.0} / {:.0}", self.p50, self.p90, self.p99)
    }
}

impl Percentiles {
    /// By nearest rank; of no values, everything is 0.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(place).copied().unwrap_or(0.0)
        };
        Self { p50: rank(50), p90: rank(90), p99: rank(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = Percentiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred, Percentiles { p50: 50.0, p90: 90.0, p99: 99.0 });
        assert_eq!(Percentiles::of(vec![3.0]), Percentiles { p50: 3.0, p90: 3.0, p99: 3.0 });
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
