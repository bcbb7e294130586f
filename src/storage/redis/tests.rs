//! Redis that fails over, stands still, refuses, or is set up wrong; real servers, behind a door that can be led elsewhere.

use std::net::{SocketAddr, TcpListener as Listener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::*;

/// How long anything may take that is waited for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis server, or a Sentinel, on a port of its own. It ends with the test.
struct Server {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::of("", arguments)
    }

    /// `file`: its configuration, which it may rewrite.
    fn of(file: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("redis.conf");
        std::fs::write(&path, file).unwrap();
        let free = Listener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server"])
            .arg(&path)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(arguments)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts: `make test` installs it");
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    /// A server that keeps nothing on disk.
    fn bare() -> Self {
        Self::start(&[
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ])
    }

    async fn replica_of(primary: &Self) -> Self {
        let replica = Self::bare();
        replica.follow(primary).await;
        until("it follows", async || {
            replica
                .ask(&["INFO", "replication"])
                .await
                .contains("master_link_status:up")
        })
        .await;
        replica
    }

    async fn follow(&self, primary: &Self) {
        self.ask(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()])
            .await;
    }

    async fn promote(&self) {
        self.ask(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Asks once it is there.
    async fn ask(&self, command: &[&str]) -> String {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                let mut asked = redis::cmd(command[0]);
                asked
                    .arg(&command[1..])
                    .query_async::<Value>(&mut connection)
                    .await
            };
            match asked.await {
                Ok(Value::BulkString(text)) => return String::from_utf8(text).unwrap(),
                Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => return text,
                Ok(other) => return format!("{other:?}"),
                Err(error) => assert!(Instant::now() < deadline, "{command:?}: {error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name that leads to one server, and later to another: connections that are open stay with the one that they have.
struct Door {
    address: SocketAddr,
    leads_to: Arc<AtomicU16>,
    /// Connections that were made before lose what goes through them, without a word; each notes that it does.
    silence: watch::Sender<bool>,
    silent: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Door {
    async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leads_to = Arc::new(AtomicU16::new(server.port));
        let silence = watch::Sender::new(false);
        let silent = Arc::new(AtomicUsize::new(0));
        let (port, begins, count) = (Arc::clone(&leads_to), silence.clone(), Arc::clone(&silent));
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = port.load(Ordering::Relaxed);
                let mut began = begins.subscribe();
                let (is_new, count) = (*began.borrow_and_update(), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Those that are made afterwards work.
                        _ = began.changed(), if !is_new => {
                            count.fetch_add(1, Ordering::Relaxed);
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            leads_to,
            silence,
            silent,
            task: task.abort_handle(),
        }
    }

    fn lead_to(&self, server: &Server) {
        self.leads_to.store(server.port, Ordering::Relaxed);
    }

    /// Open connections are lost without a word.
    async fn fall_silent(&self) {
        self.silence.send_replace(true);
        until("it is silent", async || {
            self.silent.load(Ordering::Relaxed) > 0
        })
        .await;
    }

    fn target(&self) -> Target {
        Target::at(&format!("redis://{}", self.address))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn connected(target: Target) -> Redis {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Redis::connect(target.clone(), Findings::default()).await {
            Ok(redis) => return redis,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn write(value: &str) -> Cmd {
    let mut write = redis::cmd("SET");
    write.arg("cup").arg(value);
    write
}

async fn is_written(redis: &Redis, value: &str) -> bool {
    redis.ask::<String>(write(value)).await.is_ok()
}

/// How the old primary behaves once there is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    /// It follows the new one, and refuses writes.
    Demoted,
    /// It stands still.
    Frozen,
    /// It, or the way to it, is gone without a word.
    Silent,
}

async fn fails_over(old: Old) {
    let first = Server::bare();
    let second = Server::replica_of(&first).await;
    let door = Door::to(&first).await;
    let redis = connected(door.target()).await;
    assert!(is_written(&redis, "before").await);
    until("the replica has it", async || {
        second.ask(&["GET", "cup"]).await == "before"
    })
    .await;
    match old {
        Old::Demoted => {}
        Old::Frozen => first.signal("-STOP"),
        Old::Silent => door.fall_silent().await,
    }
    second.promote().await;
    if old == Old::Demoted {
        first.follow(&second).await;
    }
    door.lead_to(&second);
    let began = Instant::now();
    until("it writes again", async || {
        is_written(&redis, "after").await
    })
    .await;
    println!("{old:?}: written again after {:?}", began.elapsed());
    assert_eq!(second.ask(&["GET", "cup"]).await, "after");
}

#[tokio::test]
async fn a_primary_that_was_demoted_and_keeps_its_connections_is_left() {
    fails_over(Old::Demoted).await;
}

#[tokio::test]
async fn a_primary_that_stands_still_is_left() {
    fails_over(Old::Frozen).await;
}

#[tokio::test]
async fn a_primary_that_is_gone_without_a_word_is_left() {
    fails_over(Old::Silent).await;
}

#[tokio::test]
async fn the_primary_that_the_sentinels_name_is_followed() {
    let first = Server::bare();
    let second = Server::replica_of(&first).await;
    let file = format!(
        "sentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 500\n\
         sentinel failover-timeout shop 2000\n",
        first.port
    );
    let sentinel = Server::of(&file, &["--sentinel"]);
    until("it knows the replica", async || {
        sentinel
            .ask(&["INFO", "sentinel"])
            .await
            .contains("slaves=1")
    })
    .await;
    let redis = connected(Target {
        url: "redis://nobody.invalid".to_owned(),
        sentinels: vec![format!("redis://127.0.0.1:{}", sentinel.port)],
        primary: "shop".to_owned(),
    })
    .await;
    assert!(is_written(&redis, "before").await);
    first.signal("-STOP");
    until("there is a new primary", async || {
        second
            .ask(&["INFO", "replication"])
            .await
            .contains("role:master")
    })
    .await;
    let began = Instant::now();
    until("it writes again", async || {
        is_written(&redis, "after").await
    })
    .await;
    println!(
        "written again {:?} after the new primary was there",
        began.elapsed()
    );
    assert_eq!(second.ask(&["GET", "cup"]).await, "after");
}

#[tokio::test]
async fn a_server_that_would_lose_what_is_kept_is_not_used() {
    let first = Server::bare();
    let replica = Server::replica_of(&first).await;
    let evicting = Server::start(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    evicting.ask(&["PING"]).await;
    for (server, named) in [(&replica, "is a replica"), (&evicting, "allkeys-lru")] {
        let target = Target::at(&format!("redis://127.0.0.1:{}", server.port));
        let said = Redis::connect(target, Findings::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(named), "{said}");
    }
}

#[tokio::test]
async fn a_user_who_may_not_ask_about_the_server_may_use_it() {
    let server = Server::bare();
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
    let url = format!("redis://shop:pass%2Fword@127.0.0.1:{}", server.port);
    let redis = connected(Target::at(&url)).await;
    assert!(is_written(&redis, "mine").await);
}

#[tokio::test]
async fn a_server_that_was_away_for_a_moment_is_waited_for() {
    let first = Server::bare();
    let door = Door::to(&first).await;
    let redis = connected(door.target()).await;
    assert!(is_written(&redis, "before").await);
    let second = Server::bare();
    second.ask(&["PING"]).await;
    door.lead_to(&second);
    drop(first);
    until("it writes again", async || {
        is_written(&redis, "after").await
    })
    .await;
    assert_eq!(second.ask(&["GET", "cup"]).await, "after");
}

#[tokio::test]
async fn a_node_of_a_cluster_that_stands_still_is_left_for_the_one_that_was_elected() {
    let start = || {
        let bus = Listener::bind(("127.0.0.1", 0)).unwrap();
        let bus = bus.local_addr().unwrap().port().to_string();
        let clustered = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-port",
            &bus,
            "--save",
            "",
        ];
        (Server::start(&clustered), bus)
    };
    let nodes = [start(), start(), start(), start()];
    let slots = [("0", "5999"), ("6000", "11999"), ("12000", "16383")];
    for ((node, _), (first, last)) in nodes.iter().zip(slots) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
    }
    let (first, _) = &nodes[0];
    for (node, bus) in &nodes[1..] {
        let port = node.port.to_string();
        first
            .ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus])
            .await;
    }
    let (replica, _) = &nodes[3];
    let first_id = first.ask(&["CLUSTER", "MYID"]).await;
    until("they know each other", async || {
        let mut known = true;
        for (node, _) in &nodes {
            let info = node.ask(&["CLUSTER", "INFO"]).await;
            known &= info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4");
        }
        known
    })
    .await;
    replica.ask(&["CLUSTER", "REPLICATE", &first_id]).await;
    until("the replica follows", async || {
        replica
            .ask(&["INFO", "replication"])
            .await
            .contains("master_link_status:up")
    })
    .await;
    let redis = connected(Target::at(&format!("redis://127.0.0.1:{}", first.port))).await;
    let is_written = async |value: &str| {
        let keys = ('a'..='p').map(|key| {
            let mut write = redis::cmd("SET");
            write.arg(key.to_string()).arg(value);
            write
        });
        redis.ask_all::<String>(keys.collect()).await.is_ok()
    };
    assert!(is_written("before").await);
    first.signal("-STOP");
    until("the replica is elected", async || {
        replica
            .ask(&["INFO", "replication"])
            .await
            .contains("role:master")
    })
    .await;
    let began = Instant::now();
    until("all slots are written again", async || {
        is_written("after").await
    })
    .await;
    println!("written again {:?} after the election", began.elapsed());
}
