//! What was measured on: processor, caches, instruction set, and the ceilings of it.

use std::fs;
use std::path::Path;

use woolly_cpu::ceiling::{Bandwidth, ReadProbe, Unit};
use woolly_cpu::isa::{self, Level};
use woolly_cpu::pool::ThreadPool;

use crate::Error;

/// Memory that is read for the bandwidth: more than twice the largest caches of today.
const READ_BYTES: u64 = 1 << 30;

/// The machine of a run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// The processor's own name; `unknown` where the system does not say.
    pub cpu: String,
    /// The instruction set that kernels use: the processor's best, or what `WOOLLY_ISA` says.
    pub level: Level,
    /// Bytes of each cache of one processor, from the first level on; empty where the system does not say.
    pub caches: Vec<u64>,
}

impl Machine {
    /// Asks the system.
    ///
    /// # Errors
    /// When `WOOLLY_ISA` names an instruction set that is not there.
    pub fn detect() -> Result<Self, Error> {
        let level = isa::detect().map_err(woolly_cpu::CpuError::from)?;
        let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        Ok(Self { cpu: cpu_name(), level, caches })
    }

    /// Returns this machine as if it had no instruction set beyond `level`.
    #[must_use]
    pub fn at(&self, level: Level) -> Self {
        Self { level: self.level.min(level), ..self.clone() }
    }

    /// Returns a line for people: `Intel(R) Xeon(R) Processor, avx512, caches 48 KiB / 2 MiB / 480 MiB`.
    pub fn describe(&self) -> String {
        let caches: Vec<String> = self.caches.iter().map(|&bytes| size(bytes)).collect();
        let caches = if caches.is_empty() { "unknown".to_owned() } else { caches.join(" / ") };
        format!("{}, {}, caches {caches}", self.cpu, self.level.name())
    }
}

/// What a number of threads reaches at most, measured now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ceiling {
    /// Number of threads.
    pub threads: usize,
    /// Plain reading; `None` when there was no memory to read.
    pub read: Option<Bandwidth>,
    /// Operations a second of every unit that the level allows, a multiplication and an addition counting as two.
    pub units: Vec<(Unit, f64)>,
}

impl Ceiling {
    /// Measures each number of threads; takes about three seconds each.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn measure(machine: &Machine, threads: &[usize]) -> Result<Vec<Self>, Error> {
        let room = woolly::available_memory().is_none_or(|available| available / 2 > READ_BYTES);
        let probe = if room { ReadProbe::new(READ_BYTES as usize) } else { None };
        let one = |&threads: &usize| {
            let pool =
                ThreadPool::new(threads, false).map_err(|source| woolly_cpu::CpuError::Threads { threads, source })?;
            let read = probe.as_ref().map(|probe| probe.bandwidth(&pool));
            let usable = Unit::ALL.into_iter().filter(|unit| unit.level() <= machine.level);
            let units = usable.filter_map(|unit| Some((unit, unit.peak(&pool)?))).collect();
            Ok(Self { threads, read, units })
        };
        threads.iter().map(one).collect()
    }

    /// Returns what is left of it without the instruction sets beyond `level`.
    #[must_use]
    pub fn at(&self, level: Level) -> Self {
        let units = self.units.iter().filter(|(unit, _)| unit.level() <= level).copied().collect();
        Self { units, ..*self }
    }

    /// Returns the unit that prefill is held against, with its operations a second: bfloat16 tiles where there are any,
    /// otherwise the widest products of bytes.
    pub fn arithmetic(&self) -> Option<(Unit, f64)> {
        let preferred = [Unit::AmxBf16, Unit::Avx512Int8, Unit::AvxVnniInt8, Unit::Avx2Int8];
        preferred.iter().find_map(|unit| self.units.iter().find(|(known, _)| known == unit)).copied()
    }

    /// Returns a line for people.
    pub fn describe(&self) -> String {
        let read = self.read.map_or("not measured, memory is short".to_owned(), |Bandwidth { best, mean }| {
            format!("{:.1} GB/s ({:.1} on average)", best / 1e9, mean / 1e9)
        });
        let units = self.units.iter().map(|(unit, peak)| format!(", {} {:.2}", unit.name(), peak / 1e12));
        let unit = if self.units.is_empty() { "" } else { " TOP/s" };
        let plural = if self.threads == 1 { "" } else { "s" };
        format!("ceilings of {} thread{plural}: read {read}{}{unit}", self.threads, units.collect::<String>())
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu_name_in(&text).unwrap_or("unknown").to_owned()
}

fn cpu_name_in(text: &str) -> Option<&str> {
    let entries = || text.lines().filter_map(|line| line.split_once(':'));
    let find = |wanted: &str| entries().find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim());
    find("model name").or_else(|| find("Model")).filter(|name| !name.is_empty())
}

/// Sizes of the data and unified caches in a folder `index0`, `index1`, ... of sysfs, by level.
fn caches(folder: &Path) -> Vec<u64> {
    let read = |index: usize, file: &str| {
        fs::read_to_string(folder.join(format!("index{index}/{file}"))).ok().map(|text| text.trim().to_owned())
    };
    let cache = |index| {
        let kind = read(index, "type")?;
        let kib = read(index, "size")?.strip_suffix('K')?.parse::<u64>().ok()?;
        Some((kind != "Instruction").then_some((read(index, "level")?.parse::<u32>().ok()?, kib << 10)))
    };
    let mut found: Vec<(u32, u64)> = (0..16).map_while(cache).flatten().collect();
    found.sort_unstable();
    found.into_iter().map(|(_, bytes)| bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_whatever_stands_around_it() {
        let x86 = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A Name @ 2 GHz\nstepping: 1\n";
        assert_eq!(cpu_name_in(x86), Some("A Name @ 2 GHz"));
        assert_eq!(cpu_name_in("processor : 0\nModel\t\t: Board 5\n"), Some("Board 5"));
        assert_eq!(cpu_name_in("processor : 0\n"), None);
    }

    #[test]
    fn lines_for_people_say_what_is_unknown() {
        let machine = Machine { cpu: "X".to_owned(), level: Level::Scalar, caches: vec![48 << 10, 2 << 20] };
        assert_eq!(machine.describe(), "X, scalar, caches 48 KiB / 2 MiB");
        assert_eq!(Machine { caches: Vec::new(), ..machine }.describe(), "X, scalar, caches unknown");
        let ceiling = Ceiling {
            threads: 2,
            read: Some(Bandwidth { best: 30e9, mean: 28e9 }),
            units: vec![(Unit::Avx2F32, 0.25e12)],
        };
        assert_eq!(ceiling.describe(), "ceilings of 2 threads: read 30.0 GB/s (28.0 on average), avx2 f32 0.25 TOP/s");
        let bare = Ceiling { threads: 1, read: None, units: vec![] };
        assert_eq!(bare.describe(), "ceilings of 1 thread: read not measured, memory is short");
    }

    #[test]
    fn prefill_is_held_against_the_widest_unit_there_is() {
        let with =
            |units: &[Unit]| Ceiling { threads: 1, read: None, units: units.iter().map(|&u| (u, 1.0)).collect() };
        assert_eq!(with(&Unit::ALL).arithmetic(), Some((Unit::AmxBf16, 1.0)));
        assert_eq!(with(&Unit::ALL[..5]).arithmetic(), Some((Unit::Avx512Int8, 1.0)));
        assert_eq!(with(&Unit::ALL[..3]).arithmetic(), Some((Unit::AvxVnniInt8, 1.0)));
        assert_eq!(with(&Unit::ALL[..2]).arithmetic(), Some((Unit::Avx2Int8, 1.0)));
        assert_eq!(with(&[]).arithmetic(), None);
        assert_eq!(with(&Unit::ALL).at(Level::Avx2).arithmetic(), Some((Unit::Avx2Int8, 1.0)));
    }
}
