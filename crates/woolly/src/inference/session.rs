//! A caller's view of an engine: how its requests count and what they share.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use woolly_engine::kv::SessionError;
use woolly_engine::{Request, Stats, Submission};
use woolly_text::StopMatcher;

use super::answer::{Answer, AnswerStream, Inference};
use super::service::Service;
use super::{BatchingMode, CacheConfig};
use crate::session::{TextOut, without_end};
use crate::{Error, GenerateOptions, Model};

/// What can be said about a session. Batching and the size and storage of the cache are the same for all sessions that
/// are open on an engine.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The key-value cache.
    pub cache_config: CacheConfig,
    /// When requests are computed together.
    pub batching: BatchingMode,
    /// How [`InferenceSession::infer`] generates. By default at most 256 tokens, otherwise as everywhere.
    pub generation: GenerateOptions,
    /// Whom the tokens are counted for, such as an API key: flows get equal shares of a busy engine. The empty name is
    /// a flow like any other.
    pub flow: String,
    /// The flow's share relative to others; above 0, by default 1.
    pub weight: f64,
    /// Larger is served first and gives way last; 0 by default.
    pub priority: i32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            cache_config: CacheConfig::default(),
            batching: BatchingMode::default(),
            generation: GenerateOptions::new().max_tokens(256),
            flow: String::new(),
            weight: 1.0,
            priority: 0,
        }
    }
}

/// Asks an engine; may be used by several threads and tasks at once.
pub struct InferenceSession {
    service: Arc<Service>,
    config: SessionConfig,
    flow: Arc<str>,
    salt: u64,
}

impl InferenceSession {
    pub(super) fn new(service: Arc<Service>, config: SessionConfig) -> Self {
        let salt = service.salt(config.cache_config.shared_cache);
        let flow = config.flow.as_str().into();
        Self { service, config, flow, salt }
    }

    /// Returns the model.
    pub fn model(&self) -> &Model {
        self.service.model()
    }

    /// Returns the ids of a plain text, with whatever begins a sequence in front.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let tokenizer = self.model().tokenizer();
        without_end(tokenizer.encode(text, true, false), tokenizer)
    }

    /// Continues token ids. The request is handed in at once; the result is awaited under any executor, or waited for
    /// with [`Inference::wait`]. Dropping it cancels the request.
    ///
    /// Errors come with the result: [`Error::Engine`] when the prompt is empty or does not fit, or too many wait.
    pub fn infer(&self, tokens: &[u32]) -> Inference {
        self.infer_with(tokens, self.config.generation.clone())
    }

    /// Continues token ids in another way than the session's own; see [`infer`](Self::infer).
    pub fn infer_with(&self, tokens: &[u32], options: GenerateOptions) -> Inference {
        Inference::new(self.submit(tokens, options, tokens.len() > 1))
    }

    /// Continues a plain text piece by piece. The request is handed in at once; dropping the stream cancels it.
    ///
    /// # Errors
    /// [`Error::Engine`] when the prompt is empty or does not fit, an option is out of range, or too many wait.
    pub fn stream(&self, prompt: &str, options: GenerateOptions) -> Result<AnswerStream, Error> {
        Ok(AnswerStream::new(self.submit(&self.encode(prompt), options, !prompt.is_empty())?))
    }

    /// Continues token ids piece by piece; see [`stream`](Self::stream).
    ///
    /// # Errors
    /// As [`stream`](Self::stream); [`Error::Engine`] for an id that the model does not know.
    pub fn stream_ids(&self, tokens: &[u32], options: GenerateOptions) -> Result<AnswerStream, Error> {
        Ok(AnswerStream::new(self.submit(tokens, options, tokens.len() > 1)?))
    }

    /// Writes what the cache has of these tokens, a conversation so far, to a file; returns how many that are. A later
    /// session that [`restore`](Self::restore)s it need not compute them again, but for those of the last block of 32.
    ///
    /// Waits for the step in progress, and the engine computes nothing meanwhile. A file that is there is replaced when the
    /// new one is complete.
    ///
    /// # Errors
    /// [`Error::Engine`] when the file cannot be written, or running requests leave no room to bring blocks back.
    pub fn save(&self, tokens: &[u32], path: impl AsRef<Path>) -> Result<usize, Error> {
        let (path, mut partial) = (path.as_ref(), path.as_ref().as_os_str().to_owned());
        partial.push(".partial");
        let file = File::create(&partial).map_err(failed)?;
        let saved = self.service.engine().save_session(tokens, self.salt, self.service.fingerprint(), file);
        let placed = saved.map_err(Error::from).and_then(|saved| {
            fs::rename(&partial, path).map_err(failed)?;
            Ok(saved)
        });
        if placed.is_err() {
            // What is left of it is of no use; that it cannot be removed either is no second error.
            let _ = fs::remove_file(&partial);
        }
        placed
    }

    /// Reads what [`save`](Self::save) wrote; returns its tokens. Only the same model with the same type of cache accepts it.
    ///
    /// # Errors
    /// [`Error::Engine`] when the file is missing, damaged, from another model or another version, or larger than the cache.
    pub fn restore(&self, path: impl AsRef<Path>) -> Result<Vec<u32>, Error> {
        let file = File::open(path).map_err(failed)?;
        let restored = self.service.engine().restore_session(self.salt, self.service.fingerprint(), file)?;
        Ok(restored.ids)
    }

    /// Returns what the engine has done for all its sessions.
    pub fn stats(&self) -> Stats {
        self.service.engine().stats()
    }

    /// Hands a request in; `continued` when its answer goes on in the middle of the prompt's text.
    fn submit(&self, prompt: &[u32], options: GenerateOptions, continued: bool) -> Result<Answer, Error> {
        let GenerateOptions { max_tokens, sampling, stop, ignore_end, cancel } = options;
        let matcher = StopMatcher::new(&stop)?;
        let model = self.model();
        let end_ids = if ignore_end { [].into() } else { model.end_ids() };
        let tokens = self.service.engine().submit(Submission {
            request: Request { prompt, max_tokens, sampling, end_ids, cancel },
            flow: self.flow.clone(),
            weight: self.config.weight,
            priority: self.config.priority,
            salt: self.salt,
        })?;
        let decoder = model.tokenizer().stream();
        let decoder = if continued { decoder.continuing() } else { decoder };
        Ok(Answer::new(tokens, TextOut { decoder, matcher, stop }, self.service.clone()))
    }
}

/// A file of a session could not be opened, written or put in its place.
fn failed(error: io::Error) -> Error {
    woolly_engine::Error::from(SessionError::from(error)).into()
}

impl std::fmt::Debug for InferenceSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InferenceSession").field("config", &self.config).finish_non_exhaustive()
    }
}
