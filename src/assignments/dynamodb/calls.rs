//! Calls, and their retries.
//!
//! | result                             | executed?    | retried             | finally                 |
//! |------------------------------------|--------------|---------------------|-------------------------|
//! | throttled, or transaction conflict | no           | for `retry`         | [`Unavailable::Busy`]   |
//! | no answer, or a broken one         | unknown      | `tries` times       | [`Unavailable::Engine`] |
//! | no such table, or access denied    | no           | no                  | [`Unavailable::Engine`] |
//! | invalid request                    | no           | no                  | [`Unavailable::Failed`] |
//!
//! [`crate::storage::aws::errors`] sorts the errors.

use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::error::Unavailable;
use super::tables::{DRIVER_ID, PACKAGE_ID, Tables};
use super::values::{Item, place_of_day, text};
use crate::storage::aws::Aws;
use crate::storage::aws::errors::{Action, CallError};
use crate::storage::preflight::Engine;
use crate::storage::{Condition, State};
use crate::values::backoff::Backoff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts of a call without an answer; at least one.
    pub tries: u32,
    /// Backoff before the second attempt, doubled up to `BACKOFF_MAX`; random.
    pub backoff: Duration,
    /// How long a throttled call is retried. Shorter than `limit`, so that the last attempt has time for its answer: a call
    /// without one may have been executed.
    pub retry: Duration,
    /// Time limit of a call, retries included.
    pub limit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 6,
            backoff: Duration::from_millis(100),
            retry: Duration::from_secs(10),
            limit: Duration::from_secs(15),
        }
    }
}

const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Interval of probes while the engine is down.
const PROBE: Duration = Duration::from_secs(1);

/// A client without retries: [`Calls`] must know whether an answer was lost.
pub(super) fn client(aws: &Aws) -> Client {
    let config = aws.dynamodb().config().to_builder();
    Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands where an error is mapped"
)]
pub(super) fn call_error<E>(error: SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    CallError::of_call(Engine::DynamoDb, &error)
}

/// The item that violated an update's condition, if there is one.
pub(super) fn standing(refused: UpdateItemError) -> Option<Item> {
    match refused {
        UpdateItemError::ConditionalCheckFailedException(refused) => refused.item,
        _ => None,
    }
}

/// An answered call.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub(super) done: T,
    /// Whether the answer to an earlier attempt was lost: this one may have seen its effects.
    pub(super) lost: bool,
}

/// Makes calls, and tracks the engine's health; cheap to clone.
#[derive(Clone)]
pub(super) struct Calls {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    tables: Arc<Tables>,
    patience: Patience,
    /// Whether calls are answered.
    condition: Condition,
    /// Whether they are executed. A failure sets one of the two and resets the other, in two steps: concurrent failures may
    /// leave both down, until a call is answered.
    throughput: Condition,
}

impl Calls {
    pub(super) fn new(client: Client, tables: Arc<Tables>, patience: Patience) -> Self {
        let inner = Inner {
            client,
            tables,
            patience,
            condition: Condition::default(),
            throughput: Condition::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn state(&self) -> State {
        self.inner.condition.state()
    }

    /// Makes a call, with retries.
    pub(super) async fn call<T, F>(
        &self,
        attempt: impl Fn() -> F + Send,
    ) -> Result<Answered<T>, Unavailable>
    where
        F: Future<Output = Result<T, CallError>> + Send,
    {
        let patience = self.inner.patience;
        let begun = Instant::now();
        let deadline = begun + patience.limit;
        let (mut backoff, mut lost) = (Backoff::new(patience.backoff, BACKOFF_MAX), 0);
        loop {
            let call_error = match timeout_at(deadline, attempt()).await {
                Ok(Ok(done)) => {
                    self.inner.answered();
                    let lost = lost > 0;
                    return Ok(Answered { done, lost });
                }
                Ok(Err(call_error)) => call_error,
                Err(_) => CallError::new(Action::RetryUnknown, "there was no answer in time"),
            };
            let wait = backoff.next_wait();
            let next = Instant::now() + wait;
            let again = match call_error.action {
                Action::Retry => next < begun + patience.retry,
                Action::RetryUnknown => {
                    lost += 1;
                    lost < patience.tries && next < deadline
                }
                Action::NotReady | Action::Refuse | Action::DeadLetter => false,
            };
            if !again {
                return Err(self.give_up(&call_error, lost > 0));
            }
            sleep(wait).await;
        }
    }

    /// All items of a query, page by page.
    pub(super) async fn query(&self, query: QueryFluentBuilder) -> Result<Vec<Item>, Unavailable> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let page = query.clone().set_exclusive_start_key(from);
            let answer = self.call(|| {
                let page = page.clone();
                async move { Box::pin(page.send()).await.map_err(call_error) }
            });
            let page = Box::pin(answer).await?.done;
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(items);
            }
        }
    }

    fn give_up(&self, call_error: &CallError, lost: bool) -> Unavailable {
        let cause = call_error.cause.as_str();
        match call_error.action {
            Action::Refuse | Action::DeadLetter => {
                tracing::error!(cause, "DynamoDB does not accept a request");
                Unavailable::Failed
            }
            // Not [`Unavailable::Busy`] if an earlier attempt may have been executed: the caller must not take it for a
            // failure.
            Action::Retry if !lost => {
                self.inner.condition.works();
                if self.inner.throughput.fails(cause) {
                    tracing::warn!(cause, "DynamoDB throttles requests");
                }
                Unavailable::Busy
            }
            Action::Retry | Action::RetryUnknown | Action::NotReady => {
                self.inner.throughput.works();
                if self.inner.condition.fails(cause) {
                    tracing::error!(cause, "DynamoDB is out of reach");
                    tokio::spawn(probe(Arc::downgrade(&self.inner)));
                }
                Unavailable::Engine
            }
        }
    }
}

impl Inner {
    fn answered(&self) {
        if self.condition.works() | self.throughput.works() {
            tracing::info!("DynamoDB answers again");
        }
    }
}

/// Finds out when the engine is back: an instance that is not ready may get no request that would. It changes nothing, but
/// fails while a table is missing, or may not be read and written.
async fn probe(inner: Weak<Inner>) {
    loop {
        sleep(PROBE).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.condition.is_healthy() {
            return;
        }
        let nothing = place_of_day("probe".to_owned(), "probe".to_owned());
        let delete = inner
            .client
            .delete_item()
            .table_name(&inner.tables.packages);
        let written = Box::pin(delete.set_key(Some(nothing)).send()).await;
        let get = inner
            .client
            .get_item()
            .table_name(&inner.tables.assignments);
        let get = get
            .key(DRIVER_ID, text("probe"))
            .key(PACKAGE_ID, text("probe"));
        let read = Box::pin(get.send()).await;
        let is_away = |error: CallError| error.action != Action::Retry;
        if !written.is_err_and(|error| is_away(call_error(error)))
            && !read.is_err_and(|error| is_away(call_error(error)))
        {
            return inner.answered();
        }
    }
}

/// Applies a function to each input, several at once; the results are in any order. After a failure no further one is started;
/// running ones are awaited, so that none outlives the answer.
pub(super) async fn together<T, R, E, F>(
    inputs: impl IntoIterator<Item = T> + Send,
    at_once: usize,
    work: impl Fn(T) -> F + Send,
) -> Result<Vec<R>, E>
where
    T: Send,
    R: Send + 'static,
    E: From<Unavailable> + Send + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut results = Vec::new();
    let mut failed = None;
    let mut note = |ended: Result<Result<R, E>, JoinError>| match ended {
        Ok(Ok(result)) => results.push(result),
        Ok(Err(error)) => failed = Some(error),
        Err(_) => failed = Some(Unavailable::Failed.into()),
    };
    let mut any_failed = false;
    for input in inputs {
        if running.len() >= at_once
            && let Some(ended) = running.join_next().await
        {
            any_failed |= !matches!(ended, Ok(Ok(_)));
            note(ended);
        }
        if any_failed {
            break;
        }
        running.spawn(work(input));
    }
    while let Some(ended) = running.join_next().await {
        note(ended);
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(results),
    }
}
