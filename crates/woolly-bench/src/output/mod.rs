//! Rows as text, in llama-bench's formats.
//!
//! The fields, their order, types and spelling are those of llama-bench (llama.cpp 0.5.0-dev, ggml 0.25.3), so that
//! `compare-llama-bench.py` and what else reads its output reads ours. Settings that this engine does not have carry
//! llama-bench's defaults, since such programs join rows by them. Our own fields follow after llama-bench's; only SQL has
//! none, so that rows of both programs go into one table.

mod fields;
mod markdown;
mod targets;
mod text;

use std::str::FromStr;

use crate::speed::Row;

pub(crate) use fields::cache_names;
pub use fields::{Field, Value, extra_fields, llama_bench_fields};
pub use targets::{start_head, start_rows, target_head, target_row};

/// A format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A table for people; the machine and its ceilings stand below it.
    Markdown,
    /// Comma-separated values, every one in quotes.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    JsonLines,
    /// `CREATE TABLE` and an `INSERT` a row.
    Sql,
}

impl Format {
    /// Every format by the name it is asked for.
    pub const ALL: [(&'static str, Self); 5] = [
        ("md", Self::Markdown),
        ("csv", Self::Csv),
        ("json", Self::Json),
        ("jsonl", Self::JsonLines),
        ("sql", Self::Sql),
    ];

    /// Returns a writer of this format.
    pub fn printer(self) -> Printer {
        Printer { format: self, rows: 0, settings: markdown::Settings::default(), seen: Vec::new() }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, format)| format);
        found.ok_or_else(|| format!("unknown format `{name}`; known are md, csv, json, jsonl and sql"))
    }
}

/// Turns rows into text one by one, so that each can be shown as soon as it is there.
#[derive(Clone, Debug)]
pub struct Printer {
    format: Format,
    rows: usize,
    settings: markdown::Settings,
    /// Machine and ceilings of the rows so far, told once each in Markdown.
    seen: Vec<String>,
}

impl Printer {
    /// Has the table show a column for each setting that differs from the default in `grid`, as llama-bench does.
    #[must_use]
    pub fn with_columns_for(mut self, grid: &crate::speed::Grid) -> Self {
        self.settings = markdown::Settings::of(grid);
        self
    }

    /// Has the table show what the other engine reached.
    #[must_use]
    pub fn with_rival(mut self) -> Self {
        self.settings.set_rival();
        self
    }

    /// Returns the text of a row, with what must stand before it.
    pub fn row(&mut self, row: &Row) -> String {
        let first = self.rows == 0;
        self.rows += 1;
        match self.format {
            Format::Markdown => {
                self.remember(row);
                let head = if first { markdown::header(&self.settings) } else { String::new() };
                head + &markdown::row(&self.settings, row)
            }
            Format::Csv => {
                let head = if first { text::csv_header(row) } else { String::new() };
                head + &text::csv_row(row)
            }
            Format::Json => format!("{}{}", if first { "[\n" } else { ",\n" }, text::json_row(row)),
            Format::JsonLines => text::json_line(row),
            Format::Sql => {
                let head = if first { text::sql_header(row) } else { String::new() };
                head + &text::sql_row(row)
            }
        }
    }

    /// Returns what stands after the last row.
    pub fn finish(&mut self) -> String {
        match self.format {
            Format::Markdown => {
                let seen = self.seen.iter().map(|line| format!("{line}\n")).collect::<String>();
                format!("\n{seen}build: {} ({})\n", crate::BUILD_COMMIT, crate::BUILD_NUMBER)
            }
            Format::Json if self.rows == 0 => "[]\n".to_owned(),
            Format::Json => "\n]\n".to_owned(),
            Format::Csv | Format::JsonLines | Format::Sql => String::new(),
        }
    }

    fn remember(&mut self, row: &Row) {
        let machine = format!("machine: {}", row.machine.describe());
        let rival = row.rival.iter().map(|rival| format!("compared with: {}", rival.engine));
        for line in std::iter::once(machine).chain(row.ceiling.iter().map(crate::Ceiling::describe)).chain(rival) {
            if !self.seen.contains(&line) {
                self.seen.push(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::Grid;
    use crate::speed::tests::row;

    /// What `llama-bench -o sql` of llama.cpp 0.5.0-dev (ggml 0.25.3, llama-cpp-python 0.3.36) wrote for its table.
    const LLAMA_BENCH_SQL: &str = include_str!("../../tests/llama-bench.sql");
    /// What the same `llama-bench -o json` wrote for one row.
    const LLAMA_BENCH_JSON: &str = include_str!("../../tests/llama-bench.json");

    fn print(format: Format, rows: &[Row]) -> String {
        let mut printer = format.printer().with_columns_for(&Grid { threads: vec![2], ..Grid::default() });
        let text: String = rows.iter().map(|row| printer.row(row)).collect();
        text + &printer.finish()
    }

    #[test]
    fn sql_has_llama_benchs_table_and_a_row() {
        let text = print(Format::Sql, &[row()]);
        let (table, insert) = text.split_once("\n\n").expect("table, then rows");
        assert_eq!(table, LLAMA_BENCH_SQL.trim_end());
        assert!(insert.starts_with("INSERT INTO llama_bench (build_commit, ") && insert.ends_with("');\n"), "{insert}");
        assert_eq!(insert.matches("', '").count() + 1, 42, "{insert}");
    }

    #[test]
    fn json_has_llama_benchs_fields_in_its_order_and_types_then_ours() {
        use serde_json::Value as Json;
        let theirs: Json = serde_json::from_str(LLAMA_BENCH_JSON).expect("valid");
        let theirs = theirs[0].as_object().expect("an object");
        for (format, rows) in [(Format::Json, vec![row(), row()]), (Format::JsonLines, vec![row()])] {
            let found: Json = serde_json::from_str(&print(format, &rows)).expect("valid");
            let found = if format == Format::Json { &found[1] } else { &found };
            let ours = found.as_object().expect("an object");
            for ((their_key, their_value), (our_key, our_value)) in theirs.iter().zip(ours) {
                assert_eq!(their_key, our_key);
                let kind = std::mem::discriminant::<Json>;
                assert_eq!(kind(their_value), kind(our_value), "{our_key}");
                assert_eq!(their_value.is_f64(), our_value.is_f64(), "{our_key}");
            }
            assert!(ours.contains_key("median_ts") && ours.contains_key("read_share"));
        }
    }

    #[test]
    fn settings_that_do_not_exist_here_have_llama_benchs_defaults() {
        let theirs: serde_json::Value = serde_json::from_str(LLAMA_BENCH_JSON).expect("valid");
        let ours: serde_json::Value = serde_json::from_str(&print(Format::JsonLines, &[row()])).expect("valid");
        for key in [
            "gpu_info",
            "backends",
            "cpu_mask",
            "cpu_strict",
            "poll",
            "n_gpu_layers",
            "split_mode",
            "load_mode",
            "main_gpu",
            "no_kv_offload",
            "flash_attn",
            "tensor_split",
            "tensor_buft_overrides",
            "embeddings",
            "fit_target",
        ] {
            assert_eq!(theirs[0][key], ours[key], "{key}");
        }
    }

    #[test]
    fn csv_has_a_value_for_every_name() {
        let mut awkward = row();
        awkward.model.filename = "a \"b\", c.gguf".to_owned();
        let text = print(Format::Csv, &[awkward]);
        let (names, values) = text.split_once('\n').expect("two lines");
        assert!(names.starts_with("build_commit,build_number,cpu_info,"), "{names}");
        assert!(values.contains("\"a \"\"b\"\", c.gguf\""), "{values}");
        assert_eq!(names.split(',').count(), values.replace(", c", "").split("\",\"").count());
    }

    #[test]
    fn markdown_is_llama_benchs_table_with_our_columns_after_it() {
        let text = print(Format::Markdown, &[row()]);
        let lines: Vec<&str> = text.lines().collect();
        let theirs = [
            "| model                          |       size |     params | backend    | threads |            test |                  t/s |",
            "| ------------------------------ | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: |",
            "| llama 1.1B Q4_K_M              | 636.18 MiB |     1.10 B | CPU        |       2 |            tg32 |         45.00 ± 7.07 |",
        ];
        for (line, beginning) in lines.iter().zip(theirs) {
            assert!(line.starts_with(beginning), "{line}");
        }
        assert!(lines[2].ends_with("|  30.0 |    100 % |   0.100 |      5 % amx bf16 |"), "{}", lines[2]);
        assert_eq!(lines[4], "machine: Processor, avx512, caches 48 KiB / 2 MiB");
        assert!(lines[5].starts_with("ceilings of 2 threads: read 30.0 GB/s"), "{}", lines[5]);
        assert!(lines[6].starts_with("build: "), "{}", lines[6]);
    }

    #[test]
    fn another_engine_has_its_columns_and_its_fields() {
        let rival =
            crate::Rival { engine: "llama.cpp x".to_owned(), samples: vec![std::time::Duration::from_millis(1600); 2] };
        let compared = Row { rival: Some(rival), ..row() };
        let mut printer = Format::Markdown.printer().with_rival();
        let text = printer.row(&compared) + &printer.finish();
        assert!(text.contains("|         20.00 ± 0.00 |   2.25 (2.00..2.50) |"), "{text}");
        assert!(text.contains("\ncompared with: llama.cpp x\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&print(Format::JsonLines, &[compared])).expect("valid");
        assert_eq!((&json["vs_engine"], &json["vs_ratio_min"]), (&"llama.cpp x".into(), &2.0.into()));
    }

    #[test]
    fn no_rows_are_valid_too() {
        assert_eq!(print(Format::Json, &[]), "[]\n");
        assert_eq!(print(Format::Csv, &[]), "");
    }
}
