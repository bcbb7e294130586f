//! What flood control counts.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::table::Reason;

/// Flood control's metric handles.
#[derive(Clone)]
pub struct Metrics {
    pub(super) admitted: Counter,
    pub(super) exempt: Counter,
    pub(super) purged: Counter,
    pub(super) malformed: Counter,
    /// By reason; refused, and only observed.
    refused: [[Counter; 2]; 3],
    addresses: Gauge,
    cut_off: Gauge,
}

const DECISIONS: &str = "odyssey_flood_decisions_total";

impl Metrics {
    /// Registers everything with the recorder that is current (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(
            DECISIONS,
            "Requests for admission, by decision and reason; observed ones would have been refused"
        );
        describe_counter!(
            "odyssey_flood_purged_total",
            "What was taken away from addresses when they were cut off"
        );
        describe_counter!(
            "odyssey_flood_malformed_total",
            "Requests whose X-Forwarded-For could not be read"
        );
        describe_gauge!("odyssey_flood_addresses", "Tracked addresses");
        describe_gauge!("odyssey_flood_cut_off", "Addresses that are cut off");
        let decision = |decision: &'static str, reason: &'static str| counter!(DECISIONS, "decision" => decision, "reason" => reason);
        Self {
            admitted: decision("admitted", "within_limits"),
            exempt: decision("admitted", "exempt"),
            purged: counter!("odyssey_flood_purged_total"),
            malformed: counter!("odyssey_flood_malformed_total"),
            refused: [Reason::Outstanding, Reason::Rate, Reason::CutOff]
                .map(|reason| ["refused", "observed"].map(|word| decision(word, reason.as_str()))),
            addresses: gauge!("odyssey_flood_addresses"),
            cut_off: gauge!("odyssey_flood_cut_off"),
        }
    }

    pub(super) fn refused(&self, reason: Reason, enforced: bool) {
        let [outstanding, rate, cut_off] = &self.refused;
        let [refused, observed] = match reason {
            Reason::Outstanding => outstanding,
            Reason::Rate => rate,
            Reason::CutOff => cut_off,
        };
        if enforced { refused } else { observed }.increment(1);
    }

    pub(super) fn show(&self, addresses: usize, cut_off: usize) {
        let gauge = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        self.addresses.set(gauge(addresses));
        self.cut_off.set(gauge(cut_off));
    }
}
