//! Why something could not be measured.

use std::io;
use std::path::PathBuf;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Woolly(#[from] woolly::Error),
    /// A name that no synthetic shape has.
    #[error("unknown shape `{name}`; known are {known}")]
    UnknownShape {
        /// The name given.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A name that no quantisation has.
    #[error(transparent)]
    UnknownMix(#[from] woolly_model::mix::UnknownMix),
    /// A tensor type that random weights cannot be made of.
    #[error("no random weights can be made for {shape} in {mix}: {why}; take another quantisation")]
    Weights {
        /// The shape.
        shape: String,
        /// The quantisation.
        mix: String,
        /// What is in the way.
        why: String,
    },
    /// The weights would not fit into memory.
    #[error(
        "{name} needs {:.1} GiB of memory, but {:.1} are available; take a smaller shape or quantisation",
        gib(*.needed), gib(*.available)
    )]
    Memory {
        /// What was to be made.
        name: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that can be allocated.
        available: u64,
    },
    /// Another engine could not be run.
    #[error("cannot run {}: {why}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What happened, in its words where there are any.
        why: String,
    },
    /// llama.cpp in this process failed.
    #[error("llama.cpp in this process cannot {what}: {why}")]
    Library {
        /// What was tried.
        what: String,
        /// Its words.
        why: String,
    },
    /// No llama.cpp to compare with.
    #[error(
        "no llama.cpp to compare with: name its llama-bench with `llama_bench(path)` or in LLAMA_BENCH, or put it on PATH"
    )]
    NoLlamaCpp,
    /// A file could not be read or written.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// Parameters that make no sense.
    #[error("{0}")]
    Parameter(String),
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Errors of the layers below are told as the library tells them.
macro_rules! through_woolly {
    ($($error:ty),+) => { $(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Woolly(error.into())
            }
        }
    )+ };
}

through_woolly!(woolly_gguf::Error, woolly_model::Error, woolly_engine::Error, woolly_cpu::CpuError);
