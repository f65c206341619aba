//! How long a program takes from its start to the first token of a model, and how much memory it takes at most.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::memory::field;

/// Pause between two looks at a running program.
const POLL: Duration = Duration::from_millis(1);

/// Times and memory of a program that loads a model, computes one token and ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Startup {
    /// Wall time of each run.
    pub samples: Vec<Duration>,
    /// Most bytes in memory at once, mapped files included, over all runs; 0 where the system does not say.
    pub peak_bytes: u64,
}

/// Runs `program` with flags that this command and llama-bench understand alike: one token of prompt, once, without
/// warm-up.
///
/// # Errors
/// [`Error::Program`] when it cannot be started or fails.
pub fn first_token(
    program: &Path,
    own_arguments: &[&str],
    model: &Path,
    threads: usize,
    repetitions: usize,
) -> Result<Startup, Error> {
    let mut startup = Startup { samples: Vec::new(), peak_bytes: 0 };
    let failed = |why: String| Error::Program { program: program.to_owned(), why };
    let shared = ["-p", "1", "-n", "0", "-r", "1", "--no-warmup", "-t"].map(OsString::from);
    for _ in 0..repetitions.max(1) {
        let mut command = Command::new(program);
        command.args(own_arguments).arg("-m").arg(model).args(&shared).arg(threads.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let peak = watch(&mut child).map_err(|error| failed(error.to_string()))?;
        startup.samples.push(start.elapsed());
        startup.peak_bytes = startup.peak_bytes.max(peak);
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            return Err(failed(status.to_string()));
        }
    }
    Ok(startup)
}

/// Times how long the library takes to load a model, `repetitions` times.
///
/// # Errors
/// When it cannot be loaded.
pub fn load_times(model: &Path, repetitions: usize) -> Result<Vec<Duration>, Error> {
    let load = || {
        let start = Instant::now();
        let loaded = woolly::Model::load(model)?;
        let time = start.elapsed();
        drop(loaded);
        Ok(time)
    };
    (0..repetitions.max(1)).map(|_| load()).collect()
}

/// Waits for the end of a program and returns the peak that the system last told of it.
fn watch(child: &mut Child) -> std::io::Result<u64> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        peak = field(&text, "VmHWM:").unwrap_or(0).max(peak);
        thread::sleep(POLL);
    }
    Ok(peak)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{Shape, Synthetic};
    use woolly_model::mix::Mix;

    #[test]
    fn loading_is_timed_as_often_as_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("tiny.gguf");
        Synthetic { shape: Shape::tiny(), mix: Mix::Q8_0 }.write(0, &model).expect("written");
        assert_eq!(load_times(&model, 2).expect("loads").len(), 2);
        assert!(load_times(&dir.path().join("absent.gguf"), 1).is_err());
    }

    #[test]
    fn a_program_is_timed_and_its_failure_told() {
        let sleep = Path::new("/bin/sh");
        let startup = first_token(sleep, &["-c", "sleep 0.05"], Path::new("m"), 1, 2).expect("it ends well");
        assert_eq!(startup.samples.len(), 2);
        assert!(startup.samples.iter().all(|&time| time >= Duration::from_millis(50)), "{startup:?}");
        assert!(!cfg!(target_os = "linux") || startup.peak_bytes > 0);
        assert!(first_token(sleep, &["-c", "exit 3"], Path::new("m"), 1, 1).is_err());
        assert!(first_token(Path::new("/absent"), &[], Path::new("m"), 1, 1).is_err());
    }
}
