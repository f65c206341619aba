//! The tables of `woolly bench --targets`: what was reached beside what must be.

use super::markdown::{self, cell, percent};
use crate::speed::Row;
use crate::{Goal, StartTarget, Startup, Statistics};

/// Titles and widths, negative ones aligned to the left.
const SPEED: [(&str, i32); 10] = [
    ("model", -22),
    ("test", -13),
    ("threads", 7),
    ("isa", -6),
    ("t/s", 8),
    ("llama.cpp", 9),
    ("ratio (range)", 19),
    ("of read / mean / peak", 21),
    ("must reach", -26),
    ("reached", -7),
];
const START: [(&str, i32); 6] =
    [("model", -22), ("what", -22), ("woolly", 9), ("llama.cpp", 9), ("must reach", -26), ("reached", -7)];

/// Returns the head of the table of speeds.
pub fn target_head() -> String {
    head(&SPEED)
}

/// Returns a row of the table of speeds: medians, the median of the ratios with their range, and the verdict. `first` is as
/// for [`Goal::reached`].
pub fn target_row(model: &str, row: &Row, goal: &Goal, first: Option<f64>) -> String {
    let comparison = row.comparison();
    let theirs = comparison.map_or("-".to_owned(), |(rate, _)| format!("{:.2}", rate.median));
    let peak = row.operations_share().map(|(_, share)| share);
    let shares = [row.bandwidth_share(), row.bandwidth_share_of_mean(), peak];
    line(
        &SPEED,
        [
            model.to_owned(),
            row.case.to_string(),
            row.case.threads.to_string(),
            row.machine.level.name().to_owned(),
            format!("{:.2}", row.tokens_per_second().median),
            theirs,
            comparison.map_or("-".to_owned(), |(_, ratio)| markdown::range(ratio)),
            shares.map(percent).join(" / "),
            goal.to_string(),
            verdict(goal.reached(row, first)),
        ],
    )
}

/// Returns the head of the table of starts.
pub fn start_head() -> String {
    head(&START)
}

/// Returns the three rows of a model: time to load it, time to its first token, and the most memory; `file` are its bytes.
pub fn start_rows(
    target: &StartTarget,
    ready: &[std::time::Duration],
    own: &Startup,
    theirs: Option<&Startup>,
    file: u64,
) -> String {
    let seconds = |times: &[std::time::Duration]| {
        let times: Vec<f64> = times.iter().map(std::time::Duration::as_secs_f64).collect();
        format!("{:.3} s", Statistics::of(&times).median)
    };
    let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let their = |text: &dyn Fn(&Startup) -> String| theirs.map_or("-".to_owned(), text);
    let limit = |time: std::time::Duration| format!("at most {:.2} s", time.as_secs_f64());
    let parts = [
        ("loaded", seconds(ready), "-".to_owned(), limit(target.ready)),
        ("first token", seconds(&own.samples), their(&|s| seconds(&s.samples)), limit(target.first_token)),
        (
            "most memory",
            gb(own.peak_bytes),
            their(&|s| gb(s.peak_bytes)),
            format!("at most {}", gb(file + target.beside_file)),
        ),
    ];
    let verdicts = target.reached(ready, own, file).map(verdict);
    let rows = parts.into_iter().zip(verdicts).map(|((what, ours, theirs, limit), reached)| {
        line(&START, [target.model.to_string(), what.to_owned(), ours, theirs, limit, reached])
    });
    rows.collect()
}

fn head<const N: usize>(columns: &[(&str, i32); N]) -> String {
    let rule = columns.map(|(_, width)| {
        let dashes = "-".repeat(width.unsigned_abs() as usize - 1);
        if width > 0 { dashes + ":" } else { dashes + "-" }
    });
    line(columns, columns.map(|(title, _)| title.to_owned())) + &line(columns, rule)
}

fn line<const N: usize>(columns: &[(&str, i32); N], texts: [String; N]) -> String {
    let cells: String = columns.iter().zip(texts).map(|((_, width), text)| cell(&text, *width)).collect();
    format!("|{cells}\n")
}

fn verdict(reached: Option<bool>) -> String {
    reached.map_or("-", |reached| if reached { "yes" } else { "no" }).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::tests::row;
    use crate::{Rival, start_targets};
    use std::time::Duration;

    #[test]
    fn a_row_says_ours_theirs_ratio_goal_and_verdict() {
        let rival = Rival { engine: String::new(), samples: vec![Duration::from_millis(1600); 2] };
        let compared = Row { rival: Some(rival), ..row() };
        let goal = Goal { ratio: Some(2.0), read: Some(0.9), ..Goal::default() };
        let text = target_row("M:Q4_0", &compared, &goal, None);
        let cells: Vec<&str> = text.trim().trim_matches('|').split('|').map(str::trim).collect();
        let expected = [
            "M:Q4_0",
            "tg32",
            "2",
            "avx512",
            "45.00",
            "20.00",
            "2.25 (2.00..2.50)",
            "100 % / 107 % / 5 %",
            "2.00x, 90 % of read",
            "yes",
        ];
        assert_eq!(cells, expected);
        for line in target_head().lines() {
            assert_eq!(line.matches('|').count(), text.matches('|').count());
        }
    }

    #[test]
    fn a_start_has_a_row_for_each_limit() {
        let target = &start_targets().expect("known")[0];
        let own = Startup { samples: vec![Duration::from_millis(90)], peak_bytes: 3_000_000_000 };
        let text = start_rows(target, &[Duration::from_millis(9)], &own, Some(&own), 600_000_000);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 3 && lines[0].contains("0.009 s") && lines[0].contains("yes"), "{text}");
        assert!(
            lines[2].contains("3.00 GB") && lines[2].contains("at most 0.76 GB") && lines[2].contains("no"),
            "{text}"
        );
        assert_eq!(start_head().lines().count(), 2);
    }
}
