//! Text for language models: tokenizers, incremental decoding, stop strings and chat templates, all from the metadata of
//! a GGUF file.
//!
//! - [`Tokenizer`] turns text into token ids and back. The kinds `llama` (SentencePiece), `gpt2` (byte-level byte-pair
//!   encoding, with the pre-tokenizers of the models in use) and `gemma4` are implemented, without regular expressions:
//!   time grows with n log n at worst, and the stack not at all.
//! - [`StreamDecoder`] gives the text of ids that arrive one at a time, and never half a character.
//! - [`StopMatcher`] ends a text at stop strings and never shows a part of one.
//! - [`ChatTemplate`] turns a conversation into a prompt with the model's own Jinja template, within limits on work,
//!   output and depth.
//!
//! ```
//! use woolly_gguf::{Metadata, Value};
//! use woolly_text::{ChatTemplate, RenderInput, Tokenizer};
//!
//! # fn main() -> Result<(), woolly_text::Error> {
//! let mut metadata = Metadata::new();
//! metadata.insert("tokenizer.ggml.model", "llama".into());
//! metadata.insert("tokenizer.ggml.tokens", Value::strings(["<unk>", "<s>", "</s>", "▁Hi", "▁", "H", "i", "Hi"]));
//! metadata.insert("tokenizer.ggml.token_type", vec![2, 3, 3, 1, 1, 1, 1, 1].into());
//! metadata.insert("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}</s>{% endfor %}".into());
//!
//! let tokenizer = Tokenizer::from_metadata(&metadata)?;
//! assert_eq!(tokenizer.encode("Hi", true, false), [1, 3]);
//! assert_eq!(tokenizer.decode(&[1, 3], false)?, "Hi");
//!
//! let messages = serde_json::json!([{"role": "user", "content": "Hi"}]);
//! let template = ChatTemplate::from_metadata(&metadata, &tokenizer);
//! assert_eq!(template.encode(&tokenizer, &RenderInput::new(&messages))?, [1, 3, 2]);
//! # Ok(())
//! # }
//! ```
//!
//! A model file is not trusted: what does not fit together is an [`Error`] that names the key. Normalisation of text,
//! samplers and everything that computes with tokens are not here.

#![forbid(unsafe_code)]

mod alphabet;
mod chat;
mod error;
mod index;
mod model;
mod partition;
mod pretokenize;
mod special;
mod stop;
mod stream;
mod tokenizer;
mod vocab;

pub use chat::{ChatTemplate, LocalTime, RenderInput};
pub use error::Error;
pub use special::Special;
pub use stop::{StopMatcher, Stopped};
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use vocab::TokenType;
