//! Where everything this program says goes: payload to standard output, all else to standard error.
//!
//! Decoration appears only on terminals, and colour only where `NO_COLOR` is not set. The print macros, which panic when
//! a pipe closes, are used nowhere; a closed pipe is an error of its own that ends the program quietly.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;

/// The two streams of the process, and how to treat them.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whether a person reads standard output.
    pub(crate) terminal: bool,
    /// Whether a person reads standard error.
    pub(crate) notes_terminal: bool,
    /// Whether standard output may be coloured.
    colour: bool,
    /// Whether the last text on standard output left its line open.
    open_line: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        // Any value that is not empty: https://no-color.org.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { terminal, notes_terminal: io::stderr().is_terminal(), colour: terminal && !no_colour, open_line: false }
    }

    /// Writes payload and makes it visible at once.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if let Some(last) = text.as_bytes().last() {
            self.open_line = *last != b'\n';
        }
        let mut out = io::stdout().lock();
        Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
    }

    /// Writes what a model wrote. On a terminal, control characters are left out: they could change its state.
    pub(crate) fn model_text(&mut self, text: &str) -> Result<(), Failure> {
        let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
        if self.terminal && text.contains(harmful) { self.text(&text.replace(harmful, "")) } else { self.text(text) }
    }

    /// Writes a line of payload.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// Writes one JSON object as a line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Writes text that is not the model's, set apart where colours are allowed.
    pub(crate) fn aside(&mut self, text: &str) -> Result<(), Failure> {
        if self.colour { self.text(&format!("\x1b[2m{text}\x1b[0m")) } else { self.text(text) }
    }

    /// Ends an open line, so that what follows begins at the margin.
    pub(crate) fn close_line(&mut self) -> Result<(), Failure> {
        if self.open_line { self.text("\n") } else { Ok(()) }
    }

    /// Writes a line to standard error. That it cannot be written is nothing that could be reported.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}
