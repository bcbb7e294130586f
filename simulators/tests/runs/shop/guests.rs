//! The shop's flood control: by address, and no more of it than the simulators can see.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Desk, Line, Reply, json_reply, status};

/// When an order is refused, and when its address is cut off for ten minutes.
#[derive(Debug, Clone)]
pub(crate) struct FloodControl {
    /// Orders of one address in the line at most.
    pub(crate) held_max: usize,
    /// So many refusals cut the address off.
    pub(crate) refused_max: u64,
}

/// What is known of an address.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    pub(crate) placed: u64,
    pub(crate) refused: u64,
    pub(crate) let_in: u64,
    pub(crate) cut_off_until: Option<Timestamp>,
}

impl Line {
    /// Refuses, and cuts off: then the address's waiting orders are answered 429.
    pub(super) fn admits(&mut self, address: IpAddr, control: &FloodControl) -> bool {
        let holds = self.held.values().filter(|held| held.guest == address);
        let is_full = holds.count() >= control.held_max;
        let guest = self.guests.entry(address).or_default();
        if !is_full && guest.cut_off_until.is_none() {
            return true;
        }
        guest.refused += 1;
        if guest.cut_off_until.is_some() || guest.refused < control.refused_max {
            return false;
        }
        guest.cut_off_until = Some(Timestamp::now() + SignedDuration::from_mins(10));
        let unstarted = self.held.extract_if(.., |_, held| {
            held.guest == address && held.started_at.is_none()
        });
        for (number, held) in unstarted {
            self.waiting.retain(|waiting| *waiting != number);
            // The send fails when the client has disconnected, which is no error.
            drop(held.answer.send(status(StatusCode::TOO_MANY_REQUESTS)));
        }
        false
    }
}

impl Desk {
    /// `GET /flood` and `DELETE /flood/{address}`.
    pub(super) fn flood_list(&self, method: &Method, path: &str) -> Reply {
        if method == Method::GET && path == "/flood" {
            let line = self.line.borrow();
            let entries = line.guests.iter().filter_map(|(address, guest)| {
                let until = guest.cut_off_until?;
                Some(json!({ "address": address, "until": until, "refused": guest.refused }))
            });
            let entries: Vec<_> = entries.collect();
            return json_reply(&json!({ "cut_off": entries }));
        }
        let address = path.strip_prefix("/flood/").map(str::parse::<IpAddr>);
        match (method, address) {
            (&Method::DELETE, Some(Ok(address))) => {
                self.line.send_modify(|line| {
                    let guest = line.guests.entry(address).or_default();
                    guest.let_in += 1;
                    guest.cut_off_until = None;
                });
                status(StatusCode::NO_CONTENT)
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }
}
