//! A context that answers one prompt after another and keeps what it has computed.

use woolly_engine::{Generation, Generator, Request};
use woolly_text::{StopMatcher, StreamDecoder};

use crate::completion::{Chunk, Completion, FinishReason, Usage};
use crate::inference::record;
use crate::{Error, GenerateOptions, Model};

/// One sequence of tokens with its keys and values.
///
/// A prompt that begins like what the session already holds is computed only from where it differs.
#[derive(Debug)]
pub struct Session {
    model: Model,
    generator: Generator,
}

/// Text or ids to continue.
enum Prompt<'a> {
    Text(&'a str),
    /// Text in which names of control tokens are these tokens.
    Parsed(&'a str),
    Ids(&'a [u32]),
    /// The ids of a conversation, whose answer is a text of its own.
    Turn(&'a [u32]),
}

impl Session {
    pub(crate) fn new(model: Model, generator: Generator) -> Self {
        Self { model, generator }
    }

    /// Returns the model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the most tokens that prompt and answer can have together.
    pub fn context(&self) -> usize {
        self.generator.context()
    }

    /// Continues `prompt` and returns the whole answer.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), or what ended the answer early.
    pub fn generate(&mut self, prompt: &str, options: GenerateOptions) -> Result<Completion, Error> {
        self.stream(prompt, options)?.complete()
    }

    /// Continues `prompt` piece by piece; nothing is computed before the first piece is asked for.
    ///
    /// The prompt is plain text: what looks like a control token in it stays text.
    /// [`stream_parsed`](Self::stream_parsed) takes it for one.
    ///
    /// # Errors
    /// [`Error::Engine`] when the prompt is empty or does not fit or an option is out of range, naming it.
    pub fn stream(&mut self, prompt: &str, options: GenerateOptions) -> Result<Stream<'_>, Error> {
        self.start(Prompt::Text(prompt), options)
    }

    /// Continues `prompt`, in which the names of control tokens stand for these tokens, as in a chat template's output.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_parsed(&mut self, prompt: &str, options: GenerateOptions) -> Result<Stream<'_>, Error> {
        self.start(Prompt::Parsed(prompt), options)
    }

    /// Continues token ids piece by piece; nothing is put in front of them.
    ///
    /// # Errors
    /// As [`stream`](Self::stream); [`Error::Engine`] for an id the model does not know.
    pub fn stream_ids(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Stream<'_>, Error> {
        self.start(Prompt::Ids(ids), options)
    }

    /// Answers a conversation in the form of a template.
    pub(crate) fn stream_turn(&mut self, ids: &[u32], options: GenerateOptions) -> Result<Stream<'_>, Error> {
        self.start(Prompt::Turn(ids), options)
    }

    fn start(&mut self, prompt: Prompt<'_>, options: GenerateOptions) -> Result<Stream<'_>, Error> {
        let GenerateOptions { max_tokens, sampling, stop, ignore_end, cancel } = options;
        let matcher = StopMatcher::new(&stop)?;
        let ids = self.encode(&prompt);
        let decoder = self.model.tokenizer().stream();
        let decoder = if prompt.is_continued() { decoder.continuing() } else { decoder };
        let end_ids = if ignore_end { [].into() } else { self.model.end_ids() };
        let generation = self.generator.start(Request { prompt: &ids, max_tokens, sampling, end_ids, cancel })?;
        Ok(Stream { generation, text: TextOut { decoder, matcher, stop }, answer: String::new(), finish: None })
    }

    fn encode(&self, prompt: &Prompt<'_>) -> Vec<u32> {
        let tokenizer = self.model.tokenizer();
        match *prompt {
            Prompt::Ids(ids) | Prompt::Turn(ids) => ids.to_vec(),
            Prompt::Text(text) => without_end(tokenizer.encode(text, true, false), tokenizer),
            Prompt::Parsed(text) => without_end(tokenizer.encode(text, true, true), tokenizer),
        }
    }
}

impl Prompt<'_> {
    /// Whether the answer goes on in the middle of the prompt's text, so that a space in front of it counts.
    fn is_continued(&self) -> bool {
        match self {
            Self::Text(text) | Self::Parsed(text) => !text.is_empty(),
            Self::Turn(_) => false,
            Self::Ids(ids) => ids.len() > 1,
        }
    }
}

/// A text to continue must not end in EOS, which some vocabularies add.
pub(crate) fn without_end(mut ids: Vec<u32>, tokenizer: &woolly_text::Tokenizer) -> Vec<u32> {
    if tokenizer.add_eos() && ids.last().copied() == tokenizer.eos() {
        ids.pop();
    }
    ids
}

/// An answer in progress: an iterator over pieces of text. Dropping it stops the computation.
#[derive(Debug)]
pub struct Stream<'a> {
    generation: Generation<'a>,
    text: TextOut,
    /// All pieces so far.
    answer: String,
    finish: Option<FinishReason>,
}

/// From ids to the text that may be shown.
#[derive(Debug)]
pub(crate) struct TextOut {
    pub(crate) decoder: StreamDecoder,
    pub(crate) matcher: StopMatcher,
    pub(crate) stop: Vec<String>,
}

impl Iterator for Stream<'_> {
    type Item = Result<Chunk, Error>;

    /// Returns the next piece that is complete: whole characters, and no part of a stop string.
    fn next(&mut self) -> Option<Self::Item> {
        while self.finish.is_none() {
            let text = match self.advance() {
                Ok(text) => text,
                Err(error) => {
                    self.finish = Some(FinishReason::Failed);
                    return Some(Err(error));
                }
            };
            if !text.is_empty() {
                self.answer.push_str(&text);
                return Some(Ok(Chunk { text }));
            }
        }
        None
    }
}

impl Stream<'_> {
    /// Ends the answer here and returns it with counts and timings; complete if the iterator was run to its end.
    pub fn finish(self) -> Completion {
        self.completion()
    }

    pub(crate) fn completion(&self) -> Completion {
        let timings = self.generation.timings();
        Completion {
            text: self.answer.clone(),
            finish_reason: self.finish.clone().unwrap_or(FinishReason::Cancelled),
            usage: Usage {
                prompt_tokens: timings.prompt_tokens,
                cached_tokens: timings.cached_tokens,
                completion_tokens: timings.generated_tokens,
            },
            timings,
            seed: self.generation.seed(),
        }
    }

    /// Runs to the end and returns the whole answer.
    ///
    /// # Errors
    /// What ended the answer early; use the iterator and [`finish`](Self::finish) to keep the part before it.
    pub fn complete(mut self) -> Result<Completion, Error> {
        for chunk in &mut self {
            chunk?;
        }
        Ok(self.finish())
    }

    /// Returns the text so far.
    pub fn text(&self) -> &str {
        &self.answer
    }

    /// Takes one more token and returns the text that became certain; sets `finish` at the end.
    fn advance(&mut self) -> Result<String, Error> {
        match self.generation.next().transpose()? {
            Some(id) => {
                let (text, stop) = self.text.push(id)?;
                self.finish = stop.map(FinishReason::StopString);
                Ok(text)
            }
            None => {
                let (text, stop) = self.text.finish();
                let engine = self.generation.finish_reason();
                self.finish = Some(stop.map_or_else(|| FinishReason::from_engine(engine), FinishReason::StopString));
                Ok(text)
            }
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        record(&self.generation.timings());
    }
}

impl TextOut {
    /// Returns the text that may be shown, and the stop string if one was completed.
    pub(crate) fn push(&mut self, id: u32) -> Result<(String, Option<String>), Error> {
        let Self { decoder, matcher, stop } = self;
        let found = matcher.push(decoder.push(id)?);
        Ok((found.text.to_owned(), found.stop.and_then(|index| stop.get(index).cloned())))
    }

    /// Returns what was held back: first the bytes of a broken character, then the beginnings of stop strings.
    pub(crate) fn finish(&mut self) -> (String, Option<String>) {
        let Self { decoder, matcher, stop } = self;
        let found = matcher.push(decoder.finish());
        let (mut text, stopped) = (found.text.to_owned(), found.stop.and_then(|index| stop.get(index).cloned()));
        text.push_str(matcher.finish());
        (text, stopped)
    }
}
