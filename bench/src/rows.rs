//! `rows.toml`: everything that is measured, as data.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::dispatching::Way;
use crate::disturbed::Disturbance;
use crate::shared;

/// Checked by a test: it parses, and every name in it is defined.
pub(crate) static ROWS: LazyLock<Rows> =
    LazyLock::new(|| toml::from_str(include_str!("../rows.toml")).expect("rows.toml is valid"));

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) figures: BTreeMap<String, Figure>,
    pub(crate) programs: BTreeMap<String, Program>,
    pub(crate) settings: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) subjects: BTreeMap<String, Subject>,
    pub(crate) experiments: Vec<Experiment>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Figure {
    /// 1 if it is missing.
    pub(crate) scale: Option<f64>,
    pub(crate) decimals: usize,
    pub(crate) suffix: String,
    pub(crate) what: String,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub(crate) file: String,
    pub(crate) from: Origin,
    pub(crate) remedy: String,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    Build,
    Target,
    Path,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) program: String,
    pub(crate) settings: Option<String>,
    pub(crate) drive: Drive,
    #[serde(default)]
    pub(crate) expect: BTreeMap<String, f64>,
}

/// What a subject's samples are made of.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Drive {
    /// A load of clients, by name.
    Load(String),
    /// Requests of a load's clients that a new server holds.
    Held(String),
    /// The same, as HTTP/2 streams of one connection.
    Streams,
    /// The line of orders in this process, with so many waiting.
    Line(u32),
    /// Flushes to the disk by this process.
    Flushes,
    /// A process that plans or solves a day.
    Day(String),
    /// Decisions about orders for couriers, without HTTP.
    Decide(Way),
    /// Cycles of a line that servers share, without HTTP.
    Share(shared::Way),
    /// Orders at a steady rate in a line that two servers share, without HTTP.
    Steady,
    /// Two servers that share a line, without requests.
    Idle,
    /// The verification of tokens in this process.
    Verify { known: bool },
    /// Cycles beside clients that disturb.
    Beside(Disturbance),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) samples: Option<u32>,
    #[serde(default = "unlimited")]
    pub(crate) rounds_max: u32,
    /// Whether the file system of the data influences the result.
    #[serde(default)]
    pub(crate) stored: bool,
    rows: Vec<Row>,
}

fn unlimited() -> u32 {
    u32::MAX
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Row {
    /// Begins with the number by which README.md describes it, unless the row above it does.
    pub(crate) measure: String,
    pub(crate) figure: String,
    /// The keys of subjects.
    pub(crate) ours: String,
    pub(crate) peer: Option<String>,
    peer_figure: Option<String>,
    /// The peer's value is multiplied by it.
    #[serde(default = "one")]
    pub(crate) peer_times: f64,
    /// Added to the peer's value.
    #[serde(default)]
    pub(crate) peer_plus: f64,
    /// Flushes that each of the peer's answers waits for in addition.
    pub(crate) peer_flushes: Option<PeerFlushes>,
    /// For runs in which servers may use all processors.
    #[serde(default)]
    unpinned: bool,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

/// The peer's rate becomes the limit of a closed loop whose clients wait for the peer's answer and for these flushes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerFlushes {
    /// The key of the subject with the time of one.
    pub(crate) of: String,
    /// An answer waits for its own flush, and on average for half of the one that goes on when its request arrives.
    pub(crate) times: f64,
}

/// Of the ratio, or of the value in a row without a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    pub(crate) fn peer_figure(&self) -> &str {
        self.peer_figure.as_ref().unwrap_or(&self.figure)
    }

    pub(crate) fn target(&self) -> Option<Target> {
        let at_least = self.at_least.map(Target::AtLeast);
        at_least.or(self.at_most.map(Target::AtMost))
    }
}

impl Experiment {
    /// The rows of a run with or without pinned servers.
    pub(crate) fn rows(&self, is_pinned: bool) -> impl Iterator<Item = &Row> {
        let rows = self.rows.iter();
        rows.filter(move |row| !(row.unpinned && is_pinned))
    }

    /// The keys of their subjects, in the order in which rows name them.
    pub(crate) fn subjects(&self, is_pinned: bool) -> Vec<&String> {
        let mut keys = Vec::new();
        let named = self.rows(is_pinned).flat_map(|row| {
            let flushes = row.peer_flushes.as_ref();
            let flushes = flushes.map(|flushes| &flushes.of);
            [Some(&row.ours), row.peer.as_ref(), flushes]
        });
        for key in named {
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
        keys
    }

    /// The number of its first row.
    pub(crate) fn number(&self) -> &str {
        self.rows[0].measure.split('.').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;

    #[test]
    fn everything_that_a_row_names_is_defined() {
        for experiment in &ROWS.experiments {
            assert!(
                experiment.number().parse::<u8>().is_ok(),
                "{}",
                experiment.name
            );
            for row in &experiment.rows {
                assert!(ROWS.figures.contains_key(&row.figure), "{}", row.figure);
                assert!(
                    ROWS.figures.contains_key(row.peer_figure()),
                    "{}",
                    row.measure
                );
            }
            for key in experiment.subjects(false) {
                let subject = &ROWS.subjects[key];
                assert!(ROWS.programs.contains_key(&subject.program), "{key}");
                let settings = subject.settings.as_ref();
                assert!(
                    settings.is_none_or(|name| ROWS.settings.contains_key(name)),
                    "{key}"
                );
                if let Drive::Load(load) | Drive::Held(load) = &subject.drive {
                    Load::named(load).unwrap();
                }
            }
        }
    }
}
