//! Senders of packages: clients of the package desk, each with one package after the other.
//!
//! A sender waits until a package is processed, and sends the next. Every answer must be 201 and say that just this package
//! was delivered and had not been sent before; so one that was lost, doubled or mixed up ends the measurement.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::client::Talk;
use crate::http::status;
use crate::ledger::Ledger;

/// How a request to send begins; its body's length comes next.
const SEND: &[u8] =
    b"POST /packages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ";
/// When senders began, to themselves. Nothing depends on it but a digest.
pub(crate) const BEGAN: &str = "2142-05-01T12:00:00Z";
/// What is sent.
pub(crate) const TYPE: &str = "personal";
/// Those for whom packages are.
pub(crate) const RECIPIENTS: u64 = 1000;
/// Those from whom packages are, as their names say; how many connections they use is another matter.
const SENDERS: u64 = 64;
/// The moment of the first rising id, in milliseconds since 1970: some day in 2026.
const FIRST_MOMENT: u64 = 1_780_000_000_000;
/// Rising ids of one millisecond: about the pace at which they are used.
const IDS_PER_MOMENT: u64 = 16;

/// Packages that were given a number, of all senders of this program.
static PACKAGES: AtomicU64 = AtomicU64::new(0);

/// How senders name their packages, in 36 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Each is greater than the one before, as from a counter: `UUIDv7`, whose first digits are the time.
    Rising,
    /// In no order: `UUIDv4`, whose digits are all random.
    Random,
}

impl Ids {
    /// The id of the package with this number. No two numbers have the same.
    pub(crate) fn name(self, number: u64) -> String {
        match self {
            Ids::Rising => {
                let moment = FIRST_MOMENT + number / IDS_PER_MOMENT;
                let place = number % IDS_PER_MOMENT;
                // The place among those of its millisecond stands in the highest of the digits that may be random.
                let high = moment << 16 | 0x7000 | place << 8 | mixed(number) & 0xff;
                uuid(high, mixed(!number))
            }
            Ids::Random => {
                let high = mixed(number) & !0xf000 | 0x4000;
                uuid(high, mixed(!number))
            }
        }
    }
}

/// The text of both halves; the variant's bits are set in the lower one.
pub(crate) fn uuid(high: u64, low: u64) -> String {
    let low = low & !(3 << 62) | 1 << 63;
    let (first, second, third) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
    let (fourth, fifth) = (low >> 48, low & 0xffff_ffff_ffff);
    format!("{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{fifth:012x}")
}

/// A number's digits, so mixed that they look random. No two numbers become one (the finalizer of `SplitMix64`).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Reserves this many unique numbers; returns the first.
pub(crate) fn take_numbers(count: u64) -> u64 {
    PACKAGES.fetch_add(count, Ordering::Relaxed)
}

/// From whom the package with this number is.
pub(crate) fn sender(number: u64) -> String {
    format!("sender-{:02}", number % SENDERS)
}

/// The name of a recipient.
pub(crate) fn recipient(which: u64) -> String {
    format!("recipient-{:03}", which % RECIPIENTS)
}

/// The request to send a package, to its end.
pub(crate) fn request(ids: Ids, number: u64) -> Vec<u8> {
    let (id, sender, recipient) = (ids.name(number), sender(number), recipient(number));
    let mut body = String::with_capacity(192);
    // Writing into a string does not fail.
    let _ = write!(
        body,
        r#"{{"timestamp":"{BEGAN}","sender_id":"{sender}","recipient_id":"{recipient}","package_id":"{id}","package_type":"{TYPE}"}}"#
    );
    [
        SEND,
        format!("{}\r\n\r\n", body.len()).as_bytes(),
        body.as_bytes(),
    ]
    .concat()
}

/// What an answer says of a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sent<'a> {
    /// Its id.
    pub(crate) id: &'a [u8],
    /// It was delivered, now or before.
    pub(crate) delivered: bool,
    /// It had been sent before ...
    pub(crate) duplicate: bool,
    /// ... with other fields.
    pub(crate) mismatch: bool,
}

impl<'a> Sent<'a> {
    /// Reads an answer's body.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self> {
        const ID: &[u8] = b"\"package_id\":\"";
        let says = |words: &[u8]| memmem::find(body, words).is_some();
        let at = memmem::find(body, ID).context("an answer without package_id")?;
        let id = &body[at + ID.len()..];
        let end = memchr::memchr(b'"', id).context("a package_id that does not end")?;
        let duplicate = says(b"\"duplicate\":true");
        ensure!(
            duplicate || says(b"\"duplicate\":false"),
            "an answer without duplicate"
        );
        Ok(Sent {
            id: &id[..end],
            delivered: says(b"\"status\":\"delivered\""),
            duplicate,
            mismatch: says(b"\"mismatch\":true"),
        })
    }
}

/// A sender.
pub(crate) struct Sender {
    ids: Ids,
    package: String,
}

impl Sender {
    /// A sender who has sent nothing yet.
    pub(crate) fn new(ids: Ids) -> Self {
        Sender {
            ids,
            package: String::new(),
        }
    }
}

impl Talk for Sender {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        let number = take_numbers(1);
        self.package = self.ids.name(number);
        ledger.place();
        out.extend_from_slice(&request(self.ids, number));
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(status(head)? == 201, "the package was not processed");
        let expected = Sent {
            id: self.package.as_bytes(),
            delivered: true,
            duplicate: false,
            mismatch: false,
        };
        let sent = Sent::read(body)?;
        ensure!(
            sent == expected,
            "something else became of it than expected"
        );
        ledger.answer_alike();
        if ledger.open {
            self.open(ledger, out);
        }
        Ok(())
    }

    fn nudge(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        self.open(ledger, out);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    const CREATED: &[u8] = b"HTTP/1.1 201 Created";

    fn answer(id: &str, rest: &str) -> Vec<u8> {
        format!(r#"{{"package_id":"{id}","package_type":"personal",{rest}}}"#).into()
    }

    #[test]
    fn ids_are_uuids_of_their_version_and_no_two_are_alike() {
        let mut seen = HashSet::new();
        for (ids, version) in [(Ids::Rising, 7), (Ids::Random, 4)] {
            for number in (0..20_000).chain([10_000_000, u64::from(u32::MAX)]) {
                let id: Uuid = ids.name(number).parse().unwrap();
                assert_eq!(id.to_string(), ids.name(number));
                assert_eq!(id.get_version_num(), version);
                assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
                assert!(seen.insert(id));
            }
        }
    }

    #[test]
    fn rising_ids_rise_and_random_ones_do_not() {
        let rises = |ids: Ids| {
            (0..10_000)
                .filter(|&n| ids.name(n) < ids.name(n + 1))
                .count()
        };
        assert_eq!(rises(Ids::Rising), 10_000);
        assert!((4_500..5_500).contains(&rises(Ids::Random)));
    }

    #[test]
    fn a_body_is_as_long_as_it_says() {
        let request = String::from_utf8(request(Ids::Rising, 7)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["package_id"], Ids::Rising.name(7));
        assert_eq!(body["recipient_id"], "recipient-007");
    }

    #[test]
    fn a_wrong_answer_ends_the_measurement() {
        let mut ledger = Ledger::new();
        let mut sender = Sender::new(Ids::Random);
        sender.open(&mut ledger, &mut Vec::new());
        let id = sender.package.clone();
        let first = r#""status":"delivered","duplicate":false"#;
        for (head, body) in [
            (&b"HTTP/1.1 200 OK"[..], answer(&id, first)),
            (CREATED, answer("another", first)),
            (
                CREATED,
                answer(&id, r#""status":"dropped","duplicate":false"#),
            ),
            (
                CREATED,
                answer(&id, r#""status":"delivered","duplicate":true"#),
            ),
            (CREATED, answer(&id, r#""status":"delivered""#)),
            (CREATED, b"{}".to_vec()),
        ] {
            let received = sender.receive(head, &body, &mut ledger, &mut Vec::new());
            assert!(received.is_err(), "{}", String::from_utf8_lossy(&body));
        }
        let right = answer(&id, first);
        let mut out = Vec::new();
        sender
            .receive(CREATED, &right, &mut ledger, &mut out)
            .unwrap();
        // The books are closed: nothing further is sent.
        assert!(out.is_empty() && ledger.everybody_answered());
    }
}
