//! Ctrl-C and termination: the first stops the answer, a second one the program.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use woolly::CancelToken;

use crate::failure::Failure;

/// Turns signals into cancellation of whatever runs at the time.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    /// Replaced for each answer, since a token stays cancelled.
    current: Arc<Mutex<CancelToken>>,
}

impl Interrupt {
    /// Takes over the signals of the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self { current: Arc::default() };
        let current = interrupt.current.clone();
        let handler = move || {
            let token = current.lock().unwrap_or_else(PoisonError::into_inner);
            if token.is_cancelled() {
                process::exit(130);
            }
            token.cancel();
        };
        let what = "install the handler of Ctrl-C".to_owned();
        ctrlc::set_handler(handler).map_err(|error| Failure::Io { what, error: std::io::Error::other(error) })?;
        Ok(interrupt)
    }

    /// Returns the token that the next signal cancels.
    pub(crate) fn token(&self) -> CancelToken {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a token for the next answer and returns it.
    pub(crate) fn renew(&self) -> CancelToken {
        let fresh = CancelToken::new();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }

    /// Fails when a signal has arrived since the last [`renew`](Self::renew).
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.token().is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
