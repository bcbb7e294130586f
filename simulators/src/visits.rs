//! What became of each customer, and the figures drawn from it.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    connection::TransportError,
    outcome::{Part, status_name},
    pace::{Span, Speed},
    plot::{Distribution, Horizontal, Kind, Mark, Marks, Panel},
    shop::Receipt,
    tally::{Latencies, Rate, Tally, Waits, as_f64, as_u64},
};

/// More groups than this are not named: their names would touch.
const GROUPS_NAMED_MAX: usize = 12;

/// How a customer's visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The shop answered, with this status.
    Answered(StatusCode),
    /// There was no complete answer.
    Failed(TransportError),
    /// The run was stopped while the customer was waiting.
    Unanswered,
}

impl Ending {
    /// The one ending that customers accept.
    pub(crate) fn is_served(self) -> bool {
        self == Self::Answered(StatusCode::OK)
    }

    fn kind(self) -> Kind {
        match self {
            served if served.is_served() => Kind::Served,
            Self::Answered(_) => Kind::Refused,
            Self::Failed(_) => Kind::Failed,
            Self::Unanswered => Kind::Unanswered,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Answered(status) => status_name(status.as_u16()),
            Self::Failed(error) => error.to_string(),
            Self::Unanswered => "unanswered".to_owned(),
        }
    }
}

/// One customer's visit. Times are measured, not simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// The customer's group, from 1.
    pub(crate) group: u32,
    /// When the customer was due, since the start of the run.
    pub(crate) arrived: Duration,
    /// From being due to the whole answer, the failure, or the end of the run. Counting from the due time and not
    /// from the first byte sent keeps a slow simulator from flattering the shop.
    pub(crate) wait: Duration,
    pub(crate) ending: Ending,
    pub(crate) receipt: Receipt,
}

/// How visits ended, by count.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Endings {
    #[serde(skip)]
    served: u64,
    pub(crate) unanswered: u64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

impl Endings {
    pub(crate) fn of(visits: &[Visit]) -> Self {
        let mut endings = Self::default();
        let tally = &mut endings.tally;
        for visit in visits {
            endings.served += u64::from(visit.ending.is_served());
            *match visit.ending {
                Ending::Answered(status) => tally.by_status.entry(status.as_u16()).or_default(),
                Ending::Failed(error) => tally
                    .by_transport_error
                    .entry(error.to_string())
                    .or_default(),
                Ending::Unanswered => &mut endings.unanswered,
            } += 1;
        }
        endings
    }
}

/// The customers' part of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) arrived: u64,
    /// Customers of the plan who had not come yet when the run was stopped.
    not_arrived: u64,
    pub(crate) served: u64,
    #[serde(flatten)]
    endings: Endings,
    /// Waiting times of the served; none when no customer was served.
    waits: Option<Waits>,
    /// From the first arrival to the last answer.
    busy: Span,
    served_per_s: Rate,
    /// Customers started before one who had ordered earlier, by the shop's own times; none when it gives none.
    out_of_turn: Option<u64>,
}

impl Summary {
    /// `planned` is the number of customers that were to come.
    pub(crate) fn of(visits: &[Visit], planned: usize, speed: Speed) -> Self {
        let endings = Endings::of(visits);
        let first = visits.iter().map(|visit| visit.arrived).min();
        let last = visits.iter().map(|visit| visit.arrived + visit.wait).max();
        let first = first.unwrap_or_default();
        let busy = last.unwrap_or_default().saturating_sub(first);
        Self {
            arrived: as_u64(visits.len()),
            not_arrived: as_u64(planned.saturating_sub(visits.len())),
            served: endings.served,
            waits: waits(visits, speed),
            busy: Span::new(busy, speed),
            served_per_s: Rate::of(endings.served, busy, speed),
            out_of_turn: out_of_turn(visits),
            endings,
        }
    }

    /// Whether every customer who came got a 200.
    pub(crate) fn all_served(&self) -> bool {
        self.served == self.arrived
    }

    pub(crate) fn part(&self, heading: &str) -> Part {
        let mut part = Part::of("customers", self)
            .section(heading)
            .rows_of(&self.endings.tally)
            .note("unanswered when stopped", self.endings.unanswered)
            .note("not yet come when stopped", self.not_arrived);
        if let Some(out_of_turn) = self.out_of_turn {
            part = part.row("started out of turn", out_of_turn);
        }
        let heading = format!("Waiting time of the {} served", self.served);
        part.table(&heading, self.waits)
            .rate_of_run("served, first arrival to last answer", self.served_per_s)
    }

    /// The verdict. `who` came.
    pub(crate) fn sentence(&self, who: &str) -> String {
        let (arrived, unserved) = (self.arrived, self.arrived - self.served);
        match (arrived, unserved) {
            (0, _) => "Nobody came.".to_owned(),
            (_, 0) => format!("Every {who} got a 200 ({arrived} of {arrived})."),
            _ => format!("{unserved} of {arrived} {who}s did not get a 200."),
        }
    }
}

/// Of the served; none when no customer was served.
pub(crate) fn waits(visits: &[Visit], speed: Speed) -> Option<Waits> {
    let mut latencies = Latencies::default();
    for wait in served_waits(visits) {
        latencies.record(Instant::now(), wait);
    }
    latencies.waits(speed)
}

/// The waiting times of those who got a 200, shortest first.
fn served_waits(visits: &[Visit]) -> Vec<Duration> {
    let served = visits.iter().filter(|visit| visit.ending.is_served());
    let mut waits: Vec<_> = served.map(|visit| visit.wait).collect();
    waits.sort_unstable();
    waits
}

/// Counts those who were started although a customer who had ordered strictly earlier was started strictly later.
/// Orders that were brewed more than once are left out: their last start says nothing about the line.
fn out_of_turn(visits: &[Visit]) -> Option<u64> {
    let is_brewed_once = |visit: &&Visit| visit.receipt.attempts.is_none_or(|times| times == 1);
    let served = visits.iter().filter(|visit| visit.ending.is_served());
    let mut times: Vec<_> = served
        .filter(is_brewed_once)
        .filter_map(|visit| visit.receipt.placed_at.zip(visit.receipt.started_at))
        .collect();
    // Orders placed within the clock's resolution of each other have no order to keep.
    times.sort_unstable();
    let mut latest_start = times.first()?.1;
    let mut overtakers = 0;
    for together in times.chunk_by(|a, b| a.0 == b.0) {
        let starts = together.iter().map(|(_, started)| *started);
        overtakers += starts.clone().filter(|start| *start < latest_start).count();
        latest_start = starts.fold(latest_start, Ord::max);
    }
    Some(as_u64(overtakers))
}

/// Each customer by order of arrival; `which` run it is, if there are several.
pub(crate) fn by_arrival(
    visits: &[Visit],
    which: &str,
    moments: &[(Duration, &'static str)],
) -> Panel {
    let place = |number: usize| as_f64(as_u64(number));
    let points = visits.iter().enumerate().map(|(index, visit)| Mark {
        place: place(index) + 0.5,
        wait: visit.wait,
        kind: visit.ending.kind(),
        tip: format!(
            "customer {} of group {}: {} after",
            index + 1,
            visit.group,
            visit.ending.words()
        ),
    });
    let before = |moment| visits.partition_point(|visit| visit.arrived < moment);
    let moments = moments.iter();
    let is_noted = visits.iter().any(|visit| visit.receipt.placed_at.is_some());
    let mut panel = Marks {
        title: format!("Waiting time by order of arrival{which}"),
        note: is_noted
            .then_some("Those who came at once stand in the order in which the shop noted them."),
        horizontal: Horizontal::Arrivals(visits.len()),
        points: points.collect(),
        bounds: Vec::new(),
        names: Vec::new(),
        moments: moments
            .map(|(moment, happening)| (place(before(*moment)), *happening))
            .collect(),
    };
    let groups: Vec<_> = visits.chunk_by(|a, b| a.group == b.group).collect();
    // Where the groups came one after the other.
    if groups.len() > 1 && groups.is_sorted_by(|a, b| a[0].group < b[0].group) {
        let mut begin = 0;
        for group in &groups {
            if begin > 0 {
                panel.bounds.push(place(begin));
            }
            if groups.len() <= GROUPS_NAMED_MAX {
                let middle = place(begin) + place(group.len()) / 2.0;
                panel
                    .names
                    .push((middle, format!("group {}", group[0].group)));
            }
            begin += group.len();
        }
    }
    Panel::Marks(panel)
}

/// The distribution of the waiting times, and faintly behind it that of a run without the flood.
pub(crate) fn distribution(visits: &[Visit], without_flood: Option<&[Visit]>) -> Panel {
    Panel::Distribution(Distribution {
        title: "Distribution of the waiting times of the served".to_owned(),
        note: without_flood.map(|_| "The faint curve is the run without the flood."),
        share: "share of the served who waited no longer",
        waits: served_waits(visits),
        behind: without_flood.map(served_waits),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::Timestamp;

    use super::*;

    pub(crate) fn visit(wait_ms: u64, ending: Ending) -> Visit {
        Visit {
            group: 1,
            arrived: Duration::ZERO,
            wait: Duration::from_millis(wait_ms),
            ending,
            receipt: Receipt::default(),
        }
    }

    pub(crate) const SERVED: Ending = Ending::Answered(StatusCode::OK);

    fn receipt(placed_s: i64, started_s: i64, attempts: u32) -> Visit {
        Visit {
            receipt: Receipt {
                placed_at: Some(Timestamp::from_second(placed_s).unwrap()),
                started_at: Some(Timestamp::from_second(started_s).unwrap()),
                attempts: Some(attempts),
            },
            ..visit(1, SERVED)
        }
    }

    #[test]
    fn every_ending_is_counted_once_and_only_a_200_is_served() {
        let late = Visit {
            arrived: Duration::from_secs(6),
            ..visit(2_000, Ending::Answered(StatusCode::ACCEPTED))
        };
        let visits = [
            visit(10, SERVED),
            visit(10, SERVED),
            visit(10, Ending::Failed(TransportError::Reset)),
            visit(10, Ending::Unanswered),
            late,
        ];
        let summary = Summary::of(&visits, 7, "10".parse().unwrap());
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!((summary.arrived, summary.not_arrived), (5, 2));
        assert_eq!(summary.served, 2);
        assert_eq!(json["by_status"]["202"], 1);
        assert_eq!(json["by_transport_error"]["connection reset"], 1);
        assert_eq!(json["unanswered"], 1);
        assert!(!summary.all_served());
        // From the first arrival to the last answer.
        assert_eq!(summary.busy.measured, Duration::from_secs(8));
        assert!((summary.served_per_s.simulated - 0.025).abs() < 1e-9);
        let expected = "3 of 5 regulars did not get a 200.";
        assert_eq!(summary.sentence("regular"), expected);
    }

    #[test]
    fn those_served_out_of_turn_are_found() {
        let in_turn = [receipt(1, 10, 1), receipt(2, 11, 1), receipt(3, 11, 1)];
        assert_eq!(out_of_turn(&in_turn), Some(0));
        let overtaken = [receipt(1, 12, 1), receipt(2, 11, 1), receipt(3, 13, 1)];
        assert_eq!(out_of_turn(&overtaken), Some(1));
        let brewed_again = [receipt(1, 12, 2), receipt(2, 11, 1), receipt(3, 13, 1)];
        assert_eq!(out_of_turn(&brewed_again), Some(0));
        let placed_together = [receipt(1, 12, 1), receipt(1, 11, 1)];
        assert_eq!(out_of_turn(&placed_together), Some(0));
        assert_eq!(out_of_turn(&[visit(1, SERVED)]), None);
    }
}
