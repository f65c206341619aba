//! How much memory this process has in use.

use std::fs;

/// Returns the bytes of this process that are in memory now, mapped model files included; 0 where the system does not say.
pub fn get_memory_usage() -> u64 {
    status("VmRSS:").unwrap_or(0)
}

/// Returns the most bytes of this process that were in memory at once; 0 where the system does not say.
pub fn peak_memory_usage() -> u64 {
    status("VmHWM:").unwrap_or(0)
}

fn status(key: &str) -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, key)
}

/// The number of kibibytes after a key, in bytes.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let text = "VmPeak:\t  9 kB\nVmHWM:\t   1234 kB\nVmRSS:\t     8 kB\n";
        assert_eq!(
            (field(text, "VmRSS:"), field(text, "VmHWM:"), field(text, "Vm:")),
            (Some(8192), Some(1_263_616), None)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_written_counts() {
        let before = get_memory_usage();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(get_memory_usage() >= before + (60 << 20) && peak_memory_usage() >= get_memory_usage());
        drop(block);
    }
}
