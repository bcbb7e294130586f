//! What does not depend on how many rows there are: the size of the delivery desk's database, and the pages that a request
//! to the package desk reads. Counted in pages, not in seconds. `make soak` has a million rows.

use std::fs;
use std::path::Path;

use rusqlite::Connection as Database;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Door, event, get, send};
use crate::durability::{number_from_environment, open};
use crate::packages::{counted, package, statistics, with};
use crate::shop::Shop;

const ROWS_VARIABLE: &str = "SOAK_ROWS";
const ROWS: u64 = 1_000;
const CONNECTIONS: u64 = 32;
const PAGE_BYTES: u64 = 4096;

/// Rows in all, a multiple of the connections' shares of two halves.
fn rows() -> u64 {
    let rows = number_from_environment(ROWS_VARIABLE).unwrap_or(ROWS);
    rows.next_multiple_of(CONNECTIONS * 4)
}

/// A query's number, from another process than the server's.
fn number(data: &Path, database: &str, query: &str) -> u64 {
    let database = Database::open(data.join(database)).unwrap();
    database.query_row(query, [], |row| row.get(0)).unwrap()
}

/// Levels of a table's tree: as many pages are read to find a row. The root's path is `/`, that of its children `/000/`.
fn levels(data: &Path, database: &str, table: &str) -> u64 {
    let levels = format!(
        "SELECT max(length(path) - length(replace(path, '/', ''))) FROM dbstat WHERE name = '{table}' AND pagetype = 'leaf'"
    );
    number(data, database, &levels)
}

/// Has so many numbered requests made, by [`CONNECTIONS`] clients.
async fn fill(door: Door, numbers: std::ops::Range<u64>, ask: fn(u64) -> crate::client::Ask) {
    let share = (numbers.end - numbers.start) / CONNECTIONS;
    let mut clients = JoinSet::new();
    for first in (0..CONNECTIONS).map(|client| numbers.start + client * share) {
        clients.spawn(async move {
            let mut connection = door.connect().await;
            for number in first..first + share {
                connection.ask(&ask(number)).await.expect(201);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// Two events of each delivery, which ends with the second.
fn nth_event(number: u64) -> crate::client::Ask {
    let types = ["PARCEL_COLLECTED", "PARCEL_DELIVERED"];
    let which = usize::try_from(number % 2).unwrap();
    event(
        &format!("delivery-{:016x}", mixed(number / 2)),
        types[which],
    )
}

fn nth_package(number: u64) -> crate::client::Ask {
    send(&package_of(number))
}

fn package_of(number: u64) -> serde_json::Value {
    with(&package(package_id(number)), "package_type", "personal")
}

/// Ids in no order, each in another page: 36 characters, as a UUID has.
fn package_id(number: u64) -> String {
    format!("package-{:016x}-{number:011x}", mixed(number))
}

/// Multiplying by an odd number visits each number once, far apart.
fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[tokio::test]
async fn the_database_of_deliveries_is_as_large_after_many_events_as_after_few() {
    const KEPT: u64 = 100;
    let (rows, data) = (rows(), tempfile::tempdir().unwrap());
    let settings = [("deliveries.kept", "100"), ("log.level", "warn")];
    let mut pages = Vec::new();
    for half in [0..rows / 2, rows / 2..rows] {
        let shop = open(data.path(), &settings).await;
        fill(shop.staff, half, nth_event).await;
        let counts = shop.staff.ask(get("/counts")).await.expect(200);
        shop.close().await;
        let total = number(data.path(), "deliveries.db", "SELECT total FROM counts");
        assert_eq!(counts, json!({"ongoing": 0, "total": total}));
        let events = "SELECT count(*) FROM events";
        assert_eq!(number(data.path(), "deliveries.db", events), 2 * KEPT);
        pages.push(number(data.path(), "deliveries.db", "PRAGMA page_count"));
    }
    eprintln!("{rows} events: {pages:?} pages");
    // Some 400 bytes for each delivery that is retained, as the configuration's comment has it, and ten pages of the schema.
    let most = (KEPT + CONNECTIONS) * 400 / PAGE_BYTES + 10;
    assert!(
        pages.iter().all(|&pages| pages <= most),
        "{pages:?} pages, not {most}"
    );
}

/// Bytes that a process has read so far from files, and little else: sockets are not read with read(2).
fn bytes_read(shop: &Shop) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", shop.pid().as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_package_is_found_by_as_many_pages_as_its_tree_has_levels_however_large_the_ledger_is() {
    const REPEATED: u64 = 100;
    let (rows, data) = (rows(), tempfile::tempdir().unwrap());
    let settings = [
        ("log.level", "warn"),
        ("flood.burst", "1000000"),
        ("flood.refill", "1us"),
    ];
    let shop = open(data.path(), &settings).await;
    fill(shop.customers, 0..rows, nth_package).await;
    shop.close().await;

    let levels = levels(data.path(), "packages.db", "packages");
    let pages = number(data.path(), "packages.db", "PRAGMA page_count");
    eprintln!("{rows} packages: {pages} pages, {levels} levels");
    // Each level has at least 20 times as many pages as the one above it.
    assert!(
        20_u64.pow(u32::try_from(levels).unwrap() - 2) <= pages,
        "{levels} levels"
    );
    // About 70 bytes each if ids ascend; pages that are split in the middle are less full.
    assert!(
        (pages - 20) * PAGE_BYTES <= 120 * rows,
        "{pages} pages for {rows} packages"
    );

    let shop = open(data.path(), &settings).await;
    let mut connection = shop.customers.connect().await;
    connection.ask(&nth_package(0)).await.expect(200);
    let before = bytes_read(&shop);
    for number in (0..rows).step_by(usize::try_from(rows / REPEATED).unwrap()) {
        let known = connection.ask(&nth_package(number)).await.expect(200);
        assert_eq!(known["duplicate"], true, "{known}");
        assert_eq!(known.get("mismatch"), None, "{known}");
    }
    let each = (bytes_read(&shop) - before) / REPEATED;
    eprintln!("{each} bytes are read to find a package");
    // One page more than the levels, for what else a transaction and the log read.
    assert!(each <= (levels + 1) * PAGE_BYTES, "{each} bytes");
    assert_eq!(statistics(&shop).await, counted([rows, 0], [0, 0], 0));
    drop(connection);
    shop.close().await;
}
