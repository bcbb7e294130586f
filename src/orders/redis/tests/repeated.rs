//! Servers that end, and calls whose answers are lost.

use super::shop::Shop;
use super::*;

const SCENARIOS: u64 = 6;
/// Calls of one server in a scenario, about.
const PREFIXES: u32 = 24;
const STEPS: usize = 120;

#[tokio::test]
async fn a_server_that_ends_after_any_call_loses_no_order_and_none_is_in_two_hands() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let (mut ended, mut customers) = (0, 0);
    for seed in 1..=SCENARIOS * soak() {
        for calls in 2..PREFIXES {
            redis.command(&["FLUSHALL"]).await;
            let mut shop = Shop::open(&redis, 2, seed).await;
            shop.ends_after(calls);
            for _ in 0..STEPS {
                shop.step().await;
            }
            ended += u64::from(shop.has_ended());
            shop.serve_all().await;
            customers += shop.customers();
            let broken = redis.broken(shop::SHOP).await;
            assert!(broken.is_empty(), "{broken:?}");
        }
    }
    eprintln!("{ended} servers ended, {customers} customers were answered");
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_sent_again_and_counts_once() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let (mut calls, mut customers) = (0, 0);
    for seed in 1..=15 * soak() {
        redis.command(&["FLUSHALL"]).await;
        let mut shop = Shop::open(&redis, 3, seed).await;
        shop.repeats = 50;
        for _ in 0..STEPS * 2 {
            shop.step().await;
        }
        shop.serve_all().await;
        calls += shop.calls;
        customers += shop.customers();
    }
    eprintln!("{calls} calls, {customers} customers were answered");
}
