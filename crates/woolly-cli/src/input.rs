//! Text from an argument, a file or a pipe.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use crate::failure::Failure;

/// Returns the text given as an argument, else the file's, else what is piped in; `None` at a terminal.
pub(crate) fn text(argument: Option<String>, file: Option<&Path>) -> Result<Option<String>, Failure> {
    match (argument, file) {
        (Some(_), Some(_)) => Err(Failure::usage("a text and a file are given", "give one of them")),
        (Some(text), None) => Ok(Some(text)),
        (None, Some(path)) => read_file(path).map(Some),
        (None, None) if io::stdin().is_terminal() => Ok(None),
        (None, None) => read_pipe().map(Some),
    }
}

/// Reads a text file whole, without a line end at its end.
pub(crate) fn read_file(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path);
    text.map(without_line_end).map_err(|error| Failure::Io { what: format!("read {}", path.display()), error })
}

fn read_pipe() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::Io { what: "read standard input".to_owned(), error })?;
    Ok(without_line_end(text))
}

/// Editors and `echo` end a text with a line end that nobody meant to be continued from.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
