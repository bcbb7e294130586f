//! Embeds the commit of the sources, for `src/version.rs`.
//!
//! `ODYSSEY_COMMIT` names it where there is no repository, as in the container's build. Only existing files are watched: a
//! missing one would rebuild every time.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ODYSSEY_COMMIT");
    let given = std::env::var("ODYSSEY_COMMIT").ok();
    let commit = given
        .filter(|commit| !commit.trim().is_empty())
        .or_else(of_repository)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ODYSSEY_COMMIT={}", commit.trim());
}

/// The commit that is checked out, if these sources are a repository of their own and git is installed.
fn of_repository() -> Option<String> {
    // Sources unpacked inside another repository are not at its commit.
    if !Path::new(".git").exists() {
        return None;
    }
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"];
    for name in names.into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
