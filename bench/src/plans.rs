//! The planner of a day against an independent solver: whether both carry as many packages, and what it takes each of them.
//!
//! Both are separate processes that read the same file, so that the memory of each can be measured. The timed part begins
//! when the manifest has been read and ends with the result.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::day::{self, CAP, DAYS, Known};
use crate::peers::{Program, Programs};

/// Drivers of the large day.
const DRIVERS: u32 = 1_000;
/// Packages of the large day.
pub(crate) const PACKAGES: u32 = 100_000;
/// Packages of one driver at most, on the large day.
const LARGE_CAP: u32 = 100;
/// The solver, which is given to Python as it stands there.
const SOLVER: &str = include_str!("../peers/plan.py");
/// The method that is compared.
const METHOD: &str = "dinic";
/// The solver's other method.
const OTHER_METHOD: &str = "edmonds_karp";
/// For what should take seconds.
const PATIENCE: Duration = Duration::from_mins(5);
/// The other method is not waited for longer than this many times what the first took.
const NOT_FASTER: f64 = 3.0;

/// What one program says it did.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Reported {
    /// Packages that its plan carries.
    pub(crate) carried: u32,
    /// From a manifest that is read to the result.
    pub(crate) seconds: f64,
    /// Resident memory before.
    resident_bytes: f64,
    /// The most memory that the process ever had.
    pub(crate) peak_bytes: f64,
}

impl Reported {
    /// How much more memory it took than there was when the manifest had been read.
    pub(crate) fn growth_bytes(self) -> f64 {
        self.peak_bytes - self.resident_bytes
    }
}

/// The solver's figures in addition to those of the planner.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Solved {
    #[serde(flatten)]
    pub(crate) reported: Reported,
    /// The part of its time in which the graph was built.
    pub(crate) graph_seconds: f64,
    /// Edges of the graph.
    pub(crate) edges: u32,
    /// Packages that are carried if each driver, in the order of the list, takes the first that fit.
    pub(crate) greedy: u32,
}

/// A day in a file, for both.
pub(crate) struct Instance {
    dir: TempDir,
    cap: u32,
}

impl Instance {
    /// The large day.
    pub(crate) fn large(programs: &Programs) -> Result<Self> {
        Self::new(programs, &day::drawn(DRIVERS, PACKAGES), LARGE_CAP)
    }

    fn new(programs: &Programs, manifest: &str, cap: u32) -> Result<Self> {
        let dir = TempDir::with_prefix_in("odyssey-bench-", programs.data())?;
        let instance = Self { dir, cap };
        fs::write(instance.file(), manifest).context("writing a manifest")?;
        Ok(instance)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("manifest.json")
    }

    /// Has the measured server's planner plan the day.
    pub(crate) fn plan(&self, programs: &Programs) -> Result<Reported> {
        let mut command = programs.command(Program::Planner)?;
        command.arg(self.file()).arg(self.cap.to_string());
        let stdout = programs.stdout(command, PATIENCE)?;
        let stdout = stdout.context("the planner does not end")?;
        serde_json::from_str(&stdout).context("what the planner said")
    }

    /// Has the solver solve the day.
    pub(crate) fn solve(&self, programs: &Programs) -> Result<Solved> {
        let stdout = programs.stdout(self.solver(programs, METHOD)?, PATIENCE)?;
        let stdout = stdout.context("the solver does not end")?;
        serde_json::from_str(&stdout).context("what the solver said")
    }

    /// Makes sure that the solver's other method is not the faster one, and says how long it was waited for.
    pub(crate) fn try_other_method(
        &self,
        programs: &Programs,
        compared: &Reported,
    ) -> Result<Duration> {
        let limit =
            Duration::from_secs_f64(compared.seconds * NOT_FASTER).max(Duration::from_secs(5));
        if let Some(stdout) = programs.stdout(self.solver(programs, OTHER_METHOD)?, limit)? {
            let other: Solved = serde_json::from_str(&stdout).context("what the solver said")?;
            ensure!(
                other.reported.seconds >= compared.seconds,
                "scipy's {OTHER_METHOD} is faster than its {METHOD} here; compare with that one"
            );
        }
        Ok(limit)
    }

    fn solver(&self, programs: &Programs, method: &str) -> Result<Command> {
        let mut command = programs.command(Program::Python)?;
        command.args(["-c", SOLVER]).arg(self.file());
        command.args([&self.cap.to_string(), method]);
        Ok(command)
    }
}

/// Plans and solves a day that is known. Fails unless everything is as it is known to be.
pub(crate) fn check(programs: &Programs, known: &Known) -> Result<(Reported, Solved)> {
    let instance = Instance::new(programs, known.manifest, CAP)?;
    let (planned, solved) = (instance.plan(programs)?, instance.solve(programs)?);
    ensure!(
        planned.carried == solved.reported.carried && planned.carried == known.best,
        "{}: the plan carries {} packages, scipy's maximum flow {}, and {} are known to be the most",
        known.name,
        planned.carried,
        solved.reported.carried,
        known.best
    );
    ensure!(
        solved.greedy == known.greedy,
        "{}: first fit carries {} packages, and is known to carry {}",
        known.name,
        solved.greedy,
        known.greedy
    );
    Ok((planned, solved))
}

/// The same for all days that are known.
pub(crate) fn check_all(programs: &Programs) -> Result<Vec<(&'static Known, Reported, Solved)>> {
    DAYS.iter()
        .map(|known| check(programs, known).map(|(planned, solved)| (known, planned, solved)))
        .collect()
}
