//! One sequence on one decoder: prefill in chunks, then a token a step.
//!
//! There are tokens known and tokens computed; a run only ever lets the second catch up with the first and then adds
//! one. What was computed stays, so that a later prompt with the same beginning starts behind it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use woolly_model::{Decoder, Step};
use woolly_tensor::{BLOCK_TOKENS, Batch, Sequence};

use crate::{CancelToken, Candidates, Error, FinishReason, Request, SamplerChain, Timings, check_prompt};

/// A decoder and the sequence in its cache.
pub struct Generator {
    decoder: Box<dyn Decoder>,
    sequence: KnownSequence,
    /// `[max_outputs, vocab_size]`, reused by every step.
    pub(crate) logits: Vec<f32>,
    candidates: Candidates,
    context: usize,
}

/// The tokens of a sequence, of which the cache holds the first `computed`.
struct KnownSequence {
    ids: Vec<u32>,
    computed: usize,
    /// Cache blocks in the order of positions: all of the decoder's.
    blocks: Vec<u32>,
}

impl Generator {
    /// Takes over a decoder; sequences may grow to `context` tokens, or to what its cache holds if that is less.
    pub fn new(mut decoder: Box<dyn Decoder>, context: usize) -> Self {
        decoder.use_in_order();
        let blocks: Vec<u32> = (0_u32..).take(decoder.cache_blocks()).collect();
        let context = context.min(blocks.len() * BLOCK_TOKENS);
        let vocab_size = decoder.config().vocab_size;
        let logits = vec![0.0; decoder.max_outputs() * vocab_size];
        let candidates = Candidates::with_capacity(vocab_size);
        // One more than the context: the last token is known, but never computed.
        let sequence = KnownSequence { ids: Vec::with_capacity(context + 1), computed: 0, blocks };
        Self { decoder, sequence, logits, candidates, context }
    }

    /// Returns the most tokens a sequence can have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Returns the tokens whose keys and values are in the cache.
    pub fn cached(&self) -> &[u32] {
        &self.sequence.ids[..self.sequence.computed]
    }

    /// Forgets the cached tokens.
    pub fn clear(&mut self) {
        self.sequence.ids.clear();
        self.sequence.computed = 0;
    }

    /// Begins to continue a prompt; nothing is computed before the first [`Generation::next`].
    ///
    /// Cached tokens that the prompt begins with are reused.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::UnknownToken`], [`Error::Parameter`]; the cache is as
    /// before then.
    pub fn start(&mut self, request: Request<'_>) -> Result<Generation<'_>, Error> {
        self.check_prompt(request.prompt)?;
        let mut chain = SamplerChain::new(&request.sampling, self.vocab_size(), self.context)?;
        request.prompt.iter().for_each(|&id| chain.accept(id));
        let cached_tokens = self.sequence.restart(request.prompt);
        let timings = Timings { prompt_tokens: request.prompt.len(), cached_tokens, ..Timings::default() };
        let limit = request.max_tokens.unwrap_or(usize::MAX);
        let Request { end_ids, cancel, .. } = request;
        Ok(Generation { generator: self, chain, limit, end_ids, cancel, timings, finish: None })
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.decoder.config().vocab_size
    }

    pub(crate) fn max_rows(&self) -> usize {
        self.decoder.max_rows()
    }

    pub(crate) fn max_outputs(&self) -> usize {
        self.decoder.max_outputs()
    }

    pub(crate) fn check_prompt(&self, prompt: &[u32]) -> Result<(), Error> {
        check_prompt(prompt, self.context, self.vocab_size())
    }

    /// Replaces the sequence by `ids`, keeping what the cache holds of their beginning.
    pub(crate) fn restart(&mut self, ids: &[u32]) {
        self.sequence.restart(ids);
    }

    pub(crate) fn computed(&self) -> usize {
        self.sequence.computed
    }

    /// Computes the next `rows` known tokens and leaves the logits of the named ones (`[outputs, vocab_size]`).
    pub(crate) fn compute(&mut self, rows: usize, outputs: &[u32]) -> Result<(), Error> {
        let Self { decoder, sequence, logits, .. } = self;
        let start = sequence.computed;
        let sequences = [Sequence { rows: 0..rows, start, blocks: &sequence.blocks }];
        let batch = Batch { sequences: &sequences };
        let step = Step { ids: &sequence.ids[start..start + rows], batch, outputs };
        let wanted = outputs.len() * decoder.config().vocab_size;
        decoder.forward(step, &mut logits[..wanted])?;
        sequence.computed += rows;
        Ok(())
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("context", &self.context)
            .field("cached", &self.sequence.computed)
            .finish_non_exhaustive()
    }
}

impl KnownSequence {
    /// Replaces the tokens; returns how many stay computed. The last one never does: its logits are wanted.
    fn restart(&mut self, ids: &[u32]) -> usize {
        let cached = &self.ids[..self.computed];
        let common = cached.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.computed = common.min(ids.len().saturating_sub(1));
        self.ids.clear();
        self.ids.extend_from_slice(ids);
        self.computed
    }
}

/// A run in progress: an iterator of token ids that may be dropped at any point.
#[derive(Debug)]
pub struct Generation<'a> {
    generator: &'a mut Generator,
    chain: SamplerChain,
    /// Most tokens to generate.
    limit: usize,
    end_ids: Arc<[u32]>,
    cancel: CancelToken,
    timings: Timings,
    finish: Option<FinishReason>,
}

impl Iterator for Generation<'_> {
    type Item = Result<u32, Error>;

    /// Computes and draws the next token; does not allocate. An error is the last item and empties the cache, which
    /// may hold what led to it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() {
            return None;
        }
        match self.advance() {
            Ok(Ok(id)) => Some(Ok(id)),
            Ok(Err(reason)) => {
                self.finish = Some(reason);
                None
            }
            Err(error) => {
                self.generator.clear();
                self.finish = Some(FinishReason::Failed);
                Some(Err(error))
            }
        }
    }
}

impl Generation<'_> {
    /// Returns why there is no further token, or `None` while there may be.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Returns counts and durations so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Returns the seed of the draws.
    pub fn seed(&self) -> u64 {
        self.chain.seed()
    }

    /// Lets the computed tokens catch up with the known ones and adds one, or says why not.
    fn advance(&mut self) -> Result<Result<u32, FinishReason>, Error> {
        if self.generator.sequence.ids.len() > self.generator.context {
            return Ok(Err(FinishReason::ContextFull));
        }
        // Checked before the step of the token drawn last, which nobody would see the result of.
        if self.timings.generated_tokens >= self.limit && self.timings.generated_tokens > 0 {
            return Ok(Err(FinishReason::Length));
        }
        if !self.catch_up()? {
            return Ok(Err(FinishReason::Cancelled));
        }
        if self.limit == 0 {
            return Ok(Err(FinishReason::Length));
        }
        let id = self.draw()?;
        Ok(if self.end_ids.contains(&id) { Err(FinishReason::EndOfGeneration(id)) } else { Ok(self.append(id)) })
    }

    /// Computes every known token; returns `false` when cancelled before that.
    fn catch_up(&mut self) -> Result<bool, Error> {
        let begin = Instant::now();
        let done = self.compute_known();
        let time = begin.elapsed();
        if self.timings.generated_tokens == 0 {
            self.timings.prompt_time += time;
        } else {
            self.timings.decode_steps += 1;
            self.timings.decode_time += time;
        }
        done
    }

    fn compute_known(&mut self) -> Result<bool, Error> {
        let known = self.generator.sequence.ids.len();
        while self.generator.computed() < known {
            if self.cancel.is_cancelled() {
                return Ok(false);
            }
            let missing = known - self.generator.computed();
            let rows = missing.min(self.generator.max_rows());
            let last = [rows as u32 - 1];
            self.generator.compute(rows, if rows == missing { &last } else { &[] })?;
        }
        Ok(true)
    }

    fn draw(&mut self) -> Result<u32, Error> {
        let begin = Instant::now();
        let vocab_size = self.generator.vocab_size();
        let Generator { logits, candidates, .. } = &mut *self.generator;
        let id = self.chain.sample(&logits[..vocab_size], candidates)?;
        self.timings.decode_time += begin.elapsed();
        Ok(id)
    }

    fn append(&mut self, id: u32) -> u32 {
        self.chain.accept(id);
        self.generator.sequence.ids.push(id);
        self.timings.generated_tokens += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;
    use crate::fake::{Counting, END, VOCAB};

    fn request(prompt: &[u32]) -> Request<'_> {
        Request {
            prompt,
            max_tokens: None,
            sampling: SamplingParams::greedy(),
            end_ids: Arc::from([END]),
            cancel: CancelToken::new(),
        }
    }

    fn ids(generation: &mut Generation<'_>) -> Vec<u32> {
        generation.map(|id| id.expect("no failure")).collect()
    }

    fn generator(context: usize, max_rows: usize) -> Generator {
        Generator::new(Box::new(Counting::new(64, max_rows)), context)
    }

    #[test]
    fn each_way_to_end_is_named() {
        let cancelled = CancelToken::new();
        cancelled.cancel();
        let base = || request(&[5, 6]);
        // The fake model counts upwards, so that what follows 6 is known.
        let cases = [
            (base(), 64, vec![7, 8, 9], FinishReason::EndOfGeneration(END)),
            (Request { max_tokens: Some(2), ..base() }, 64, vec![7, 8], FinishReason::Length),
            (Request { max_tokens: Some(0), ..base() }, 64, vec![], FinishReason::Length),
            (base(), 3, vec![7, 8], FinishReason::ContextFull),
            (base(), 2, vec![7], FinishReason::ContextFull),
            (Request { cancel: cancelled, ..base() }, 64, vec![], FinishReason::Cancelled),
            (
                Request { end_ids: Arc::from([]), max_tokens: Some(5), ..base() },
                64,
                vec![7, 8, 9, 10, 11],
                FinishReason::Length,
            ),
        ];
        for (request, context, expected, reason) in cases {
            let mut generator = generator(context, 16);
            let mut generation = generator.start(request).expect("accepted");
            assert_eq!(generation.finish_reason(), None);
            assert_eq!((ids(&mut generation), generation.finish_reason()), (expected, Some(reason)));
            assert!(generation.next().is_none(), "{reason:?} is final");
        }
    }

    #[test]
    fn prompts_that_cannot_be_served_are_refused_with_their_numbers() {
        let mut generator = generator(3, 16);
        assert!(matches!(generator.start(request(&[])), Err(Error::EmptyPrompt)));
        let long = generator.start(request(&[1, 2, 3, 4]));
        assert!(matches!(long, Err(Error::PromptTooLong { n_prompt: 4, n_ctx: 3 })));
        let unknown = generator.start(request(&[1, VOCAB as u32]));
        assert!(matches!(unknown, Err(Error::UnknownToken { index: 1, vocab_size: VOCAB, .. })));
        let hot = SamplingParams { temperature: f32::NAN, ..SamplingParams::default() };
        let wrong = generator.start(Request { sampling: hot, ..request(&[1]) });
        assert!(matches!(wrong, Err(Error::Parameter { name: "temperature", .. })));
    }

    #[test]
    fn prefill_is_cut_into_chunks_and_asks_only_for_the_last_logits() {
        let decoder = Counting::new(64, 4);
        let steps = decoder.steps.clone();
        let mut generator = Generator::new(Box::new(decoder), 64);
        let prompt: Vec<u32> = (20..30).collect();
        let mut generation = generator.start(Request { max_tokens: Some(2), ..request(&prompt) }).expect("accepted");
        assert_eq!(ids(&mut generation), [30, 31]);
        let timings = generation.timings();
        assert_eq!((timings.prompt_tokens, timings.generated_tokens, timings.decode_steps), (10, 2, 1));
        // (first position, rows, logits): three chunks and one decode step.
        assert_eq!(*steps.lock().expect("unpoisoned"), [(0, 4, 0), (4, 4, 0), (8, 2, 1), (10, 1, 1)]);
    }

    #[test]
    fn a_common_beginning_is_not_computed_again() {
        let mut generator = generator(64, 16);
        let first = generator.start(request(&[3, 4, 5, 6])).map(|mut g| ids(&mut g)).expect("accepted");
        assert_eq!(first, [7, 8, 9]);
        let cases: [(&[u32], usize); 4] = [
            (&[3, 4, 5, 6, 7, 8, 20, 21], 6), // a further turn: all but what is new
            (&[3, 4, 5, 6, 7, 8, 20, 21], 7), // the same again: all but the last token
            (&[3, 4, 30], 2),                 // a different turn
            (&[1, 4, 30], 0),                 // another beginning
        ];
        for (prompt, cached) in cases {
            let mut generation = generator.start(Request { max_tokens: Some(1), ..request(prompt) }).expect("accepted");
            assert_eq!(ids(&mut generation), [prompt[prompt.len() - 1] + 1], "{prompt:?}");
            assert_eq!(generation.timings().cached_tokens, cached, "{prompt:?}");
        }
    }

    #[test]
    fn a_numeric_fault_ends_the_run_and_leaves_nothing_in_the_cache() {
        let mut decoder = Counting::new(64, 16);
        decoder.fault_at = Some(3);
        let mut generator = Generator::new(Box::new(decoder), 64);
        let mut generation = generator.start(request(&[5, 6])).expect("accepted");
        assert!(matches!(generation.next(), Some(Ok(7))));
        assert!(matches!(generation.next(), Some(Ok(8))));
        assert!(matches!(generation.next(), Some(Err(Error::NumericFault { .. }))));
        assert_eq!((generation.next().is_none(), generation.finish_reason()), (true, Some(FinishReason::Failed)));
        assert_eq!(generator.cached(), []);
    }

    #[test]
    fn a_dropped_run_keeps_what_it_computed() {
        let mut generator = generator(64, 16);
        let mut generation = generator.start(request(&[5, 6])).expect("accepted");
        generation.next();
        generation.next();
        drop(generation);
        assert_eq!(generator.cached(), [5, 6, 7]);
    }
}
