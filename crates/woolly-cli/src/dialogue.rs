//! A dialogue at the terminal: a line is read, an answer is given, until Ctrl-D.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::failure::Failure;
use crate::output::Output;

/// What gives the answers.
pub(crate) trait Answerer {
    /// Answers one line on standard output.
    fn answer(&mut self, line: &str, output: &mut Output) -> Result<(), Failure>;
}

/// Reads lines and has them answered; lines of this dialogue can be recalled, and are kept nowhere else.
pub(crate) fn hold(answerer: &mut dyn Answerer, output: &mut Output) -> Result<(), Failure> {
    let mut editor = DefaultEditor::new().map_err(unusable)?;
    output.note("Ctrl-C stops an answer, Ctrl-D leaves.");
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(unusable(error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        // A history that cannot grow is no reason to leave an answer out.
        let _ = editor.add_history_entry(&line);
        match answerer.answer(&line, output) {
            // A question that failed is told, and the next one may be asked.
            Err(failure @ Failure::Woolly(_)) => {
                output.close_line()?;
                failure.report(output);
            }
            done => done?,
        }
    }
}

fn unusable(error: ReadlineError) -> Failure {
    Failure::Io { what: "read from the terminal".to_owned(), error: std::io::Error::other(error) }
}
