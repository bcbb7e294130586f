//! Refuses keys that conflict: addresses, tables, topics and queues.
//!
//! Only what the configuration itself shows; what a service knows, such as whether a queue exists, is probed at the start.
//! There is one bucket and one Redis: nothing to compare.

use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use super::{Config, ConfigError, Couriers, wrong};

/// The suffix of FIFO topics and queues.
const FIFO: &str = ".fifo";

impl Config {
    pub(super) fn check_places(&self) -> Result<(), ConfigError> {
        let (customers, staff) = (self.customers.listen, self.staff.listen);
        if overlap(customers, staff) {
            let detail = format!("`customers.listen` ({customers}) takes the same port; change it");
            return Err(wrong("staff.listen", &detail));
        }
        let assignments = &self.assignments;
        distinct(
            "table",
            [
                ("assignments.table", assignments.table.clone()),
                (
                    "assignments.packages_table",
                    assignments.packages_table.clone(),
                ),
            ],
        )?;
        self.couriers.check_places(self.aws.provision)
    }
}

impl Couriers {
    fn check_places(&self, provision: bool) -> Result<(), ConfigError> {
        for (key, place) in self.topics().into_iter().chain(self.queues()) {
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
        let identified = |places: &[(&'static str, &str)]| {
            let named = places
                .iter()
                .filter(|(_, place)| provision || !place.is_empty());
            let named = named.map(|(key, place)| (*key, identity(key, place, provision)));
            named.collect::<Vec<_>>()
        };
        distinct("topic", identified(&self.topics()))?;
        distinct("queue", identified(&self.queues()))
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
mod tests {
    use super::*;

    const EVENTS: &str = "couriers.events_queue_url";
    const ASSIGNMENTS: &str = "couriers.assignments_queue_url";
    const DEAD: &str = "couriers.dead_letter_queue_url";
    const EVENTS_TOPIC: &str = "couriers.events_topic_arn";
    const ASSIGNMENTS_TOPIC: &str = "couriers.assignments_topic_arn";
    const TABLE: &str = "assignments.table";
    const PACKAGES_TABLE: &str = "assignments.packages_table";
    const CUSTOMERS: &str = "customers.listen";
    const STAFF: &str = "staff.listen";
    /// No key: the SDK's own variable.
    const REGION: &str = "AWS_REGION";

    const Q: &str = "https://sqs.eu-west-2.amazonaws.com/1/q";
    const R: &str = "https://sqs.eu-west-2.amazonaws.com/1/r";
    const T: &str = "arn:aws:sns:eu-west-2:1:t";
    const U: &str = "arn:aws:sns:eu-west-2:1:u";

    /// Keys, or `AWS_REGION`, and their values.
    type Settings<'a> = &'a [(&'a str, &'a str)];

    const CONTRADICTIONS: &[[(&str, &str); 2]] = &[
        // The same queue, however it is written.
        [(EVENTS, "http://e/1/q"), (DEAD, "http://e/1/q")],
        [(ASSIGNMENTS, "http://e/1/q"), (DEAD, "http://e/1/q")],
        [(EVENTS, "http://e/1/q"), (ASSIGNMENTS, "http://e/1/q")],
        [(EVENTS, "http://e/1/q"), (DEAD, "http://e/1/q/")],
        [(EVENTS, "http://e/1/q"), (DEAD, "http://E/1/q")],
        [(EVENTS, "http://e/1/q"), (DEAD, "http://127.0.0.1:80/1/q")],
        [(EVENTS, "http://e/1/q-r"), (DEAD, "http://e/1/q%2Dr")],
        [(EVENTS, "http://e/1/q"), (DEAD, "http://e/queue/x-1/1/q")],
        [
            (EVENTS, Q),
            (DEAD, "https://SQS.eu-west-2.AmazonAWS.com/1/q"),
        ],
        [
            (EVENTS, Q),
            (DEAD, "https://sqs.eu-west-2.amazonaws.com:443/1/q"),
        ],
        [
            (EVENTS, Q),
            (DEAD, "https://eu-west-2.queue.amazonaws.com/1/q"),
        ],
        // The same topic.
        [(EVENTS_TOPIC, T), (ASSIGNMENTS_TOPIC, T)],
        // FIFO.
        [
            (EVENTS_TOPIC, "arn:aws:sns:r:1:t.fifo"),
            ("couriers.events", "http"),
        ],
        [
            (ASSIGNMENTS_TOPIC, "arn:aws:sns:r:1:t.fifo"),
            ("couriers.events", "http"),
        ],
        [(EVENTS, "http://e/1/q.fifo"), ("couriers.events", "http")],
        [
            (ASSIGNMENTS, "http://e/1/q.fifo"),
            ("couriers.events", "http"),
        ],
        [(DEAD, "http://e/1/q.fifo/"), ("couriers.events", "http")],
        // Two regions.
        [
            (EVENTS_TOPIC, T),
            (ASSIGNMENTS_TOPIC, "arn:aws:sns:eu-west-1:1:u"),
        ],
        [
            (EVENTS_TOPIC, T),
            (EVENTS, "https://sqs.us-east-1.amazonaws.com/1/q"),
        ],
        [
            (EVENTS_TOPIC, T),
            (DEAD, "https://sqs-fips.us-east-1.amazonaws.com/1/q"),
        ],
        [(EVENTS, Q), (DEAD, "https://queue.amazonaws.com/1/r")],
        [(EVENTS_TOPIC, T), (REGION, "eu-west-1")],
        [(ASSIGNMENTS, Q), (REGION, "eu-west-1")],
        [(EVENTS_TOPIC, T), (REGION, "")],
        // The same table, and the same port.
        [(TABLE, "Packages"), (PACKAGES_TABLE, "Packages")],
        [(CUSTOMERS, "127.0.0.1:9000"), (STAFF, "localhost:9000")],
        [(CUSTOMERS, "0.0.0.0:9000"), (STAFF, "127.0.0.1:9000")],
    ];

    /// With `aws.provision`: what is empty is created under the name that the other key has.
    const PROVISIONED_CONTRADICTIONS: &[[(&str, &str); 2]] = &[
        [(EVENTS, ""), (DEAD, "http://e/1/events-queue")],
        [(ASSIGNMENTS, ""), (DEAD, "http://e/1/assignments-queue")],
        [(EVENTS, "http://e/1/dead-letter-queue"), (DEAD, "")],
        [
            (EVENTS_TOPIC, ""),
            (ASSIGNMENTS_TOPIC, "arn:aws:sns:eu-west-2:1:events-topic"),
        ],
        [
            (EVENTS_TOPIC, "arn:aws:sns:eu-west-2:1:assignments-topic"),
            (ASSIGNMENTS_TOPIC, ""),
        ],
    ];

    fn toml(settings: Settings<'_>, provision: bool) -> String {
        let keys = settings.iter().filter(|(key, _)| *key != REGION);
        let lines = keys.map(|(key, value)| format!("{key} = '{value}'\n"));
        lines.collect::<String>() + &format!("aws.provision = {provision}\n")
    }

    /// Loads it as at the start, and compares it with the SDK's region, by default eu-west-2.
    fn start(settings: Settings<'_>, provision: bool) -> Result<(), ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("odyssey.toml");
        std::fs::write(&file, toml(settings, provision)).unwrap();
        let config = Config::read(Some(&file), [])?;
        let region = settings.iter().find(|(key, _)| *key == REGION);
        let region = region.map_or("eu-west-2", |(_, region)| *region);
        let sdk = Some(region).filter(|region| !region.is_empty());
        config.couriers.check_region(sdk)
    }

    #[test]
    fn two_keys_that_contradict_each_other_are_refused_and_both_named() {
        for (provision, table) in [(false, CONTRADICTIONS), (true, PROVISIONED_CONTRADICTIONS)] {
            for settings in table {
                let refused = start(settings, provision).map_err(|error| error.to_string());
                let refused = refused.expect_err(&format!("{settings:?}"));
                for (key, _) in settings {
                    // As a key, or with a value.
                    let named = ["`", " = ", "="].map(|end| format!("`{key}{end}"));
                    let named = named.iter().any(|named| refused.contains(named));
                    assert!(named, "{settings:?} is refused without `{key}`: {refused}");
                }
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_contradiction_is_accepted() {
        let plain: &[Settings<'_>] = &[
            &[],
            // Names that differ by a letter's case, by an end, or by the account.
            &[(EVENTS, "http://e/1/q"), (DEAD, "http://e/1/Q")],
            &[(EVENTS, "http://e/1/q"), (DEAD, "http://e/1/q-dead")],
            &[(EVENTS, "http://e/1/q"), (DEAD, "http://e/2/q")],
            &[
                (EVENTS_TOPIC, T),
                (ASSIGNMENTS_TOPIC, U),
                (EVENTS, Q),
                (DEAD, R),
            ],
            &[
                (EVENTS_TOPIC, T),
                (ASSIGNMENTS_TOPIC, "arn:aws:sns:eu-west-2:1:T"),
            ],
            // A topic and a queue may share a name.
            &[(EVENTS_TOPIC, T), (EVENTS, "http://e/1/t")],
            // The names of FIFO queues end in .fifo.
            &[(EVENTS, "http://e/1/q-fifo"), (DEAD, "http://e/1/fifo")],
            // Hosts of one region; an emulator's has none.
            &[
                (EVENTS_TOPIC, T),
                (EVENTS, "https://sqs.eu-west-2.api.aws/1/q"),
            ],
            &[
                (EVENTS, Q),
                (DEAD, "https://vpce-1.sqs.eu-west-2.vpce.amazonaws.com/1/r"),
            ],
            &[(EVENTS, "http://e/1/q"), (REGION, "")],
            &[
                (EVENTS, "http://sqs.us-east-1.localhost:4566/1/q"),
                (DEAD, R),
            ],
            // Nothing is created under this name.
            &[(DEAD, "http://e/1/events-queue")],
            &[(TABLE, "Packages"), (PACKAGES_TABLE, "packages")],
            &[(CUSTOMERS, "127.0.0.1:0"), (STAFF, "127.0.0.1:0")],
            &[(CUSTOMERS, "127.0.0.2:9000"), (STAFF, "127.0.0.1:9000")],
            &[(CUSTOMERS, "[::1]:9000"), (STAFF, "127.0.0.1:9000")],
        ];
        let provisioned: &[Settings<'_>] = &[
            &[],
            // Each has the default name of the other.
            &[
                (EVENTS, "http://e/1/dead-letter-queue"),
                (DEAD, "http://e/1/events-queue"),
            ],
        ];
        for (provision, table) in [(false, plain), (true, provisioned)] {
            for settings in table {
                let started = start(settings, provision);
                assert!(started.is_ok(), "{settings:?} is refused: {started:?}");
            }
        }
    }
}
