//! The script against a model, and servers that end, repeat their calls, or find that Redis has forgotten.

mod differential;
mod forgets;
mod repeated;
mod shop;
mod situations;

use std::sync::atomic::Ordering;

use testkit::redis::Redis as Server;
use uuid::Uuid;

use super::super::model::OrderId;
use super::super::store::{Claim, Operation, Placing, Rules, ServerId};
use super::*;
use crate::storage::config;
use crate::storage::preflight::Findings;

/// Short ones: the line clock passes at most two seconds with each tick.
const RULES: Rules = Rules {
    lease: 6000,
    attempts_max: 2,
    reconnect_grace: 4000,
    promise_grace: 5000,
    replay: 9000,
    remembered_max: 6,
    waiting_max: 8,
};
/// When tests begin, in milliseconds since 1970.
const BEGIN: Millis = 1_800_000_000_000;

async fn connect(server: &Server) -> Client {
    Client::connect(config::Redis::at(&server.socket()), Findings::default())
        .await
        .unwrap()
}

/// A line that begins at [`BEGIN`].
async fn line(server: &Server) -> Redis {
    let redis = Redis::open(connect(server).await, "main").await.unwrap();
    redis.pass(BEGIN);
    redis
}

fn id(number: u64) -> OrderId {
    OrderId(Uuid::from_u128(number.into()))
}

fn placing(number: u64, attachment: Option<u64>) -> Placing {
    Placing {
        id: id(number),
        claim: None,
        customer: None,
        details: None,
        request_id: None,
        origin: None,
        attachment,
        keep: None,
    }
}

fn by_request(name: &str) -> Claim {
    Claim::Request(name.into())
}

impl Redis {
    /// With connections and a clock in common.
    fn as_another_server(&self) -> Self {
        let keys = KEYS.map(|part| format!("{{odyssey:line:1:main}}:{part}"));
        Self {
            client: self.client.clone(),
            waiting: self.waiting.clone(),
            script: Script::new(CODE, keys),
            events: self.events.clone(),
            latest: Mutex::default(),
            time: std::sync::Arc::clone(&self.time),
        }
    }

    /// Time passes for the script.
    fn pass(&self, milliseconds: Millis) {
        self.time.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn at(&self) -> Millis {
        self.time.load(Ordering::Relaxed)
    }

    /// The events after this number, without waiting.
    async fn events_now(&self, after: Number) -> Result<BTreeMap<Number, Event>, StoreError> {
        self.read_events(&self.client, after, false).await
    }

    /// What does not hold of the invariants.
    async fn broken(&self, rules: Rules) -> Vec<String> {
        let code = concat!(
            include_str!("line.lua"),
            include_str!("line/steps.lua"),
            include_str!("tests/invariants.lua")
        );
        let keys = KEYS.map(|part| format!("{{odyssey:line:1:main}}:{part}"));
        let script = Script::new(code, keys);
        let content = encode(&(rules, [Operation::Hello])).unwrap();
        let time = self.time();
        let arguments = [&b"unknown"[..], b"0", b"0", b"", time.as_bytes(), &content];
        self.client.run(&script, &arguments).await.unwrap()
    }

    async fn command(&self, command: &[&str]) {
        let mut sent = Cmd::new();
        for part in command {
            sent.arg(part);
        }
        let _: redis::Value = self.client.ask(sent).await.unwrap();
    }
}

/// How many times more a soak test does.
fn soak() -> u64 {
    let times = std::env::var("SOAK_LINES").ok();
    times.map_or(1, |times| times.parse().unwrap())
}
