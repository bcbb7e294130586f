//! Redis forgets, and its servers assert what they hold.

use super::shop::Shop;
use super::*;

const RUNS: u64 = 40;

/// The state of the line, by key.
async fn snapshot(redis: &Redis) -> Vec<(String, Option<Vec<u8>>)> {
    let keys = KEYS.map(|part| format!("{{odyssey:line:1:main}}:{part}"));
    let dumps = keys.each_ref().map(|key| {
        let mut dump = redis::cmd("DUMP");
        dump.arg(key);
        dump
    });
    let dumps = redis.client.ask_all(dumps.into()).await.unwrap();
    keys.into_iter().zip(dumps).collect()
}

async fn restore(redis: &Redis, state: &[(String, Option<Vec<u8>>)]) {
    redis.command(&["FLUSHALL"]).await;
    for (key, dump) in state {
        if let Some(dump) = dump {
            let mut restore = redis::cmd("RESTORE");
            restore.arg(key).arg(0).arg(dump);
            let () = redis.client.ask(restore).await.unwrap();
        }
    }
    redis.pass(5);
}

#[tokio::test]
async fn what_redis_forgets_is_asserted_and_all_are_served_by_ticket() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let (mut customers, mut resyncs) = (0, 0);
    for seed in 1..=RUNS * soak() {
        redis.command(&["FLUSHALL"]).await;
        let mut shop = Shop::open(&redis, 3, seed).await;
        shop.is_strict = false;
        let mut before = snapshot(&redis).await;
        for step in 0..160 {
            shop.step().await;
            match shop.random.u8(0..60) {
                0 => redis.command(&["FLUSHALL"]).await,
                1 => restore(&redis, &before).await,
                2..=9 => before = snapshot(&redis).await,
                _ => {}
            }
            let broken = redis.broken(shop::SHOP).await;
            assert!(broken.is_empty(), "seed {seed}, step {step}: {broken:?}");
        }
        shop.serve_all().await;
        customers += shop.customers();
        resyncs += shop.resyncs;
    }
    eprintln!("{customers} customers were answered, {resyncs} times a server said hello");
}
