//! Why a command did not succeed, how that is told, and with which exit code.

use std::io;
use std::process::ExitCode;

use woolly::ErrorKind;

use crate::output::Output;

/// The outcome of a command that did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not make sense together.
    Usage { message: String, hint: String },
    /// The library failed.
    Woolly(woolly::Error),
    /// A measurement failed.
    Bench(woolly_bench::Error),
    /// Reading or writing failed.
    Io { what: String, error: io::Error },
    /// Interrupted from the keyboard or told to terminate.
    Interrupted,
    /// Nobody reads the output any more.
    ClosedPipe,
}

/// What scripts can rely on; listed in the program's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Success = 0,
    Failed = 1,
    Usage = 2,
    Model = 3,
    Memory = 4,
    Interrupted = 130,
}

impl Failure {
    /// Makes the failure of arguments that do not make sense.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// Tells standard error what happened and what to do, and returns the exit code.
    pub(crate) fn report(&self, output: &mut Output) -> ExitCode {
        if let Some((message, hint)) = self.message() {
            output.note(&format!("error: {message}"));
            if let Some(hint) = hint {
                output.note(&format!("hint: {hint}"));
            }
        }
        ExitCode::from(self.code() as u8)
    }

    fn message(&self) -> Option<(String, Option<String>)> {
        match self {
            Self::Usage { message, hint } => Some((message.clone(), Some(hint.clone()))),
            Self::Woolly(error) => Some((error.to_string(), error.hint())),
            Self::Bench(error) => Some((error.to_string(), None)),
            Self::Io { what, error } => Some((format!("cannot {what}: {error}"), None)),
            Self::Interrupted | Self::ClosedPipe => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Usage { .. } => Code::Usage,
            Self::Woolly(error) => kind_code(error.kind()),
            Self::Bench(woolly_bench::Error::Memory { .. }) => Code::Memory,
            Self::Bench(woolly_bench::Error::Parameter(_)) => Code::Usage,
            Self::Io { .. } | Self::Bench(_) => Code::Failed,
            Self::Interrupted => Code::Interrupted,
            Self::ClosedPipe => Code::Success,
        }
    }
}

fn kind_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidModel | ErrorKind::UnsupportedModel => Code::Model,
        ErrorKind::OutOfMemory => Code::Memory,
        ErrorKind::InvalidRequest => Code::Usage,
        ErrorKind::Cancelled => Code::Interrupted,
        _ => Code::Failed,
    }
}

impl From<woolly::Error> for Failure {
    fn from(error: woolly::Error) -> Self {
        if error.kind() == ErrorKind::Cancelled { Self::Interrupted } else { Self::Woolly(error) }
    }
}

impl From<woolly_bench::Error> for Failure {
    fn from(error: woolly_bench::Error) -> Self {
        match error {
            woolly_bench::Error::Woolly(error) => error.into(),
            error => Self::Bench(error),
        }
    }
}

/// Failures to write to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Io { what: "write to standard output".to_owned(), error },
        }
    }
}
