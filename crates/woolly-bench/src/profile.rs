//! Where the time goes: functions by their share of samples of the whole process, all threads.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pprof::{ProfilerGuard, ProfilerGuardBuilder};

/// Samples a second of processor time; not a round number, so that nothing periodic hides between samples.
const FREQUENCY: i32 = 499;

/// A sampling profiler of this process, of which one can run at a time.
#[derive(Default)]
pub struct Profiler {
    running: Mutex<Option<Result<ProfilerGuard<'static>, String>>>,
}

impl Profiler {
    /// Makes a profiler that does not run yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to take samples; what was taken before is forgotten. Should the system refuse,
    /// [`Profile::error`] of what [`stop`](Self::stop) returns says so.
    pub fn start(&self) {
        // Unwinding inside the C library may take locks that the interrupted code holds.
        let builder =
            ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&["libc", "libgcc", "pthread", "vdso"]);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that runs ends before the next begins.
        *running = None;
        *running = Some(builder.build().map_err(|error| error.to_string()));
    }

    /// Ends the samples and returns what was found; nothing when the profiler was not started.
    pub fn stop(&self) -> Profile {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let report = running.map_or_else(
            || Err("the profiler was not started".to_owned()),
            |guard| guard?.report().build().map_err(|error| error.to_string()),
        );
        match report {
            Ok(report) => Profile::of(&report),
            Err(error) => Profile { functions: Vec::new(), error: Some(error) },
        }
    }
}

/// Functions by their share of the samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    functions: Vec<(String, f64)>,
    error: Option<String>,
}

impl Profile {
    fn of(report: &pprof::Report) -> Self {
        let mut counts: HashMap<String, isize> = HashMap::new();
        for (frames, count) in &report.data {
            let innermost = frames.frames.iter().flatten().next();
            let name = innermost.map_or_else(|| "unknown".to_owned(), ToString::to_string);
            *counts.entry(name).or_default() += count;
        }
        let all: isize = counts.values().sum();
        let percent = |count: isize| 100.0 * count as f64 / all.max(1) as f64;
        let mut functions: Vec<_> = counts.into_iter().map(|(name, count)| (name, percent(count))).collect();
        functions.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self { functions, error: None }
    }

    /// Returns the functions with the most samples of their own, and their percentages of all samples.
    pub fn top_functions(&self, count: usize) -> Vec<(String, f64)> {
        self.functions.iter().take(count).cloned().collect()
    }

    /// Returns why there is no profile.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiler").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_started_says_so() {
        let profile = Profiler::new().stop();
        assert!(profile.error().is_some() && profile.top_functions(10).is_empty());
    }
}
