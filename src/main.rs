//! The program: a command line that runs the server, or a command of [`odyssey::cli`].

use std::path::Path;
use std::process::{self, ExitCode};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;
use odyssey::app::{self, Addresses, Start};
use odyssey::cli::{self, Cli, Command, Source};
use odyssey::telemetry;

/// Held connections: each keeps two buffers of 8 KiB that are mostly untouched. This allocator leaves the untouched pages
/// to the system, which is worth 4 KB per held customer against the system's (docs/adr/0012-jemalloc.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::exit_code(match Cli::parse().command {
        Command::Serve { source, addresses } => serve(&source, addresses.as_deref()),
        command => cli::run(command),
    })
}

/// Serves, and exits the process itself: neither an open connection nor a blocked standard error may delay the exit.
fn serve(source: &Source, addresses: Option<&Path>) -> anyhow::Result<()> {
    let began = Instant::now();
    let config = source.load()?;
    let logs = telemetry::init_logs(&config.log).map_err(anyhow::Error::msg)?;
    let now = Timestamp::now();
    if now < Timestamp::UNIX_EPOCH {
        // HTTP has no dates before 1970: hyper panics at the first answer.
        anyhow::bail!("the clock says {now:.0}, which is before 1970; set the clock");
    }
    config.log_passed_over();
    let runtime = app::runtime(config.workers()).context("cannot start the runtime")?;
    let start = Start {
        config,
        file: source.config.clone(),
        logs: logs.clone(),
        began,
    };
    let opened = |opened: &Addresses| {
        let Some(file) = addresses else { return Ok(()) };
        write_atomically(file, &serde_json::to_vec(opened)?)
            .with_context(|| format!("cannot write the addresses to {}", file.display()))
    };
    let ended = runtime.block_on(Box::pin(app::serve(start, opened)));
    runtime.shutdown_background();
    let code = ended.unwrap_or_else(|error| {
        logs.say(&format!("odyssey: {error:#}"));
        1
    });
    logs.flush();
    process::exit(i32::from(code));
}

/// Atomic: readers see all of the file or none.
fn write_atomically(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = file.to_owned().into_os_string();
    partial.push(".partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, file)
}
