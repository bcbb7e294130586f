//! Plans one day with the measured server's own planner, in a separate process: so its memory can be measured alone, and
//! compared with another program's.
//!
//! Says on one line of JSON what came of it and what it took. Reading the manifest is not part of what is timed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use odyssey::assignments::manifest::Manifest;
use odyssey::assignments::matching::{Cancellation, Catalogue, Request, plan};
use odyssey::assignments::model::DriverId;
use serde_json::json;

/// The measured server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Plans one day for all of its drivers.
#[derive(Parser)]
struct Options {
    /// The day's lists.
    manifest: PathBuf,
    /// Packages of one driver at most.
    max_per_driver: u32,
}

fn main() -> anyhow::Result<()> {
    let Options {
        manifest,
        max_per_driver,
    } = Options::parse();
    let file = File::open(&manifest).with_context(|| format!("opening {}", manifest.display()))?;
    let manifest: Manifest =
        serde_json::from_reader(BufReader::new(file)).context("reading the manifest")?;
    let drivers: BTreeSet<DriverId> = manifest
        .drivers
        .iter()
        .map(|driver| driver.id.clone())
        .collect();
    let packages = manifest.packages.len();
    let resident = memory("VmRSS:")?;
    let begin = Instant::now();
    let catalogue = Catalogue::new(manifest);
    let request = Request {
        drivers: &drivers,
        max_per_driver,
        held: &[],
    };
    let planned = plan(&catalogue, &request, &Cancellation::default())?;
    let seconds = begin.elapsed().as_secs_f64();
    let carried: usize = planned.plan.assignments.values().map(Vec::len).sum();
    anyhow::ensure!(
        carried + planned.plan.unassigned.len() == packages,
        "packages are missing in the plan, or twice in it"
    );
    let answer = json!({
        "carried": carried,
        "seconds": seconds,
        "resident_bytes": resident,
        "peak_bytes": memory("VmHWM:")?,
    });
    writeln!(io::stdout(), "{answer}").context("saying what it took")
}

/// What is resident (`VmRSS:`) or the most that ever was (`VmHWM:`), in bytes.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .with_context(|| format!("no {name} here"))?
        .parse()?;
    Ok(kib * 1024)
}
