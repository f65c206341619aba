//! The table for people.

use super::fields::cache_names;
use crate::Statistics;
use crate::speed::{Grid, Row};

/// Which settings have a column of their own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    batch: bool,
    micro_batch: bool,
    cache: bool,
    rival: bool,
}

impl Settings {
    /// Those that are not at their default, or vary.
    pub(super) fn of(grid: &Grid) -> Self {
        let default = Grid::default();
        Self {
            batch: grid.batches != default.batches,
            micro_batch: grid.micro_batches != default.micro_batches,
            cache: grid.caches != default.caches,
            rival: false,
        }
    }

    /// Whether rows are compared with another engine.
    pub(super) fn set_rival(&mut self) {
        self.rival = true;
    }
}

/// A column: its title, its width (negative: aligned to the left), and the text of a row.
struct Column {
    title: &'static str,
    width: i32,
    cell: fn(&Row) -> String,
}

fn columns(settings: &Settings) -> Vec<Column> {
    let column = |title, width, cell| Column { title, width, cell };
    let mut columns = vec![
        column("model", -30, |row: &Row| row.model.kind.clone()),
        column("size", 10, |row: &Row| size(row.model.bytes)),
        column("params", 10, |row: &Row| parameters(row.model.parameters)),
        column("backend", -10, |_: &Row| "CPU".to_owned()),
        column("threads", 7, |row: &Row| row.case.threads.to_string()),
    ];
    if settings.batch {
        columns.push(column("n_batch", 7, |row| row.case.batch.to_string()));
    }
    if settings.micro_batch {
        columns.push(column("n_ubatch", 8, |row| row.case.micro_batch.to_string()));
    }
    if settings.cache {
        columns.push(column("type_k", 6, |row| cache_names(row.case.cache)[0].to_owned()));
        columns.push(column("type_v", 6, |row| cache_names(row.case.cache)[1].to_owned()));
    }
    columns.extend([
        column("test", 15, |row: &Row| row.case.to_string()),
        column("t/s", 20, |row: &Row| {
            let rate = row.tokens_per_second();
            format!("{:.2} ± {:.2}", rate.mean, rate.stddev)
        }),
        column("GB/s", 5, |row: &Row| format!("{:.1}", row.bandwidth() / 1e9)),
        column("of read", 8, |row: &Row| percent(row.bandwidth_share())),
        column("TFLOP/s", 7, |row: &Row| format!("{:.3}", row.operations() / 1e12)),
        column("of peak", 17, |row: &Row| {
            let unit = row.operations_share().map_or(String::new(), |(unit, _)| format!(" {}", unit.name()));
            percent(row.operations_share().map(|(_, share)| share)) + &unit
        }),
    ]);
    if settings.rival {
        columns.push(column("llama.cpp t/s", 20, |row| {
            row.comparison().map_or("-".to_owned(), |(rate, _)| format!("{:.2} ± {:.2}", rate.mean, rate.stddev))
        }));
        columns.push(column("ratio (range)", 19, |row| {
            row.comparison().map_or("-".to_owned(), |(_, ratio)| range(ratio))
        }));
    }
    columns
}

pub(super) fn header(settings: &Settings) -> String {
    let columns = columns(settings);
    let titles: String = columns.iter().map(|column| cell(column.title, column.width)).collect();
    let rule = |column: &Column| {
        let dashes = "-".repeat(column.width.unsigned_abs() as usize - 1);
        format!(" {dashes}{} |", if column.width > 0 { ":" } else { "-" })
    };
    format!("|{titles}\n|{}\n", columns.iter().map(rule).collect::<String>())
}

pub(super) fn row(settings: &Settings, row: &Row) -> String {
    let cells: String = columns(settings).iter().map(|column| cell(&(column.cell)(row), column.width)).collect();
    format!("|{cells}\n")
}

/// `2.25 (2.00..2.50)`.
pub(super) fn range(ratio: Statistics) -> String {
    format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max)
}

pub(super) fn cell(text: &str, width: i32) -> String {
    let size = width.unsigned_abs() as usize;
    if width < 0 { format!(" {text:<size$} |") } else { format!(" {text:>size$} |") }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.2} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

fn parameters(count: u64) -> String {
    let count = count as f64;
    if count < 1e9 { format!("{:.2} M", count / 1e6) } else { format!("{:.2} B", count / 1e9) }
}

pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}
