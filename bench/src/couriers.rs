//! Clients that report orders to the courier desk, one or a hundred per request, and a check of the orders per courier.
//!
//! Every answer must say that each order was assigned. At the end the couriers' counts must add up to the number of orders,
//! so an order that was lost or assigned twice fails the measurement.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use serde_json::Value;

use crate::client::{Message, Received, Session, Turn};
use crate::http::{self, Connection};
use crate::load::Load;
use crate::packages::Ids;
use crate::programs::Server;

pub(crate) const AVAILABLE: u64 = 100;
const ZONES: [&str; 4] = ["N", "S", "E", "W"];
/// Orders of a list.
const LIST: u64 = 100;
/// How each order's outcome begins.
const ASSIGNED: &[u8] = br#"{"outcome":"assigned","courierId":""#;

/// Orders of all publishers of this program.
static ORDERS: AtomicU64 = AtomicU64::new(0);

/// One order after the other, to couriers of all zones.
pub(crate) const ASCENDING: Load = Load {
    customer: |_, _| publisher(Ids::Ascending, 1),
    prepare: |server, _| register(server),
    check,
    ..Load::HTTP
};

pub(crate) const RANDOM: Load = Load {
    customer: |_, _| publisher(Ids::Random, 1),
    ..ASCENDING
};

pub(crate) const LISTED: Load = Load {
    customer: |_, _| publisher(Ids::Ascending, LIST),
    units_per_answer: 100.0,
    check: |server, answers| check(server, answers * LIST),
    ..ASCENDING
};

/// The no-op has no couriers.
pub(crate) const NOOP: Load = Load {
    prepare: |_, _| Ok(()),
    check: |_, _| Ok(()),
    ..ASCENDING
};

fn zone(number: u64) -> &'static str {
    ZONES[usize::try_from(number % 4).unwrap_or_default()]
}

pub(crate) fn courier_id(number: u64) -> String {
    Ids::Random.name(number)
}

fn courier(number: u64) -> String {
    let (id, zone) = (courier_id(number), zone(number));
    format!(
        r#"{{"courierId":"{id}","name":"Courier {number}","zone":"{zone}","isAvailable":true}}"#
    )
}

fn order(number: u64, ids: Ids) -> String {
    let (id, zone) = (ids.name(number), zone(number));
    format!(
        r#"{{"orderId":"{id}","details":"Two coffees and a newspaper","zone":"{zone}","addedAt":"2142-05-01T12:00:00.170682Z"}}"#
    )
}

/// Makes all couriers available.
fn register(server: &Server) -> Result<()> {
    let couriers: Vec<String> = (0..AVAILABLE).map(courier).collect();
    let request = http::json("POST", "/events", &format!("[{}]", couriers.join(",")));
    Connection::open(server.staff)?.ask(&request)?.expect(202)?;
    Ok(())
}

fn publisher(ids: Ids, orders: u64) -> Box<dyn Session> {
    Box::new(Publisher { ids, orders })
}

/// Reports new orders, in lists if there are more than one in a request.
struct Publisher {
    ids: Ids,
    orders: u64,
}

impl Session for Publisher {
    fn request(&mut self, out: &mut Vec<u8>) {
        let first = ORDERS.fetch_add(self.orders, Ordering::Relaxed);
        let orders = (first..first + self.orders).map(|number| order(number, self.ids));
        let mut body = orders.collect::<Vec<_>>().join(",");
        if self.orders > 1 {
            body = format!("[{body}]");
        }
        http::write_json(out, "POST", "/events", &body);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 202)?;
        let assigned = memmem::find_iter(message.body, ASSIGNED).count();
        let all = u64::try_from(assigned)? == self.orders;
        ensure!(all, "{assigned} of {} orders were assigned", self.orders);
        Ok(Received::Answer)
    }
}

/// The couriers must have exactly the orders that were answered, and in each zone the one with the most orders at most one
/// more than the one with the fewest.
fn check(server: &Server, answered: u64) -> Result<()> {
    let answer = Connection::open(server.staff)?
        .ask(&http::get("/couriers"))?
        .expect(200)?;
    let answer: Value = serde_json::from_slice(&answer.body).context("a list of couriers")?;
    let couriers = answer["couriers"]
        .as_array()
        .context("a list of couriers")?;
    let count = |courier: &Value| courier["count"].as_u64().unwrap_or_default();
    let given: u64 = couriers.iter().map(count).sum();
    ensure!(
        given == answered,
        "{answered} orders were answered, and the couriers have {given}"
    );
    for zone in ZONES {
        let here = couriers.iter().filter(|courier| courier["zone"] == zone);
        let counts: Vec<u64> = here.map(count).collect();
        let range = counts.iter().max().zip(counts.iter().min());
        let is_even = range.is_some_and(|(most, fewest)| most - fewest <= 1);
        let is_complete = counts.len() as u64 == AVAILABLE / 4;
        ensure!(
            is_even && is_complete,
            "the couriers of zone {zone} have {counts:?} orders"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::receive;
    use crate::ledger::Ledger;

    #[test]
    fn every_order_of_a_request_must_be_assigned() {
        let outcome = r#"{"outcome":"assigned","courierId":"a"}"#;
        let accepted = b"HTTP/1.1 202 Accepted";
        for (orders, head, body, right) in [
            (1, &accepted[..], format!("[{outcome}]"), true),
            (2, accepted, format!("[{outcome},{outcome}]"), true),
            (1, b"HTTP/1.1 503 Busy", format!("[{outcome}]"), false),
            (1, accepted, r#"[{"outcome":"parked"}]"#.to_owned(), false),
            (1, accepted, format!("[{outcome},{outcome}]"), false),
            (2, accepted, format!("[{outcome}]"), false),
        ] {
            let mut publisher = publisher(Ids::Ascending, orders);
            let mut ledger = Ledger::default();
            let received = receive(&mut *publisher, &mut ledger, head, body.as_bytes());
            assert_eq!(received.is_ok(), right, "{body}");
        }
    }
}
