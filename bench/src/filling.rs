//! A large ledger of packages, written straight into its file: over HTTP it would take longer than most measurements. The schema
//! is the server's own, and the rows are those that it would have written for the packages that [`crate::senders`] send.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use odyssey::packages::model::{Id, Package, PackageType, Types};
use rusqlite::{Connection, Transaction, params};

use crate::senders::{self, Ids, RECIPIENTS};
use crate::table::{Unit, grouped};

/// The types as the server is configured by default; their numbers in the file begin at 1.
const TYPES: [&str; 2] = [senders::TYPE, "marketing"];
/// One in this many packages is of the type that no recipient accepts.
const DROPPED_EVERY: u64 = 4;
/// Packages in one transaction. With random ids each transaction touches nearly all pages of the file.
const AT_ONCE: u32 = 500_000;

/// No journal: what breaks off is thrown away as a whole. The cache, in KiB, holds all pages of ten million packages, so
/// that each is written once in a transaction and never read.
const FAST: &str = "PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000;";

/// Whether this package is one that its recipient does not take.
pub(crate) fn is_dropped(number: u64) -> bool {
    number % DROPPED_EVERY == DROPPED_EVERY - 1
}

/// Fills a ledger that has only its schema and no other user: with the preferences of all recipients, and this many packages
/// with these ids. Returns the number of the first package; the others follow.
pub(crate) fn fill(file: &Path, ids: Ids, packages: u32) -> Result<u64> {
    let mut connection =
        Connection::open(file).with_context(|| format!("opening {}", file.display()))?;
    set_journal(&connection, "off")?;
    connection.execute_batch(FAST)?;
    let first = senders::take_numbers(u64::from(packages));
    let transaction = connection.transaction()?;
    say(&transaction)?;
    transaction.commit()?;
    let mut done = 0;
    while done < packages {
        let count = AT_ONCE.min(packages - done);
        let begin = Instant::now();
        let transaction = connection.transaction()?;
        add(&transaction, ids, first + u64::from(done), count)?;
        transaction.commit()?;
        done += count;
        writeln!(
            io::stderr(),
            "ledger: {} of {} packages, {}",
            grouped(f64::from(done)),
            grouped(f64::from(packages)),
            Unit::PerSecond.show(f64::from(count) / begin.elapsed().as_secs_f64())
        )?;
    }
    set_journal(&connection, "wal")?;
    connection.close().map_err(|(_, error)| error)?;
    // Otherwise the disk would still be busy with it while the server is measured.
    File::open(file)?.sync_all()?;
    Ok(first)
}

fn set_journal(connection: &Connection, mode: &str) -> Result<()> {
    let set: String =
        connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    ensure!(
        set == mode,
        "the file's journal is {set:?} instead of {mode:?}: somebody uses it"
    );
    Ok(())
}

/// The types, and that each recipient takes the first and declines the second.
fn say(transaction: &Transaction<'_>) -> Result<()> {
    let said_at = moment()?.as_microsecond();
    for (number, name) in (1_i64..).zip(TYPES) {
        transaction.execute("INSERT INTO types VALUES (?, ?)", params![number, name])?;
        for recipient in 0..RECIPIENTS {
            transaction.execute(
                "INSERT INTO preferences VALUES (?, ?, ?, ?)",
                params![senders::recipient(recipient), number, said_at, number == 1],
            )?;
        }
    }
    Ok(())
}

/// So many packages, in the order of their numbers, and what they count.
fn add(transaction: &Transaction<'_>, ids: Ids, first: u64, count: u32) -> Result<()> {
    let types = types()?;
    let said_at = moment()?.as_microsecond();
    // By type: a kind is twice its number, and one more for what was dropped.
    let kinds = [2, 2 * 2 + 1];
    let mut counts = [0_i64; TYPES.len()];
    let mut insert = transaction.prepare("INSERT INTO packages VALUES (?, ?, ?, ?)")?;
    for number in (first..).take(usize::try_from(count)?) {
        let package = package(ids, number)?;
        let digest = package.digest(&types).cast_signed();
        let PackageType(of) = package.package_type;
        insert.execute(params![package.id.as_str(), kinds[of], digest, said_at])?;
        counts[of] += 1;
    }
    for (kind, count) in kinds
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
    {
        transaction.execute(
            "INSERT INTO counts VALUES (?1, ?2, 0) ON CONFLICT DO UPDATE SET packages = packages + ?2",
            [kind, count],
        )?;
    }
    Ok(())
}

/// The package with this number, as a sender would send it.
fn package(ids: Ids, number: u64) -> Result<Package> {
    let id = |text: String| Id::parse(&text).context("an id");
    Ok(Package {
        id: id(ids.name(number))?,
        timestamp: moment()?,
        sender: id(senders::sender(number))?,
        recipient: id(senders::recipient(number))?,
        package_type: PackageType(usize::from(is_dropped(number))),
    })
}

fn types() -> Result<Types> {
    Types::new(&TYPES.map(str::to_owned), &[]).map_err(anyhow::Error::msg)
}

/// When everything here was said and sent.
fn moment() -> Result<jiff::Timestamp> {
    Ok(senders::BEGAN.parse()?)
}

#[cfg(test)]
mod tests {
    use odyssey::packages::sqlite;

    use super::*;

    #[test]
    fn the_statistics_agree_with_what_was_filled_in() {
        for ids in [Ids::Rising, Ids::Random] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("packages.db");
            let connection = Connection::open(&file).unwrap();
            set_journal(&connection, "wal").unwrap();
            connection.execute_batch(sqlite::MIGRATIONS[0]).unwrap();
            drop(connection);
            fill(&file, ids, 1000).unwrap();
            let audit = sqlite::audit(&file).unwrap();
            assert!(audit.agrees(), "{audit}");
            let rows: u64 = audit.lines.iter().map(|line| line.ledger).sum();
            assert_eq!(rows, 1000);
            assert_eq!(audit.lines.len(), 2, "delivered and dropped");
        }
    }

    #[test]
    fn a_ledger_that_somebody_uses_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("packages.db");
        let connection = Connection::open(&file).unwrap();
        set_journal(&connection, "wal").unwrap();
        connection.execute_batch(sqlite::MIGRATIONS[0]).unwrap();
        assert!(fill(&file, Ids::Rising, 1).is_err());
    }
}
