//! The state of every desk, as it is on the wire. All times are the server's; ages and durations are in milliseconds, so that no
//! client compares its clock with ours.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use crate::assignments::model::{DriverCounts, DriverId, Status};
use crate::assignments::service::Day;
use crate::couriers::model::ZoneSummary;
use crate::deliveries::model::{Counts, Delivery};
use crate::flood::Blocked;
use crate::flood::config::Mode;
use crate::http::engines::EngineState;
use crate::http::recent::Recorded;
use crate::orders::metrics::Rates;
use crate::orders::routes::LineState;
use crate::packages::model::Statistics;
use crate::values::time::Moment;
use crate::values::window::SLOT;

/// Most deliveries, drivers and addresses of a list.
pub const LISTED_MAX: usize = 50;
/// Most problems of a state.
pub const PROBLEMS_MAX: usize = 20;

/// The state of every desk. A desk that does not answer is missing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Overview)]
pub struct State {
    #[schema(value_type = String, format = DateTime)]
    pub now: Moment,
    /// As `GET /line` shows it, and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub line: Option<Line>,
    pub rates: LineRates,
    pub flood: FloodFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub deliveries: Option<DeliveryFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub packages: Option<PackageFigures>,
    /// Of today (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<PlanFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub couriers: Option<Vec<ZoneFigures>>,
    /// Those that are down first.
    pub engines: Vec<EngineState>,
    /// The newest first.
    pub problems: Vec<Recorded>,
}

pub(super) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since then; none before it.
pub(super) fn age(at: Timestamp, now: Timestamp) -> u64 {
    Duration::try_from(now.duration_since(at)).map_or(0, in_ms)
}

/// The order line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewLine)]
pub struct Line {
    #[serde(flatten)]
    #[schema(inline)]
    shown: LineState,
    /// Requests held by this server.
    held: usize,
    /// A customer who waits longer is late, ...
    late_ms: u64,
    /// ... and very late.
    very_late_ms: u64,
}

impl Line {
    pub(super) fn new(shown: LineState, held: usize, [late, very_late]: [Duration; 2]) -> Self {
        Self {
            shown,
            held,
            late_ms: in_ms(late),
            very_late_ms: in_ms(very_late),
        }
    }
}

/// What this server did in the last ten minutes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewRates)]
pub struct LineRates {
    /// Seconds of one slot.
    #[schema(example = 10)]
    slot_s: u64,
    /// Orders placed, the oldest slot first; the last is not over yet.
    #[schema(value_type = Vec<u32>)]
    placed: Vec<u32>,
    /// Leases granted.
    started: Vec<u32>,
    /// Orders finished.
    finished: Vec<u32>,
    /// Times in line of the finished orders; missing without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    wait: Option<Percentiles>,
    /// The same of the brewing times.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    brew: Option<Percentiles>,
}

impl From<Rates> for LineRates {
    fn from(rates: Rates) -> Self {
        Self {
            slot_s: SLOT.as_secs(),
            placed: rates.placed.into(),
            started: rates.started.into(),
            finished: rates.finished.into(),
            wait: rates.wait.map(Percentiles::from),
            brew: rates.brew.map(Percentiles::from),
        }
    }
}

/// Durations that so many percent do not exceed, within a sixteenth.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewPercentiles)]
#[expect(
    clippy::struct_field_names,
    reason = "the unit, as in every other name of the API"
)]
struct Percentiles {
    p50_ms: u64,
    p90_ms: u64,
    p99_ms: u64,
}

impl From<[Duration; 3]> for Percentiles {
    fn from(durations: [Duration; 3]) -> Self {
        let [p50_ms, p90_ms, p99_ms] = durations.map(in_ms);
        Self {
            p50_ms,
            p90_ms,
            p99_ms,
        }
    }
}

/// Flood control.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewFlood)]
pub struct FloodFigures {
    /// enforce, observe or off.
    #[schema(value_type = String, example = "enforce")]
    mode: Mode,
    /// Tracked addresses.
    addresses: usize,
    /// Answers 429 of the last ten minutes.
    refused: u64,
    /// How many addresses are blocked.
    blocked_count: usize,
    /// The most refused first, at most 50.
    blocked: Vec<BlockedFigures>,
}

/// A blocked address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewBlocked)]
struct BlockedFigures {
    #[schema(example = "192.0.2.7")]
    address: String,
    #[schema(example = "rate")]
    reason: &'static str,
    #[schema(value_type = String, format = DateTime)]
    until: Moment,
    remaining_ms: u64,
    refused: u64,
}

impl FloodFigures {
    pub(super) fn new(
        mode: Mode,
        addresses: usize,
        refused: u64,
        blocked: Vec<Blocked>,
        now: Timestamp,
    ) -> Self {
        let blocked_count = blocked.len();
        let listed = blocked.into_iter().take(LISTED_MAX);
        Self {
            mode,
            addresses,
            refused,
            blocked_count,
            blocked: listed
                .map(|one| BlockedFigures {
                    address: one.address,
                    reason: one.reason,
                    until: now.checked_add(one.left).unwrap_or(Timestamp::MAX).into(),
                    remaining_ms: in_ms(one.left),
                    refused: one.refused,
                })
                .collect(),
        }
    }
}

/// The drones.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewDeliveries)]
pub struct DeliveryFigures {
    ongoing: u64,
    /// Since the beginning.
    total: u64,
    stale: usize,
    /// Ongoing ones, the longest silent first, at most 50.
    listed: Vec<DeliveryLine>,
}

/// An ongoing delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewDelivery)]
struct DeliveryLine {
    #[schema(example = "drone-7")]
    delivery_id: String,
    #[schema(example = "TAKEN_OFF")]
    state: &'static str,
    events: u32,
    /// Since the latest event.
    silent_ms: u64,
    stale: bool,
}

impl DeliveryFigures {
    pub(super) fn new(
        counts: Counts,
        mut ongoing: Vec<Delivery>,
        stale_after: Duration,
        now: Timestamp,
    ) -> Self {
        let is_stale = |one: &Delivery| one.stale_from(stale_after).is_some_and(|from| from <= now);
        let stale = ongoing.iter().filter(|one| is_stale(one)).count();
        ongoing.sort_by_key(|one| one.updated_at);
        let listed = ongoing.iter().take(LISTED_MAX).map(|one| DeliveryLine {
            delivery_id: one.id.to_string(),
            state: one.state.as_str(),
            events: one.events,
            silent_ms: age(one.updated_at, now),
            stale: is_stale(one),
        });
        Self {
            ongoing: counts.ongoing,
            total: counts.total,
            stale,
            listed: listed.collect(),
        }
    }
}

/// Packages since the beginning.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewPackages)]
pub struct PackageFigures {
    delivered: u64,
    dropped: u64,
    /// Malformed requests.
    rejected: u64,
    by_type: Vec<TypeFigures>,
}

/// Packages of a type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewPackageType)]
struct TypeFigures {
    #[serde(rename = "type")]
    #[schema(example = "personal")]
    name: String,
    delivered: u64,
    dropped: u64,
}

impl From<Statistics> for PackageFigures {
    fn from(statistics: Statistics) -> Self {
        let total = statistics.total();
        let by_type = statistics.by_type.into_iter();
        Self {
            delivered: total.delivered,
            dropped: total.dropped,
            rejected: statistics.rejected,
            by_type: by_type
                .map(|(name, tally)| TypeFigures {
                    name,
                    delivered: tally.delivered,
                    dropped: tally.dropped,
                })
                .collect(),
        }
    }
}

/// A day's assignments.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverviewPlan)]
pub struct PlanFigures {
    #[schema(value_type = String, format = Date)]
    date: Date,
    /// Drivers with packages.
    drivers: usize,
    /// All of their packages.
    held: u32,
    by_status: StatusCounts,
    /// Packages of the day's list without a driver; missing without a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unassigned: Option<usize>,
    /// Of this server's latest plan for the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_per_driver: Option<u32>,
    /// Those with most failures first, then with most packages under way; at most 50.
    listed: Vec<DriverLine>,
}

/// A driver.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OverviewDriver)]
struct DriverLine {
    #[schema(value_type = String, example = "driver_1")]
    driver_id: DriverId,
    held: u32,
    #[serde(flatten)]
    by_status: StatusCounts,
}

/// Packages by status.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = OverviewStatuses)]
struct StatusCounts {
    assigned: u32,
    accepted: u32,
    in_progress: u32,
    delivered: u32,
    failed_to_deliver: u32,
}

impl StatusCounts {
    fn of(counts: &DriverCounts) -> Self {
        Self {
            assigned: counts.of(Status::Assigned),
            accepted: counts.of(Status::Accepted),
            in_progress: counts.of(Status::InProgress),
            delivered: counts.of(Status::Delivered),
            failed_to_deliver: counts.of(Status::FailedToDeliver),
        }
    }

    fn add(&mut self, other: &Self) {
        self.assigned += other.assigned;
        self.accepted += other.accepted;
        self.in_progress += other.in_progress;
        self.delivered += other.delivered;
        self.failed_to_deliver += other.failed_to_deliver;
    }
}

impl From<Day> for PlanFigures {
    fn from(mut day: Day) -> Self {
        let mut by_status = StatusCounts::default();
        let held = day.drivers.iter().map(DriverCounts::held).sum();
        for counts in &day.drivers {
            by_status.add(&StatusCounts::of(counts));
        }
        let drivers = day.drivers.len();
        // Stable: otherwise by name.
        day.drivers.sort_by_key(|counts| {
            let open = counts.held() - counts.of(Status::Delivered);
            std::cmp::Reverse((counts.of(Status::FailedToDeliver), open))
        });
        let listed = day.drivers.into_iter().take(LISTED_MAX);
        let listed = listed.map(|counts| DriverLine {
            held: counts.held(),
            by_status: StatusCounts::of(&counts),
            driver_id: counts.driver,
        });
        Self {
            date: day.date,
            drivers,
            held,
            by_status,
            unassigned: day.unassigned,
            max_per_driver: day.max_per_driver,
            listed: listed.collect(),
        }
    }
}

/// A zone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OverviewZone)]
pub struct ZoneFigures {
    #[schema(example = "S")]
    zone: &'static str,
    available: u64,
    unavailable: u64,
    given: u64,
    /// The least orders of an available courier, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    min: Option<u64>,
    /// ... and the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max: Option<u64>,
    parked: u64,
    /// For how long the longest parked order has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    oldest_parked_ms: Option<u64>,
}

impl ZoneFigures {
    pub(super) fn new(zone: &ZoneSummary, now: Timestamp) -> Self {
        Self {
            zone: zone.zone.as_str(),
            available: zone.available,
            unavailable: zone.unavailable,
            given: zone.given,
            min: zone.least,
            max: zone.most,
            parked: zone.parked,
            oldest_parked_ms: zone.oldest_parked.map(|at| age(at, now)),
        }
    }
}
