//! Checks of the repository itself that no compiler makes: `cargo run -p xtask -- check`.
//!
//! [`layers`] fails on a dependency that does not point down; [`style`] on `unsafe` outside the modules made for it and
//! on files and functions beyond the sizes of CONTRIBUTING.md. Both also run as tests.

mod layers;
mod style;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some("check") {
        say("usage: cargo run -p xtask -- check");
        return ExitCode::from(2);
    }
    let findings: Vec<String> = layers::findings(&root()).into_iter().chain(style::findings(&root())).collect();
    for finding in &findings {
        say(finding);
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stderr, reason = "a command-line tool reports to its user")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
