//! Clients that report orders to the courier desk, one or a hundred per request, and a check of the orders per courier.
//!
//! Every answer must say that each order was assigned. After the last order, the couriers' counts must add up to the number
//! of orders, so an order that was lost or assigned twice fails the measurement.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use serde::Deserialize;

use crate::client::Talk;
use crate::crowd::Crowd;
use crate::http::status;
use crate::ledger::Ledger;
use crate::lists::{exchange, exchange_once};
use crate::peers::{Manner, Program, Programs, Server};
use crate::senders::{Ids, mixed, uuid};

/// How a request with events begins; its body's length comes next.
const TELL: &[u8] = b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ";
/// Requests all couriers.
const COURIERS: &[u8] = b"GET /couriers HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Available couriers.
pub(crate) const AVAILABLE: u64 = 100;
/// The parts of the town.
const ZONES: [&str; 4] = ["N", "S", "E", "W"];
/// Orders of a list.
const LIST: u64 = 100;
/// The same as a factor.
pub(crate) const LIST_F64: f64 = 100.0;
/// How each order's outcome begins.
const ASSIGNED: &[u8] = br#"{"outcome":"assigned","courierId":""#;
/// Orders of the look at how evenly they are given.
pub(crate) const BALANCED: u32 = 100_000;

/// Orders that were given a number, of all publishers of this program.
static ORDERS: AtomicU64 = AtomicU64::new(0);
/// Orders that were answered, of all publishers to one server, by `Publishing`.
static ANSWERED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// How orders are reported. Each variant has a server of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publishing {
    /// One by one, with ids that rise.
    Single,
    /// The same with random ids.
    SingleRandom,
    /// In lists of [`LIST`], with ids that rise.
    Listed,
    /// One by one to the no-op, with ids that rise.
    ToNoop,
}

impl Publishing {
    /// Orders of a request.
    fn orders(self) -> u64 {
        match self {
            Publishing::Listed => LIST,
            _ => 1,
        }
    }

    fn ids(self) -> Ids {
        match self {
            Publishing::SingleRandom => Ids::Random,
            _ => Ids::Rising,
        }
    }

    /// Orders that were answered.
    fn answered(self) -> &'static AtomicU64 {
        match self {
            Publishing::Single => &ANSWERED[0],
            Publishing::SingleRandom => &ANSWERED[1],
            Publishing::Listed => &ANSWERED[2],
            Publishing::ToNoop => &ANSWERED[3],
        }
    }
}

/// Where a thing with this number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Town {
    /// In the zones in turn.
    All,
    /// All in one zone.
    North,
}

impl Town {
    fn zone(self, number: u64) -> &'static str {
        match self {
            Town::All => ZONES[usize::try_from(number % 4).unwrap_or(0)],
            Town::North => ZONES[0],
        }
    }
}

/// The id of a courier.
pub(crate) fn courier_id(number: u64) -> String {
    uuid(mixed(number), mixed(!number))
}

/// The event of a courier who is available.
fn courier(number: u64, town: Town) -> String {
    let (id, zone) = (courier_id(number), town.zone(number));
    format!(
        r#"{{"courierId":"{id}","name":"Courier {number}","zone":"{zone}","isAvailable":true}}"#
    )
}

/// The event of an order.
fn order(number: u64, ids: Ids, town: Town) -> String {
    let (id, zone) = (ids.name(number), town.zone(number));
    format!(
        r#"{{"orderId":"{id}","details":"Two coffees and a newspaper","zone":"{zone}","addedAt":"2142-05-01T12:00:00.170682Z"}}"#
    )
}

fn request(body: &str) -> Vec<u8> {
    let mut request = TELL.to_vec();
    request.extend_from_slice(format!("{}\r\n\r\n{body}", body.len()).as_bytes());
    request
}

fn list(events: impl Iterator<Item = String>) -> String {
    let mut list = String::from("[");
    for (place, event) in events.enumerate() {
        let comma = if place > 0 { "," } else { "" };
        // Writing into a string does not fail.
        let _ = write!(list, "{comma}{event}");
    }
    list.push(']');
    list
}

/// Registers all couriers with a server.
fn begin(server: &Server, town: Town) -> Result<()> {
    let couriers = list((0..AVAILABLE).map(|number| courier(number, town)));
    exchange(server.staff, request(&couriers), 202)?;
    Ok(())
}

/// The same, before orders are reported in this way. The no-op ignores couriers.
pub(crate) fn prepare(server: &Server, publishing: Publishing, town: Town) -> Result<()> {
    publishing.answered().store(0, Ordering::Relaxed);
    begin(server, town)
}

/// Reports new orders, one request after the other.
pub(crate) struct Publisher {
    publishing: Publishing,
    town: Town,
    /// Requests until there is no more to tell.
    left: u32,
}

impl Publisher {
    /// Reports until the measurement ends.
    pub(crate) fn new(publishing: Publishing, town: Town) -> Self {
        Self::of(publishing, town, u32::MAX)
    }

    /// Makes this many requests, at least one.
    fn of(publishing: Publishing, town: Town, requests: u32) -> Self {
        Publisher {
            publishing,
            town,
            left: requests,
        }
    }
}

impl Talk for Publisher {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        self.left -= 1;
        let count = self.publishing.orders();
        let first = ORDERS.fetch_add(count, Ordering::Relaxed);
        ledger.place();
        let order = |number| order(number, self.publishing.ids(), self.town);
        let body = match self.publishing {
            Publishing::Listed => list((first..first + count).map(order)),
            _ => order(first),
        };
        out.extend_from_slice(&request(&body));
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(status(head)? == 202, "the events were not taken");
        let assigned = u64::try_from(memmem::find_iter(body, ASSIGNED).count())?;
        let count = self.publishing.orders();
        ensure!(
            assigned == count,
            "{assigned} of {count} orders were assigned"
        );
        self.publishing
            .answered()
            .fetch_add(count, Ordering::Relaxed);
        ledger.answer_alike();
        if ledger.open && self.left > 0 {
            self.open(ledger, out);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Couriers {
    couriers: Vec<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    count: u64,
}

/// How many each courier was given, the least first.
fn counts(server: &Server) -> Result<Vec<u64>> {
    let couriers: Couriers =
        serde_json::from_slice(&exchange_once(server.staff, COURIERS.to_vec())?)
            .context("a list of couriers")?;
    let mut counts: Vec<u64> = couriers.couriers.iter().map(|known| known.count).collect();
    counts.sort_unstable();
    Ok(counts)
}

/// The couriers must have been given just the orders that were answered.
pub(crate) fn check(server: &Server, publishing: Publishing) -> Result<()> {
    let (given, answered) = (
        counts(server)?.iter().sum::<u64>(),
        publishing.answered().load(Ordering::Relaxed),
    );
    ensure!(
        given == answered,
        "{answered} orders were answered, and the couriers were given {given}"
    );
    Ok(())
}

/// How unevenly orders are given in one zone: the largest count less the smallest.
pub(crate) fn imbalance(programs: &Programs, connections: u32) -> Result<f64> {
    let server = programs.start(Program::Odyssey, Manner::Usual)?;
    let looked = || {
        prepare(&server, Publishing::Listed, Town::North)?;
        let lists = BALANCED / u32::try_from(LIST)?;
        let each = lists.div_ceil(connections);
        // The last one has what is left.
        let share = |number: u32| each.min(lists - number * each);
        let publisher = |number| Publisher::of(Publishing::Listed, Town::North, share(number));
        let mut crowd = Crowd::start(server.staff, lists.div_ceil(each), publisher)?;
        crowd.receive(lists)?;
        crowd.end()?;
        check(&server, Publishing::Listed)?;
        let counts = counts(&server)?;
        ensure!(
            counts.len() == usize::try_from(AVAILABLE)?
                && counts.iter().sum::<u64>() == u64::from(BALANCED),
            "{} orders for {} couriers",
            counts.iter().sum::<u64>(),
            counts.len()
        );
        let (least, most) = (counts[0], counts[counts.len() - 1]);
        Ok(f64::from(u32::try_from(most - least)?))
    };
    server.explain(looked())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted";

    fn body_of(request: &[u8]) -> Value {
        let request = str::from_utf8(request).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn an_order_is_told_alone_or_in_a_list_and_no_two_are_alike() {
        let mut ledger = Ledger::new();
        let (mut one, mut many) = (Vec::new(), Vec::new());
        Publisher::new(Publishing::Single, Town::North).open(&mut ledger, &mut one);
        Publisher::new(Publishing::Listed, Town::All).open(&mut ledger, &mut many);
        let (one, many) = (body_of(&one), body_of(&many));
        assert_eq!(one["zone"], "N");
        let mut ids: Vec<_> = many
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order["orderId"].to_string())
            .collect();
        assert_eq!(ids.len(), 100);
        ids.push(one["orderId"].to_string());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 101);
        let south = many.as_array().unwrap().iter();
        let south = south.filter(|order| order["zone"] == "S");
        assert_eq!(south.count(), 25);
    }

    #[test]
    fn couriers_are_told_of_in_one_list() {
        let couriers = body_of(&request(&list((0..3).map(|n| courier(n, Town::All)))));
        assert_eq!(couriers[2]["zone"], "E");
        assert_eq!(couriers[2]["isAvailable"], true);
        assert_eq!(couriers[2]["courierId"], courier_id(2));
    }

    #[test]
    fn a_wrong_answer_ends_the_measurement() {
        let assigned = r#"{"outcome":"assigned","courierId":"a"}"#;
        let mut ledger = Ledger::new();
        for (publishing, head, body) in [
            (
                Publishing::Single,
                &b"HTTP/1.1 503 Busy"[..],
                format!("[{assigned}]"),
            ),
            (Publishing::Single, ACCEPTED, "[]".to_owned()),
            (
                Publishing::Single,
                ACCEPTED,
                r#"[{"outcome":"parked"}]"#.to_owned(),
            ),
            (
                Publishing::Single,
                ACCEPTED,
                format!("[{assigned},{assigned}]"),
            ),
            (Publishing::Listed, ACCEPTED, format!("[{assigned}]")),
        ] {
            let mut publisher = Publisher::new(publishing, Town::All);
            let received = publisher.receive(head, body.as_bytes(), &mut ledger, &mut Vec::new());
            assert!(received.is_err(), "{body}");
        }
        let (mut publisher, mut out) = (Publisher::new(Publishing::Single, Town::All), Vec::new());
        publisher.open(&mut ledger, &mut Vec::new());
        let right = format!("[{assigned}]");
        publisher
            .receive(ACCEPTED, right.as_bytes(), &mut ledger, &mut out)
            .unwrap();
        // The books are closed: no further request is sent.
        assert!(out.is_empty() && ledger.everybody_answered());
    }

    #[test]
    fn whoever_is_limited_stops_by_themselves() {
        let mut ledger = Ledger::new();
        ledger.open = true;
        let mut publisher = Publisher::of(Publishing::Single, Town::All, 2);
        publisher.open(&mut ledger, &mut Vec::new());
        let right = br#"[{"outcome":"assigned","courierId":"a"}]"#;
        for goes_on in [true, false] {
            let mut out = Vec::new();
            publisher
                .receive(ACCEPTED, right, &mut ledger, &mut out)
                .unwrap();
            assert_eq!(!out.is_empty(), goes_on);
        }
        assert!(ledger.everybody_answered());
    }
}
