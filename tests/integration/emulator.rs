//! Emulators of Amazon's services, and what may stand between them and a server.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::shop::odyssey;

/// How long an emulator may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Who a server is at an emulator, whatever whoever runs the tests is at Amazon.
const AT_AN_EMULATOR: [(&str, &str); 6] = [
    ("AWS_REGION", "eu-west-2"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// The address of the emulator that all tests share.
pub(crate) fn emulator() -> SocketAddr {
    let endpoint = std::env::var("EMULATOR_ADDRESS")
        .expect("EMULATOR_ADDRESS is not set: `make test` provides an emulator");
    let address = endpoint.strip_prefix("http://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// The program, about to be started with an emulator at this address.
pub(crate) fn odyssey_at(endpoint: &str) -> Command {
    let mut command = odyssey();
    for (name, value) in AT_AN_EMULATOR {
        command.env(name, value);
    }
    command.env("AWS_ENDPOINT_URL", endpoint);
    command
}

/// An emulator of one test's own, which can be stopped and started anew. It is killed at the end.
#[derive(Debug)]
pub(crate) struct Emulator {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Emulator {
    pub(crate) async fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        Self::start_at(address).await
    }

    /// At an address that another one had.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let program = std::env::var("EMULATOR_PROGRAM")
            .expect("EMULATOR_PROGRAM is not set: `make test` provides an emulator");
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let emulator = Self { child, address };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the emulator does not start");
            sleep(Duration::from_millis(50)).await;
        }
        emulator
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It ends a stopped one, too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What becomes of bytes between the server and the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Whoever comes is sent away, and whoever is there too.
    Refused,
    /// Nothing gets through, and nobody is told.
    Swallowed,
    /// Requests get through, answers do not.
    AnswersLost,
}

/// Stands between the server and the emulator.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (way, _) = watch::channel(Way::Open);
        let address = listener.local_addr().unwrap();
        let ways = way.clone();
        let task = tokio::spawn(async move {
            loop {
                let (from, _) = listener.accept().await.unwrap();
                tokio::spawn(connected(from, ways.subscribe()));
            }
        });
        Self { address, way, task }
    }

    pub(crate) fn is_now(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn connected(from: TcpStream, mut way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Refused {
        return;
    }
    let to = TcpStream::connect(emulator()).await.unwrap();
    let ((from_in, from_out), (to_in, to_out)) = (from.into_split(), to.into_split());
    let (there, back) = (way.clone(), way.clone());
    tokio::select! {
        () = passed(from_in, to_out, there, &[Way::Swallowed]) => {}
        () = passed(to_in, from_out, back, &[Way::Swallowed, Way::AnswersLost]) => {}
        _ = way.wait_for(|way| *way == Way::Refused) => {}
    }
}

/// Passes bytes on until one of these ways was seen; from then on they are swallowed.
async fn passed(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    swallowing: &[Way],
) {
    let mut piece = vec![0; 64 << 10];
    let mut swallowed = false;
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        swallowed |= swallowing.contains(&way.borrow());
        if !swallowed && to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
    if swallowed {
        // Not even an end is told.
        std::future::pending::<()>().await;
    }
}
