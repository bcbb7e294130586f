//! Clients of the delivery desk: drones, each on one mission after the other, and clients that read its lists.
//!
//! A drone reports an event, waits until it is durable, and reports the next. Every answer must be 201 and have the id and
//! the sequence of this event, so a lost, doubled or mixed-up event fails the measurement.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use crate::client::{Message, Received, Session, Turn};
use crate::http::{self, Connection, Repeat, after, text_after};
use crate::load::Load;
use crate::programs::Server;

const LIST_REQUEST: &[u8] = b"GET /deliveries HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const COUNTS_REQUEST: &[u8] = b"GET /counts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Deliveries on the list.
const ONGOING: usize = 100;

/// Missions of all drones of this program.
static MISSIONS: AtomicU64 = AtomicU64::new(0);

pub(crate) const EVENTS: Load = Load {
    customer: |number, _| Box::new(Drone::new(number, |sequence| sequence)),
    ..Load::HTTP
};

/// The no-op stores nothing: every event is its mission's first.
pub(crate) const EVENTS_NOOP: Load = Load {
    customer: |number, _| Box::new(Drone::new(number, |_| 1)),
    ..Load::HTTP
};

pub(crate) const COUNTS: Load = Load {
    customer: |_, _| Repeat::boxed(COUNTS_REQUEST, 200, |first, body| first == body),
    ..LIST
};

/// The list of [`ONGOING`] deliveries.
pub(crate) const LIST: Load = Load {
    customer: |_, _| Repeat::boxed(LIST_REQUEST, 200, |first, body| first == body),
    prepare: |server, _| begin(server),
    ..Load::HTTP
};

/// An answer of the no-op that is as short as the counts.
pub(crate) const COUNTS_NOOP: Load = Load {
    prepare: |_, _| Ok(()),
    ..COUNTS
};

pub(crate) const COLLECTED: &str = "PARCEL_COLLECTED";
const TAKEN_OFF: &str = "TAKEN_OFF";
const LANDED: &str = "LANDED";
const DELIVERED: &str = "PARCEL_DELIVERED";

/// Events, mission after mission. The missions' lengths differ, otherwise drones would begin theirs all at once.
pub(crate) struct Course {
    flights: u32,
    reported: u32,
}

impl Course {
    /// One, two or three flights per mission: four, six or eight events.
    pub(crate) fn new(number: u32) -> Self {
        Course {
            flights: 1 + number % 3,
            reported: 0,
        }
    }

    pub(crate) fn next(&mut self) -> &'static str {
        self.reported += 1;
        match self.reported {
            1 => COLLECTED,
            last if last == 2 * self.flights + 2 => {
                self.reported = 0;
                DELIVERED
            }
            up if up.is_multiple_of(2) => TAKEN_OFF,
            _ => LANDED,
        }
    }

    /// The event that ends the mission, if one is ongoing.
    pub(crate) fn end(&mut self) -> Option<&'static str> {
        (std::mem::take(&mut self.reported) > 0).then_some(DELIVERED)
    }
}

struct Drone {
    course: Course,
    mission: String,
    sequence: u32,
    /// The sequence that the server returns for an event.
    expected: fn(u32) -> u32,
}

impl Drone {
    fn new(number: u32, expected: fn(u32) -> u32) -> Self {
        Drone {
            course: Course::new(number),
            mission: String::new(),
            sequence: 0,
            expected,
        }
    }

    fn report(&mut self, event: &str, out: &mut Vec<u8>) {
        if event == COLLECTED {
            // Multiplying by an odd number keeps ids unique, and puts them in no order, as those of real drones.
            let number = MISSIONS.fetch_add(1, Ordering::Relaxed);
            self.mission = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.sequence = 0;
        }
        self.sequence += 1;
        http::write_json(out, "POST", &path(&self.mission), &body(event));
    }
}

fn path(mission: &str) -> String {
    format!("/deliveries/{mission}/events")
}

fn body(event: &str) -> String {
    format!(r#"{{"type":"{event}"}}"#)
}

impl Session for Drone {
    fn request(&mut self, out: &mut Vec<u8>) {
        let event = self.course.next();
        self.report(event, out);
    }

    fn last_request(&mut self, out: &mut Vec<u8>) -> bool {
        let event = self.course.end();
        event.map(|event| self.report(event, out)).is_some()
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 201)?;
        let mission = text_after(message.body, "\"delivery_id\":\"")?;
        ensure!(
            mission == self.mission.as_bytes(),
            "the event was stored for another mission"
        );
        let digits = after(message.body, "\"sequence\":")?;
        let digits = digits
            .split(|byte| !byte.is_ascii_digit())
            .next()
            .unwrap_or_default();
        let (sequence, expected) = (
            str::from_utf8(digits)?.parse::<u32>()?,
            (self.expected)(self.sequence),
        );
        ensure!(
            sequence == expected,
            "the event was stored as number {sequence}, not {expected}"
        );
        Ok(Received::Answer)
    }
}

/// Begins [`ONGOING`] deliveries.
fn begin(server: &Server) -> Result<()> {
    let mut connection = Connection::open(server.staff)?;
    for number in 0..ONGOING {
        let path = path(&format!("{number:016x}"));
        let request = http::json("POST", &path, &body(COLLECTED));
        connection.ask(&request)?.expect(201)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::receive;
    use crate::ledger::Ledger;

    #[test]
    fn a_course_leads_from_collected_to_delivered_and_begins_again() {
        let mut course = Course::new(1);
        let events: Vec<&str> = (0..7).map(|_| course.next()).collect();
        assert_eq!(
            events,
            [
                COLLECTED, TAKEN_OFF, LANDED, TAKEN_OFF, LANDED, DELIVERED, COLLECTED
            ]
        );
        assert_eq!(course.end(), Some(DELIVERED));
        assert_eq!(course.end(), None);
    }

    #[test]
    fn a_drone_accepts_nothing_but_its_own_event() {
        let mut drone = Drone::new(0, |sequence| sequence);
        let is_right = |drone: &mut Drone, head: &[u8], mission: &str, sequence| {
            let body =
                format!(r#"{{"delivery_id":"{mission}","sequence":{sequence},"type":"LANDED"}}"#);
            receive(drone, &mut Ledger::default(), head, body.as_bytes()).is_ok()
        };
        let created = b"HTTP/1.1 201 Created";
        let mut missions = Vec::new();
        for sequence in [1, 2, 3, 4, 1] {
            drone.request(&mut Vec::new());
            missions.push(drone.mission.clone());
            let mission = drone.mission.clone();
            assert!(is_right(&mut drone, created, &mission, sequence));
            assert!(!is_right(
                &mut drone,
                b"HTTP/1.1 200 OK",
                &mission,
                sequence
            ));
            assert!(!is_right(&mut drone, created, &mission, sequence + 1));
            assert!(!is_right(&mut drone, created, "another", sequence));
        }
        assert!(missions[0] == missions[3] && missions[0] != missions[4]);
    }
}
