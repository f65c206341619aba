//! What this process computes: the figures people watch.
//!
//! The one place of the library with state of its own for the whole process, as what it measures belongs to the process:
//! memory and processor time. Engines add their counters when they start, other sessions what each answer took.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use woolly_engine::{Stats, StatsReader, Timings};

use super::InferenceEngine;

/// Answers of single sessions, and engines that ended.
static DONE: Totals = Totals::new();
/// Engines that run.
static ENGINES: Mutex<Vec<StatsReader>> = Mutex::new(Vec::new());

/// Watches what this process, or one engine, computes from [`start`](Self::start) on.
///
/// ```
/// let monitor = woolly::PerformanceMonitor::new();
/// monitor.start();
/// // … inference …
/// let metrics = monitor.snapshot();
/// println!("{:.1} tokens/s, {:.1} MB", metrics.tokens_per_second, metrics.memory_allocated_mb);
/// ```
#[derive(Debug)]
pub struct PerformanceMonitor {
    engine: Option<StatsReader>,
    begin: Mutex<Begin>,
}

#[derive(Clone, Copy, Debug)]
struct Begin {
    at: Instant,
    work: Work,
    cpu: Duration,
}

/// What was computed and how the machine was used since a monitor was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PerformanceMetrics {
    /// Time spent computing; steps that serve many requests count once.
    pub inference_time: Duration,
    /// Tokens generated per second of [`inference_time`](Self::inference_time).
    pub tokens_per_second: f64,
    /// Memory of this process that is resident now, mapped weights included, in MB of 10⁶ bytes; 0 where the system
    /// does not say.
    pub memory_allocated_mb: f64,
    /// Processor time per wall time of this process: 100 is one processor kept busy. 0 where the system does not say.
    pub cpu_usage_percent: f64,
    /// Share of prompt tokens that a cache had, 0 to 1.
    pub cache_hit_rate: f64,
}

impl Default for PerformanceMonitor {
    fn default() -> Self {
        Self::new()
    }
}

impl PerformanceMonitor {
    /// Makes a monitor of everything this process computes; it counts from now on, or from [`start`](Self::start).
    pub fn new() -> Self {
        let monitor = Self { engine: None, begin: Mutex::new(Begin::at(Work::default())) };
        monitor.start();
        monitor
    }

    /// Makes a monitor of one engine's work; memory and processor time stay those of the process.
    ///
    /// Before the engine's first session there is nothing to watch, and everything is counted instead.
    pub fn of(engine: &InferenceEngine) -> Self {
        let monitor = Self { engine: engine.stats_reader(), ..Self::new() };
        monitor.start();
        monitor
    }

    /// Counts from now on.
    pub fn start(&self) {
        *self.begin.lock().unwrap_or_else(PoisonError::into_inner) = Begin::at(self.work());
    }

    /// Returns the figures since the start; steps count when they are complete.
    pub fn snapshot(&self) -> PerformanceMetrics {
        let begin = *self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        let work = self.work().since(begin.work);
        let wall = begin.at.elapsed().as_secs_f64();
        let inference_time = Duration::from_nanos(work.busy_ns);
        PerformanceMetrics {
            inference_time,
            tokens_per_second: ratio(work.generated as f64, inference_time.as_secs_f64()),
            memory_allocated_mb: resident_bytes() as f64 / 1e6,
            cpu_usage_percent: 100.0 * ratio(cpu_time().saturating_sub(begin.cpu).as_secs_f64(), wall),
            cache_hit_rate: ratio(work.cached as f64, work.prompt as f64),
        }
    }

    fn work(&self) -> Work {
        match &self.engine {
            Some(engine) => Work::of(&engine.read()),
            None => Work::of_process(),
        }
    }
}

/// Adds an engine that starts.
pub(super) fn register(engine: StatsReader) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.retain(|engine| {
        if engine.has_ended() {
            DONE.add(Work::of(&engine.read()));
        }
        !engine.has_ended()
    });
    engines.push(engine);
}

/// Adds an answer that was computed without an engine.
pub(crate) fn record(timings: &Timings) {
    let time = timings.prompt_time + timings.decode_time;
    DONE.add(Work {
        busy_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        generated: timings.generated_tokens as u64,
        prompt: timings.prompt_tokens as u64,
        cached: timings.cached_tokens as u64,
    });
}

/// What was computed.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    busy_ns: u64,
    generated: u64,
    prompt: u64,
    cached: u64,
}

impl Work {
    fn of(stats: &Stats) -> Self {
        let Stats { busy_ns, generated_tokens: generated, prompt_tokens: prompt, cached_tokens: cached, .. } = *stats;
        Self { busy_ns, generated, prompt, cached }
    }

    fn of_process() -> Self {
        // Under the lock, so that an engine that ends is counted neither twice nor not at all.
        let engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.iter().map(|engine| Self::of(&engine.read())).fold(DONE.read(), Self::plus)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            busy_ns: self.busy_ns + other.busy_ns,
            generated: self.generated + other.generated,
            prompt: self.prompt + other.prompt,
            cached: self.cached + other.cached,
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            generated: self.generated.saturating_sub(earlier.generated),
            prompt: self.prompt.saturating_sub(earlier.prompt),
            cached: self.cached.saturating_sub(earlier.cached),
        }
    }
}

struct Totals {
    busy_ns: AtomicU64,
    generated: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
}

impl Totals {
    const fn new() -> Self {
        Self {
            busy_ns: AtomicU64::new(0),
            generated: AtomicU64::new(0),
            prompt: AtomicU64::new(0),
            cached: AtomicU64::new(0),
        }
    }

    fn add(&self, work: Work) {
        self.busy_ns.fetch_add(work.busy_ns, Relaxed);
        self.generated.fetch_add(work.generated, Relaxed);
        self.prompt.fetch_add(work.prompt, Relaxed);
        self.cached.fetch_add(work.cached, Relaxed);
    }

    fn read(&self) -> Work {
        Work {
            busy_ns: self.busy_ns.load(Relaxed),
            generated: self.generated.load(Relaxed),
            prompt: self.prompt.load(Relaxed),
            cached: self.cached.load(Relaxed),
        }
    }
}

impl Begin {
    fn at(work: Work) -> Self {
        Self { at: Instant::now(), work, cpu: cpu_time() }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Returns the bytes of this process that are resident.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Returns the processor time of all threads of this process.
fn cpu_time() -> Duration {
    // Linux counts in hundredths of a second in all of its user interfaces, whatever the kernel's own clock.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold spaces and brackets; user and system time are fields 14 and 15 of the line.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}
