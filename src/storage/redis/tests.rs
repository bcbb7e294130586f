//! Redis that is away, refuses, or is set up wrong. Failovers are tried with the couriers' desk.

use testkit::proxy::Proxy;
use testkit::redis::{Cluster, Redis as Server};
use testkit::{found, until};

use super::*;

async fn connected(config: config::Redis) -> Redis {
    found("Redis is reached", async || {
        Redis::connect(config.clone(), Findings::default())
            .await
            .ok()
    })
    .await
}

fn write(value: &str) -> Cmd {
    let mut write = redis::cmd("SET");
    write.arg("cup").arg(value);
    write
}

async fn is_written(redis: &Redis, value: &str) -> bool {
    redis.ask::<String>(write(value)).await.is_ok()
}

#[tokio::test]
async fn a_server_that_would_lose_what_is_kept_is_not_used() {
    let first = Server::start().await;
    let replica = Server::replica_of(&first).await;
    let evicting = Server::with("maxmemory-policy allkeys-lru\n").await;
    for (server, named) in [(&replica, "is a replica"), (&evicting, "allkeys-lru")] {
        let target = config::Redis::at(&server.url());
        let said = Redis::connect(target, Findings::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(named), "{said}");
    }
}

#[tokio::test]
async fn a_user_who_may_not_ask_about_the_server_may_use_it() {
    let server = Server::start().await;
    server
        .ask(&[
            "ACL",
            "SETUSER",
            "shop",
            "on",
            ">pass/word",
            "~*",
            "+set",
            "+get",
        ])
        .await;
    let url = format!("redis://shop:pass%2Fword@{}", server.address());
    let redis = connected(config::Redis::at(&url)).await;
    assert!(is_written(&redis, "mine").await);
}

#[tokio::test]
async fn a_server_that_was_away_for_a_moment_is_waited_for() {
    let first = Server::start().await;
    let proxy = Proxy::before_redis(&first).await;
    let redis = connected(config::Redis::at(&format!("redis://{}", proxy.address))).await;
    assert!(is_written(&redis, "before").await);
    let second = Server::start().await;
    proxy.lead_to(&second);
    drop(first);
    until("it writes again", async || {
        is_written(&redis, "after").await
    })
    .await;
    assert_eq!(second.ask(&["GET", "cup"]).await, "after");
}

#[tokio::test]
async fn a_cluster_is_reached_through_its_replica() {
    let cluster = Cluster::with_replica().await;
    let (_, replica) = cluster.first_and_replica();
    let redis = connected(config::Redis::at(&replica.url())).await;
    until("it writes", async || is_written(&redis, "mine").await).await;
}

#[tokio::test]
async fn a_connection_to_a_server_that_refuses_writes_is_not_replaced_more_often_than_one_that_is_away()
 {
    let first = Server::start().await;
    let user = ["ACL", "SETUSER", "shop", "on", ">pass", "~*", "+set"];
    first.ask(&user).await;
    let redis = connected(config::Redis::at(&format!(
        "redis://shop:pass@{}",
        first.address()
    )))
    .await;
    assert!(is_written(&redis, "mine").await);
    let second = Server::start().await;
    // This user may not ask for the role: each connection looks good until it refuses to write.
    first.follow(&second).await;
    let count = async || -> usize {
        let info = first.ask(&["INFO", "stats"]).await;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = count().await;
    let began = std::time::Instant::now();
    for _ in 0..20 {
        assert!(!is_written(&redis, "mine").await);
    }
    let connections = count().await - before;
    // One at once, and one for each half second; each look at the count is a connection too.
    let most = 3 + usize::try_from(began.elapsed().as_millis() / 400).unwrap();
    assert!(connections <= most, "{connections} connections");
}
