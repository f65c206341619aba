//! A conversation in the form of the model's own template.

use serde_json::{Value, json};
use woolly_text::RenderInput;

use crate::completion::{Chunk, Completion};
use crate::{Error, GenerateOptions, Model, Session, Stream};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or another role the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Makes a message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A conversation: the messages so far, and a session that has computed them.
///
/// Each turn renders all messages anew; the session computes only what is new in the result. What the user says cannot
/// contain control tokens: their names are taken as text.
#[derive(Debug)]
pub struct Chat {
    session: Session,
    messages: Vec<Message>,
}

impl Chat {
    pub(crate) fn new(session: Session) -> Result<Self, Error> {
        session.model().template().check()?;
        Ok(Self { session, messages: Vec::new() })
    }

    /// Sets what the model is told about its task, as the first message.
    pub fn system(&mut self, text: impl Into<String>) {
        self.messages.retain(|message| message.role != "system");
        self.messages.insert(0, Message::new("system", text));
    }

    /// Returns the messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Replaces the messages, for example by those of an earlier conversation.
    pub fn set_messages(&mut self, messages: Vec<Message>) {
        self.messages = messages;
    }

    /// Returns the model.
    pub fn model(&self) -> &Model {
        self.session.model()
    }

    /// Says `text` as the user and returns the whole answer.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), or what ended the answer early.
    pub fn send(&mut self, text: &str, options: GenerateOptions) -> Result<Completion, Error> {
        let mut stream = self.stream(text, options)?;
        for chunk in &mut stream {
            chunk?;
        }
        Ok(stream.finish())
    }

    /// Says `text` as the user and returns the answer as it is made.
    ///
    /// What the answer holds when the stream is finished or dropped becomes the assistant's message; if that is
    /// nothing, the user's message is taken back.
    ///
    /// # Errors
    /// [`Error::Text`] when the template refuses the conversation, and as [`Session::stream`]; the conversation is as
    /// before then.
    pub fn stream(&mut self, text: &str, options: GenerateOptions) -> Result<ChatStream<'_>, Error> {
        let user = Message::new("user", text);
        let prompt = self.encode(&user)?;
        let stream = self.session.stream_turn(&prompt, options)?;
        Ok(ChatStream { stream, messages: &mut self.messages, user: Some(user) })
    }

    /// Returns the ids of the conversation so far and one more message.
    fn encode(&self, user: &Message) -> Result<Vec<u32>, Error> {
        let object = |message: &Message| json!({"role": message.role, "content": message.content});
        let messages: Value = self.messages.iter().chain([user]).map(object).collect();
        let model = self.session.model();
        Ok(model.template().encode(model.tokenizer(), &RenderInput::new(&messages))?)
    }
}

/// An answer of a conversation in progress: an iterator over pieces of text.
#[derive(Debug)]
pub struct ChatStream<'a> {
    stream: Stream<'a>,
    messages: &'a mut Vec<Message>,
    user: Option<Message>,
}

impl Iterator for ChatStream<'_> {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.stream.next()
    }
}

impl ChatStream<'_> {
    /// Ends the answer here, keeps it in the conversation and returns it with counts and timings.
    pub fn finish(self) -> Completion {
        self.stream.completion()
    }

    fn record(&mut self) {
        let text = self.stream.text();
        if let Some(user) = self.user.take_if(|_| !text.is_empty()) {
            self.messages.extend([user, Message::new("assistant", text)]);
        }
    }
}

impl Drop for ChatStream<'_> {
    fn drop(&mut self) {
        self.record();
    }
}
