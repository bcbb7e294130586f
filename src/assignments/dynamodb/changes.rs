use std::sync::Arc;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::{
    TransactWriteItemsError, TransactWriteItemsOutput,
};
use aws_sdk_dynamodb::types::{CancellationReason, Delete, Put, TransactWriteItem, Update as Move};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use super::super::error::Unavailable;
use super::super::model::{Assignment, Change, DriverChange, DriverId, Package, PackageId, Status};
use super::super::store::{Changed, OnStored};
use super::Dynamodb;
use super::calls::{call_error, together};
use super::tables::{DATE, DRIVER_ID, HELD, STATUS, TOKEN};
use super::values::{self, Item, count, driver_key, package_key, text, text_of};
use crate::storage::aws::errors::{self, Action, CallError};
use crate::storage::preflight::Engine;

/// Most packages of a transaction: two actions each, and one for the driver's count, of at most 100.
const PACKAGES_PER_TRANSACTION: usize = 49;
/// Concurrent drivers per caller.
const DRIVERS_AT_ONCE: usize = 8;

#[derive(Debug, Clone)]
struct Step {
    date: Date,
    at: Timestamp,
    driver: DriverId,
    held_before: u32,
    held_after: u32,
    work: Work,
}

#[derive(Debug, Clone)]
enum Work {
    GiveUp(Vec<PackageId>),
    Give(Vec<Package>),
}

/// Why a change was aborted.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Outdated,
    Unavailable(Unavailable),
}

impl Step {
    /// This transaction as a part of the whole change.
    fn into_part(self) -> DriverChange {
        let (given_up, given) = match self.work {
            Work::GiveUp(packages) => (packages, Vec::new()),
            Work::Give(packages) => (Vec::new(), packages),
        };
        DriverChange {
            driver: self.driver,
            held_before: self.held_before,
            given_up,
            given,
        }
    }
}

impl From<Unavailable> for Stop {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl Dynamodb {
    pub(super) async fn apply(
        &self,
        change: Change,
        on_stored: OnStored,
    ) -> Result<Changed, Unavailable> {
        let Some(phases) = steps(change) else {
            return Ok(Changed::Outdated);
        };
        // A package may move from one driver to another: all are given up before any is assigned.
        for phase in phases {
            let done = together(phase, DRIVERS_AT_ONCE, |steps| {
                let (store, on_stored) = (self.clone(), Arc::clone(&on_stored));
                async move {
                    for step in steps {
                        store.step(&step).await?;
                        on_stored(&[step.into_part()]);
                    }
                    Ok(())
                }
            });
            match done.await {
                Ok(_) => {}
                Err(Stop::Outdated) => return Ok(Changed::Outdated),
                Err(Stop::Unavailable(unavailable)) => return Err(unavailable),
            }
        }
        Ok(Changed::Done)
    }

    async fn step(&self, step: &Step) -> Result<(), Stop> {
        let token = Uuid::new_v4().to_string();
        let request = self
            .client
            .transact_write_items()
            .client_request_token(&token)
            .set_transact_items(Some(self.actions(step, &token)?));
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { committed(Box::pin(request.send()).await) }
        });
        let answer = call.await?;
        if answer.done || answer.lost && self.is_own(step, &token).await? {
            return Ok(());
        }
        Err(Stop::Outdated)
    }

    fn actions(&self, step: &Step, token: &str) -> Result<Vec<TransactWriteItem>, Unavailable> {
        let mut actions = vec![self.count(step, token)?];
        let each = TransactWriteItem::builder;
        match &step.work {
            Work::GiveUp(packages) => {
                for package in packages {
                    let [assignment, holder] = self.giving_up(step, package)?;
                    actions.push(each().delete(assignment).build());
                    actions.push(each().delete(holder).build());
                }
            }
            Work::Give(packages) => {
                for package in packages {
                    let [assignment, holder] = self.giving(step, package, token)?;
                    actions.push(each().put(holder).build());
                    actions.push(each().put(assignment).build());
                }
            }
        }
        Ok(actions)
    }

    /// Increments the driver's count.
    fn count(&self, step: &Step, token: &str) -> Result<TransactWriteItem, Unavailable> {
        let condition = if step.held_before == 0 {
            "attribute_not_exists(#held) OR #held = :before"
        } else {
            "#held = :before"
        };
        let count = Move::builder()
            .table_name(&self.tables.packages)
            .set_key(Some(driver_key(step.date, &step.driver)))
            .update_expression("SET #held = :after, #token = :token")
            .condition_expression(condition)
            .expression_attribute_names("#held", HELD)
            .expression_attribute_names("#token", TOKEN)
            .expression_attribute_values(":before", count(step.held_before))
            .expression_attribute_values(":after", count(step.held_after))
            .expression_attribute_values(":token", text(token))
            .build();
        let count = count.map_err(incomplete)?;
        Ok(TransactWriteItem::builder().update(count).build())
    }

    fn giving_up(&self, step: &Step, package: &PackageId) -> Result<[Delete; 2], Unavailable> {
        let assignment = Delete::builder()
            .table_name(&self.tables.assignments)
            .set_key(Some(values::key(&step.driver, package)))
            .condition_expression("#status = :assigned AND #date = :date")
            .expression_attribute_names("#status", STATUS)
            .expression_attribute_names("#date", DATE)
            .expression_attribute_values(":assigned", text(Status::Assigned.as_str()))
            .expression_attribute_values(":date", text(step.date.to_string()))
            .build();
        let holder = Delete::builder()
            .table_name(&self.tables.packages)
            .set_key(Some(package_key(step.date, package)))
            .condition_expression("#driver = :driver")
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_values(":driver", text(step.driver.as_str()))
            .build();
        Ok([assignment.map_err(incomplete)?, holder.map_err(incomplete)?])
    }

    fn giving(&self, step: &Step, package: &Package, token: &str) -> Result<[Put; 2], Unavailable> {
        let assignment = values::item(&Assignment {
            driver: step.driver.clone(),
            package: package.clone(),
            date: step.date,
            status: Status::Assigned,
            assigned_at: step.at,
            updated_at: step.at,
        });
        let assignment = Put::builder()
            .table_name(&self.tables.assignments)
            .set_item(Some(assignment))
            .condition_expression("attribute_not_exists(#driver) OR #date <> :date")
            .expression_attribute_names("#driver", DRIVER_ID)
            .expression_attribute_names("#date", DATE)
            .expression_attribute_values(":date", text(step.date.to_string()))
            .build();
        let holder = Put::builder()
            .table_name(&self.tables.packages)
            .set_item(Some(package_key(step.date, &package.id)))
            .item(DRIVER_ID, text(step.driver.as_str()))
            .item(TOKEN, text(token))
            .condition_expression("attribute_not_exists(#driver)")
            .expression_attribute_names("#driver", DRIVER_ID)
            .build();
        Ok([assignment.map_err(incomplete)?, holder.map_err(incomplete)?])
    }

    /// Whether this transaction was committed. If others have overwritten all its items, that is unknown; then it counts as
    /// refused, and the caller reads the day again.
    async fn is_own(&self, step: &Step, token: &str) -> Result<bool, Unavailable> {
        let mut traces = vec![driver_key(step.date, &step.driver)];
        if let Work::Give(packages) = &step.work {
            traces.extend(
                packages
                    .first()
                    .map(|given| package_key(step.date, &given.id)),
            );
        }
        for key in traces {
            let trace = self.packages_item(key).await?;
            if trace.is_some_and(|trace| text_of(&trace, TOKEN) == Some(token)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An item of the table of packages; a consistent read.
    pub(super) async fn packages_item(&self, key: Item) -> Result<Option<Item>, Unavailable> {
        let request = self
            .client
            .get_item()
            .table_name(&self.tables.packages)
            .set_key(Some(key))
            .consistent_read(true);
        let call = self.calls.call(|| {
            let request = request.clone();
            async move { Box::pin(request.send()).await.map_err(call_error) }
        });
        Ok(call.await?.done.item)
    }
}

/// Each driver's transactions, in order.
type Phase = Vec<Vec<Step>>;

/// Two phases: giving up, then assigning. None if more is given up than is held.
fn steps(change: Change) -> Option<[Phase; 2]> {
    let (mut give_ups, mut gives) = (Vec::new(), Vec::new());
    for part in change.drivers {
        let DriverChange {
            driver,
            mut held_before,
            given_up,
            given,
        } = part;
        let mut step = |held_after, work| Step {
            date: change.date,
            at: change.at,
            driver: driver.clone(),
            held_before: std::mem::replace(&mut held_before, held_after),
            held_after,
            work,
        };
        let mut held = part.held_before;
        let mut of_driver = Vec::new();
        for packages in given_up.chunks(PACKAGES_PER_TRANSACTION) {
            held = held.checked_sub(u32::try_from(packages.len()).ok()?)?;
            of_driver.push(step(held, Work::GiveUp(packages.to_vec())));
        }
        // An empty change checks the driver's count.
        if of_driver.is_empty() && given.is_empty() {
            of_driver.push(step(held, Work::Give(Vec::new())));
        }
        give_ups.push(of_driver);
        let mut of_driver = Vec::new();
        for packages in given.chunks(PACKAGES_PER_TRANSACTION) {
            held = held.checked_add(u32::try_from(packages.len()).ok()?)?;
            of_driver.push(step(held, Work::Give(packages.to_vec())));
        }
        gives.push(of_driver);
    }
    Some([give_ups, gives])
}

/// Whether the transaction was committed; if not, a condition failed.
fn committed(
    answer: Result<TransactWriteItemsOutput, SdkError<TransactWriteItemsError, HttpResponse>>,
) -> Result<bool, CallError> {
    let Err(error) = answer else { return Ok(true) };
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) =
        error.as_service_error()
    else {
        return Err(call_error(error));
    };
    let codes = canceled.cancellation_reasons().iter();
    let codes: Vec<_> = codes.filter_map(CancellationReason::code).collect();
    if codes.contains(&"ConditionalCheckFailed") {
        return Ok(false);
    }
    let passes = |code: &&str| {
        // What has no row, such as `None`, is skipped.
        let action = errors::action_of_part(Engine::DynamoDb, code, "", true);
        matches!(action, Action::Retry | Action::RetryUnknown)
    };
    let cause = format!("the transaction was canceled: {}", codes.join(", "));
    if codes.iter().any(passes) {
        return Err(CallError::transient(cause));
    }
    Err(CallError::new(Action::Refuse, cause))
}

/// The request lacks a field: a bug, since it is built here.
pub(super) fn incomplete(error: impl std::fmt::Display) -> Unavailable {
    tracing::error!(%error, "a request to DynamoDB is incomplete");
    Unavailable::Failed
}
