//! The section `couriers`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use super::model::Join;
use crate::values::config::{WITHOUT_AWS, refuse_if, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    #[garde(custom(refuse_if(
        cfg!(not(feature = "redis")) && self.store == StoreKind::Redis,
        "this build is without the feature `redis`"
    )))]
    pub store: StoreKind,
    #[garde(custom(refuse_if(cfg!(not(feature = "aws")) && self.events == Source::Sqs, WITHOUT_AWS)))]
    pub events: Source,
    #[garde(custom(refuse_if(
        self.roles.is_empty(),
        "it must name \"dispatcher\", \"directory\", or both"
    )))]
    pub roles: Vec<Role>,
    /// Empty: found by the name that `aws.provision` gives it; so are the next four.
    #[garde(custom(refuse_if(!is_topic(&self.events_topic_arn), TOPIC)))]
    pub events_topic_arn: String,
    #[garde(custom(refuse_if(!is_queue(&self.events_queue_url), QUEUE)))]
    pub events_queue_url: String,
    #[garde(custom(refuse_if(!is_topic(&self.assignments_topic_arn), TOPIC)))]
    pub assignments_topic_arn: String,
    #[garde(custom(refuse_if(!is_queue(&self.assignments_queue_url), QUEUE)))]
    pub assignments_queue_url: String,
    #[garde(custom(refuse_if(!is_queue(&self.dead_letter_queue_url), QUEUE)))]
    pub dead_letter_queue_url: String,
    /// Of received messages, rounded up to whole seconds; the bounds are those of SQS.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "12h")))]
    pub visibility: Duration,
    pub join: Join,
    #[garde(custom(within(1024, 64 << 20)))]
    pub events_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Sqlite,
    Redis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Http,
    /// Over HTTP, and through SNS and SQS.
    Sqs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Consumes events, decides, and publishes assignments.
    Dispatcher,
    /// Consumes assignments, and answers queries.
    Directory,
}

impl Config {
    /// Whether this process has a role in the exchange of messages.
    pub fn has(&self, role: Role) -> bool {
        self.events == Source::Sqs && self.roles.contains(&role)
    }
}

const TOPIC: &str = "it must be like arn:aws:sns:eu-west-2:123450000001:events-topic";
const QUEUE: &str = "it must begin with https:// or http://";

fn is_topic(arn: &str) -> bool {
    let parts: Vec<&str> = arn.split(':').collect();
    let is_arn = matches!(parts[..], ["arn", _, "sns", _, _, _]);
    arn.is_empty() || is_arn && parts.iter().all(|part| !part.is_empty())
}

fn is_queue(url: &str) -> bool {
    url.is_empty() || url.starts_with("http://") || url.starts_with("https://")
}
