//! `woolly tokenize`: text to token ids and back, without loading the model.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use woolly::Tokenizer;

use crate::arguments::{Positional, model_and_text};
use crate::failure::Failure;
use crate::input;
use crate::output::Output;
use crate::source::Source;

/// Turn text into token ids, or back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples: woolly tokenize model.gguf \"Once upon a time\"
          woolly tokenize model.gguf --ids < text.txt | woolly tokenize model.gguf --decode")]
pub(crate) struct Arguments {
    #[command(flatten)]
    positional: Positional,
    /// Model file in GGUF format.
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Text to tokenise.
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the text.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the ids alone, separated by spaces.
    #[arg(long)]
    ids: bool,
    /// The text is a list of ids: print the text they stand for.
    #[arg(long, conflicts_with = "ids")]
    decode: bool,
    /// Put no token in front that begins a text.
    #[arg(long)]
    no_bos: bool,
    /// Take the names of control tokens as text.
    #[arg(long)]
    no_parse_special: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Failure> {
        let (model, text) = model_and_text(self.model.clone(), std::mem::take(&mut self.positional))?;
        let loader = Source::new(model, "tokenize")?.open()?;
        let tokenizer = Tokenizer::from_metadata(loader.metadata()).map_err(woolly::Error::from)?;
        let text = match input::text(text.or(self.prompt.clone()), self.file.as_deref())? {
            Some(text) => text,
            None => return Err(Failure::usage("no text given", "give it as an argument, with -f, or by a pipe")),
        };
        let ids = match self.decode {
            true => parse_ids(&text)?,
            false => tokenizer.encode(&text, !self.no_bos, !self.no_parse_special),
        };
        self.print(&tokenizer, &ids, output)
    }

    fn print(&self, tokenizer: &Tokenizer, ids: &[u32], output: &mut Output) -> Result<(), Failure> {
        let decoded = tokenizer.decode(ids, true).map_err(woolly::Error::from)?;
        let piece = |&id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()).into_owned();
        if self.json {
            let pieces: Vec<String> = ids.iter().map(piece).collect();
            return output.json(&json!({"ids": ids, "pieces": pieces, "count": ids.len(), "text": decoded}));
        }
        if self.decode {
            let text = tokenizer.decode(ids, false).map_err(woolly::Error::from)?;
            return output.text(&text).and_then(|()| if output.terminal { output.close_line() } else { Ok(()) });
        }
        if self.ids {
            return output.line(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
        }
        ids.iter().try_for_each(|id| output.line(&format!("{id:>6} {:?}", piece(id))))
    }
}

/// Reads ids separated by spaces, line ends, commas or brackets, so that a list in JSON is understood too.
fn parse_ids(text: &str) -> Result<Vec<u32>, Failure> {
    let words = text.split(|c: char| c.is_whitespace() || ",[]".contains(c)).filter(|word| !word.is_empty());
    let id = |word: &str| {
        let wrong = |_| Failure::usage(format!("`{word}` is no token id"), "give ids separated by spaces");
        word.parse().map_err(wrong)
    };
    words.map(id).collect()
}
