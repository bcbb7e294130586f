//! Whether the package desk is as fast with a large ledger as with an empty one, and how much disk a package takes.
//!
//! Two servers with their defaults, of which one's ledger was filled before it was started, are asked slice by slice in turn.
//! That the filled one is what the server would have written is proved three times: its own audit must agree before and
//! after, and packages that were only ever written into the file must be known to it when they are sent.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::crowd::{self, Crowd, Turns};
use crate::endless::length;
use crate::filling;
use crate::lists::exchange_once;
use crate::peers::{Manner, Program, Programs, Server};
use crate::senders::{self, Ids, Sender, Sent};

/// Packages sent to each of the two servers, where the large ledger has as many.
const WINDOW: u32 = 100_000;
/// Slices of them.
const SLICES: u32 = 10;
/// The package database, relative to a server's directory.
const LEDGER: &str = "data/packages.db";
/// Packages of the filling that are looked at; those that were not dropped are sent once more.
const SENT_AGAIN: u64 = 100;

/// What came of it.
pub(crate) struct Large {
    /// Packages sent to each server.
    pub(crate) window: u32,
    /// Packages per second, slice by slice, with the large ledger.
    pub(crate) filled: Vec<f64>,
    /// The same with the ledger that was empty.
    pub(crate) empty: Vec<f64>,
    /// Bytes of the large ledger's file for each package in it.
    pub(crate) bytes_each: f64,
    /// The share of the machine that other programs used during the measurement.
    pub(crate) others: f64,
}

/// Sends packages with these ids to a server whose ledger has so many, and to one that has none.
pub(crate) fn measure(
    programs: &Programs,
    connections: u32,
    packages: u32,
    ids: Ids,
) -> Result<Large> {
    let (large, first) = with_ledger(programs, ids, packages)?;
    large.explain(send_again(&large, ids, first, packages))?;
    let (empty, _) = with_ledger(programs, ids, 0)?;
    let window = WINDOW.min(packages);
    let senders =
        |server: &Server| Crowd::start(server.customers, connections, |_| Sender::new(ids));
    let sides = [(&large, senders(&large)?), (&empty, senders(&empty)?)];
    let Turns {
        rates: [of_filled, of_empty],
        answers: [added, _],
        others,
    } = crowd::in_turn(sides, SLICES, window / SLICES)?;
    let dir = large.stop()?;
    programs.audit_packages(dir.path())?;
    let rows = packages + u32::try_from(added)?;
    let bytes = length(&dir.path().join(LEDGER))?;
    Ok(Large {
        window,
        filled: of_filled,
        empty: of_empty,
        bytes_each: bytes / f64::from(rows),
        others,
    })
}

/// A server with so many packages in its ledger, and the number of the first of them.
fn with_ledger(programs: &Programs, ids: Ids, packages: u32) -> Result<(Server, u64)> {
    // The schema is whatever the server makes.
    let dir = programs.start(Program::Odyssey, Manner::Usual)?.stop()?;
    let first = filling::fill(&dir.path().join(LEDGER), ids, packages)?;
    programs
        .audit_packages(dir.path())
        .context("the ledger that was filled in")?;
    let server = programs.start_in(Arc::clone(&dir), Program::Odyssey, Manner::Generous)?;
    Ok((server, first))
}

/// Some packages all over the filling must be known, with all their fields.
fn send_again(server: &Server, ids: Ids, first: u64, packages: u32) -> Result<()> {
    let packages = u64::from(packages);
    // Odd, so that not all of them are dropped ones: senders send what is taken.
    let step = (packages / SENT_AGAIN) | 1;
    let numbers = (first..first + packages).step_by(usize::try_from(step)?);
    for number in numbers.filter(|&number| !filling::is_dropped(number)) {
        let received = exchange_once(server.customers, senders::request(ids, number))?;
        let known = Sent {
            id: ids.name(number).as_bytes(),
            delivered: true,
            duplicate: true,
            mismatch: false,
        } == Sent::read(&received)?;
        ensure!(
            known,
            "a package that was filled in is not known as it should be: {:?}",
            String::from_utf8_lossy(&received)
        );
    }
    Ok(())
}
