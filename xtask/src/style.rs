//! Where `unsafe` may stand, and how long files and functions may be.

use std::fs;
use std::path::{Path, PathBuf};

/// Places whose job needs `unsafe`: instruction sets and kernels, threads and the splitting of work among them, aligned
/// buffers and pages, probes of the machine's ceilings, the file map and its pages.
const UNSAFE_PLACES: [&str; 11] = [
    "crates/woolly-cpu/src/isa/",
    "crates/woolly-cpu/src/kernels/",
    "crates/woolly-cpu/src/backend/",
    "crates/woolly-cpu/src/ceiling/",
    "crates/woolly-cpu/examples/",
    "crates/woolly-cpu/src/pool.rs",
    "crates/woolly-cpu/src/buffer.rs",
    "crates/woolly-cpu/src/pages.rs",
    "crates/woolly-cpu/src/topology.rs",
    "crates/woolly-gguf/src/map.rs",
    "crates/woolly-gguf/src/huge.rs",
];

/// Files of numbers, exempt from the length limit.
const TABLES: [&str; 2] = ["crates/woolly-quant/src/grids.rs", "crates/woolly-text/src/unicode/tables.rs"];

const MAX_FILE_LINES: usize = 1000;
const MAX_FUNCTION_LINES: usize = 100;

/// Returns a line for every place that breaks a rule.
pub(crate) fn findings(root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for path in rust_files(&root.join("crates")).into_iter().chain(rust_files(&root.join("xtask"))) {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        match fs::read_to_string(&path) {
            Ok(text) => findings.extend(check(&name, &text)),
            Err(error) => findings.push(format!("{name}: {error}")),
        }
    }
    findings
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn check(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not open with a `//!` that says what the file is for"));
    }
    if lines.len() > MAX_FILE_LINES && !TABLES.contains(&name) {
        findings.push(format!("{name}: {} lines, at most {MAX_FILE_LINES} are allowed", lines.len()));
    }
    let in_tests = name.contains("/tests/");
    if !in_tests && !UNSAFE_PLACES.iter().any(|place| name.starts_with(place)) {
        findings.extend(
            unsafe_lines(&lines).map(|line| format!("{name}:{line}: `unsafe` outside the modules made for it")),
        );
    }
    findings.extend(long_functions(&lines).map(|(line, length)| {
        format!("{name}:{line}: a function of {length} lines, at most {MAX_FUNCTION_LINES} are allowed")
    }));
    findings
}

/// Returns the numbers of the lines that open an `unsafe` block, function or impl.
fn unsafe_lines<'a>(lines: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    let opens = |line: &str| {
        let code = line.trim_start();
        let comment = code.starts_with("//");
        !comment && ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "].iter().any(|word| code.contains(word))
    };
    // The string literals of this very check hold the words it looks for.
    lines.iter().enumerate().filter(move |(_, line)| opens(line) && !line.contains('"')).map(|(i, _)| i + 1)
}

/// Returns line number and length of every function longer than the limit, by the indentation that rustfmt keeps.
fn long_functions<'a>(lines: &'a [&str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    lines.iter().enumerate().filter(|(_, line)| is_function(line)).filter_map(|(start, line)| {
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|l| {
            l.trim_end() == close || l.trim_end().ends_with(';') && l.len() - l.trim_start().len() == indent
        })? + 1;
        (length > MAX_FUNCTION_LINES).then_some((start + 1, length))
    })
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\"", "in"].contains(word)
    });
    words.next() == Some("fn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_rules() {
        assert_eq!(findings(&crate::root()), Vec::<String>::new());
    }

    #[test]
    fn what_breaks_a_rule_is_found() {
        let long = format!("//! Doc.\nfn f() {{\n{}}}\n", "    x();\n".repeat(120));
        let huge = format!("//! Doc.\n{}", "// line\n".repeat(1000));
        let cases = [
            ("crates/a/src/b.rs", "//! Doc.\nfn f() {}\n", 0, "nothing wrong"),
            ("crates/a/src/b.rs", "fn f() {}\n", 1, "no module documentation"),
            (
                "crates/a/src/b.rs",
                "//! Doc.\nfn f() {\n    unsafe { g() }\n}\n",
                1,
                "unsafe in a place without licence",
            ),
            (
                "crates/woolly-gguf/src/map.rs",
                "//! Doc.\nfn f() {\n    unsafe { g() }\n}\n",
                0,
                "unsafe where it may be",
            ),
            ("crates/a/src/b.rs", &long, 1, "a long function"),
            ("crates/a/src/b.rs", &huge, 1, "a long file"),
        ];
        for (name, text, expected, why) in cases {
            assert_eq!(check(name, text).len(), expected, "{why}: {:?}", check(name, text));
        }
    }
}
