//! The configuration of Prometheus and Grafana: the metrics it names exist, and the alerts fire when they should.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use crate::client::{get, send};
use crate::packages::package;
use crate::shop::Shop;
use crate::status::busy;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("observability")
        .join(name)
}

fn promtool(arguments: &[&str], name: &str) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(file(name))
        .output()
        .expect("promtool is installed (scripts/install-tools.sh test)");
    let message = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}{failed}");
}

#[test]
fn prometheus_accepts_its_configuration_and_the_alert_rules() {
    // The token's file is in the container only; the rules are checked by themselves.
    promtool(&["check", "config", "--syntax-only"], "prometheus.yml");
    promtool(&["check", "rules"], "alerts.yml");
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    promtool(&["test", "rules"], "alerts.test.yml");
    let read = |name| std::fs::read_to_string(file(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    for rule in rules
        .lines()
        .filter_map(|line| line.split_once("- alert: "))
    {
        let name = rule.1;
        let fires = format!("alertname: {name}\n        exp_alerts:");
        let silent = format!("alertname: {name} }}");
        assert!(
            tests.contains(&fires) && tests.contains(&silent),
            "{name} has no test"
        );
    }
}

/// Every name of ours that occurs.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("odyssey_")).collect()
}

#[tokio::test]
async fn everything_that_alerts_and_dashboards_show_is_measured() {
    let shop = busy().await;
    let metrics = shop.staff.ask(get("/metrics")).await;
    let measured = names(metrics.text());
    for name in ["alerts.yml", "grafana/dashboards/odyssey.json"] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        for wanted in names(&text) {
            // Of messages, in a build that has queues.
            let of_queues = wanted.starts_with("odyssey_couriers_message")
                || wanted == "odyssey_couriers_published_total";
            // Lost lines are counted where the log has a writer of its own.
            let of_log = wanted == "odyssey_log_lines_lost_total";
            let expected = (cfg!(feature = "aws") || !of_queues) && !of_log;
            assert!(
                measured.contains(wanted) || !expected,
                "{name} shows {wanted}, which is not measured"
            );
        }
    }
    shop.serve_all().await;
    shop.close().await;
}

/// They leave at any moment: before the server has read the request, while it waits for the commit, or after that.
#[tokio::test]
async fn what_was_kept_is_counted_though_its_sender_has_left() {
    let shop = Shop::open(&[]).await;
    for n in 0..60 {
        let package = package(format!("p-{n}")).to_string();
        let mut sender = shop.customers.raw().await;
        let head = "POST /packages HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json";
        let length = package.len();
        sender
            .write(format!(
                "{head}\r\ncontent-length: {length}\r\n\r\n{package}"
            ))
            .await;
        sleep(Duration::from_micros(n * 20)).await;
        drop(sender);
    }
    let last = shop.customers.ask(send(&package("last"))).await;
    last.expect(201);
    shop.until("all senders have left", |now| now.left_in_the_shop() == 0)
        .await;
    let stored = shop.staff.ask(get("/statistics")).await.expect(200);
    let stored = usize::try_from(stored["packages_delivered"].as_u64().unwrap()).unwrap();
    shop.until("every package that was kept is counted", |now| {
        now.count("odyssey_packages_sent_total{result=\"delivered\"}") >= stored
    })
    .await;
    shop.close().await;
}
