use std::time::Duration;

use super::*;
use crate::telemetry::config::LogFormat;
use crate::values::config::Text;

fn with(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = environment.iter().copied();
    Config::read(
        None,
        variables.map(|(key, value)| (key.into(), value.into())),
    )
}

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("ODYSSEY_{}", key.replace('.', "__").to_uppercase())
}

fn set(key: &str, value: &str) -> Result<Config, ConfigError> {
    with(&[(&variable(key), value)])
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    std::fs::write(&file, "[orders]\nlease = \"90s\"\nattempts_max = 7\n").unwrap();
    let environment = [("ODYSSEY_ORDERS__LEASE".into(), "1h 30m".into())];
    let config = Config::read(Some(&file), environment).unwrap();
    assert_eq!(config.orders.lease, Duration::from_secs(5400));
    assert_eq!(config.orders.attempts_max, 7);
    assert_eq!(config.orders.waiting_max, 10_000);
}

#[test]
fn every_kind_of_value_can_come_from_the_environment() {
    let config = with(&[
        ("ODYSSEY_CUSTOMERS__H2C", "true"),
        ("ODYSSEY_CUSTOMERS__CONNECTIONS_MAX", "77"),
        ("ODYSSEY_HTTP__BODY_MAX_BYTES", "1000"),
        ("ODYSSEY_LOG__FORMAT", "json"),
        ("ODYSSEY_STAFF__LISTEN", "[::1]:0"),
    ])
    .unwrap();
    assert!(config.customers.h2c);
    assert_eq!(config.customers.connections_max, Some(77));
    assert_eq!(config.http.body_max_bytes, 1000);
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.staff.listen.is_ipv6());
    let config = with(&[
        ("ODYSSEY_FLOOD__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1"),
        ("ODYSSEY_FLOOD__EXEMPT", ""),
    ])
    .unwrap();
    let proxies = ["10.0.0.0/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
    assert_eq!(config.flood.trusted_proxies, proxies);
    assert!(config.flood.exempt.is_empty());
}

#[test]
fn networks_of_a_file_may_have_spaces_around_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("odyssey.toml");
    std::fs::write(&file, "[flood]\nexempt = [\" 10.0.0.0/8\", \" \"]\n").unwrap();
    let config = Config::read(Some(&file), []).unwrap();
    assert_eq!(config.flood.exempt, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn a_mistake_is_refused_with_the_key_named() {
    let refused = |key, value| set(key, value).expect_err(key).to_string();
    for (key, value) in [
        ("orders.leese", "1s"),
        ("order.lease", "1s"),
        ("orders.lease", "soon"),
        ("orders.lease", "-5s"),
        ("orders.waiting_max", "many"),
        ("customers.listen", "localhost"),
        ("customers.connections_max", "lots"),
        ("flood.mode", "panic"),
        ("flood.exempt", "10.0.0.0/8,nobody"),
        ("data_dir", ""),
        ("deliveries.graph", "loose"),
        ("packages.remember", "always"),
        ("storage.free_min", "-1"),
        ("assignments.store", "paper"),
        ("assignments.table", "a b"),
        ("assignments.packages_table", "DeliveryAssignments"),
        ("couriers.store", "paper"),
        ("couriers.roles", "boss"),
        ("couriers.roles", ""),
        ("couriers.events_topic_arn", "events"),
        ("couriers.events_queue_url", "events"),
        ("redis.url", "localhost:6379"),
        ("redis.sentinels", "localhost:26379"),
        ("oplog.sse", "aes256"),
        ("oplog.kms_key", "alias/odyssey"),
        ("aws.provision", "perhaps"),
        ("log.format", "xml"),
        ("log.level", "odyssey=loud"),
    ] {
        let refused = refused(key, value);
        assert!(refused.contains(key), "{key} = {value}: {refused}");
    }
    assert!(refused("oplog.sink", "s3").contains("oplog.bucket"));
    #[cfg(feature = "aws")]
    assert!(refused("couriers.events", "sqs").contains("couriers.events_topic_arn"));
}

/// A key, a value that is wrong, and what is said of it.
const WRONG_VALUES: &[(&str, &str, &str)] = &[
    (
        "flood.mode",
        "on",
        r#""on" is not accepted: it must be one of "enforce", "observe", "off""#,
    ),
    (
        "log.format",
        "xml",
        r#""xml" is not accepted: it must be one of "auto", "text", "json""#,
    ),
    (
        "deliveries.graph",
        "any",
        r#""any" is not accepted: it must be "free" or "strict""#,
    ),
    (
        "couriers.roles",
        "boss",
        r#"["boss"] is not accepted: it must be "dispatcher" or "directory""#,
    ),
    (
        "customers.h2c",
        "yes",
        r#""yes" is not accepted: it must be true or false, without quotes"#,
    ),
    (
        "http.backlog",
        "many",
        r#""many" is not accepted: it must be a whole number, without quotes"#,
    ),
    (
        "http.backlog",
        "0",
        "0 is not accepted: it must be from 1 to 65535",
    ),
    (
        "flood.burst",
        "0",
        "0 is not accepted: it must be from 1 to 1000000",
    ),
    (
        "flood.ipv6_prefix",
        "300",
        "300 is not accepted: it is out of bounds; the manual says: Bits of an IPv6 address that make one client. 32 to 128.",
    ),
    (
        "http.backlog",
        "-1",
        "-1 is not accepted: it is out of bounds; the manual says: Connections that may wait",
    ),
    (
        "orders.lease",
        "soon",
        r#""soon" is not a duration such as 90s, 2m or 1h 30m"#,
    ),
    (
        "orders.lease",
        "10ms",
        r#""10ms" is not accepted: it must be from 1s to 24h"#,
    ),
    (
        "flood.exempt",
        "10.0.0.0/8,nobody",
        r#"["10.0.0.0/8", "nobody"] is not accepted: "nobody" is neither an address nor a network such as 10.0.0.0/8"#,
    ),
    (
        "staff.listen",
        "shop:8001",
        r#""shop:8001" is not accepted: it must be an IP address with a port, such as 127.0.0.1:8000"#,
    ),
    (
        "staff.listen",
        ":8001",
        r#"":8001" is not accepted: it must be an IP address with a port"#,
    ),
    (
        "staff.listen",
        "localhost",
        r#""localhost" is not accepted: it must be an IP address with a port"#,
    ),
    (
        "customers.connections_max",
        "many",
        r#""many" is not accepted: it must be a number from 1, or "auto""#,
    ),
    (
        "redis.url",
        "me:hunter2@redis",
        "*** is not accepted: it must be like redis://127.0.0.1:6379",
    ),
    (
        "redis.url_file",
        "no-such-file",
        r#""no-such-file" is not accepted: it cannot be read: No such file"#,
    ),
    (
        "orders.leese",
        "1m",
        "there is no such key; did you mean `orders.lease`?",
    ),
    (
        "order.lease",
        "1m",
        "there is no such key; did you mean `orders.lease`?",
    ),
    (
        "weather.rain",
        "yes",
        "there is no such key; `odyssey config --defaults` lists all keys",
    ),
];

#[test]
fn a_wrong_value_is_answered_with_the_value_and_the_form_that_is_right() {
    for &(key, value, message) in WRONG_VALUES {
        let error = set(key, value).expect_err(key).to_string();
        let expected = format!("configuration key `{key}`: {message}");
        assert!(error.starts_with(&expected), "{key}={value}: {error}");
    }
    let burst = (variable("flood.burst"), variable("flood.refill"));
    let error = with(&[(&burst.0, "1000000"), (&burst.1, "6h")]).expect_err("6h");
    let expected =
        "`flood.refill`: \"6h\" is not accepted: it must refill a burst of 1000000 within 24000h";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_wrong_value_in_a_file_is_answered_in_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    for (text, message) in [
        (
            "orders = 5",
            "`orders`: 5 is not accepted: it is a section: its keys follow a line such as [orders]",
        ),
        (
            "[orders]\nspeed = 9",
            "`orders.speed`: there is no such key",
        ),
        ("[order]", "`order`: there is no such key"),
        (
            "[http]\nbacklog = \"9\"",
            "`http.backlog`: \"9\" is not accepted: it must be a whole number, without quotes",
        ),
        (
            "[oplog]\ninstance = 12",
            "`oplog.instance`: 12 is not accepted: it must be text in quotes",
        ),
        (
            "[packages]\ntypes = \"a\"",
            "`packages.types`: \"a\" is not accepted: it must be a list of texts",
        ),
        (
            "[packages]\ntypes = [2024]",
            "`packages.types`: [2024] is not accepted: it must be a list of texts",
        ),
        (
            "[redis]\nurl = \"hunter2\"",
            "`redis.url`: *** is not accepted: it must be like redis://127.0.0.1:6379",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = Config::read(Some(&file), []).expect_err(text).to_string();
        let expected = format!("configuration key {message}");
        assert!(error.starts_with(&expected), "{text}: {error}");
    }
}

#[test]
fn the_environment_is_text_that_is_read_as_the_keys_kind() {
    for (key, value, line) in [
        ("oplog.instance", "0012", r#"instance = "0012""#),
        ("oplog.instance", "true", r#"instance = "true""#),
        ("oplog.prefix", "1.50", r#"prefix = "1.50""#),
        ("packages.types", "2024", r#"types = ["2024"]"#),
        (
            "packages.types",
            "gift, 2024,",
            r#"types = ["gift", "2024"]"#,
        ),
        ("flood.exempt", "", "exempt = []"),
        ("http.backlog", " 77 ", "backlog = 77"),
        ("customers.h2c", "TRUE", "h2c = true"),
        ("customers.connections_max", "077", "connections_max = 77"),
        (
            "staff.listen",
            "localhost:9001",
            r#"listen = "127.0.0.1:9001""#,
        ),
        ("staff.listen", "[::]:9001", r#"listen = "[::]:9001""#),
        ("data_dir", "5", r#"data_dir = "5""#),
    ] {
        let printed = set(key, value).unwrap().to_toml();
        let found = printed.lines().any(|printed| printed == line);
        assert!(found, "{key}={value}: {line} is missing:\n{printed}");
    }
}

/// A bound in the manual: it, and what is next to it on the wrong side.
fn bound(text: &str, sign: i128) -> Option<[String; 2]> {
    let whole = text.parse::<i128>().ok();
    whole
        .map(|bound| [bound, bound + sign].map(|number| number.to_string()))
        .or_else(|| {
            let time = i128::try_from(Duration::read(text).ok()?.as_nanos()).ok()?;
            Some([time, time + sign].map(|nanos| format!("{nanos}ns")))
        })
}

/// Of a key, the bounds that the manual gives: `1s to 24h`, `from 1`.
fn bounds(manual: &str) -> Vec<[String; 2]> {
    let words: Vec<&str> = manual.split_whitespace().collect();
    let pair = words.windows(3).rev().find_map(|three| match three {
        [least, "to", most] => Some(vec![
            bound(least, -1)?,
            bound(most.trim_end_matches(['.', ',', ';', ':']), 1)?,
        ]),
        _ => None,
    });
    let least = || {
        words.windows(2).find_map(|two| match two {
            ["from", least] => Some(vec![bound(least.trim_end_matches(['.', ',', ';']), -1)?]),
            _ => None,
        })
    };
    pair.or_else(least).unwrap_or_default()
}

#[test]
fn the_bounds_are_the_documented_ones() {
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let mut bounded = 0;
    for (key, value) in layers::leaves(&defaults) {
        let manual = manual(&key);
        let bounds = bounds(&manual);
        let is_duration = value
            .as_str()
            .is_some_and(|text| Duration::read(text).is_ok());
        if value.is_integer() || is_duration {
            assert_eq!(bounds.len(), 2, "{key}: {manual}");
        }
        for [accepted, refused] in bounds {
            // A name is bounded in its length.
            let written = |bound: &str| match value.as_str() {
                Some(text) if text.starts_with("Delivery") => "a".repeat(bound.parse().unwrap()),
                _ => bound.to_owned(),
            };
            let (accepted, refused) = (written(&accepted), written(&refused));
            if let Err(error) = set(&key, &accepted) {
                panic!("{accepted}: {error}");
            }
            let error = set(&key, &refused).expect_err(&format!("{key} = {refused}"));
            assert!(error.to_string().contains(&key), "{error}");
            bounded += 1;
        }
    }
    assert!(bounded > 90, "{bounded} bounds");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("printed.toml");
    let printed = with(&[("ODYSSEY_ORDERS__LEASE", "1h 30m")])
        .unwrap()
        .to_toml();
    std::fs::write(&file, &printed).unwrap();
    let again = Config::read(Some(&file), []).unwrap();
    assert_eq!(again.to_toml(), printed);
    let keys = |text: &str| {
        let table = text.parse::<toml::Table>().unwrap();
        let keys = layers::leaves(&table).into_iter().map(|(key, _)| key);
        keys.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(keys(&printed), keys(DEFAULTS), "sections are as documented");
}
