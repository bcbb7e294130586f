//! Rounds: each measures every subject once, one after the other, so that what disturbs the machine disturbs all.

use std::fmt::Display;
use std::io::{self, Write};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::machine::Time;
use crate::peers::{Manner, Program, Programs, Server, half_the_workers};
use crate::senders::Ids;
use crate::subject::Subject;
use crate::table::{Row, Spread, Target, Unit, grouped};
use crate::throughput::{self, Pace, Speed};
use crate::{
    addresses, assigning, couriers, day, dispatching, endless, large, lists, memory, plans, streams,
};

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

/// The tables' memory is the same to a few percent whenever it is looked at, and a look takes half a minute.
const ADDRESS_ROUNDS_MAX: u32 = 2;

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
    /// Events of drones in all, where the desk runs on and on.
    pub(crate) events: u32,
    /// Packages in a large ledger.
    pub(crate) packages: u32,
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
    let ([ours, bare, halved], note) = rates(programs, extent, SUBJECTS)?;
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
    let ([ours, gearmand, one_thread, nats], note) = rates(programs, extent, SUBJECTS)?;
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

/// Cycles with flood control against cycles without.
pub(crate) fn check(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 2] = [Subject::Cycle, Subject::Unchecked];
    let ([checked, unchecked], note) = rates(programs, extent, SUBJECTS)?;
    let row = Row::compared(
        "5. cycles of 3 requests with flood control, to without",
        Unit::PerSecond,
        &checked,
        &unchecked,
        Some(Target::AtLeast(0.97)),
    );
    Ok(Section {
        rows: vec![row],
        note: Some(format!("5: {note}")),
    })
}

/// What a refused order takes of the processor, against what an accepted one does.
pub(crate) fn refusing(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 4] = [
        Subject::Refused,
        Subject::Cycle,
        Subject::RefusedOnce,
        Subject::CycleOnce,
    ];
    let (series, note) = speeds(programs, extent, SUBJECTS)?;
    let [refused, cycle, refused_once, cycle_once] =
        series.map(|speeds| values(&speeds, Speed::server_nanoseconds));
    let accepted: Series = cycle.iter().map(|&cycle| order_of(cycle)).collect();
    let accepted_once: Series = cycle_once
        .iter()
        .zip(&cycle)
        .map(|(&once, &cycle)| order_once_of(once, cycle))
        .collect();
    let row = |measure: &str, refused: &[f64], accepted: &[f64]| {
        Row::compared(
            measure,
            Unit::Nanoseconds,
            refused,
            accepted,
            Some(Target::AtMost(0.5)),
        )
    };
    Ok(Section {
        rows: vec![
            row(
                "6. server's time per refused order, to an accepted one's",
                &refused,
                &accepted,
            ),
            row(
                "the same, a new connection for each order",
                &refused_once,
                &accepted_once,
            ),
        ],
        note: Some(format!(
            "6: processor time; a cycle took {}, {} with a new connection for its order; {note}",
            Unit::Nanoseconds.show(Spread::new(&cycle).median()),
            Unit::Nanoseconds.show(Spread::new(&cycle_once).median())
        )),
    })
}

/// What the order has of a cycle's cost: it is one of its three requests.
fn order_of(cycle: f64) -> f64 {
    cycle / 3.0
}

/// The same for an order that brings a new connection: the other two requests have not become dearer.
fn order_once_of(cycle_once: f64, cycle: f64) -> f64 {
    cycle_once - (cycle - order_of(cycle))
}

/// Memory of the tables when very many addresses have come by.
pub(crate) fn many_addresses(programs: &Programs, extent: &Extent) -> Result<Section> {
    let rounds = extent.rounds.min(ADDRESS_ROUNDS_MAX);
    let (mut bytes, mut admitted) = (Series::new(), Series::new());
    for round in 1..=rounds {
        let server = programs.start(Program::Odyssey, Manner::BehindProxy)?;
        let growth = server.explain(addresses::growth(&server))?;
        report_of(
            (round, rounds),
            Subject::Cycle,
            format_args!(
                "{} after {} addresses, {} of them admitted",
                Unit::Megabytes.show(growth.bytes),
                addresses::COUNT,
                growth.admitted
            ),
        )?;
        bytes.push(growth.bytes);
        admitted.push(f64::from(growth.admitted));
    }
    let row = Row::alone(
        "7. memory of the tables after 1,000,000 addresses",
        Unit::Megabytes,
        &bytes,
        Some(Target::AtMost(64e6)),
    );
    Ok(Section {
        rows: vec![row],
        note: Some(format!(
            "7: {rounds} rounds; {:.0} of the addresses were admitted, the others shared an entry with too many. \
             One that was known before got its coffee in their midst and after them.",
            Spread::new(&admitted).median()
        )),
    })
}

/// Durable events against the same server without storage, without shared commits, and against Redis.
pub(crate) fn deliveries(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 4] = [
        Subject::Events,
        Subject::EventsNoop,
        Subject::EventsCommitEach,
        Subject::EventsRedis,
    ];
    let ([ours, noop, each, redis], note) = rates(programs, extent, SUBJECTS)?;
    let row = |peer: &str, speed: &[f64], bound| {
        Row::compared(
            &format!("8. durable events, to {peer}"),
            Unit::PerSecond,
            &ours,
            speed,
            Some(Target::AtLeast(bound)),
        )
    };
    Ok(Section {
        rows: vec![
            row("the same stack's no-op", &noop, 0.6),
            row("a commit for each", &each, 6.0),
            row("Redis XADD, appendfsync always", &redis, 0.8),
        ],
        note: Some(format!("8: {note}")),
    })
}

/// The last events of very many against the first, and what is left of all of them.
pub(crate) fn endless(programs: &Programs, extent: &Extent) -> Result<Section> {
    let measured = endless::measure(programs, CUSTOMERS, extent.events)?;
    let [window, events] = [measured.window, extent.events].map(|count| grouped(f64::from(count)));
    let size = |what: &str, bytes| {
        Row::alone(
            &format!("9. {what} after {events} events"),
            Unit::Megabytes,
            &[bytes],
            Some(Target::AtMost(20e6)),
        )
    };
    Ok(Section {
        rows: vec![
            Row::compared(
                &format!("9. events after {events}, to the first {window}"),
                Unit::PerSecond,
                &measured.last,
                &measured.first,
                Some(Target::AtLeast(0.9)),
            ),
            size("deliveries.db", measured.file),
            size("the same with its log", measured.with_log),
        ],
        note: Some(format!(
            "9: once, and both windows in {} slices in turn, on two servers; until then {} on the older one. Other programs used \
             {:.0} % of the machine meanwhile.",
            measured.last.len(),
            Unit::PerSecond.show(measured.filling),
            measured.others * 100.0
        )),
    })
}

/// Pages that are looked at again and again, against bytes that are there already.
pub(crate) fn pages(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 5] = [
        Subject::List,
        Subject::Counts,
        Subject::CountsNoop,
        Subject::ListNoop,
        Subject::ListMeanwhile,
    ];
    let servers = started(programs, SUBJECTS)?;
    let [list, _, _, noop, _] = &servers;
    let page = list.explain(lists::fetch(list))?;
    noop.explain(lists::lay_out(noop, &page))?;
    let (series, note) = speeds_of(&servers, extent, SUBJECTS)?;
    let [list, counts, few, many, concurrent] = rates_of(SUBJECTS, &series);
    let row = |measure: &str, ours: &[f64], peer: &[f64], target| {
        Row::compared(measure, Unit::PerSecond, ours, peer, target)
    };
    let target = Some(Target::AtLeast(0.5));
    Ok(Section {
        rows: vec![
            row(
                "10. GET /counts, to the same stack's no-op",
                &counts,
                &few,
                target,
            ),
            row(
                "10. GET /deliveries, 100 ongoing, to the same no-op",
                &list,
                &few,
                target,
            ),
            row("the same, to a no-op of as many bytes", &list, &many, None),
            row(
                "10. GET /deliveries at 100 events/s, to without",
                &concurrent,
                &list,
                None,
            ),
        ],
        note: Some(format!("10: the list has {} bytes; {note}", page.len())),
    })
}

/// Durable packages against the same server without storage.
pub(crate) fn packages(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 3] = [
        Subject::Packages,
        Subject::PackagesNoop,
        Subject::PackagesRandom,
    ];
    let ([rising, noop, random], note) = rates(programs, extent, SUBJECTS)?;
    let row = |measure: &str, ours: &[f64], target| {
        Row::compared(measure, Unit::PerSecond, ours, &noop, target)
    };
    Ok(Section {
        rows: vec![
            row(
                "11. durable packages, rising ids, to the same stack's no-op",
                &rising,
                Some(Target::AtLeast(0.5)),
            ),
            row("the same with random ids", &random, None),
        ],
        note: Some(format!("11: {note}")),
    })
}

/// Packages with a large ledger against packages with an empty one, and what the large one takes.
pub(crate) fn large_ledger(programs: &Programs, extent: &Extent) -> Result<Section> {
    let measure = |ids| large::measure(programs, CUSTOMERS, extent.packages, ids);
    let (rising, random) = (measure(Ids::Rising)?, measure(Ids::Random)?);
    let [window, packages] =
        [rising.window, extent.packages].map(|count| grouped(f64::from(count)));
    let speed = |measure: &str, measured: &large::Large, target| {
        Row::compared(
            measure,
            Unit::PerSecond,
            &measured.filled,
            &measured.empty,
            target,
        )
    };
    let size = |measure: &str, measured: &large::Large| {
        let target = Some(Target::AtMost(120.0));
        Row::alone(measure, Unit::FewBytes, &[measured.bytes_each], target)
    };
    Ok(Section {
        rows: vec![
            speed(
                &format!("12. packages with {packages} in the ledger, rising ids, to with none"),
                &rising,
                Some(Target::AtLeast(0.7)),
            ),
            speed("the same with random ids", &random, None),
            size("12. packages.db per package, rising ids", &rising),
            size("the same with random ids", &random),
        ],
        note: Some(format!(
            "12: once for each kind of ids, {window} packages in {} slices in turn, on two servers. Other programs used {:.0} % of \
             the machine meanwhile, {:.0} % with random ids.",
            rising.filled.len(),
            rising.others * 100.0,
            random.others * 100.0
        )),
    })
}

/// As many packages carried as an independent solver says can be, on the days that are known.
pub(crate) fn optimum(programs: &Programs) -> Result<Section> {
    let checked = plans::check_all(programs)?;
    let rows = checked.iter().map(|(known, planned, solved)| {
        Row::compared(
            &format!(
                "13. packages carried, {}, to scipy's maximum flow",
                known.name
            ),
            Unit::Packages,
            &[f64::from(planned.carried)],
            &[f64::from(solved.reported.carried)],
            Some(Target::AtLeast(1.0)),
        )
    });
    let greedy: Vec<String> = checked
        .iter()
        .map(|(known, _, solved)| format!("{} on {}", solved.greedy, known.name))
        .collect();
    Ok(Section {
        rows: rows.collect(),
        note: Some(format!(
            "13: once, with {} packages for each driver at most. First fit carries {}.",
            day::CAP,
            greedy.join(", ")
        )),
    })
}

/// The plan of a large day, against a solver on the explicit graph.
pub(crate) fn plan(programs: &Programs, extent: &Extent) -> Result<Section> {
    let instance = plans::Instance::large(programs)?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        let (planned, solved) = (instance.plan(programs)?, instance.solve(programs)?);
        ensure!(
            planned.carried == solved.reported.carried,
            "the plan carries {} packages, and scipy's maximum flow {}",
            planned.carried,
            solved.reported.carried
        );
        report_line(
            (round, extent.rounds),
            format_args!(
                "a plan of {} packages: {} and {}, scipy's: {} and {}",
                planned.carried,
                Unit::Milliseconds.show(planned.seconds * 1e9),
                Unit::Megabytes.show(planned.peak_bytes),
                Unit::Milliseconds.show(solved.reported.seconds * 1e9),
                Unit::Megabytes.show(solved.reported.peak_bytes)
            ),
        )?;
        ours.push(planned);
        peer.push(solved);
    }
    let last = peer[peer.len() - 1];
    let limit = instance.try_other_method(programs, &last.reported)?;
    let row = |measure: &str, unit, figure: fn(plans::Reported) -> f64, target| {
        let ours: Series = ours.iter().map(|&reported| figure(reported)).collect();
        let peer: Series = peer.iter().map(|solved| figure(solved.reported)).collect();
        Row::compared(measure, unit, &ours, &peer, target)
    };
    let graph: Series = peer
        .iter()
        .map(|solved| solved.graph_seconds / solved.reported.seconds)
        .collect();
    Ok(Section {
        rows: vec![
            row(
                "14. plan of 1,000 drivers and 100,000 packages, to scipy's maximum flow",
                Unit::Milliseconds,
                |reported| reported.seconds * 1e9,
                Some(Target::AtMost(0.1)),
            ),
            row(
                "14. peak memory of the process, to the same",
                Unit::Megabytes,
                |reported| reported.peak_bytes,
                Some(Target::AtMost(0.2)),
            ),
            row(
                "the same beyond what is resident once the manifest is read",
                Unit::Megabytes,
                plans::Reported::growth_bytes,
                None,
            ),
        ],
        note: Some(format!(
            "14: both carry {} of {} packages, first fit {}. The explicit graph has {} edges; building it took {:.0} % of scipy's \
             time. Its other method was not faster (it was given {:.0} s).",
            grouped(f64::from(last.reported.carried)),
            grouped(f64::from(plans::PACKAGES)),
            grouped(f64::from(last.greedy)),
            grouped(f64::from(last.edges)),
            Spread::new(&graph).median() * 100.0,
            limit.as_secs_f64()
        )),
    })
}

/// A day assigned over HTTP and kept, against first fit as a function in Python.
pub(crate) fn assign(programs: &Programs, extent: &Extent) -> Result<Section> {
    let measured = assigning::measure(programs, extent.rounds, |round, ours, greedy| {
        report_line(
            (round, extent.rounds),
            format_args!(
                "POST /assign: {}, first fit in Python: {}",
                Unit::Milliseconds.show(ours),
                Unit::Milliseconds.show(greedy)
            ),
        )
    })?;
    let row = |measure: &str, peer: &[f64], target| {
        Row::compared(measure, Unit::Milliseconds, &measured.ours, peer, target)
    };
    let day::Known { best, greedy, .. } = assigning::DAY;
    let others = Spread::new(&measured.others);
    Ok(Section {
        rows: vec![
            row(
                "15. POST /assign, 99 drivers and 990 packages, to first fit in Python",
                &measured.greedy,
                Some(Target::AtMost(0.05)),
            ),
            row(
                "the same, to filtering for each driver",
                &measured.filtering,
                None,
            ),
            row(
                "the same, to first fit and keeping the result",
                &measured.keeping,
                None,
            ),
        ],
        note: Some(format!(
            "15: {best} packages were assigned each time, {greedy} by first fit. Other programs used {:.0}–{:.0} % of the machine.",
            others.low() * 100.0,
            others.high() * 100.0
        )),
    })
}

/// Orders that are decided about and kept against the same server without doing so, and in lists; and how evenly they are given.
pub(crate) fn couriers(programs: &Programs, extent: &Extent) -> Result<Section> {
    const SUBJECTS: [Subject; 4] = [
        Subject::Orders,
        Subject::OrdersNoop,
        Subject::OrdersRandom,
        Subject::OrdersListed,
    ];
    let servers = started(programs, SUBJECTS)?;
    let (series, note) = speeds_of(&servers, extent, SUBJECTS)?;
    for (subject, server) in SUBJECTS.into_iter().zip(&servers) {
        if subject.program() == Program::Odyssey
            && let Some(publishing) = subject.publishing()
        {
            server.explain(couriers::check(server, publishing))?;
        }
    }
    let [one, noop, random, many] = rates_of(SUBJECTS, &series);
    let imbalance = couriers::imbalance(programs, CUSTOMERS)?;
    let row = |measure: &str, ours: &[f64], peer: &[f64], target| {
        Row::compared(measure, Unit::PerSecond, ours, peer, target)
    };
    Ok(Section {
        rows: vec![
            row(
                "16. durable decisions, rising ids, to the same stack's no-op",
                &one,
                &noop,
                Some(Target::AtLeast(0.4)),
            ),
            row("the same with random ids", &random, &noop, None),
            row(
                "16. durable decisions in lists of 100, to one by one",
                &many,
                &one,
                Some(Target::AtLeast(5.0)),
            ),
            Row::alone(
                &format!(
                    "17. largest count less smallest, {} couriers and {} orders",
                    couriers::AVAILABLE,
                    grouped(f64::from(couriers::BALANCED))
                ),
                Unit::Orders,
                &[imbalance],
                Some(Target::AtMost(1.0)),
            ),
        ],
        note: Some(format!("16: {note} 17 is looked at once.")),
    })
}

/// Decisions of the desk's store in Redis against the seed's way in the same Redis.
pub(crate) fn couriers_redis(programs: &Programs, extent: &Extent) -> Result<Section> {
    const TARGET: Target = Target::AtLeast(1.5);
    let pace = dispatching::Extent {
        rounds: extent.rounds,
        slices: extent.seconds * SLICES_PER_SECOND,
        warm_up: WARM_UP,
        window: SLICE,
        tasks: u64::from(CUSTOMERS),
    };
    let mut rows = Vec::new();
    let mut others = Vec::new();
    for (manner, measure) in [
        (
            Manner::Usual,
            "18. decisions in Redis that flushes before it answers, to the seed's way in the same",
        ),
        (
            Manner::Forgetful,
            "the same in a Redis that keeps nothing on the disk",
        ),
    ] {
        let decided = dispatching::measure(programs, manner, pace, |round, ours, seed| {
            let [ours, seed] = [ours, seed].map(|rate| Unit::PerSecond.show(rate));
            report_line(
                (round, extent.rounds),
                format_args!("the desk's store: {ours}, the seed's way: {seed}"),
            )
        })?;
        let (ours, seed) = (&decided.ours, &decided.seed);
        let row = Row::compared(measure, Unit::PerSecond, ours, seed, Some(TARGET));
        rows.push(row);
        others.extend(decided.others);
    }
    let others = Spread::new(&others);
    Ok(Section {
        rows,
        note: Some(format!(
            "18: Other programs used {:.0}–{:.0} % of the machine.",
            others.low() * 100.0,
            others.high() * 100.0
        )),
    })
}

/// Answers per second and unit of what is compared, round by round.
fn rates<const N: usize>(
    programs: &Programs,
    extent: &Extent,
    subjects: [Subject; N],
) -> Result<([Series; N], String)> {
    let (series, note) = speeds(programs, extent, subjects)?;
    Ok((rates_of(subjects, &series), note))
}

fn rates_of<const N: usize>(subjects: [Subject; N], series: &[Vec<Speed>; N]) -> [Series; N] {
    let mut rates = [const { Series::new() }; N];
    for ((subject, speeds), rates) in subjects.into_iter().zip(series).zip(&mut rates) {
        *rates = values(speeds, |speed| per_second(subject, speed));
    }
    rates
}

fn per_second(subject: Subject, speed: Speed) -> f64 {
    speed.answers_per_second * subject.units_per_answer() / f64::from(subject.answers_per_unit())
}

/// Speeds round by round, and a note on other programs' use of the machine. There is one server each, all running
/// throughout: a server without requests does not disturb the others.
fn speeds<const N: usize>(
    programs: &Programs,
    extent: &Extent,
    subjects: [Subject; N],
) -> Result<([Vec<Speed>; N], String)> {
    speeds_of(&started(programs, subjects)?, extent, subjects)
}

/// One prepared server each.
fn started<const N: usize>(programs: &Programs, subjects: [Subject; N]) -> Result<[Server; N]> {
    let mut servers: Vec<Server> = Vec::new();
    for subject in subjects {
        let server = programs.start(subject.program(), subject.manner())?;
        server.explain(subject.prepare(&server))?;
        servers.push(server);
    }
    servers
        .try_into()
        .map_err(|_| anyhow!("not as many servers as subjects"))
}

fn speeds_of<const N: usize>(
    servers: &[Server; N],
    extent: &Extent,
    subjects: [Subject; N],
) -> Result<([Vec<Speed>; N], String)> {
    let pace = Pace {
        warm_up: WARM_UP,
        window: SLICE,
    };
    let slices = extent.seconds * SLICES_PER_SECOND;
    let mut series = [const { Vec::new() }; N];
    let mut others = Series::new();
    for round in 1..=extent.rounds {
        let mut sums = [Speed::default(); N];
        let before = Time::now(servers.iter().map(Server::pid))?;
        for _ in 0..slices {
            for ((subject, server), sum) in subjects.into_iter().zip(servers).zip(&mut sums) {
                let crew = subject.crew(server, CUSTOMERS, BARISTAS);
                let aside = subject.aside(server);
                *sum += server.explain(throughput::measure(crew, server.pid(), pace))?;
                if let Some(aside) = aside {
                    server.explain(aside.stop())?;
                }
            }
        }
        others.push(Time::now(servers.iter().map(Server::pid))?.others_since(before));
        for (at, (subject, sum)) in subjects.into_iter().zip(sums).enumerate() {
            let speed = sum / f64::from(slices);
            report(
                round,
                extent,
                subject,
                format_args!(
                    "{}, {} of the server's time per answer",
                    Unit::PerSecond.show(per_second(subject, speed)),
                    Unit::Nanoseconds.show(speed.server_nanoseconds())
                ),
            )?;
            series[at].push(speed);
        }
    }
    let busy: Vec<String> = subjects
        .into_iter()
        .zip(&series)
        .map(|(subject, speeds)| {
            let busy = values(speeds, |speed| speed.client_busy);
            format!(
                "{:.0} % with {subject}",
                Spread::new(&busy).median() * 100.0
            )
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

/// One figure of each round's.
fn values(speeds: &[Speed], figure: impl Fn(Speed) -> f64) -> Series {
    speeds.iter().map(|&speed| figure(speed)).collect()
}

/// Reports progress on standard error; the table goes elsewhere.
fn report(round: u32, extent: &Extent, subject: Subject, result: impl Display) -> Result<()> {
    report_of((round, extent.rounds), subject, result)
}

/// The same where the rounds are fewer.
fn report_of(rounds: (u32, u32), subject: Subject, result: impl Display) -> Result<()> {
    report_line(rounds, format_args!("{subject}: {result}"))
}

/// The same without a subject.
fn report_line((round, rounds): (u32, u32), result: impl Display) -> Result<()> {
    writeln!(io::stderr(), "round {round} of {rounds}: {result}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_third_of_its_cycle_and_bears_its_connection_alone() {
        assert!((order_of(30.0) - 10.0).abs() < 1e-9);
        // Whatever a cycle with a new connection takes more is the order's.
        assert!((order_once_of(50.0, 30.0) - 30.0).abs() < 1e-9);
        assert!((order_once_of(30.0, 30.0) - order_of(30.0)).abs() < 1e-9);
    }
}
