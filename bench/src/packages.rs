//! Senders of packages: each waits until its package is processed, and sends the next.
//!
//! Every answer must be 201 and say that just this package was delivered and had not been sent before; so a lost, doubled
//! or mixed-up package fails the measurement.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use crate::client::{Message, Received, Session, Turn};
use crate::http::{self, contains, text_after};
use crate::load::Load;

const RECIPIENTS: u64 = 1000;
const SENDERS: u64 = 64;
/// The moment of the first ascending id, in milliseconds since 1970: a day in 2026.
const FIRST_MOMENT: u64 = 1_780_000_000_000;
/// Ascending ids of one millisecond: about the pace at which they are used.
const IDS_PER_MOMENT: u64 = 16;

/// Packages of all senders of this program.
static PACKAGES: AtomicU64 = AtomicU64::new(0);

pub(crate) const ASCENDING: Load = Load {
    listener: |server| server.customers,
    customer: |_, _| sender(Ids::Ascending),
    ..Load::HTTP
};
pub(crate) const RANDOM: Load = Load {
    customer: |_, _| sender(Ids::Random),
    ..ASCENDING
};

/// How clients name what they send, in 36 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Each is greater than the one before: `UUIDv7`, whose first digits are the time.
    Ascending,
    /// `UUIDv4`, whose digits are all random.
    Random,
}

impl Ids {
    /// The id with this number. No two numbers have the same.
    pub(crate) fn name(self, number: u64) -> String {
        let high = match self {
            Ids::Ascending => {
                let moment = FIRST_MOMENT + number / IDS_PER_MOMENT;
                (moment << 16) | 0x7000 | ((number % IDS_PER_MOMENT) << 8) | (mixed(number) & 0xff)
            }
            Ids::Random => mixed(number) & !0xf000 | 0x4000,
        };
        // With the bits of the variant.
        let low = mixed(!number) & !(3 << 62) | 1 << 63;
        let (second, third, fourth) = (high >> 16 & 0xffff, high & 0xffff, low >> 48);
        format!(
            "{:08x}-{second:04x}-{third:04x}-{fourth:04x}-{:012x}",
            high >> 32,
            low & 0xffff_ffff_ffff
        )
    }
}

/// A number's digits, mixed so that they look random. No two numbers become one (the finalizer of `SplitMix64`).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn sender(ids: Ids) -> Box<dyn Session> {
    Box::new(Sender {
        ids,
        package: String::new(),
    })
}

struct Sender {
    ids: Ids,
    package: String,
}

impl Session for Sender {
    fn request(&mut self, out: &mut Vec<u8>) {
        let number = PACKAGES.fetch_add(1, Ordering::Relaxed);
        self.package = self.ids.name(number);
        let (id, sender, recipient) = (&self.package, number % SENDERS, number % RECIPIENTS);
        let body = format!(
            r#"{{"timestamp":"2142-05-01T12:00:00Z","sender_id":"sender-{sender:02}","recipient_id":"recipient-{recipient:03}","package_id":"{id}","package_type":"personal"}}"#
        );
        http::write_json(out, "POST", "/packages", &body);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 201)?;
        let body = message.body;
        let is_own = text_after(body, "\"package_id\":\"")? == self.package.as_bytes();
        ensure!(is_own, "another package was processed");
        ensure!(
            contains(body, "\"status\":\"delivered\""),
            "the package was not delivered"
        );
        ensure!(
            contains(body, "\"duplicate\":false"),
            "the package had been sent before"
        );
        Ok(Received::Answer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;
    use crate::client::tests::receive;
    use crate::ledger::Ledger;

    #[test]
    fn ids_are_unique_uuids_of_their_version_and_only_ascending_ones_ascend() {
        let mut seen = HashSet::new();
        for (ids, version) in [(Ids::Ascending, 7), (Ids::Random, 4)] {
            for number in (0..20_000).chain([10_000_000, u64::from(u32::MAX)]) {
                let id: Uuid = ids.name(number).parse().unwrap();
                assert_eq!(id.to_string(), ids.name(number));
                assert_eq!(id.get_version_num(), version);
                assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
                assert!(seen.insert(id));
            }
        }
        let ascends = |ids: Ids, n: &u64| ids.name(*n) < ids.name(n + 1);
        assert!((0..10_000).all(|n| ascends(Ids::Ascending, &n)));
        let random = (0..10_000).filter(|n| ascends(Ids::Random, n)).count();
        assert!((4_500..5_500).contains(&random));
    }

    #[test]
    fn a_sender_accepts_nothing_but_the_delivery_of_its_package() {
        let mut sender = sender(Ids::Random);
        let mut out = Vec::new();
        sender.request(&mut out);
        let id = text_after(&out, "\"package_id\":\"").unwrap();
        let id = str::from_utf8(id).unwrap();
        let mut is_right = |head: &[u8], id: &str, rest| {
            let body = format!(r#"{{"package_id":"{id}",{rest}}}"#);
            let mut ledger = Ledger::default();
            receive(&mut *sender, &mut ledger, head, body.as_bytes()).is_ok()
        };
        let created = b"HTTP/1.1 201 Created";
        let right = r#""status":"delivered","duplicate":false"#;
        assert!(is_right(created, id, right));
        assert!(!is_right(b"HTTP/1.1 200 OK", id, right));
        assert!(!is_right(created, "another", right));
        assert!(!is_right(
            created,
            id,
            r#""status":"dropped","duplicate":false"#
        ));
        assert!(!is_right(
            created,
            id,
            r#""status":"delivered","duplicate":true"#
        ));
    }
}
