//! Scenarios whose server is killed again and again: it must then hold to all that it acknowledged, as the scenario's own
//! checks say.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simulators::Env;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{door, options_of};
use crate::durability::{
    ROUNDS_VARIABLE, Seed, number_from_environment, open, start_that_is_cut_short,
};

/// An address that stays the same while servers behind it end and start.
struct Forwarder {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Forwarder {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Arc::new(Mutex::new(None));
        let target = Arc::clone(&to);
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let target: Option<SocketAddr> = *target.lock().unwrap();
                tokio::spawn(async move {
                    // Whatever ends it, both sides see a closed connection.
                    if let Some(target) = target
                        && let Ok(mut server) = TcpStream::connect(target).await
                    {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self {
            address,
            to,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn leads_to(&self, address: SocketAddr) {
        *self.to.lock().unwrap() = Some(address);
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
    let (over, unanswered) = (Cell::new(false), Cell::new(0));
    let simulate = async {
        while !over.get() {
            match simulators::run(&arguments, Env::quiet()).await {
                Ok(outcome) => {
                    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
                    let errors = &outcome.json()[arguments[0]]["by_transport_error"];
                    let errors = errors.as_object().unwrap().len();
                    unanswered.set(unanswered.get() + errors);
                }
                // A run does not begin while there is no server.
                Err(error) if error.to_string().contains("beforehand") => {
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
            let shop = start().await;
            sleep(Duration::from_micros(random.u64(0..300_000))).await;
            shop.crash().await;
            between(data.path());
        }
        let shop = start().await;
        over.set(true);
        shop
    };
    let (shop, ()) = tokio::join!(kill, simulate);
    assert!(unanswered.get() > 0, "no request was interrupted");
    drop(forwarder);
    shop.close().await;
}
