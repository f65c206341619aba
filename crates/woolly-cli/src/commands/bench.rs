//! `woolly bench`: how fast models run, in llama-bench's words, beside what the machine can do at most.

mod many;
mod targets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use woolly_bench::output::{Format, Printer};
use woolly_bench::speed::{Grid, Options, Row};
use woolly_bench::{Area, Ceiling, Level, LlamaBench, Machine, Opponent, Source, Synthetic};
use woolly_tensor::CacheType;

use self::many::Many;
use crate::failure::Failure;
use crate::numbers::parse_ranges;
use crate::output::Output;

/// What is measured when no model is named: nothing need be downloaded.
const DEFAULT_SYNTHETIC: &str = "TinyLlama-1.1B:Q4_K_M";

/// Measure how fast models run.
///
/// Flags, row names and output fields are llama-bench's. Lists are separated by commas, or the flag is repeated; ranges are
/// `first-last`, `first-last+step` or `first-last*factor`. Every combination is measured.
#[derive(Debug, Args)]
#[command(after_help = "Example: woolly bench -p 512 -n 128 -t 1,2 --synthetic Llama-2-7B:Q4_K_M")]
pub(crate) struct Arguments {
    /// Model files in GGUF format [default: a synthetic TinyLlama-1.1B:Q4_K_M]
    #[arg(short, long, value_name = "FILE", value_delimiter = ',')]
    model: Vec<PathBuf>,
    /// Random weights in the shape of a known model, made in memory: SHAPE[:QUANT]
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', long_help = synthetic_help())]
    synthetic: Vec<Synthetic>,
    /// Tokens of a prompt; 0 measures none [default: 512]
    #[arg(short = 'p', long, value_name = "N", value_parser = parse_ranges)]
    n_prompt: Vec<Ranges>,
    /// Tokens to generate; 0 measures none [default: 128]
    #[arg(short, long, value_name = "N", value_parser = parse_ranges)]
    n_gen: Vec<Ranges>,
    /// A prompt and a generation measured together: -pg 512,128
    #[arg(long, value_name = "P,N", value_parser = parse_pair)]
    prompt_gen: Vec<(usize, usize)>,
    /// Tokens in the context before the test [default: 0]
    #[arg(short = 'd', long, value_name = "N", value_parser = parse_ranges)]
    n_depth: Vec<Ranges>,
    /// Sequences side by side, for the throughput of batches (-npl) [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_ranges)]
    n_parallel: Vec<Ranges>,
    /// Tokens of a prompt after which logits are computed [default: 2048]
    #[arg(short, long, value_name = "N", value_parser = parse_ranges)]
    batch_size: Vec<Ranges>,
    /// Tokens computed in one step (-ub) [default: 512]
    #[arg(long, value_name = "N", value_parser = parse_ranges)]
    ubatch_size: Vec<Ranges>,
    /// Storage of keys (-ctk): f32, f16, q8_0 [default: f16]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    cache_type_k: Vec<Storage>,
    /// Storage of values (-ctv): that of keys, or q4_0 beside keys in q8_0 [default: that of keys]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    cache_type_v: Vec<Storage>,
    /// Numbers of threads [default: the physical cores this process may use]
    #[arg(short, long, value_name = "N", value_parser = parse_ranges)]
    threads: Vec<Ranges>,
    /// Times that each test is repeated
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Seconds to wait before each test
    #[arg(long, value_name = "S", default_value_t = 0)]
    delay: u64,
    /// Leave out the run before the first repetition of a test
    #[arg(long)]
    no_warmup: bool,
    /// Leave out the machine's ceilings, and with them the shares
    #[arg(long)]
    no_ceilings: bool,
    /// Run this `llama-bench` of llama.cpp in turn on the same file, and print ratios
    #[arg(long, value_name = "PATH")]
    llama_bench: Option<PathBuf>,
    /// Run llama.cpp within this program in turn, and print ratios; for programs built with the feature `llama-cpp`
    #[arg(long, conflicts_with = "llama_bench")]
    vs_llama_cpp: bool,
    /// Measure a fixed set of models and tests, or these parts of it, and say whether each reached what it must: decode,
    /// depth, prefill, batched, start
    #[arg(long, value_name = "PARTS", value_delimiter = ',', num_args = 0..=1, value_parser = parse_area,
          conflicts_with_all = ["model", "synthetic", "n_prompt", "n_gen", "prompt_gen", "n_depth", "n_parallel", "threads"])]
    targets: Option<Vec<Area>>,
    /// With --targets, measure an instruction set below the best one, too, beside a `llama-bench` built for it
    #[arg(long, value_name = "ISA=PATH", value_parser = parse_lower, requires = "targets")]
    llama_bench_at: Vec<(Level, PathBuf)>,
    /// Where --targets finds the files it measures, and writes those that are missing [default: a temporary folder]
    #[arg(long, value_name = "DIR", requires = "targets")]
    model_dir: Option<PathBuf>,
    /// Output format: md, csv, json, jsonl, sql
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    output: Format,
    /// Print in this format to standard error, too (-oe)
    #[arg(long, value_name = "FORMAT")]
    output_err: Option<Format>,
    #[command(flatten)]
    many: Many,
    /// Print JSON, as -o json does
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Values of one list.
type Ranges = crate::numbers::Ranges;

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        if let Some(areas) = &self.targets {
            return targets::run(&self, areas, output);
        }
        if self.many.is_asked_for() {
            return self.run_many(output);
        }
        let grid = self.grid()?;
        let options = Options { cases: grid.cases(), models: self.models()?, ..self.options()? };
        let machine = Machine::detect()?;
        let ceilings = self.ceilings(&machine, &options.threads(), output)?;
        let (mut printer, mut second) = self.printers(&grid);
        options.run(&machine, &ceilings, |row: Row| -> Result<(), Failure> {
            note(output, second.as_mut().map(|printer| printer.row(&row)));
            output.text(&printer.row(&row))
        })?;
        note(output, second.as_mut().map(Printer::finish));
        output.text(&printer.finish())
    }

    /// Measures many sequences or replays a trace, on the first of each list of settings.
    fn run_many(&self, output: &mut Output) -> Result<(), Failure> {
        let mut grid = self.grid()?;
        if self.n_prompt.is_empty() {
            grid.prompts = vec![128];
        }
        if self.n_gen.is_empty() {
            grid.generations = vec![128];
        }
        if self.n_parallel.is_empty() {
            grid.sequences = vec![1, 4, 8, 16, 32];
        }
        self.many.run(&self.models()?, &grid, self.json, output)
    }

    /// The writers of standard output and, where asked for, standard error.
    fn printers(&self, grid: &Grid) -> (Printer, Option<Printer>) {
        let printer = |format: Format| {
            let printer = format.printer().with_columns_for(grid);
            if self.llama_bench.is_some() || self.vs_llama_cpp { printer.with_rival() } else { printer }
        };
        let format = if self.json { Format::Json } else { self.output };
        (printer(format), self.output_err.map(printer))
    }

    fn ceilings(&self, machine: &Machine, threads: &[usize], output: &mut Output) -> Result<Vec<Ceiling>, Failure> {
        if self.no_ceilings {
            return Ok(Vec::new());
        }
        if output.notes_terminal {
            output.note("measuring what this machine can do at most ...");
        }
        Ok(Ceiling::measure(machine, threads)?)
    }

    /// Everything but models and cases.
    fn options(&self) -> Result<Options, Failure> {
        positive("-r", vec![self.repetitions])?;
        Ok(Options {
            models: Vec::new(),
            cases: Vec::new(),
            repetitions: self.repetitions,
            warm_up: !self.no_warmup,
            delay: Duration::from_secs(self.delay),
            rival: self.rival()?,
        })
    }

    fn rival(&self) -> Result<Option<Arc<dyn Opponent>>, Failure> {
        match &self.llama_bench {
            Some(program) => Ok(Some(Arc::new(LlamaBench::new(program)))),
            None if self.vs_llama_cpp => built_in().map(Some),
            None => Ok(None),
        }
    }

    fn grid(&self) -> Result<Grid, Failure> {
        let default = Grid::default();
        let caches = self.caches()?;
        Ok(Grid {
            prompts: list(&self.n_prompt, default.prompts),
            generations: list(&self.n_gen, default.generations),
            pairs: self.prompt_gen.clone(),
            depths: list(&self.n_depth, default.depths),
            sequences: positive("-npl", list(&self.n_parallel, default.sequences))?,
            batches: positive("-b", list(&self.batch_size, default.batches))?,
            micro_batches: positive("-ub", list(&self.ubatch_size, default.micro_batches))?,
            caches: if caches.is_empty() { default.caches } else { caches },
            threads: positive("-t", list(&self.threads, default.threads))?,
        })
    }

    fn models(&self) -> Result<Vec<Source>, Failure> {
        let files = self.model.iter().cloned().map(Source::File);
        let synthetic = self.synthetic.iter().cloned().map(Source::Synthetic);
        let named: Vec<Source> = files.chain(synthetic).collect();
        if named.is_empty() { Ok(vec![Source::Synthetic(DEFAULT_SYNTHETIC.parse()?)]) } else { Ok(named) }
    }

    /// Types of keys and of values are taken pair by pair.
    fn caches(&self) -> Result<Vec<CacheType>, Failure> {
        let (keys, values) = (&self.cache_type_k, &self.cache_type_v);
        let hint = "known pairs are f32 and f32, f16 and f16, q8_0 and q8_0, q8_0 and q4_0";
        if !values.is_empty() && values.len() != keys.len() {
            return Err(Failure::usage("-ctk and -ctv are lists of different lengths", hint));
        }
        let values = if values.is_empty() { keys } else { values };
        let pairs = keys.iter().zip(values).map(|(&key, &value)| cache_type(key, value));
        let unknown = || Failure::usage("keys and values cannot be stored like that together", hint);
        pairs.collect::<Option<Vec<_>>>().ok_or_else(unknown)
    }
}

#[cfg(feature = "llama-cpp")]
fn built_in() -> Result<Arc<dyn Opponent>, Failure> {
    Ok(Arc::new(woolly_bench::LlamaCpp::new()?))
}

#[cfg(not(feature = "llama-cpp"))]
fn built_in() -> Result<Arc<dyn Opponent>, Failure> {
    let hint = "build it with `--features llama-cpp`, or name a program with --llama-bench";
    Err(Failure::usage("this program was built without llama.cpp", hint))
}

/// How keys or values are stored, by llama.cpp's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Storage {
    #[value(name = "f32")]
    F32,
    #[value(name = "f16")]
    F16,
    #[value(name = "q8_0", alias = "q8")]
    Q8,
    #[value(name = "q4_0", alias = "q4")]
    Q4,
}

fn cache_type(keys: Storage, values: Storage) -> Option<CacheType> {
    match (keys, values) {
        (Storage::F32, Storage::F32) => Some(CacheType::F32),
        (Storage::F16, Storage::F16) => Some(CacheType::F16),
        (Storage::Q8, Storage::Q8) => Some(CacheType::Q8),
        (Storage::Q8, Storage::Q4) => Some(CacheType::Q8Q4),
        _ => None,
    }
}

fn note(output: &mut Output, text: Option<String>) {
    if let Some(text) = text {
        output.note(text.trim_end_matches('\n'));
    }
}

fn list(given: &[Ranges], default: Vec<usize>) -> Vec<usize> {
    if given.is_empty() { default } else { given.iter().flat_map(|ranges| ranges.0.iter().copied()).collect() }
}

fn positive(flag: &str, values: Vec<usize>) -> Result<Vec<usize>, Failure> {
    if values.contains(&0) {
        return Err(Failure::usage(format!("{flag} cannot be 0"), format!("give {flag} at least 1")));
    }
    Ok(values)
}

fn parse_pair(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(',').and_then(|(prompt, generate)| prompt.parse().ok().zip(generate.parse().ok()));
    pair.ok_or_else(|| "expected two counts such as 512,128".to_owned())
}

fn parse_area(name: &str) -> Result<Area, String> {
    let found = Area::ALL.iter().find(|(known, _)| *known == name).map(|&(_, area)| area);
    found.ok_or_else(|| format!("known are {}", Area::ALL.map(|(name, _)| name).join(", ")))
}

fn parse_lower(text: &str) -> Result<(Level, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected an instruction set and a program: avx2=PATH")?;
    let level = Level::available().find(|level| level.name() == name);
    let known = || Level::available().map(Level::name).collect::<Vec<_>>().join(", ");
    level.map(|level| (level, PathBuf::from(path))).ok_or_else(|| format!("this processor has {}", known()))
}

fn synthetic_help() -> String {
    let shapes: Vec<&str> = woolly_bench::Shape::all().iter().map(|shape| shape.name).collect();
    format!(
        "Random weights in the shape of a known model, made in memory: SHAPE[:QUANT]; the quantisation is Q4_K_M when none \
         is given, and any that `woolly quantize` knows. Shapes: {}",
        shapes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn options(line: &str) -> Result<(Grid, Options), String> {
        let words = crate::spelling::translate(["bench"].into_iter().chain(line.split_whitespace()).map(Into::into));
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        let parsed = |arguments: Arguments| {
            let grid = arguments.grid()?;
            Ok((grid, Options { models: arguments.models()?, ..arguments.options()? }))
        };
        parsed(command.arguments).map_err(|failure: Failure| format!("{failure:?}"))
    }

    #[test]
    fn flags_are_those_of_llama_bench() {
        let line = "-m a.gguf,b.gguf -m c.gguf -p 16,64-256*2 -n 0 -pg 8,4 -pg 0,2 -d 0,128 -b 64 -ub 32,64 -t 1-3 -ctk q8_0,f32 \
                    -ctv q4_0,f32 -r 2 --delay 1 --no-warmup -npl 1,4";
        let (found, options) = options(line).expect("valid");
        assert_eq!(options.models, ["a.gguf", "b.gguf", "c.gguf"].map(|path| Source::File(path.into())));
        assert_eq!((options.repetitions, options.warm_up, options.delay), (2, false, Duration::from_secs(1)));
        let grid = Grid {
            prompts: vec![16, 64, 128, 256],
            generations: vec![0],
            pairs: vec![(8, 4), (0, 2)],
            depths: vec![0, 128],
            sequences: vec![1, 4],
            batches: vec![64],
            micro_batches: vec![32, 64],
            caches: vec![CacheType::Q8Q4, CacheType::F32],
            threads: vec![1, 2, 3],
        };
        assert_eq!(found, grid);
    }

    #[test]
    fn without_flags_a_synthetic_model_is_measured_as_llama_bench_measures() {
        let (grid, found) = options("").expect("valid");
        assert_eq!(found.models, [Source::Synthetic("tinyllama-1.1b:q4_k_m".parse().expect("known"))]);
        assert_eq!((grid, found.repetitions, found.warm_up), (Grid::default(), 5, true));
    }

    #[test]
    fn targets_are_all_or_the_parts_named() {
        let areas = |line: &str| {
            let words = ["bench"].into_iter().chain(line.split_whitespace());
            Command::try_parse_from(words).map(|command| command.arguments.targets).expect("valid")
        };
        assert_eq!((areas(""), areas("--targets")), (None, Some(vec![])));
        assert_eq!(areas("--targets decode,start --model-dir x"), Some(vec![Area::Decode, Area::Start]));
        assert_eq!(areas("--targets --llama-bench-at scalar=x"), Some(vec![]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "-t 0", "-b 0", "-ub 0", "-r 0", "-npl 0", "-pg 512", "-p x", "-p 8-4*0", "-ctk q9", "-ctk f16 -ctv f32",
            "-ctk f16,f16 -ctv f16",
            "-ctv f32", "-o xml",
            "--targets -p 1", "--targets -m x", "--targets speed", "--model-dir x", "--llama-bench-at scalar=x",
            "--targets --llama-bench-at sse=x", "--vs-llama-cpp --llama-bench x", "--synthetic llama-9", "--synthetic Llama-2-7B:Q99", "-ngl 99",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}
