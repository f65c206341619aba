//! Which page holds given tokens after a given beginning.
//!
//! Whole pages are found by a hash chained over the beginning, which costs the same however many there are; pages that
//! share only their first tokens are found among the newest that have the same parent and first token. Neither is
//! believed without comparing: a page fits only if its tokens are those asked for and its parent is the very page that
//! was found before it.

use std::collections::HashMap;

use woolly_tensor::BLOCK_TOKENS;

use super::hash;
use super::page::{NONE, Page, PageId, Parent, Published};

/// Pages looked at for a common beginning: newer ones are likelier to be continued.
const MOST_FORKS: usize = 64;

/// A beginning: what its next page will have as parent, and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) parent: Parent,
    pub(super) hash: u128,
}

impl Beginning {
    /// The empty beginning in the name space of `salt`.
    pub(super) fn root(salt: u64) -> Self {
        Self { parent: Parent::Root(salt), hash: hash::words(hash::EMPTY, &[salt as u32, (salt >> 32) as u32]) }
    }

    /// The beginning that ends with a full, published page.
    pub(super) fn after(page: &Page) -> Option<Self> {
        let full = page.published == Published::Full;
        full.then_some(Self { parent: Parent::Page(page.serial), hash: page.hash })
    }
}

#[derive(Clone, Copy, Debug)]
struct Siblings {
    older: PageId,
    newer: PageId,
}

/// Published pages by content.
#[derive(Debug)]
pub(super) struct Index {
    full: HashMap<u128, PageId>,
    /// The newest page of each parent and first token; the others follow through `siblings`.
    forks: HashMap<(Parent, u32), PageId>,
    siblings: Vec<Siblings>,
    /// Hash of a beginning and the tokens after it; replaced in tests to make hashes collide.
    chain: fn(u128, &[u32]) -> u128,
}

impl Index {
    /// Makes an empty index that holds up to `pages` pages without allocating.
    pub(super) fn new(pages: usize) -> Self {
        // A map that is never more than half full tidies up in place instead of growing.
        let capacity = 2 * pages;
        Self {
            full: HashMap::with_capacity(capacity),
            forks: HashMap::with_capacity(capacity),
            siblings: vec![Siblings { older: NONE, newer: NONE }; pages],
            chain: hash::words,
        }
    }

    #[cfg(test)]
    pub(super) fn set_hash(&mut self, chain: fn(u128, &[u32]) -> u128) {
        self.chain = chain;
    }

    /// Returns the page that holds exactly these 32 tokens after `beginning`.
    pub(super) fn find(&self, pages: &[Page], beginning: Beginning, ids: &[u32]) -> Option<PageId> {
        let page = *self.full.get(&(self.chain)(beginning.hash, ids))?;
        let found = &pages[page as usize];
        (found.parent == beginning.parent && found.tokens == ids).then_some(page)
    }

    /// Returns the page whose tokens after `beginning` have most in common with `ids`, and how many.
    pub(super) fn find_part(&self, pages: &[Page], beginning: Beginning, ids: &[u32]) -> Option<(PageId, usize)> {
        let newest = self.forks.get(&(beginning.parent, *ids.first()?)).copied();
        let older = |&page: &PageId| Some(self.siblings[page as usize].older).filter(|&older| older != NONE);
        let forks = std::iter::successors(newest, older).take(MOST_FORKS);
        forks.map(|page| (page, pages[page as usize].common(ids))).max_by_key(|&(_, common)| common)
    }

    /// Lets a page of at least one token be found, as a whole if it is full; returns the page that is no longer found
    /// because this one took its place.
    pub(super) fn publish(&mut self, pages: &mut [Page], page: PageId, beginning: Beginning) -> Option<PageId> {
        let this = &mut pages[page as usize];
        debug_assert!(this.len > 0 && this.published == Published::No, "page {page} cannot be published");
        this.parent = beginning.parent;
        this.published = Published::Part;
        self.link((this.parent, this.tokens[0]), page);
        if this.len < BLOCK_TOKENS {
            return None;
        }
        this.hash = (self.chain)(beginning.hash, &this.tokens);
        this.published = Published::Full;
        let replaced = self.full.insert(this.hash, page)?;
        self.withdraw(pages, replaced);
        Some(replaced)
    }

    /// Hides a page.
    pub(super) fn withdraw(&mut self, pages: &mut [Page], page: PageId) {
        let this = &mut pages[page as usize];
        let published = std::mem::replace(&mut this.published, Published::No);
        if published == Published::No {
            return;
        }
        if published == Published::Full && self.full.get(&this.hash) == Some(&page) {
            self.full.remove(&this.hash);
        }
        self.unlink((this.parent, this.tokens[0]), page);
    }

    /// Returns how many pages can be found as a whole.
    pub(super) fn full_pages(&self) -> usize {
        self.full.len()
    }

    fn link(&mut self, key: (Parent, u32), page: PageId) {
        let older = self.forks.insert(key, page).unwrap_or(NONE);
        self.siblings[page as usize] = Siblings { older, newer: NONE };
        if let Some(siblings) = self.siblings.get_mut(older as usize) {
            siblings.newer = page;
        }
    }

    fn unlink(&mut self, key: (Parent, u32), page: PageId) {
        let Siblings { older, newer } = self.siblings[page as usize];
        if let Some(siblings) = self.siblings.get_mut(older as usize) {
            siblings.newer = newer;
        }
        match self.siblings.get_mut(newer as usize) {
            Some(siblings) => siblings.older = older,
            None if older == NONE => drop(self.forks.remove(&key)),
            None => drop(self.forks.insert(key, older)),
        }
    }
}
