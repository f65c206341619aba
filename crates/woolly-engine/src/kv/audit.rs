//! Proof that the accounting is right: everything is counted afresh and compared.

use std::collections::{HashMap, HashSet};

use woolly_tensor::BLOCK_TOKENS;

use super::ladder::Cached;
use super::manager::{BlockManager, Place};
use super::page::{Page, PageId, Published};

/// What sequences say about a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Claims {
    refs: u32,
    pins: u32,
}

impl BlockManager {
    /// Checks that each block is in exactly one state, that reference counts equal the tables, that lists and index agree
    /// with the pages, and that the bytes in use are within the limit.
    ///
    /// It costs time in proportion to all blocks: meant for tests, debug builds and idle moments.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong, which is a defect of the manager.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_places()?;
        let claims = self.claims()?;
        for (number, page) in self.pages.iter().enumerate() {
            self.audit_page(number as PageId, page, claims.get(&(number as PageId)).copied().unwrap_or_default())
                .map_err(|what| format!("page {number}: {what}: {page:?}"))?;
        }
        let unused: HashSet<PageId> = self.unused.iter().copied().collect();
        let free = |&page: &PageId| self.pages[page as usize].place.is_none();
        let vacant = (0..self.pages.len() as PageId).filter(free).count();
        let listed = unused.len() == vacant && unused.iter().all(free);
        check(listed, || format!("{vacant} unused pages, but {} in the free list", self.unused.len()))?;
        let pinned = self.pages.iter().filter(|page| page.pins > 0 && page.block().is_some()).count();
        check(pinned == self.pinned, || format!("{pinned} pinned pages, {} counted", self.pinned))?;
        let used = self.pages.iter().filter(|page| page.refs > 0 && page.block().is_some()).count();
        let counted = self.stats().used_blocks;
        check(used == counted, || format!("{used} blocks in use, {counted} counted"))?;
        let full = self.pages.iter().filter(|page| page.published == Published::Full).count();
        check(full == self.index.full_pages(), || format!("{full} full pages, {} indexed", self.index.full_pages()))?;
        let (used, limit) = (self.used_bytes(), self.options.max_bytes);
        check(used <= limit, || format!("{used} bytes in use of {limit}"))
    }

    /// Runs [`audit`](Self::audit) where debug assertions are on.
    ///
    /// # Panics
    /// When it finds a defect.
    pub(super) fn audit_in_debug(&self) {
        if cfg!(debug_assertions)
            && let Err(defect) = self.audit()
        {
            panic!("block manager: {defect}");
        }
    }

    /// Every block and slot is that of one page, or free.
    fn audit_places(&self) -> Result<(), String> {
        let mut owners: HashMap<Place, usize> = HashMap::new();
        let mut claim = |place: Place| *owners.entry(unify(place)).or_default() += 1;
        self.pages.iter().filter_map(|page| page.place).for_each(&mut claim);
        self.dirty.iter().chain(&self.vacant).for_each(|&block| claim(Place::Device(block)));
        self.packed_slots.free.iter().for_each(|&slot| claim(Place::Packed(slot)));
        self.file_slots.free.iter().for_each(|&slot| claim(Place::File { slot, packed: false }));
        if let Some((place, count)) = owners.iter().find(|&(_, &count)| count != 1) {
            return Err(format!("{place:?} has {count} owners"));
        }
        let places = self.options.blocks + self.packed_slots.next as usize + self.file_slots.next as usize;
        check(owners.len() == places, || format!("{} places of {places} are accounted for", owners.len()))
    }

    fn claims(&self) -> Result<HashMap<PageId, Claims>, String> {
        let mut claims: HashMap<PageId, Claims> = HashMap::new();
        for (number, seq) in self.seqs.iter().enumerate() {
            check(seq.live || seq.pages.is_empty(), || format!("ended sequence {number} has pages"))?;
            let waits = self.preempted.iter().filter(|&&other| other as usize == number).count();
            let expected = usize::from(seq.live && !seq.active);
            check(waits == expected, || format!("sequence {number} is {waits} times among the preempted"))?;
            let room = seq.pages.len() * BLOCK_TOKENS;
            check(seq.computed <= room, || format!("sequence {number} has more tokens than pages"))?;
            for &page in &seq.pages {
                let claim = claims.entry(page).or_default();
                claim.refs += 1;
                claim.pins += u32::from(seq.active);
            }
            self.audit_table(number, seq.computed)?;
        }
        Ok(claims)
    }

    fn audit_table(&self, number: usize, computed: usize) -> Result<(), String> {
        let seq = &self.seqs[number];
        for (at, (&page, &block)) in seq.pages.iter().zip(&seq.table).enumerate() {
            let page = &self.pages[page as usize];
            let listed = page.block() == Some(block) || !seq.active;
            check(listed, || format!("sequence {number} has block {block} at {at}, but {:?}", page.place))?;
        }
        for (at, &page) in seq.pages.iter().enumerate() {
            let needed = computed.saturating_sub(at * BLOCK_TOKENS).min(BLOCK_TOKENS);
            let page = &self.pages[page as usize];
            check(page.len >= needed, || format!("sequence {number} needs {needed} tokens at {at} of {}", page.len))?;
        }
        Ok(())
    }

    fn audit_page(&self, number: PageId, page: &Page, claims: Claims) -> Result<(), String> {
        let Claims { refs, pins } = claims;
        check((page.refs, page.pins) == (refs, pins), || format!("tables say {refs} references and {pins} pins"))?;
        let list = self.lists.of(number);
        let expected = match page.place {
            None => list.is_none() && page.refs == 0 && page.published == Published::No,
            Some(_) if page.pins > 0 => list.is_none(),
            Some(_) if page.refs > 0 => list == Some(Cached::held_list(page)),
            Some(Place::Device(_)) => list.is_some_and(Cached::is_cached) && page.published != Published::No,
            Some(_) => false,
        };
        check(expected, || format!("in list {list:?}"))?;
        check(page.exact || page.published == Published::No, || "lost precision, but others find it".to_owned())
    }
}

/// A slot of the file is one place, whatever form its contents have.
fn unify(place: Place) -> Place {
    match place {
        Place::File { slot, .. } => Place::File { slot, packed: false },
        place => place,
    }
}

fn check(holds: bool, defect: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(defect()) }
}
