//! Refuses keys that contradict one another: addresses, tables, topics and queues.
//!
//! Only what the configuration itself shows; what a service knows, such as whether a queue exists, is probed at the start.
//! There is one bucket and one Redis: nothing to compare.

use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use super::{Config, ConfigError, wrong};
use crate::couriers::config::Role::{Directory, Dispatcher};

/// The suffix of FIFO topics and queues.
const FIFO: &str = ".fifo";

/// A key, and the topic or queue that it names.
type Place<'a> = (&'static str, &'a str);

impl Config {
    pub(super) fn check_contradictions(&self) -> Result<(), ConfigError> {
        let (customers, staff) = (self.customers.listen, self.staff.listen);
        if overlap(customers, staff) {
            let detail = format!("`customers.listen` ({customers}) takes the same port; change it");
            return Err(wrong("staff.listen", &detail));
        }
        let (table, packages) = (&self.assignments.table, &self.assignments.packages_table);
        let tables = [
            ("assignments.table", table.clone()),
            ("assignments.packages_table", packages.clone()),
        ];
        distinct("table", tables)?;
        self.check_messages()
    }

    fn check_messages(&self) -> Result<(), ConfigError> {
        let (topics, queues) = (self.topics(), self.queues());
        let couriers = &self.couriers;
        let (decides, answers) = (couriers.has(Dispatcher), couriers.has(Directory));
        let needed = [
            (topics[0], decides || answers),
            (queues[0], decides),
            (topics[1], decides),
            (queues[1], answers),
            (queues[2], decides || answers),
        ];
        let provision = self.aws.provision;
        for ((key, place), is_needed) in needed {
            if is_needed && place.is_empty() && !provision {
                let detail =
                    "with `couriers.events = \"sqs\"` it must be set, or `aws.provision` be true";
                return Err(wrong(key, detail));
            }
            if place.trim_end_matches('/').ends_with(FIFO) {
                let detail = "FIFO is not supported: with `couriers.events = \"sqs\"` messages are sent without the \
                              message group ID that it requires; name a standard topic or queue";
                return Err(wrong(key, detail));
            }
        }
        if let Some((first, region)) = self.regions().next() {
            for (key, other) in self.regions() {
                if other != region {
                    let detail = format!(
                        "it is in the region {other}, but `{first}` is in {region}; put all topics and queues in one region"
                    );
                    return Err(wrong(key, &detail));
                }
            }
        }
        let identified = |places: &[Place<'_>]| {
            let named = places
                .iter()
                .filter(|(_, place)| provision || !place.is_empty());
            let named = named.map(|(key, place)| (*key, identity(key, place, provision)));
            named.collect::<Vec<_>>()
        };
        distinct("topic", identified(&topics))?;
        distinct("queue", identified(&queues))
    }

    /// Compares the region of topics and queues with the AWS SDK's: all calls go there, whatever an ARN or a URL names.
    ///
    /// # Errors
    /// If they differ, or the SDK has none; the message names the key and `AWS_REGION`.
    pub fn check_region(&self, sdk: Option<&str>) -> Result<(), ConfigError> {
        // All are in one region.
        let Some((key, region)) = self.regions().next() else {
            return Ok(());
        };
        if sdk == Some(region.as_str()) {
            return Ok(());
        }
        let called = sdk.map_or_else(
            || "the AWS SDK has no region".to_owned(),
            |sdk| format!("the AWS SDK calls {sdk}"),
        );
        let detail = format!(
            "it is in the region {region}, but {called}; set `AWS_REGION={region}`, or change this key"
        );
        Err(wrong(key, &detail))
    }

    /// The keys whose values name a region, and that region.
    fn regions(&self) -> impl Iterator<Item = (&'static str, String)> {
        let places = self.topics().into_iter().chain(self.queues());
        places.filter_map(|(key, place)| Some((key, region(place)?)))
    }

    /// Of events, and of assignments.
    fn topics(&self) -> [Place<'_>; 2] {
        let it = &self.couriers;
        let assignments = &it.assignments_topic_arn;
        [
            ("couriers.events_topic_arn", &it.events_topic_arn),
            ("couriers.assignments_topic_arn", assignments),
        ]
    }

    /// Of events, of assignments, and of dead letters.
    fn queues(&self) -> [Place<'_>; 3] {
        let it = &self.couriers;
        let (assignments, dead) = (&it.assignments_queue_url, &it.dead_letter_queue_url);
        [
            ("couriers.events_queue_url", &it.events_queue_url),
            ("couriers.assignments_queue_url", assignments),
            ("couriers.dead_letter_queue_url", dead),
        ]
    }
}

/// Refuses two keys with the same value.
fn distinct(
    kind: &str,
    places: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), ConfigError> {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (key, place) in places {
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == place) {
            let detail = format!(
                "it is the {kind} {place}, which `{other}` names too; each key needs its own {kind}"
            );
            return Err(wrong(key, &detail));
        }
        seen.push((key, place));
    }
    Ok(())
}

/// Whether two listeners conflict. An unspecified address includes all of its family.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || same_family && all)
}

/// The identity of a topic or queue: account and name, not the host of its URL, because calls go to the SDK's endpoint.
/// With `provision` all are of one account, and one without a value is created under the name in its key: events-queue for
/// `couriers.events_queue_url`.
fn identity(key: &str, place: &str, provision: bool) -> String {
    if place.is_empty() {
        let name = key.strip_prefix("couriers.").unwrap_or(key);
        let name = name.rsplit_once('_').map_or(name, |(name, _)| name);
        return name.replace('_', "-");
    }
    let place = percent_decode_str(place).decode_utf8_lossy();
    let parts = place.rsplit(['/', ':']).filter(|part| !part.is_empty());
    let mut parts: Vec<&str> = parts.take(if provision { 1 } else { 2 }).collect();
    parts.reverse();
    parts.join("/")
}

/// The region in an ARN, or in a queue's URL if that is one of Amazon's.
fn region(place: &str) -> Option<String> {
    if let Some(arn) = place.strip_prefix("arn:") {
        // partition:service:region:account:name
        return arn.split(':').nth(2).map(str::to_owned);
    }
    let host = place.split("//").nth(1)?.split(['/', ':']).next()?;
    let host = host.to_ascii_lowercase();
    if host == "queue.amazonaws.com" {
        // The oldest region's URLs have none.
        return Some("us-east-1".to_owned());
    }
    let amazons = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"];
    if !amazons.iter().any(|end| host.ends_with(end)) {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    labels.windows(2).find_map(|pair| match pair {
        // Also below a VPC endpoint; the second form is an older one.
        ["sqs" | "sqs-fips", region] | [region, "queue"] => Some((*region).to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
