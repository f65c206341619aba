//! Pre-tokenizers: how byte-level BPE cuts text into pieces before it merges.
//!
//! A model names its pre-tokenizer in `tokenizer.ggml.pre`. The published definitions are regular expressions; here
//! each family is a hand-written scanner that reads the text once, so the time is linear in the input and the stack is
//! flat whatever the text. Merging itself is not done here.

mod class;
mod deepseek;
mod deepseek_letters;
mod gpt2;
mod gpt4o;
mod llama3;
mod scan;

/// The families of pre-tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Default,
    Gpt2,
    SingleDigits,
    Falcon,
    Llama3,
    Qwen2,
    Qwen35,
    DeepseekCoder,
    DeepseekLlm,
    DeepseekV3,
    Gpt4o,
    Tekken,
}

/// A pre-tokenizer, as named by a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreTokenizer {
    name: &'static str,
    family: Family,
    /// Whether a piece that is a token is taken as it is, without merging.
    pub(crate) whole_word_first: bool,
    /// Whether BOS is put in front when the file does not say.
    pub(crate) add_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer called `name`; `None` when no such name is known.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        KNOWN.iter().find(|known| known.name == name).copied()
    }

    /// All names, for error messages.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name)
    }

    /// Passes the pieces of `text` to `emit`, in order; together they are the whole text and none is empty.
    pub(crate) fn split(self, text: &str, emit: &mut impl FnMut(&str)) {
        match self.family {
            Family::Default => gpt2::split_default(text, emit),
            Family::Gpt2 => gpt2::split(text, emit),
            Family::SingleDigits => gpt2::split_single_digits(text, emit),
            Family::Falcon => gpt2::split_falcon(text, emit),
            Family::Llama3 => llama3::split(text, llama3::Style { digits: 3, marks_in_words: false }, emit),
            Family::Qwen2 => llama3::split(text, llama3::Style { digits: 1, marks_in_words: false }, emit),
            Family::Qwen35 => llama3::split(text, llama3::Style { digits: 1, marks_in_words: true }, emit),
            Family::DeepseekCoder => deepseek::split_coder(text, emit),
            Family::DeepseekLlm => deepseek::split_llm(text, emit),
            Family::DeepseekV3 => deepseek::split_v3(text, emit),
            Family::Gpt4o => gpt4o::split(text, gpt4o::Style { digits: 3, contractions: true }, emit),
            Family::Tekken => gpt4o::split(text, gpt4o::Style { digits: 1, contractions: false }, emit),
        }
    }
}

const fn plain(name: &'static str, family: Family) -> PreTokenizer {
    PreTokenizer { name, family, whole_word_first: false, add_bos: false }
}

const fn whole(name: &'static str, family: Family, add_bos: bool) -> PreTokenizer {
    PreTokenizer { name, family, whole_word_first: true, add_bos }
}

/// Every name that occurs in `tokenizer.ggml.pre` of published models of these families.
#[rustfmt::skip]
const KNOWN: &[PreTokenizer] = &[
    plain("default", Family::Default),
    plain("gpt-2", Family::Gpt2),
    plain("gpt2", Family::Gpt2),
    plain("mpt", Family::Gpt2),
    plain("olmo", Family::Gpt2),
    plain("phi-2", Family::Gpt2),
    plain("roberta-bpe", Family::Gpt2),
    plain("starcoder", Family::SingleDigits),
    plain("refact", Family::SingleDigits),
    plain("command-r", Family::SingleDigits),
    plain("smollm", Family::SingleDigits),
    plain("codeshell", Family::SingleDigits),
    plain("exaone", Family::SingleDigits),
    plain("falcon", Family::Falcon),
    whole("llama-bpe", Family::Llama3, true),
    whole("llama3", Family::Llama3, true),
    whole("llama-v3", Family::Llama3, true),
    whole("falcon3", Family::Llama3, true),
    whole("pixtral", Family::Llama3, true),
    whole("glm4", Family::Llama3, false),
    plain("dbrx", Family::Llama3),
    plain("smaug-bpe", Family::Llama3),
    plain("qwen2", Family::Qwen2),
    plain("deepseek-r1-qwen", Family::Qwen2),
    plain("stablelm2", Family::Qwen2),
    plain("hunyuan", Family::Qwen2),
    plain("grok-2", Family::Qwen2),
    plain("qwen35", Family::Qwen35),
    plain("deepseek-coder", Family::DeepseekCoder),
    plain("deepseek-llm", Family::DeepseekLlm),
    plain("deepseek-v3", Family::DeepseekV3),
    plain("hunyuan-dense", Family::DeepseekV3),
    plain("gpt-4o", Family::Gpt4o),
    plain("llama4", Family::Gpt4o),
    plain("minimax-m2", Family::Gpt4o),
    whole("tekken", Family::Tekken, true),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(name: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        PreTokenizer::from_name(name)
            .expect("a known name")
            .split(text, &mut |piece: &str| found.push(piece.to_owned()));
        found
    }

    #[test]
    fn pieces_of_each_family() {
        // Each expectation follows from the published expression by hand.
        let cases: &[(&str, &str, &[&str], &str)] = &[
            (
                "gpt-2",
                "I'm  here\n\nnow 12!",
                &["I", "'m", " ", " here", "\n", "\n", "now", " 12", "!"],
                "all alternatives",
            ),
            ("gpt-2", "x   ", &["x", "   "], "trailing white space is one piece"),
            ("gpt-2", "I'M", &["I", "'", "M"], "contractions in lower case only"),
            ("starcoder", "ab 123", &["ab", " ", "1", "2", "3"], "digits first, the space stays behind"),
            (
                "falcon",
                "a.b 12345",
                &["a", ".", "b", " ", "123", "45"],
                "punctuation runs, then groups of three digits",
            ),
            ("default", "12345 x", &["123", "45", " x"], "numbers lose their space"),
            (
                "llama-bpe",
                "I'LL go\n\n 1234 (yes)\n",
                &["I", "'LL", " go", "\n\n", " ", "123", "4", " (", "yes", ")\n"],
                "case-insensitive contractions",
            ),
            ("qwen2", "a12", &["a", "1", "2"], "single digits"),
            ("qwen2", "e\u{301}x", &["e", "\u{301}x"], "a mark is the optional character before a word"),
            ("qwen35", "e\u{301}x", &["e\u{301}x"], "a mark is part of the word"),
            (
                "llama-bpe",
                "  \n  x",
                &["  \n", " ", " x"],
                "white space up to the last newline, then one space kept back",
            ),
            ("gpt-4o", "HelloWorld's aBC", &["Hello", "World's", " a", "BC"], "case changes split"),
            ("gpt-4o", "http://x", &["http", "://", "x"], "slashes follow punctuation"),
            ("tekken", "don't 12", &["don", "'t", " ", "1", "2"], "no contractions, single digits"),
            ("gpt-4o", "語Abc語DE", &["語Abc語", "DE"], "letters without case serve as both"),
            ("deepseek-coder", "a b\n1", &["a", " b", "\n", "1"], "one space before letters"),
            ("deepseek-llm", "hi, 语  ", &["hi", ",", " ", "语", "  "], "trailing white space"),
            (
                "deepseek-v3",
                "(abc d12345 中文",
                &["(abc", " d", "123", "45", " ", "中文"],
                "punctuation sticks to ASCII letters",
            ),
        ];
        for (name, text, expected, why) in cases {
            assert_eq!(pieces(name, text), *expected, "{name} on {text:?}: {why}");
        }
    }

    #[test]
    fn pieces_always_add_up_to_the_text() {
        let samples = [
            "",
            " ",
            "\r\n \t\u{85}\u{a0}x\u{3000}",
            "a\0b\u{7f}\u{200d}🦙🏽",
            "' 's'S 'Ll",
            "1²③४5६789",
            "e\u{301}\u{301} Ǆǅǆ",
        ];
        for name in PreTokenizer::names() {
            for text in samples {
                let found = pieces(name, text);
                assert_eq!(found.concat(), text, "{name}");
                assert!(found.iter().all(|piece| !piece.is_empty()), "{name} on {text:?}");
            }
        }
    }

    #[test]
    fn long_runs_take_linear_time_and_flat_stack() {
        for unit in ["a", "A", " ", "\n", "1", ".", "語", "\u{301}", " a", "aB", "' "] {
            let text = unit.repeat(50_000 / unit.len());
            for name in PreTokenizer::names() {
                let mut bytes = 0;
                PreTokenizer::from_name(name)
                    .expect("a known name")
                    .split(&text, &mut |piece: &str| bytes += piece.len());
                assert_eq!(bytes, text.len(), "{name} on runs of {unit:?}");
            }
        }
    }
}
