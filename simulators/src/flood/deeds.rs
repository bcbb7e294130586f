//! What became of a flooder's orders, and the figures drawn from it.
//!
//! All times here are measured, whatever the speed: the shop's flood control uses real time.

use std::{net::Ipv4Addr, time::Duration};

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::{flooder::Flooder, list::Listed};
use crate::{
    client::Failure,
    comparison::FloodTimes,
    outcome::Part,
    pace::{maybe_seconds, spoken},
    tally::{Tally, as_u64},
    visits::{Ending, Endings, Visit},
};

/// When the flood began, by the local clock and by the clock of the shop's answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    pub(crate) at: Instant,
    by_clock: Timestamp,
}

impl Beginning {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            by_clock: Timestamp::now(),
        }
    }

    /// How long after the beginning a moment of the shop's clock was; zero for one before it.
    fn until(self, moment: Timestamp) -> Duration {
        Duration::try_from(moment.duration_since(self.by_clock)).unwrap_or_default()
    }
}

/// The flooder's part of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Deeds {
    from: Ipv4Addr,
    /// Whether the flooder got as far as being held or turned away.
    pub(crate) shop_reached: bool,
    /// Orders that were to be sent.
    orders: u32,
    sent: u64,
    #[serde(flatten)]
    endings: Endings,
    #[serde(rename = "first_429_after_s", serialize_with = "maybe_seconds")]
    first_429_after: Option<Duration>,
    /// From when on there was no order any more that was not turned away.
    #[serde(rename = "only_refused_after_s", serialize_with = "maybe_seconds")]
    only_refused_after: Option<Duration>,
    /// What the shop's list of those who are cut off said; none when it did not name the flooder, or was not asked.
    pub(crate) cut_off: Option<Listed>,
    /// Why the shop's list could not be read.
    pub(crate) list_unreadable: Option<String>,
    pub(crate) coffees: Coffees,
}

/// The coffees that the flooder got.
#[derive(Debug, Serialize)]
pub(crate) struct Coffees {
    pub(crate) served: u64,
    /// Of these, those that were begun after the cut-off, by the shop's own times; none when there was no cut-off.
    pub(crate) started_after_cut_off: Option<u64>,
    #[serde(rename = "last_started_after_s", serialize_with = "maybe_seconds")]
    last_started_after: Option<Duration>,
    #[serde(rename = "last_served_after_s", serialize_with = "maybe_seconds")]
    pub(crate) last_served_after: Option<Duration>,
}

impl Deeds {
    /// `visits` are the orders that were sent. `listed` is what the shop's list said, if it was asked.
    pub(crate) fn of(
        flooder: &Flooder,
        begun: Beginning,
        visits: &[Visit],
        listed: Option<Result<Option<Listed>, Failure>>,
    ) -> Self {
        let was_asked = listed.is_some();
        let (cut_off, list_unreadable) = match listed.transpose() {
            Ok(listed) => (listed.flatten(), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        let first_429_after = visits
            .iter()
            .filter(|visit| visit.ending == Ending::Answered(StatusCode::TOO_MANY_REQUESTS))
            .map(|visit| visit.arrived + visit.wait)
            .min();
        let last_admitted = visits.iter().filter(|visit| is_admitted(visit.ending));
        let last_admitted = last_admitted.map(|visit| visit.arrived).max();
        let only_refused_after =
            first_429_after.map(|first| first.max(last_admitted.unwrap_or_default()));
        let reckoned = if was_asked {
            cut_off.map(|listed| listed.after)
        } else {
            only_refused_after
        };
        let coffees = Coffees::of(begun, visits, reckoned);
        Self {
            from: flooder.from,
            shop_reached: visits.iter().any(|visit| is_reached(visit.ending)),
            orders: flooder.orders,
            sent: as_u64(visits.len()),
            endings: Endings::of(visits),
            first_429_after,
            only_refused_after,
            cut_off,
            list_unreadable,
            coffees,
        }
    }
}

impl Coffees {
    fn of(begun: Beginning, visits: &[Visit], cut_off: Option<Duration>) -> Self {
        let served = visits.iter().filter(|visit| visit.ending.is_served());
        let started: Vec<_> = served
            .clone()
            .filter_map(|visit| visit.receipt.started_at)
            .map(|moment| begun.until(moment))
            .collect();
        let after = |cut_off| as_u64(started.iter().filter(|start| **start > cut_off).count());
        let last_served_after = served.clone().map(|visit| visit.arrived + visit.wait).max();
        Self {
            served: as_u64(served.count()),
            started_after_cut_off: cut_off.map(after),
            last_started_after: started.iter().max().copied(),
            last_served_after,
        }
    }
}

/// Whether there was a connection at least.
fn is_reached(ending: Ending) -> bool {
    !matches!(ending, Ending::Failed(error) if error.is_of_connecting())
}

/// Whether the order was brewed, or could still have been.
fn is_admitted(ending: Ending) -> bool {
    ending.is_served() || ending == Ending::Unanswered
}

impl Deeds {
    /// How it ended for the flooder, in a sentence.
    pub(crate) fn verdict(&self) -> String {
        match (&self.cut_off, &self.list_unreadable) {
            (Some(listed), _) => {
                let after = spoken(listed.after);
                format!("The flooder was cut off {after} after the first order.")
            }
            (None, Some(why)) => {
                format!("Whether the flooder was cut off cannot be told, GET /flood: {why}.")
            }
            (None, None) => match self.only_refused_after {
                Some(after) => {
                    let after = spoken(after);
                    format!("The flooder was only refused from {after} after the first order on.")
                }
                None => "The flooder was never refused.".to_owned(),
            },
        }
    }
}

impl Deeds {
    pub(crate) fn part(&self) -> Part {
        let title = format!("Flooder, {} orders from {}", self.orders, self.from);
        let mut part = Part::of("flooder", self)
            .section(title)
            .rows_of(&self.endings.tally)
            .note("unanswered when stopped", self.endings.unanswered)
            .note(
                "not yet sent when stopped",
                u64::from(self.orders) - self.sent,
            );
        let times = [
            ("first 429 after", self.first_429_after),
            ("only refused after", self.only_refused_after),
            (
                "listed as cut off after",
                self.cut_off.map(|listed| listed.after),
            ),
            ("last coffee started after", self.coffees.last_started_after),
        ];
        for (label, after) in times {
            if let Some(after) = after {
                part = part.row(label, spoken(after));
            }
        }
        if let Some(refused) = self.cut_off.and_then(|listed| listed.refused_by_shop) {
            part = part.row("refused by the shop itself", refused);
        }
        part = part.row("coffees served", self.coffees.served);
        match self.coffees.started_after_cut_off {
            Some(started) => part.row("  started after the cut-off", started),
            None => part,
        }
    }

    pub(crate) fn answers(&self) -> &Tally {
        &self.endings.tally
    }

    /// What happened when in a run in which the flooder came at this time.
    pub(crate) fn times(&self, came: Duration) -> FloodTimes {
        FloodTimes {
            came: Some(came),
            cut_off: self.cut_off.map(|listed| came + listed.after),
            last_coffee: self.coffees.last_served_after.map(|after| came + after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flood::{Connections, Manner},
        shop::Receipt,
        visits::tests::SERVED,
    };

    const REFUSED: Ending = Ending::Answered(StatusCode::TOO_MANY_REQUESTS);

    fn listed(after_ms: u64) -> Listed {
        Listed {
            after: Duration::from_millis(after_ms),
            until: Timestamp::UNIX_EPOCH,
            refused_by_shop: Some(9),
        }
    }

    /// An order sent and answered at these milliseconds of the flood.
    fn order(sent_ms: u64, answered_ms: u64, ending: Ending) -> Visit {
        Visit {
            group: 0,
            arrived: Duration::from_millis(sent_ms),
            wait: Duration::from_millis(answered_ms - sent_ms),
            ending,
            receipt: Receipt::default(),
        }
    }

    fn coffee(begun: Beginning, sent_ms: u64, started_ms: u64) -> Visit {
        let mut visit = order(sent_ms, started_ms + 400, SERVED);
        visit.receipt.started_at = Some(begun.by_clock + Duration::from_millis(started_ms));
        visit
    }

    fn deeds(
        orders: &[Visit],
        begun: Beginning,
        listed: Option<Result<Option<Listed>, Failure>>,
    ) -> Deeds {
        let flooder = Flooder {
            shop: "http://127.0.0.1:8000".parse().unwrap(),
            from: Ipv4Addr::new(127, 0, 66, 6),
            orders: 5000,
            at_once: 5000,
            connections: Connections::New,
            manner: Manner::Plain,
            pause: Duration::ZERO,
        };
        Deeds::of(&flooder, begun, orders, listed)
    }

    #[tokio::test]
    async fn coffees_are_told_by_whether_they_were_started_before_the_cut_off() {
        let begun = Beginning::now();
        let orders = [
            coffee(begun, 0, 50),
            order(1, 90, REFUSED),
            coffee(begun, 2, 80),
            coffee(begun, 3, 150),
            order(200, 210, REFUSED),
        ];
        let deeds_seen = |listed| deeds(&orders, begun, listed);
        let of_list = deeds_seen(Some(Ok(Some(listed(100)))));
        assert_eq!(of_list.coffees.served, 3);
        assert_eq!(of_list.coffees.started_after_cut_off, Some(1));
        let last = of_list.coffees.last_started_after;
        assert_eq!(last, Some(Duration::from_millis(150)));
        assert_eq!(
            of_list.verdict(),
            "The flooder was cut off 100 ms after the first order."
        );
        // Not named by the list: there was no cut-off to count from.
        let unnamed = deeds_seen(Some(Ok(None)));
        assert_eq!(unnamed.coffees.started_after_cut_off, None);
        // Not looked up: the flooder's own answers are used.
        assert_eq!(deeds_seen(None).coffees.started_after_cut_off, Some(1));
        let unanswered = deeds_seen(Some(Err(Failure::Status(StatusCode::NOT_FOUND))));
        assert_eq!(
            unanswered.verdict(),
            "Whether the flooder was cut off cannot be told, GET /flood: 404 Not Found."
        );
    }

    #[tokio::test]
    async fn only_refused_counts_from_the_last_order_that_was_not() {
        let begun = Beginning::now();
        let from = |orders: &[Visit]| deeds(orders, begun, None).only_refused_after;
        let at = |ms| Some(Duration::from_millis(ms));
        assert_eq!(from(&[order(0, 400, SERVED)]), None);
        let at_once = [order(0, 400, SERVED), order(1, 60, REFUSED)];
        assert_eq!(from(&at_once), at(60));
        let in_between = [order(0, 5, REFUSED), order(70, 400, SERVED)];
        assert_eq!(from(&in_between), at(70));
        let still_in_line = [order(0, 5, REFUSED), order(80, 99, Ending::Unanswered)];
        assert_eq!(from(&still_in_line), at(80));
    }
}
