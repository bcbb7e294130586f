//! The sections `couriers` and `redis`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, duration, time_within, within, wrong};

/// SQS counts in whole seconds, ...
const VISIBILITY_MIN: Duration = Duration::from_secs(1);
/// ... up to this many.
const VISIBILITY_MAX: Duration = Duration::from_secs(12 * 3600);

const EVENTS_TOPIC_ARN: &str = "couriers.events_topic_arn";
const EVENTS_QUEUE_URL: &str = "couriers.events_queue_url";
const ASSIGNMENTS_TOPIC_ARN: &str = "couriers.assignments_topic_arn";
const ASSIGNMENTS_QUEUE_URL: &str = "couriers.assignments_queue_url";
const DEAD_LETTER_QUEUE_URL: &str = "couriers.dead_letter_queue_url";

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Couriers {
    pub store: CourierStore,
    pub events: CourierEvents,
    pub roles: Vec<CourierRole>,
    /// Empty: found by the name that `aws.provision` gives it; so are the next four.
    pub events_topic_arn: String,
    pub events_queue_url: String,
    pub assignments_topic_arn: String,
    pub assignments_queue_url: String,
    pub dead_letter_queue_url: String,
    #[serde(with = "duration")]
    pub visibility: Duration,
    pub join: CourierJoin,
    pub events_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CourierStore {
    Sqlite,
    Redis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CourierEvents {
    Http,
    /// Over HTTP, and through SNS and SQS.
    Sqs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CourierRole {
    /// Consumes events, decides, and publishes assignments.
    Dispatcher,
    /// Consumes assignments, and answers queries.
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CourierJoin {
    Zero,
    /// The least count in the zone.
    Min,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// With credentials.
    pub url: Secret,
    /// The file that `url` was read from; empty: none.
    pub url_file: PathBuf,
    /// With credentials; empty: no Sentinels.
    pub sentinels: Vec<Secret>,
    /// The primary's name at the Sentinels.
    pub sentinel_primary: String,
}

impl Couriers {
    pub fn has(&self, role: CourierRole) -> bool {
        self.events == CourierEvents::Sqs && self.roles.contains(&role)
    }

    /// Topic ARNs by key.
    pub(super) fn topics(&self) -> [(&'static str, &str); 2] {
        [
            (EVENTS_TOPIC_ARN, &self.events_topic_arn),
            (ASSIGNMENTS_TOPIC_ARN, &self.assignments_topic_arn),
        ]
    }

    /// Queue URLs by key.
    pub(super) fn queues(&self) -> [(&'static str, &str); 3] {
        [
            (EVENTS_QUEUE_URL, &self.events_queue_url),
            (ASSIGNMENTS_QUEUE_URL, &self.assignments_queue_url),
            (DEAD_LETTER_QUEUE_URL, &self.dead_letter_queue_url),
        ]
    }

    /// `provision`: unnamed topics and queues are created under default names.
    pub(super) fn check(&self, provision: bool) -> Result<(), ConfigError> {
        if cfg!(not(feature = "redis")) && self.store == CourierStore::Redis {
            let detail = "this build is without the feature `redis`";
            return Err(wrong("couriers.store", detail));
        }
        if cfg!(not(feature = "aws")) && self.events == CourierEvents::Sqs {
            let detail = "this build is without the feature `aws`";
            return Err(wrong("couriers.events", detail));
        }
        let largest = self.events_max_bytes;
        within("couriers.events_max_bytes", largest, 1024, 64 << 20)?;
        time_within(
            "couriers.visibility",
            self.visibility,
            VISIBILITY_MIN,
            VISIBILITY_MAX,
        )?;
        if self.roles.is_empty() {
            let detail = "it must name \"dispatcher\", \"directory\", or both";
            return Err(wrong("couriers.roles", detail));
        }
        for (key, arn) in self.topics() {
            let parts: Vec<&str> = arn.split(':').collect();
            let fits = matches!(parts[..], ["arn", _, "sns", _, _, _])
                && parts.iter().all(|part| !part.is_empty());
            if !arn.is_empty() && !fits {
                let detail = "it must be like arn:aws:sns:eu-west-2:123450000001:events-topic";
                return Err(wrong(key, detail));
            }
        }
        for (key, url) in self.queues() {
            if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(wrong(key, "it must begin with https:// or http://"));
            }
        }
        let needed = |key| match key {
            EVENTS_QUEUE_URL | ASSIGNMENTS_TOPIC_ARN => self.has(CourierRole::Dispatcher),
            ASSIGNMENTS_QUEUE_URL => self.has(CourierRole::Directory),
            _ => self.events == CourierEvents::Sqs,
        };
        let [events_topic, assignments_topic] = self.topics();
        let [events_queue, assignments_queue, dead_letters] = self.queues();
        // In the manual's order.
        for (key, value) in [
            events_topic,
            events_queue,
            assignments_topic,
            assignments_queue,
            dead_letters,
        ] {
            if needed(key) && value.is_empty() && !provision {
                let detail =
                    "with `couriers.events = \"sqs\"` it must be set, or `aws.provision` be true";
                return Err(wrong(key, detail));
            }
        }
        Ok(())
    }
}

impl Redis {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let over_network = ["redis://", "rediss://"];
        let here = ["redis+unix://", "unix://"];
        let begins = |url: &Secret, known: &[&str]| {
            let url = url.expose();
            known.iter().any(|scheme| url.starts_with(scheme))
        };
        let is_remote = begins(&self.url, &over_network);
        if !is_remote && !begins(&self.url, &here) {
            let detail = "it must be like redis://127.0.0.1:6379, rediss://redis:6379 or redis+unix:///run/redis.sock";
            return Err(wrong("redis.url", detail));
        }
        if self.sentinels.is_empty() {
            return Ok(());
        }
        if !is_remote {
            let detail = "with `redis.sentinels` it must be like redis://127.0.0.1:6379: they name servers on the network";
            return Err(wrong("redis.url", detail));
        }
        if !self.sentinels.iter().all(|url| begins(url, &over_network)) {
            let detail = "they must be like redis://127.0.0.1:26379";
            return Err(wrong("redis.sentinels", detail));
        }
        if self.sentinel_primary.is_empty() {
            let detail = "with `redis.sentinels` it must be set";
            return Err(wrong("redis.sentinel_primary", detail));
        }
        Ok(())
    }
}
