//! The command line: what each command prints, and what a mistake is answered with.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::client::get;
use crate::shop::{Shop, odyssey, odyssey_by, variable};

fn run(command: &mut Command) -> Output {
    // Expected failures are sentences, with or without backtraces.
    command.env_remove("RUST_BACKTRACE").output().unwrap()
}

/// What a command prints that must succeed.
fn printed(arguments: &[&str]) -> String {
    let output = run(odyssey().args(arguments));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {} {stderr}",
        output.status
    );
    assert_eq!(stderr, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that must fail.
fn refused(command: &mut Command) -> String {
    let output = run(command);
    assert!(!output.status.success(), "{command:?} should have failed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{command:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_help_of_every_command_says_what_it_is_for() {
    for (arguments, words) in [
        (
            "--help",
            "serve|config|health|order|start|finish|line|flood|completions|man|packages|couriers|openapi|--version|Usage: odyssey",
        ),
        ("-h", "serve|config|packages|openapi"),
        (
            "serve --help",
            "--config <FILE>|--addresses <FILE>|127.0.0.1:8000|127.0.0.1:8001|SIGTERM|ODYSSEY_ORDERS__LEASE",
        ),
        ("config --help", "--config <FILE>|--defaults|TOML"),
        (
            "health --help",
            "[URL]|--config <FILE>|Exit code 0|3 seconds",
        ),
        (
            "order --help",
            "--name <NAME>|--wait <DURATION>|--url <URL>|ODYSSEY_URL|--output <FORMAT>|Ctrl-C",
        ),
        (
            "start --help",
            "--barista <NAME>|--wait <DURATION>|lease_expires_at",
        ),
        ("finish --help", "<ORDER_ID>|--attempt <N>"),
        ("line --help", "--url <URL>|oldest"),
        ("flood --help", "list|unblock"),
        ("completions --help", "bash|zsh|fish"),
        ("man --help", "--dir <DIRECTORY>"),
        ("packages --help", "audit|ledger"),
        (
            "packages audit --help",
            "--config <FILE>|Exit code 0|statistics",
        ),
        ("couriers --help", "replay|event log"),
        (
            "couriers replay --help",
            "--config <FILE>|--into <DIRECTORY>|Exit code 0",
        ),
        #[cfg(feature = "aws")]
        (
            "couriers redrive --help",
            "--config <FILE>|--dry-run|dead-letter queue|reason",
        ),
        ("openapi --help", "--listener|customers|staff|both"),
    ] {
        let help = printed(&arguments.split(' ').collect::<Vec<_>>());
        for word in words.split('|') {
            assert!(
                help.contains(word),
                "{arguments:?} does not mention {word}:\n{help}"
            );
        }
    }
}

#[test]
fn the_version_names_the_release_the_commit_and_the_features() {
    let features: &[&str] = &[
        #[cfg(feature = "aws")]
        "aws",
        #[cfg(feature = "jemalloc")]
        "jemalloc",
        #[cfg(feature = "redis")]
        "redis",
    ];
    let features = match features.join(", ") {
        none if none.is_empty() => none,
        some => format!(", features: {some}"),
    };
    let commit = env!("ODYSSEY_COMMIT");
    assert_eq!(
        printed(&["--version"]),
        format!(
            "odyssey {} (commit {commit}{features})\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    let digits = commit.len() >= 12 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(digits || commit == "unknown", "{commit}");
}

#[test]
fn a_command_that_does_not_exist_or_is_missing_is_told_what_there_is() {
    for arguments in [
        &[][..],
        &["brew"],
        &["serve", "--port", "80"],
        &["packages"],
        &["packages", "deliver"],
        &["openapi", "--listener", "nobody"],
    ] {
        let message = refused(odyssey().args(arguments));
        assert!(
            message.contains("Usage: odyssey") || message.contains("--help"),
            "{arguments:?}: {message}"
        );
    }
}

#[test]
fn the_defaults_are_a_manual_that_can_be_read_back() {
    let manual = printed(&["config", "--defaults"]);
    for key in [
        "[customers]",
        "[staff]",
        "[storage]",
        "[deliveries]",
        "[packages]",
        "[assignments]",
        "[oplog]",
        "[aws]",
        "data_dir =",
        "listen =",
        "h2c =",
        "connections_max =",
        "deliveries =",
        "queue_max =",
        "batch_max =",
        "readers =",
        "header_timeout =",
        "body_timeout =",
        "body_max_bytes =",
        "backlog =",
        "lease =",
        "attempts_max =",
        "reconnect_grace =",
        "replay =",
        "waiting_max =",
        "kept =",
        "ongoing_max =",
        "events_max =",
        "stale_after =",
        "graph =",
        "types =",
        "opt_in =",
        "remember =",
        "store =",
        "table =",
        "packages_table =",
        "manifest =",
        "manifest_max_bytes =",
        "manifest_timeout =",
        "strict =",
        "sink =",
        "instance =",
        "file_max_bytes =",
        "files_max =",
        "bucket =",
        "prefix =",
        "batch_max_bytes =",
        "batch_age =",
        "spool_max_bytes =",
        "provision =",
        "visibility =",
        "drain =",
        "format =",
        "level =",
    ] {
        assert!(manual.contains(key), "{key} is missing");
    }
    // Every key has words before it.
    let mut explained = false;
    for line in manual.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(explained, "nothing explains {line}");
            explained = false;
        } else {
            explained = line.starts_with('#');
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manual.toml");
    std::fs::write(&file, manual).unwrap();
    assert_eq!(
        printed(&["config", "--config", file.to_str().unwrap()]),
        printed(&["config"])
    );
}

#[test]
fn the_effective_configuration_is_the_defaults_then_the_file_then_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.toml");
    std::fs::write(&file, "[orders]\nlease = \"90s\"\nattempts_max = 7\n").unwrap();
    let mut command = odyssey();
    command.args(["config", "--config"]).arg(&file);
    let output = run(command.env(variable("orders.lease"), "45s"));
    let effective = String::from_utf8(output.stdout).unwrap();
    for line in ["lease = \"45s\"", "attempts_max = 7", "waiting_max = 10000"] {
        assert!(effective.contains(line), "{line} is missing:\n{effective}");
    }
}

#[test]
fn a_mistake_in_the_configuration_is_a_sentence_that_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let with = |key: &str, value: &str| {
        let mut command = odyssey();
        command.args(["serve"]).env(variable(key), value);
        command
    };
    let with_file = |name: &str, text: &str| {
        let mut command = odyssey();
        command.args(["serve", "--config"]).arg(file(name, text));
        command
    };
    for (mut command, named) in [
        (with("orders.lease", "soon"), "`orders.lease`"),
        (with("orders.lease", "10ms"), "`orders.lease`"),
        (with("orders.leese", "1s"), "leese"),
        (with("orders.waiting_max", "0"), "`orders.waiting_max`"),
        (with("customers.listen", "somewhere"), "`customers.listen`"),
        (
            with("customers.connections_max", "many"),
            "`customers.connections_max`",
        ),
        (
            with("customers.connections_max", "900000000"),
            "`customers.connections_max`",
        ),
        (
            with("staff.connections_max", "900000000"),
            "`staff.connections_max`",
        ),
        (with("log.level", "odyssey=loud"), "`log.level`"),
        (with("shutdown.drain", "25h"), "`shutdown.drain`"),
        (
            with("customers.listen", "192.0.2.1:80"),
            "`customers.listen`",
        ),
        (with_file("unknown.toml", "[orders]\nspeed = 9\n"), "speed"),
        (
            with_file("wrong.toml", "[http]\nbody_max_bytes = \"big\"\n"),
            "`http.body_max_bytes`",
        ),
        (
            with_file("broken.toml", "[orders\n"),
            "broken.toml`, line 1: ",
        ),
        (with_file("text.toml", "lease"), "text.toml`, line 1: "),
        (
            with_file("twice.toml", "[orders]\nlease = \"1m\"\nlease = \"2m\"\n"),
            "twice.toml`, line 3: ",
        ),
    ] {
        // Nothing may listen by accident.
        if !named.contains("listen") {
            command.env(variable("customers.listen"), "127.0.0.1:0");
        }
        command.env(variable("staff.listen"), "127.0.0.1:0");
        command.env(variable("data_dir"), dir.path().join("data"));
        let message = refused(&mut command);
        let sentence = message.lines().last().unwrap_or_default();
        assert!(message.contains(named), "{command:?} said: {message}");
        assert!(
            !message.contains("panicked") && sentence.len() > 20,
            "{command:?} said: {message}"
        );
    }
    let missing = dir.path().join("missing.toml");
    let message = refused(odyssey().args(["serve", "--config"]).arg(&missing));
    let path = missing.display();
    assert_eq!(
        message,
        format!("odyssey: configuration file `{path}`: there is no such file\n")
    );
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
        let answer = refused(odyssey().arg("config").env(variable(key), value));
        let expected = format!("odyssey: configuration key `{key}`: {message}");
        assert!(answer.starts_with(&expected), "{key}={value}: {answer}");
        assert_eq!(answer.lines().count(), 1, "{answer}");
    }
    let mut command = odyssey();
    command
        .arg("config")
        .env(variable("flood.burst"), "1000000");
    let answer = refused(command.env(variable("flood.refill"), "6h"));
    let expected =
        "`flood.refill`: \"6h\" is not accepted: it must refill a burst of 1000000 within 24000h";
    assert!(answer.contains(expected), "{answer}");
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
        let answer = refused(odyssey().args(["config", "--config"]).arg(&file));
        let expected = format!("odyssey: configuration key {message}");
        assert!(answer.starts_with(&expected), "{text}: {answer}");
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
        let output = run(odyssey().arg("config").env(variable(key), value));
        let printed = String::from_utf8(output.stdout).unwrap();
        let found = printed.lines().any(|printed| printed == line);
        assert!(found, "{key}={value}: {line} is missing:\n{printed}");
    }
}

#[tokio::test]
async fn the_variables_of_a_kubernetes_service_are_passed_over() {
    let names = [
        ("PORT", "tcp://10.0.0.1:80"),
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT_HTTP", "80"),
        ("PORT_80_TCP_ADDR", "10.0.0.1"),
        ("ORDERS", "of the service odyssey-orders"),
    ];
    let shop = Shop::open(&names).await;
    let log = shop.close().await;
    for (name, _) in names {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("\"ODYSSEY_{name}\"")));
        let line = line.unwrap_or_else(|| panic!("{name} is not mentioned: {log}"));
        assert!(
            line.contains("DEBUG") && line.contains("is ignored"),
            "{line}"
        );
    }
}

#[test]
fn a_secret_comes_from_a_file_and_is_printed_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("redis-url");
    std::fs::write(&secret, "redis://me:hunter2@files:6379/3\n").unwrap();
    let file = dir.path().join("odyssey.toml");
    let path = secret.to_str().unwrap();
    let (url, url_file) = (variable("redis.url"), variable("redis.url_file"));
    let of_file = format!("[redis]\nurl_file = {path:?}\n");
    let direct = "redis://me:hunter2@variables";
    for (toml, environment, shown) in [
        ("", &[(&url, direct)][..], "redis://***@variables"),
        ("", &[(&url_file, path)], "redis://***@files:6379/3"),
        (
            "",
            &[(&url_file, path), (&url, direct)],
            "redis://***@files:6379/3",
        ),
        (
            "",
            &[(&url_file, ""), (&url, direct)],
            "redis://***@variables",
        ),
        (&of_file, &[], "redis://***@files:6379/3"),
        (&of_file, &[(&url, direct)], "redis://***@variables"),
        (
            "[redis]\nurl = \"redis://:hunter2@below\"",
            &[(&url_file, path)],
            "redis://***@files:6379/3",
        ),
    ] {
        std::fs::write(&file, toml).unwrap();
        let mut command = odyssey();
        command.args(["config", "--config"]).arg(&file);
        command.envs(environment.iter().copied());
        let printed = String::from_utf8(run(&mut command).stdout).unwrap();
        let line = format!("url = {shown:?}");
        assert!(printed.contains(&line), "{line} is missing:\n{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn too_few_open_files_are_refused_with_the_number_that_is_needed() {
    let data = tempfile::tempdir().unwrap();
    let mut command = odyssey_by("sh", &["-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    command.arg("serve").env(variable("data_dir"), data.path());
    for key in ["customers.listen", "staff.listen"] {
        command.env(variable(key), "127.0.0.1:0");
    }
    let message = refused(&mut command);
    for words in ["64 files (ulimit -n)", "at least 288"] {
        assert!(message.contains(words), "{words} is missing: {message}");
    }
}

#[test]
fn a_mistake_in_what_is_kept_and_how_is_named_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (key, value) in [
        ("storage.queue_max", "0"),
        ("storage.batch_max", "some"),
        ("storage.readers", "65"),
        ("deliveries.kept", "0"),
        ("deliveries.ongoing_max", "1000001"),
        ("deliveries.events_max", "1"),
        ("deliveries.stale_after", "999ms"),
        ("deliveries.graph", "loose"),
        ("customers.deliveries", "maybe"),
        ("packages.types", "Personal"),
        ("packages.types", "personal,marketing,personal"),
        ("packages.types", "personal,free gift"),
        ("packages.opt_in", "newsletter"),
        ("packages.remember", "0s"),
        ("packages.remember", "always"),
        ("assignments.store", "paper"),
        ("assignments.table", "a b"),
        ("assignments.packages_table", "ab"),
        ("assignments.packages_table", "DeliveryAssignments"),
        ("assignments.manifest_max_bytes", "1023"),
        ("assignments.manifest_timeout", "2h"),
        ("assignments.strict", "a little"),
        ("oplog.sink", "wall"),
        ("oplog.file_max_bytes", "4095"),
        ("oplog.files_max", "0"),
        ("oplog.batch_max_bytes", "1"),
        ("oplog.batch_age", "99ms"),
        ("oplog.spool_max_bytes", "65535"),
        ("oplog.waiting_max", "0"),
        ("oplog.sse", "aws:kms:dsse"),
        ("oplog.kms_key", "alias/odyssey"),
        ("aws.provision", "perhaps"),
        ("couriers.store", "paper"),
        ("couriers.events", "post"),
        ("couriers.events_topic_arn", "events-topic"),
        ("couriers.dead_letter_queue_url", "dead-letter-queue"),
        ("couriers.visibility", "999ms"),
        ("couriers.visibility", "12h 1s"),
    ] {
        let mut command = odyssey();
        command.arg("serve").env(variable(key), value);
        let message = refused(command.env(variable("data_dir"), &data));
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
        assert!(!data.exists(), "{key}");
    }
}

#[test]
fn a_sink_without_its_bucket_is_told_which_key_is_missing() {
    let mut command = odyssey();
    command.arg("serve").env(variable("oplog.sink"), "s3");
    let message = refused(&mut command);
    assert!(message.contains("`oplog.bucket`"), "{message}");
}

#[cfg(feature = "aws")]
#[test]
fn queues_without_their_places_are_told_which_key_is_missing() {
    for (role, key) in [
        ("dispatcher", "couriers.events_queue_url"),
        ("directory", "couriers.assignments_queue_url"),
    ] {
        let mut command = odyssey();
        command.arg("serve").env(variable("couriers.events"), "sqs");
        command.env(variable("couriers.roles"), role).env(
            variable("couriers.events_topic_arn"),
            "arn:aws:sns:eu-west-2:123450000001:events-topic",
        );
        let message = refused(&mut command);
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key() {
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, other) in [
        ("customers.listen", "staff.listen"),
        ("staff.listen", "customers.listen"),
    ] {
        let mut command = odyssey();
        command
            .arg("serve")
            .env(variable(key), &address)
            .env(variable(other), "127.0.0.1:0")
            .env(variable("data_dir"), data.path());
        let message = refused(&mut command);
        for word in [format!("`{key}`"), address.clone(), "in use".to_owned()] {
            assert!(message.contains(&word), "{word} is missing: {message}");
        }
    }
}

#[tokio::test]
async fn the_printed_description_is_the_served_one() {
    let api = |listener: &str| -> Value {
        serde_json::from_str(&printed(&["openapi", "--listener", listener])).unwrap()
    };
    let shop = Shop::open(&[]).await;
    let [customers, staff] = [api("customers"), api("staff")];
    assert_eq!(
        shop.customers.ask(get("/openapi.json")).await.expect(200),
        customers
    );
    assert_eq!(
        shop.staff.ask(get("/openapi.json")).await.expect(200),
        staff
    );
    let both = api("both");
    assert_eq!(
        serde_json::from_str::<Value>(&printed(&["openapi"])).unwrap(),
        both
    );
    for api in [&customers, &staff] {
        for path in api["paths"].as_object().unwrap().keys() {
            assert!(both["paths"].get(path).is_some(), "{path} is missing");
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn logs_are_one_json_object_a_line_unless_told_otherwise() {
    let shop = Shop::open(&[("log.format", "auto")]).await;
    shop.customers
        .ask(get("/healthz").header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ))
        .await;
    let log = shop.close().await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &lines {
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        assert!(line["message"].is_string(), "{line}");
    }
    let traced = lines
        .iter()
        .find(|line| line["span"]["path"] == "/healthz")
        .unwrap();
    assert_eq!(
        traced["span"]["trace_id"],
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );

    let shop = Shop::open(&[("log.format", "text"), ("log.level", "warn")]).await;
    shop.customers.ask(get("/healthz")).await;
    assert_eq!(shop.close().await, "", "nothing was worth a warning");
}
