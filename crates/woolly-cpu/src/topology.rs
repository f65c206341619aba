//! How many threads are worth starting here, and where they may run.
//!
//! Reads what Linux says about affinity, cores and cgroup quotas; elsewhere it trusts the standard library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the number of threads that decode fastest by default: physical cores inside the affinity mask, but no more
/// than the cgroup's (v1 or v2) processor quota allows; at least 1.
///
/// Hyper-threads of one core are counted once, where the system says which they are. Many virtual machines do not: they
/// present each hyper-thread as a core of its own, and then all of them are counted.
pub fn default_threads() -> usize {
    let allowed = allowed_processors();
    let cores = if allowed.is_empty() {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        distinct_cores(Path::new("/sys/devices/system/cpu"), &allowed)
    };
    let quota = cgroup_quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    quota.map_or(cores, |quota| cores.min(quota)).max(1)
}

/// Returns the processors that the calling thread may run on, in order; empty where the system does not say.
#[cfg(target_os = "linux")]
pub fn allowed_processors() -> Vec<usize> {
    // SAFETY: an all-zero set is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set of the size given; 0 means the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if status != 0 {
        return Vec::new();
    }
    // SAFETY: the index stays below the set's size in bits.
    (0..8 * size_of::<libc::cpu_set_t>()).filter(|&i| unsafe { libc::CPU_ISSET(i, &set) }).collect()
}

/// Returns the processors that the calling thread may run on, in order; empty where the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn allowed_processors() -> Vec<usize> {
    Vec::new()
}

/// Binds the calling thread to one processor; a refusal is ignored, since pinning only ever helps speed.
#[cfg(target_os = "linux")]
pub(crate) fn pin_current_thread(processor: usize) {
    // SAFETY: an all-zero set is the empty set; `CPU_SET` ignores an index beyond it; the set outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Does nothing: only Linux lets a thread choose its processor.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_current_thread(_processor: usize) {}

fn distinct_cores(root: &Path, allowed: &[usize]) -> usize {
    let siblings = |cpu: &usize| {
        let file = root.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        fs::read_to_string(file).map_or_else(|_| cpu.to_string(), |list| list.trim().to_owned())
    };
    allowed.iter().map(siblings).collect::<BTreeSet<_>>().len()
}

/// Whole processors of the smallest quota on the way from this process's cgroup to the root; a fraction counts as one.
fn cgroup_quota(membership: &Path, mount: &Path) -> Option<usize> {
    let membership = fs::read_to_string(membership).ok()?;
    membership.lines().filter_map(|line| line_quota(line, mount)).min()
}

/// `line` is `number:controllers:path`; version 2 has no controllers.
fn line_quota(line: &str, mount: &Path) -> Option<usize> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let version2 = controllers.is_empty();
    if !version2 && !controllers.split(',').any(|name| name == "cpu") {
        return None;
    }
    let base = if version2 { mount.to_owned() } else { mount.join("cpu") };
    let read = if version2 { quota_v2 } else { quota_v1 };
    let own = base.join(path.trim_start_matches('/'));
    // Inside a container the path is the host's and may not exist here; the mount's root is then our own group.
    own.ancestors().take_while(|dir| dir.starts_with(&base)).filter_map(|dir| read(dir.to_path_buf())).min()
}

fn quota_v2(dir: PathBuf) -> Option<usize> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_processors(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(dir: PathBuf) -> Option<usize> {
    let read = |name| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<i64>().ok();
    whole_processors(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn whole_processors(quota: i64, period: i64) -> Option<usize> {
    if quota <= 0 || period <= 0 { None } else { usize::try_from((quota / period).max(1)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("woolly-topology-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn hyper_threads_of_a_core_count_once() {
        let root = tree(
            "cores",
            &[
                ("cpu0/topology/thread_siblings_list", "0,2\n"),
                ("cpu1/topology/thread_siblings_list", "1,3\n"),
                ("cpu2/topology/thread_siblings_list", "0,2\n"),
                ("cpu3/topology/thread_siblings_list", "1,3\n"),
            ],
        );
        assert_eq!(distinct_cores(&root, &[0, 1, 2, 3]), 2);
        assert_eq!(distinct_cores(&root, &[0, 2]), 1);
        assert_eq!(distinct_cores(&root, &[7, 8]), 2, "unknown processors count as cores");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_tightest_quota_on_the_path_counts() {
        type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<usize>);
        let cases: [Case; 8] = [
            ("v2 own group", "0::/a/b\n", &[("cg/a/b/cpu.max", "150000 100000\n")], Some(1)),
            (
                "v2 parent",
                "0::/a/b\n",
                &[("cg/a/b/cpu.max", "max 100000\n"), ("cg/a/cpu.max", "400000 100000\n")],
                Some(4),
            ),
            ("v2 less than one", "0::/\n", &[("cg/cpu.max", "5000 100000\n")], Some(1)),
            ("v2 none", "0::/\n", &[("cg/cpu.max", "max 100000\n")], None),
            ("container", "0::/host/path\n", &[("cg/cpu.max", "300000 100000\n")], Some(3)),
            (
                "v1",
                "4:cpu,cpuacct:/x\n2:memory:/x\n",
                &[("cg/cpu/x/cpu.cfs_quota_us", "200000\n"), ("cg/cpu/x/cpu.cfs_period_us", "100000\n")],
                Some(2),
            ),
            (
                "v1 unlimited",
                "4:cpu:/\n",
                &[("cg/cpu/cpu.cfs_quota_us", "-1\n"), ("cg/cpu/cpu.cfs_period_us", "100000\n")],
                None,
            ),
            ("nonsense", "hello\n", &[("cg/cpu.max", "x y\n")], None),
        ];
        for (name, membership, files, expected) in cases {
            let root = tree(&name.replace(' ', "-"), files);
            fs::write(root.join("self"), membership).unwrap();
            assert_eq!(cgroup_quota(&root.join("self"), &root.join("cg")), expected, "{name}");
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn there_is_always_a_thread() {
        assert!(default_threads() >= 1);
        assert!(default_threads() <= std::thread::available_parallelism().unwrap().get());
    }
}
