//! Scenarios whose server is killed again and again: it must then hold to all that it acknowledged, as the scenario's own
//! checks say.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simulators::Env;
use testkit::until;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{door, options_of};
use crate::durability::{
    ROUNDS_VARIABLE, Seed, number_from_environment, open, start_that_is_cut_short,
};

/// How often the server is killed. `make soak` wants a thousand.
const ROUNDS: u64 = 5;

/// An address that stays the same while servers behind it end and start.
struct Forwarder {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    /// Connections that reached a server.
    reached: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Forwarder {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Arc::new(Mutex::new(None));
        let reached = Arc::<AtomicU64>::default();
        let (target, counted) = (Arc::clone(&to), Arc::clone(&reached));
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let target: Option<SocketAddr> = *target.lock().unwrap();
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    // Whatever ends it, both sides see a closed connection.
                    if let Some(target) = target
                        && let Ok(mut server) = TcpStream::connect(target).await
                    {
                        counted.fetch_add(1, Relaxed);
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self {
            address,
            to,
            reached,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn leads_to(&self, address: SocketAddr) {
        *self.to.lock().unwrap() = Some(address);
    }

    /// To no server: the port of one that has ended may be another test's next.
    fn leads_nowhere(&self) {
        *self.to.lock().unwrap() = None;
    }
}

/// Runs a scenario, again and again, against a server with these settings that is killed so many times: its checks must
/// hold. `between` is done with the data directory while no server runs.
pub(crate) async fn holds_while_killed(
    rounds: u64,
    settings: &[(&str, &str)],
    arguments: &[&str],
    between: impl Fn(&Path),
) {
    let rounds = number_from_environment(ROUNDS_VARIABLE).unwrap_or(rounds);
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let data = tempfile::tempdir().unwrap();
    let forwarder = Forwarder::new().await;
    let [option] = options_of(arguments[0]) else {
        panic!("a scenario with one address")
    };
    let url = format!("--{option}=http://{}", forwarder.address);
    let arguments = [arguments, &[&url, "--patience=60s"]].concat();
    let start = async || {
        let shop = open(data.path(), settings).await;
        forwarder.leads_to(door(&shop, option).address);
        shop
    };
    let over = Cell::new(false);
    let simulate = async {
        loop {
            // The last run is against the server that stays.
            let is_last = over.get();
            match simulators::run(&arguments, Env::quiet()).await {
                Ok(outcome) => {
                    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
                    if is_last {
                        break;
                    }
                }
                // A run does not begin while there is no server.
                Err(error) if !is_last && error.to_string().contains("beforehand") => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error:#}"),
            }
        }
    };
    let kill = async {
        for _ in 0..rounds {
            if random.u8(..4) == 0 {
                start_that_is_cut_short(data.path(), &mut random).await;
            }
            let before = forwarder.reached.load(Relaxed);
            let shop = start().await;
            until("the server is reached", async || {
                forwarder.reached.load(Relaxed) > before
            })
            .await;
            sleep(Duration::from_micros(random.u64(0..60_000))).await;
            forwarder.leads_nowhere();
            shop.crash().await;
            between(data.path());
        }
        let shop = start().await;
        over.set(true);
        shop
    };
    let (shop, ()) = tokio::join!(kill, simulate);
    drop(forwarder);
    shop.close().await;
}

#[tokio::test]
async fn the_events_of_drones_are_stored_once_by_a_server_that_is_killed() {
    let arguments = ["drones", "--missions=100", "--fleet=8", "--leg=0s"];
    holds_while_killed(ROUNDS, &[], &arguments, |_| ()).await;
}

#[tokio::test]
async fn packages_are_processed_once_by_a_server_that_is_killed() {
    // A crash may lose the count of malformed requests.
    let arguments = ["senders", "--packages=500", "--malformed=0%"];
    holds_while_killed(ROUNDS, &[], &arguments, |_| ()).await;
}

#[tokio::test]
async fn a_day_goes_on_where_a_server_that_is_killed_has_left_it() {
    let arguments = ["day", "--drivers=20", "--packages=150"];
    holds_while_killed(ROUNDS, &[], &arguments, |_| ()).await;
}
