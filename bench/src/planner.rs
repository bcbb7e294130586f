//! Programs that plan a day: the server's planner, and an independent solver.
//!
//! Both are processes that read the same file, so that the memory of each can be measured. The timed part begins when the
//! manifest has been read and ends with the result. Each writes its figures as one JSON object.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use odyssey::assignments::manifest::Manifest;
use odyssey::assignments::matching::{Cancellation, Catalogue, Request, plan};
use odyssey::assignments::model::DriverId;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::engine::{Bench, Sample, Side};
use crate::machine::memory_bytes;
use crate::packages::{Ids, mixed};
use crate::rows::Subject;

/// Given to Python as it is.
const SOLVER: &str = include_str!("../peers/plan.py");
/// Packages of one driver at most.
const MAX_PER_DRIVER: u32 = 10;
/// The same, on the large day.
const LARGE_MAX_PER_DRIVER: u32 = 100;
const LARGE_DRIVERS: u64 = 1_000;
const LARGE_PACKAGES: u64 = 100_000;
/// Rules of one driver, on the large day.
const RULES: std::ops::Range<u64> = 2..5;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/data/day-",
            $name,
            ".json"
        ))
    };
}

/// A day by its name, as JSON.
fn manifest(day: &str) -> Result<Cow<'static, str>> {
    Ok(match day {
        "10x60" => data!("10x60").into(),
        "99x990-few-rules" => data!("99x990-few-rules").into(),
        "99x990-many-rules" => data!("99x990-many-rules").into(),
        "large" => drawn(LARGE_DRIVERS, LARGE_PACKAGES)?.into(),
        _ => bail!("there is no day {day}"),
    })
}

/// Drawn from the day with many rules, the same each time: each attribute of a package from any package, independently; for
/// each driver some rules of any drivers, with different codes.
fn drawn(drivers: u64, packages: u64) -> Result<String> {
    let known: Value = serde_json::from_str(&manifest("99x990-many-rules")?)?;
    let list = |name: &str| known[name].as_array().context("a list of the known day");
    let (known_drivers, known_packages) = (list("drivers")?, list("packages")?);
    let rules: Vec<&Value> = known_drivers
        .iter()
        .filter_map(|driver| driver["rules"].as_array())
        .flatten()
        .collect();
    let attributes = known_packages[0].as_object().context("a package")?;
    let mut numbers = 0;
    // Below `end`, which is small: no number is noticeably more frequent than another.
    let mut draw = |end: usize| {
        numbers += 1;
        usize::try_from(mixed(numbers) % end as u64)
    };
    let mut all_drivers = Vec::new();
    for number in 1..=drivers {
        let span = usize::try_from(RULES.end - RULES.start)?;
        let count = usize::try_from(RULES.start)? + draw(span)?;
        let mut own: Vec<&Value> = Vec::new();
        while own.len() < count {
            let rule = rules[draw(rules.len())?];
            if own.iter().all(|other| other["code"] != rule["code"]) {
                own.push(rule);
            }
        }
        let id = format!("driver_{number}");
        all_drivers.push(json!({ "driver_id": id, "rules": own }));
    }
    let mut all_packages = Vec::new();
    for number in 0..packages {
        let mut package = Map::new();
        for name in attributes.keys() {
            let any = &known_packages[draw(known_packages.len())?];
            package.insert(name.clone(), any[name].clone());
        }
        package["package_id"] = Ids::Random.name(number).into();
        all_packages.push(package);
    }
    let day = json!({ "drivers": all_drivers, "packages": all_packages });
    Ok(day.to_string())
}

/// A program that is started for each sample.
pub(crate) struct Process<'a> {
    subject: &'static Subject,
    max_per_driver: u32,
    bench: &'a Bench,
    dir: TempDir,
}

impl<'a> Process<'a> {
    pub(crate) fn new(subject: &'static Subject, day: &str, bench: &'a Bench) -> Result<Self> {
        let dir = bench.programs.directory()?;
        fs::write(dir.path().join("manifest.json"), &*manifest(day)?)?;
        let is_large = day == "large";
        Ok(Self {
            subject,
            max_per_driver: if is_large {
                LARGE_MAX_PER_DRIVER
            } else {
                MAX_PER_DRIVER
            },
            bench,
            dir,
        })
    }
}

impl Side for Process<'_> {
    fn sample(&mut self) -> Result<Sample> {
        let programs = &self.bench.programs;
        let mut command: Command = programs.command(self.subject, self.dir.path(), 0)?;
        if self.subject.program == "python" {
            command.arg(SOLVER);
        }
        command.args(["manifest.json", &self.max_per_driver.to_string()]);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .context("starting a program")?;
        ensure!(output.status.success(), "it ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("a program's figures")
    }
}

/// Plans a day with the server's planner, and writes what it took.
pub(crate) fn plan_day(file: &Path, max_per_driver: u32) -> Result<()> {
    let opened = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let manifest: Manifest =
        serde_json::from_reader(BufReader::new(opened)).context("reading the manifest")?;
    let drivers = manifest.drivers.iter().map(|driver| driver.id.clone());
    let drivers: BTreeSet<DriverId> = drivers.collect();
    let packages = manifest.packages.len();
    let resident = memory_bytes("self", "VmRSS:")?;
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
    let is_complete = carried + planned.plan.unassigned.len() == packages;
    ensure!(
        is_complete,
        "packages are missing in the plan, or twice in it"
    );
    let peak = memory_bytes("self", "VmHWM:")?;
    let figures = json!({
        "carried": carried,
        "seconds": seconds,
        "peak_bytes": peak,
        "growth_bytes": peak - resident,
    });
    writeln!(io::stdout(), "{figures}").context("writing the figures")
}

#[cfg(test)]
mod tests {
    use odyssey::assignments::rules::Rule;

    use super::*;

    #[test]
    fn a_drawn_day_is_accepted_by_the_server_and_the_same_each_time() {
        let text = drawn(200, 500).unwrap();
        assert_eq!(text, drawn(200, 500).unwrap());
        let day: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!((day.drivers.len(), day.packages.len()), (200, 500));
        let ids: BTreeSet<_> = day.packages.iter().map(|package| &package.id).collect();
        assert_eq!(ids.len(), 500);
        let (mut counts, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for driver in &day.drivers {
            let codes: BTreeSet<_> = driver.rules.iter().map(|rule| rule.rule.code()).collect();
            assert_eq!(codes.len(), driver.rules.len(), "no code twice");
            counts.insert(codes.len());
            seen.extend(codes);
        }
        assert_eq!(counts, BTreeSet::from([2, 3, 4]));
        assert_eq!(seen.len(), Rule::CODES.len());
    }
}
