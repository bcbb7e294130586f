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
fn a_mistake_in_the_configuration_is_a_sentence_that_names_the_key_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("shop.toml"), dir.path().join("data"));
    let listen = [
        ("customers.listen", "127.0.0.1:0"),
        ("staff.listen", "127.0.0.1:0"),
    ];
    let lease = ("orders.lease", "1s");
    for (text, setting, named, needs_a_start) in [
        ("", ("orders.leese", "1s"), "`orders.leese`", false),
        ("", ("oplog.sink", "s3"), "`oplog.bucket`", false),
        ("[http]\nbacklog = 0", lease, "`http.backlog`", false),
        ("[orders\n", lease, "shop.toml`, line 1: ", false),
        // These are found out once everything else is in order.
        (
            "",
            ("customers.listen", "192.0.2.1:80"),
            "`customers.listen`",
            true,
        ),
        (
            "",
            ("staff.connections_max", "900000000"),
            "`staff.connections_max`",
            true,
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = odyssey();
        command.args(["serve", "--config"]).arg(&file);
        command.env(variable("data_dir"), &data);
        for (key, value) in listen.into_iter().chain([setting]) {
            command.env(variable(key), value);
        }
        let message = refused(&mut command);
        assert!(message.contains(named), "{setting:?}: {message}");
        assert!(!message.contains("panicked"), "{setting:?}: {message}");
        assert!(!data.exists() || needs_a_start, "{setting:?}");
    }
    let missing = dir.path().join("missing.toml");
    let message = refused(odyssey().args(["serve", "--config"]).arg(&missing));
    let path = missing.display();
    assert_eq!(
        message,
        format!("odyssey: configuration file `{path}`: there is no such file\n")
    );
}

#[test]
fn a_wrong_value_is_one_line_on_standard_error() {
    let answer = refused(
        odyssey()
            .arg("config")
            .env(variable("orders.lease"), "10ms"),
    );
    let expected =
        "configuration key `orders.lease`: \"10ms\" is not accepted: it must be from 1s to 24h";
    assert_eq!(answer, format!("odyssey: {expected}\n"));
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
    let of_file = format!("[redis]\nurl_file = {path:?}\n");
    let direct = "redis://me:hunter2@variables";
    let (by_variable, by_file) = ("redis://***@variables", "redis://***@files:6379/3");
    for (toml, url, url_file, shown) in [
        ("", Some(direct), None, by_variable),
        ("", Some(direct), Some(path), by_file),
        ("", Some(direct), Some(""), by_variable),
        (&of_file, None, None, by_file),
        (&of_file, Some(direct), None, by_variable),
        (
            "[redis]\nurl = \"redis://:hunter2@below\"",
            None,
            Some(path),
            by_file,
        ),
    ] {
        std::fs::write(&file, toml).unwrap();
        let mut command = odyssey();
        command.args(["config", "--config"]).arg(&file);
        command.envs(url.map(|url| (variable("redis.url"), url)));
        command.envs(url_file.map(|file| (variable("redis.url_file"), file)));
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
