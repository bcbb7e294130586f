//! Creates topics and queues, for emulators and development; elsewhere Terraform does. Existing ones are reused, and completed.

use std::collections::HashMap;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use thiserror::Error;

use super::super::config::Config;
use super::health::is_missing;
use crate::storage::aws::error_chain;

/// Default names.
pub(super) const EVENTS_TOPIC: &str = "events-topic";
pub(super) const EVENTS_QUEUE: &str = "events-queue";
pub(super) const ASSIGNMENTS_TOPIC: &str = "assignments-topic";
pub(super) const ASSIGNMENTS_QUEUE: &str = "assignments-queue";
pub(super) const DEAD_LETTERS: &str = "dead-letter-queue";

/// `maxReceiveCount` of the redrive policy. Valid messages never come near it; it is for messages that crash the program.
const RECEPTIONS_MAX: u32 = 1000;
/// `MessageRetentionPeriod`: the maximum of SQS, 14 days, in seconds.
const RETENTION_S: &str = "1209600";

/// Topics by their ARNs, queues by their URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Where events are published.
    pub events_topic: String,
    /// From which the dispatcher receives them.
    pub events_queue: String,
    /// Where assignments are published.
    pub assignments_topic: String,
    /// From which the directory receives them.
    pub assignments_queue: String,
    /// For unparseable messages.
    pub dead_letters: String,
}

impl From<&Config> for Endpoints {
    fn from(config: &Config) -> Self {
        Self {
            events_topic: config.events_topic_arn.clone(),
            events_queue: config.events_queue_url.clone(),
            assignments_topic: config.assignments_topic_arn.clone(),
            assignments_queue: config.assignments_queue_url.clone(),
            dead_letters: config.dead_letter_queue_url.clone(),
        }
    }
}

/// A topic or a queue that could not be created.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}: {cause}")]
pub struct NotProvisioned {
    pub name: String,
    pub cause: String,
}

/// Creates what is missing, and returns all ARNs and URLs.
pub(super) async fn provision(
    sns: &aws_sdk_sns::Client,
    sqs: &aws_sdk_sqs::Client,
    wanted: &Endpoints,
) -> Result<Endpoints, NotProvisioned> {
    let provisioner = Provisioner { sns, sqs };
    // Queues before topics: a message to a topic without a queue is lost.
    let (dead_letters, dead_arn) = provisioner
        .queue(&wanted.dead_letters, DEAD_LETTERS, None)
        .await?;
    let after = Some(&*dead_arn);
    let (events_queue, events_arn) = provisioner
        .queue(&wanted.events_queue, EVENTS_QUEUE, after)
        .await?;
    let (assignments_queue, assignments_arn) = provisioner
        .queue(&wanted.assignments_queue, ASSIGNMENTS_QUEUE, after)
        .await?;
    let events_topic = provisioner
        .topic(&wanted.events_topic, EVENTS_TOPIC)
        .await?;
    provisioner
        .subscribe(&events_topic, &events_queue, &events_arn)
        .await?;
    let assignments_topic = provisioner
        .topic(&wanted.assignments_topic, ASSIGNMENTS_TOPIC)
        .await?;
    provisioner
        .subscribe(&assignments_topic, &assignments_queue, &assignments_arn)
        .await?;
    Ok(Endpoints {
        events_topic,
        events_queue,
        assignments_topic,
        assignments_queue,
        dead_letters,
    })
}

/// The name at the end of an ARN or of a URL.
pub(super) fn name_of(place: &str) -> &str {
    let place = place.trim_end_matches('/');
    place.rsplit(['/', ':']).next().unwrap_or(place)
}

struct Provisioner<'a> {
    sns: &'a aws_sdk_sns::Client,
    sqs: &'a aws_sdk_sqs::Client,
}

impl Provisioner<'_> {
    async fn topic(&self, configured: &str, otherwise: &str) -> Result<String, NotProvisioned> {
        let name = if configured.is_empty() {
            otherwise
        } else {
            name_of(configured)
        };
        let failed = |cause: String| failed(name, cause);
        let made = Box::pin(self.sns.create_topic().name(name).send()).await;
        let made = made.map_err(|error| failed(error_chain(&error)))?;
        let arn = made.topic_arn.unwrap_or_default();
        if configured.is_empty() || configured == arn {
            return Ok(arn);
        }
        Err(failed(format!("it would be {arn} here, not {configured}")))
    }

    /// A queue's URL and ARN. `dead` is the ARN of its dead-letter queue.
    async fn queue(
        &self,
        configured: &str,
        otherwise: &str,
        dead: Option<&str>,
    ) -> Result<(String, String), NotProvisioned> {
        let name = if configured.is_empty() {
            otherwise
        } else {
            name_of(configured)
        };
        let failed = |cause: String| failed(name, cause);
        let found = Box::pin(self.sqs.get_queue_url().queue_name(name).send()).await;
        let url = match found {
            Ok(found) => found.queue_url.unwrap_or_default(),
            Err(error) if is_missing(&error) => {
                let create = self.sqs.create_queue().queue_name(name);
                let create =
                    create.attributes(QueueAttributeName::MessageRetentionPeriod, RETENTION_S);
                let made = Box::pin(create.send()).await;
                let made = made.map_err(|error| failed(error_chain(&error)))?;
                made.queue_url.unwrap_or_default()
            }
            Err(error) => return Err(failed(error_chain(&error))),
        };
        let attributes = self.attributes(name, &url).await?;
        let arn = attributes.get(&QueueAttributeName::QueueArn);
        let arn = arn.cloned().unwrap_or_default();
        if let Some(dead) = dead
            && !has(&attributes, &QueueAttributeName::RedrivePolicy)
        {
            let policy = json!({"deadLetterTargetArn": dead, "maxReceiveCount": RECEPTIONS_MAX});
            self.set(
                name,
                &url,
                QueueAttributeName::RedrivePolicy,
                policy.to_string(),
            )
            .await?;
        }
        if configured.is_empty() {
            return Ok((url, arn));
        }
        // An emulator has many addresses; the rest of the URL must be the same.
        if path_of(configured) != path_of(&url) {
            return Err(failed(format!("it would be {url} here, not {configured}")));
        }
        Ok((configured.to_owned(), arn))
    }

    /// Subscribes a queue to a topic.
    async fn subscribe(
        &self,
        topic: &str,
        queue: &str,
        queue_arn: &str,
    ) -> Result<(), NotProvisioned> {
        let name = name_of(queue);
        let attributes = self.attributes(name, queue).await?;
        if !has(&attributes, &QueueAttributeName::Policy) {
            let policy = json!({
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue_arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }],
            });
            self.set(name, queue, QueueAttributeName::Policy, policy.to_string())
                .await?;
        }
        let subscribe = self.sns.subscribe().topic_arn(topic).protocol("sqs");
        let subscribe = subscribe
            .endpoint(queue_arn)
            .attributes("RawMessageDelivery", "true");
        match Box::pin(subscribe.send()).await {
            Ok(_) => Ok(()),
            // It exists already, with envelopes, which are parsed, too.
            Err(error)
                if error
                    .message()
                    .is_some_and(|message| message.contains("already exists")) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(name, error_chain(&error))),
        }
    }

    async fn attributes(
        &self,
        name: &str,
        url: &str,
    ) -> Result<HashMap<QueueAttributeName, String>, NotProvisioned> {
        let get = self.sqs.get_queue_attributes().queue_url(url);
        let got = Box::pin(get.attribute_names(QueueAttributeName::All).send()).await;
        let got = got.map_err(|error| failed(name, error_chain(&error)))?;
        Ok(got.attributes.unwrap_or_default())
    }

    async fn set(
        &self,
        name: &str,
        url: &str,
        attribute: QueueAttributeName,
        value: String,
    ) -> Result<(), NotProvisioned> {
        let set = self.sqs.set_queue_attributes().queue_url(url);
        let set = Box::pin(set.attributes(attribute, value).send()).await;
        set.map(drop)
            .map_err(|error| failed(name, error_chain(&error)))
    }
}

fn failed(name: &str, cause: String) -> NotProvisioned {
    NotProvisioned {
        name: name.to_owned(),
        cause,
    }
}

fn has(attributes: &HashMap<QueueAttributeName, String>, name: &QueueAttributeName) -> bool {
    attributes.get(name).is_some_and(|value| !value.is_empty())
}

/// A URL's path.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_end_of_an_arn_or_of_a_url() {
        for (place, name) in [
            (
                "arn:aws:sns:eu-west-2:123450000001:events-topic",
                "events-topic",
            ),
            (
                "http://127.0.0.1:9911/123450000001/events-queue",
                "events-queue",
            ),
            (
                "http://127.0.0.1:9911/123450000001/events-queue/",
                "events-queue",
            ),
            ("plain", "plain"),
        ] {
            assert_eq!(name_of(place), name);
        }
    }

    #[test]
    fn a_queue_is_the_same_at_any_address_of_its_emulator() {
        assert_eq!(
            path_of("http://localhost:9911/1/events-queue/"),
            path_of("http://127.0.0.1:80/1/events-queue")
        );
        assert_ne!(
            path_of("http://127.0.0.1:80/1/events-queue"),
            path_of("http://127.0.0.1:80/2/events-queue")
        );
        assert_eq!(path_of("http://127.0.0.1:80"), "");
    }
}
