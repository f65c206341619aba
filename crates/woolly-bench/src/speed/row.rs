//! The result of one case, with everything that is needed to judge it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use woolly_cpu::ceiling::Unit;
use woolly_gguf::{GGUFLoader, TensorInfo};
use woolly_model::mix::Mix;

use super::{Case, Work};
use crate::{Ceiling, Machine, Rival, Statistics};

/// What is told of a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The file, or what stands for it.
    pub filename: String,
    /// Architecture, size class and quantisation: `llama 1.1B Q4_K_M`.
    pub kind: String,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Elements of all tensors.
    pub parameters: u64,
}

impl ModelInfo {
    /// Reads it from an opened file.
    pub fn of(loader: &GGUFLoader, filename: String) -> Self {
        let bytes = loader.tensors().iter().map(TensorInfo::byte_len).sum();
        let parameters: u64 = loader.tensors().iter().map(TensorInfo::elements).sum();
        let architecture = loader.metadata().str("general.architecture").ok().flatten().unwrap_or("unknown");
        let kind = format!("{architecture} {} {}", size_class(parameters), quantisation(loader));
        Self { filename, kind, bytes, parameters }
    }

    #[cfg(test)]
    pub(crate) fn synthetic_for_tests() -> Self {
        let (filename, kind) = ("synthetic:TinyLlama-1.1B:Q4_K_M".to_owned(), "llama 1.1B Q4_K_M".to_owned());
        Self { filename, kind, bytes: 667_080_704, parameters: 1_100_048_384 }
    }
}

/// `1.1B`, `6.7B`, `494M`.
fn size_class(parameters: u64) -> String {
    match parameters as f64 {
        count if count >= 1e10 => format!("{:.0}B", count / 1e9),
        count if count >= 1e9 => format!("{:.1}B", count / 1e9),
        count => format!("{:.0}M", count / 1e6),
    }
}

/// The mix that the file names, or the type of most of its bytes.
fn quantisation(loader: &GGUFLoader) -> String {
    let number = loader.metadata().u32("general.file_type").ok().flatten();
    let named = number.and_then(|number| Mix::ALL.iter().find(|mix| mix.file_type() == number));
    let largest = || loader.tensors().iter().max_by_key(|tensor| tensor.byte_len()).map(TensorInfo::ty);
    match named {
        Some(mix) => mix.to_string(),
        None => largest().map_or_else(String::new, |ty| ty.to_string()),
    }
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// What was measured.
    pub case: Case,
    /// On which model.
    pub model: ModelInfo,
    /// On which machine.
    pub machine: Machine,
    /// What the machine reaches at most, if that was measured.
    pub ceiling: Option<Ceiling>,
    /// The times of the repetitions.
    pub samples: Vec<Duration>,
    /// What each of them had to read and compute.
    pub work: Work,
    /// When it began.
    pub started: SystemTime,
    /// What another engine reached in the same minutes, if it was asked.
    pub rival: Option<Rival>,
}

impl Row {
    /// Returns the statistics of the times, in nanoseconds.
    pub fn nanoseconds(&self) -> Statistics {
        Statistics::of(&self.samples.iter().map(|sample| sample.as_nanos() as f64).collect::<Vec<_>>())
    }

    /// Returns tokens a second of each repetition.
    pub fn rates(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| self.case.tokens() as f64 / sample.as_secs_f64()).collect()
    }

    /// Returns the statistics of tokens a second.
    pub fn tokens_per_second(&self) -> Statistics {
        Statistics::of(&self.rates())
    }

    /// Returns bytes a second that must have been read in the median repetition.
    pub fn bandwidth(&self) -> f64 {
        self.work.bytes / self.nanoseconds().median * 1e9
    }

    /// Returns operations a second of the median repetition.
    pub fn operations(&self) -> f64 {
        self.work.operations / self.nanoseconds().median * 1e9
    }

    /// Returns the share of the machine's read bandwidth at its best, from 0 to 1.
    pub fn bandwidth_share(&self) -> Option<f64> {
        Some(self.bandwidth() / self.ceiling.as_ref()?.read?.best)
    }

    /// Returns the share of what plain reading reached on average, which other work on the machine slows down, too.
    pub fn bandwidth_share_of_mean(&self) -> Option<f64> {
        Some(self.bandwidth() / self.ceiling.as_ref()?.read?.mean)
    }

    /// Returns the share of the machine's arithmetic peak, from 0 to 1, and the unit that has it.
    pub fn operations_share(&self) -> Option<(Unit, f64)> {
        let (unit, peak) = self.ceiling.as_ref()?.arithmetic()?;
        Some((unit, self.operations() / peak))
    }

    /// Returns the other engine's tokens a second, and how many times faster this one was, repetition by repetition.
    pub fn comparison(&self) -> Option<(Statistics, Statistics)> {
        let rival = self.rival.as_ref()?;
        let rates: Vec<f64> =
            rival.samples.iter().map(|sample| self.case.tokens() as f64 / sample.as_secs_f64()).collect();
        let ratios: Vec<f64> = self.rates().iter().zip(&rates).map(|(own, theirs)| own / theirs).collect();
        Some((Statistics::of(&rates), Statistics::of(&ratios)))
    }

    /// Returns when the row was begun, in UTC as ISO 8601: `2026-11-24T17:05:17Z`.
    pub fn time(&self) -> String {
        let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of a number of days after the beginning of 1970, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        // Days as GNU date gives them: `date -ud DATE +%s` divided by 86400.
        for (days, date) in
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (11_017, (2000, 3, 1)), (20_781, (2026, 11, 24))]
        {
            assert_eq!(civil(days), date);
        }
        assert_eq!(civil(20_818), (2026, 12, 31));
        assert_eq!(civil(20_819), (2027, 1, 1));
    }

    #[test]
    fn size_classes_have_two_digits_or_three() {
        for (parameters, name) in [(1_100_048_384, "1.1B"), (46_702_792_704, "47B"), (494_032_768, "494M")] {
            assert_eq!(size_class(parameters), name);
        }
    }
}
