//! woolly-lamb, the small model that ships with Woolly: something to run before anything is downloaded.
//!
//! It writes small stories, holds short conversations, answers from a passage and calls tools; `models/woolly-lamb.md` says
//! how it was trained and how well it does. It is ours, under the licence of the code.

use woolly_gguf::{GGUFLoader, SharedBytes};

use crate::Error;

/// Name by which the command line and error messages speak of the model.
pub const NAME: &str = "woolly-lamb";

static BYTES: &[u8] = include_bytes!("../../../models/woolly-lamb-Q8_0.gguf");

/// Opens the model, which is part of this program; pass it to [`Model::from_gguf`](crate::Model::from_gguf).
///
/// # Errors
/// None but those of [`GGUFLoader::from_bytes`] on a file that was damaged when the program was built.
pub fn open() -> Result<GGUFLoader, Error> {
    Ok(GGUFLoader::from_bytes(SharedBytes::from_static(BYTES))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn it_loads_and_has_what_a_chat_needs() {
        let model = Model::from_gguf(&open().expect("a valid file")).expect("a supported model");
        assert_eq!(model.config().architecture, "llama");
        assert!(model.chat().is_ok(), "it has a chat template");
        assert!(BYTES.len() <= 8 << 20, "the program stays small");
    }
}
