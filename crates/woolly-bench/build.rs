//! Tells the crate which commit it was built from; `unknown` outside of a repository.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=7", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let number = git(&["rev-list", "--count", "HEAD"]).unwrap_or_else(|| "0".to_owned());
    println!("cargo::rustc-env=WOOLLY_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=WOOLLY_BUILD_NUMBER={number}");
    // What HEAD names changes with every commit; HEAD itself with every switch of branches.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// Output of a git command, if there is git and a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
