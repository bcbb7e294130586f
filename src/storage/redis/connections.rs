//! Connections to Redis: opened, watched, and replaced when they are stale.
//!
//! A connection can be open and useless: its server was demoted, hangs, or is gone without closing it. After an answer that says
//! so, or a timeout, one task replaces it the way the first one was made: by name, through the Sentinels, or from any known node
//! of the cluster. Commands wait up to [`REPLACED`] for the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisError, RedisResult, ServerErrorKind,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::super::config::Redis as Config;
use super::server::{self, Server};
use crate::storage::preflight::{Engine, Findings, Verdict};
use crate::values::backoff::Backoff;
use crate::values::secret::Secret;

/// How long it may take to reach a server.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a command waits for a connection that is being replaced.
const REPLACED: Duration = Duration::from_secs(1);
/// Between two attempts to replace a connection.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), BACKOFF_MAX);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long a Sentinel, or another primary of a cluster, may take to answer when others answer too.
const SOON: Duration = Duration::from_millis(500);
/// How often the Sentinels are asked which server is the primary.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// TCP keepalive: idle time before the first probe, ...
const KEEPALIVE: Duration = Duration::from_secs(15);
/// ... the interval of probes, ...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// ... and their number; unacknowledged data ends the connection after the same time.
const KEEPALIVE_TRIES: u32 = 3;
const UNCONFIRMED: Duration = Duration::from_secs(30);
/// Attempts of a command in a cluster, after a slot has moved or a node is down.
const CLUSTER_TRIES: u32 = 3;

#[derive(Clone)]
pub(super) enum Way {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

pub(super) struct Connection {
    pub(super) way: Way,
    /// Its number: connections opened before it.
    number: u64,
    made: Instant,
    /// Where the Sentinels said that it leads.
    address: Option<ConnectionAddr>,
}

#[derive(Clone)]
enum State {
    Connected(Arc<Connection>),
    /// Being replaced; why the last attempt failed, or what was wrong with the previous connection.
    Replacing(Arc<str>),
}

/// The current connection.
pub(super) struct Connections {
    config: Config,
    /// The results of the checks that each new connection makes.
    findings: Findings,
    /// Timeout of a command.
    answer: Duration,
    /// All nodes of the cluster that were ever listed: the configured one may be down.
    nodes: Mutex<BTreeSet<String>>,
    state: watch::Sender<State>,
}

impl Connections {
    /// Opens the first connection.
    ///
    /// # Errors
    /// If that fails, or the server's settings would lose data.
    pub(super) async fn open(
        config: Config,
        findings: Findings,
        answer: Duration,
    ) -> RedisResult<Arc<Self>> {
        install_tls();
        let new = Self {
            config,
            findings,
            answer,
            nodes: Mutex::default(),
            state: watch::Sender::new(State::Replacing("not connected yet".into())),
        };
        let first = new.reach(0).await?;
        new.state.send_replace(State::Connected(Arc::new(first)));
        let new = Arc::new(new);
        if !new.config.sentinels.is_empty() {
            tokio::spawn(watch_primary(Arc::downgrade(&new)));
        }
        Ok(new)
    }

    /// As they were opened with.
    pub(super) fn settings(&self) -> (Config, Findings) {
        (self.config.clone(), self.findings.clone())
    }

    /// The current connection; waits for the next one while it is being replaced.
    ///
    /// # Errors
    /// If that takes longer than [`REPLACED`].
    pub(super) async fn current(&self) -> RedisResult<Arc<Connection>> {
        if let State::Connected(connection) = &*self.state.borrow() {
            return Ok(Arc::clone(connection));
        }
        let mut states = self.state.subscribe();
        let connected = states.wait_for(|state| matches!(state, State::Connected(_)));
        if let Ok(Ok(state)) = timeout(REPLACED, connected).await
            && let State::Connected(connection) = &*state
        {
            return Ok(Arc::clone(connection));
        }
        let why = match &*self.state.borrow() {
            State::Replacing(why) => Arc::clone(why),
            State::Connected(_) => "it has only just come back".into(),
        };
        Err((ErrorKind::Io, "Redis is down", why.to_string()).into())
    }

    /// Replaces this connection if an error says that it is useless.
    pub(super) fn replace_if_stale(self: &Arc<Self>, connection: &Connection, error: &RedisError) {
        if is_stale(error) {
            self.replace(connection.number, &error.to_string());
        }
    }

    /// Replaces the connection of this number, unless another task already has.
    fn replace(self: &Arc<Self>, number: u64, why: &str) {
        let mut pause = Duration::ZERO;
        let began = self.state.send_if_modified(|state| match state {
            State::Connected(connection) if connection.number == number => {
                // A server that accepts connections and refuses commands is not asked more often than one that is away.
                if connection.made.elapsed() < BACKOFF_MAX * 2 {
                    pause = BACKOFF_MAX;
                }
                *state = State::Replacing(why.into());
                true
            }
            _ => false,
        });
        if began {
            warn!(why, "the connection to Redis is replaced");
            tokio::spawn(reconnect(Arc::downgrade(self), number + 1, pause));
        }
    }

    /// Makes a connection, checks its server, and records the findings.
    async fn reach(&self, number: u64) -> RedisResult<Connection> {
        let reached = self.reach_server(number).await;
        // The verdicts of the server's checks are recorded already.
        if let Err(error) = &reached
            && error.kind() != ErrorKind::InvalidClientConfig
        {
            self.record(vec![Verdict::failed(error.to_string())]);
        }
        reached
    }

    async fn reach_server(&self, number: u64) -> RedisResult<Connection> {
        let (node, address) = if self.config.sentinels.is_empty() {
            (self.any_node().await?, None)
        } else {
            let found = timeout(CONNECT * 2, self.primary()).await;
            let Named { client, by_most } =
                found.map_err(|_| silent("no Sentinel answers in time"))??;
            if !by_most {
                warn!("fewer than half of the Sentinels name the primary that is used");
            }
            let address = client.get_connection_info().addr().clone();
            (ask(client, self.answer).await?, Some(address))
        };
        let mut verdicts = node.verdicts();
        self.judge(&verdicts)?;
        let way = if node.server.is_cluster() {
            let (cluster, others) = tokio::join!(
                cluster(&node.client, self.answer),
                self.other_primaries(&node.server)
            );
            let cluster = cluster?;
            for (address, of_other) in others {
                server::combine(&mut verdicts, &address, of_other);
            }
            self.judge(&verdicts)?;
            *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = node.server.nodes();
            Way::Cluster(cluster)
        } else {
            Way::One(node.connection)
        };
        let server = verdicts[0].detail.clone();
        info!(run_id = node.server.run_id(), server, "connected to Redis");
        self.record(verdicts);
        Ok(Connection {
            way,
            number,
            made: Instant::now(),
            address,
        })
    }

    /// Records the verdicts if one of them says that the server cannot be used.
    fn judge(&self, verdicts: &[Verdict]) -> RedisResult<()> {
        let judged = server::judge(verdicts);
        if judged.is_err() {
            self.record(verdicts.to_vec());
        }
        judged
    }

    fn record(&self, verdicts: Vec<Verdict>) {
        let checks = server::CHECKS.map(str::to_owned);
        self.findings
            .record(Engine::Redis, checks.into_iter().zip(verdicts));
    }

    /// The first node that can be used: the configured one, or one that is known from the cluster. If there is none, one that
    /// answers.
    async fn any_node(&self) -> RedisResult<Node> {
        let mut asked = JoinSet::new();
        for address in self.nodes() {
            asked.spawn(ask(self.node(&address)?, self.answer));
        }
        let configured = Client::open(info(self.config.url.expose())?)?;
        asked.spawn(ask(configured, self.answer));
        let mut best = Err(silent("no node answers"));
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok(Ok(node)) if server::judge(&node.verdicts()).is_ok() => return Ok(node),
                Ok(answered) if best.is_err() => best = answered,
                _ => {}
            }
        }
        best
    }

    /// The verdicts of the cluster's other primaries, as far as they answer soon.
    async fn other_primaries(&self, server: &Server) -> Vec<(String, Vec<Verdict>)> {
        let mut asked = JoinSet::new();
        for address in server.primaries() {
            if let Ok(client) = self.node(&address) {
                let asking = timeout(SOON, ask(client, self.answer));
                asked.spawn(
                    async move { Some((address, asking.await.ok()?.ok()?.server.verdicts())) },
                );
            }
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Another node of the cluster, reached as the configured one.
    fn node(&self, address: &str) -> RedisResult<Client> {
        let info = info(self.config.url.expose())?;
        let (host, port) = address
            .rsplit_once(':')
            .ok_or_else(|| silent("a node without a port"))?;
        let port = port.parse().map_err(|_| silent("a node without a port"))?;
        let host = host.to_owned();
        let addr = match info.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Client::open(info.set_addr(addr))
    }

    fn nodes(&self) -> BTreeSet<String> {
        let nodes = self.nodes.lock();
        nodes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client of the primary, by the address that most Sentinels answer.
    ///
    /// Not by `SENTINEL MASTERS`, as the crate's client asks: the Sentinel that leads a failover names the old primary there until all
    /// replicas have resynchronized, and writes to the old primary are lost. `GET-MASTER-ADDR-BY-NAME` names the promoted replica.
    async fn primary(&self) -> RedisResult<Named> {
        let mut asked = JoinSet::new();
        for url in self.config.sentinels.iter().map(Secret::expose) {
            let client = Client::open(info(url)?)?;
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME")
                .arg(&self.config.sentinel_primary);
            let answer = async move {
                let mut sentinel = connect(&client, SOON).await?;
                ask.query_async::<Option<(String, u16)>>(&mut sentinel)
                    .await
            };
            asked.spawn(timeout(SOON, answer));
        }
        let mut failed = silent("no Sentinel answers in time");
        let mut votes = BTreeMap::<String, usize>::new();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok(Ok(Ok(Some((host, port))))) => {
                    *votes.entry(format!("{host}:{port}")).or_default() += 1;
                }
                Ok(Ok(Ok(None))) => {
                    failed = silent(
                        "the Sentinels name no primary of the name `redis.sentinel_primary`",
                    );
                }
                Ok(Ok(Err(error))) => failed = error,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        let (address, votes) = most.ok_or(failed)?;
        Ok(Named {
            client: self.node(&address)?,
            by_most: votes * 2 > self.config.sentinels.len(),
        })
    }
}

/// A server that has described itself.
struct Node {
    client: Client,
    connection: MultiplexedConnection,
    server: Server,
}

impl Node {
    /// The verdicts, the first with its address.
    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = self.server.verdicts();
        let address = self.client.get_connection_info().addr();
        verdicts[0].detail = format!("{} at {address}", verdicts[0].detail);
        verdicts
    }
}

/// Connects to a server, and asks what it is.
async fn ask(client: Client, answer: Duration) -> RedisResult<Node> {
    let mut connection = connect(&client, answer).await?;
    let server = Server::of(&mut connection).await?;
    Ok(Node {
        client,
        connection,
        server,
    })
}

/// The primary that the Sentinels name.
struct Named {
    client: Client,
    /// Whether more than half of the configured Sentinels name it.
    by_most: bool,
}

/// All nodes of the cluster that `client` leads to. It is asked alone: to wait for the others is to wait for the one that
/// is away.
async fn cluster(client: &Client, answer: Duration) -> RedisResult<ClusterConnection> {
    let client = ClusterClient::builder([client.get_connection_info().clone()])
        .connection_timeout(CONNECT)
        .response_timeout(answer)
        .overall_response_timeout(Some(answer))
        .retries(CLUSTER_TRIES)
        .tcp_settings(tcp())
        .build()?;
    let reached = timeout(CONNECT * 2, client.get_async_connection()).await;
    reached.map_err(|_| silent("the cluster's nodes do not answer in time"))?
}

/// Makes connections until one is good, the first after a pause.
async fn reconnect(connections: Weak<Connections>, number: u64, first: Duration) {
    sleep(first).await;
    let mut backoff = BACKOFF;
    loop {
        // No handle is left.
        let Some(connections) = connections.upgrade() else {
            return;
        };
        match connections.reach(number).await {
            Ok(connection) => {
                connections
                    .state
                    .send_replace(State::Connected(Arc::new(connection)));
                return;
            }
            Err(error) => {
                connections
                    .state
                    .send_replace(State::Replacing(error.to_string().into()));
            }
        }
        drop(connections);
        sleep(backoff.next_wait()).await;
    }
}

/// Replaces the connection when the Sentinels name another primary: the old one may be alive and accept writes that are lost.
async fn watch_primary(connections: Weak<Connections>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let current = match &*connections.state.borrow() {
            State::Connected(connection) => Arc::clone(connection),
            State::Replacing(_) => continue,
        };
        let found = timeout(CONNECT, connections.primary()).await;
        // A healthy connection is not replaced because a few Sentinels are late, or behind.
        if let Ok(Ok(Named {
            client,
            by_most: true,
        })) = found
            && current.address.as_ref() != Some(client.get_connection_info().addr())
        {
            connections.replace(current.number, "the Sentinels name another primary");
        }
    }
}

/// Whether an error says that the connection leads to a wrong server, or to none.
fn is_stale(error: &RedisError) -> bool {
    error.is_timeout() || error.is_unrecoverable_error() || is_refused_for_now(error)
}

/// Whether a server has refused a command because it is not, or not yet, the primary: nothing was done.
pub fn is_refused_for_now(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};

    matches!(
        error.kind(),
        ErrorKind::Server(ReadOnly | BusyLoading | MasterDown)
    ) || error.code() == Some("UNBLOCKED")
}

async fn connect(client: &Client, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(answer));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

fn info(url: &str) -> RedisResult<ConnectionInfo> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
        .set_user_timeout(UNCONFIRMED)
}

/// TLS has several implementations; this process uses one.
fn install_tls() {
    // Installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn silent(what: &'static str) -> RedisError {
    (ErrorKind::Io, what).into()
}
