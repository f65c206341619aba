//! What gives way when memory is short, in order: unused blocks, then blocks of preempted sequences (compressed, written
//! to the file, forgotten). Running sequences keep theirs.

use woolly_tensor::BLOCK_TOKENS;

use super::lists::Lists;
use super::manager::{Action, BlockManager, NoSpace, Place, Seq};
use super::options::EvictionPolicy;
use super::page::{Page, PageId};

/// Levels of frequency that are told apart.
const RING: u8 = 16;
/// Full pages of preempted sequences on the device.
pub(super) const HELD_FULL: u8 = RING;
/// Partly filled ones, which are never compressed: what lies behind their last token is not defined.
pub(super) const HELD_PART: u8 = RING + 1;
/// Compressed pages of preempted sequences.
pub(super) const PACKED: u8 = RING + 2;
/// Pages of preempted sequences in the file.
pub(super) const FILE: u8 = RING + 3;

/// Unused pages in the order in which they go.
///
/// The least frequently used of all is the oldest page of the lowest level that has any. A page starts as many levels
/// above the level that went last as it was used, so that what arrives later overtakes what is no longer found (LFU with
/// dynamic ageing).
#[derive(Clone, Copy, Debug)]
pub(super) struct Cached {
    policy: EvictionPolicy,
    lowest: u8,
}

impl Cached {
    /// Number of lists it and the ladder need.
    pub(super) const LISTS: u8 = RING + 4;

    pub(super) fn new(policy: EvictionPolicy) -> Self {
        Self { policy, lowest: 0 }
    }

    pub(super) fn push(&self, lists: &mut Lists, page: PageId, hits: u32) {
        let above = match self.policy {
            EvictionPolicy::LRU => 0,
            EvictionPolicy::LFU => u8::try_from(hits).unwrap_or(u8::MAX).saturating_add(1).min(RING - 1),
        };
        lists.push((self.lowest + above) % RING, page);
    }

    /// Returns the page to go next, which stays where it is.
    fn next(&mut self, lists: &Lists) -> Option<PageId> {
        let levels = (0..RING).map(|above| (self.lowest + above) % RING);
        let (level, page) = levels.filter_map(|level| Some((level, lists.oldest(level)?))).next()?;
        self.lowest = level;
        Some(page)
    }

    pub(super) fn len(&self, lists: &Lists) -> usize {
        (0..RING).map(|level| lists.len(level)).sum()
    }

    /// Returns whether a list is one of unused pages.
    pub(super) fn is_cached(list: u8) -> bool {
        list < RING
    }

    /// Returns the list of a page that only preempted sequences hold.
    pub(super) fn held_list(page: &Page) -> u8 {
        match page.place {
            Some(Place::Packed(_)) => PACKED,
            Some(Place::File { .. }) => FILE,
            _ if page.len == BLOCK_TOKENS => HELD_FULL,
            _ => HELD_PART,
        }
    }
}

impl BlockManager {
    /// Bytes that do not depend on what is cached: the manager's tables and the buffers for moving contents.
    pub(super) fn overhead(&self) -> usize {
        // A page has its record, its links in lists and index, and its share of two maps that are at most half full: up to
        // five places of 33 bytes in each, as maps have a power of two of them.
        const PAGE: usize = size_of::<Page>() + 32 + 2 * 5 * 33;
        // The manager itself, its list of actions, and what small maps take at least.
        const FIXED: usize = 4096;
        // A sequence has a page and a block for each place of its table.
        let sequence = size_of::<Seq>() + 2 * size_of::<u32>() * self.options.blocks;
        // One block on its way, as it is and compressed.
        let buffers = self.options.block_bytes + self.options.packed_bytes.unwrap_or(0);
        self.pages.len() * PAGE + self.options.sequences * sequence + FIXED + buffers
    }

    /// Bytes of compressed blocks of one sequence.
    pub(super) fn packed_of(&self, number: u32) -> usize {
        let packed = |&&page: &&PageId| matches!(self.pages[page as usize].place, Some(Place::Packed(_)));
        let seq = self.seq(number);
        let ready = seq.table.len() == seq.pages.len();
        let count = if ready { 0 } else { seq.pages.iter().filter(packed).count() };
        count * self.options.packed_bytes.unwrap_or(0)
    }

    pub(super) fn packed_total(&self) -> usize {
        self.packed_slots.used() * self.options.packed_bytes.unwrap_or(0)
    }

    /// Blocks of the device whose memory is in use.
    pub(super) fn resident(&self) -> usize {
        self.options.blocks - self.vacant.len()
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.resident() * self.options.block_memory + self.packed_total() + self.overhead()
    }

    /// Blocks that the limit of memory allows on the device if nothing is anywhere else.
    pub(super) fn usable(&self) -> usize {
        let bytes = self.options.max_bytes.saturating_sub(self.overhead());
        (bytes / self.options.block_memory.max(1)).min(self.options.blocks)
    }

    pub(super) fn no_space(&self, needed: usize) -> NoSpace {
        NoSpace { needed, available: self.available_blocks(), total: self.usable() }
    }

    /// Makes `blocks` blocks of the device free. The caller has seen that there are as many, pinned ones aside, and will
    /// first of all use them for contents whose present place has `leaving` bytes.
    pub(super) fn make_room(&mut self, blocks: usize, leaving: usize) {
        while self.grantable(leaving) < blocks || self.used_bytes() > self.options.max_bytes {
            let progress = self.vacate() || self.evict() || self.pack() || self.spill() || self.drop_tail();
            debug_assert!(progress, "nothing gives way, though there should be room");
            if !progress {
                return;
            }
        }
    }

    /// Blocks that can be handed out as things are, once `leaving` bytes are free.
    fn grantable(&self, leaving: usize) -> usize {
        let bytes = (self.options.max_bytes + leaving).saturating_sub(self.used_bytes());
        self.dirty.len() + self.vacant.len().min(bytes / self.options.block_memory.max(1))
    }

    /// Over the limit, gives back the memory of a free block.
    fn vacate(&mut self) -> bool {
        if self.used_bytes() <= self.options.max_bytes {
            return false;
        }
        let Some(block) = self.dirty.pop() else { return false };
        self.actions.push(Action::Forget(Place::Device(block)));
        self.vacant.push(block);
        true
    }

    fn evict(&mut self) -> bool {
        let Some(page) = self.cached.next(&self.lists) else { return false };
        self.lists.remove(page);
        self.index.withdraw(&mut self.pages, page);
        self.free_page(page);
        self.stats.evictions += 1;
        true
    }

    fn pack(&mut self) -> bool {
        let allowed = self.options.packed_bytes.is_some() && self.packed_slots.has_room();
        let Some(page) = self.lists.oldest(HELD_FULL).filter(|_| allowed) else { return false };
        let Some(slot) = self.packed_slots.take() else { return false };
        // What has lost precision is for those who hold it; nobody else may find it.
        self.index.withdraw(&mut self.pages, page);
        self.pages[page as usize].exact = false;
        self.relocate(page, Place::Packed(slot));
        self.stats.packed += 1;
        true
    }

    fn spill(&mut self) -> bool {
        let candidates = [HELD_FULL, HELD_PART, PACKED].into_iter();
        let Some(page) = candidates.filter_map(|list| self.lists.oldest(list)).next() else { return false };
        let Some(slot) = self.file_slots.take() else { return false };
        let packed = matches!(self.pages[page as usize].place, Some(Place::Packed(_)));
        self.relocate(page, Place::File { slot, packed });
        self.stats.spilled += 1;
        true
    }

    /// Takes the last page off the sequence that was preempted last.
    fn drop_tail(&mut self) -> bool {
        let with_pages = |&&number: &&u32| !self.seq(number).pages.is_empty();
        let Some(&number) = self.preempted.iter().rev().find(with_pages) else { return false };
        let keep = self.seq(number).pages.len() - 1;
        self.cut(number, keep * BLOCK_TOKENS);
        self.stats.dropped += 1;
        true
    }

    /// Moves a page that no running sequence holds.
    fn relocate(&mut self, page: PageId, to: Place) {
        self.lists.remove(page);
        let Some(from) = self.pages[page as usize].place.replace(to) else { return };
        self.actions.push(Action::Move { from, to });
        self.vacate_place(from);
        self.settle(page);
    }

    /// Returns a fresh page on the device, held by one running sequence. A block for it is there.
    pub(super) fn new_page(&mut self) -> PageId {
        let page = self.unused.pop().expect("there is a page for every place that contents can have");
        let place = Some(Place::Device(self.take_block()));
        self.next_serial += 1;
        self.pages[page as usize] = Page { place, refs: 1, pins: 1, serial: self.next_serial, ..Page::UNUSED };
        self.pinned += 1;
        page
    }

    fn take_block(&mut self) -> u32 {
        self.dirty.pop().or_else(|| self.vacant.pop()).expect("room was made before")
    }

    /// Frees a page that nobody holds, finds or lists.
    pub(super) fn free_page(&mut self, page: PageId) {
        let freed = std::mem::replace(&mut self.pages[page as usize], Page::UNUSED);
        self.unused.push(page);
        let Some(place) = freed.place else { return };
        if !matches!(place, Place::Device(_)) {
            self.actions.push(Action::Forget(place));
        }
        self.vacate_place(place);
    }

    fn vacate_place(&mut self, place: Place) {
        match place {
            Place::Device(block) => self.dirty.push(block),
            Place::Packed(slot) => self.packed_slots.free.push(slot),
            Place::File { slot, .. } => self.file_slots.free.push(slot),
        }
    }

    /// Brings every page of a running sequence to the device and writes its table. Blocks for them are there.
    pub(super) fn bring_back(&mut self, number: u32) {
        if self.seq(number).table.len() == self.seq(number).pages.len() {
            return;
        }
        let mut seq = std::mem::take(&mut self.seqs[number as usize]);
        seq.table.clear();
        for &page in &seq.pages {
            let block = self.block_of(page);
            seq.table.push(block);
        }
        self.seqs[number as usize] = seq;
    }

    fn block_of(&mut self, page: PageId) -> u32 {
        let from = match self.pages[page as usize].place {
            Some(Place::Device(block)) => return block,
            from => from,
        };
        let block = self.take_block();
        let to = Place::Device(block);
        self.pages[page as usize].place = Some(to);
        self.pinned += 1;
        self.stats.restored += 1;
        if let Some(from) = from {
            self.actions.push(Action::Move { from, to });
            self.vacate_place(from);
        }
        block
    }

    /// Forgets contents that could not be moved to `place`; sequences that hold them compute them again.
    pub(super) fn lose(&mut self, place: Place) {
        let Some(page) = self.pages.iter().position(|page| page.place == Some(place)) else { return };
        let page = page as PageId;
        self.index.withdraw(&mut self.pages, page);
        for number in 0..self.seqs.len() as u32 {
            if let Some(at) = self.seq(number).pages.iter().position(|&other| other == page) {
                self.cut(number, at * BLOCK_TOKENS);
            }
        }
        if self.lists.of(page).is_some_and(Cached::is_cached) {
            self.lists.remove(page);
            self.free_page(page);
        }
        self.stats.dropped += 1;
    }
}
