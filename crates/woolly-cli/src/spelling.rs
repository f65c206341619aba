//! Spellings of flags that people know from llama.cpp and that the usual rules of long and short flags do not allow.

use std::ffi::OsString;

/// llama.cpp's spelling, ours.
const KNOWN: &[(&str, &str)] = &[
    ("-sys", "--system-prompt"),
    ("-cnv", "--conversation"),
    ("-no-cnv", "--no-conversation"),
    ("-pg", "--prompt-gen"),
    ("-ub", "--ubatch-size"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-oe", "--output-err"),
    ("-npl", "--n-parallel"),
    ("--n-predict", "--predict"),
    ("--temperature", "--temp"),
    ("--reverse-prompt", "--stop"),
];

/// Replaces known spellings, up to a `--` that ends the flags.
pub(crate) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let replace = |argument: OsString| {
        flags &= argument != "--";
        let known = KNOWN.iter().find(|(theirs, _)| flags && argument == *theirs);
        known.map_or(argument, |(_, ours)| OsString::from(ours))
    };
    arguments.into_iter().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_replaced_only_among_flags() {
        let input = ["woolly", "run", "-no-cnv", "-sys", "x", "--", "-sys"].map(OsString::from);
        let expected = ["woolly", "run", "--no-conversation", "--system-prompt", "x", "--", "-sys"];
        assert_eq!(translate(input), expected);
    }
}
