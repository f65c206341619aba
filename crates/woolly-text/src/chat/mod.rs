//! Chat templates: the Jinja program in a model file that turns a conversation into a prompt.
//!
//! The environment is the one of Hugging Face transformers, for which templates are written. Templates come from
//! untrusted files: they can read nothing but their input, and work, output and depth are limited. A template that is
//! broken does not stop a model from loading; it is an error when it is used.

mod clock;
mod filters;
mod guard;
mod json;
mod methods;
mod python;
mod render;
mod value;

pub use clock::LocalTime;

use minijinja::Environment;
use serde_json::{Map, Value};
use woolly_gguf::Metadata;

use self::guard::Guarded;
use crate::error::Error;
use crate::tokenizer::Tokenizer;

const DEFAULT: &str = "tokenizer.chat_template";
/// The variant that models with several templates have for conversations with tools.
const TOOL_USE: &str = "tokenizer.chat_template.tool_use";

/// The chat template of a model, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    default: Result<Environment<'static>, Fault>,
    tool_use: Option<Result<Environment<'static>, Fault>>,
    bos_token: String,
    eos_token: String,
}

/// Why there is nothing to render.
#[derive(Clone, Debug)]
enum Fault {
    Absent,
    Bad(String),
}

impl Fault {
    fn to_error(&self) -> Error {
        match self {
            Self::Absent => Error::NoTemplate,
            Self::Bad(reason) => Error::BadTemplate { reason: reason.clone() },
        }
    }
}

/// What a template is rendered with.
#[derive(Clone, Debug)]
pub struct RenderInput<'a> {
    /// The conversation: an array of objects with `role`, `content` and whatever else the template knows.
    pub messages: &'a Value,
    /// The tools the model may call: an array of function descriptions.
    pub tools: Option<&'a Value>,
    /// Documents for retrieval.
    pub documents: Option<&'a Value>,
    /// Whether the prompt ends where the answer of the assistant begins.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`. They take precedence over the others.
    pub variables: Option<&'a Map<String, Value>>,
    /// What `strftime_now` tells.
    pub now: LocalTime,
}

impl<'a> RenderInput<'a> {
    /// The conversation `messages`, to be answered by the assistant, at the current time (UTC).
    pub fn new(messages: &'a Value) -> Self {
        Self {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: true,
            variables: None,
            now: LocalTime::now_utc(),
        }
    }
}

impl ChatTemplate {
    /// The template in `metadata`. Never fails: what is wrong with a template is told when it is used.
    pub fn from_metadata(metadata: &Metadata, tokenizer: &Tokenizer) -> Self {
        let compile = |key| match metadata.str(key) {
            Ok(None) => Err(Fault::Absent),
            Ok(Some(source)) => render::compile(source).map_err(Fault::Bad),
            Err(error) => Err(Fault::Bad(error.to_string())),
        };
        let text = |id: Option<u32>| {
            let bytes = id.and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        Self {
            default: compile(DEFAULT),
            tool_use: metadata.get(TOOL_USE).map(|_| compile(TOOL_USE)),
            bos_token: text(tokenizer.bos()),
            eos_token: text(tokenizer.eos()),
        }
    }

    /// A template given as text, with the texts of the BOS and EOS tokens.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Self {
        Self {
            default: render::compile(source).map_err(Fault::Bad),
            tool_use: None,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
        }
    }

    /// Whether there is a template and it compiles.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] or [`Error::BadTemplate`], as [`Self::render`] would give.
    pub fn check(&self) -> Result<(), Error> {
        self.default.as_ref().map(|_| ()).map_err(Fault::to_error)
    }

    /// The prompt for a conversation.
    ///
    /// The result usually begins with the text of the BOS token and contains the names of control tokens, so encode it
    /// with [`Tokenizer::encode_prompt`]. Names that a user wrote into a message are in there too, and indistinguishable;
    /// where users are not trusted, use [`Self::encode`].
    ///
    /// # Errors
    /// When there is no template, it is broken, refuses the conversation, exceeds a limit or fails.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, Error> {
        let with_tools = input.tools.is_some_and(|tools| !tools.is_null());
        let environment = match &self.tool_use {
            Some(tool_use) if with_tools => tool_use,
            _ => &self.default,
        };
        let environment = environment.as_ref().map_err(Fault::to_error)?;
        render::render(environment, input, &self.bos_token, &self.eos_token)
    }

    /// The ids of the prompt for a conversation, in which only the template, the assistant's messages and
    /// [`RenderInput::variables`] can produce control tokens.
    ///
    /// Names of control tokens in other messages, tools and documents are encoded as plain text; names of a single
    /// character excepted. User-defined tokens are recognised everywhere, as in all text.
    ///
    /// # Errors
    /// As [`Self::render`], and when the conversation contains all of the noncharacters U+FDD0 to U+FDEF.
    pub fn encode(&self, tokenizer: &Tokenizer, input: &RenderInput<'_>) -> Result<Vec<u32>, Error> {
        let reason = "the conversation contains every noncharacter from U+FDD0 to U+FDEF";
        let names = tokenizer.control_names();
        let guarded = Guarded::new(input, &names).ok_or_else(|| Error::Render { reason: reason.to_owned() })?;
        let prompt = self.render(&guarded.input(input))?;
        Ok(tokenizer.encode_marked(&prompt, Some(guarded.mark)))
    }
}
