//! Rounds: each measures every subject once, one after the other, so that what disturbs the machine disturbs all.

use std::fmt::Display;
use std::io::{self, Write};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::Time;
use crate::peers::{Manner, Program, Programs, Server, half_the_workers};
use crate::subject::Subject;
use crate::table::{Row, Spread, Target, Unit};
use crate::throughput::{self, Pace, Speed};
use crate::{memory, streams};

/// Who stands at the counter and behind it.
pub(crate) const CUSTOMERS: u32 = 64;
/// Who works.
pub(crate) const BARISTAS: u32 = 10;

/// A round's seconds of speed are measured in slices, in turn with the other subjects', on new connections each: how
/// the threads of a server fall onto few cores differs from one set of connections to the next by a quarter and more.
const SLICE: Duration = Duration::from_millis(500);
/// Before each slice.
const WARM_UP: Duration = Duration::from_millis(250);
/// Of each measurement, whatever is asked for.
const SLICES_PER_SECOND: u32 = 2;

/// How much is measured.
pub(crate) struct Extent {
    /// Repetitions.
    pub(crate) rounds: u32,
    /// Of each measurement of speed.
    pub(crate) seconds: u32,
    /// Held connections.
    pub(crate) held: u32,
    /// Held streams of one connection.
    pub(crate) streams: u32,
}

/// One subject's value of each round.
type Series = Vec<f64>;

/// What one part of the run adds to the report.
pub(crate) struct Section {
    /// Lines of the table.
    pub(crate) rows: Vec<Row>,
    /// What to keep in mind when reading them.
    pub(crate) note: Option<String>,
}

/// Full cycles of three requests against a third of the bare server's requests.
pub(crate) fn cycles(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 3] = [Subject::Cycle, Subject::Bare, Subject::BareHalved];
    let ([ours, bare, halved], note) = speeds(programs, extent, SUBJECTS)?;
    let row = |peer: &str, speed: &[f64]| {
        Row::compared(
            &format!("1. cycles of 3 requests, to {peer}"),
            Unit::PerSecond,
            &ours,
            speed,
            Some(Target::AtLeast(0.85)),
        )
    };
    let processors = available_parallelism().context("counting processors")?;
    let fewer = format!(
        "the same with {} of {processors} workers",
        half_the_workers()
    );
    Ok(Section {
        rows: vec![
            row("bare hyper's requests / 3", &bare),
            row(&fewer, &halved),
        ],
        note: Some(format!("1: {note}")),
    })
}

/// Cycles of two requests against the peers' jobs and requests.
pub(crate) fn next(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 4] = [
        Subject::Next,
        Subject::Gearmand,
        Subject::GearmandOneThread,
        Subject::Nats,
    ];
    let ([ours, gearmand, one_thread, nats], note) = speeds(programs, extent, SUBJECTS)?;
    let row = |peer: &str, speed: &[f64], bound| {
        let target = Some(Target::AtLeast(bound));
        Row::compared(
            &format!("2. cycles with next, to {peer}"),
            Unit::PerSecond,
            &ours,
            speed,
            target,
        )
    };
    let rows = vec![
        row("gearmand's foreground jobs", &gearmand, 1.3),
        row("the same with 1 thread for 4", &one_thread, 1.3),
        row("NATS requests in a queue group", &nats, 0.9),
    ];
    Ok(Section {
        rows,
        note: Some(format!("2: {note}")),
    })
}

/// Memory per held connection.
pub(crate) fn memory(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 4] = [
        Subject::Cycle,
        Subject::BareHeld,
        Subject::Gearmand,
        Subject::Nats,
    ];
    let mut bytes = [const { Vec::new() }; SUBJECTS.len()];
    for round in 1..=extent.rounds {
        for (subject, bytes) in SUBJECTS.into_iter().zip(&mut bytes) {
            let server = programs.start(subject.program(), Manner::Holding)?;
            let each = server.explain(memory::per_held(subject, &server, extent.held))?;
            report(
                round,
                extent,
                subject,
                format_args!("{} per held connection", Unit::Bytes.show(each)),
            )?;
            bytes.push(each);
        }
    }
    let [ours, bare, gearmand, nats] = bytes;
    let held = extent.held;
    let row = |peer: &str, bytes: &[f64]| {
        Row::compared(
            &format!("3. memory per held order, to {peer}"),
            Unit::Bytes,
            &ours,
            bytes,
            None,
        )
    };
    let target = Some(Target::AtMost(10_000.0));
    let rows = vec![
        Row::alone(
            &format!("3. memory per held order, {held} connections"),
            Unit::Bytes,
            &ours,
            target,
        ),
        row("bare hyper", &bare),
        row("gearmand", &gearmand),
        row("NATS", &nats),
    ];
    Ok(Section { rows, note: None })
}

/// Memory per held stream.
pub(crate) fn held_streams(programs: &Programs, extent: &Extent) -> Result<Section> {
    let mut bytes = Vec::new();
    for round in 1..=extent.rounds {
        let server = programs.start(Program::Odyssey, Manner::Streams)?;
        let each = server.explain(streams::per_held(&server, extent.streams))?;
        report(
            round,
            extent,
            Subject::Cycle,
            format_args!("{} per held stream", Unit::Bytes.show(each)),
        )?;
        bytes.push(each);
    }
    let measure = format!("3. memory per held order, {} h2c streams", extent.streams);
    let row = Row::alone(&measure, Unit::Bytes, &bytes, None);
    Ok(Section {
        rows: vec![row],
        note: None,
    })
}

/// Speeds round by round, and a note on who used the machine meanwhile. There is one server each, all running
/// throughout: one that nobody asks does not disturb the others.
fn speeds<const N: usize>(
    programs: &Programs,
    extent: &Extent,
    subjects: [Subject; N],
) -> Result<([Series; N], String)> {
    let mut servers: Vec<Server> = Vec::new();
    for subject in subjects {
        servers.push(programs.start(subject.program(), subject.manner())?);
    }
    let pace = Pace {
        warm_up: WARM_UP,
        window: SLICE,
    };
    let slices = extent.seconds * SLICES_PER_SECOND;
    let mut series = [const { Series::new() }; N];
    let mut client_busy = [const { Series::new() }; N];
    let mut others = Series::new();
    for round in 1..=extent.rounds {
        let mut sums = [Speed::default(); N];
        let before = Time::now(servers.iter().map(Server::pid))?;
        for _ in 0..slices {
            for ((subject, server), sum) in subjects.into_iter().zip(&servers).zip(&mut sums) {
                let crew = subject.crew(server, CUSTOMERS, BARISTAS);
                *sum += server.explain(throughput::measure(crew, pace))?;
            }
        }
        others.push(Time::now(servers.iter().map(Server::pid))?.others_since(before));
        for (at, (subject, sum)) in subjects.into_iter().zip(sums).enumerate() {
            let speed = sum / f64::from(slices);
            let per_second = speed.answers_per_second / f64::from(subject.answers_per_unit());
            report(round, extent, subject, Unit::PerSecond.show(per_second))?;
            series[at].push(per_second);
            client_busy[at].push(speed.client_busy);
        }
    }
    let busy: Vec<String> = subjects
        .into_iter()
        .zip(&client_busy)
        .map(|(subject, busy)| {
            format!("{:.0} % with {subject}", Spread::new(busy).median() * 100.0)
        })
        .collect();
    let others = Spread::new(&others);
    let note = format!(
        "the client used of its core {}. Other programs used {:.0}–{:.0} % of the machine.",
        busy.join(", "),
        others.low() * 100.0,
        others.high() * 100.0
    );
    Ok((series, note))
}

/// Tells whoever watches how it goes; the table goes elsewhere.
fn report(round: u32, extent: &Extent, subject: Subject, result: impl Display) -> Result<()> {
    writeln!(
        io::stderr(),
        "round {round} of {}: {subject}: {result}",
        extent.rounds
    )?;
    Ok(())
}
