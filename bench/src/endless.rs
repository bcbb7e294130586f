//! Whether the delivery desk is as fast after very many events as after the first, and as small.
//!
//! One server with its defaults is brought near the total by many connections, which goes faster because they share
//! flushes. Its last events are then measured next to the first ones of a second server that is started only then, slice by
//! slice in turn: minutes lie between the first and the last events of one server, and a machine does not stay the same for
//! so long. What the database takes on the disk is looked at after that.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::crowd::{self, Crowd};
use crate::drones::{Drone, Rhythm, Sequences};
use crate::peers::{Manner, Program, Programs, Server};
use crate::table::Unit;

/// Events in each of the two windows that are compared, where there are enough in all.
const WINDOW: u32 = 100_000;
/// Slices of a window.
const SLICES: u32 = 10;
/// Connections that bring the total on in between.
const FILLING: u32 = 512;
/// Between two lines on how far it is.
const TOLD_EVERY: u32 = 1_000_000;

/// What came of it.
pub(crate) struct Endless {
    /// Events in each of the two windows.
    pub(crate) window: u32,
    /// Events per second, slice by slice, of the server that has had all the others.
    pub(crate) last: Vec<f64>,
    /// The same of the server that had none.
    pub(crate) first: Vec<f64>,
    /// Events per second until then.
    pub(crate) filling: f64,
    /// The share of the machine that other programs used during both windows.
    pub(crate) others: f64,
    /// Bytes of the database's file.
    pub(crate) file: f64,
    /// The same with its log.
    pub(crate) with_log: f64,
}

/// Reports so many events to a fresh server, and the first ones to a second server.
pub(crate) fn measure(programs: &Programs, connections: u32, events: u32) -> Result<Endless> {
    let window = WINDOW.min(events / 2);
    let old = programs.start(Program::Odyssey, Manner::Usual)?;
    let filling = old.explain(fill(&old, events - window))?;
    let new = programs.start(Program::Odyssey, Manner::Usual)?;
    let sides = [
        (&old, drones(&old, connections)?),
        (&new, drones(&new, connections)?),
    ];
    let turns = crowd::in_turn(sides, SLICES, window / SLICES)?;
    let [last, first] = turns.rates;
    let database = old.directory().join("data/deliveries.db");
    let file = length(&database)?;
    let log = length(&database.with_extension("db-wal"))?;
    Ok(Endless {
        window,
        last,
        first,
        filling,
        others: turns.others,
        file,
        with_log: file + log,
    })
}

/// Reports so many events as fast as it goes; returns how many a second.
fn fill(server: &Server, events: u32) -> Result<f64> {
    let begin = Instant::now();
    let mut drones = drones(server, FILLING)?;
    let mut left = events;
    while left > 0 {
        let piece = left.min(TOLD_EVERY);
        let rate = drones.receive(piece)?;
        left -= piece;
        writeln!(
            io::stderr(),
            "endless: {} events, {} to go",
            Unit::PerSecond.show(rate),
            left
        )?;
    }
    drones.end()?;
    Ok(f64::from(events) / begin.elapsed().as_secs_f64())
}

/// So many drones at one server.
fn drones(server: &Server, count: u32) -> Result<Crowd> {
    let drone = |number| Drone::new(number, Sequences::Counted, Rhythm::AtOnce);
    Crowd::start(server.staff, count, drone)
}

/// A file's length in bytes, in steps of 1024.
pub(crate) fn length(file: &Path) -> Result<f64> {
    let bytes = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?;
    let bytes = bytes.len();
    ensure!(
        bytes > 0,
        "{} is empty: nothing is kept in it",
        file.display()
    );
    Ok(f64::from(u32::try_from(bytes.div_ceil(1024))?) * 1024.0)
}
