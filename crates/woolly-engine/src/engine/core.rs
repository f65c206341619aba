//! The engine thread: takes requests in, plans a step, computes it, hands tokens out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use woolly_model::{Decoder, Step};
use woolly_tensor::{BLOCK_TOKENS, Batch, Sequence};

use super::desk::{Closing, Desk};
use super::slot::Slot;
use super::stats::{add, set};
use super::store::Store;
use crate::schedule::{Cached, CostModel, Load, Plan, Policy, Queue, RequestId, State, Waiting, Work, plan};
use crate::{Candidates, Error, FinishReason};

/// Everything that the engine thread owns.
pub(crate) struct Core {
    pub(crate) desk: Arc<Desk>,
    decoder: Box<dyn Decoder>,
    store: Store,
    policy: Policy,
    queue: Queue,
    cost: CostModel,
    slots: HashMap<RequestId, Slot>,
    /// In order of their start.
    running: Vec<RequestId>,
    context: usize,
    /// No part of a step goes beyond a multiple of this position: how attention is cut may depend on where a part ends.
    grid: usize,
    began: Instant,
    buffers: Buffers,
}

/// What a step needs, kept from one to the next.
struct Buffers {
    ids: Vec<u32>,
    outputs: Vec<u32>,
    /// `[max_outputs, vocab_size]`.
    logits: Vec<f32>,
    candidates: Candidates,
}

/// A part of a step that has its blocks.
#[derive(Clone, Copy, Debug)]
struct Item {
    id: RequestId,
    rows: usize,
    /// Whether these are the last of its known tokens, so that the next one is drawn.
    draws: bool,
}

impl Core {
    pub(crate) fn new(
        desk: Arc<Desk>,
        decoder: Box<dyn Decoder>,
        store: Store,
        policy: Policy,
        queue: Queue,
        context: usize,
        grid: usize,
    ) -> Self {
        let vocab_size = decoder.config().vocab_size;
        let buffers = Buffers {
            ids: Vec::with_capacity(policy.max_rows),
            outputs: Vec::with_capacity(policy.max_sequences),
            logits: vec![0.0; policy.max_sequences * vocab_size],
            candidates: Candidates::with_capacity(vocab_size),
        };
        Self {
            desk,
            decoder,
            store,
            policy,
            queue,
            cost: CostModel::default(),
            slots: HashMap::new(),
            running: Vec::new(),
            context,
            grid,
            began: Instant::now(),
            buffers,
        }
    }

    /// Works until the engine is closed.
    pub(crate) fn run(mut self) {
        self.decoder.adopt_thread();
        while self.turn() {}
        let ids: Vec<RequestId> = self.slots.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, Err(Error::Stopped)));
    }

    /// Does one step, or waits for something to do; returns whether to go on.
    fn turn(&mut self) -> bool {
        let closing = self.receive();
        if closing == Closing::Now || closing == Closing::Drain && self.slots.is_empty() {
            return false;
        }
        let plan = self.plan();
        self.report();
        match plan.wait_until {
            _ if !plan.work.is_empty() || !plan.preempt.is_empty() => self.execute(&plan),
            // While draining nobody else will come.
            Some(until) if closing == Closing::Open => self.desk.wait(Some(self.began + until)),
            Some(_) => self.policy.gather.max_wait = Duration::ZERO,
            None if self.slots.is_empty() => {
                self.store.check();
                self.desk.wait(None);
            }
            None => self.make_progress(),
        }
        true
    }

    /// Takes in what was handed in and drops what is no longer wanted.
    fn receive(&mut self) -> Closing {
        let news = self.desk.news(self.queue.len());
        for slot in news.arrivals {
            self.queue.set_weight(&slot.flow, slot.weight);
            self.queue.add(slot.waiting(self.began));
            self.slots.insert(slot.id, slot);
        }
        if let Some(max_bytes) = news.max_bytes {
            self.resize(max_bytes);
        }
        news.errands.into_iter().for_each(|errand| (errand.0)(&mut self.store, &mut *self.decoder));
        let flagged = self.slots.values().filter(|slot| slot.is_cancelled()).map(|slot| slot.id);
        let cancelled: Vec<RequestId> = flagged.chain(news.abandoned).collect();
        for id in cancelled {
            self.end(id, Ok(FinishReason::Cancelled));
        }
        news.closing
    }

    /// Changes the limit of memory; who no longer fits waits, the newest first.
    fn resize(&mut self, max_bytes: usize) {
        while !self.store.resize(max_bytes) {
            let Some(&newest) = self.running.last() else { return };
            self.preempt(newest);
        }
    }

    fn plan(&self) -> Plan {
        let running: Vec<_> = self.running.iter().filter_map(|id| self.slots.get(id)?.active(&self.store)).collect();
        let cached = |waiting: &Waiting, starting: &[RequestId]| match self.slots.get(&waiting.id) {
            None => Cached::default(),
            Some(Slot { seq: Some(seq), tokens, .. }) => self.store.resume(seq, tokens.len()),
            Some(slot) => {
                let found = self.store.lookup(&slot.tokens, slot.salt);
                Cached { pending: self.is_pending(slot, found.tokens, starting), ..found }
            }
        };
        let state = State {
            now: self.began.elapsed(),
            running: &running,
            queue: &self.queue,
            free_blocks: self.store.free(),
            total_blocks: self.store.total(),
            cached: &cached,
            cost: &self.cost,
        };
        plan(&self.policy, &state)
    }

    /// Whether a request that runs, or starts in this step, is about to compute a beginning that `slot` shares and that the
    /// cache has not yet: one prefill then serves both.
    fn is_pending(&self, slot: &Slot, cached: usize, starting: &[RequestId]) -> bool {
        let others = self.running.iter().chain(starting).filter_map(|id| self.slots.get(id));
        let mut computing = others.filter(|other| other.salt == slot.salt && other.tokens.len() - other.computed > 1);
        computing.any(|other| {
            let pairs = slot.tokens.iter().zip(&other.tokens);
            let common = pairs.take_while(|(a, b)| a == b).count() / BLOCK_TOKENS * BLOCK_TOKENS;
            common > other.computed.max(cached)
        })
    }

    pub(crate) fn report(&self) {
        let counters = &self.desk.counters;
        set(&counters.running, self.running.len());
        set(&counters.waiting, self.queue.len());
        set(&counters.blocks_total, self.store.total());
        set(&counters.blocks_used, self.store.total() - self.store.free());
        self.store.report(counters);
    }

    fn execute(&mut self, plan: &Plan) {
        plan.preempt.iter().for_each(|&id| self.preempt(id));
        plan.admit.iter().for_each(|&id| self.start(id));
        let items = self.reserve(&plan.work);
        self.report();
        if items.is_empty() {
            // After a preemption the next plan sees what that made free.
            if plan.preempt.is_empty() {
                self.make_progress();
            }
            return;
        }
        if self.store.prepare(&mut *self.decoder).is_err() {
            return self.take_stock();
        }
        let load = self.load(&items);
        let begin = Instant::now();
        let done = self.compute(&items);
        let time = begin.elapsed();
        self.count(&load, time);
        match done {
            Ok(()) => {
                self.cost.observe(&load, time.as_secs_f64() * 1000.0);
                self.advance(&items);
            }
            Err(error) => self.isolate(&items, error),
        }
    }

    fn load(&self, items: &[Item]) -> Load {
        let mut load = Load::default();
        for item in items {
            let Some(slot) = self.slots.get(&item.id) else { continue };
            load.add(slot.computed, item.rows, slot.tokens.len() - slot.computed == 1);
        }
        load
    }

    fn count(&self, load: &Load, time: Duration) {
        let counters = &self.desk.counters;
        add(&counters.steps, 1);
        counters.busy_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        add(&counters.decode_rows, load.decode_rows);
        add(&counters.computed_prompt_tokens, load.prefill_tokens);
    }

    /// Takes a running request's blocks; it goes on later, and its answer stays the same.
    fn preempt(&mut self, id: RequestId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if let Some(seq) = &slot.seq {
            self.store.preempt(seq);
        }
        slot.runs = false;
        slot.timings.preemptions += 1;
        self.running.retain(|&running| running != id);
        self.queue.add(slot.waiting(self.began));
        self.queue.stop(&slot.flow);
        add(&self.desk.counters.preemptions, 1);
    }

    /// Lets a waiting request run, with blocks for all of its tokens.
    fn start(&mut self, id: RequestId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let seq = match slot.seq.take() {
            Some(seq) => seq,
            None => self.store.begin(&slot.tokens, slot.salt),
        };
        let computed = self.store.computed(&seq);
        if !self.store.reserve(&seq, slot.tokens.len() - computed) {
            // It waits on; a sequence that never ran keeps no blocks.
            match slot.chain {
                Some(_) => slot.seq = Some(seq),
                None => self.store.end(seq, false),
            }
            return;
        }
        slot.seq = Some(seq);
        if slot.chain.is_none() {
            add(&self.desk.counters.prompt_tokens, slot.tokens.len());
            add(&self.desk.counters.cached_tokens, computed);
        }
        let started = slot.start(computed, self.decoder.config().vocab_size, self.context);
        self.queue.start(id, slot.tokens.len() - computed);
        self.running.push(id);
        if let Err(error) = started {
            self.end(id, Err(error));
        }
    }

    /// Makes sure of the blocks for what is to be computed; what gets none is left for a later step.
    fn reserve(&mut self, work: &[Work]) -> Vec<Item> {
        let mut items = Vec::with_capacity(work.len());
        for &Work { id, rows } in work {
            let Some(slot) = self.slots.get(&id).filter(|slot| slot.runs) else { continue };
            let Some(seq) = &slot.seq else { continue };
            // All of a prompt at once, so that a later step does not find them taken.
            let missing = slot.tokens.len() - slot.computed;
            if self.store.reserve(seq, missing) {
                let rows = rows.min(missing).min(self.grid - slot.computed % self.grid);
                items.push(Item { id, rows, draws: rows == missing });
            }
        }
        items
    }

    /// Contents were lost on the way: what is left of each sequence decides what it computes again.
    fn take_stock(&mut self) {
        add(&self.desk.counters.lost_steps, 1);
        for id in &self.running {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            slot.computed = slot.seq.as_ref().map_or(0, |seq| self.store.computed(seq));
        }
    }

    /// Computes the items in one step; logits of those that draw lie in their order.
    fn compute(&mut self, items: &[Item]) -> Result<(), Error> {
        let Self { slots, store, decoder, buffers, .. } = self;
        let Buffers { ids, outputs, logits, .. } = buffers;
        ids.clear();
        outputs.clear();
        let mut sequences = Vec::with_capacity(items.len());
        for item in items {
            let Some(slot) = slots.get(&item.id) else { continue };
            let Some(seq) = &slot.seq else { continue };
            let first = ids.len();
            ids.extend_from_slice(&slot.tokens[slot.computed..slot.computed + item.rows]);
            sequences.push(Sequence { rows: first..ids.len(), start: slot.computed, blocks: store.blocks(seq) });
            if item.draws {
                outputs.extend(u32::try_from(ids.len() - 1));
            }
        }
        let wanted = outputs.len() * decoder.config().vocab_size;
        let batch = Batch { sequences: &sequences };
        Ok(decoder.forward(Step { ids, batch, outputs }, &mut logits[..wanted])?)
    }

    /// After a step: what was computed counts, and who is complete draws a token.
    fn advance(&mut self, items: &[Item]) {
        let mut row = 0;
        for item in items {
            let Some(slot) = self.slots.get_mut(&item.id) else { continue };
            if let Some(seq) = &slot.seq {
                self.store.commit(seq, &slot.tokens[slot.computed..slot.computed + item.rows]);
            }
            slot.computed += item.rows;
            if item.draws {
                let ending = self.draw(item.id, row);
                row += 1;
                if let Some(outcome) = ending {
                    self.end(item.id, outcome);
                }
            }
        }
    }

    /// Draws a token from a row of logits; returns how the request ends, if it does.
    fn draw(&mut self, id: RequestId, row: usize) -> Option<Result<FinishReason, Error>> {
        let vocab_size = self.decoder.config().vocab_size;
        let Buffers { logits, candidates, .. } = &mut self.buffers;
        let slot = self.slots.get_mut(&id)?;
        let logits = &logits[row * vocab_size..][..vocab_size];
        let token = match slot.chain.as_mut()?.sample(logits, candidates) {
            Ok(token) => token,
            Err(error) => return Some(Err(error)),
        };
        let known = slot.tokens.len();
        let reason = slot.draw(token, self.context);
        if slot.tokens.len() > known {
            add(&self.desk.counters.generated_tokens, 1);
            self.queue.charge_output(&slot.flow);
        }
        reason.map(Ok)
    }

    /// A step failed: computes its parts one by one, so that only those fail that fail alone.
    fn isolate(&mut self, items: &[Item], error: Error) {
        if let [item] = items {
            return self.end(item.id, Err(error));
        }
        for item in items {
            match self.compute(&[*item]) {
                Ok(()) => self.advance(&[*item]),
                Err(error) => self.end(item.id, Err(error)),
            }
        }
    }

    /// Nothing could be planned though there are requests: the cache has become too small for them. The newest gives way,
    /// and one that does not fit though nothing runs never will.
    fn make_progress(&mut self) {
        match self.running.last() {
            Some(&newest) => self.preempt(newest),
            None => self.refuse_next(),
        }
    }

    fn refuse_next(&mut self) {
        let next = self.queue.in_order(self.began.elapsed(), self.policy.max_queue).next().map(|w| (w.id, w.known));
        let cache_tokens = self.store.total() * BLOCK_TOKENS;
        if let Some((id, n_prompt)) = next {
            self.end(id, Err(Error::CacheTooSmall { n_prompt, cache_tokens }));
        }
    }

    /// Ends a request, wherever it is, and frees what it holds.
    fn end(&mut self, id: RequestId, outcome: Result<FinishReason, Error>) {
        let Some(mut slot) = self.slots.remove(&id) else { return };
        if let Some(seq) = slot.seq.take() {
            self.store.end(seq, outcome.is_err());
        }
        if slot.runs {
            self.running.retain(|&running| running != id);
            self.queue.stop(&slot.flow);
        } else {
            self.queue.remove(id);
        }
        // Before the asker learns of it, so that the counters never lag behind what is known; and what it held before it
        // counts as finished, so that whoever waits for that finds it freed.
        self.report();
        let counters = &self.desk.counters;
        add(&counters.finished, 1);
        match &outcome {
            Err(_) => add(&counters.failed, 1),
            Ok(FinishReason::Cancelled) => add(&counters.cancelled, 1),
            Ok(_) => {}
        }
        slot.end(outcome);
    }
}
