//! How much memory this process may still allocate: the machine's, or less where a control group limits it.
//!
//! File pages count as available, as the kernel gives them up under pressure. On systems other than Linux nothing is
//! known and nothing is refused beforehand.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the bytes that can be allocated without swapping or being killed, where that can be found out.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// `root` holds `proc` and `sys`; tests put a tree of their own there.
fn available_under(root: &Path) -> Option<u64> {
    [machine(root), group_v2(root), group_v1(root)].into_iter().flatten().min()
}

fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    field(&text, "MemAvailable:").map(|kib| kib * 1024)
}

/// Control groups version 2: the tightest limit on the way from this process's group to the root.
fn group_v2(root: &Path) -> Option<u64> {
    let group = own_group(root, |controllers| controllers.is_empty())?;
    let mount = root.join("sys/fs/cgroup");
    ancestors(&mount, &group).filter_map(|dir| headroom(&dir, "memory.max", "memory.current", "")).min()
}

/// Control groups version 1, where the memory controller has a tree of its own.
fn group_v1(root: &Path) -> Option<u64> {
    let group = own_group(root, |controllers| controllers.split(',').any(|c| c == "memory"))?;
    let mount = root.join("sys/fs/cgroup/memory");
    ancestors(&mount, &group)
        .filter_map(|dir| headroom(&dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
        .min()
}

/// Returns the path after the second colon of the line of `proc/self/cgroup` whose controllers are accepted.
fn own_group(root: &Path, accept: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        accept(controllers).then(|| PathBuf::from(path.trim_start_matches('/')))
    })
}

/// The group's folder and those above it, up to the mount; inside a container only the mount may exist.
fn ancestors(mount: &Path, group: &Path) -> impl Iterator<Item = PathBuf> {
    group.ancestors().map(|part| mount.join(part)).collect::<Vec<_>>().into_iter()
}

/// Returns limit minus use of one group, file pages not counted as used; `None` without a limit.
fn headroom(dir: &Path, limit: &str, usage: &str, prefix: &str) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(usage)?);
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let pages = |kind: &str| field(&stat, &format!("{prefix}{kind}")).unwrap_or(0);
    let reclaimable = pages("inactive_file") + pages("active_file");
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

/// Returns the number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Paths and contents.
    type Files = Vec<(&'static str, &'static str)>;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary folder");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("inside the tree")).expect("folder");
            fs::write(path, text).expect("file");
        }
        dir
    }

    #[test]
    fn the_tightest_limit_counts() {
        let meminfo = ("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n");
        let v2 = ("proc/self/cgroup", "0::/user/app\n");
        let usage = ("sys/fs/cgroup/user/app/memory.current", "1073741824\n");
        let cases: [(&str, Files, Option<u64>); 7] = [
            ("nothing known", vec![], None),
            ("no groups: the machine", vec![meminfo], Some(8 * GIB)),
            ("no limit", vec![meminfo, v2, usage, ("sys/fs/cgroup/user/app/memory.max", "max\n")], Some(8 * GIB)),
            (
                "limit minus use",
                vec![meminfo, v2, usage, ("sys/fs/cgroup/user/app/memory.max", "4294967296\n")],
                Some(3 * GIB),
            ),
            (
                "page cache is not use",
                vec![
                    meminfo,
                    v2,
                    usage,
                    ("sys/fs/cgroup/user/app/memory.max", "4294967296\n"),
                    ("sys/fs/cgroup/user/app/memory.stat", "anon 1\ninactive_file 536870912\nactive_file 536870912\n"),
                ],
                Some(4 * GIB),
            ),
            (
                "a parent is tighter, and the group itself is not visible",
                vec![
                    meminfo,
                    v2,
                    ("sys/fs/cgroup/memory.max", "2147483648"),
                    ("sys/fs/cgroup/memory.current", "1073741824"),
                ],
                Some(GIB),
            ),
            (
                "version 1",
                vec![
                    meminfo,
                    ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/app\n0::/\n"),
                    ("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "3221225472"),
                    ("sys/fs/cgroup/memory/app/memory.usage_in_bytes", "2147483648"),
                    ("sys/fs/cgroup/memory/app/memory.stat", "total_inactive_file 1073741824\n"),
                ],
                Some(2 * GIB),
            ),
        ];
        for (reason, files, expected) in cases {
            assert_eq!(available_under(tree(&files).path()), expected, "{reason}");
        }
    }
}
