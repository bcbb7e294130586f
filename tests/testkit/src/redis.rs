//! Redis: a server, its replica, a Sentinel, a cluster.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::{Incoming, Process, found, free_port, resp, until, variable};

/// Options of a server that writes no files, and whose replicas begin at once.
const BARE: &str = "save ''\nappendonly no\nrepl-diskless-sync-delay 0\n";
/// Options of a server whose disk has what it has answered.
const DURABLE: &str = "save ''\nappendonly yes\nappendfsync always\n";
/// How long one command of a test may take; a frozen server answers none.
const ANSWER: Duration = Duration::from_secs(5);
/// Ports that are tried before the server is at fault: others take them, too.
const PORTS: usize = 10;

/// A server, or a Sentinel. It listens on a port, and on a socket in a directory of its own, where no other server can be
/// taken for it.
#[derive(Debug)]
pub struct Redis {
    /// May be frozen.
    pub process: Process,
    port: u16,
    directory: TempDir,
}

impl Redis {
    /// With these lines of `redis.conf`, in which `{port}` stands for a free port, and `{bus}` for another one.
    pub async fn with(options: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), options).await
    }

    /// With files in its directory.
    async fn within(directory: TempDir, options: &str) -> Self {
        for _ in 0..PORTS {
            let (port, bus) = (free_port(), free_port());
            let options =
                format!("port {{port}}\nbind 127.0.0.1\nunixsocket redis.sock\n{options}")
                    .replace("{port}", &port.to_string())
                    .replace("{bus}", &bus.to_string());
            fs::write(directory.path().join("redis.conf"), options).unwrap();
            if let Some(process) = run(directory.path()).await {
                return Self {
                    process,
                    port,
                    directory,
                };
            }
        }
        panic!("redis-server ends at once with these options: {options}");
    }

    /// One that writes no files.
    pub async fn start() -> Self {
        Self::with(BARE).await
    }

    /// One whose disk has what it has answered.
    pub async fn durable() -> Self {
        Self::with(DURABLE).await
    }

    /// One that speaks TLS only, with a certificate for 127.0.0.1 by an authority of its own: [`authority`](Self::authority).
    pub async fn with_tls() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let mut openssl = Command::new("openssl");
            openssl.args(arguments.split(' ')).current_dir(&directory);
            let output = openssl.output().expect("`make test` installs openssl");
            assert!(output.status.success(), "{output:?}");
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {key} -subj /CN=authority -keyout authority.key -out authority.pem"
        ));
        openssl(&format!(
            "req -x509 {key} -subj /CN=redis -keyout redis.key -out redis.pem -CA authority.pem -CAkey authority.key \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        ));
        let tls = "port 0\ntls-port {port}\ntls-cert-file redis.pem\ntls-key-file redis.key\n\
                   tls-ca-cert-file authority.pem\ntls-auth-clients no\n";
        Self::within(directory, &[BARE, tls].concat()).await
    }

    /// The certificate of the authority, in a file.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// One that has what its primary has.
    pub async fn replica_of(primary: &Self) -> Self {
        let replica = Self::start().await;
        replica.follow(primary).await;
        replica.is_in_sync(primary).await;
        replica
    }

    /// A Sentinel that fails `primary` over, which it calls `name`, after half a second of silence.
    pub async fn sentinel(primary: &Self, name: &str) -> Self {
        let monitored = primary.port;
        let options = format!(
            "sentinel monitor {name} 127.0.0.1 {monitored} 1\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 2000\n"
        );
        let sentinel = Self::with(&options).await;
        until("the Sentinel knows the replica", async || {
            sentinel.says(&["INFO", "sentinel"], "slaves=1").await
        })
        .await;
        sentinel
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its URL, with its port.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Its URL, with its socket.
    pub fn socket(&self) -> String {
        let directory = self.directory.path().display();
        format!("redis+unix://{directory}/redis.sock")
    }

    /// Starts it again in its directory, and at its port.
    pub async fn start_again(&mut self) {
        let started = run(self.directory.path()).await;
        self.process = started.expect("Redis starts again");
    }

    /// The answer to a command, as text, as soon as there is one.
    pub async fn ask(&self, command: &[&str]) -> String {
        answer(self.directory.path(), command).await
    }

    /// Whether the answer has this text.
    pub async fn says(&self, command: &[&str], text: &str) -> bool {
        self.ask(command).await.contains(text)
    }

    /// Makes it a replica.
    pub async fn follow(&self, primary: &Self) {
        let port = primary.port.to_string();
        self.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    }

    /// Waits until it has what its primary has now. After a first synchronization, that takes until its first
    /// acknowledgement, a second later.
    pub async fn is_in_sync(&self, primary: &Self) {
        let wanted = primary.offset("master_repl_offset:").await;
        until("the replica is in sync", async || {
            self.says(&["INFO", "replication"], "master_link_status:up")
                .await
                && self.offset("slave_repl_offset:").await >= wanted
        })
        .await;
    }

    async fn offset(&self, field: &str) -> Option<u64> {
        let info = self.ask(&["INFO", "replication"]).await;
        let offset = info.lines().find_map(|line| line.strip_prefix(field));
        offset.and_then(|offset| offset.parse().ok())
    }

    /// Makes it a primary.
    pub async fn promote(&self) {
        self.ask(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Waits until others have made it a primary.
    pub async fn is_promoted(&self) {
        until("the replica is promoted", async || {
            self.says(&["INFO", "replication"], "role:master").await
        })
        .await;
    }
}

/// Runs the server of a directory; nothing if it ends at once.
async fn run(directory: &Path) -> Option<Process> {
    // One that was killed has left it there.
    drop(fs::remove_file(directory.join("redis.sock")));
    let file = fs::read_to_string(directory.join("redis.conf")).unwrap();
    let mut command = Command::new("redis-server");
    command.arg("redis.conf").current_dir(directory);
    let is_sentinel = file.contains("sentinel monitor ");
    let mut process = Process::start(command.args(is_sentinel.then_some("--sentinel")));
    while !process.has_ended() {
        if let Some(Ok(_)) = ask(directory, &["PING"]).await {
            return Some(process);
        }
        sleep(Duration::from_millis(2)).await;
    }
    None
}

/// The answer of the server of a directory, as text, as soon as there is one.
async fn answer(directory: &Path, command: &[&str]) -> String {
    let what = format!("Redis answers {command:?}");
    let answer = found(&what, async || ask(directory, command).await).await;
    answer.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The answer, or the error that it is; nothing if the server does not answer, or not yet.
async fn ask(directory: &Path, command: &[&str]) -> Option<Result<String, String>> {
    let asked = async {
        let mut stream = UnixStream::connect(directory.join("redis.sock"))
            .await
            .ok()?;
        stream.write_all(&resp::command(command)).await.ok()?;
        let answer = Incoming::new(stream).message(resp::length).await?;
        Some(resp::text(&answer))
    };
    let answer = timeout(ANSWER, asked).await.ok()??;
    let is_early = |error: &String| {
        ["LOADING", "CLUSTERDOWN"]
            .iter()
            .any(|it| error.starts_with(it))
    };
    (!answer.as_ref().is_err_and(is_early)).then_some(answer)
}

/// The cluster that tests share: `scripts/with-engines.sh` starts it. One test at a time has it, and finds it empty.
#[derive(Debug)]
pub struct SharedCluster {
    nodes: Vec<PathBuf>,
    _lock: File,
}

impl SharedCluster {
    pub async fn lock() -> Self {
        let directory = PathBuf::from(variable("REDIS_CLUSTER"));
        let lock = File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        let nodes = ["1", "2", "3"].map(|node| directory.join(node));
        let cluster = Self {
            nodes: nodes.into(),
            _lock: lock,
        };
        cluster.ask_all(&["FLUSHALL"]).await;
        cluster
    }

    /// The URL of a node.
    pub fn url(&self) -> String {
        let file = fs::read_to_string(self.nodes[0].join("redis.conf")).unwrap();
        let port = file.lines().find_map(|line| line.strip_prefix("port "));
        format!("redis://127.0.0.1:{}", port.unwrap())
    }

    /// The answers of the nodes to a command.
    pub async fn ask_all(&self, command: &[&str]) -> Vec<String> {
        let mut answers = Vec::new();
        for node in &self.nodes {
            answers.push(answer(node, command).await);
        }
        answers
    }
}

/// Three servers that share the slots, and a replica of the first, which takes over if the first is silent for a second.
#[derive(Debug)]
pub struct Cluster {
    pub primaries: Vec<Redis>,
    pub replica: Redis,
}

impl Cluster {
    pub async fn with_replica() -> Self {
        let mut primaries = Vec::new();
        for first in [0, 6000, 12_000] {
            let node = node().await;
            let last = (first + 5999).min(16_383);
            let [first, last] = [first, last].map(|slot: u32| slot.to_string());
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            primaries.push(node);
        }
        let replica = node().await;
        let cluster = Self { primaries, replica };
        cluster.meet().await;
        let (first, replica) = cluster.first_and_replica();
        let id = first.ask(&["CLUSTER", "MYID"]).await;
        replica.ask(&["CLUSTER", "REPLICATE", &id]).await;
        replica.is_in_sync(first).await;
        cluster
    }

    /// The first, and its replica.
    pub fn first_and_replica(&self) -> (&Redis, &Redis) {
        (&self.primaries[0], &self.replica)
    }

    async fn meet(&self) {
        let nodes = || self.primaries.iter().chain([&self.replica]);
        for node in nodes().skip(1) {
            let (port, bus) = (node.port.to_string(), node.bus());
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
            self.primaries[0].ask(&meet).await;
        }
        let known = format!("cluster_known_nodes:{}\r", nodes().count());
        for node in nodes() {
            until("the nodes know each other", async || {
                let info = node.ask(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
    }
}

async fn node() -> Redis {
    let clustered = "cluster-enabled yes\ncluster-node-timeout 1000\ncluster-port {bus}\n";
    Redis::with(&[BARE, clustered].concat()).await
}

impl Redis {
    /// The port at which it meets other nodes of a cluster.
    fn bus(&self) -> String {
        let file = fs::read_to_string(self.directory.path().join("redis.conf")).unwrap();
        let bus = file
            .lines()
            .find_map(|line| line.strip_prefix("cluster-port "));
        bus.expect("a node of a cluster").to_owned()
    }
}
