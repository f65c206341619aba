//! Stop strings: generation ends at any of them, and none of them is ever shown.
//!
//! A stop string may begin in one piece of text and end in another, so the longest end of the text that could still
//! become a stop string is held back, and no more than that. The stop string that is complete first wins; of several
//! that are complete at the same byte, the longest. The result does not depend on how the text was cut into pieces.

use crate::error::Error;

/// Watches a stream of text for stop strings.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text not yet returned: an end that could become a stop string.
    held: String,
    /// What the last call returned.
    text: String,
    stopped: Option<usize>,
}

/// What became of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped<'a> {
    /// Text that is certain not to belong to a stop string.
    pub text: &'a str,
    /// The position, in the caller's list, of the stop string that was found.
    pub stop: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `stops`.
    ///
    /// # Errors
    /// [`Error::EmptyStop`]
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, Error> {
        let stop = |(index, text): (usize, &S)| Stop::new(text.as_ref()).ok_or(Error::EmptyStop { index });
        let stops = stops.iter().enumerate().map(stop).collect::<Result<_, _>>()?;
        Ok(Self { stops, held: String::new(), text: String::new(), stopped: None })
    }

    /// Takes the next piece of text and returns what may be shown. After a stop string was found, nothing more is.
    pub fn push(&mut self, piece: &str) -> Stopped<'_> {
        self.text.clear();
        if self.stopped.is_some() {
            return Stopped { text: &self.text, stop: self.stopped };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        let keep_from = match self.find(piece) {
            Some((stop, end)) => {
                self.stopped = Some(stop);
                self.held.truncate(before + end);
                self.held.len().saturating_sub(self.stops.get(stop).map_or(0, |stop| stop.text.len()))
            }
            None => self.held.len().saturating_sub(self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0)),
        };
        let kept = self.held.split_off(keep_from);
        std::mem::swap(&mut self.text, &mut self.held);
        self.held = kept;
        Stopped { text: &self.text, stop: self.stopped }
    }

    /// Ends the text: returns what was held back, unless a stop string was found.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if self.stopped.is_none() {
            std::mem::swap(&mut self.text, &mut self.held);
        }
        self.held.clear();
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        &self.text
    }

    /// The stop string that was found, as its position in the caller's list.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// The stop string that is complete first within `piece`, and the position after it.
    fn find(&mut self, piece: &str) -> Option<(usize, usize)> {
        for (at, byte) in piece.bytes().enumerate() {
            let complete = |(index, stop): (usize, &mut Stop)| stop.advance(byte).then_some((stop.text.len(), index));
            let found = self.stops.iter_mut().enumerate().filter_map(complete).max_by_key(|(length, _)| *length);
            if let Some((_, index)) = found {
                return Some((index, at + 1));
            }
        }
        None
    }
}

/// One stop string with the state of its search (Knuth, Morris and Pratt, 1977).
#[derive(Clone, Debug)]
struct Stop {
    text: Box<[u8]>,
    /// For each prefix of the text, the length of its longest proper prefix that is also its suffix.
    borders: Box<[usize]>,
    /// The length of the longest prefix of the text that the input ends in.
    matched: usize,
}

impl Stop {
    fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let text: Box<[u8]> = text.as_bytes().into();
        let mut borders = vec![0; text.len()];
        let mut length = 0;
        for at in 1..text.len() {
            length = extend(&text, &borders, length, text[at]);
            borders[at] = length;
        }
        Some(Self { text, borders: borders.into(), matched: 0 })
    }

    /// Takes one byte; true when the stop string is complete.
    fn advance(&mut self, byte: u8) -> bool {
        self.matched = extend(&self.text, &self.borders, self.matched, byte);
        self.matched == self.text.len()
    }
}

/// The length of the match after `byte`, given its length before, which is less than the whole text.
fn extend(text: &[u8], borders: &[usize], mut matched: usize, byte: u8) -> usize {
    loop {
        if text.get(matched) == Some(&byte) {
            return matched + 1;
        }
        match matched.checked_sub(1).and_then(|last| borders.get(last)) {
            Some(shorter) => matched = *shorter,
            None => return 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces and returns all that was shown, and the stop.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops).expect("no stop is empty");
        let mut shown: String = pieces.iter().map(|piece| matcher.push(piece).text.to_owned()).collect();
        shown.push_str(matcher.finish());
        (shown, matcher.stopped())
    }

    #[test]
    fn cases() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<usize>, &'a str);
        let cases: &[Case<'_>] = &[
            (&["END"], &["a E", "N", "D b"], "a ", Some(0), "spans three pieces"),
            (&["END"], &["a E", "N", "X"], "a ENX", None, "nothing is lost when it does not come"),
            (&["END"], &["xENDy"], "x", Some(0), "inside one piece"),
            (&["END"], &["EN"], "EN", None, "held text is given at the end"),
            (&["bc", "abcd"], &["abcd"], "a", Some(0), "the one complete first wins"),
            (&["bc", "abc"], &["abc"], "", Some(1), "of those complete together, the longest"),
            (&["aab"], &["aa", "aab"], "aa", Some(0), "a match that begins inside a failed one"),
            (&["\n\n"], &["x\n", "\ny"], "x", Some(0), "newlines"),
            (&["語é"], &["a語", "語é"], "a語", Some(0), "characters of several bytes"),
            (&[], &["a", "b"], "ab", None, "no stop strings"),
            (&["a"], &["", "a", "b"], "", Some(0), "nothing is shown after the stop"),
        ];
        for (stops, pieces, shown, stop, why) in cases {
            assert_eq!(run(stops, pieces), ((*shown).to_owned(), *stop), "{why}");
        }
    }

    #[test]
    fn only_what_could_become_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(&["</s>", "User:"]).expect("no stop is empty");
        assert_eq!(matcher.push("Hello <").text, "Hello ");
        assert_eq!(matcher.push("/b> U").text, "</b> ");
        assert_eq!(matcher.push("ser.").text, "User.");
    }

    #[test]
    fn an_empty_stop_is_refused() {
        assert!(matches!(StopMatcher::new(&["a", ""]), Err(Error::EmptyStop { index: 1 })));
    }

    /// The definition, without a stream: the first end of any stop string, the longest at that end.
    fn whole(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let here = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(*stop));
            if let Some((index, stop)) = here.max_by_key(|(_, stop)| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn a_stream_gives_the_same_as_the_whole(
            text in "[abé]{0,40}",
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| text.floor_char_boundary(cut)).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&text[start..cut.max(start)]);
                start = cut.max(start);
            }
            let borrowed: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (shown, stop) = run(&borrowed, &pieces);
            let (expected, expected_stop) = whole(&stops, &text);
            prop_assert_eq!(shown, expected);
            // Equal stop strings are the same stop.
            prop_assert_eq!(stop.map(|s| &stops[s]), expected_stop.map(|s| &stops[s]));
        }
    }
}
