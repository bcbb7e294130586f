//! Engines and servers that go away in the midst of a stream.

use std::time::Duration;

use serde_json::json;
use testkit::aws::Emulator;
use testkit::until;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{LONG, Town, expect_consistent, ids, scenario, whose};
use crate::client::get;
use crate::couriers::{courier, order, publish_events};
use crate::emulator::odyssey_at;
use crate::shop::{Shop, variable};

const UNPUBLISHED: &str = "odyssey_couriers_message_retries_total{step=\"publish\"}";
/// An outage that is longer than one try of a call may take, and than messages are invisible.
const OUTAGE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn an_emulator_that_is_stopped_in_the_midst_of_a_stream_loses_nothing() {
    let emulator = Emulator::start().await;
    let town = Town::at(&emulator.endpoint(), None);
    let shop = town.open(&[("couriers.visibility", "2s")]).await;
    let couriers: [Uuid; 4] = ids();
    for (id, zone) in couriers.iter().zip(["N", "S", "E", "W"]) {
        town.publish(&courier(*id, zone, true)).await;
    }
    let (published, posted): ([Uuid; 120], [Uuid; 40]) = (ids(), ids());
    let stream = {
        let town = town.clone();
        tokio::spawn(async move {
            for id in published {
                town.publish(&order(id, "N")).await;
            }
        })
    };
    whose(shop.staff, published[20]).await;
    emulator.process.freeze();
    let began = Instant::now();
    for id in posted {
        publish_events(shop.staff, &order(id, "S")).await;
    }
    sleep(OUTAGE.saturating_sub(began.elapsed())).await;
    emulator.process.thaw();
    timeout(LONG, stream).await.unwrap().unwrap();
    let all = [&published[..], &posted[..]].concat();
    expect_consistent(shop.staff, &all).await;
    town.expect_empty().await;
    shop.close().await;
}

/// All calls go to the SDK's region, whatever the configuration names.
#[tokio::test]
async fn a_region_that_is_not_the_topics_stops_the_start() {
    let town = Town::new();
    let dir = tempfile::tempdir().unwrap();
    let mut command = odyssey_at(&town.endpoint);
    command.arg("serve").current_dir(dir.path());
    for (key, value) in town.settings() {
        command.env(variable(key), value);
    }
    command.env("AWS_REGION", "eu-west-1");
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = timeout(LONG, run).await.unwrap().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    for word in ["`couriers.events_topic_arn`", "`AWS_REGION=eu-west-2`"] {
        assert!(message.contains(word), "{message}");
    }
}

/// Waits until readiness has this status for the queues.
async fn until_messages_are(shop: &Shop, status: u16) {
    until("readiness tells how messages are", async || {
        let ready = shop.staff.ask(get("/readyz/messages")).await;
        ready.status == status
    })
    .await;
}

#[tokio::test]
async fn what_is_decided_while_the_emulator_is_gone_is_told_when_it_is_back() {
    let emulator = Emulator::start().await;
    let town = Town::at(&emulator.endpoint(), None);
    let ([dispatcher, directory], _data) = town.open_both(&[]).await;
    scenario(&town, dispatcher.staff, directory.staff).await;
    let address = emulator.address;
    drop(emulator);
    let [ada] = ids();
    publish_events(dispatcher.staff, &courier(ada, "W", true)).await;
    let orders: [Uuid; 30] = ids();
    for id in orders {
        let outcomes = publish_events(dispatcher.staff, &order(id, "W")).await;
        assert_eq!(outcomes, [json!({"outcome": "assigned", "courierId": ada})]);
    }
    until("it is noticed", async || {
        dispatcher.metrics().await.count(UNPUBLISHED) > 0
    })
    .await;
    for shop in [&dispatcher, &directory] {
        until_messages_are(shop, 503).await;
        // Events over HTTP are still decided.
        shop.staff.ask(get("/readyz/couriers")).await.expect(200);
    }
    // It has forgotten every topic and queue.
    let emulator = Emulator::start_at(address).await;
    for id in orders {
        assert_eq!(whose(directory.staff, id).await, ada.to_string());
    }
    for shop in [&dispatcher, &directory] {
        until_messages_are(shop, 200).await;
    }
    scenario(&town, dispatcher.staff, directory.staff).await;
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
    drop(emulator);
}

#[tokio::test]
async fn servers_that_are_killed_in_the_midst_of_a_stream_lose_nothing() {
    let town = Town::new();
    let soon = [("couriers.visibility", "1s")];
    let ([mut dispatcher, mut directory], data) = town.open_both(&soon).await;
    let [ada, bo] = ids();
    for id in [ada, bo] {
        town.publish(&courier(id, "N", true)).await;
    }
    let mut random = fastrand::Rng::with_seed(2142);
    let mut orders = Vec::new();
    for round in 0..8 {
        let some: [Uuid; 25] = ids();
        let stream = {
            let town = town.clone();
            tokio::spawn(async move {
                for id in some {
                    town.publish(&order(id, "N")).await;
                }
            })
        };
        orders.extend(some);
        // The first of the round is known: the stream is under way.
        whose(directory.staff, some[random.usize(..5)]).await;
        sleep(Duration::from_millis(random.u64(..50))).await;
        if round % 2 == 0 {
            dispatcher.crash().await;
            dispatcher = town.open_as("dispatcher", data[0].path(), &soon).await;
        } else {
            directory.crash().await;
            directory = town.open_as("directory", data[1].path(), &soon).await;
        }
        timeout(LONG, stream).await.unwrap().unwrap();
    }
    let holders = expect_consistent(dispatcher.staff, &orders).await;
    for (order, courier) in holders {
        assert_eq!(whose(directory.staff, order).await, courier);
    }
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
}
