//! `woolly bench --targets`: every measurement of the README's table in one run.

use std::env;
use std::path::Path;

use woolly_bench::speed::{Grid, Options, Row};
use woolly_bench::{Machine, Source, Startup, Statistics, Synthetic, Target, first_token, targets};

use super::{Arguments, note};
use crate::failure::Failure;
use crate::output::Output;

/// Runs of each program for the time to the first token.
const STARTS: usize = 3;

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let grid = Grid::default();
    let threads = grid.threads[0];
    let all = targets(threads)?;
    let machine = Machine::detect()?;
    let options = arguments.options()?;
    let counts = Options { cases: all.iter().flat_map(|target| target.cases.clone()).collect(), ..options.clone() };
    let ceilings = arguments.ceilings(&machine, &counts.threads(), output)?;
    let (mut printer, mut second) = arguments.printers(&grid);
    for Target { model, cases, .. } in &all {
        let models = vec![Source::Synthetic(model.clone())];
        let options = Options { models, cases: cases.clone(), ..options.clone() };
        options.run(&machine, &ceilings, |row: Row| -> Result<(), Failure> {
            note(output, second.as_mut().map(|printer| printer.row(&row)));
            output.text(&printer.row(&row))
        })?;
    }
    note(output, second.as_mut().map(woolly_bench::output::Printer::finish));
    output.text(&printer.finish())?;
    // The other formats have no place for it.
    let startup = !arguments.json && arguments.output == woolly_bench::output::Format::Markdown;
    let started = all.iter().filter(|target| startup && target.startup);
    started.map(|target| &target.model).try_for_each(|model| starts(arguments, model, threads, output))
}

/// Writes the lines of time to the first token and of memory for one model.
fn starts(arguments: &Arguments, model: &Synthetic, threads: usize, output: &mut Output) -> Result<(), Failure> {
    let (_folder, path) = model.write_temporary(0)?;
    let own = env::current_exe().map_err(|error| Failure::Io { what: "find this program".to_owned(), error })?;
    // What was just written is in memory, so the first run is as warm as the last.
    let ours = first_token(&own, &["bench", "--no-ceilings"], &path, threads, STARTS)?;
    output.line("")?;
    let name = model.to_string();
    line(output, &name, "woolly", &ours, &path)?;
    if let Some(program) = &arguments.llama_bench {
        let theirs = first_token(program, &[], &path, threads, STARTS)?;
        line(output, &name, "llama.cpp", &theirs, &path)?;
        let ratio = median(&theirs) / median(&ours);
        output.line(&format!("{name}: first token {ratio:.1} times sooner"))?;
    }
    Ok(())
}

fn line(output: &mut Output, model: &str, engine: &str, startup: &Startup, path: &Path) -> Result<(), Failure> {
    let file = path.metadata().map_or(0, |metadata| metadata.len());
    let gb = |bytes: u64| bytes as f64 / 1e9;
    output.line(&format!(
        "{model}, {engine}: first token {:.3} s after the start of the program, at most {:.2} GB in memory (file {:.2} GB)",
        median(startup),
        gb(startup.peak_bytes),
        gb(file),
    ))
}

fn median(startup: &Startup) -> f64 {
    Statistics::of(&startup.samples.iter().map(std::time::Duration::as_secs_f64).collect::<Vec<_>>()).median
}
