//! Cuts a text at the special tokens that occur in it.
//!
//! The longest token text takes precedence over the whole text, then the next longest in what is left, and so on. An
//! Aho-Corasick automaton (Aho and Corasick, 1975) finds in one pass which tokens occur at all, so that the rounds over
//! the text are as few as there are different special tokens in it, however many the vocabulary has.

use std::cmp::Reverse;
use std::ops::Range;

/// A part of a text, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) range: Range<usize>,
    /// The special token that the part is; none for plain text.
    pub(crate) token: Option<u32>,
}

/// A special token to look for.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) id: u32,
    pub(crate) text: String,
    /// Takes away white space that follows it.
    pub(crate) strips_right: bool,
}

/// Finds a fixed set of special tokens in texts.
#[derive(Debug)]
pub(crate) struct Partitioner {
    /// The longest first, then by id.
    patterns: Vec<Pattern>,
    nodes: Vec<Node>,
    first_bytes: [bool; 256],
}

/// A state of the automaton.
#[derive(Debug, Default)]
struct Node {
    /// Sorted by byte.
    edges: Vec<(u8, u32)>,
    /// The state of the longest proper suffix.
    fail: u32,
    /// The pattern that ends here.
    pattern: Option<u32>,
    /// The nearest state on the chain of suffixes at which a pattern ends; the root stands for none.
    shorter: u32,
}

const ROOT: u32 = 0;

impl Partitioner {
    /// Prepares the search for `patterns`; of equal texts, the lowest id is found. Empty texts are ignored.
    pub(crate) fn new(mut patterns: Vec<Pattern>) -> Self {
        patterns.retain(|pattern| !pattern.text.is_empty());
        patterns.sort_by_key(|pattern| (Reverse(pattern.text.len()), pattern.id));
        let mut this = Self { patterns: Vec::new(), nodes: vec![Node::default()], first_bytes: [false; 256] };
        for (number, pattern) in (0..).zip(&patterns) {
            this.add(number, pattern.text.as_bytes());
        }
        this.patterns = patterns;
        this.link();
        this
    }

    /// The parts of `text`, in order.
    pub(crate) fn split(&self, text: &str) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        if !text.is_empty() {
            fragments.push(Fragment { range: 0..text.len(), token: None });
        }
        for pattern in self.occurring(text) {
            fragments = cut(text, fragments, pattern);
        }
        fragments
    }

    fn add(&mut self, number: u32, text: &[u8]) {
        let mut at = ROOT;
        for &byte in text {
            at = match self.step(at, byte) {
                Some(next) => next,
                None => self.add_node(at, byte),
            };
        }
        if let Some(first) = text.first().and_then(|byte| self.first_bytes.get_mut(usize::from(*byte))) {
            *first = true;
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.pattern.get_or_insert(number);
        }
    }

    fn add_node(&mut self, parent: u32, byte: u8) -> u32 {
        let new = self.nodes.len() as u32;
        self.nodes.push(Node::default());
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            let place = node.edges.partition_point(|(b, _)| *b < byte);
            node.edges.insert(place, (byte, new));
        }
        new
    }

    /// Sets the suffix links, breadth first.
    fn link(&mut self) {
        let mut queue: Vec<u32> = self.nodes.first().map(children).unwrap_or_default();
        let mut done = 0;
        while let Some(&at) = queue.get(done) {
            done += 1;
            let Some(node) = self.nodes.get(at as usize) else { break };
            let (fail, edges) = (node.fail, node.edges.clone());
            for (byte, child) in edges {
                let suffix = self.advance(fail, byte);
                let shorter = match self.nodes.get(suffix as usize) {
                    Some(node) if node.pattern.is_some() => suffix,
                    Some(node) => node.shorter,
                    None => ROOT,
                };
                if let Some(node) = self.nodes.get_mut(child as usize) {
                    (node.fail, node.shorter) = (suffix, shorter);
                }
                queue.push(child);
            }
        }
    }

    fn step(&self, at: u32, byte: u8) -> Option<u32> {
        let edges = &self.nodes.get(at as usize)?.edges;
        let place = edges.binary_search_by_key(&byte, |(b, _)| *b).ok()?;
        edges.get(place).map(|(_, next)| *next)
    }

    fn advance(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            if let Some(next) = self.step(at, byte) {
                return next;
            }
            if at == ROOT {
                return ROOT;
            }
            at = self.nodes.get(at as usize).map_or(ROOT, |node| node.fail);
        }
    }

    /// The patterns that occur in `text`, in order of precedence.
    fn occurring(&self, text: &str) -> Vec<&Pattern> {
        let mut found: Vec<u32> = Vec::new();
        let mut marked = vec![false; if self.patterns.is_empty() { 0 } else { self.nodes.len() }];
        let mut at = ROOT;
        for &byte in text.as_bytes() {
            if at == ROOT && !self.first_bytes.get(usize::from(byte)).copied().unwrap_or(false) {
                continue;
            }
            at = self.advance(at, byte);
            self.mark(at, &mut marked, &mut found);
        }
        found.sort_unstable();
        found.iter().filter_map(|number| self.patterns.get(*number as usize)).collect()
    }

    /// Marks the states at which the patterns ending here end. Behind a marked state everything is marked already.
    fn mark(&self, mut at: u32, marked: &mut [bool], found: &mut Vec<u32>) {
        while at != ROOT {
            let (Some(node), Some(mark)) = (self.nodes.get(at as usize), marked.get_mut(at as usize)) else { return };
            if std::mem::replace(mark, true) {
                return;
            }
            found.extend(node.pattern);
            at = node.shorter;
        }
    }
}

fn children(node: &Node) -> Vec<u32> {
    node.edges.iter().map(|(_, child)| *child).collect()
}

/// Replaces every occurrence of `pattern` in the text fragments by its token.
fn cut(text: &str, fragments: Vec<Fragment>, pattern: &Pattern) -> Vec<Fragment> {
    let mut out = Vec::with_capacity(fragments.len() + 2);
    for fragment in fragments {
        match fragment.token {
            Some(_) => out.push(fragment),
            None => cut_one(text, fragment.range, pattern, &mut out),
        }
    }
    out
}

fn cut_one(text: &str, range: Range<usize>, pattern: &Pattern, out: &mut Vec<Fragment>) {
    let mut rest = range.clone();
    while let Some(offset) = text.get(rest.clone()).and_then(|part| part.find(&pattern.text)) {
        let start = rest.start + offset;
        if rest.start < start {
            out.push(Fragment { range: rest.start..start, token: None });
        }
        rest.start = start + pattern.text.len();
        out.push(Fragment { range: start..rest.start, token: Some(pattern.id) });
        if pattern.strips_right {
            let after = text.get(rest.clone()).unwrap_or_default();
            rest.start += after.len() - after.trim_start_matches(is_c_space).len();
        }
    }
    if !rest.is_empty() {
        out.push(Fragment { range: rest, token: None });
    }
}

/// White space as the C library sees it, which is what stripping next to special tokens goes by.
fn is_c_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(patterns: &[&str], text: &str) -> Vec<String> {
        let pattern =
            |(id, text): (u32, &&str)| Pattern { id, text: (*text).to_owned(), strips_right: text.ends_with('!') };
        let partitioner = Partitioner::new((0..).zip(patterns).map(pattern).collect());
        let show = |fragment: Fragment| match fragment.token {
            Some(id) => format!("#{id}"),
            None => text[fragment.range].to_owned(),
        };
        partitioner.split(text).into_iter().map(show).collect()
    }

    #[test]
    fn fragments() {
        let cases: &[(&[&str], &str, &[&str], &str)] = &[
            (&["<a>"], "", &[], "nothing in, nothing out"),
            (&[], "text", &["text"], "no patterns"),
            (&["<a>"], "x<a><a>y", &["x", "#0", "#0", "y"], "adjacent tokens leave no empty text"),
            (&["<a>", "<a><b>"], "<a><b><a>", &["#1", "#0"], "the longest first"),
            (&["abcd", "cdefg"], "abcdefg", &["ab", "#1"], "a longer token wins though it begins later"),
            (&["aa"], "aaaaa", &["#0", "#0", "a"], "from the left"),
            (&["", "x"], "xy", &["#1", "y"], "an empty text is no token"),
            (&["x", "x"], "x", &["#0"], "of equal texts the lowest id"),
            (&["t!"], "t! \n a", &["#0", "a"], "white space after a stripping token goes"),
            (&["bc", "abd"], "abcabd", &["a", "#0", "#1"], "a failed longer match does not hide a shorter one"),
            (&["<", "語"], "a語<b", &["a", "#1", "#0", "b"], "characters of several bytes"),
        ];
        for (patterns, text, expected, why) in cases {
            assert_eq!(split(patterns, text), *expected, "{why}");
        }
    }

    #[test]
    fn many_overlapping_patterns_stay_fast() {
        let runs: Vec<String> = (1..200).map(|length| "a".repeat(length)).collect();
        let patterns: Vec<&str> = runs.iter().map(String::as_str).collect();
        let found = split(&patterns, &"a".repeat(100_000));
        assert_eq!(found.len(), 100_000 / 199 + 1);
    }
}
