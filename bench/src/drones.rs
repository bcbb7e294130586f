//! Drones: clients of the delivery desk, each on one mission after the other.
//!
//! A drone reports an event, waits until it is durable, and reports the next. Every answer must be 201 and have the id and
//! the sequence that this event of this mission has; so an event that was lost, doubled or given to another mission
//! ends the measurement. When the books are closed a drone ends its mission and begins no other.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::client::Talk;
use crate::http::status;
use crate::ledger::Ledger;

/// A report is these three with the mission's id between the first two.
const REPORT: &[u8] = b"POST /deliveries/";
const REPORT_TAIL: &[u8] =
    b"/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ";

/// Missions that have begun, of all drones of this program.
static MISSIONS: AtomicU64 = AtomicU64::new(0);

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The first of each mission.
    Collected,
    /// In the air.
    TakenOff,
    /// On the ground.
    Landed,
    /// The last of each mission.
    Delivered,
}

impl Word {
    /// The word the API uses.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Word::Collected => "PARCEL_COLLECTED",
            Word::TakenOff => "TAKEN_OFF",
            Word::Landed => "LANDED",
            Word::Delivered => "PARCEL_DELIVERED",
        }
    }

    /// Whether a mission begins with it.
    pub(crate) fn is_first(self) -> bool {
        self == Word::Collected
    }

    /// The body's length and the body.
    fn body(self) -> &'static [u8] {
        match self {
            Word::Collected => b"27\r\n\r\n{\"type\":\"PARCEL_COLLECTED\"}",
            Word::TakenOff => b"20\r\n\r\n{\"type\":\"TAKEN_OFF\"}",
            Word::Landed => b"17\r\n\r\n{\"type\":\"LANDED\"}",
            Word::Delivered => b"27\r\n\r\n{\"type\":\"PARCEL_DELIVERED\"}",
        }
    }
}

/// What comes next, mission after mission. Not all missions are of one length: drones would begin theirs all at once.
pub(crate) struct Course {
    flights: u32,
    reported: u32,
}

impl Course {
    /// Of one, two or three flights per mission, as the number has it: four, six or eight events.
    pub(crate) fn new(number: u32) -> Self {
        Course {
            flights: 1 + number % 3,
            reported: 0,
        }
    }

    /// The next word, as long as missions begin; otherwise the last one of a mission under way, and then nothing.
    pub(crate) fn next(&mut self, begin: bool) -> Option<Word> {
        let landed_for_good = 2 * self.flights + 1;
        if self.reported == 0 {
            self.reported = u32::from(begin);
            return begin.then_some(Word::Collected);
        }
        if self.reported == landed_for_good || !begin {
            self.reported = 0;
            return Some(Word::Delivered);
        }
        self.reported += 1;
        Some(if self.reported.is_multiple_of(2) {
            Word::TakenOff
        } else {
            Word::Landed
        })
    }
}

/// What the server makes of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequences {
    /// It counts each mission's events.
    Counted,
    /// Every event is its mission's first to it.
    AlwaysFirst,
}

/// When the next event is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rhythm {
    /// As soon as the last one is durable.
    AtOnce,
    /// On each call of `nudge`.
    WhenNudged,
}

/// A drone.
pub(crate) struct Drone {
    course: Course,
    sequences: Sequences,
    rhythm: Rhythm,
    mission: String,
    sequence: u32,
}

impl Drone {
    /// The drone with this number, before its first mission.
    pub(crate) fn new(number: u32, sequences: Sequences, rhythm: Rhythm) -> Self {
        Drone {
            course: Course::new(number),
            sequences,
            rhythm,
            mission: String::new(),
            sequence: 0,
        }
    }

    fn report(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        let Some(word) = self.course.next(ledger.open) else {
            return;
        };
        if word.is_first() {
            self.mission = new_mission();
            self.sequence = 0;
        }
        self.sequence += 1;
        ledger.place();
        for part in [REPORT, self.mission.as_bytes(), REPORT_TAIL, word.body()] {
            out.extend_from_slice(part);
        }
    }
}

impl Talk for Drone {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        if self.rhythm == Rhythm::AtOnce {
            self.report(ledger, out);
        }
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(status(head)? == 201, "the event was not kept");
        let expected = match self.sequences {
            Sequences::Counted => self.sequence,
            Sequences::AlwaysFirst => 1,
        };
        let (mission, sequence) = stored(body)?;
        ensure!(
            mission == self.mission.as_bytes(),
            "the event was kept for another mission"
        );
        ensure!(
            sequence == expected,
            "the event was kept as number {sequence}, not {expected}"
        );
        ledger.answer_alike();
        if self.rhythm == Rhythm::AtOnce {
            self.report(ledger, out);
        }
        Ok(())
    }

    fn nudge(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        self.report(ledger, out);
    }
}

/// An id like no other of this program. They come in no order, as those of real drones: a multiplication by an odd number
/// mixes the digits and leaves them unlike.
fn new_mission() -> String {
    let number = MISSIONS.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The mission and the sequence of an event that was stored.
fn stored(body: &[u8]) -> Result<(&[u8], u32)> {
    const MISSION: &[u8] = b"\"delivery_id\":\"";
    const SEQUENCE: &[u8] = b"\"sequence\":";
    let after = |name| memmem::find(body, name).map(|at| &body[at + name.len()..]);
    let mission = after(MISSION).context("an answer without delivery_id")?;
    let end = memchr::memchr(b'"', mission).context("a delivery_id that does not end")?;
    let sequence = after(SEQUENCE).context("an answer without sequence")?;
    let digits = sequence.iter().take_while(|byte| byte.is_ascii_digit());
    let digits = &sequence[..digits.count()];
    Ok((&mission[..end], str::from_utf8(digits)?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &[u8] = b"HTTP/1.1 201 Created";

    fn open_books() -> Ledger {
        let mut ledger = Ledger::new();
        ledger.open = true;
        ledger
    }

    fn answer(mission: &str, sequence: u32) -> Vec<u8> {
        format!(r#"{{"delivery_id":"{mission}","sequence":{sequence},"type":"LANDED"}}"#).into()
    }

    #[test]
    fn a_body_is_as_long_as_it_says() {
        for word in [
            Word::Collected,
            Word::TakenOff,
            Word::Landed,
            Word::Delivered,
        ] {
            let text = str::from_utf8(word.body()).unwrap();
            let (length, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(length.parse(), Ok(body.len()));
            assert_eq!(body, format!(r#"{{"type":"{}"}}"#, word.text()));
        }
    }

    #[test]
    fn a_course_goes_from_collected_to_delivered_and_begins_anew() {
        use Word::{Collected, Delivered, Landed, TakenOff};
        let mut course = Course::new(1);
        let words: Vec<Word> = (0..7).filter_map(|_| course.next(true)).collect();
        let expected = [
            Collected, TakenOff, Landed, TakenOff, Landed, Delivered, Collected,
        ];
        assert_eq!(words, expected);
        // The mission under way is ended, and that is the end.
        assert_eq!(course.next(false), Some(Delivered));
        assert_eq!(course.next(false), None);
    }

    #[test]
    fn a_drone_numbers_its_events_from_one_in_each_mission() {
        let mut ledger = open_books();
        let mut drone = Drone::new(0, Sequences::Counted, Rhythm::AtOnce);
        let mut out = Vec::new();
        drone.open(&mut ledger, &mut out);
        let mut missions = Vec::new();
        for sequence in [1, 2, 3, 4, 1] {
            missions.push(drone.mission.clone());
            assert!(memmem::find(&out, drone.mission.as_bytes()).is_some());
            out.clear();
            let received = answer(&drone.mission.clone(), sequence);
            drone
                .receive(CREATED, &received, &mut ledger, &mut out)
                .unwrap();
        }
        assert!(missions[..4].iter().all(|mission| *mission == missions[0]));
        assert_ne!(missions[4], missions[0]);
    }

    #[test]
    fn a_wrong_answer_ends_the_measurement() {
        let mut ledger = open_books();
        let mut drone = Drone::new(0, Sequences::Counted, Rhythm::AtOnce);
        drone.open(&mut ledger, &mut Vec::new());
        let right = answer(&drone.mission, 1);
        for (head, body) in [
            (&b"HTTP/1.1 200 OK"[..], right.clone()),
            (CREATED, answer(&drone.mission, 2)),
            (CREATED, answer(&drone.mission, 10)),
            (CREATED, answer("another", 1)),
            (CREATED, b"{}".to_vec()),
        ] {
            let received = drone.receive(head, &body, &mut ledger, &mut Vec::new());
            assert!(received.is_err(), "{}", String::from_utf8_lossy(&body));
        }
        assert!(
            drone
                .receive(CREATED, &right, &mut ledger, &mut Vec::new())
                .is_ok()
        );
    }

    #[test]
    fn a_drone_that_waits_for_a_nudge_says_nothing_else() {
        let mut ledger = open_books();
        let mut drone = Drone::new(0, Sequences::Counted, Rhythm::WhenNudged);
        let mut out = Vec::new();
        drone.open(&mut ledger, &mut out);
        assert!(out.is_empty());
        drone.nudge(&mut ledger, &mut out);
        assert!(!out.is_empty());
        out.clear();
        let received = answer(&drone.mission.clone(), 1);
        drone
            .receive(CREATED, &received, &mut ledger, &mut out)
            .unwrap();
        assert!(out.is_empty());
        assert!(ledger.everybody_answered());
    }
}
