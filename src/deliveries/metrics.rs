use std::fmt;

use metrics::{Counter, counter, describe_counter};

use super::error::{RecordError, Refusal};
use super::model::EventType;
use super::store::Recorded;

pub struct Metrics {
    /// In the order of [`EventType::ALL`].
    recorded: [Counter; 5],
    replayed: Counter,
    illegal: Counter,
    key_reused: Counter,
    too_many_ongoing: Counter,
    unavailable: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const EVENTS: &str = "odyssey_deliveries_events_total";
const REFUSED: &str = "odyssey_deliveries_refused_total";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(EVENTS, "Events that were recorded, by type");
        describe_counter!(
            "odyssey_deliveries_replayed_total",
            "Events that were sent again with their key"
        );
        describe_counter!(REFUSED, "Events that were not recorded, by reason");
        let refused = |reason: &'static str| counter!(REFUSED, "reason" => reason);
        Self {
            recorded: EventType::ALL
                .map(|event_type| counter!(EVENTS, "type" => event_type.as_str())),
            replayed: counter!("odyssey_deliveries_replayed_total"),
            illegal: refused("illegal"),
            key_reused: refused("key_reused"),
            too_many_ongoing: refused("too_many_ongoing"),
            unavailable: refused("unavailable"),
        }
    }

    pub(super) fn recorded(&self, recorded: &Result<Recorded, RecordError>) {
        let counter = match recorded {
            Ok(Recorded::New(event)) => &self.recorded[event.event_type as usize],
            Ok(Recorded::Replayed(_)) => &self.replayed,
            Err(RecordError::Refused(Refusal::Illegal { .. })) => &self.illegal,
            Err(RecordError::Refused(Refusal::KeyReused { .. })) => &self.key_reused,
            Err(RecordError::Refused(Refusal::TooManyOngoing)) => &self.too_many_ongoing,
            Err(RecordError::Unavailable(_)) => &self.unavailable,
        };
        counter.increment(1);
    }
}
