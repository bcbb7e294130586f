//! Fixtures that the tests of Odyssey share: [engines](redis) to start, a [proxy](proxy::Proxy) that disturbs the way to them,
//! and [services](aws) that answer as a test wants.
//!
//! It knows nothing of Odyssey, and needs no client library: what it says to an engine it writes itself.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a fixture that cannot work fails its test"
)]

pub mod aws;
mod http;
mod process;
pub mod proxy;
pub mod redis;
mod resp;

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep;

pub use self::process::{Process, free_port};

/// How long a test waits for a condition: many times what it takes, so that only a failure takes that long.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Pauses between two looks at a condition grow from the one to the other.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// What `scripts/with-engines.sh` says of the engines that tests share.
fn variable(name: &str) -> String {
    let value = std::env::var(name);
    value
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/with-engines.sh"))
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    found(what, async || holds().await.then_some(())).await;
}

/// Waits until there is something.
pub async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    let [mut pause, longest] = PAUSES;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// A connection's incoming side, read message by message.
struct Incoming<R> {
    from: R,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    fn new(from: R) -> Self {
        let bytes = Vec::new();
        Self { from, bytes }
    }

    /// Reads what has come; false at the end.
    async fn more(&mut self) -> bool {
        matches!(self.from.read_buf(&mut self.bytes).await, Ok(1..))
    }

    /// The next message, of which `length` knows where it ends once it is complete. At the end of the connection, the rest.
    async fn message(&mut self, length: impl Fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = length(&self.bytes) {
                return Some(self.bytes.drain(..length).collect());
            }
            if !self.more().await {
                let rest = std::mem::take(&mut self.bytes);
                return (!rest.is_empty()).then_some(rest);
            }
        }
    }
}
