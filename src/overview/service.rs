//! Composes the state of every desk.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::state::{
    DeliveryFigures, FloodFigures, Line, PROBLEMS_MAX, PackageFigures, PlanFigures, State,
    ZoneFigures,
};
use crate::assignments::Assignments;
use crate::assignments::service::today;
use crate::couriers::Couriers;
use crate::deliveries::Deliveries;
use crate::flood::Flood;
use crate::http::engines::Engines;
use crate::http::recent::Problems;
use crate::orders::Orders;
use crate::orders::routes::LineState;
use crate::orders::screens::Screens;
use crate::packages::Packages;
use crate::storage::Unavailable;

/// For so long a state is the latest.
pub(super) const STATE_FOR: Duration = Duration::from_secs(1);
/// As long for the day's plan.
const PLAN_FOR: Duration = Duration::from_secs(15);
/// How long a desk may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The desks, and what the server knows of itself.
#[derive(Clone)]
pub struct Sources {
    pub orders: Orders,
    pub screens: Screens,
    pub flood: Flood,
    pub deliveries: Deliveries,
    pub packages: Packages,
    pub assignments: Assignments,
    pub couriers: Couriers,
    pub problems: Problems,
    pub engines: Engines,
    /// From when on a waiting customer is late, and very late.
    pub late: [Duration; 2],
}

/// The state of every desk; cheap to clone.
#[derive(Clone)]
pub struct Overview {
    pub(super) sources: Arc<Sources>,
    latest: Arc<Mutex<Latest>>,
}

#[derive(Default)]
struct Latest {
    state: Option<(Instant, Bytes)>,
    plan: Option<(Instant, Option<PlanFigures>)>,
}

impl fmt::Debug for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overview").finish_non_exhaustive()
    }
}

/// What a desk answers; nothing if it takes too long, or its storage is down.
pub(super) async fn patiently<T>(asked: impl Future<Output = Result<T, Unavailable>>) -> Option<T> {
    timeout(PATIENCE, asked).await.ok()?.ok()
}

impl Overview {
    pub fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            latest: Arc::default(),
        }
    }

    /// The state as JSON, at most a second old.
    pub async fn state(&self) -> Bytes {
        // Others who ask wait for the same state.
        let mut latest = self.latest.lock().await;
        if let Some((at, json)) = &latest.state
            && at.elapsed() < STATE_FOR
        {
            return json.clone();
        }
        let plan = match &latest.plan {
            Some((at, plan)) if at.elapsed() < PLAN_FOR => plan.clone(),
            _ => {
                let plan = self.plan().await;
                latest.plan = Some((Instant::now(), plan.clone()));
                plan
            }
        };
        let state = self.compose(plan).await;
        // Strings, numbers and lists: this cannot fail.
        let json = Bytes::from(serde_json::to_vec(&state).unwrap_or_default());
        latest.state = Some((Instant::now(), json.clone()));
        json
    }

    async fn plan(&self) -> Option<PlanFigures> {
        let day = patiently(self.sources.assignments.day(today())).await?;
        Some(day.into())
    }

    async fn compose(&self, plan: Option<PlanFigures>) -> State {
        let sources = &*self.sources;
        let (survey, ongoing, counts, statistics, zones) = tokio::join!(
            timeout(PATIENCE, sources.screens.survey()),
            patiently(sources.deliveries.ongoing()),
            patiently(sources.deliveries.counts()),
            patiently(sources.packages.statistics()),
            patiently(sources.couriers.zones()),
        );
        let now = Timestamp::now();
        let survey = survey.ok().and_then(Result::ok);
        let line = survey.map(|survey| {
            let shown = LineState::of(&survey, None);
            Line::new(shown, sources.orders.held(), sources.late)
        });
        let deliveries = ongoing.zip(counts).map(|(ongoing, counts)| {
            let (stale_after, now) = (sources.deliveries.stale_after(), sources.deliveries.time());
            DeliveryFigures::new(counts, ongoing, stale_after, now)
        });
        let flood = &sources.flood;
        State {
            now: now.into(),
            line,
            rates: sources.orders.rates().into(),
            flood: FloodFigures::new(
                flood.mode(),
                flood.table().len(),
                sources.problems.refused(),
                flood.blocked(),
                now,
            ),
            deliveries,
            packages: statistics.map(PackageFigures::from),
            plan,
            couriers: zones.map(|zones| {
                let zones = zones.iter();
                zones.map(|zone| ZoneFigures::new(zone, now)).collect()
            }),
            engines: sources.engines.states(),
            problems: sources.problems.latest(PROBLEMS_MAX),
        }
    }
}
