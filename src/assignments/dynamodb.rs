//! Assignments in `DynamoDB`, for several instances at once.
//!
//! ```text
//!   DeliveryAssignments   driver_id | package_id          what list and update read; the index `by_package` is the reverse
//!   DeliveryPackages      <date>#<shard> | package/<id>   the package's driver on that day
//!                         <date>#<shard> | driver/<id>    the driver's number of packages on that day
//!                         <date>#manifest | head          the day's manifest
//!                         <date>#manifest | <upload>/<n>  a piece of it
//!                         <date>#uploads  | <upload>      an upload with pieces
//! ```
//!
//! - **One driver per day.** A package is assigned in the transaction that puts its item into `DeliveryPackages`, on the condition
//!   that there is none. A later planner gets [outdated](Changed::Outdated).
//! - **Optimistic locking.** The same transaction increments the driver's count, on the condition that it is the planner's. Two
//!   planners that assigned different packages to the same driver would exceed `max_per_driver`.
//! - **Not atomic as a whole.** A transaction has at most 100 actions, so a change has many: first all that give up, then all that
//!   assign, with a driver's larger part split. Each transaction is atomic; after a failure the earlier ones stay.
//! - **Shards.** A day's items are spread over [`SHARDS`] partition keys, because one takes a thousand writes a second. There is no
//!   index by status: its five keys would slow down every write. A list by status alone scans the table.
//! - **Lost answers.** Calls are retried ([`Patience`]). Each transaction has a client token, which is also stored in its items: if a
//!   retry is refused after an answer was lost, a read shows whether its own first attempt was committed.
//! - **Overwritten days.** The key of an assignment has no day: after an assignment on another day, earlier or later, a driver's record
//!   of a package is that day's, and `assigned`. The other day still counts it as held, and a reset of that day does not give it up.

mod calls;
mod changes;
mod lists;
mod manifests;
mod tables;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use jiff::civil::Date;

use super::error::{Refusal, Unavailable};
use super::model::{
    Change, DriverCounts, DriverId, Filter, Held, PackageId, Place, Status, Update,
};
use super::store::{Answer, Changed, Listing, OnStored, Store, StoredManifest, Updated, Version};
use crate::storage::State;
use crate::storage::aws::Aws;
use crate::storage::aws::errors::CallError;

pub use calls::Patience;
pub use tables::{
    ASSIGNMENTS, BY_PACKAGE, DRIVER_ID, ITEM, NotProvisioned, PACKAGE_ID, PACKAGES, SHARD, Tables,
    probe, provision,
};
pub use values::SHARDS;

use calls::{Calls, call_error, together};
use tables::{DATE, PREVIOUS_STATUS, STATUS, UPDATED_AT};
use values::{Item, PACKAGE_ITEM, assignment, key, malformed, moment, text, text_of};

/// Concurrent queries per caller.
const QUERIES_AT_ONCE: usize = 16;

/// Cheap to clone.
#[derive(Clone)]
pub struct Dynamodb {
    client: Client,
    tables: Arc<Tables>,
    calls: Calls,
}

impl fmt::Debug for Dynamodb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamodb")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

impl Dynamodb {
    /// The tables must exist. Makes no call.
    pub fn new(aws: &Aws, tables: Tables, patience: Patience) -> Self {
        let client = calls::client(aws);
        let tables = Arc::new(tables);
        let calls = Calls::new(client.clone(), Arc::clone(&tables), patience);
        Self {
            client,
            tables,
            calls,
        }
    }

    async fn all_held(&self, date: Date) -> Result<Vec<Held>, Unavailable> {
        let shards = together(0..SHARDS, QUERIES_AT_ONCE, |shard| {
            let store = self.clone();
            async move { store.held_in(&values::shard(date, shard)).await }
        });
        Ok(shards.await?.concat())
    }

    async fn held_in(&self, shard: &str) -> Result<Vec<Held>, Unavailable> {
        let query = self
            .client
            .query()
            .table_name(&self.tables.packages)
            .consistent_read(true)
            .key_condition_expression("#shard = :shard AND begins_with(#item, :item)")
            .projection_expression("#shard, #item, #driver")
            .expression_attribute_names("#shard", SHARD)
            .expression_attribute_names("#item", ITEM)
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_values(":shard", text(shard))
            .expression_attribute_values(":item", text(PACKAGE_ITEM));
        let items = self.calls.query(query).await?;
        let held = |item: &Item| {
            let package = text_of(item, ITEM).and_then(|text| text.strip_prefix(PACKAGE_ITEM));
            Some(Held {
                driver: DriverId::parse(text_of(item, DRIVER_ID)?)?,
                package: PackageId::parse(package?)?,
            })
        };
        let each = items.iter();
        each.map(|item| held(item).ok_or_else(|| malformed(&self.tables.packages, item)))
            .collect()
    }

    async fn still_assigned_to(
        &self,
        date: Date,
        driver: DriverId,
    ) -> Result<Vec<Held>, Unavailable> {
        let query = self
            .client
            .query()
            .table_name(&self.tables.assignments)
            .consistent_read(true)
            .key_condition_expression("#driver = :driver")
            .filter_expression("#date = :date AND #status = :assigned")
            .projection_expression("#driver, #package")
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_names("#package", PACKAGE_ID)
            .expression_attribute_names("#date", DATE)
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_values(":driver", text(driver.as_str()))
            .expression_attribute_values(":date", text(date.to_string()))
            .expression_attribute_values(":assigned", text(Status::Assigned.as_str()));
        let items = self.calls.query(query).await?;
        let held = items.iter().map(|item| {
            let package = text_of(item, PACKAGE_ID).and_then(PackageId::parse);
            let package = package.ok_or_else(|| malformed(&self.tables.assignments, item))?;
            let driver = driver.clone();
            Ok(Held { driver, package })
        });
        held.collect()
    }

    async fn counts_by_driver(&self, date: Date) -> Result<Vec<DriverCounts>, Unavailable> {
        let mut held: BTreeMap<DriverId, u32> = BTreeMap::new();
        for Held { driver, .. } in self.all_held(date).await? {
            *held.entry(driver).or_default() += 1;
        }
        let counts = together(held, QUERIES_AT_ONCE, |(driver, held)| {
            let store = self.clone();
            async move {
                let moved_on = store.moved_on(date, &driver).await?;
                let moved_on = moved_on.into_iter().map(|status| (status, 1));
                Ok(DriverCounts::new(driver, held, moved_on))
            }
        });
        let mut counts: Vec<DriverCounts> = counts.await?;
        counts.sort_unstable_by(|one, other| one.driver.cmp(&other.driver));
        Ok(counts)
    }

    /// The statuses of a driver's packages of a day that are beyond [`Status::Assigned`].
    async fn moved_on(&self, date: Date, driver: &DriverId) -> Result<Vec<Status>, Unavailable> {
        let query = self
            .client
            .query()
            .table_name(&self.tables.assignments)
            .consistent_read(true)
            .key_condition_expression("#driver = :driver")
            .filter_expression("#date = :date AND #status <> :assigned")
            .projection_expression("#status")
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_names("#date", DATE)
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_values(":driver", text(driver.as_str()))
            .expression_attribute_values(":date", text(date.to_string()))
            .expression_attribute_values(":assigned", text(Status::Assigned.as_str()));
        let items = self.calls.query(query).await?;
        let statuses = items.iter().map(|item| {
            let status = text_of(item, STATUS).and_then(Status::parse);
            status.ok_or_else(|| malformed(&self.tables.assignments, item))
        });
        statuses.collect()
    }

    async fn say(&self, update: Update) -> Result<Result<Updated, Refusal>, Unavailable> {
        let request = self.update_status(&update);
        let answer = self.calls.call(|| said(request.clone())).await?;
        let old = match answer.done {
            Ok(old) => old,
            Err(None) => return Ok(Err(Refusal::NoSuchAssignment)),
            Err(Some(old)) => {
                let found = assignment(&old);
                let old = found.ok_or_else(|| malformed(&self.tables.assignments, &old))?;
                return Ok(Err(Refusal::Final { status: old.status }));
            }
        };
        let unreadable = || malformed(&self.tables.assignments, &old);
        let mut assignment = assignment(&old).ok_or_else(unreadable)?;
        let mut from = assignment.status;
        if answer.lost && from == update.status && assignment.updated_at == update.at {
            // The item is from this update's first attempt, whose answer was lost.
            let previous = text_of(&old, PREVIOUS_STATUS).and_then(Status::parse);
            from = previous.ok_or_else(unreadable)?;
        }
        assignment.status = update.status;
        assignment.updated_at = update.at;
        Ok(Ok(Updated { from, assignment }))
    }

    fn update_status(&self, update: &Update) -> UpdateItemFluentBuilder {
        let mut condition = "attribute_exists(#driver)".to_owned();
        let mut request = self
            .client
            .update_item()
            .table_name(&self.tables.assignments)
            .set_key(Some(key(&update.driver, &update.package)))
            .update_expression(
                "SET #previous = #status, #status = :status, #updated_at = :updated_at",
            )
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_names("#previous", PREVIOUS_STATUS)
            .expression_attribute_names("#updated_at", UPDATED_AT)
            .expression_attribute_values(":status", text(update.status.as_str()))
            .expression_attribute_values(":updated_at", moment(update.at))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let stays = |from: &Status| !from.may_become(update.status, update.strict);
        for from in Status::ALL.into_iter().filter(stays) {
            let name = format!(":{}", from.as_str());
            condition = format!("{condition} AND #status <> {name}");
            request = request.expression_attribute_values(name, text(from.as_str()));
        }
        request.condition_expression(condition)
    }
}

/// The item before the update; or the one that violated its condition, if there is one.
async fn said(request: UpdateItemFluentBuilder) -> Result<Result<Item, Option<Item>>, CallError> {
    match Box::pin(request.send()).await {
        Ok(answer) => Ok(Ok(answer.attributes.unwrap_or_default())),
        Err(error) => match error.as_service_error() {
            Some(refused) if refused.is_conditional_check_failed_exception() => {
                let refused = error.into_service_error();
                Ok(Err(calls::standing(refused)))
            }
            _ => Err(call_error(error)),
        },
    }
}

impl Store for Dynamodb {
    fn store_manifest(&self, date: Date, manifest: StoredManifest) -> Answer<'_, ()> {
        Box::pin(self.put_manifest(date, manifest))
    }

    fn manifest_version(&self, date: Date) -> Answer<'_, Option<Version>> {
        Box::pin(async move { Ok(self.head(date).await?.map(|head| head.version)) })
    }

    fn manifest(&self, date: Date) -> Answer<'_, Option<StoredManifest>> {
        Box::pin(self.get_manifest(date))
    }

    fn held(&self, date: Date) -> Answer<'_, Vec<Held>> {
        Box::pin(self.all_held(date))
    }

    fn still_assigned(&self, date: Date, drivers: Vec<DriverId>) -> Answer<'_, Vec<Held>> {
        Box::pin(async move {
            let drivers: BTreeSet<_> = drivers.into_iter().collect();
            let each = together(drivers, QUERIES_AT_ONCE, |driver| {
                let store = self.clone();
                async move { store.still_assigned_to(date, driver).await }
            });
            Ok(each.await?.concat())
        })
    }

    fn counts(&self, date: Date) -> Answer<'_, Vec<DriverCounts>> {
        Box::pin(self.counts_by_driver(date))
    }

    fn change(&self, change: Change, on_stored: OnStored) -> Answer<'_, Changed> {
        Box::pin(self.apply(change, on_stored))
    }

    fn update(&self, update: Update) -> Answer<'_, Result<Updated, Refusal>> {
        Box::pin(self.say(update))
    }

    fn list(&self, filter: Filter, after: Option<Place>, limit: usize) -> Answer<'_, Listing> {
        Box::pin(self.find(filter, after, limit))
    }

    fn state(&self) -> State {
        self.calls.state()
    }
}
