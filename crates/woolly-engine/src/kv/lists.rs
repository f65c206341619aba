//! Doubly linked lists of pages, oldest first, without allocation: each page is in at most one.

use super::page::{NONE, PageId};

/// One end of the lists.
#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: PageId,
    newest: PageId,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    older: PageId,
    newer: PageId,
    list: u8,
}

const NO_LIST: u8 = u8::MAX;
const UNLINKED: Links = Links { older: NONE, newer: NONE, list: NO_LIST };

/// A fixed number of lists over the same pages.
#[derive(Debug)]
pub(super) struct Lists {
    ends: Vec<Ends>,
    links: Vec<Links>,
    len: Vec<usize>,
}

impl Lists {
    pub(super) fn new(lists: u8, pages: usize) -> Self {
        let lists = usize::from(lists);
        Self {
            ends: vec![Ends { oldest: NONE, newest: NONE }; lists],
            links: vec![UNLINKED; pages],
            len: vec![0; lists],
        }
    }

    /// Returns the list a page is in.
    pub(super) fn of(&self, page: PageId) -> Option<u8> {
        let list = self.links[page as usize].list;
        (list != NO_LIST).then_some(list)
    }

    pub(super) fn len(&self, list: u8) -> usize {
        self.len[usize::from(list)]
    }

    pub(super) fn oldest(&self, list: u8) -> Option<PageId> {
        let oldest = self.ends[usize::from(list)].oldest;
        (oldest != NONE).then_some(oldest)
    }

    /// Appends a page that is in no list as the newest.
    pub(super) fn push(&mut self, list: u8, page: PageId) {
        debug_assert!(self.of(page).is_none(), "page {page} is in a list already");
        let ends = &mut self.ends[usize::from(list)];
        let older = std::mem::replace(&mut ends.newest, page);
        self.links[page as usize] = Links { older, newer: NONE, list };
        match self.links.get_mut(older as usize) {
            Some(links) => links.newer = page,
            None => ends.oldest = page,
        }
        self.len[usize::from(list)] += 1;
    }

    /// Takes a page out of whatever list it is in.
    pub(super) fn remove(&mut self, page: PageId) {
        let Links { older, newer, list } = std::mem::replace(&mut self.links[page as usize], UNLINKED);
        let Some(ends) = self.ends.get_mut(usize::from(list)) else { return };
        match self.links.get_mut(older as usize) {
            Some(links) => links.newer = newer,
            None => ends.oldest = newer,
        }
        match self.links.get_mut(newer as usize) {
            Some(links) => links.older = older,
            None => ends.newest = older,
        }
        self.len[usize::from(list)] -= 1;
    }

    /// Returns the pages of a list, oldest first.
    #[cfg(test)]
    pub(super) fn iter(&self, list: u8) -> impl Iterator<Item = PageId> + '_ {
        let next = |&page: &PageId| Some(self.links[page as usize].newer).filter(|&newer| newer != NONE);
        std::iter::successors(self.oldest(list), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_arrival_and_removal_works_anywhere() {
        let mut lists = Lists::new(2, 8);
        (0..6).for_each(|page| lists.push(0, page));
        lists.push(1, 7);
        [0, 3, 5].into_iter().for_each(|page| lists.remove(page));
        lists.remove(6);
        assert_eq!(lists.iter(0).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((lists.len(0), lists.len(1), lists.of(4), lists.of(5)), (3, 1, Some(0), None));
        lists.push(0, 3);
        [1, 2, 4].into_iter().for_each(|page| lists.remove(page));
        assert_eq!((lists.oldest(0), lists.iter(0).count()), (Some(3), 1));
        lists.remove(3);
        assert_eq!((lists.oldest(0), lists.len(0)), (None, 0));
    }
}
