//! The checks of a run: what the server must report after what it acknowledged, and the text of each finding.

use std::fmt;

use serde::Serialize;

use crate::{
    client::Failure,
    tally::{FATE_UNKNOWN, Faults, GIVEN_UP, Tally},
};

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
            Self::NotCompared => Check::skipped(name, "others use the server too"),
            Self::Unreadable(why) => Check::new(name, false, format!("{asked}: {why}")),
        })
    }
}

/// One of the figures that are read together.
pub(crate) type Figure<T> = fn(&T) -> u64;

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Verdict,
    /// The figures behind it.
    pub finding: String,
    /// What was wrong, for the page.
    #[serde(skip)]
    pub(crate) texts: Vec<String>,
}

/// Whether it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Failed,
    /// Not compared, for instance because others use the server too.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

impl Check {
    pub(crate) fn new(name: &'static str, holds: bool, finding: impl Into<String>) -> Self {
        let outcome = if holds { Verdict::Ok } else { Verdict::Failed };
        Self {
            name,
            outcome,
            finding: finding.into(),
            texts: Vec::new(),
        }
    }

    pub(crate) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        let outcome = Verdict::Skipped;
        Self {
            outcome,
            ..Self::new(name, true, why)
        }
    }

    /// Holds when none of those that were examined under this name was at fault.
    pub(crate) fn of(name: &'static str, tally: &Tally) -> Self {
        Self::without(name, &tally.faults(name), tally.get(name))
    }

    /// Holds when none of `all` was at fault.
    pub(crate) fn without(name: &'static str, faults: &Faults, all: u64) -> Self {
        let finding = match faults.first() {
            None => format!("{all} right"),
            Some(first) => format!("{} of {all} wrong; first {first}", faults.times),
        };
        let texts = faults.texts.clone();
        Self {
            texts,
            ..Self::new(name, faults.times == 0, finding)
        }
    }

    /// Fails if not all could be looked up, for this reason. `asked` is the request.
    pub(crate) fn broken_off(self, asked: &str, why: Option<&str>) -> Self {
        match why {
            Some(why) => Self::new(self.name, false, format!("{asked}: {why}")),
            None => self,
        }
    }

    /// Appends to the finding. Before [`broken_off`](Self::broken_off), which replaces it.
    pub(crate) fn and(mut self, remark: &str) -> Self {
        self.finding.push_str(remark);
        self
    }

    /// Holds when nothing of what had to be acknowledged was given up. `things` are what is counted.
    pub(crate) fn nothing_given_up(
        name: &'static str,
        things: &str,
        acknowledged: u64,
        tally: &Tally,
    ) -> Self {
        let (given_up, fate_unknown) = (tally.faults(GIVEN_UP), tally.get(FATE_UNKNOWN));
        let finding = match given_up.first() {
            None => format!("{acknowledged} {things}"),
            Some(first) => format!(
                "{acknowledged} {things}, {} were not ({fate_unknown} may have been taken all the same); first {first}",
                given_up.times
            ),
        };
        Self {
            texts: given_up.texts,
            ..Self::new(name, given_up.times == 0, finding)
        }
    }

    fn change(name: &'static str, before: u64, after: u64, expected: Expected) -> Self {
        let change = i128::from(after) - i128::from(before);
        let finding = format!("{before} to {after}: {change:+}, expected {expected}");
        Self::new(name, expected.admits(change), finding)
    }
}
