//! What the processor consists of, how many threads are worth starting here, and where they may run.
//!
//! Reads what Linux says about affinity, cores, caches, memory nodes and cgroup quotas, and what macOS says about cores and
//! caches; elsewhere it trusts the standard library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the number of threads that decode fastest by default: physical cores inside the affinity mask, but no more
/// than the cgroup's (v1 or v2) processor quota allows; at least 1.
///
/// Hyper-threads of one core are counted once, where the system says which they are. Many virtual machines do not: they
/// present each hyper-thread as a core of its own, and then all of them are counted.
pub fn default_threads() -> usize {
    CpuInfo::new().map_or(1, |info| info.physical_cores())
}

/// As [`default_threads`], on the processors of one memory node: that of the first processor allowed. All processors
/// where the system names no nodes.
pub fn node_threads() -> usize {
    let Ok(info) = CpuInfo::new() else { return 1 };
    let node = first_node(info.numa_nodes());
    if node.is_empty() {
        return info.physical_cores();
    }
    distinct_cores(Path::new(PROCESSORS), &node).min(info.physical_cores())
}

/// Returns the allowed processors of the memory node that the first of them belongs to; empty where there are no nodes.
pub(crate) fn first_node(nodes: &[NumaNode]) -> Vec<usize> {
    nodes.iter().map(|node| &node.processors).filter(|list| !list.is_empty()).min().cloned().unwrap_or_default()
}

const PROCESSORS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// The system does not even say how many processors there are.
#[derive(Debug, thiserror::Error)]
#[error("the system does not say how many processors it has: {0}")]
pub struct CpuInfoError(#[from] std::io::Error);

/// The part of the processor that this process may use.
///
/// ```
/// let info = woolly_cpu::CpuInfo::new().unwrap();
/// assert!(info.physical_cores() >= 1 && info.physical_cores() <= info.logical_processors());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CpuInfo {
    physical: usize,
    logical: usize,
    /// Bytes of the data or unified caches of levels 1 to 3; 0 where unknown.
    caches: [u64; 3],
    nodes: Vec<NumaNode>,
}

/// Processors that reach the same memory equally fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// The system's number for it.
    pub id: usize,
    /// Its processors that this process may run on, ascending.
    pub processors: Vec<usize>,
}

impl CpuInfo {
    /// Asks the system.
    ///
    /// # Errors
    /// When not even the number of processors can be found out.
    pub fn new() -> Result<Self, CpuInfoError> {
        let allowed = allowed_processors();
        let threads = std::thread::available_parallelism();
        let logical = if allowed.is_empty() { threads?.get() } else { allowed.len() };
        let cores = if allowed.is_empty() {
            named_number("hw.physicalcpu").map_or(logical, |cores| cores as usize)
        } else {
            distinct_cores(Path::new(PROCESSORS), &allowed)
        };
        let quota = cgroup_quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
        let physical = quota.map_or(cores, |quota| cores.min(quota)).clamp(1, logical.max(1));
        let caches = match allowed.first() {
            Some(first) => caches(&Path::new(PROCESSORS).join(format!("cpu{first}/cache"))),
            None => ["hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize"].map(|name| named_number(name).unwrap_or(0)),
        };
        Ok(Self { physical, logical, caches, nodes: nodes(Path::new(NODES), &allowed) })
    }

    /// Returns the cores that this process may use: those inside its affinity mask, hyper-threads counted once where the
    /// system tells them apart, and no more than its cgroup's quota pays for.
    pub fn physical_cores(&self) -> usize {
        self.physical
    }

    /// Returns the processors in the affinity mask, each hyper-thread counted.
    pub fn logical_processors(&self) -> usize {
        self.logical
    }

    /// Returns the MiB of one core's first data cache; 0 where the system does not say.
    pub fn l1_cache_mb(&self) -> f64 {
        self.caches[0] as f64 / f64::from(1 << 20)
    }

    /// Returns the MiB of the second cache that one core sees; 0 where the system does not say.
    pub fn l2_cache_mb(&self) -> f64 {
        self.caches[1] as f64 / f64::from(1 << 20)
    }

    /// Returns the MiB of the third cache that one core sees, shared with others; 0 where there is none or the system does
    /// not say.
    pub fn l3_cache_mb(&self) -> f64 {
        self.caches[2] as f64 / f64::from(1 << 20)
    }

    /// Returns the memory nodes; none where the system does not say.
    pub fn numa_nodes(&self) -> &[NumaNode] {
        &self.nodes
    }
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

/// Lets the calling thread run on these processors only; a refusal is ignored, since binding only ever helps speed.
#[cfg(target_os = "linux")]
pub(crate) fn bind_current_thread(processors: &[usize]) {
    // SAFETY: an all-zero set is the empty set; `CPU_SET` ignores an index beyond it; the set outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.iter().for_each(|&processor| libc::CPU_SET(processor, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Does nothing: only Linux lets a thread choose its processors.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind_current_thread(_processors: &[usize]) {}

/// Whether threads can be bound to processors on this system.
pub const CAN_BIND: bool = cfg!(target_os = "linux");

/// Returns a number that macOS has under a name.
#[cfg(target_os = "macos")]
fn named_number(name: &str) -> Option<u64> {
    let name = std::ffi::CString::new(name).ok()?;
    let (mut value, mut size) = (0_u64, size_of::<u64>());
    // SAFETY: the name ends with a zero byte, and `value` has the `size` bytes announced; the call writes no more.
    let status =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut value).cast(), &raw mut size, std::ptr::null_mut(), 0) };
    // Numbers of 4 bytes fill the lower half, the machine being little-endian.
    (status == 0 && value > 0).then_some(value)
}

/// Returns nothing: only macOS has numbers under names.
#[cfg(not(target_os = "macos"))]
fn named_number(_name: &str) -> Option<u64> {
    None
}

/// Reads the sizes of the data and unified caches of levels 1 to 3.
fn caches(dir: &Path) -> [u64; 3] {
    let mut sizes = [0; 3];
    for index in 0..8 {
        let read = |file: &str| fs::read_to_string(dir.join(format!("index{index}/{file}"))).unwrap_or_default();
        let level = read("level").trim().parse::<usize>().unwrap_or(0);
        if read("type").trim() != "Instruction"
            && let Some(size) = level.checked_sub(1).and_then(|level| sizes.get_mut(level))
        {
            *size = cache_size(read("size").trim()).unwrap_or(0);
        }
    }
    sizes
}

/// Reads `48K`, `2M` or a plain number of bytes.
fn cache_size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn nodes(dir: &Path, allowed: &[usize]) -> Vec<NumaNode> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut nodes: Vec<NumaNode> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let list = fs::read_to_string(entry.path().join("cpulist")).ok()?;
            let processors = processor_list(list.trim()).filter(|processor| allowed.contains(processor)).collect();
            Some(NumaNode { id, processors })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// Reads `0-3,8,10-11`; what is no number is left out.
fn processor_list(text: &str) -> impl Iterator<Item = usize> {
    text.split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            // No machine has more; a damaged file must not keep us busy.
            (Ok(first), Ok(last)) if last < 1 << 20 => first..last + 1,
            _ => 0..0,
        }
    })
}

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
    fn caches_are_those_of_data() {
        let root = tree(
            "caches",
            &[
                ("index0/level", "1\n"),
                ("index0/type", "Data\n"),
                ("index0/size", "48K\n"),
                ("index1/level", "1\n"),
                ("index1/type", "Instruction\n"),
                ("index1/size", "64K\n"),
                ("index2/level", "2\n"),
                ("index2/type", "Unified\n"),
                ("index2/size", "2M\n"),
                ("index3/level", "9\n"),
                ("index3/size", "nonsense\n"),
            ],
        );
        assert_eq!(caches(&root), [48 << 10, 2 << 20, 0]);
        assert_eq!(caches(&root.join("nowhere")), [0; 3]);
        assert_eq!(["", "K", "7", "99999999999999999999K"].map(cache_size), [None, None, Some(7), None]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn nodes_hold_the_allowed_processors_in_order() {
        let root = tree(
            "nodes",
            &[
                ("node1/cpulist", "4-7,12\n"),
                ("node0/cpulist", "0-3,8-11\n"),
                ("node2/cpulist", "\n"),
                ("has_cpu", "0\n"),
            ],
        );
        let found = nodes(&root, &[2, 3, 5, 12]);
        let expected = [(0, vec![2, 3]), (1, vec![5, 12]), (2, vec![])];
        assert_eq!(found, expected.map(|(id, processors)| NumaNode { id, processors }));
        assert_eq!(first_node(&found), [2, 3]);
        assert_eq!(first_node(&nodes(&root, &[5])), [5], "a node without allowed processors is none of ours");
        assert!(first_node(&nodes(&root.join("nowhere"), &[5])).is_empty());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_bound_thread_runs_where_it_was_bound() {
        let allowed = allowed_processors();
        for part in [&allowed[..allowed.len().min(1)], &allowed[..]] {
            let part = part.to_vec();
            let bound = std::thread::spawn(move || {
                bind_current_thread(&part);
                (allowed_processors(), part)
            });
            let (found, expected) = bound.join().unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn there_is_always_a_thread() {
        let info = CpuInfo::new().unwrap();
        assert!((1..=info.logical_processors()).contains(&info.physical_cores()), "{info:?}");
        assert!((1..=info.physical_cores()).contains(&node_threads()));
        assert!(default_threads() >= 1);
        assert!(default_threads() <= std::thread::available_parallelism().unwrap().get());
    }
}
