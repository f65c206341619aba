//! Other engines beside Woolly: on the same file, in turn with ours.

#[cfg(feature = "llama-cpp")]
mod library;
mod program;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use woolly_tensor::CacheType;

use crate::Error;
use crate::speed::Case;

#[cfg(feature = "llama-cpp")]
pub use library::LlamaCpp;
pub use program::LlamaBench;

/// An engine that can be measured beside ours.
pub trait Opponent: fmt::Debug + Send + Sync {
    /// Prepares a case on a model file and calls `body` once with what measures it.
    ///
    /// With a depth, an engine that can compute attention in several ways takes the one that is faster here.
    ///
    /// # Errors
    /// [`Error::Program`] with the engine's own words when it fails; those of `body`.
    fn prepare(
        &self,
        model: &Path,
        case: &Case,
        warm_up: bool,
        body: &mut dyn FnMut(&mut dyn Trial) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

/// A case that an [`Opponent`] has prepared.
pub trait Trial {
    /// Returns whether repetitions are taken one at a time, each beside one of ours; otherwise all of them follow ours.
    fn in_turn(&self) -> bool;

    /// Measures the case `repetitions` times.
    ///
    /// # Errors
    /// [`Error::Program`] with the engine's own words when it fails or says something else than expected.
    fn measure(&mut self, repetitions: usize) -> Result<Rival, Error>;
}

/// What another engine reached in a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rival {
    /// Name and build: `llama.cpp 0c1e570 (1)`.
    pub engine: String,
    /// Times of the repetitions, in the order of ours.
    pub samples: Vec<Duration>,
}

/// Whether llama.cpp's flash attention and the other kind are both tried: which one is faster far into a context depends on
/// the machine, and only the first reads values of eight bits.
fn tries_both_kinds(case: &Case) -> bool {
    case.depth > 0 && matches!(case.cache, CacheType::F32 | CacheType::F16)
}
