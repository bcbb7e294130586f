use super::*;

/// The tables' short names of keys. `region` is no key: it is the SDK's `AWS_REGION`.
const KEYS: [(&str, &str); 11] = [
    ("mode", "couriers.events"),
    ("events", "couriers.events_queue_url"),
    ("assignments", "couriers.assignments_queue_url"),
    ("dead", "couriers.dead_letter_queue_url"),
    ("events_topic", "couriers.events_topic_arn"),
    ("assignments_topic", "couriers.assignments_topic_arn"),
    ("table", "assignments.table"),
    ("packages_table", "assignments.packages_table"),
    ("customers", "customers.listen"),
    ("staff", "staff.listen"),
    ("region", "AWS_REGION"),
];

const CONTRADICTIONS: &str = "
    # The same queue, however it is written.
    events=http://e/1/q       dead=http://e/1/q
    assignments=http://e/1/q  dead=http://e/1/q
    events=http://e/1/q       assignments=http://e/1/q
    events=http://e/1/q       dead=http://e/1/q/
    events=http://e/1/q       dead=http://E/1/q
    events=http://e/1/q       dead=http://127.0.0.1:80/1/q
    events=http://e/1/q-r     dead=http://e/1/q%2Dr
    events=http://e/1/q       dead=http://e/queue/x-1/1/q
    events=https://sqs.eu-west-2.amazonaws.com/1/q  dead=https://SQS.eu-west-2.AmazonAWS.com/1/q
    events=https://sqs.eu-west-2.amazonaws.com/1/q  dead=https://sqs.eu-west-2.amazonaws.com:443/1/q
    events=https://sqs.eu-west-2.amazonaws.com/1/q  dead=https://eu-west-2.queue.amazonaws.com/1/q
    # The same topic.
    events_topic=arn:aws:sns:eu-west-2:1:t  assignments_topic=arn:aws:sns:eu-west-2:1:t
    # FIFO.
    events_topic=arn:aws:sns:r:1:t.fifo       mode=http
    assignments_topic=arn:aws:sns:r:1:t.fifo  mode=http
    events=http://e/1/q.fifo                  mode=http
    assignments=http://e/1/q.fifo             mode=http
    dead=http://e/1/q.fifo/                   mode=http
    # Two regions.
    events_topic=arn:aws:sns:eu-west-2:1:t  assignments_topic=arn:aws:sns:eu-west-1:1:u
    events_topic=arn:aws:sns:eu-west-2:1:t  events=https://sqs.us-east-1.amazonaws.com/1/q
    events_topic=arn:aws:sns:eu-west-2:1:t  dead=https://sqs-fips.us-east-1.amazonaws.com/1/q
    events=https://sqs.eu-west-2.amazonaws.com/1/q       dead=https://queue.amazonaws.com/1/r
    events_topic=arn:aws:sns:eu-west-2:1:t               region=eu-west-1
    assignments=https://sqs.eu-west-2.amazonaws.com/1/q  region=eu-west-1
    events_topic=arn:aws:sns:eu-west-2:1:t               region=
    # The same table, and the same port.
    table=Packages            packages_table=Packages
    customers=127.0.0.1:9000  staff=localhost:9000
    customers=0.0.0.0:9000    staff=127.0.0.1:9000
";

/// With `aws.provision`: what is empty is created under the name that the other key has.
const PROVISIONED_CONTRADICTIONS: &str = "
    events=                          dead=http://e/1/events-queue
    assignments=                     dead=http://e/1/assignments-queue
    events=http://e/1/dead-letter-queue  dead=
    events_topic=                    assignments_topic=arn:aws:sns:eu-west-2:1:events-topic
    events_topic=arn:aws:sns:eu-west-2:1:assignments-topic  assignments_topic=
";

const ACCEPTED: &str = "
    # Names that differ by a letter's case, by an end, or by the account.
    events=http://e/1/q  dead=http://e/1/Q
    events=http://e/1/q  dead=http://e/1/q-dead
    events=http://e/1/q  dead=http://e/2/q
    events_topic=arn:aws:sns:eu-west-2:1:t  assignments_topic=arn:aws:sns:eu-west-2:1:u
    events_topic=arn:aws:sns:eu-west-2:1:t  assignments_topic=arn:aws:sns:eu-west-2:1:T
    events=https://sqs.eu-west-2.amazonaws.com/1/q  dead=https://sqs.eu-west-2.amazonaws.com/1/r
    # A topic and a queue may share a name.
    events_topic=arn:aws:sns:eu-west-2:1:t  events=http://e/1/t
    # The names of FIFO queues end in .fifo.
    events=http://e/1/q-fifo  dead=http://e/1/fifo
    # Hosts of one region; an emulator's has none.
    events_topic=arn:aws:sns:eu-west-2:1:t          events=https://sqs.eu-west-2.api.aws/1/q
    events=https://sqs.eu-west-2.amazonaws.com/1/q  dead=https://vpce-1.sqs.eu-west-2.vpce.amazonaws.com/1/r
    events=http://sqs.us-east-1.localhost:4566/1/q  dead=https://sqs.eu-west-2.amazonaws.com/1/r
    events=http://e/1/q                             region=
    # Nothing is created under this name.
    dead=http://e/1/events-queue
    table=Packages            packages_table=packages
    customers=127.0.0.1:0     staff=127.0.0.1:0
    customers=127.0.0.2:9000  staff=127.0.0.1:9000
    customers=[::1]:9000      staff=127.0.0.1:9000
";

/// Each has the default name of the other.
const PROVISIONED_ACCEPTED: &str = "
    events=http://e/1/dead-letter-queue  dead=http://e/1/events-queue
";

/// The lines of a table: keys and their values.
fn cases(table: &str) -> impl Iterator<Item = Vec<(&'static str, &str)>> {
    let lines = table.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let settings = line
            .split_whitespace()
            .map(|it| it.split_once('=').unwrap());
        let key = |name| KEYS.iter().find(|(short, _)| *short == name).unwrap().1;
        settings.map(|(name, value)| (key(name), value)).collect()
    })
}

/// Loads it as at the start, and compares it with the SDK's region, by default eu-west-2.
fn start(settings: &[(&str, &str)], provision: bool) -> Result<(), ConfigError> {
    let (mut text, mut sdk) = (format!("aws.provision = {provision}\n"), "eu-west-2");
    for (key, value) in settings {
        if *key == "AWS_REGION" {
            sdk = value;
        } else {
            text = format!("{key} = '{value}'\n{text}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::read(Some(&file), [])?;
    config.check_region(Some(sdk).filter(|region| !region.is_empty()))
}

#[test]
fn two_keys_that_contradict_each_other_are_refused_and_both_named() {
    for (provision, table) in [(false, CONTRADICTIONS), (true, PROVISIONED_CONTRADICTIONS)] {
        for settings in cases(table) {
            let refused = start(&settings, provision).map_err(|error| error.to_string());
            let refused = refused.expect_err(&format!("{settings:?}"));
            for (key, _) in &settings {
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
    for (provision, table) in [(false, ACCEPTED), (true, PROVISIONED_ACCEPTED)] {
        for settings in cases(table).chain([Vec::new()]) {
            let started = start(&settings, provision);
            assert!(started.is_ok(), "{settings:?} is refused: {started:?}");
        }
    }
}
