//! The block manager: sequences, their tables, and what they share.

use std::fmt;

use woolly_tensor::BLOCK_TOKENS;

use super::index::{Beginning, Index};
use super::ladder::{Cached, HELD_FULL, HELD_PART};
use super::lists::Lists;
use super::options::KvOptions;
use super::page::{Page, PageId, Published};
use super::stats::KvStats;

/// Where the contents of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In this block of the device.
    Device(u32),
    /// Compressed in memory, under this number.
    Packed(u32),
    /// In this slot of the spill file.
    File {
        /// Number of the slot.
        slot: u32,
        /// Whether they were compressed before.
        packed: bool,
    },
}

/// What has to happen to contents, in the order in which the manager returned it, before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy one block of the device to another.
    Copy {
        /// The block to read.
        from: u32,
        /// The block to write.
        to: u32,
    },
    /// Move contents to another place, compressing or decompressing them on the way.
    Move {
        /// Where they are.
        from: Place,
        /// Where they are needed.
        to: Place,
    },
    /// Forget contents and give their memory back.
    Forget(Place),
}

/// A sequence of the manager; to be given back by [`BlockManager::release`] or [`BlockManager::discard`].
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SeqId(u32);

/// A sequence just begun.
#[derive(Debug)]
pub struct Begun {
    /// Names it from now on.
    pub seq: SeqId,
    /// Tokens of its prompt that need not be computed; always fewer than the prompt has.
    pub cached_tokens: usize,
}

/// What becomes of the blocks of a preempted sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// They are kept as long as memory lasts, compressed or on file if need be, and forgotten from the end last of all.
    Hold,
    /// They count as unused from now on; the sequence computes again what is gone when it continues.
    Recompute,
}

/// There are not enough blocks, whatever gives way, while the other running sequences go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} cache blocks of 32 tokens are needed, but running sequences leave only {available} of {total}")]
pub struct NoSpace {
    /// Blocks needed in addition to those held.
    pub needed: usize,
    /// Blocks that could be had at most.
    pub available: usize,
    /// Blocks that could be had if nothing ran.
    pub total: usize,
}

/// Which block of the cache belongs to which sequence; see the [module](super).
pub struct BlockManager {
    pub(super) options: KvOptions,
    pub(super) pages: Vec<Page>,
    pub(super) unused: Vec<PageId>,
    pub(super) index: Index,
    pub(super) lists: Lists,
    pub(super) cached: Cached,
    pub(super) seqs: Vec<Seq>,
    pub(super) free_seqs: Vec<u32>,
    /// Sequences that are preempted, in that order.
    pub(super) preempted: Vec<u32>,
    pub(super) actions: Vec<Action>,
    /// Blocks of the device that are free and whose memory is in use.
    pub(super) dirty: Vec<u32>,
    /// Blocks of the device whose memory is not in use.
    pub(super) vacant: Vec<u32>,
    pub(super) packed_slots: Slots,
    pub(super) file_slots: Slots,
    /// Pages on the device with pins.
    pub(super) pinned: usize,
    pub(super) next_serial: u64,
    pub(super) stats: KvStats,
}

/// A sequence's table.
#[derive(Debug, Default)]
pub(super) struct Seq {
    pub(super) live: bool,
    /// Whether it may run: its pages are pinned.
    pub(super) active: bool,
    pub(super) salt: u64,
    pub(super) computed: usize,
    pub(super) pages: Vec<PageId>,
    /// Blocks of `pages`; valid while active and reserved.
    pub(super) table: Vec<u32>,
}

/// Numbers below a limit, the lowest free one first in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) limit: u32,
    pub(super) next: u32,
    pub(super) free: Vec<u32>,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: u32::try_from(limit).unwrap_or(u32::MAX), ..Self::default() }
    }

    pub(super) fn used(&self) -> usize {
        self.next as usize - self.free.len()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.next < self.limit
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            (slot < self.limit).then(|| {
                self.next += 1;
                slot
            })
        })
    }
}

impl BlockManager {
    /// Makes a manager of an empty cache.
    ///
    /// # Errors
    /// [`NoSpace`] when the limit of memory leaves room for no block at all.
    pub fn new(options: KvOptions) -> Result<Self, NoSpace> {
        let packed = options.packed_bytes.map_or(0, |bytes| options.max_bytes / bytes.max(1));
        let spilled = usize::try_from(options.spill_bytes).unwrap_or(usize::MAX) / options.block_bytes.max(1);
        // The tables have a fixed size: four times as many blocks elsewhere as on the device are plenty.
        let most = options.blocks.saturating_mul(2);
        let (packed, spilled) = (packed.min(most), spilled.min(most));
        let pages = options.blocks + packed + spilled;
        let vacant = (0..u32::try_from(options.blocks).unwrap_or(u32::MAX)).rev().collect();
        let seqs = std::iter::repeat_with(Seq::default).take(options.sequences).collect();
        let manager = Self {
            pages: vec![Page::UNUSED; pages],
            unused: (0..pages as PageId).rev().collect(),
            index: Index::new(pages),
            lists: Lists::new(Cached::LISTS, pages),
            cached: Cached::new(options.eviction),
            seqs,
            free_seqs: (0..options.sequences as u32).rev().collect(),
            preempted: Vec::with_capacity(options.sequences),
            actions: Vec::with_capacity(64),
            dirty: Vec::with_capacity(options.blocks),
            vacant,
            packed_slots: Slots::new(packed),
            file_slots: Slots::new(spilled),
            pinned: 0,
            next_serial: 0,
            stats: KvStats::default(),
            options,
        };
        if manager.usable() == 0 { Err(manager.no_space(1)) } else { Ok(manager) }
    }

    /// Returns how many tokens of a prompt need not be computed, as [`begin`](Self::begin) would find now.
    pub fn cached_tokens(&self, ids: &[u32], salt: u64) -> usize {
        let mut tokens = 0;
        self.find(ids, salt, |_, common| tokens += common);
        tokens
    }

    /// Returns how many further blocks a sequence of these `ids` and one more would need if it began now.
    pub fn blocks_to_begin(&self, ids: &[u32], salt: u64) -> usize {
        let mut pinned = 0;
        self.find(ids, salt, |page, common| {
            // A page that ends early is copied, so that sharing it saves no block.
            pinned += usize::from(common == BLOCK_TOKENS && self.pages[page as usize].pins > 0);
        });
        (ids.len() + 1).div_ceil(BLOCK_TOKENS) - pinned
    }

    /// Returns how many further blocks a preempted sequence of `tokens` tokens would need if it went on now.
    pub fn blocks_to_resume(&self, seq: &SeqId, tokens: usize) -> usize {
        let pages = &self.seq(seq.0).pages;
        let pinned = pages.iter().filter(|&&page| self.pages[page as usize].pins > 0).count();
        tokens.div_ceil(BLOCK_TOKENS).max(pages.len()) - pinned + usize::from(self.shared_last(seq.0).is_some())
    }

    /// Begins a sequence with what the cache has of its prompt; only prompts with the same `salt` share.
    ///
    /// At least the prompt's last token is left to compute. The tables grow to `most_tokens` without allocating. The
    /// sequence counts as running: what it found stays until it is preempted or released.
    pub fn begin(&mut self, ids: &[u32], salt: u64, most_tokens: usize) -> Begun {
        let number = self.free_seqs.pop().unwrap_or(self.seqs.len() as u32);
        if number as usize == self.seqs.len() {
            self.seqs.push(Seq::default());
        }
        let mut seq = std::mem::take(&mut self.seqs[number as usize]);
        let most = most_tokens.max(ids.len()).div_ceil(BLOCK_TOKENS).min(self.options.blocks);
        seq.pages.reserve(most);
        seq.table.reserve(most);
        (seq.live, seq.active, seq.salt, seq.computed) = (true, true, salt, 0);
        self.find(ids, salt, |page, common| {
            seq.pages.push(page);
            seq.computed += common;
        });
        for &page in &seq.pages {
            self.pages[page as usize].hits += 1;
            self.retain(page);
        }
        self.count_begun(&seq, ids.len());
        let cached_tokens = seq.computed;
        self.seqs[number as usize] = seq;
        Begun { seq: SeqId(number), cached_tokens }
    }

    /// Makes the next `rows` tokens of a sequence computable: brings back what is not on the device, gives it blocks of
    /// its own to write to, and lets it run if it was preempted.
    ///
    /// # Errors
    /// [`NoSpace`], and the sequence is as before; it may then be preempted or wait.
    pub fn reserve(&mut self, seq: &SeqId, rows: usize) -> Result<(), NoSpace> {
        let number = seq.0;
        let was_active = self.seq(number).active;
        self.activate(number);
        let needed = self.missing(number, rows);
        if self.pinned + needed > self.usable() && !self.take_over(number, needed) {
            let refused = self.no_space(needed);
            if !was_active {
                self.deactivate(number);
            }
            return Err(refused);
        }
        let needed = self.missing(number, rows);
        self.make_room(needed, self.packed_of(number));
        self.bring_back(number);
        self.own_last(number);
        self.extend(number, rows);
        Ok(())
    }

    /// Says that the next tokens of a sequence are computed; blocks they fill can be found by others from now on.
    ///
    /// # Panics
    /// When there are more of them than were reserved.
    pub fn commit(&mut self, seq: &SeqId, ids: &[u32]) {
        for &id in ids {
            let state = &mut self.seqs[seq.0 as usize];
            let (at, slot) = (state.computed / BLOCK_TOKENS, state.computed % BLOCK_TOKENS);
            assert!(at < state.pages.len(), "tokens were computed without room for them");
            let page = &mut self.pages[state.pages[at] as usize];
            debug_assert!(page.is_private() && page.len == slot, "a shared block was written to");
            page.tokens[slot] = id;
            page.len = slot + 1;
            state.computed += 1;
            if page.len == BLOCK_TOKENS {
                self.publish_full(seq.0, at);
            }
        }
    }

    /// Returns the number of tokens of a sequence whose keys and values exist: the start of its next step.
    ///
    /// It may have become smaller after the sequence was preempted or [`KvStore::carry_out`](super::KvStore::carry_out)
    /// failed.
    pub fn computed(&self, seq: &SeqId) -> usize {
        self.seq(seq.0).computed
    }

    /// Returns the blocks of a sequence in the order of positions, valid from [`reserve`](Self::reserve) to the next change.
    pub fn table(&self, seq: &SeqId) -> &[u32] {
        &self.seq(seq.0).table
    }

    /// Returns the computed tokens of a sequence, a block at a time.
    pub fn tokens(&self, seq: &SeqId) -> impl Iterator<Item = &[u32]> {
        let state = self.seq(seq.0);
        let length = |at: usize| state.computed.saturating_sub(at * BLOCK_TOKENS).min(BLOCK_TOKENS);
        let page = move |(at, &page): (usize, &PageId)| &self.pages[page as usize].tokens[..length(at)];
        state.pages.iter().enumerate().map(page)
    }

    /// Takes back the last tokens of a sequence, so that `tokens` stay computed: rejected guesses, say.
    pub fn truncate(&mut self, seq: &SeqId, tokens: usize) {
        self.cut(seq.0, tokens);
    }

    /// Ends a sequence; its blocks can be found by others until they are evicted.
    pub fn release(&mut self, seq: SeqId) {
        self.publish_part(seq.0);
        self.let_go(seq.0);
        self.forget_seq(seq.0);
    }

    /// Ends a sequence whose last step failed; what others cannot already find is forgotten.
    pub fn discard(&mut self, seq: SeqId) {
        self.let_go(seq.0);
        self.forget_seq(seq.0);
    }

    /// Stops a sequence for now, so that others can use its memory; [`reserve`](Self::reserve) lets it continue.
    pub fn preempt(&mut self, seq: &SeqId, how: Preemption) {
        if self.seq(seq.0).active {
            self.deactivate(seq.0);
        }
        if how == Preemption::Recompute {
            self.publish_part(seq.0);
            self.let_go(seq.0);
        }
    }

    /// Makes the limit of memory smaller or larger.
    ///
    /// # Errors
    /// [`NoSpace`] when running sequences need more; nothing has changed then.
    pub fn resize(&mut self, max_bytes: usize) -> Result<(), NoSpace> {
        let before = std::mem::replace(&mut self.options.max_bytes, max_bytes);
        if self.usable() < self.pinned.max(1) {
            let refused = self.no_space(self.pinned.max(1));
            self.options.max_bytes = before;
            return Err(refused);
        }
        self.make_room(0, 0);
        Ok(())
    }

    /// Returns what has to happen to contents before the next step and forgets it.
    pub fn take_actions(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.actions.drain(..)
    }

    /// Returns how many blocks running sequences could be given in all, if everything else gave way.
    pub fn total_blocks(&self) -> usize {
        self.usable()
    }

    /// Returns how many further blocks running sequences could be given at once.
    pub fn available_blocks(&self) -> usize {
        self.usable().saturating_sub(self.pinned)
    }

    /// Returns the most blocks that [`reserve`](Self::reserve) of `rows` tokens would take.
    pub fn blocks_needed(&self, seq: &SeqId, rows: usize) -> usize {
        self.missing(seq.0, rows)
    }

    /// Returns how many blocks would become available if the sequence did not run: those that no other running one uses.
    pub fn sole_blocks(&self, seq: &SeqId) -> usize {
        self.seq(seq.0).pages.iter().filter(|&&page| self.pages[page as usize].pins == 1).count()
    }

    /// Returns counters and the present use of memory.
    pub fn stats(&self) -> KvStats {
        KvStats {
            used_blocks: self.pinned + self.lists.len(HELD_FULL) + self.lists.len(HELD_PART),
            cached_blocks: self.cached.len(&self.lists),
            available_blocks: self.available_blocks(),
            device_bytes: self.resident() * self.options.block_memory,
            packed_bytes: self.packed_total(),
            overhead_bytes: self.overhead(),
            spilled_bytes: self.file_slots.used() as u64 * self.options.block_bytes as u64,
            ..self.stats
        }
    }

    /// Walks the pages that a prompt can use, with the number of tokens that each has in common with it.
    fn find(&self, ids: &[u32], salt: u64, mut found: impl FnMut(PageId, usize)) {
        let ids = &ids[..ids.len().saturating_sub(1)];
        let mut beginning = Beginning::root(salt);
        let mut rest = ids;
        while let Some((block, after)) = rest.split_at_checked(BLOCK_TOKENS) {
            let Some(page) = self.index.find(&self.pages, beginning, block) else { break };
            found(page, BLOCK_TOKENS);
            rest = after;
            let Some(next) = Beginning::after(&self.pages[page as usize]) else { return };
            beginning = next;
        }
        if let Some((page, common)) = self.index.find_part(&self.pages, beginning, rest) {
            found(page, common);
        }
    }

    fn count_begun(&mut self, seq: &Seq, prompt: usize) {
        self.stats.prompt_tokens += prompt as u64;
        self.stats.cached_tokens += seq.computed as u64;
        self.stats.hits += seq.pages.len() as u64;
        self.stats.misses += (prompt.div_ceil(BLOCK_TOKENS) - seq.pages.len()) as u64;
    }

    pub(super) fn seq(&self, number: u32) -> &Seq {
        &self.seqs[number as usize]
    }

    /// Returns the blocks that a step of `rows` tokens would need in addition.
    fn missing(&self, number: u32, rows: usize) -> usize {
        let seq = self.seq(number);
        let absent = |&&page: &&PageId| self.pages[page as usize].block().is_none();
        // A table is only ever complete while every page is on the device, so that a decode step need not look.
        let ready = seq.table.len() == seq.pages.len();
        let absent = if ready { 0 } else { seq.pages.iter().filter(absent).count() };
        let new = (seq.computed + rows).div_ceil(BLOCK_TOKENS).saturating_sub(seq.pages.len());
        absent + new + usize::from(self.shared_last(number).is_some())
    }

    /// Returns place in the table and page of the last, partly filled block if writing to it would be noticed.
    fn shared_last(&self, number: u32) -> Option<(usize, PageId)> {
        let seq = self.seq(number);
        let (at, filled) = (seq.computed / BLOCK_TOKENS, seq.computed % BLOCK_TOKENS);
        let page = *seq.pages.get(at).filter(|_| filled > 0)?;
        let last = &self.pages[page as usize];
        // Nobody misses a cached page that ends exactly where its only user goes on.
        let continued = last.refs == 1 && last.published == Published::Part && last.len == filled;
        (!last.is_private() && !continued).then_some((at, page))
    }

    /// Where one block is missing and the last one is shared with nobody but later prompts, takes it from them.
    fn take_over(&mut self, number: u32, needed: usize) -> bool {
        match self.shared_last(number) {
            Some((_, page)) if self.pages[page as usize].refs == 1 && self.pinned + needed == self.usable() + 1 => {
                self.index.withdraw(&mut self.pages, page);
                true
            }
            _ => false,
        }
    }

    /// Gives a sequence a private last block, by copying if need be. Blocks for it are there.
    fn own_last(&mut self, number: u32) {
        let filled = self.seq(number).computed % BLOCK_TOKENS;
        if filled == 0 {
            return;
        }
        if let Some((at, shared)) = self.shared_last(number) {
            let page = self.new_page();
            let [from, to] = [shared, page].map(|page| self.pages[page as usize].block());
            if let (Some(from), Some(to)) = (from, to) {
                self.actions.push(Action::Copy { from, to });
                self.seqs[number as usize].table[at] = to;
            }
            self.pages[page as usize].tokens = self.pages[shared as usize].tokens;
            self.pages[page as usize].exact = self.pages[shared as usize].exact;
            self.seqs[number as usize].pages[at] = page;
            self.stats.copies += 1;
            self.unpin(shared);
            self.unref(shared);
        }
        let seq = self.seq(number);
        let page = seq.pages[seq.computed / BLOCK_TOKENS];
        self.index.withdraw(&mut self.pages, page);
        self.pages[page as usize].len = filled;
    }

    /// Adds empty pages for `rows` further tokens. Blocks for them are there.
    fn extend(&mut self, number: u32, rows: usize) {
        let total = (self.seq(number).computed + rows).div_ceil(BLOCK_TOKENS);
        while self.seq(number).pages.len() < total {
            let page = self.new_page();
            let block = self.pages[page as usize].block();
            let seq = &mut self.seqs[number as usize];
            seq.pages.push(page);
            seq.table.extend(block);
        }
    }

    fn publish_full(&mut self, number: u32, at: usize) {
        let Some(beginning) = self.beginning(number, at) else { return };
        let page = self.seq(number).pages[at];
        let twin = self.index.find(&self.pages, beginning, &self.pages[page as usize].tokens);
        match twin.and_then(|twin| Some((twin, self.pages[twin as usize].block()?))) {
            Some((twin, block)) => {
                self.retain(twin);
                let seq = &mut self.seqs[number as usize];
                (seq.pages[at], seq.table[at]) = (twin, block);
                self.unpin(page);
                self.unref(page);
                self.stats.merged += 1;
            }
            None => self.publish(page, beginning),
        }
    }

    /// Returns what precedes the page at `at` of a sequence, or `None` when the page must not be found by others.
    fn beginning(&self, number: u32, at: usize) -> Option<Beginning> {
        let seq = self.seq(number);
        if !self.pages[seq.pages[at] as usize].exact {
            return None;
        }
        match at.checked_sub(1) {
            None => Some(Beginning::root(seq.salt)),
            Some(before) => Beginning::after(&self.pages[seq.pages[before] as usize]),
        }
    }

    fn publish(&mut self, page: PageId, beginning: Beginning) {
        let replaced = self.index.publish(&mut self.pages, page, beginning);
        if let Some(replaced) = replaced.filter(|&replaced| self.pages[replaced as usize].refs == 0) {
            self.lists.remove(replaced);
            self.free_page(replaced);
        }
    }

    /// Publishes the last, partly filled block of a sequence that ends, unless another holds as much.
    fn publish_part(&mut self, number: u32) {
        let seq = self.seq(number);
        let (at, filled) = (seq.computed / BLOCK_TOKENS, seq.computed % BLOCK_TOKENS);
        let Some(&page) = seq.pages.get(at).filter(|_| filled > 0) else { return };
        let Some(beginning) = self.beginning(number, at) else { return };
        let this = &self.pages[page as usize];
        if !this.is_private() || this.len != filled {
            return;
        }
        match self.index.find_part(&self.pages, beginning, this.known()) {
            Some((_, common)) if common == filled => (),
            Some((other, common)) if self.is_beginning(other, common) => {
                self.lists.remove(other);
                self.index.withdraw(&mut self.pages, other);
                self.free_page(other);
                self.publish(page, beginning);
            }
            _ => self.publish(page, beginning),
        }
    }

    /// Returns whether an unused partial page holds nothing but its first `common` tokens.
    fn is_beginning(&self, page: PageId, common: usize) -> bool {
        let page = &self.pages[page as usize];
        page.refs == 0 && page.len == common && page.published == Published::Part
    }

    /// Gives up all pages of a sequence, the last first, so that a beginning outlives what follows it.
    fn let_go(&mut self, number: u32) {
        self.withdraw_unreachable(number);
        self.cut_pages(number, 0);
        self.seqs[number as usize].computed = 0;
    }

    /// Hides what nobody can find because something before it cannot be found: it would only take room.
    fn withdraw_unreachable(&mut self, number: u32) {
        let full = |&&page: &&PageId| self.pages[page as usize].published == Published::Full;
        let reachable = self.seq(number).pages.iter().take_while(full).count() + 1;
        for at in reachable..self.seq(number).pages.len() {
            let page = self.seq(number).pages[at];
            self.index.withdraw(&mut self.pages, page);
        }
    }

    fn forget_seq(&mut self, number: u32) {
        self.preempted.retain(|&other| other != number);
        let seq = &mut self.seqs[number as usize];
        (seq.live, seq.active) = (false, false);
        self.free_seqs.push(number);
        self.audit_in_debug();
    }

    /// Takes tokens back to `tokens`.
    pub(super) fn cut(&mut self, number: u32, tokens: usize) {
        let seq = &mut self.seqs[number as usize];
        seq.computed = seq.computed.min(tokens);
        let (whole, filled) = (seq.computed.div_ceil(BLOCK_TOKENS), seq.computed % BLOCK_TOKENS);
        self.cut_pages(number, whole);
        let last = self.seq(number).pages.last().copied().filter(|_| filled > 0);
        if let Some(last) = last.filter(|&page| self.pages[page as usize].is_private()) {
            // A block that was full is in another list than one that is not.
            self.lists.remove(last);
            self.pages[last as usize].len = filled;
            self.settle(last);
        }
    }

    fn cut_pages(&mut self, number: u32, keep: usize) {
        while self.seq(number).pages.len() > keep {
            let seq = &mut self.seqs[number as usize];
            let Some(page) = seq.pages.pop() else { break };
            seq.table.truncate(seq.pages.len());
            if seq.active {
                self.unpin(page);
            }
            self.unref(page);
        }
    }

    fn activate(&mut self, number: u32) {
        let seq = &mut self.seqs[number as usize];
        if std::mem::replace(&mut seq.active, true) {
            return;
        }
        self.preempted.retain(|&other| other != number);
        for at in 0..self.seq(number).pages.len() {
            self.pin(self.seq(number).pages[at]);
        }
    }

    fn deactivate(&mut self, number: u32) {
        let seq = &mut self.seqs[number as usize];
        seq.active = false;
        seq.table.clear();
        self.preempted.push(number);
        for at in 0..self.seq(number).pages.len() {
            let page = self.seq(number).pages[at];
            self.unpin(page);
            self.settle(page);
        }
        self.audit_in_debug();
    }

    /// Adds a running sequence to a page.
    fn retain(&mut self, page: PageId) {
        self.pages[page as usize].refs += 1;
        self.pin(page);
    }

    fn pin(&mut self, page: PageId) {
        self.lists.remove(page);
        let this = &mut self.pages[page as usize];
        this.pins += 1;
        self.pinned += usize::from(this.pins == 1 && this.block().is_some());
    }

    fn unpin(&mut self, page: PageId) {
        let this = &mut self.pages[page as usize];
        this.pins -= 1;
        self.pinned -= usize::from(this.pins == 0 && this.block().is_some());
    }

    /// Takes one sequence off a page that the sequence does not pin any more.
    fn unref(&mut self, page: PageId) {
        self.pages[page as usize].refs -= 1;
        self.lists.remove(page);
        self.settle(page);
    }

    /// Puts a page into the list that its state asks for, or frees it.
    pub(super) fn settle(&mut self, page: PageId) {
        let this = &self.pages[page as usize];
        if this.pins > 0 || self.lists.of(page).is_some() {
            return;
        }
        if this.refs > 0 {
            self.lists.push(Cached::held_list(this), page);
        } else if this.published != Published::No && this.block().is_some() {
            self.cached.push(&mut self.lists, page, this.hits);
        } else {
            self.index.withdraw(&mut self.pages, page);
            self.free_page(page);
        }
    }
}

impl fmt::Debug for BlockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockManager").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
