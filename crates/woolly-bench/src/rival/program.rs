//! llama.cpp as a program: its own `llama-bench`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use super::{Opponent, Rival, Trial, tries_both_kinds};
use crate::Error;
use crate::output::cache_names;
use crate::speed::Case;

/// Environment variable that names the program.
const VARIABLE: &str = "LLAMA_BENCH";

/// The program `llama-bench` of llama.cpp.
///
/// Several sequences are measured by the `llama-batched-bench` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlamaBench {
    program: PathBuf,
    arguments: Vec<String>,
}

impl LlamaBench {
    /// Names the program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new() }
    }

    /// Finds the program: in the environment variable `LLAMA_BENCH`, or on the path.
    ///
    /// # Errors
    /// [`Error::NoLlamaCpp`] when there is none.
    pub fn find() -> Result<Self, Error> {
        let named = env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let name = format!("llama-bench{}", env::consts::EXE_SUFFIX);
        let on_path = || env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(&name)).find(|path| path.is_file());
        named.or_else(on_path).map(Self::new).ok_or(Error::NoLlamaCpp)
    }

    /// Adds arguments of its own to every call.
    #[must_use]
    pub fn with_arguments(mut self, arguments: impl IntoIterator<Item = String>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Measures a case `repetitions` times in one call.
    ///
    /// With a depth, flash attention is tried on and off, and the faster counts: which one that is depends on the machine.
    fn measure(&self, model: &Path, case: &Case, repetitions: usize, warm_up: bool) -> Result<Rival, Error> {
        if case.sequences > 1 {
            return self.measure_batch(model, case, repetitions);
        }
        let mut arguments = shared_arguments(model, case);
        let lengths = format!("{},{}", case.prompt, case.generate);
        arguments.extend(["-p", "0", "-n", "0", "-pg", &lengths, "-o", "json"].map(OsString::from));
        arguments.extend(["-d".into(), case.depth.to_string().into(), "-r".into(), repetitions.to_string().into()]);
        arguments.extend(tries_both_kinds(case).then_some(["-fa".into(), "on,off".into()]).into_iter().flatten());
        arguments.extend((!warm_up).then(|| "--no-warmup".into()));
        let text = self.call(&self.program, arguments)?;
        let rows: Json = serde_json::from_str(&text).map_err(|error| self.failed(format!("no JSON: {error}")))?;
        let best = rows.as_array().into_iter().flatten().filter_map(rival).min_by_key(|row| median(&row.samples));
        best.ok_or_else(|| self.failed("its output has no row with samples".to_owned()))
    }

    /// `llama-batched-bench` fills the context with a prompt and times prompt and generation apart.
    fn measure_batch(&self, model: &Path, case: &Case, repetitions: usize) -> Result<Rival, Error> {
        let program = self.program.with_file_name(format!("llama-batched-bench{}", env::consts::EXE_SUFFIX));
        let prompt = (case.depth + case.prompt).max(1);
        let room = case.sequences * (prompt + case.generate);
        let mut arguments = shared_arguments(model, case);
        let own =
            [("-npp", prompt), ("-ntg", case.generate.max(1)), ("-npl", case.sequences), ("-c", room + case.sequences)];
        arguments.extend(own.into_iter().flat_map(|(flag, value)| [flag.into(), value.to_string().into()]));
        arguments.extend(["--output-format", "jsonl"].map(OsString::from));
        let sample = || {
            let text = self.call(&program, arguments.clone())?;
            let row = text.lines().find_map(|line| serde_json::from_str::<Json>(line).ok());
            let seconds = row.as_ref().and_then(|row| batch_seconds(row, case));
            seconds.ok_or_else(|| self.failed("its output has no row of times".to_owned()))
        };
        let samples = (0..repetitions).map(|_| sample().map(Duration::from_secs_f64)).collect::<Result<_, _>>()?;
        Ok(Rival { engine: "llama.cpp (llama-batched-bench)".to_owned(), samples })
    }

    fn call(&self, program: &Path, arguments: Vec<OsString>) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(arguments).args(&self.arguments).stdin(Stdio::null());
        let failed = |why: String| Error::Program { program: program.to_owned(), why };
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            return Err(failed(format!("{}: {last}", output.status)));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("its output is no text".to_owned()))
    }

    fn failed(&self, why: String) -> Error {
        Error::Program { program: self.program.clone(), why }
    }
}

impl Opponent for LlamaBench {
    fn prepare(
        &self,
        model: &Path,
        case: &Case,
        warm_up: bool,
        body: &mut dyn FnMut(&mut dyn Trial) -> Result<(), Error>,
    ) -> Result<(), Error> {
        body(&mut Call { bench: self, model, case, warm_up })
    }
}

/// A case for the program, which is started for each measurement.
struct Call<'a> {
    bench: &'a LlamaBench,
    model: &'a Path,
    case: &'a Case,
    warm_up: bool,
}

impl Trial for Call<'_> {
    /// With a depth, filling the context takes most of the time, and the program keeps it only within one call.
    fn in_turn(&self) -> bool {
        self.case.depth == 0
    }

    fn measure(&mut self, repetitions: usize) -> Result<Rival, Error> {
        self.bench.measure(self.model, self.case, repetitions, self.warm_up)
    }
}

fn shared_arguments(model: &Path, case: &Case) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-m".into(), model.into()];
    let numbers = [("-t", case.threads), ("-b", case.batch), ("-ub", case.micro_batch)];
    arguments.extend(numbers.into_iter().flat_map(|(flag, value)| [flag.into(), value.to_string().into()]));
    let [keys, values] = cache_names(case.cache);
    arguments.extend(["-ctk", keys, "-ctv", values].map(OsString::from));
    arguments
}

/// A row of `llama-bench -o json`.
fn rival(row: &Json) -> Option<Rival> {
    let engine = format!("llama.cpp {} ({})", row["build_commit"].as_str()?, row["build_number"].as_u64()?);
    let samples: Option<Vec<_>> = row["samples_ns"].as_array()?.iter().map(Json::as_u64).collect();
    let samples: Vec<_> = samples?.into_iter().map(Duration::from_nanos).collect();
    (!samples.is_empty()).then_some(Rival { engine, samples })
}

/// The part of a row of `llama-batched-bench --output-format jsonl` that a case is about.
fn batch_seconds(row: &Json, case: &Case) -> Option<f64> {
    let (prompt, generate) = (row["t_pp"].as_f64()?, row["t_tg"].as_f64()?);
    let seconds = match (case.prompt, case.generate) {
        (_, 0) => prompt,
        (0, _) => generate,
        _ => prompt + generate,
    };
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
}

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(Duration::MAX)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::speed::Grid;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn case(depth: usize, sequences: usize) -> Case {
        let grid = Grid {
            prompts: vec![],
            generations: vec![16],
            depths: vec![depth],
            sequences: vec![sequences],
            threads: vec![2],
            ..Grid::default()
        };
        grid.cases().swap_remove(0)
    }

    /// A program that keeps its arguments and prints a text.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(name: &str, output: &str, status: i32) -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join(name);
            fs::write(dir.path().join("output"), output).expect("written");
            let script = format!(
                "#!/bin/sh\necho \"$@\" > {0}/arguments\ncat {0}/output\necho last words >&2\nexit {status}\n",
                dir.path().display()
            );
            fs::write(&path, script).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
            Self(dir)
        }

        fn bench(&self) -> LlamaBench {
            LlamaBench::new(self.0.path().join("llama-bench")).with_arguments(["--poll".to_owned(), "0".to_owned()])
        }

        fn arguments(&self) -> String {
            fs::read_to_string(self.0.path().join("arguments")).expect("called").trim().to_owned()
        }
    }

    const ROW: &str = r#"{"build_commit": "0c1e570", "build_number": 1, "samples_ns": [SAMPLES]}"#;

    #[test]
    fn llama_bench_is_asked_for_the_same_case() {
        let fake = Fake::new("llama-bench", &format!("[{}]", ROW.replace("SAMPLES", "250, 150")), 0);
        let rival = fake.bench().measure(Path::new("m.gguf"), &case(0, 1), 2, true).expect("two samples");
        let samples = vec![Duration::from_nanos(250), Duration::from_nanos(150)];
        assert_eq!(rival, Rival { engine: "llama.cpp 0c1e570 (1)".to_owned(), samples });
        let expected = "-m m.gguf -t 2 -b 2048 -ub 512 -ctk f16 -ctv f16 -p 0 -n 0 -pg 0,16 -o json -d 0 -r 2 --poll 0";
        assert_eq!(fake.arguments(), expected);
    }

    #[test]
    fn with_a_depth_the_faster_kind_of_attention_counts() {
        let rows = format!("[{},{}]", ROW.replace("SAMPLES", "900"), ROW.replace("SAMPLES", "400"));
        let fake = Fake::new("llama-bench", &rows, 0);
        let rival = fake.bench().measure(Path::new("m.gguf"), &case(64, 1), 1, false).expect("a sample");
        assert_eq!(rival.samples, [Duration::from_nanos(400)]);
        assert!(fake.arguments().contains("-d 64 -r 1 -fa on,off --no-warmup"), "{}", fake.arguments());
        for (depth, expected) in [(64, false), (0, true)] {
            let check = &mut |trial: &mut dyn Trial| {
                assert_eq!(trial.in_turn(), expected);
                Ok(())
            };
            fake.bench().prepare(Path::new("m.gguf"), &case(depth, 1), true, check).expect("nothing is run");
        }
    }

    #[test]
    fn several_sequences_are_measured_by_the_program_made_for_them() {
        let fake = Fake::new("llama-batched-bench", "\n{\"t_pp\": 2.0, \"t_tg\": 0.5}\n", 0);
        let rival = fake.bench().measure(Path::new("m.gguf"), &case(32, 4), 2, true).expect("two samples");
        assert_eq!(rival.samples, [Duration::from_millis(500); 2]);
        assert!(fake.arguments().contains("-npp 32 -ntg 16 -npl 4 -c 196"), "{}", fake.arguments());
    }

    #[test]
    fn failures_are_told_in_the_programs_words() {
        let fake = Fake::new("llama-bench", "", 1);
        let error = fake.bench().measure(Path::new("m.gguf"), &case(0, 1), 1, true).expect_err("status 1").to_string();
        assert!(error.contains("last words") && error.contains("llama-bench"), "{error}");
        for output in ["", "[]", "[{}]", "nonsense"] {
            let fake = Fake::new("llama-bench", output, 0);
            assert!(fake.bench().measure(Path::new("m.gguf"), &case(0, 1), 1, true).is_err(), "{output}");
        }
        let absent = LlamaBench::new("/absent/llama-bench").measure(Path::new("m"), &case(0, 1), 1, true);
        assert!(matches!(absent, Err(Error::Program { .. })));
    }
}
