//! The program: a command line that runs the server, or a command of [`odyssey::cli`].

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;
use odyssey::app::App;
use odyssey::cli::{self, Cli, Command};
use odyssey::config::Config;
use odyssey::shutdown::Signals;
use odyssey::telemetry;

/// Held connections: each keeps two buffers of 8 KiB that are mostly untouched. This allocator leaves the untouched pages
/// to the system, which is worth 4 KB per held customer against the system's (see ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::exit_code(match Cli::parse().command {
        Command::Serve { source, addresses } => source
            .load()
            .and_then(|config| serve(&config, addresses.as_deref())),
        command => cli::run(command),
    })
}

fn serve(config: &Config, addresses: Option<&Path>) -> anyhow::Result<()> {
    telemetry::init_logs(&config.log).map_err(anyhow::Error::msg)?;
    let now = Timestamp::now();
    if now < Timestamp::UNIX_EPOCH {
        // HTTP has no dates before 1970: hyper panics at the first answer.
        anyhow::bail!("the clock says {now:.0}, which is before 1970; set the clock");
    }
    config.log_passed_over();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::take_over().context("cannot listen for signals")?;
        let app = App::open(config).await?;
        if let Some(file) = addresses {
            write_whole(file, &serde_json::to_vec(&app.addresses())?)
                .with_context(|| format!("cannot write the addresses to {}", file.display()))?;
        }
        // Large, and moved once.
        Box::pin(app.run(signals)).await;
        anyhow::Ok(())
    })?;
    // Whatever is still open after the deadline ends here, with the process.
    runtime.shutdown_background();
    Ok(())
}

/// Whoever waits for the file sees all of it or nothing.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = file.to_owned().into_os_string();
    partial.push(".partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, file)
}
