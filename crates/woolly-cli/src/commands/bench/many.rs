//! The part of `woolly bench` that measures many sequences at once.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use woolly_bench::Source;
use woolly_bench::serve::{Batching, ServeOptions, ServeReport, Trace};
use woolly_bench::speed::{BatchedOptions, BatchedRow, Engine, Grid};

use crate::failure::Failure;
use crate::output::Output;

/// What to measure of many sequences.
#[derive(Debug, Args)]
pub(super) struct Many {
    /// Measure -npl sequences of -p and -n tokens side by side, with llama-batched-bench's columns
    #[arg(long, conflicts_with = "serve_sim")]
    batched: bool,
    /// Replay arrivals of requests on the serving engine: a file, or generate:rate=2,count=64,...
    #[arg(long, value_name = "TRACE", long_help = TRACE_HELP)]
    serve_sim: Option<String>,
    /// How --serve-sim puts requests together
    #[arg(long, value_name = "WAY", value_delimiter = ',', default_value = "continuous")]
    batching: Vec<Way>,
    /// Most requests that --serve-sim runs at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    max_sequences: u16,
    /// Milliseconds that --serve-sim aims at from one token of an answer to the next
    #[arg(long, value_name = "MS", default_value_t = 200)]
    step_ms: u64,
    /// Tokens that the cache of --serve-sim holds [default: enough for all that run at once]
    #[arg(long, value_name = "N")]
    cache_tokens: Option<usize>,
}

const TRACE_HELP: &str = "\
Replay arrivals of requests on the serving engine. A trace is a file with a line a request,

    arrival_ms prompt_tokens output_tokens [shared=GROUP:TOKENS] [flow=NAME] [priority=N]

where requests of a group begin with the same tokens, or a rule that makes one at random:

    generate:rate=2,count=64,prompt=128,output=64,shared=0,groups=1,flows=1,seed=1

with `rate` requests a second (0: all at once) and mean lengths in tokens.";

/// A way to put requests together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One after another
    None,
    /// A batch is computed to its end before the next begins
    Static,
    /// Requests join and leave at every step
    Continuous,
}

impl Many {
    pub(super) fn is_asked_for(&self) -> bool {
        self.batched || self.serve_sim.is_some()
    }

    pub(super) fn run(
        &self,
        models: &[Source],
        grid: &Grid,
        json: bool,
        output: &mut Output,
    ) -> Result<(), Failure> {
        for source in models {
            match &self.serve_sim {
                Some(trace) => self.replay(source, &Trace::open(trace)?, grid, json, output)?,
                None => batched(source, grid, json, output)?,
            }
        }
        Ok(())
    }

    fn replay(
        &self,
        source: &Source,
        trace: &Trace,
        grid: &Grid,
        json: bool,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let loader = source.open(trace.context() + 1)?;
        let engine = Engine::load(&loader, first(&grid.threads))?;
        if !json {
            output.text(ServeReport::table_head())?;
        }
        for &way in &self.batching {
            let options = ServeOptions {
                batching: way.into(),
                max_sequences: usize::from(self.max_sequences),
                step: Duration::from_millis(self.step_ms),
                cache_tokens: self.cache_tokens,
                cache_type: first(&grid.caches),
            };
            let report = options.run(&engine, trace)?;
            print(output, json, &report.json(), &report)?;
        }
        Ok(())
    }
}

fn batched(source: &Source, grid: &Grid, json: bool, output: &mut Output) -> Result<(), Failure> {
    let Grid { prompts, generations, sequences, .. } = grid.clone();
    let settings = Grid { prompts: vec![1], pairs: Vec::new(), generations: Vec::new(), ..grid.clone() };
    let Some(&base) = settings.cases().first() else { return Ok(()) };
    let options = BatchedOptions { prompts, generations, sequences, base };
    if !json {
        output.text(BatchedRow::table_head())?;
    }
    options.run(source, |row| print(output, json, &row.json(), &row))
}

/// A row of a table, or a line of JSON.
fn print(output: &mut Output, json: bool, value: &Value, row: &dyn std::fmt::Display) -> Result<(), Failure> {
    if json { output.text(&format!("{value}\n")) } else { output.text(&format!("{row}\n")) }
}

/// Lists have at least one value.
fn first<T: Copy>(list: &[T]) -> T {
    list[0]
}

impl From<Way> for Batching {
    fn from(way: Way) -> Self {
        match way {
            Way::None => Self::None,
            Way::Static => Self::Static,
            Way::Continuous => Self::Continuous,
        }
    }
}
