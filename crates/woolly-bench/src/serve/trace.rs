//! Arrivals of requests, written down or made by a rule.
//!
//! A trace is text, a line a request, the fields separated by blanks; `#` begins a comment:
//!
//! ```text
//! # arrival_ms  prompt_tokens  output_tokens  [shared=GROUP:TOKENS]  [flow=NAME]  [priority=N]
//! 0      512  64  shared=system:256
//! 130    40   16  flow=alice  priority=1
//! ```
//!
//! Requests of one group have the first so many tokens of their prompts in common.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use woolly_engine::Rng;

use crate::Error;

/// A request of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrives, from the start of the trace.
    pub at: Duration,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Tokens of its answer.
    pub output: usize,
    /// Group and number of the prompt's first tokens that it has in common with others.
    pub shared: Option<(String, usize)>,
    /// Whom it is counted for.
    pub flow: String,
    /// Larger is served first.
    pub priority: i32,
}

/// Requests in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The requests.
    pub arrivals: Vec<Arrival>,
}

impl Trace {
    /// Reads a trace from a file, or makes one where `source` is `generate:` and the fields of a [`Generator`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Parameter`] naming the line and what is wrong with it.
    pub fn open(source: &str) -> Result<Self, Error> {
        if let Some(rule) = source.strip_prefix("generate:") {
            return Ok(rule.parse::<Generator>()?.trace());
        }
        let unread = |error| Error::Io { what: format!("read the trace {source}"), source: error };
        fs::read_to_string(source).map_err(unread)?.parse()
    }

    /// Returns the tokens of the longest request, prompt and answer together.
    pub fn context(&self) -> usize {
        self.arrivals.iter().map(|arrival| arrival.prompt + arrival.output).max().unwrap_or(0)
    }
}

impl FromStr for Trace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut arrivals = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let wrong = |why| Error::Parameter(format!("line {} of the trace: {why}", number + 1));
                arrivals.push(arrival(line).map_err(wrong)?);
            }
        }
        arrivals.sort_by_key(|arrival: &Arrival| arrival.at);
        if arrivals.is_empty() {
            Err(Error::Parameter("the trace has no requests".to_owned()))
        } else {
            Ok(Self { arrivals })
        }
    }
}

fn arrival(line: &str) -> Result<Arrival, String> {
    let mut fields = line.split_whitespace();
    let mut number = |name: &str| -> Result<f64, String> {
        let field = fields.next().ok_or_else(|| format!("{name} is missing"))?;
        let value = field.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
        value.ok_or_else(|| format!("{name} is `{field}`, but must be a number from 0"))
    };
    let at = Duration::from_secs_f64(number("arrival_ms")? / 1000.0);
    let (prompt, output) = (number("prompt_tokens")? as usize, number("output_tokens")? as usize);
    let mut arrival = Arrival { at, prompt, output, ..Arrival::default() };
    if prompt == 0 || output == 0 {
        return Err("a request has at least one token of prompt and one of output".to_owned());
    }
    for field in fields {
        match field.split_once('=') {
            Some(("flow", name)) => arrival.flow = name.to_owned(),
            Some(("priority", value)) => {
                arrival.priority = value.parse().map_err(|_| format!("priority is `{value}`, but must be a number"))?;
            }
            Some(("shared", value)) => {
                let shared =
                    value.split_once(':').and_then(|(group, tokens)| Some((group.to_owned(), tokens.parse().ok()?)));
                arrival.shared = Some(shared.ok_or_else(|| format!("shared is `{value}`, but must be GROUP:TOKENS"))?);
            }
            _ => return Err(format!("`{field}` is none of shared=, flow= and priority=")),
        }
    }
    Ok(arrival)
}

/// A rule that makes traces: arrivals at random (a Poisson process) with lengths of exponential distribution.
///
/// Read from `rate=2,count=64,prompt=256,output=64,shared=128,groups=2,flows=4,seed=1`; every field has a default.
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    /// Requests a second; 0 lets all arrive at once.
    pub rate: f64,
    /// Number of requests.
    pub count: usize,
    /// Mean tokens of a prompt beside the shared ones.
    pub prompt: usize,
    /// Mean tokens of an answer.
    pub output: usize,
    /// Tokens that the prompts of a group begin with.
    pub shared: usize,
    /// Number of groups.
    pub groups: usize,
    /// Number of flows.
    pub flows: usize,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for Generator {
    fn default() -> Self {
        Self { rate: 2.0, count: 64, prompt: 128, output: 64, shared: 0, groups: 1, flows: 1, seed: 1 }
    }
}

impl FromStr for Generator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut rule = Self::default();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let wrong = || {
                Error::Parameter(format!(
                    "`{field}` must be one of rate, count, prompt, output, shared, groups, \
                                                     flows and seed, with `=` and a number"
                ))
            };
            let count = || value.parse::<usize>().map_err(|_| wrong());
            match name {
                "rate" => rule.rate = value.parse().ok().filter(|rate: &f64| *rate >= 0.0).ok_or_else(wrong)?,
                "count" => rule.count = count()?.max(1),
                "prompt" => rule.prompt = count()?.max(1),
                "output" => rule.output = count()?.max(1),
                "shared" => rule.shared = count()?,
                "groups" => rule.groups = count()?.max(1),
                "flows" => rule.flows = count()?.max(1),
                "seed" => rule.seed = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(rule)
    }
}

impl Generator {
    /// Makes the trace: equal rules make equal traces.
    pub fn trace(&self) -> Trace {
        let mut rng = Rng::new(self.seed);
        let mut at = 0.0;
        let arrivals = (0..self.count).map(|_| {
            // Inverse of the exponential distribution; cut at four times the mean, so that contexts stay bounded.
            let mut spread = || (-(1.0 - rng.unit()).ln()).min(4.0);
            at += if self.rate > 0.0 { spread() / self.rate } else { 0.0 };
            let own = ((self.prompt as f64 * spread()) as usize).max(1);
            let output = ((self.output as f64 * spread()) as usize).max(1);
            let (group, flow) = ((rng.unit() * self.groups as f64) as usize, (rng.unit() * self.flows as f64) as usize);
            Arrival {
                at: Duration::from_secs_f64(at),
                prompt: self.shared + own,
                output,
                shared: (self.shared > 0).then(|| (group.to_string(), self.shared)),
                flow: flow.to_string(),
                priority: 0,
            }
        });
        Trace { arrivals: arrivals.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_and_what_is_wrong_is_named() {
        let text = "# a comment\n130 40 16 flow=alice priority=-1\n0 512 64 shared=system:256 # first\n\n";
        let trace: Trace = text.parse().expect("valid");
        let first = Arrival { prompt: 512, output: 64, shared: Some(("system".to_owned(), 256)), ..Arrival::default() };
        let at = Duration::from_millis(130);
        let second =
            Arrival { at, prompt: 40, output: 16, flow: "alice".to_owned(), priority: -1, ..Arrival::default() };
        assert_eq!((trace.context(), trace.arrivals), (576, vec![first, second]));
        for (text, part) in [
            ("0 5", "line 1 of the trace: output_tokens is missing"),
            ("0 5 1\n-1 5 1", "line 2"),
            ("0 0 1", "at least one"),
            ("0 5 1 shared=x", "GROUP:TOKENS"),
            ("0 5 1 color=red", "color=red"),
            ("# nothing", "no requests"),
        ] {
            let error = text.parse::<Trace>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn made_traces_follow_their_rule() {
        let rule: Generator =
            "rate=10,count=2000,prompt=100,output=20,shared=30,groups=2,seed=5".parse().expect("valid");
        let trace = rule.trace();
        assert_eq!((trace.arrivals.len(), &rule.trace()), (2000, &trace));
        let seconds = trace.arrivals.last().expect("some").at.as_secs_f64();
        assert!((160.0..240.0).contains(&seconds), "2000 arrivals at 10 a second in {seconds} s");
        let mean = trace.arrivals.iter().map(|a| a.prompt as f64).sum::<f64>() / 2000.0;
        // Cut at four means, the mean of the exponential distribution is 1 - e^-4 of itself.
        assert!((118.0..139.0).contains(&mean), "mean prompt of {mean}");
        assert!("rate=x".parse::<Generator>().is_err() && "colour=1".parse::<Generator>().is_err());
    }
}
