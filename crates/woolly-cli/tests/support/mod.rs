//! Runs the program as a user would.

#![allow(dead_code, reason = "each test that includes this module uses its part of it")]

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What a finished run left behind.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Returns standard output of a run that must have succeeded.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Parses standard output, which must be one JSON object on a line.
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.success();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_woolly"))
}

/// Runs with these arguments and nothing on standard input.
pub(crate) fn woolly<S: AsRef<OsStr>>(arguments: &[S]) -> Run {
    finished(command().args(arguments).stdin(Stdio::null()).output().expect("the program starts"))
}

/// Runs with `input` piped in.
pub(crate) fn piped<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Run {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input closes the pipe, which is its right.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    finished(child.wait_with_output().expect("the program ends"))
}

fn finished(output: Output) -> Run {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 on every stream");
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
