//! `woolly bench --targets`: every measurement that this engine is held against, in one run.

use std::env;
use std::path::Path;
use std::sync::Arc;

use woolly_bench::output::{Format, Printer, start_head, start_rows, target_head, target_row};
use woolly_bench::speed::{Case, Grid, Options, Row};
use woolly_bench::{
    Area, Ceiling, Level, LlamaBench, Machine, Opponent, Source, StartTarget, Synthetic, Target, first_token, load_times,
    lower_targets, start_targets, targets,
};

use super::{Arguments, note};
use crate::failure::Failure;
use crate::output::Output;

/// Runs of each program for the time to the first token, and times that the library loads a model.
const STARTS: usize = 5;

pub(super) fn run(arguments: &Arguments, areas: &[Area], output: &mut Output) -> Result<(), Failure> {
    let asked = |area: Area| areas.is_empty() || areas.contains(&area);
    let machine = Machine::detect()?;
    let threads = Grid::default().threads[0];
    let mut all = targets(threads, machine.level)?;
    for &(level, _) in &arguments.llama_bench_at {
        all.extend(lower_targets(threads, level)?);
    }
    all.retain(|target| asked(target.area));
    let options = Options { cases: all.iter().map(|target| target.case).collect(), ..arguments.options()? };
    let ceilings = arguments.ceilings(&machine, &options.threads(), output)?;
    let (printer, second) = arguments.printers(&Grid::default());
    let table = arguments.table_of_targets();
    let mut session = Session { arguments, machine, ceilings, options, printer, second, table, output };
    session.speeds(&all)?;
    if table && asked(Area::Start) { session.starts(threads) } else { Ok(()) }
}

impl Arguments {
    /// Whether rows are told beside their goals; the other formats are for programs and have their own fields.
    fn table_of_targets(&self) -> bool {
        !self.json && self.output == Format::Markdown
    }
}

/// A run over all models.
struct Session<'a> {
    arguments: &'a Arguments,
    machine: Machine,
    ceilings: Vec<Ceiling>,
    /// Everything but models and cases.
    options: Options,
    printer: Printer,
    second: Option<Printer>,
    table: bool,
    output: &'a mut Output,
}

impl Session<'_> {
    fn speeds(&mut self, all: &[Target]) -> Result<(), Failure> {
        if self.table && !all.is_empty() {
            self.output.text(&target_head())?;
        }
        let mut models: Vec<&Synthetic> = Vec::new();
        for target in all.iter().filter(|target| target.area != Area::Start) {
            if !models.contains(&&target.model) {
                models.push(&target.model);
            }
        }
        for model in models {
            let rows: Vec<&Target> = all.iter().filter(|target| target.model == *model).collect();
            self.model(model, &rows)?;
        }
        note(self.output, self.second.as_mut().map(Printer::finish));
        let end = self.printer.finish();
        self.output.text(&end)
    }

    /// Measures all rows of a model, level by level.
    fn model(&mut self, model: &Synthetic, rows: &[&Target]) -> Result<(), Failure> {
        let context = rows.iter().map(|target| target.case.context()).max().unwrap_or(0);
        let (_folder, source) = match &self.arguments.model_dir {
            Some(folder) => (None, Source::File(model.in_folder(folder, context)?)),
            None if self.options.rival.is_none() => (None, Source::Synthetic(model.clone())),
            None => {
                let (folder, path) = model.write_temporary(context)?;
                (Some(folder), Source::File(path))
            }
        };
        let mut levels: Vec<Level> = rows.iter().map(|target| target.level).collect();
        levels.dedup();
        for level in levels {
            let rows: Vec<&Target> = rows.iter().copied().filter(|target| target.level == level).collect();
            self.level(&source, level, &rows)?;
        }
        Ok(())
    }

    fn level(&mut self, source: &Source, level: Level, rows: &[&Target]) -> Result<(), Failure> {
        let cases: Vec<Case> = rows.iter().map(|target| target.case).collect();
        let options =
            Options { models: vec![source.clone()], cases, rival: self.rival(level), ..self.options.clone() };
        let ceilings: Vec<Ceiling> = self.ceilings.iter().map(|ceiling| ceiling.at(level)).collect();
        let machine = self.machine.at(level);
        let (mut targets, mut firsts) = (rows.iter(), Vec::new());
        options.run(&machine, &ceilings, |row: Row| -> Result<(), Failure> {
            note(self.output, self.second.as_mut().map(|printer| printer.row(&row)));
            // Machine and ceilings are told at the end, in every format that tells them.
            let plain = self.printer.row(&row);
            let Some(target) = targets.next().filter(|_| self.table) else { return self.output.text(&plain) };
            let first = first_speed(&mut firsts, target.area, row.tokens_per_second().median);
            self.output.text(&target_row(&target.model.to_string(), &row, &target.goal, first))
        })
    }

    /// The other engine as it was built for a level.
    fn rival(&self, level: Level) -> Option<Arc<dyn Opponent>> {
        let lower = self.arguments.llama_bench_at.iter().find(|(known, _)| *known == level);
        match lower {
            Some((_, program)) => Some(Arc::new(LlamaBench::new(program))),
            None => self.options.rival.clone(),
        }
    }

    fn starts(&mut self, threads: usize) -> Result<(), Failure> {
        self.output.line("")?;
        self.output.text(&start_head())?;
        start_targets()?.iter().try_for_each(|target| self.start(target, threads))
    }

    fn start(&mut self, target: &StartTarget, threads: usize) -> Result<(), Failure> {
        let (_folder, path) = match &self.arguments.model_dir {
            Some(folder) => (None, target.model.in_folder(folder, 0)?),
            None => {
                let (folder, path) = target.model.write_temporary(0)?;
                (Some(folder), path)
            }
        };
        let own = env::current_exe().map_err(|error| Failure::Io { what: "find this program".to_owned(), error })?;
        let flags: &[&str] = &["bench", "--no-ceilings"];
        // The first run brings the file into memory, the rest are what counts.
        first_token(&own, flags, &path, threads, 1)?;
        let ready = load_times(&path, STARTS)?;
        let ours = first_token(&own, flags, &path, threads, STARTS)?;
        let theirs = self.arguments.llama_bench.as_deref();
        let theirs = theirs.map(|program| first_token(program, &[], &path, threads, STARTS)).transpose()?;
        self.output.text(&start_rows(target, &ready, &ours, theirs.as_ref(), bytes(&path)))
    }
}

/// Returns the first speed told for an area, so far or now.
fn first_speed(firsts: &mut Vec<(Area, f64)>, area: Area, speed: f64) -> Option<f64> {
    let known = firsts.iter().find(|(known, _)| *known == area).map(|&(_, speed)| speed);
    if known.is_none() {
        firsts.push((area, speed));
    }
    known.or(Some(speed))
}

fn bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
