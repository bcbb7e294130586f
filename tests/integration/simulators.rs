//! The scenarios of the simulators against the real server: each once as it is, where it must pass, and behind a proxy
//! that corrupts one answer, where the check that is about it must fail, and no other.

mod couriers;
mod day;
mod drones;
mod killed;
mod locked;
mod order_line;
mod proxy;
mod senders;

use std::sync::Arc;

use simulators::{Env, Outcome, run};

pub(crate) use self::killed::holds_while_killed;
use self::proxy::{Counts, Proxy};
pub(crate) use self::proxy::{Does, Rule};
use crate::client::Door;
use crate::shop::Shop;

/// The listeners that a scenario's options name.
fn options_of(scenario: &str) -> &'static [&'static str] {
    match scenario {
        "customers" | "senders" => &["customers"],
        "rush" | "flood" => &["customers", "staff"],
        _ => &["staff"],
    }
}

fn door(shop: &Shop, option: &str) -> Door {
    match option {
        "customers" => shop.customers,
        _ => shop.staff,
    }
}

/// Runs a scenario against the server.
pub(crate) async fn simulate(shop: &Shop, arguments: &[&str]) -> Outcome {
    simulate_until(shop, Env::quiet(), arguments).await
}

/// The same, unless it is stopped before.
pub(crate) async fn simulate_until(shop: &Shop, env: Env, arguments: &[&str]) -> Outcome {
    let options = options_of(arguments[0]).iter();
    let urls = options.map(|option| format!("--{option}=http://{}", door(shop, option).address));
    outcome(arguments, &urls.collect::<Vec<_>>(), env).await
}

/// Runs a scenario behind a proxy, which must have had something to do.
pub(crate) async fn simulate_behind(shop: &Shop, rule: Rule, arguments: &[&str]) -> Outcome {
    let counts = Arc::<Counts>::default();
    let (mut proxies, mut urls) = (Vec::new(), Vec::new());
    for option in options_of(arguments[0]) {
        let server = door(shop, option).address;
        let proxy = Proxy::before(server, rule, Arc::clone(&counts)).await;
        urls.push(format!("--{option}=http://{}", proxy.address));
        proxies.push(proxy);
    }
    let outcome = outcome(arguments, &urls, Env::quiet()).await;
    assert!(counts.done() > 0, "{rule:?} had nothing to do:\n{outcome}");
    outcome
}

async fn outcome(arguments: &[&str], urls: &[String], env: Env) -> Outcome {
    let urls = urls.iter().map(String::as_str);
    let arguments: Vec<_> = arguments.iter().copied().chain(urls).collect();
    let outcome = Box::pin(run(&arguments, env)).await;
    outcome.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
}
