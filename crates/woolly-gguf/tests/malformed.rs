//! Damaged and hostile files from the data folder: each gets what its manifest says, quickly and in little memory.
//!
//! In a binary of their own, and one after the other, since they count every allocation of the process.

mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use woolly_gguf::{Error, GGUFLoader, SharedBytes};

const MAX_EXTRA_BYTES: usize = 16 << 20;
/// The promise is 100 ms; a loaded machine and an unoptimised build get ten times as long.
const MAX_TIME: Duration = Duration::from_secs(1);

/// The system's allocator with a count of the bytes in use and their peak.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `open` and returns its result, the time it took and how much memory it had at most.
fn measured<T>(open: impl FnOnce() -> T) -> (T, Duration, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = open();
    (result, start.elapsed(), PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

#[test]
fn each_file_gets_what_the_manifest_says() {
    let Some(folder) = woolly_testdata::folder("each_file_gets_what_the_manifest_says", "gguf/malformed") else {
        return;
    };
    let _alone = ONE_AT_A_TIME.lock();
    let manifest = std::fs::read(folder.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let cases = manifest.as_array().expect("a list");
    assert!(!cases.is_empty());
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    for case in cases {
        let name = case["file"].as_str().expect("a file name");
        let expected = case["expect"].as_str().expect("an expectation");
        let (outcome, time, memory) = check(&folder.join(name), name, expected);
        println!("{name}: {outcome}");
        slowest = slowest.max(time);
        largest = largest.max(memory);
    }
    println!("{} files: at most {slowest:?} and {largest} bytes of memory for one", cases.len());
}

#[test]
fn a_large_vocabulary_cut_short_takes_little_memory() {
    let Some(folder) = woolly_testdata::folder("a_large_vocabulary_cut_short_takes_little_memory", "vocab") else {
        return;
    };
    let _alone = ONE_AT_A_TIME.lock();
    for path in woolly_testdata::files_ending_in(&folder, ".gguf") {
        let whole = SharedBytes::from_vec(std::fs::read(&path).expect("readable"));
        for eighths in 1..8 {
            let part = whole.slice(0..whole.len() / 8 * eighths).expect("a part of it");
            let (result, time, memory) = measured(|| GGUFLoader::from_bytes(part));
            assert!(result.is_err(), "{eighths}/8 of {}", path.display());
            assert!(time < MAX_TIME && memory < MAX_EXTRA_BYTES, "{}: {time:?}, {memory} bytes", path.display());
        }
    }
}

fn check(path: &Path, name: &str, expected: &str) -> (String, Duration, usize) {
    let (mapped, time, memory) = measured(|| GGUFLoader::open(path));
    assert!(time < MAX_TIME, "{name} took {time:?}");
    assert!(memory < MAX_EXTRA_BYTES, "{name} took {memory} bytes of memory");
    match (&mapped, expected) {
        (Err(error), "ok") => panic!("{name} must load: {error}"),
        (Ok(_), "error") => assert!(!decided_by_container(name), "{name} must be refused"),
        (_, "ok" | "error" | "no_crash") => {}
        (_, other) => panic!("{name}: unknown expectation {other:?}"),
    }
    if let Ok(loader) = &mapped {
        fixture::touch_everything(loader);
    }
    let outcome = message(mapped.err(), path);
    let read = GGUFLoader::builder().use_mmap(false).build(path);
    assert_eq!(message(read.err(), path), outcome, "{name}: reading and mapping must agree");
    check_in_memory(path, name, outcome.is_none());
    (outcome.unwrap_or_else(|| "loads".to_owned()), time, memory)
}

/// What hyper-parameters, vocabularies and templates mean is judged in higher crates.
fn decided_by_container(name: &str) -> bool {
    ["header-", "kv-", "tensor-"].iter().any(|group| name.starts_with(group))
}

/// An error names the file and says more than the file's name.
fn message(error: Option<Error>, path: &Path) -> Option<String> {
    let message = error?.to_string();
    let cause = message.strip_prefix(&format!("{}: ", path.display())).expect("the error names the file");
    assert!(cause.len() > 20, "{message}");
    Some(cause.to_owned())
}

fn check_in_memory(path: &Path, name: &str, loads: bool) {
    let bytes = SharedBytes::from_vec(std::fs::read(path).expect("readable"));
    let result = GGUFLoader::from_bytes(bytes);
    assert_eq!(result.is_ok(), loads, "{name}: a file in memory must be judged as on disk");
}
