//! The command `woolly`.
//!
//! Parses the command line, runs one of [`commands`] and turns its outcome into an exit code. Everything about models
//! is the library's; what is here reads arguments and the terminal and writes text.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod dialogue;
mod failure;
mod input;
mod interrupt;
mod loading;
mod numbers;
mod output;
mod report;
mod source;
mod spelling;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::output::Output;

/// Run large language models from GGUF files.
#[derive(Debug, Parser)]
#[command(name = "woolly", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 invalid or unsupported model, 4 not enough memory, 130 interrupted.

Example: woolly run model.gguf \"Once upon a time\"")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = spelling::translate(std::env::args_os());
    // Prints help, or what is wrong with the arguments, and exits with 0 or 2.
    let cli = Cli::parse_from(arguments);
    let mut output = Output::new();
    match cli.command.run(&mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&mut output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        for command in Cli::command().get_subcommands() {
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let begins = format!("woolly {}", command.get_name());
            assert!(command.get_about().is_some() && example.contains(&begins), "{}", command.get_name());
        }
    }
}
