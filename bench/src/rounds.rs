//! Rounds: each measures every subject once, one after the other, so that what disturbs the machine disturbs all.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

use crate::machine::Time;
use crate::peers::{Manner, Program, Programs, Server};
use crate::subject::Subject;
use crate::table::{Row, Target, Unit};
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

/// Full cycles of three requests against a third of the bare server's requests.
pub(crate) fn cycles(programs: &Programs, extent: &Extent) -> Result<Vec<Row>> {
    let [ours, bare] = speeds(programs, extent, [Subject::Cycle, Subject::Bare])?;
    Ok(vec![Row::compared(
        "1. cycles of 3 requests, to bare hyper's requests / 3",
        Unit::PerSecond,
        &ours,
        &bare,
        Some(Target::AtLeast(0.85)),
    )])
}

/// Cycles of two requests against the peers' jobs and requests.
pub(crate) fn next(programs: &Programs, extent: &Extent) -> Result<Vec<Row>> {
    let [ours, gearmand, nats] = speeds(
        programs,
        extent,
        [Subject::Next, Subject::Gearmand, Subject::Nats],
    )?;
    let row = |measure, peer: &[f64], bound| {
        Row::compared(
            measure,
            Unit::PerSecond,
            &ours,
            peer,
            Some(Target::AtLeast(bound)),
        )
    };
    Ok(vec![
        row(
            "2. cycles with next, to gearmand's foreground jobs",
            &gearmand,
            1.3,
        ),
        row(
            "2. cycles with next, to NATS requests in a queue group",
            &nats,
            0.9,
        ),
    ])
}

/// Memory per held connection.
pub(crate) fn memory(programs: &Programs, extent: &Extent) -> Result<Vec<Row>> {
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
    Ok(vec![
        Row::alone(
            &format!("3. memory per held order, {held} connections"),
            Unit::Bytes,
            &ours,
            target,
        ),
        row("bare hyper", &bare),
        row("gearmand", &gearmand),
        row("NATS", &nats),
    ])
}

/// Memory per held stream.
pub(crate) fn held_streams(programs: &Programs, extent: &Extent) -> Result<Vec<Row>> {
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
    Ok(vec![Row::alone(&measure, Unit::Bytes, &bytes, None)])
}

/// The line's own cost needs no server: it has a benchmark of its own, and its place in the table here.
pub(crate) fn line() -> Row {
    Row::elsewhere(
        "4. the line itself, 1,000,000 waiting to 100",
        Target::AtMost(2.0),
        "its own benchmark",
    )
}

/// One server each, all running throughout: one that nobody asks does not disturb the others.
fn speeds<const N: usize>(
    programs: &Programs,
    extent: &Extent,
    subjects: [Subject; N],
) -> Result<[Series; N]> {
    let mut servers: Vec<Server> = Vec::new();
    for subject in subjects {
        servers.push(programs.start(subject.program(), Manner::Usual)?);
    }
    let pace = Pace {
        warm_up: WARM_UP,
        window: SLICE,
    };
    let slices = extent.seconds * SLICES_PER_SECOND;
    let mut series = [const { Series::new() }; N];
    for round in 1..=extent.rounds {
        let mut sums = [Speed::default(); N];
        let before = Time::now(servers.iter().map(Server::pid))?;
        for _ in 0..slices {
            for ((subject, server), sum) in subjects.into_iter().zip(&servers).zip(&mut sums) {
                let crew = subject.crew(server, CUSTOMERS, BARISTAS);
                *sum += server.explain(throughput::measure(crew, pace))?;
            }
        }
        for ((subject, sum), series) in subjects.into_iter().zip(sums).zip(&mut series) {
            let Speed {
                answers_per_second,
                client_busy,
            } = sum / f64::from(slices);
            let per_second = answers_per_second / f64::from(subject.answers_per_unit());
            let speed = Unit::PerSecond.show(per_second);
            let busy = client_busy * 100.0;
            report(
                round,
                extent,
                subject,
                format_args!("{speed} (client busy {busy:.0} % of the time)"),
            )?;
            series.push(per_second);
        }
        let others = Time::now(servers.iter().map(Server::pid))?.others_since(before) * 100.0;
        writeln!(
            io::stderr(),
            "round {round} of {}: others used {others:.0} % of the machine",
            extent.rounds
        )?;
    }
    Ok(series)
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
