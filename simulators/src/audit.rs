//! The checks of a run: what the server must report after what it acknowledged, and the text of each finding.

use std::fmt;

use serde::Serialize;

use crate::{report::LABEL_WIDTH, shop::Failure};

/// How often something was wrong, and what it was the first time.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Faults {
    pub(crate) times: u64,
    pub(crate) first: Option<String>,
}

impl Faults {
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        self.times += 1;
        self.first.get_or_insert_with(what);
    }
}

/// A number known up to the requests of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) least: i128,
    pub(crate) most: i128,
}

impl Expected {
    /// So many, and up to `unknown` more.
    pub(crate) fn of(known: u64, unknown: u64) -> Self {
        let least = i128::from(known);
        Self {
            least,
            most: least + i128::from(unknown),
        }
    }

    pub(crate) fn admits(self, number: i128) -> bool {
        (self.least..=self.most).contains(&number)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        if least == most {
            return write!(f, "{least:+}");
        }
        let unknown = most - least;
        write!(f, "{least:+} to {most:+} ({unknown} of unknown fate)")
    }
}

/// What the server's own figures were, before the run and after it.
#[derive(Debug)]
pub(crate) enum Counted<T> {
    /// Others use the server too.
    NotCompared,
    BeforeAndAfter(T, T),
    /// Why they could not be read at the end.
    Unreadable(String),
}

impl<T> Counted<T> {
    pub(crate) fn of(before: T, after: Result<T, Failure>) -> Self {
        match after {
            Ok(after) => Self::BeforeAndAfter(before, after),
            Err(failure) => Self::Unreadable(failure.to_string()),
        }
    }

    /// A check of each name: whether its figure changed as expected. `asked` is the request that the figures are from.
    pub(crate) fn changes<const N: usize>(
        &self,
        asked: &str,
        figures: [(&'static str, Figure<T>, Expected); N],
    ) -> [Check; N] {
        figures.map(|(name, figure, expected)| match self {
            Self::BeforeAndAfter(before, after) => {
                Check::change(name, figure(before), figure(after), expected)
            }
            Self::NotCompared => Check {
                name,
                outcome: Outcome::Skipped,
                finding: "others use the server too".to_owned(),
            },
            Self::Unreadable(why) => Check::new(name, false, format!("{asked}: {why}")),
        })
    }
}

/// One of the figures that are read together.
pub(crate) type Figure<T> = fn(&T) -> u64;

/// One thing that must hold.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    /// The figures behind it.
    pub(crate) finding: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ok,
    Failed,
    /// Not compared because others use the server too.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

impl Check {
    pub(crate) fn new(name: &'static str, holds: bool, finding: String) -> Self {
        let outcome = if holds { Outcome::Ok } else { Outcome::Failed };
        Self {
            name,
            outcome,
            finding,
        }
    }

    /// Holds when none of `all` was at fault.
    pub(crate) fn without(name: &'static str, faults: &Faults, all: u64) -> Self {
        let finding = match &faults.first {
            None => format!("{all} right"),
            Some(first) => format!("{} of {all} wrong; first {first}", faults.times),
        };
        Self::new(name, faults.times == 0, finding)
    }

    /// Holds when none of `all` that could be looked up was at fault, and all could be. `broken_off` is the reason if not.
    pub(crate) fn looked_up(
        name: &'static str,
        asked: &str,
        faults: &Faults,
        all: u64,
        broken_off: Option<&str>,
    ) -> Self {
        match broken_off {
            Some(why) => Self::new(name, false, format!("{asked}: {why}")),
            None => Self::without(name, faults, all),
        }
    }

    /// Holds when nothing of what had to be acknowledged was given up. `things` are what is counted.
    pub(crate) fn nothing_given_up(
        name: &'static str,
        things: &str,
        acknowledged: u64,
        given_up: &Faults,
        fate_unknown: u64,
    ) -> Self {
        let finding = match &given_up.first {
            None => format!("{acknowledged} {things}"),
            Some(first) => format!(
                "{acknowledged} {things}, {} were not ({fate_unknown} may have been taken all the same); first {first}",
                given_up.times
            ),
        };
        Self::new(name, given_up.times == 0, finding)
    }

    fn change(name: &'static str, before: u64, after: u64, expected: Expected) -> Self {
        let change = i128::from(after) - i128::from(before);
        let finding = format!("{before} to {after}: {change:+}, expected {expected}");
        Self::new(name, expected.admits(change), finding)
    }
}

/// All that must hold.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Checks(Vec<Check>);

impl From<Vec<Check>> for Checks {
    fn from(checks: Vec<Check>) -> Self {
        Self(checks)
    }
}

impl Checks {
    pub(crate) fn all_hold(&self) -> bool {
        self.failed().is_empty()
    }

    /// The names of those that do not hold.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        let failed = |check: &&Check| check.outcome == Outcome::Failed;
        let failed = self.0.iter().filter(failed);
        failed.map(|check| check.name).collect()
    }

    /// These words when all hold; otherwise which do not.
    pub(crate) fn verdict(&self, in_order: String) -> String {
        let failed = self.failed();
        if failed.is_empty() {
            return in_order;
        }
        format!("FAILED: {}.", failed.join(", "))
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nChecks")?;
        for check in &self.0 {
            let Check {
                name,
                outcome,
                finding,
            } = check;
            writeln!(f, "  {name:<LABEL_WIDTH$}  {outcome:>12}  {finding}")?;
        }
        Ok(())
    }
}
