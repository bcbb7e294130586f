//! The engine runs any experiment: it samples the subjects of its rows in turn, and compares them.
//!
//! A round takes all samples of all subjects, one after the other (A B C A B C …), so that what disturbs the machine
//! disturbs all of them. A subject's value of a round is the median of its samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::access::Verification;
use crate::dispatching::Deciding;
use crate::disturbed::Disturbed;
use crate::line::Shop;
use crate::load::{CUSTOMERS, Load, Running, WINDOWS_PER_SECOND};
use crate::machine::{Flushes, Ticks};
use crate::memory::Held;
use crate::planner::Process;
use crate::programs::{Programs, half_the_processors};
use crate::rows::{Drive, Experiment, PeerFlushes, ROWS, Row, Subject};
use crate::shared::{Idle, Sharing, Steady};
use crate::streams::Streams;
use crate::table::{Line, Spread, thousands};

/// The share of its processor that the client used. Near 1, the client was the limit and not the server. For the note.
pub(crate) const CLIENT_BUSY: &str = "client-busy";

/// By the names of figures.
pub(crate) type Sample = BTreeMap<String, f64>;

pub(crate) fn sample<const N: usize>(figures: [(&str, f64); N]) -> Sample {
    figures.map(|(name, value)| (name.to_owned(), value)).into()
}

/// In seconds.
pub(crate) fn percentile(latencies: &mut [Duration], percent: usize) -> f64 {
    latencies.sort_unstable();
    latencies[(latencies.len() - 1) * percent / 100].as_secs_f64()
}

/// A subject that was started. It is stopped when it is dropped.
pub(crate) trait Side {
    /// The processes that use the machine for it, apart from this one. `None` if each sample starts others.
    fn processes(&self) -> Option<Vec<u32>> {
        None
    }

    fn sample(&mut self) -> Result<Sample>;

    /// Checks at the end.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How much is measured, and with which programs.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    /// Connections that are held.
    pub(crate) held: u32,
    /// Streams that are held on one connection.
    pub(crate) streams: u32,
}

/// The medians of one round, by the keys of subjects.
type Round = BTreeMap<&'static String, Sample>;

impl Experiment {
    /// The lines of the table, and a note.
    pub(crate) fn run(&'static self, bench: &Bench) -> Result<(Vec<Line>, Option<String>)> {
        let is_pinned = bench.programs.pinned.is_some();
        let keys = self.subjects(is_pinned);
        let mut sides = Vec::new();
        for &key in &keys {
            let side = ROWS.subjects[key].start(bench);
            sides.push(side.with_context(|| format!("starting {key}"))?);
        }
        let rounds = bench.rounds.min(self.rounds_max);
        let (mut series, mut others) = (Vec::new(), Vec::new());
        for number in 1..=rounds {
            let before = Ticks::used_by(&sides)?;
            let round = self.round(&keys, &mut sides, bench)?;
            if let Some((before, after)) = before.zip(Ticks::used_by(&sides)?) {
                others.push(after.others_since(before));
            }
            for &key in &keys {
                let (name, shown) = (&ROWS.subjects[key].name, shown(&round[key]));
                writeln!(io::stderr(), "round {number} of {rounds}: {name}: {shown}")?;
            }
            series.push(round);
        }
        for side in &mut sides {
            side.end()?;
        }
        let lines = self.rows(is_pinned).map(|row| row.line(&series, bench));
        Ok((
            lines.collect::<Result<_>>()?,
            self.note(&keys, &series, &others),
        ))
    }

    fn round(
        &self,
        keys: &[&'static String],
        sides: &mut [Box<dyn Side + '_>],
        bench: &Bench,
    ) -> Result<Round> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); keys.len()];
        for _ in 0..self.samples.unwrap_or(bench.seconds * WINDOWS_PER_SECOND) {
            for ((key, side), samples) in keys.iter().zip(&mut *sides).zip(&mut samples) {
                let sample = side.sample().with_context(|| format!("measuring {key}"))?;
                for (figure, expected) in &ROWS.subjects[*key].expect {
                    let found = sample.get(figure);
                    ensure!(
                        found == Some(expected),
                        "{figure} of {key}: {found:?}, not {expected}"
                    );
                }
                samples.push(sample);
            }
        }
        Ok(keys
            .iter()
            .copied()
            .zip(samples.iter().map(|samples| medians(samples)))
            .collect())
    }

    fn note(&self, keys: &[&String], series: &[Round], others: &[f64]) -> Option<String> {
        let others = (!others.is_empty()).then(|| Spread::new(others))?;
        let (low, high) = (others.low() * 100.0, others.high() * 100.0);
        let mut note = format!(
            "{}: other programs used {low:.0}–{high:.0} % of the machine",
            self.number()
        );
        for key in keys {
            let share = |round: &Round| round[key].get(CLIENT_BUSY).copied();
            if let Some(shares) = series.iter().map(share).collect::<Option<Vec<_>>>() {
                let (share, name) = (
                    Spread::new(&shares).median() * 100.0,
                    &ROWS.subjects[*key].name,
                );
                // Writing to a string cannot fail.
                let _ = write!(
                    note,
                    ", the client {share:.0} % of its processor with {name}"
                );
            }
        }
        Some(note + ".")
    }
}

/// All samples of a subject have the same figures.
fn medians(samples: &[Sample]) -> Sample {
    let median = |name| {
        Spread::new(
            &samples
                .iter()
                .map(|sample| sample[name])
                .collect::<Vec<_>>(),
        )
        .median()
    };
    samples[0]
        .keys()
        .map(|name| (name.clone(), median(name)))
        .collect()
}

/// The rate of a closed loop of clients that would have this rate if none waited, when each waits so many seconds for each
/// answer.
fn closed_loop(clients: u32, rate: f64, wait: f64) -> f64 {
    let clients = f64::from(clients);
    clients / (wait + clients / rate)
}

/// As progress lines have it: in the order of names, rate before server time.
fn shown(sample: &Sample) -> String {
    let figures = sample.iter().filter_map(|(name, value)| {
        let figure = ROWS.figures.get(name)?;
        Some(figure.show(*value) + &figure.what)
    });
    figures.collect::<Vec<_>>().join(", ")
}

impl Subject {
    pub(crate) fn start<'a>(&'static self, bench: &'a Bench) -> Result<Box<dyn Side + 'a>> {
        let server = || bench.programs.start(self);
        Ok(match &self.drive {
            Drive::Load(name) => Box::new(Running::start(Load::named(name)?, server()?, bench)?),
            Drive::Held(name) => Box::new(Held {
                subject: self,
                load: Load::named(name)?,
                bench,
            }),
            Drive::Streams => Box::new(Streams {
                subject: self,
                bench,
            }),
            Drive::Flushes => Box::new(Flushes::in_directory(&bench.programs.data)?),
            Drive::Line(waiting) => Box::new(Shop::with_waiting(*waiting)?),
            Drive::Day(name) => Box::new(Process::new(self, name, bench)?),
            Drive::Verify { known } => Box::new(Verification::of(*known)?),
            Drive::Beside(disturbance) => Box::new(Disturbed {
                server: server()?,
                by: *disturbance,
                window: Duration::from_secs(bench.seconds.into()),
            }),
            Drive::Decide(way) => Box::new(Deciding::start(*way, server()?)?),
            Drive::Share(way) => Box::new(Sharing::start(*way, server()?)?),
            Drive::Steady => {
                let window = Duration::from_secs(bench.seconds.into());
                Box::new(Steady::start(server()?, window)?)
            }
            Drive::Idle => Box::new(Idle::start(server()?, &bench.programs)?),
        })
    }
}

impl Row {
    fn line(&self, series: &[Round], bench: &Bench) -> Result<Line> {
        let values = |key: &String, figure: &str, times: f64, plus: f64| -> Result<Vec<f64>> {
            let values = series
                .iter()
                .map(|round| Some(round.get(key)?.get(figure)? * times + plus));
            let values = values.collect::<Option<_>>();
            values.with_context(|| format!("{key} has no {figure}"))
        };
        let ours = values(&self.ours, &self.figure, 1.0, 0.0)?;
        let peer = self.peer.as_ref();
        let peer = peer
            .map(|peer| values(peer, self.peer_figure(), self.peer_times, self.peer_plus))
            .transpose()?;
        let peer = match (peer, &self.peer_flushes) {
            (Some(peer), Some(PeerFlushes { of, times })) => {
                let waits = values(of, "flush", *times, 0.0)?;
                let limits = peer.iter().zip(waits);
                let limits = limits.map(|(&rate, wait)| closed_loop(CUSTOMERS, rate, wait));
                Some(limits.collect())
            }
            (peer, _) => peer,
        };
        let processors = available_parallelism().map_or(1, usize::from);
        let measure = self
            .measure
            .replace("{held}", &thousands(bench.held.into()))
            .replace("{streams}", &thousands(bench.streams.into()))
            .replace("{workers}", &half_the_processors().to_string())
            .replace("{processors}", &processors.to_string());
        let figure = &ROWS.figures[&self.figure];
        Ok(Line::new(
            &measure,
            figure,
            &ours,
            peer.as_deref(),
            self.target(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_each_answer_limits_a_closed_loop() {
        let close = |left: f64, right: f64| (left - right).abs() < 1e-6;
        assert!(close(closed_loop(64, 32_000.0, 0.0), 32_000.0));
        assert!(close(closed_loop(64, 32_000.0, 0.002), 16_000.0));
    }
}
