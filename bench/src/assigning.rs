//! `POST /assign` for whole days, against first fit in Python: each on a day that nothing was assigned for yet.
//!
//! The client asks the server over one keep-alive connection, and the server answers when the plan is durable. The client
//! then calls the bare Python function: no HTTP, no JSON, nothing written.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::ToSpan;
use jiff::civil::{Date, date};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::day::{CAP, Known, MANY_RULES};
use crate::http::{first, status};
use crate::machine::Time;
use crate::peers::{Manner, Program, Programs, Server};
use crate::table::Spread;

/// The day whose lists are used for all dates.
pub(crate) const DAY: Known = MANY_RULES;
/// The first date.
const FIRST: Date = date(2142, 1, 1);
/// Dates of one round; its value is their median.
const DATES: u32 = 20;
/// For what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// First fit, which is given to Python as it stands there.
const GREEDY: &str = include_str!("../peers/greedy.py");

/// Nanoseconds of each round.
#[derive(Default)]
pub(crate) struct Assigned {
    /// `POST /assign`, from the first byte sent to the last one received.
    pub(crate) ours: Vec<f64>,
    /// First fit that stops looking when a driver's hands are full.
    pub(crate) greedy: Vec<f64>,
    /// First fit that filters all packages for each driver, as the seed's words have it.
    pub(crate) filtering: Vec<f64>,
    /// The first of both, and its result written into `SQLite` as durably as the server does.
    pub(crate) keeping: Vec<f64>,
    /// The share of the machine that other programs used, of each round.
    pub(crate) others: Vec<f64>,
}

/// Assigns as many days as it takes. Calls `report` after each round.
pub(crate) fn measure(
    programs: &Programs,
    rounds: u32,
    mut report: impl FnMut(u32, f64, f64) -> Result<()>,
) -> Result<Assigned> {
    let server = programs.start(Program::Odyssey, Manner::Usual)?;
    let mut python = Python::start(programs)?;
    let mut counter = Counter::connect(server.staff)?;
    let day: Value = serde_json::from_str(DAY.manifest)?;
    let mut dates = FIRST.series(1.day());
    let mut assigned = Assigned::default();
    // The first date of a server is not measured: connections to its file are opened with it.
    server.explain(counter.prepare(&day, FIRST))?;
    server.explain(counter.assign(&day, dates.next().context("a date")?))?;
    for round in 1..=rounds {
        let these: Vec<Date> = dates.by_ref().take(DATES as usize).collect();
        for &date in &these {
            server.explain(counter.prepare(&day, date))?;
        }
        let before = Time::now([server.pid(), python.child.id()].into_iter())?;
        let mut took = [const { Vec::new() }; 4];
        for date in these {
            let ours = server.explain(counter.assign(&day, date))?;
            let theirs = python.assign()?;
            let seconds = [
                ours.as_secs_f64(),
                theirs.seconds,
                theirs.filtering_seconds,
                theirs.seconds + theirs.keeping_seconds,
            ];
            for (took, seconds) in took.iter_mut().zip(seconds) {
                took.push(seconds * 1e9);
            }
        }
        let after = Time::now([server.pid(), python.child.id()].into_iter())?;
        assigned.others.push(after.others_since(before));
        let [ours, greedy, filtering, keeping] = took.map(|took| Spread::new(&took).median());
        report(round, ours, greedy)?;
        assigned.ours.push(ours);
        assigned.greedy.push(greedy);
        assigned.filtering.push(filtering);
        assigned.keeping.push(keeping);
    }
    known_afterwards(&server, &mut counter, &day)?;
    Ok(assigned)
}

/// A retry is harmless: a second request for the first date returns the complete answer, and no driver has more packages.
fn known_afterwards(server: &Server, counter: &mut Counter, day: &Value) -> Result<()> {
    server
        .explain(counter.assign(day, FIRST))
        .context("asking for the first date again")?;
    Ok(())
}

/// A keep-alive connection to the server's staff listener.
struct Counter {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Counter {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let received = Vec::with_capacity(1 << 20);
        Ok(Self { stream, received })
    }

    /// Lays out the day's lists under a date.
    fn prepare(&mut self, day: &Value, date: Date) -> Result<()> {
        let mut manifest = day.clone();
        manifest["date"] = json!(date.to_string());
        let (_, head, body) = self.ask(&request("PUT", "/manifest", &manifest))?;
        ensure!(
            (200..300).contains(&status(&head)?),
            "the manifest was not taken: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }

    /// Has the date assigned to all drivers, and looks at the answer afterwards.
    fn assign(&mut self, day: &Value, date: Date) -> Result<Duration> {
        let drivers = day["drivers"].as_array().context("drivers")?;
        let drivers: Vec<&Value> = drivers.iter().map(|driver| &driver["driver_id"]).collect();
        let asked =
            json!({ "driver_ids": drivers, "max_per_driver": CAP, "date": date.to_string() });
        let (took, head, body) = self.ask(&request("POST", "/assign", &asked))?;
        ensure!(
            status(&head)? == 200,
            "nothing was assigned: {}",
            String::from_utf8_lossy(&body)
        );
        look_at(
            &body,
            drivers.len(),
            day["packages"].as_array().map_or(0, Vec::len),
        )?;
        Ok(took)
    }

    /// One request; how long it took from its first byte to the answer's last, and that answer's head and body.
    fn ask(&mut self, request: &[u8]) -> Result<(Duration, Vec<u8>, Vec<u8>)> {
        self.received.clear();
        let mut piece = vec![0; 1 << 16];
        let begin = Instant::now();
        self.stream.write_all(request)?;
        let frame = loop {
            let count = self.stream.read(&mut piece)?;
            ensure!(count > 0, "the server has closed the connection");
            self.received.extend_from_slice(&piece[..count]);
            if let Some(frame) = first(&self.received)? {
                break frame;
            }
        };
        let took = begin.elapsed();
        ensure!(self.received.len() == frame.end, "more than one answer");
        let head = self.received[..frame.body.start].to_vec();
        Ok((took, head, self.received[frame.body].to_vec()))
    }
}

fn request(method: &str, path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An answer must have all drivers and all packages, no duplicates, no driver over the cap, and the maximum number carried.
fn look_at(body: &[u8], drivers: usize, packages: usize) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        assignments: std::collections::BTreeMap<String, Vec<String>>,
        unassigned_packages: Vec<String>,
        unassigned_drivers: Vec<String>,
    }
    let answer: Answer = serde_json::from_slice(body).context("an answer")?;
    let hands = &answer.assignments;
    let carried: usize = hands.values().map(Vec::len).sum();
    ensure!(
        carried == DAY.best as usize,
        "{carried} packages were assigned, and {} can be",
        DAY.best
    );
    ensure!(
        hands.len() == drivers && hands.values().all(|hand| hand.len() <= CAP as usize),
        "drivers are missing in the answer, or have too many"
    );
    let idle = hands.values().filter(|hand| hand.is_empty()).count();
    ensure!(
        answer.unassigned_drivers.len() == idle,
        "other drivers are said to be idle than are"
    );
    let all = hands.values().flatten().chain(&answer.unassigned_packages);
    let names: HashSet<&String> = all.clone().collect();
    ensure!(
        names.len() == packages && all.count() == packages,
        "packages are missing in the answer, or twice in it"
    );
    Ok(())
}

/// First fit in Python, running.
struct Python {
    child: Child,
    asked: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _dir: TempDir,
}

/// What it says of one day.
#[derive(Deserialize)]
struct Fitted {
    assigned: u32,
    seconds: f64,
    filtering_seconds: f64,
    keeping_seconds: f64,
}

impl Python {
    fn start(programs: &Programs) -> Result<Self> {
        let dir = TempDir::with_prefix_in("odyssey-bench-", programs.data())?;
        let manifest = dir.path().join("manifest.json");
        std::fs::write(&manifest, DAY.manifest).context("writing a manifest")?;
        let mut command = programs.command(Program::Python)?;
        command.args(["-c", GREEDY]).arg(&manifest);
        command.arg(CAP.to_string()).arg(dir.path());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting Python")?;
        let asked = child.stdin.take().context("Python's input")?;
        let stdout = BufReader::new(child.stdout.take().context("Python's output")?);
        Ok(Self {
            child,
            asked,
            stdout,
            _dir: dir,
        })
    }

    fn assign(&mut self) -> Result<Fitted> {
        self.asked.write_all(b"\n").context("asking Python")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let fitted: Fitted = serde_json::from_str(&line).context("what Python said")?;
        ensure!(
            fitted.assigned == DAY.greedy,
            "first fit carries {} packages, and is known to carry {}",
            fitted.assigned,
            DAY.greedy
        );
        Ok(fitted)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let hand = |driver: u32| -> Vec<String> {
            let count = if driver < 88 { 10 - driver / 76 } else { 0 };
            (0..count)
                .map(|place| format!("p{driver}-{place}"))
                .collect()
        };
        let mut hands: std::collections::BTreeMap<String, Vec<String>> = (0..99)
            .map(|driver| (format!("d{driver}"), hand(driver)))
            .collect();
        let carried: usize = hands.values().map(Vec::len).sum();
        assert_eq!(carried, 868);
        let idle: Vec<String> = hands
            .iter_mut()
            .filter(|(_, hand)| hand.is_empty())
            .map(|(driver, _)| driver.clone())
            .collect();
        let left: Vec<String> = (carried..990).map(|number| format!("l{number}")).collect();
        let mut answer = json!({
            "assignments": hands, "unassigned_packages": left, "unassigned_drivers": idle,
        });
        change(&mut answer);
        answer.to_string().into_bytes()
    }

    #[test]
    fn a_plan_that_is_short_or_has_something_twice_is_no_answer() {
        look_at(&answer(|_| {}), 99, 990).unwrap();
        let wrong: [fn(&mut Value); 4] = [
            |answer| answer["assignments"]["d1"] = json!([]),
            |answer| answer["assignments"]["d1"][0] = json!("p2-0"),
            |answer| answer["unassigned_drivers"] = json!([]),
            |answer| answer["unassigned_packages"][0] = json!("p2-0"),
        ];
        for wrong in wrong {
            assert!(look_at(&answer(wrong), 99, 990).is_err());
        }
    }

    #[test]
    fn a_body_is_as_long_as_it_says() {
        let request = String::from_utf8(request("PUT", "/manifest", &json!({ "a": "ü" }))).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PUT /manifest HTTP/1.1\r\n"));
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
