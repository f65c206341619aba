//! Text for language models: tokenizers, incremental decoding, stop strings and chat templates, all from the metadata of
//! a GGUF file.

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
