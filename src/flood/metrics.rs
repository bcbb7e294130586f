//! Flood control's metrics.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::networks::{Kind, Level};
use super::table::{Reason, Table};

/// Flood control's metric handles.
#[derive(Clone)]
pub struct Metrics {
    pub(super) admitted: Counter,
    pub(super) exempt: Counter,
    pub(super) purged: Counter,
    pub(super) malformed: Counter,
    /// By reason; refused, and only observed.
    refused: [[Counter; 2]; Reason::ALL.len()],
    refused_connections: [Counter; 2],
    addresses: Gauge,
    blocked: Gauge,
    /// By level.
    largest: [Gauge; Level::ALL.len()],
}

const DECISIONS: &str = "odyssey_flood_decisions_total";
const CONNECTIONS: &str = "odyssey_flood_connections_refused_total";
const LARGEST: &str = "odyssey_flood_largest_share";

impl Metrics {
    /// Registers everything with the recorder that is current (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(
            DECISIONS,
            "Requests for admission, by decision and reason; observed ones would have been refused"
        );
        describe_counter!(
            "odyssey_flood_purged_total",
            "Orders cancelled because their address was blocked"
        );
        describe_counter!(
            "odyssey_flood_malformed_total",
            "Requests with an unparseable X-Forwarded-For"
        );
        describe_counter!(
            CONNECTIONS,
            "Connections of addresses, or networks, that had too many; observed ones would have been refused"
        );
        describe_gauge!("odyssey_flood_addresses", "Tracked addresses");
        describe_gauge!("odyssey_flood_cut_off", "Blocked addresses");
        describe_gauge!(
            LARGEST,
            "Of all open orders, the share of the origin that has most, by the width of what is called an origin"
        );
        let decision = |decision: &'static str, reason: &'static str| counter!(DECISIONS, "decision" => decision, "reason" => reason);
        Self {
            admitted: decision("admitted", "within_limits"),
            exempt: decision("admitted", "exempt"),
            purged: counter!("odyssey_flood_purged_total"),
            malformed: counter!("odyssey_flood_malformed_total"),
            refused: Reason::ALL
                .map(|reason| ["refused", "observed"].map(|word| decision(word, reason.as_str()))),
            refused_connections: ["refused", "observed"]
                .map(|word| counter!(CONNECTIONS, "decision" => word)),
            addresses: gauge!("odyssey_flood_addresses"),
            blocked: gauge!("odyssey_flood_cut_off"),
            largest: Level::ALL.map(|level| gauge!(LARGEST, "origin" => level.as_str())),
        }
    }

    pub(super) fn refused(&self, reason: Reason, enforced: bool) {
        let [refused, observed] = &self.refused[reason as usize];
        if enforced { refused } else { observed }.increment(1);
    }

    pub(super) fn refused_connection(&self, enforced: bool) {
        let [refused, observed] = &self.refused_connections;
        if enforced { refused } else { observed }.increment(1);
    }

    pub(super) fn update(&self, table: &Table) {
        let gauge = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        self.addresses.set(gauge(table.len()));
        self.blocked.set(gauge(table.blocked().len()));
        let networks = table.networks();
        let total = gauge(networks.total(Kind::Order).max(1));
        let largest = networks.largest(Kind::Order);
        for (shown, open) in self.largest.iter().zip(largest) {
            shown.set(f64::from(open) / total);
        }
    }
}
