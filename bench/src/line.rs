//! The line's own cost, from what its benchmark has left behind.
//!
//! No server is involved, so `benches/line.rs` measures it with criterion, before this program runs. Criterion keeps the
//! samples of its last run in the target directory. The two lengths are measured one after the other, not in rounds:
//! no sample has a counterpart, and the medians themselves are compared.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::rounds::Section;
use crate::table::{Row, Target, Unit};

/// The benchmark's group, as `benches/line.rs` names it.
const GROUP: &str = "place+start+finish";
/// How many wait in a very long line, as the benchmark names it.
const LONG: &str = "1000000";
/// How many wait in a short one.
const SHORT: &str = "100";

const MEASURE: &str = "4. the line itself, 1,000,000 waiting to 100";
const TARGET: Target = Target::AtMost(2.0);
const REMEDY: &str = "run `cargo bench -p bench --bench line` first";

/// A very long line against a short one.
pub(crate) fn section() -> Result<Section> {
    read(&criterion_directory()?)
}

/// Criterion's directory is that of the whole build; this program lies one level below it.
fn criterion_directory() -> Result<PathBuf> {
    let own = env::current_exe().context("where this program is")?;
    let target = own.ancestors().nth(2).context("where the build is")?;
    Ok(target.join("criterion"))
}

fn read(criterion: &Path) -> Result<Section> {
    let (Some(long), Some(short)) = (
        Samples::read(criterion, LONG)?,
        Samples::read(criterion, SHORT)?,
    ) else {
        return Ok(Section {
            rows: vec![Row::missing(MEASURE, TARGET, REMEDY)],
            note: None,
        });
    };
    let row = Row::unpaired(
        MEASURE,
        Unit::Nanoseconds,
        &long.nanoseconds,
        &short.nanoseconds,
        TARGET,
    );
    let note = format!(
        "4: medians of {} and {} samples of its own benchmark, which ran {} minutes before this table was made.",
        long.nanoseconds.len(),
        short.nanoseconds.len(),
        long.age.max(short.age).as_secs().div_ceil(60)
    );
    Ok(Section {
        rows: vec![row],
        note: Some(note),
    })
}

/// What one length's benchmark has left behind.
#[derive(Debug)]
struct Samples {
    /// Of one order, sample by sample.
    nanoseconds: Vec<f64>,
    age: Duration,
}

impl Samples {
    /// Nothing if the benchmark has not run.
    fn read(criterion: &Path, waiting: &str) -> Result<Option<Self>> {
        let file = criterion
            .join(GROUP)
            .join(waiting)
            .join("new")
            .join("sample.json");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", file.display()))?,
        };
        let nanoseconds = per_iteration(&text)
            .with_context(|| format!("understanding the samples in {}", file.display()))?;
        let taken = fs::metadata(&file)?.modified()?;
        // A clock that was set back makes them new.
        let age = SystemTime::now().duration_since(taken).unwrap_or_default();
        Ok(Some(Samples { nanoseconds, age }))
    }
}

/// Each sample is a number of iterations and the nanoseconds they took together.
fn per_iteration(samples: &str) -> Result<Vec<f64>> {
    let samples: Value = serde_json::from_str(samples)?;
    let numbers = |name: &str| -> Result<Vec<f64>> {
        let values = samples[name].as_array();
        let numbers = values.and_then(|values| values.iter().map(Value::as_f64).collect());
        numbers.with_context(|| format!("`{name}` is not a list of numbers"))
    };
    let (iterations, times) = (numbers("iters")?, numbers("times")?);
    ensure!(
        !times.is_empty() && iterations.len() == times.len(),
        "{} times of {} samples",
        times.len(),
        iterations.len()
    );
    ensure!(
        iterations.iter().chain(&times).all(|&number| number > 0.0),
        "a sample of nothing"
    );
    let pairs = times.iter().zip(&iterations);
    Ok(pairs.map(|(time, iterations)| time / iterations).collect())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn leave(criterion: &Path, waiting: &str, samples: &str) {
        let dir = criterion.join(GROUP).join(waiting).join("new");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("sample.json"), samples).unwrap();
    }

    #[test]
    fn a_sample_is_a_time_of_many_iterations() {
        let samples =
            r#"{"sampling_mode":"Linear","iters":[10.0,20.0,40.0],"times":[1000.0,2400.0,4400.0]}"#;
        assert_eq!(per_iteration(samples).unwrap(), [100.0, 120.0, 110.0]);
    }

    #[test]
    fn what_is_not_samples_is_refused() {
        for samples in [
            "",
            "{}",
            r#"{"iters":[],"times":[]}"#,
            r#"{"iters":[1.0],"times":[1.0,2.0]}"#,
            r#"{"iters":[0.0],"times":[1.0]}"#,
            r#"{"iters":["1"],"times":[1.0]}"#,
        ] {
            assert!(per_iteration(samples).is_err(), "{samples}");
        }
    }

    #[test]
    fn the_long_line_is_compared_with_the_short_one() {
        let dir = TempDir::new().unwrap();
        leave(
            dir.path(),
            SHORT,
            r#"{"iters":[10,10],"times":[1000,3000]}"#,
        );
        leave(dir.path(), LONG, r#"{"iters":[10],"times":[3000]}"#);
        let section = read(dir.path()).unwrap();
        assert_eq!(
            section.rows,
            [Row::unpaired(
                MEASURE,
                Unit::Nanoseconds,
                &[300.0],
                &[100.0, 300.0],
                TARGET
            )]
        );
        let note = section.note.unwrap();
        assert!(note.contains("medians of 1 and 2 samples"), "{note}");
    }

    #[test]
    fn a_benchmark_that_has_not_run_is_asked_for() {
        let dir = TempDir::new().unwrap();
        let missing = [Row::missing(MEASURE, TARGET, REMEDY)];
        assert_eq!(read(dir.path()).unwrap().rows, missing);
        leave(dir.path(), SHORT, r#"{"iters":[1],"times":[1]}"#);
        assert_eq!(read(dir.path()).unwrap().rows, missing);
        leave(dir.path(), LONG, "{");
        assert!(read(dir.path()).is_err(), "half a file is no benchmark");
    }
}
