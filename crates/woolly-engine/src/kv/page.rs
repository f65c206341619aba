//! One block's worth of tokens, wherever its keys and values lie.

use woolly_tensor::BLOCK_TOKENS;

use super::manager::Place;

/// Number of a page in the manager's table.
pub(super) type PageId = u32;

/// No page.
pub(super) const NONE: PageId = PageId::MAX;

/// What a page's tokens come after; equal only for equal beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Parent {
    /// Nothing, in the name space of this salt.
    Root(u64),
    /// The full page that was given this serial number.
    Page(u64),
}

/// How a page can be found by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// Not at all.
    No,
    /// By the tokens it begins with.
    Part,
    /// Also as a whole, by its hash.
    Full,
}

/// Tokens and where their keys and values lie.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// Where the contents are; `None` while the page is not in use.
    pub(super) place: Option<Place>,
    /// Sequences whose table has this page.
    pub(super) refs: u32,
    /// Those of them that may run in the next step, so that the page must stay on the device.
    pub(super) pins: u32,
    /// Tokens with valid contents.
    pub(super) len: usize,
    /// The first `len` count.
    pub(super) tokens: [u32; BLOCK_TOKENS],
    /// Whether the contents are what the model computed, without loss of precision on the way.
    pub(super) exact: bool,
    /// Never given twice, so that a page is not mistaken for one that lay here before.
    pub(super) serial: u64,
    /// How others find it.
    pub(super) published: Published,
    /// What it comes after; meaningful while published.
    pub(super) parent: Parent,
    /// Hash of the chain up to and with this page; meaningful once full and published.
    pub(super) hash: u128,
    /// How often it was found by others.
    pub(super) hits: u32,
}

impl Page {
    pub(super) const UNUSED: Self = Self {
        place: None,
        refs: 0,
        pins: 0,
        len: 0,
        tokens: [0; BLOCK_TOKENS],
        exact: true,
        serial: 0,
        published: Published::No,
        parent: Parent::Root(0),
        hash: 0,
        hits: 0,
    };

    /// Returns the block on the device, or `None` while the contents are elsewhere.
    pub(super) fn block(&self) -> Option<u32> {
        match self.place {
            Some(Place::Device(block)) => Some(block),
            _ => None,
        }
    }

    /// Returns the valid tokens.
    pub(super) fn known(&self) -> &[u32] {
        &self.tokens[..self.len]
    }

    /// Returns how many tokens of `ids` it begins with.
    pub(super) fn common(&self, ids: &[u32]) -> usize {
        self.known().iter().zip(ids).take_while(|(a, b)| a == b).count()
    }

    /// Returns whether a sequence may write its next token here without anyone noticing.
    pub(super) fn is_private(&self) -> bool {
        self.refs == 1 && self.published == Published::No
    }
}
