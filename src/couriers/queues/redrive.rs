//! Moves messages from the dead-letter queue back to where they came from.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message, MessageSystemAttributeName,
    QueueAttributeName,
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::task::JoinSet;

use super::super::reading;
use super::consumer::{BATCH_MAX, seconds};
use super::dead_letters::{Attributes, QUEUE, REASON};
use super::health::is_missing;
use super::message::parse;
use super::provision::Endpoints;
use super::provision::{ASSIGNMENTS_QUEUE, DEAD_LETTERS, EVENTS_QUEUE, name_of};
use crate::storage::aws::{Aws, error_chain};

/// Long-poll wait on the dead-letter queue.
const WAIT: Duration = Duration::from_secs(2);
/// Visibility timeout of messages that were looked at.
const VISIBILITY: Duration = Duration::from_secs(300);
/// Ends after so many consecutive receptions of only messages that came back during the run.
const IDLE_MAX: u32 = 10;

/// The redrive failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{doing}: {cause}{}", .so_far.map_or(String::new(), |so_far| format!(" (so far: {so_far})")))]
pub struct Interrupted {
    doing: String,
    cause: String,
    /// None if nothing was done yet.
    so_far: Option<Redriven>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redriven {
    pub events: u64,
    pub assignments: u64,
    /// Not moved: they came from an unknown queue.
    pub strangers: u64,
    /// Not moved: they came after the start.
    pub late: u64,
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            assignments,
            strangers,
            late,
        } = self;
        write!(
            f,
            "{events} to the queue of events, {assignments} to the queue of assignments; left: {strangers} of \
             unknown queues, {late} that came during the run"
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: String,
    /// The name of the queue it came from, as far as known.
    pub from: String,
    /// None if SQS dead-lettered it.
    pub reason: Option<String>,
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, from, reason } = self;
        let reason = reason.as_deref().unwrap_or("it was received too often");
        write!(f, "{id} of {from}: {reason}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Events,
    Assignments,
    Nowhere,
}

/// Moves back the messages that were there at the start, each with its own body and attributes, and deletes it here once the other
/// queue confirmed it. What is dead-lettered again at the same time stays. With `dry_run` nothing is moved, and each message is
/// passed to `list`. SQS counts a look as a reception: a dead-letter queue with a redrive policy of its own is refused. Queues that
/// are not configured are found by their default names.
///
/// # Errors
/// What failed, and how many messages were moved before.
pub async fn redrive(
    aws: &Aws,
    configured: &Endpoints,
    dry_run: bool,
    list: &mut (dyn FnMut(&DeadLetter) + Send),
) -> Result<Redriven, Interrupted> {
    let sqs = aws.sqs();
    let at = async |place: &str, name: &str| Box::pin(find(&sqs, place, name)).await;
    let interrupted = |cause: String| Interrupted {
        doing: "cannot find the queues".to_owned(),
        cause,
        so_far: None,
    };
    let dead = at(&configured.dead_letters, DEAD_LETTERS).await;
    let dead = dead.map_err(interrupted)?;
    let dead = dead.ok_or_else(|| interrupted(format!("there is no {DEAD_LETTERS}")))?;
    if dry_run {
        Box::pin(expect_no_policy(&sqs, &dead)).await?;
    }
    let events = at(&configured.events_queue, EVENTS_QUEUE).await;
    let assignments = at(&configured.assignments_queue, ASSIGNMENTS_QUEUE).await;
    let mut redrive = Redrive {
        dead,
        events: events.map_err(interrupted)?,
        assignments: assignments.map_err(interrupted)?,
        waiting: aws.sqs_waiting(WAIT),
        sqs,
        dry_run,
        began_ms: Timestamp::now().as_millisecond(),
        seen: HashSet::new(),
        left: Vec::new(),
        done: Redriven::default(),
    };
    let all = redrive.all(list).await;
    // After a failure, too: what is left becomes visible at once.
    let shown = redrive.show_left().await;
    all.and(shown)?;
    Ok(redrive.done)
}

/// A queue's URL: configured, or found by its name; None if there is none.
async fn find(
    sqs: &aws_sdk_sqs::Client,
    configured: &str,
    name: &str,
) -> Result<Option<String>, String> {
    if !configured.is_empty() {
        return Ok(Some(configured.to_owned()));
    }
    match Box::pin(sqs.get_queue_url().queue_name(name).send()).await {
        Ok(found) => Ok(found.queue_url),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error_chain(&error)),
    }
}

/// Refuses a queue whose redrive policy would move messages that are only looked at.
async fn expect_no_policy(sqs: &aws_sdk_sqs::Client, queue: &str) -> Result<(), Interrupted> {
    let policy = QueueAttributeName::RedrivePolicy;
    let get = sqs.get_queue_attributes().queue_url(queue);
    let cause = match Box::pin(get.attribute_names(policy.clone()).send()).await {
        Err(error) => error_chain(&error),
        Ok(got) => match got.attributes.unwrap_or_default().get(&policy) {
            Some(policy) if !policy.is_empty() => format!(
                "it has a redrive policy of its own, {policy}, which counts each look as a reception and takes messages away \
                 that were received too often; remove it, or run without --dry-run"
            ),
            _ => return Ok(()),
        },
    };
    Err(Interrupted {
        doing: "cannot look into the dead-letter queue".to_owned(),
        cause,
        so_far: None,
    })
}

struct Redrive {
    sqs: aws_sdk_sqs::Client,
    waiting: aws_sdk_sqs::Client,
    dead: String,
    events: Option<String>,
    assignments: Option<String>,
    dry_run: bool,
    /// Milliseconds since 1970, as in SQS's `SentTimestamp`.
    began_ms: i64,
    /// Ids of messages that were looked at.
    seen: HashSet<String>,
    /// Receipts of messages that stay.
    left: Vec<String>,
    done: Redriven,
}

/// A message to be moved.
struct Going {
    way: Way,
    to: String,
    body: String,
    /// Without those that were added when it was dead-lettered.
    attributes: Attributes,
    receipt: String,
}

impl Redrive {
    async fn all(&mut self, list: &mut (dyn FnMut(&DeadLetter) + Send)) -> Result<(), Interrupted> {
        let mut idle = 0;
        while idle < IDLE_MAX {
            let messages = self.receive().await?;
            let nothing = messages.is_empty();
            let mut going = Vec::new();
            let before = self.seen.len();
            for message in messages {
                going.extend(self.look_at(message, list));
            }
            let something = !going.is_empty() || (self.dry_run && self.seen.len() > before);
            self.bring_back(going).await?;
            if nothing {
                return Ok(());
            }
            idle = if something { 0 } else { idle + 1 };
        }
        Ok(())
    }

    fn interrupted(&self, doing: &str, cause: impl Into<String>) -> Interrupted {
        Interrupted {
            doing: doing.to_owned(),
            cause: cause.into(),
            so_far: Some(self.done),
        }
    }

    async fn receive(&self) -> Result<Vec<Message>, Interrupted> {
        let receive = self.waiting.receive_message().queue_url(&self.dead);
        let receive = receive
            .max_number_of_messages(BATCH_MAX)
            .wait_time_seconds(seconds(WAIT))
            .visibility_timeout(seconds(VISIBILITY))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All);
        match Box::pin(receive.send()).await {
            Ok(received) => Ok(received.messages.unwrap_or_default()),
            Err(error) => {
                let cause = error_chain(&error);
                Err(self.interrupted("cannot read the dead-letter queue", cause))
            }
        }
    }

    /// Where to move a message; None if it stays.
    fn look_at(
        &mut self,
        message: Message,
        list: &mut (dyn FnMut(&DeadLetter) + Send),
    ) -> Option<Going> {
        let (from, way) = self.origin(&message);
        let reason = attribute(&message, REASON).map(str::to_owned);
        let sent = system_attribute(&message, &MessageSystemAttributeName::SentTimestamp);
        let late = sent.and_then(|sent| sent.parse().ok()) >= Some(self.began_ms);
        let id = message.message_id.unwrap_or_default();
        let receipt = message.receipt_handle?;
        let mut attributes = message.message_attributes.unwrap_or_default();
        attributes.retain(|name, _| ![REASON, QUEUE].contains(&name.as_str()));
        let first = self.seen.insert(id.clone());
        let to = match way {
            Way::Events => self.events.clone(),
            Way::Assignments => self.assignments.clone(),
            Way::Nowhere => None,
        };
        match to {
            // A message that was moved and could not be deleted is moved again: a duplicate changes nothing.
            Some(to) if !late && !self.dry_run => {
                return Some(Going {
                    way,
                    to,
                    body: message.body.unwrap_or_default(),
                    attributes,
                    receipt,
                });
            }
            _ if !first => {}
            _ if late => self.done.late += 1,
            Some(_) if way == Way::Events => self.done.events += 1,
            Some(_) => self.done.assignments += 1,
            None => self.done.strangers += 1,
        }
        if first && self.dry_run && !late {
            list(&DeadLetter { id, from, reason });
        }
        self.left.push(receipt);
        None
    }

    /// The name of the queue that a message came from, and whether it is known.
    fn origin(&self, message: &Message) -> (String, Way) {
        let source = MessageSystemAttributeName::DeadLetterQueueSourceArn;
        let source_queue = attribute(message, QUEUE).or_else(|| system_attribute(message, &source));
        if let Some(source_queue) = source_queue {
            let name = name_of(source_queue);
            let is = |url: &Option<String>| url.as_deref().is_some_and(|url| name_of(url) == name);
            let way = if is(&self.events) {
                Way::Events
            } else if is(&self.assignments) {
                Way::Assignments
            } else {
                Way::Nowhere
            };
            return (name.to_owned(), way);
        }
        // SQS dead-lettered it, and does not say from where.
        let body = message.body.as_deref().unwrap_or_default();
        let (url, way) = match parse(body, reading::assignment) {
            Ok(_) => (&self.assignments, Way::Assignments),
            Err(_) => (&self.events, Way::Events),
        };
        let name = url.as_deref().map_or("", name_of);
        (name.to_owned(), way)
    }

    async fn bring_back(&mut self, going: Vec<Going>) -> Result<(), Interrupted> {
        let mut running = JoinSet::new();
        for one in going {
            let (sqs, dead) = (self.sqs.clone(), self.dead.clone());
            running.spawn(async move {
                let message = sqs.send_message().queue_url(&one.to).message_body(one.body);
                let attributes = (!one.attributes.is_empty()).then_some(one.attributes);
                let message = message.set_message_attributes(attributes);
                if let Err(error) = Box::pin(message.send()).await {
                    let cause = error_chain(&error);
                    return Err((format!("cannot send to {}", one.to), cause, one.receipt));
                }
                let delete = sqs.delete_message().queue_url(&dead);
                let deleted = Box::pin(delete.receipt_handle(&one.receipt).send()).await;
                deleted.map(|_| one.way).map_err(|error| {
                    let cause = error_chain(&error);
                    let doing = "cannot delete redriven messages from the dead-letter queue";
                    (doing.to_owned(), cause, one.receipt)
                })
            });
        }
        let mut failed = None;
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ok(Way::Assignments)) => self.done.assignments += 1,
                Ok(Ok(_)) => self.done.events += 1,
                Ok(Err((doing, cause, receipt))) => {
                    self.left.push(receipt);
                    failed = Some((doing, cause));
                }
                Err(error) => failed = Some(("it broke".to_owned(), error.to_string())),
            }
        }
        match failed {
            None => Ok(()),
            Some((doing, cause)) => Err(self.interrupted(&doing, cause)),
        }
    }

    /// Makes the rest visible again.
    async fn show_left(&self) -> Result<(), Interrupted> {
        let batch_max = usize::try_from(BATCH_MAX).unwrap_or(1);
        for receipts in self.left.chunks(batch_max) {
            let entries = receipts.iter().enumerate().map(|(number, receipt)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(number.to_string())
                    .receipt_handle(receipt)
                    .visibility_timeout(0)
                    .build()
            });
            let entries: Result<Vec<_>, _> = entries.collect();
            let doing = "cannot make messages visible again";
            let entries = entries.map_err(|error| self.interrupted(doing, error.to_string()))?;
            let change = self.sqs.change_message_visibility_batch();
            let change = change.queue_url(&self.dead).set_entries(Some(entries));
            // A message with an expired receipt is visible.
            if let Err(error) = Box::pin(change.send()).await {
                return Err(self.interrupted(doing, error_chain(&error)));
            }
        }
        Ok(())
    }
}

fn attribute<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let attributes = message.message_attributes.as_ref()?;
    attributes.get(name)?.string_value()
}

fn system_attribute<'a>(
    message: &'a Message,
    name: &MessageSystemAttributeName,
) -> Option<&'a str> {
    let attributes = message.attributes.as_ref()?;
    attributes.get(name).map(String::as_str)
}
