//! The desk's use cases; a handle that is cheap to clone.

mod catalogues;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tracing::{error, info};

use self::catalogues::{Catalogues, catalogue_of, unpacked, written};
use super::error::{AssignError, Crowded, Unavailable, UpdateError};
use super::manifest::Manifest;
use super::matching::{self, Cancellation, Cancelled, Catalogue, Explanation};
use super::metrics::Metrics;
use super::model::{
    Change, DriverChange, DriverCounts, DriverId, Filter, Held, Package, PackageId, Place, Plan,
    Status, Update,
};
use super::oplog::{Cause, Entry, Kind, Oplog};
use super::store::{Changed, Listing, Store, Updated, Version};
use super::turns::{self, Turn, Turns, Visit, WAIT_MAX, WAITING_MAX};
use crate::values::backoff::Backoff;

/// Parts of a change that are reported together.
const PARTS_AT_ONCE: usize = 1000;
/// Plans per request while others change the day.
const TRIES: u32 = 8;
/// Between them. The other planner may still be active; without randomness both would collide again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));

#[derive(Debug, Clone)]
pub struct Assignments {
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    store: Arc<dyn Store>,
    oplog: Oplog,
    metrics: Metrics,
    /// Whether a final status stays.
    strict: bool,
    turns: Turns,
    /// A lock per day: two plans for the same day would collide.
    planning: Mutex<HashMap<Date, Arc<tokio::sync::Mutex<()>>>>,
    catalogues: Catalogues,
    /// The latest plan that was stored: its day, and the most packages of one driver.
    planned: Mutex<Option<(Date, u32)>>,
}

/// A request for a plan.
#[derive(Debug, Clone)]
pub struct Request {
    /// In the day's list, or with `reset` holding packages of the day. Not empty.
    pub drivers: BTreeSet<DriverId>,
    /// Most packages of one driver that day.
    pub max_per_driver: u32,
    pub date: Date,
    pub dry_run: bool,
    /// What these drivers have that is still assigned is given up first.
    pub reset: bool,
    pub explain: bool,
}

#[derive(Debug, Clone)]
pub struct Assigned {
    pub plan: Plan,
    /// Why packages stay behind, if requested.
    pub explanation: Option<Explanation>,
}

/// The size of a stored manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestSummary {
    pub date: Date,
    pub drivers: usize,
    pub packages: usize,
}

#[derive(Debug, Clone)]
pub struct Shown {
    /// Equal for equal lists.
    pub version: Version,
    /// `date`, `drivers`, `packages`.
    pub json: Vec<u8>,
}

/// A day's packages by driver.
#[derive(Debug, Clone)]
pub struct Day {
    pub date: Date,
    /// By name; those with packages only.
    pub drivers: Vec<DriverCounts>,
    /// Packages of the day's list without a driver; None without a list.
    pub unassigned: Option<usize>,
    /// Of this process's latest plan, if it was for this day.
    pub max_per_driver: Option<u32>,
}

/// Why a plan must be repeated, or has failed.
enum PlanError {
    Outdated,
    Failed(AssignError),
}

impl From<AssignError> for PlanError {
    fn from(error: AssignError) -> Self {
        Self::Failed(error)
    }
}

impl From<Crowded> for PlanError {
    fn from(crowded: Crowded) -> Self {
        Self::Failed(crowded.into())
    }
}

impl From<Unavailable> for PlanError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Failed(unavailable.into())
    }
}

impl Assignments {
    /// If `strict`, a final status stays.
    pub fn new(store: Arc<dyn Store>, oplog: Oplog, metrics: Metrics, strict: bool) -> Self {
        let desk = Desk {
            store,
            oplog,
            turns: Turns::new(turns::at_once(), WAITING_MAX, metrics.clone()),
            metrics,
            strict,
            planning: Mutex::default(),
            catalogues: Catalogues::default(),
            planned: Mutex::default(),
        };
        Self {
            desk: Arc::new(desk),
        }
    }

    /// Replaces a day's manifest.
    ///
    /// # Errors
    /// See [`Unavailable`]; a retry is safe.
    pub async fn store_manifest(
        &self,
        date: Date,
        manifest: Manifest,
    ) -> Result<ManifestSummary, Unavailable> {
        let (visit, turn) = self.take_turn().await?;
        let prepared = turn.run(move |_| {
            let stored = written(date, &manifest);
            Ok(stored.map(|stored| (stored, Catalogue::new(manifest))))
        });
        let (stored, catalogue) = prepared.await?.map_err(|error| failed(&error))?;
        drop(visit);
        let version = stored.version;
        self.desk.store.store_manifest(date, stored).await?;
        let (drivers, packages) = (catalogue.drivers().len(), catalogue.packages());
        info!(%date, drivers, packages, "a manifest was stored");
        let catalogues = &self.desk.catalogues;
        catalogues.put(date, version, Arc::new(catalogue));
        Ok(ManifestSummary {
            date,
            drivers,
            packages,
        })
    }

    /// # Errors
    /// See [`Unavailable`].
    pub async fn manifest(&self, date: Date) -> Result<Option<Shown>, Unavailable> {
        let Some(stored) = self.desk.store.manifest(date).await? else {
            return Ok(None);
        };
        let version = stored.version;
        let (_visit, turn) = self.take_turn().await?;
        let json = turn.run(move |_| Ok(unpacked(&stored))).await?;
        let json = json.map_err(|error| failed(&error))?;
        Ok(Some(Shown { version, json }))
    }

    /// Plans a day, and assigns its packages. Earlier assignments stay; idempotent. `cause` goes into the operational log. Dropping
    /// the future cancels the plan, unless it is being stored already.
    ///
    /// # Errors
    /// See [`AssignError`].
    pub async fn assign(
        &self,
        mut request: Request,
        cause: impl Into<Cause>,
    ) -> Result<Assigned, AssignError> {
        if !self.desk.store.is_healthy() {
            // Do not queue for an engine that is down.
            return Err(Unavailable::Engine.into());
        }
        let cause = cause.into();
        let visit = self.desk.turns.enter()?;
        let catalogue = self.catalogue(request.date, &visit).await?;
        let leavers = self.take_leavers(&mut request, &catalogue).await?;
        let turn = self.turn(request.date);
        // A dry run collides with no other plan.
        let turn = if request.dry_run {
            None
        } else {
            let turn = tokio::time::timeout(WAIT_MAX, turn.lock_owned()).await;
            Some(turn.map_err(|_| Crowded)?)
        };
        let request = Arc::new(request);
        let mut backoff = BACKOFF;
        for _ in 0..TRIES {
            let tried = self.try_assign(&visit, &catalogue, &request, &leavers, &cause);
            match tried.await {
                Ok(planned) => {
                    if !request.dry_run {
                        *self.planned() = Some((request.date, request.max_per_driver));
                    }
                    drop(turn);
                    return with_explanation(planned, &visit, &catalogue, request.explain).await;
                }
                Err(PlanError::Failed(error)) => return Err(error),
                Err(PlanError::Outdated) => {
                    self.desk.metrics.conflicted();
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
        Err(Unavailable::Busy.into())
    }

    /// Removes drivers who are not in the day's list from the request, and returns them: they get no packages, but a reset
    /// frees those that they hold.
    async fn take_leavers(
        &self,
        request: &mut Request,
        catalogue: &Catalogue,
    ) -> Result<Vec<DriverId>, AssignError> {
        let (known, unlisted): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut request.drivers)
            .into_iter()
            .partition(|driver| catalogue.has_driver(driver));
        request.drivers = known;
        let mut holders = HashSet::new();
        if request.reset && !unlisted.is_empty() {
            let held = self.desk.store.held(request.date).await?;
            holders.extend(held.into_iter().map(|held| held.driver));
        }
        let (leavers, unknown): (Vec<_>, Vec<_>) = unlisted
            .into_iter()
            .partition(|driver| holders.contains(driver));
        if unknown.is_empty() {
            Ok(leavers)
        } else {
            Err(AssignError::UnknownDrivers(unknown))
        }
    }

    async fn try_assign(
        &self,
        visit: &Visit,
        catalogue: &Arc<Catalogue>,
        request: &Arc<Request>,
        leavers: &[DriverId],
        cause: &Cause,
    ) -> Result<matching::Planned, PlanError> {
        let date = request.date;
        let turn = visit.turn().await?;
        let mut held = self.desk.store.held(date).await?;
        let mut returned = HashSet::new();
        if request.reset {
            let drivers = request.drivers.iter().chain(leavers).cloned().collect();
            returned.extend(self.desk.store.still_assigned(date, drivers).await?);
        }
        let mut counts: BTreeMap<DriverId, u32> = BTreeMap::new();
        for Held { driver, .. } in &held {
            *counts.entry(driver.clone()).or_default() += 1;
        }
        held.retain(|held| !returned.contains(held));
        let (catalogue, asked) = (Arc::clone(catalogue), Arc::clone(request));
        let kept_by = |leaver: &DriverId| {
            let packages = held.iter().filter(|held| held.driver == *leaver);
            let mut packages: Vec<PackageId> = packages.map(|held| held.package.clone()).collect();
            packages.sort_unstable();
            (leaver.clone(), packages)
        };
        let of_leavers: Vec<_> = leavers.iter().map(kept_by).collect();
        let planned =
            turn.run(move |cancellation| planned(&catalogue, &asked, &held, cancellation));
        let (mut planned, took) = planned.await?;
        planned.plan.assignments.extend(of_leavers);
        self.desk.metrics.planned(took);
        if !request.dry_run {
            let given = std::mem::take(&mut planned.given);
            let change = difference(date, &counts, returned, given);
            self.store_change(change, cause).await?;
        }
        Ok(planned)
    }

    /// Stores a change, and reports every stored part. Completes even if the client leaves.
    async fn store_change(&self, change: Change, cause: &Cause) -> Result<(), PlanError> {
        if change.drivers.is_empty() {
            return Ok(());
        }
        let (desk, cause) = (Arc::clone(&self.desk), cause.clone());
        let keeping = tokio::spawn(async move {
            let (at, reporter) = (change.at, Arc::clone(&desk));
            // Reported while it is stored: a change of many parts takes a while.
            let on_stored = move |parts: &[DriverChange]| {
                for parts in parts.chunks(PARTS_AT_ONCE) {
                    reporter.report(at, &cause, parts);
                }
            };
            desk.store.change(change, Arc::new(on_stored)).await
        });
        match keeping.await.unwrap_or(Err(Unavailable::Failed))? {
            Changed::Outdated => Err(PlanError::Outdated),
            Changed::Done => Ok(()),
        }
    }

    /// Updates a package's status.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub async fn update(
        &self,
        driver: DriverId,
        package: PackageId,
        status: Status,
        cause: impl Into<Cause>,
    ) -> Result<Updated, UpdateError> {
        let update = Update {
            driver,
            package,
            status,
            strict: self.desk.strict,
            at: now(),
        };
        let (desk, cause) = (Arc::clone(&self.desk), cause.into());
        // Reported even if the client leaves.
        let updating = tokio::spawn(async move {
            let updated = desk.store.update(update).await;
            let updated = updated
                .map_err(UpdateError::from)
                .and_then(|updated| Ok(updated?));
            desk.metrics.updated(updated.as_ref().map(|_| status));
            if let Ok(updated) = &updated {
                desk.oplog.note(vec![Entry {
                    at: updated.assignment.updated_at,
                    cause,
                    kind: Kind::Update,
                    driver: updated.assignment.driver.clone(),
                    package: updated.assignment.package.id.clone(),
                    from: Some(updated.from),
                    to: Some(status),
                }]);
            }
            updated
        });
        updating
            .await
            .unwrap_or(Err(UpdateError::Unavailable(Unavailable::Failed)))
    }

    /// Matching assignments after a cursor, at most `limit`.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Listing, Unavailable> {
        self.desk.store.list(filter, after, limit).await
    }

    /// A day's packages by driver and status.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn day(&self, date: Date) -> Result<Day, Unavailable> {
        let drivers = self.desk.store.counts(date).await?;
        let visit = self
            .desk
            .turns
            .enter()
            .map_err(|Crowded| Unavailable::Busy)?;
        let unassigned = match self.catalogue(date, &visit).await {
            Ok(catalogue) => {
                let held = self.desk.store.held(date).await?;
                let listed = held
                    .iter()
                    .filter(|held| catalogue.has_package(&held.package));
                Some(catalogue.packages().saturating_sub(listed.count()))
            }
            Err(AssignError::NoManifest(_) | AssignError::UnknownDrivers(_)) => None,
            Err(AssignError::Crowded(_)) => return Err(Unavailable::Busy),
            Err(AssignError::Unavailable(unavailable)) => return Err(unavailable),
        };
        let planned = *self.planned();
        Ok(Day {
            date,
            drivers,
            unassigned,
            max_per_driver: planned.filter(|(of, _)| *of == date).map(|(_, most)| most),
        })
    }

    fn planned(&self) -> MutexGuard<'_, Option<(Date, u32)>> {
        let planned = self.desk.planned.lock();
        planned.unwrap_or_else(PoisonError::into_inner)
    }

    /// The day's catalogue, from the cache or the store.
    async fn catalogue(&self, date: Date, visit: &Visit) -> Result<Arc<Catalogue>, AssignError> {
        let missing = AssignError::NoManifest(date);
        let version = self.desk.store.manifest_version(date).await?;
        let version = version.ok_or(missing.clone())?;
        let catalogues = &self.desk.catalogues;
        if let Some(catalogue) = catalogues.get(date, version) {
            return Ok(catalogue);
        }
        let turn = visit.turn().await?;
        // Another request may have cached it while this one waited.
        if let Some(catalogue) = catalogues.get(date, version) {
            return Ok(catalogue);
        }
        let stored = self.desk.store.manifest(date).await?.ok_or(missing)?;
        let version = stored.version;
        let catalogue = turn.run(move |_| Ok(catalogue_of(&stored)));
        let catalogue = catalogue.await?.map_err(|error| failed(&error))?;
        catalogues.put(date, version, Arc::clone(&catalogue));
        Ok(catalogue)
    }

    /// A turn for one piece of work that is not a plan.
    async fn take_turn(&self) -> Result<(Visit, Turn), Unavailable> {
        let busy = |Crowded| Unavailable::Busy;
        let visit = self.desk.turns.enter().map_err(busy)?;
        let turn = visit.turn().await.map_err(busy)?;
        Ok((visit, turn))
    }

    fn turn(&self, date: Date) -> Arc<tokio::sync::Mutex<()>> {
        let mut planning = self
            .desk
            .planning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Drops the locks that no request holds or waits for.
        planning.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(planning.entry(date).or_default())
    }
}

impl Desk {
    /// Counts the stored parts of a change, and writes them to the operational log.
    fn report(&self, at: Timestamp, cause: &Cause, stored: &[DriverChange]) {
        let assigned = Some(Status::Assigned);
        let entry = |driver: &DriverId, package: &PackageId, kind, from, to| Entry {
            at,
            cause: cause.clone(),
            kind,
            driver: driver.clone(),
            package: package.clone(),
            from,
            to,
        };
        let mut entries = Vec::new();
        for part in stored {
            let driver = &part.driver;
            let up = part.given_up.iter();
            entries.extend(up.map(|package| entry(driver, package, Kind::GiveUp, assigned, None)));
            let new = part.given.iter().map(|package| &package.id);
            entries.extend(new.map(|package| entry(driver, package, Kind::Assign, None, assigned)));
        }
        let given = stored.iter().map(|part| part.given.len()).sum();
        self.metrics.changed(given, entries.len() - given);
        self.oplog.note(entries);
    }
}

/// In UTC.
pub fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// As precise as the stores.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn failed(error: &io::Error) -> Unavailable {
    error!(%error, "a stored manifest cannot be read or written");
    Unavailable::Failed
}

fn planned(
    catalogue: &Catalogue,
    request: &Request,
    held: &[Held],
    cancellation: &Cancellation,
) -> Result<(matching::Planned, Duration), Cancelled> {
    let begun = Instant::now();
    let Request {
        drivers,
        max_per_driver,
        ..
    } = request;
    let asked = matching::Request {
        drivers,
        max_per_driver: *max_per_driver,
        held,
    };
    let planned = matching::plan(catalogue, &asked, cancellation)?;
    Ok((planned, begun.elapsed()))
}

/// A plan with its explanation, if requested.
async fn with_explanation(
    mut planned: matching::Planned,
    visit: &Visit,
    catalogue: &Arc<Catalogue>,
    explain: bool,
) -> Result<Assigned, AssignError> {
    let plan = std::mem::take(&mut planned.plan);
    let explanation = if explain {
        let catalogue = Arc::clone(catalogue);
        let turn = visit.turn().await?;
        Some(turn.run(move |_| planned.explain(&catalogue)).await?)
    } else {
        None
    };
    Ok(Assigned { plan, explanation })
}

/// What must be given up and assigned. A package that goes back to its driver is in neither.
fn difference(
    date: Date,
    counts: &BTreeMap<DriverId, u32>,
    mut returned: HashSet<Held>,
    given: BTreeMap<DriverId, Vec<Package>>,
) -> Change {
    let mut changes: BTreeMap<DriverId, DriverChange> = BTreeMap::new();
    let change = |driver: &DriverId| DriverChange {
        driver: driver.clone(),
        held_before: counts.get(driver).copied().unwrap_or_default(),
        given_up: Vec::new(),
        given: Vec::new(),
    };
    for (driver, mut given) in given {
        given.retain(|package| {
            let again = Held {
                driver: driver.clone(),
                package: package.id.clone(),
            };
            !returned.remove(&again)
        });
        if !given.is_empty() {
            changes.insert(
                driver.clone(),
                DriverChange {
                    given,
                    ..change(&driver)
                },
            );
        }
    }
    let mut returned: Vec<Held> = returned.into_iter().collect();
    returned.sort_unstable();
    for Held { driver, package } in returned {
        let of_driver = changes
            .entry(driver.clone())
            .or_insert_with(|| change(&driver));
        of_driver.given_up.push(package);
    }
    Change {
        date,
        at: now(),
        drivers: changes.into_values().collect(),
    }
}

#[cfg(test)]
mod tests;
