//! Scenarios at a shop whose listeners require tokens.

use std::path::{Path, PathBuf};

use simulators::{Env, run};

use super::order_line::RUSH;
use super::{options_of, simulate};
use crate::access::Tokens;
use crate::shop::{Shop, assert_no_secret};

/// Each scenario, with the role that simulators/README.md names for it.
const SCENARIOS: [(&str, &[&str]); 6] = [
    ("barista", &RUSH),
    (
        "operator",
        &["flood", "--orders=5", "--for=1s", "--from=127.0.66.9"],
    ),
    ("operator", &["drones", "--missions=10", "--leg=0s"]),
    (
        "operator",
        &["senders", "--packages=200", "--mismatches=30%", "--seed=1"],
    ),
    ("dispatcher", &["day", "--drivers=3", "--packages=9"]),
    ("courier-feed", &["couriers", "--orders=20", "--couriers=3"]),
];

/// An option that names a file with a new token of this role.
fn token_file(tokens: &Tokens, role: &str) -> String {
    let file = tokens.file().with_file_name(format!("{role}.token"));
    std::fs::write(&file, format!("{}\n", tokens.issue(role))).unwrap();
    format!("--token-file={}", file.display())
}

/// Why a scenario does not begin.
async fn refusal(shop: &Shop, arguments: &[&str]) -> String {
    let urls = options_of(arguments[0]).iter().map(|option| {
        let address = super::door(shop, option).address;
        format!("--{option}=http://{address}")
    });
    let urls: Vec<_> = urls.collect();
    let urls = urls.iter().map(String::as_str);
    let arguments: Vec<_> = arguments.iter().copied().chain(urls).collect();
    let refused = Box::pin(run(&arguments, Env::quiet())).await;
    let refused = refused.map(|outcome| outcome.to_string());
    format!("{:#}", refused.unwrap_err())
}

fn pages(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn each_scenario_passes_at_a_locked_shop_with_the_token_of_its_role() {
    let tokens = Tokens::create();
    let files = SCENARIOS.map(|(role, _)| token_file(&tokens, role));
    let shop = tokens.locked(&[]).await;
    let directory = shop.dir.path().join("pages");
    let report = format!("--report-dir={}", directory.display());
    for ((_, scenario), file) in SCENARIOS.iter().zip(&files) {
        let arguments = [*scenario, &[&**file, &*report][..]].concat();
        let outcome = simulate(&shop, &arguments).await;
        assert!(outcome.ok(), "{arguments:?}: {outcome}");
        assert_no_secret(&format!("{outcome}{}{outcome:?}", outcome.json()));
    }
    let pages = pages(&directory);
    assert_eq!(pages.len(), SCENARIOS.len());
    for page in pages {
        assert_no_secret(&std::fs::read_to_string(page).unwrap());
    }
    shop.close().await;
}

#[tokio::test]
async fn a_scenario_without_a_token_or_with_one_of_another_role_does_not_begin_at_a_locked_shop() {
    let tokens = Tokens::create();
    let other = token_file(&tokens, "scraper");
    let shop = tokens.locked(&[]).await;
    let flooded = [&RUSH[..], &["--flood"]].concat();
    let scenarios = SCENARIOS.map(|(_, scenario)| scenario);
    for scenario in scenarios.into_iter().chain([&*flooded, &["baristas"]]) {
        let missing = refusal(&shop, scenario).await;
        let wrong = refusal(&shop, &[scenario, &[&*other]].concat()).await;
        for (message, status) in [(missing, "401 Unauthorized"), (wrong, "403 Forbidden")] {
            assert!(
                message.contains(status) && message.contains("--token-file"),
                "{scenario:?}: {message}"
            );
            assert_no_secret(&message);
        }
    }
    let metrics = shop.metrics().await;
    assert_eq!(metrics.placed(), 0, "{metrics}");
    shop.close().await;
}
