//! `woolly run`: completes a text, answers a question, or holds a conversation.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use woolly::{Chat, Chunk, Completion, FinishReason, GenerateOptions, Model, SamplingParams, Session};

use crate::arguments::{ContextArguments, ModelArguments, Positional, SamplingArguments, Verbosity, model_and_text};
use crate::dialogue::{self, Answerer};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::numbers::{Limit, parse_limit};
use crate::output::Output;
use crate::source::Source;
use crate::{input, loading, report};

/// Complete a text, answer a question, or hold a conversation.
#[derive(Debug, Args)]
#[command(after_help = "\
A model with a chat template answers the text as a question; --raw completes it instead. Without a text, at a terminal, \
a conversation begins: Ctrl-C stops an answer, Ctrl-D leaves.

Example: woolly run model.gguf \"Once upon a time\" -n 100 --seed 7")]
pub(crate) struct Arguments {
    #[command(flatten)]
    positional: Positional,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    context: ContextArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    verbosity: Verbosity,
}

/// What is asked, and when the answer ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt and answer")]
struct PromptArguments {
    /// Prompt.
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the prompt.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the model is told about its task, also -sys.
    #[arg(long = "system-prompt", value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Complete the prompt as plain text even if the model has a chat template, also -no-cnv.
    #[arg(long, alias = "no-conversation")]
    raw: bool,
    /// Take the names of control tokens in a raw prompt for these tokens.
    #[arg(long, requires = "raw", hide_short_help = true)]
    parse_special: bool,
    /// Insist on the chat template, also -cnv.
    #[arg(long, conflicts_with = "raw", hide_short_help = true)]
    conversation: bool,
    /// Most tokens to generate; -1 goes on to the end [default: -1]
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    predict: Option<Limit>,
    /// Text that ends the answer and is not part of it; may be repeated.
    #[arg(short = 'r', long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on when the model ends its answer.
    #[arg(long, hide_short_help = true)]
    ignore_eos: bool,
}

impl Arguments {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Failure> {
        let (model, text) = model_and_text(self.model.model.take(), std::mem::take(&mut self.positional))?;
        let source = Source::new(model, "run")?;
        let text = self.prompt_text(text)?;
        let interrupt = Interrupt::install()?;
        let model = loading::load(&source, &self.model, self.context.context, self.verbosity, output)?;
        interrupt.check()?;
        let options = self.options(&model.summary().sampling);
        let mut speaker = self.speaker(&model)?;
        match text {
            Some(text) => {
                let options = options.cancel_with(&interrupt.token());
                self.answer_once(&mut speaker, &text, options, &source, output)
            }
            None => self.converse(speaker, options, &interrupt, output),
        }
    }

    fn prompt_text(&mut self, positional: Option<String>) -> Result<Option<String>, Failure> {
        let flag = self.prompt.prompt.take();
        if positional.is_some() && flag.is_some() {
            return Err(Failure::usage("the prompt is given twice", "give it as an argument or with -p"));
        }
        input::text(positional.or(flag), self.prompt.file.as_deref())
    }

    fn speaker(&self, model: &Model) -> Result<Speaker, Failure> {
        let has_template = model.summary().chat_template.is_some();
        if self.prompt.raw || !(has_template || self.prompt.conversation || self.prompt.system.is_some()) {
            let session = model.session()?;
            return Ok(Speaker::Completer { session, parse_special: self.prompt.parse_special });
        }
        let mut chat = model.chat()?;
        if let Some(system) = &self.prompt.system {
            chat.system(system);
        }
        Ok(Speaker::Partner(chat))
    }

    fn options(&self, recommended: &SamplingParams) -> GenerateOptions {
        let mut options = GenerateOptions::new();
        options.max_tokens = self.prompt.predict.and_then(|Limit(limit)| limit);
        options.sampling = self.sampling.params(recommended);
        options.stop.clone_from(&self.prompt.stop);
        options.ignore_end = self.prompt.ignore_eos;
        options
    }

    fn answer_once(
        &self,
        speaker: &mut Speaker,
        prompt: &str,
        options: GenerateOptions,
        model: &Source,
        output: &mut Output,
    ) -> Result<(), Failure> {
        // A person sees the text that is completed as a whole; a pipe gets what the model wrote.
        if output.terminal && !self.verbosity.json && matches!(speaker, Speaker::Completer { .. }) {
            output.aside(prompt)?;
        }
        let show = !self.verbosity.json;
        let completion = speaker.answer(prompt, options, show, output)?;
        if self.verbosity.json {
            output.json(&object(&completion, model))?;
        } else if output.terminal {
            output.close_line()?;
        }
        report::after_answer(&completion, self.verbosity, output);
        if completion.finish_reason == FinishReason::Cancelled { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn converse(
        &self,
        speaker: Speaker,
        options: GenerateOptions,
        interrupt: &Interrupt,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if self.verbosity.json {
            return Err(Failure::usage("--json needs a prompt", "give one as an argument, with -f, or by a pipe"));
        }
        let mut talk = Talk { arguments: self, speaker, options, interrupt };
        dialogue::hold(&mut talk, output)
    }
}

/// Who answers: the bare model, or the model in the part of the assistant.
enum Speaker {
    Completer { session: Session, parse_special: bool },
    Partner(Chat),
}

impl Speaker {
    fn answer(
        &mut self,
        prompt: &str,
        options: GenerateOptions,
        show: bool,
        output: &mut Output,
    ) -> Result<Completion, Failure> {
        match self {
            Self::Completer { session, parse_special } => {
                let mut stream = match parse_special {
                    true => session.stream_parsed(prompt, options)?,
                    false => session.stream(prompt, options)?,
                };
                print(&mut stream, show, output)?;
                Ok(stream.finish())
            }
            Self::Partner(chat) => {
                let mut stream = chat.stream(prompt, options)?;
                print(&mut stream, show, output)?;
                Ok(stream.finish())
            }
        }
    }
}

fn print(
    stream: &mut dyn Iterator<Item = Result<Chunk, woolly::Error>>,
    show: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    for chunk in stream {
        let chunk = chunk?;
        if show {
            output.model_text(chunk.text())?;
        }
    }
    Ok(())
}

/// One answer after another at a terminal.
struct Talk<'a> {
    arguments: &'a Arguments,
    speaker: Speaker,
    options: GenerateOptions,
    interrupt: &'a Interrupt,
}

impl Answerer for Talk<'_> {
    fn answer(&mut self, line: &str, output: &mut Output) -> Result<(), Failure> {
        let options = self.options.clone().cancel_with(&self.interrupt.renew());
        let completion = self.speaker.answer(line, options, true, output)?;
        output.close_line()?;
        report::after_answer(&completion, self.arguments.verbosity, output);
        Ok(())
    }
}

fn object(completion: &Completion, model: &Source) -> serde_json::Value {
    let Completion { text, finish_reason, usage, timings, seed, .. } = completion;
    let stop = match finish_reason {
        FinishReason::StopString(text) => Some(text),
        _ => None,
    };
    json!({
        "model": model.to_string(),
        "text": text,
        "finish_reason": finish_reason.name(),
        "stop": stop,
        "seed": seed,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens(),
        },
        "timings": report::timings_object(timings),
    })
}
