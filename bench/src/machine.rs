//! Where and with what the numbers were taken: a number without that says nothing.

use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use crate::peers::{GEARMAND_THREADS, Program, Programs};

/// The lock file this program was built with: it knows which hyper the bare server is.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));

/// One line on the machine and the versions of the programs that took part.
pub(crate) fn describe(programs: &Programs, taking_part: &[Program]) -> Result<String> {
    let cores = available_parallelism().context("counting cores")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = vec![
        format!("{cores} cores ({})", processor()),
        format!("Linux {}", kernel.trim()),
    ];
    for &program in taking_part {
        parts.push(match program {
            Program::Bare => format!(
                "bare hyper {}",
                locked_version(LOCK, "hyper").unwrap_or("(unknown)")
            ),
            Program::Gearmand => format!(
                "{} with {GEARMAND_THREADS} threads",
                programs.version(program)?
            ),
            Program::Odyssey | Program::Nats => programs.version(program)?,
        });
    }
    Ok(parts.join(", "))
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(
        || "model unknown".to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// The first version of a package that a lock file names.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let mut lines = lock
        .lines()
        .skip_while(|line| *line != format!("name = \"{package}\""));
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn the_version_stands_below_the_name() {
        let lock = "[[package]]\nname = \"hyper-util\"\nversion = \"0.1.2\"\n\n[[package]]\nname = \"hyper\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked_version(lock, "hyper"), Some("1.2.3"));
        assert_eq!(locked_version(lock, "axum"), None);
    }
}
