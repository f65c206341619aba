//! CSV, JSON and SQL, field by field.

use serde_json::Value as Json;

use super::fields::{Field, Value, extra_fields, llama_bench_fields};
use crate::speed::Row;

pub(super) fn csv_header(row: &Row) -> String {
    let names: Vec<&str> = all_fields(row).into_iter().map(|(name, _)| name).collect();
    format!("{}\n", names.join(","))
}

pub(super) fn csv_row(row: &Row) -> String {
    let quoted = |(_, value): Field| format!("\"{}\"", plain(&value).replace('"', "\"\""));
    format!("{}\n", all_fields(row).into_iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// One object of an array, indented like llama-bench's.
pub(super) fn json_row(row: &Row) -> String {
    let fields = json_fields(row).into_iter().map(|(name, value)| format!("    \"{name}\": {value}"));
    format!("  {{\n{}\n  }}", fields.collect::<Vec<_>>().join(",\n"))
}

pub(super) fn json_line(row: &Row) -> String {
    let fields = json_fields(row).into_iter().map(|(name, value)| format!("\"{name}\": {value}"));
    format!("{{{}}}\n", fields.collect::<Vec<_>>().join(", "))
}

/// llama-bench's table, with nothing of ours: a table that it made takes our rows.
pub(super) fn sql_header(row: &Row) -> String {
    let column = |(name, value): Field| {
        let ty = match value {
            Value::Text(_) | Value::Absent => "TEXT",
            Value::Integer(_) | Value::Bool(_) => "INTEGER",
            Value::Real(_) => "REAL",
        };
        format!("  {name} {ty}")
    };
    let columns: Vec<String> = llama_bench_fields(row).into_iter().map(column).collect();
    format!("CREATE TABLE IF NOT EXISTS llama_bench (\n{}\n);\n\n", columns.join(",\n"))
}

pub(super) fn sql_row(row: &Row) -> String {
    let fields = llama_bench_fields(row);
    let names: Vec<&str> = fields.iter().map(|&(name, _)| name).collect();
    let values: Vec<String> =
        fields.iter().map(|(_, value)| format!("'{}'", plain(value).replace('\'', "''"))).collect();
    format!("INSERT INTO llama_bench ({}) VALUES ({});\n", names.join(", "), values.join(", "))
}

fn all_fields(row: &Row) -> Vec<Field> {
    let mut fields = llama_bench_fields(row);
    fields.extend(extra_fields(row));
    fields
}

/// llama-bench's fields, its samples, then ours.
fn json_fields(row: &Row) -> Vec<(&'static str, Json)> {
    let convert = |(name, value): Field| (name, json(value));
    let mut fields: Vec<_> = llama_bench_fields(row).into_iter().map(convert).collect();
    let nanoseconds = row.samples.iter().map(|sample| sample.as_nanos() as u64);
    fields.push(("samples_ns", nanoseconds.collect::<Vec<u64>>().into()));
    fields.push(("samples_ts", row.rates().into()));
    fields.extend(extra_fields(row).into_iter().map(convert));
    fields
}

fn json(value: Value) -> Json {
    match value {
        Value::Text(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Bool(truth) => truth.into(),
        Value::Real(number) => number.into(),
        Value::Absent => Json::Null,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Bool(truth) => u8::from(*truth).to_string(),
        Value::Real(number) => format!("{number:.6}"),
        Value::Absent => String::new(),
    }
}
