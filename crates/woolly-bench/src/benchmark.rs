//! Named metrics that a program collects, and the report of them.

use std::fmt;

use crate::Statistics;

/// A named collection of metrics, each a series of values.
///
/// ```
/// use woolly_bench::{Benchmark, Reporter};
///
/// let mut bench = Benchmark::new("inference_bench");
/// bench.add_metric("tokens_per_second");
/// for rate in [40.0, 44.0, 42.0] {
///     bench.record("tokens_per_second", rate);
/// }
/// assert_eq!(bench.statistics("tokens_per_second").map(|s| s.median), Some(42.0));
/// println!("{}", Reporter::new().add_benchmark(bench).generate());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Benchmark {
    name: String,
    metrics: Vec<(String, Vec<f64>)>,
}

impl Benchmark {
    /// Begins an empty benchmark.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), metrics: Vec::new() }
    }

    /// Announces a metric, which appears in the report even if nothing is recorded; one that exists stays as it is.
    pub fn add_metric(&mut self, name: impl Into<String>) -> &mut Self {
        self.values_mut(name.into());
        self
    }

    /// Adds a value to a metric, which is made if it was not announced: nothing recorded is ever dropped.
    pub fn record(&mut self, name: impl Into<String>, value: f64) -> &mut Self {
        self.values_mut(name.into()).push(value);
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the metrics in the order in which they were announced, with their values.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.metrics.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Returns the summary of a metric, `None` if there is no such metric or nothing was recorded.
    pub fn statistics(&self, name: &str) -> Option<Statistics> {
        let (_, values) = self.metrics.iter().find(|(known, _)| known == name)?;
        (!values.is_empty()).then(|| Statistics::of(values))
    }

    fn values_mut(&mut self, name: String) -> &mut Vec<f64> {
        let index = self.metrics.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.metrics.push((name, Vec::new()));
            self.metrics.len() - 1
        });
        &mut self.metrics[index].1
    }
}

/// Collects benchmarks for a report.
#[derive(Clone, Debug, Default)]
pub struct Reporter {
    benchmarks: Vec<Benchmark>,
}

impl Reporter {
    /// Begins an empty report.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a benchmark.
    #[must_use]
    pub fn add_benchmark(mut self, benchmark: Benchmark) -> Self {
        self.benchmarks.push(benchmark);
        self
    }

    /// Finishes the report.
    pub fn generate(self) -> Report {
        Report { benchmarks: self.benchmarks }
    }
}

/// Finished benchmarks; displayed as one Markdown table each.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    benchmarks: Vec<Benchmark>,
}

impl Report {
    /// Returns the benchmarks in the order in which they were added.
    pub fn benchmarks(&self) -> &[Benchmark] {
        &self.benchmarks
    }

    /// Returns the report as JSON: name, and for each metric its statistics and values.
    pub fn to_json(&self) -> serde_json::Value {
        let metric = |(name, values): (&str, &[f64])| {
            let Statistics { count, mean, stddev, median, min, max } = Statistics::of(values);
            serde_json::json!({
                "name": name, "count": count, "mean": mean, "stddev": stddev, "median": median, "min": min, "max": max,
                "values": values,
            })
        };
        let benchmark = |b: &Benchmark| {
            let metrics: Vec<_> = b.metrics().map(metric).collect();
            serde_json::json!({ "name": b.name(), "metrics": metrics })
        };
        self.benchmarks.iter().map(benchmark).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, benchmark) in self.benchmarks.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}\n", benchmark.name())?;
            writeln!(f, "| metric | mean ± stddev | median | min | max | n |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|")?;
            for (name, values) in benchmark.metrics() {
                write_metric(f, name, values)?;
            }
        }
        Ok(())
    }
}

fn write_metric(f: &mut fmt::Formatter<'_>, name: &str, values: &[f64]) -> fmt::Result {
    if values.is_empty() {
        return writeln!(f, "| {name} | - | - | - | - | 0 |");
    }
    let Statistics { count, mean, stddev, median, min, max } = Statistics::of(values);
    writeln!(f, "| {name} | {mean:.2} ± {stddev:.2} | {median:.2} | {min:.2} | {max:.2} | {count} |")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_metric_with_its_numbers() {
        let mut bench = Benchmark::new("b");
        bench.add_metric("announced").add_metric("recorded");
        bench.record("recorded", 1.0).record("recorded", 3.0).record("new", 7.5);
        let report = Reporter::new().add_benchmark(bench).generate();
        let text = report.to_string();
        let rows: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            rows,
            [
                "| announced | - | - | - | - | 0 |",
                "| recorded | 2.00 ± 1.41 | 2.00 | 1.00 | 3.00 | 2 |",
                "| new | 7.50 ± 0.00 | 7.50 | 7.50 | 7.50 | 1 |"
            ]
        );
        assert_eq!(report.to_json()[0]["metrics"][1]["values"], serde_json::json!([1.0, 3.0]));
    }

    #[test]
    fn a_metric_without_values_has_no_statistics() {
        let mut bench = Benchmark::new("b");
        bench.add_metric("m");
        assert_eq!((bench.statistics("m"), bench.statistics("other")), (None, None));
    }
}
