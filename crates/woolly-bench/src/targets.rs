//! The fixed set of measurements by which this engine is compared with llama.cpp, and what each must reach.

use std::fmt;
use std::time::Duration;

use woolly_cpu::isa::Level;
use woolly_model::mix::Mix;

use crate::speed::{Case, Grid, Row};
use crate::{Error, Shape, Startup, Statistics, Synthetic};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// One token after another in an empty context.
    Decode,
    /// The same far into a context.
    Depth,
    /// A prompt.
    Prefill,
    /// Many sequences side by side.
    Batched,
    /// From the start of a program to its first token, and its memory.
    Start,
}

/// What a row must reach; `None` where nothing is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Goal {
    /// Multiple of the other engine's speed.
    pub ratio: Option<f64>,
    /// Share of the machine's read bandwidth.
    pub read: Option<f64>,
    /// Share of the machine's arithmetic peak.
    pub peak: Option<f64>,
    /// Multiple of the speed of the first row of the same area and model.
    pub of_first: Option<f64>,
}

/// A measurement and its goal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The model.
    pub model: Synthetic,
    /// The kind of work.
    pub area: Area,
    /// What is measured.
    pub case: Case,
    /// The instruction set that it is measured on.
    pub level: Level,
    /// What it must reach.
    pub goal: Goal,
}

/// What the start of a program with a model must reach, with the file in memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartTarget {
    /// The model.
    pub model: Synthetic,
    /// Most time until the library has loaded it.
    pub ready: Duration,
    /// Most time until the first token, from the start of the program to its end.
    pub first_token: Duration,
    /// Most memory beside the file, in bytes.
    pub beside_file: u64,
}

impl Area {
    /// Every area by the name it is asked for.
    pub const ALL: [(&'static str, Self); 5] = [
        ("decode", Self::Decode),
        ("depth", Self::Depth),
        ("prefill", Self::Prefill),
        ("batched", Self::Batched),
        ("start", Self::Start),
    ];
}

impl Goal {
    /// Says whether a row reached it; `None` when too little was measured to say. `first` is the median speed of the first
    /// row of the same area and model.
    pub fn reached(&self, row: &Row, first: Option<f64>) -> Option<bool> {
        let ratio = row.comparison().map(|(_, ratios)| ratios.median);
        let speed = first.map(|first| row.tokens_per_second().median / first);
        let peak = row.operations_share().map(|(_, share)| share);
        let parts =
            [(self.ratio, ratio), (self.read, row.bandwidth_share()), (self.peak, peak), (self.of_first, speed)];
        let asked = parts.into_iter().filter_map(|(goal, found)| Some((goal?, found)));
        let met: Vec<Option<bool>> = asked.map(|(goal, found)| found.map(|found| found >= goal)).collect();
        if met.contains(&Some(false)) {
            return Some(false);
        }
        (!met.is_empty() && !met.contains(&None)).then_some(true)
    }
}

/// `2.00x, 85 % of read`.
impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: Option<f64>, of: &str| share.map(|share| format!("{:.0} % of {of}", 100.0 * share));
        let parts = [
            self.ratio.map(|ratio| format!("{ratio:.2}x")),
            percent(self.read, "read"),
            percent(self.peak, "peak"),
            self.of_first.map(|multiple| format!("{multiple:.2} of first row")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "-" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

impl StartTarget {
    /// Says whether the medians and the peak are within the limits; `None` for what the system did not say.
    pub fn reached(&self, ready: &[Duration], start: &Startup, file: u64) -> [Option<bool>; 3] {
        let within = |times: &[Duration], limit: Duration| median(times) <= limit.as_secs_f64();
        let memory = (start.peak_bytes > 0).then(|| start.peak_bytes <= file + self.beside_file);
        [Some(within(ready, self.ready)), Some(within(&start.samples, self.first_token)), memory]
    }
}

/// Returns all measurements for a machine with `threads` processors and its best instruction set, model by model.
///
/// # Errors
/// None; the shapes are known ones.
pub fn targets(threads: usize, level: Level) -> Result<Vec<Target>, Error> {
    let all = if threads > 1 { vec![1, threads] } else { vec![1] };
    let base = Grid { prompts: vec![], generations: vec![], threads: vec![threads], ..Grid::default() };
    let decode = Grid { generations: vec![32], threads: all, ..base.clone() };
    let decode_on_all = Grid { generations: vec![32], ..base.clone() };
    let prefill = Grid { prompts: vec![512], ..base.clone() };
    let deep = Grid { generations: vec![16], depths: vec![0, 2048, 8192], ..base.clone() };
    let batches = Grid { generations: vec![32], sequences: vec![1, 4, 8, 16, 32], ..base };
    use Area::{Batched, Decode, Depth, Prefill};
    let table: [Entry<'_>; 7] = [
        ("TinyLlama-1.1B", Mix::Q4_K_M, &[(Decode, &decode), (Prefill, &prefill), (Depth, &deep), (Batched, &batches)]),
        ("TinyLlama-1.1B", Mix::Q4_0, &[(Decode, &decode), (Prefill, &prefill)]),
        ("TinyLlama-1.1B", Mix::Q8_0, &[(Decode, &decode), (Prefill, &prefill)]),
        ("TinyLlama-1.1B", Mix::Q5_K_M, &[(Decode, &decode)]),
        ("TinyLlama-1.1B", Mix::F16, &[(Decode, &decode_on_all)]),
        ("Llama-3.2-1B", Mix::Q4_K_M, &[(Decode, &decode_on_all)]),
        ("Qwen2.5-0.5B", Mix::Q8_0, &[(Decode, &decode_on_all), (Prefill, &prefill)]),
    ];
    rows(&table, level)
}

/// Returns the measurements that are repeated on an instruction set below the machine's best.
///
/// # Errors
/// None; the shapes are known ones.
pub fn lower_targets(threads: usize, level: Level) -> Result<Vec<Target>, Error> {
    let base = Grid { prompts: vec![], generations: vec![], threads: vec![threads], ..Grid::default() };
    let decode = Grid { generations: vec![32], ..base.clone() };
    let prefill = Grid { prompts: vec![512], ..base };
    let both: &[Part<'_>] = &[(Area::Decode, &decode), (Area::Prefill, &prefill)];
    rows(&[("TinyLlama-1.1B", Mix::Q4_K_M, both), ("TinyLlama-1.1B", Mix::Q8_0, both)], level)
}

/// Returns what is asked of loading.
///
/// # Errors
/// None; the shapes are known ones.
pub fn start_targets() -> Result<Vec<StartTarget>, Error> {
    let target = |(shape, milliseconds)| {
        let model = Synthetic { shape: Shape::named(shape)?, mix: Mix::Q4_K_M };
        let first_token = Duration::from_millis(milliseconds);
        Ok(StartTarget { model, ready: Duration::from_millis(50), first_token, beside_file: 150 << 20 })
    };
    [("TinyLlama-1.1B", 100), ("Llama-2-7B", 300)].into_iter().map(target).collect()
}

/// A shape, its quantisation, and what is measured of it.
type Entry<'a> = (&'a str, Mix, &'a [Part<'a>]);
type Part<'a> = (Area, &'a Grid);

fn rows(table: &[Entry<'_>], level: Level) -> Result<Vec<Target>, Error> {
    let mut targets = Vec::new();
    for &(shape, mix, parts) in table {
        let model = Synthetic { shape: Shape::named(shape)?, mix };
        for &(area, grid) in parts {
            let target = |case: Case| {
                let goal = goal(&model, area, &case, level);
                Target { model: model.clone(), area, case, level, goal }
            };
            targets.extend(grid.cases().into_iter().map(target));
        }
    }
    Ok(targets)
}

fn goal(model: &Synthetic, area: Area, case: &Case, level: Level) -> Goal {
    let none = Goal::default();
    match area {
        Area::Decode => decode_goal(model.shape.name, model.mix, level),
        Area::Prefill => prefill_goal(model.shape.name, model.mix, level),
        Area::Depth => match case.depth {
            2048 => Goal { ratio: Some(2.0), ..none },
            8192 => Goal { ratio: Some(3.0), of_first: Some(0.7), ..none },
            _ => none,
        },
        Area::Batched => match case.sequences {
            16 => Goal { ratio: Some(4.0), of_first: Some(13.0), ..none },
            32 => Goal { ratio: Some(4.0), ..none },
            _ => none,
        },
        Area::Start => none,
    }
}

fn decode_goal(shape: &str, mix: Mix, level: Level) -> Goal {
    let reading = |ratio, read| Goal { ratio: Some(ratio), read: Some(read), ..Goal::default() };
    match (shape, mix, level) {
        ("TinyLlama-1.1B", Mix::Q4_K_M, Level::Avx2) => reading(2.2, 0.85),
        ("TinyLlama-1.1B", Mix::Q8_0, Level::Avx2) => reading(2.0, 0.85),
        ("TinyLlama-1.1B", Mix::Q4_K_M, Level::Avx512) => reading(2.0, 0.85),
        ("TinyLlama-1.1B", Mix::Q8_0, Level::Avx512) => reading(1.8, 0.85),
        ("TinyLlama-1.1B", Mix::Q4_K_M, _) => reading(1.7, 0.9),
        ("TinyLlama-1.1B", Mix::Q8_0, _) => reading(1.1, 0.9),
        ("TinyLlama-1.1B", Mix::Q4_0 | Mix::F16, _) => reading(1.15, 0.9),
        ("TinyLlama-1.1B", Mix::Q5_K_M, _) => reading(2.0, 0.85),
        ("Llama-3.2-1B", ..) => Goal { ratio: Some(1.6), ..Goal::default() },
        ("Qwen2.5-0.5B", ..) => Goal { ratio: Some(1.15), ..Goal::default() },
        _ => Goal::default(),
    }
}

fn prefill_goal(shape: &str, mix: Mix, level: Level) -> Goal {
    let times = |ratio| Goal { ratio: Some(ratio), ..Goal::default() };
    match (shape, mix, level) {
        ("TinyLlama-1.1B", _, Level::Amx) => Goal { peak: Some(0.6), ..times(6.0) },
        ("TinyLlama-1.1B", _, Level::Avx512) => times(3.0),
        ("TinyLlama-1.1B", Mix::Q4_K_M, Level::Avx2) => times(1.8),
        ("TinyLlama-1.1B", Mix::Q8_0, Level::Avx2) => times(3.0),
        ("Qwen2.5-0.5B", _, Level::Amx) => times(4.0),
        _ => Goal::default(),
    }
}

fn median(times: &[Duration]) -> f64 {
    Statistics::of(&times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()).median
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::tests::row;
    use crate::{Rival, speed::Row};

    #[test]
    fn every_row_of_the_table_is_there_with_what_it_must_reach() {
        let targets = targets(2, Level::Amx).expect("known shapes");
        let text = |target: &Target| {
            let Target { model, case, goal, .. } = target;
            format!("{model} {case} t{}: {goal}", case.threads)
        };
        let rows: Vec<String> = targets.iter().map(text).collect();
        assert_eq!(rows.len(), 23, "{rows:#?}");
        for row in [
            "TinyLlama-1.1B:Q4_K_M tg32 t1: 1.70x, 90 % of read",
            "TinyLlama-1.1B:Q4_K_M tg16 @ d8192 t2: 3.00x, 0.70 of first row",
            "TinyLlama-1.1B:Q4_K_M tg32 x16 t2: 4.00x, 13.00 of first row",
            "TinyLlama-1.1B:Q4_K_M tg32 x8 t2: -",
            "TinyLlama-1.1B:F16 tg32 t2: 1.15x, 90 % of read",
            "Qwen2.5-0.5B:Q8_0 pp512 t2: 4.00x",
            "TinyLlama-1.1B:Q4_0 pp512 t2: 6.00x, 60 % of peak",
        ] {
            assert!(rows.iter().any(|known| known == row), "{row}: {rows:#?}");
        }
        let lower: Vec<String> =
            lower_targets(2, Level::Avx2).expect("known").iter().map(|target| target.goal.to_string()).collect();
        assert_eq!(lower, ["2.20x, 85 % of read", "1.80x", "2.00x, 85 % of read", "3.00x"]);
        assert!(super::targets(1, Level::Scalar).expect("known").iter().all(|target| target.case.threads == 1));
        assert_eq!(start_targets().expect("known").len(), 2);
    }

    #[test]
    fn a_goal_is_reached_when_all_of_it_is() {
        // 45 tokens a second, all of the read bandwidth, 5 % of the peak.
        let alone = row();
        let rival = Rival { engine: String::new(), samples: vec![Duration::from_millis(1600); 2] };
        // 2.25 times as fast.
        let compared = Row { rival: Some(rival), ..row() };
        let none = Goal::default();
        let twice = Goal { ratio: Some(2.0), ..none };
        let all = Goal { read: Some(0.9), peak: Some(0.05), of_first: Some(0.5), ..twice };
        assert_eq!(none.reached(&compared, Some(1.0)), None);
        assert_eq!((twice.reached(&compared, None), twice.reached(&alone, None)), (Some(true), None));
        assert_eq!(all.reached(&compared, Some(90.0)), Some(true));
        assert_eq!(all.reached(&compared, Some(91.0)), Some(false), "slower than half of the first row");
        assert_eq!(all.reached(&compared, None), None, "there is no first row");
        assert_eq!(Goal { peak: Some(0.06), ..all }.reached(&alone, None), Some(false), "one part is enough");
    }

    #[test]
    fn a_start_is_judged_by_time_and_memory_beside_the_file() {
        let target = &start_targets().expect("known")[0];
        let start = |millis, peak_bytes| Startup { samples: vec![Duration::from_millis(millis)], peak_bytes };
        let ready = [Duration::from_millis(20)];
        assert_eq!(target.reached(&ready, &start(90, 151 << 20), 1 << 20), [Some(true); 3]);
        let slow = target.reached(&[Duration::from_millis(51)], &start(101, 152 << 20), 1 << 20);
        assert_eq!(slow, [Some(false); 3]);
        assert_eq!(target.reached(&ready, &start(90, 0), 0)[2], None);
    }
}
