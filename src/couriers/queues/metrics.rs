use std::fmt;

use metrics::{Counter, counter, describe_counter};

/// What a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Events,
    Assignments,
}

#[derive(Clone)]
pub struct Metrics {
    events: Counts,
    assignments: Counts,
    pub(super) announced: Counter,
    pub(super) published: Counter,
    pub(super) unpublished: Counter,
}

#[derive(Clone)]
pub(super) struct Counts {
    pub(super) received: Counter,
    pub(super) understood: Counter,
    pub(super) poison: Counter,
    pub(super) kept: Counter,
    pub(super) deleted: Counter,
    pub(super) not_received: Counter,
    pub(super) not_stored: Counter,
    pub(super) not_buried: Counter,
    pub(super) not_deleted: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

const MESSAGES: &str = "odyssey_couriers_messages_total";
const PUBLISHED: &str = "odyssey_couriers_published_total";
const RETRIES: &str = "odyssey_couriers_message_retries_total";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(MESSAGES, "Messages of the couriers' queues, by step");
        describe_counter!(
            PUBLISHED,
            "Messages that a topic of the couriers has confirmed"
        );
        describe_counter!(
            RETRIES,
            "Failed calls for messages that were retried, by call"
        );
        Self {
            events: Counts::of("events"),
            assignments: Counts::of("assignments"),
            announced: counter!(PUBLISHED, "topic" => "events"),
            published: counter!(PUBLISHED, "topic" => "assignments"),
            unpublished: counter!(RETRIES, "step" => "publish"),
        }
    }

    pub(super) fn of(&self, kind: MessageKind) -> Counts {
        match kind {
            MessageKind::Events => self.events.clone(),
            MessageKind::Assignments => self.assignments.clone(),
        }
    }
}

impl Counts {
    fn of(queue: &'static str) -> Self {
        let step = |step: &'static str| counter!(MESSAGES, "queue" => queue, "step" => step);
        let retry = |step: &'static str| counter!(RETRIES, "queue" => queue, "step" => step);
        Self {
            received: step("received"),
            understood: step("understood"),
            poison: step("poison"),
            kept: step("kept"),
            deleted: step("deleted"),
            not_received: retry("receive"),
            not_stored: retry("keep"),
            not_buried: retry("bury"),
            not_deleted: retry("delete"),
        }
    }
}
