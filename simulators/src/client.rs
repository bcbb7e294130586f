//! A client of the server: its connection is reused between requests and replaced when it is closed. Sends a request until
//! it is acknowledged or refused, or the patience is over.
//!
//! | situation | what is done |
//! |---|---|
//! | no answer (refused, reset, closed, silence) | reconnects and sends the same again, ever later, up to 2 s |
//! | 503, 429 or another server error | sends the same again after `Retry-After`, or ever later, up to 2 s |
//! | any other status that does not acknowledge it | gives up |
//! | no acknowledgement within the patience | gives up; whether the request was accepted may be unknown |
//! | ctrl-c | waits up to 2 s for the answer that is under way, and sends nothing again |

use std::{fmt, net::Ipv4Addr, time::Duration};

use anyhow::anyhow;
use fastrand::Rng;
use hyper::{Method, StatusCode, header::RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Address, Answer, Connection, Outgoing, TransportError},
    tally::{RETRIES, Tally},
};

/// A server that keeps the connection and sends nothing for this long, measured, has lost the request, unless it is given
/// more time.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Measured time for the answers that are under way when everything stops.
pub(crate) const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Pauses before another try are up to this share longer, so that not all clients retry at the same moment.
const JITTER: f64 = 0.25;
/// Patience with the server after ctrl-c, measured: the user who stops a run does not wait for long.
const PATIENCE_WHEN_STOPPED: Duration = Duration::from_secs(5);
/// Measured time between two tries: from the first to the second, doubling.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Every call may be dropped while it waits; the connection is then closed, so the server notices.
#[derive(Debug)]
pub(crate) struct Client {
    server: Address,
    connection: Option<Connection>,
    /// The address of this machine that it comes from; none for whichever leads to the server.
    from: Option<Ipv4Addr>,
    /// None for the connection's own.
    answer_max_bytes: Option<usize>,
    /// From the first try to giving up, measured.
    patience: Duration,
    /// From sending to giving a try up, measured.
    answer_within: Duration,
    closing: CancellationToken,
    /// Only for the jitter: what is sent is planned elsewhere.
    chance: Rng,
    /// The outcomes of all tries of [`send`](Self::send).
    pub(crate) tally: Tally,
}

impl Client {
    /// Without patience: every request is sent once.
    pub(crate) fn new(server: Address) -> Self {
        Self {
            server,
            connection: None,
            from: None,
            answer_max_bytes: None,
            patience: Duration::ZERO,
            answer_within: ANSWER_WITHIN,
            closing: CancellationToken::new(),
            chance: Rng::with_seed(0),
            tally: Tally::default(),
        }
    }

    pub(crate) fn coming_from(self, from: Option<Ipv4Addr>) -> Self {
        Self { from, ..self }
    }

    /// Answers may be so large, and no larger.
    pub(crate) fn taking_answers_up_to(mut self, bytes: usize) -> Self {
        self.answer_max_bytes = Some(bytes);
        self
    }

    /// Of a server that may think so long about an answer, measured.
    pub(crate) fn waiting_up_to(self, answer_within: Duration) -> Self {
        Self {
            answer_within,
            ..self
        }
    }

    /// Sends requests again for so long, measured. `number` makes the jitter unlike that of others.
    pub(crate) fn patient(
        self,
        patience: Duration,
        closing: CancellationToken,
        number: u64,
    ) -> Self {
        Self {
            patience,
            closing,
            chance: Rng::with_seed(number),
            ..self
        }
    }

    /// A request that is yet to be sent; a body is JSON.
    pub(crate) fn request(&self, method: Method, path: &str, body: Option<String>) -> Outgoing {
        self.server.request(method, path, body.map(Into::into))
    }

    /// Sends a request once, and waits for its answer however long that takes.
    pub(crate) async fn exchange(&mut self, request: Outgoing) -> Result<Answer, TransportError> {
        // The connection is put back only after a whole answer, so an exchange that failed or
        // was dropped half-way takes its connection with it.
        let reused = self.connection.take().filter(Connection::is_open);
        let mut connection = match reused {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = connection.exchange(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// A request without a body, once.
    pub(crate) async fn call(&mut self, method: Method, path: &str) -> Result<Answer, Failure> {
        let request = self.request(method, path, None);
        self.exchange(request).await.map_err(Failure::Transport)
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let connection = self.server.connect(self.from).await?;
        Ok(match self.answer_max_bytes {
            Some(bytes) => connection.taking_answers_up_to(bytes),
            None => connection,
        })
    }

    /// Sends a request until it is acknowledged (`read` returns something), refused for good, or the patience is over.
    pub(crate) async fn send<T>(
        &mut self,
        request: &Outgoing,
        read: impl Fn(&Answer) -> Option<T>,
    ) -> Sent<T> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::default();
        let mut uncertain = 0;
        loop {
            let answer = self.attempt(request.clone()).await;
            self.count(&answer);
            let (why, asked) = match answer {
                Ok(answer) => {
                    let status = answer.status;
                    if let Some(read) = read(&answer) {
                        return Sent {
                            acknowledged: Some((status, read)),
                            ..Sent::given_up(String::new(), uncertain)
                        };
                    }
                    if !Failure::Status(status).is_temporary() {
                        let why = format!("{status} {}", problem(&answer));
                        return Sent {
                            refused: Some(status),
                            ..Sent::given_up(why, uncertain)
                        };
                    }
                    // An engine that failed during the request may have written it first.
                    uncertain += u64::from(status.is_server_error());
                    (status.to_string(), retry_after(&answer))
                }
                Err(error) => {
                    uncertain += u64::from(!error.is_of_connecting());
                    (error.to_string(), None)
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // The last try is when the patience ends, unless the server has asked not to be bothered by then.
            if left.is_zero() || asked.is_some_and(|asked| asked > left) {
                return Sent::given_up(why, uncertain);
            }
            let pause = asked.unwrap_or_else(|| backoff.next());
            let pause = pause.mul_f64(1.0 + JITTER * self.chance.f64()).min(left);
            let waited = self.closing.run_until_cancelled(sleep(pause)).await;
            if waited.is_none() {
                return Sent::given_up(format!("{why}, then the run was stopped"), uncertain);
            }
            self.tally.count(RETRIES);
        }
    }

    fn count(&mut self, answer: &Result<Answer, TransportError>) {
        let tally = &mut self.tally;
        *match answer {
            Ok(answer) => tally.by_status.entry(answer.status.as_u16()).or_default(),
            Err(error) => tally
                .by_transport_error
                .entry(error.to_string())
                .or_default(),
        } += 1;
    }

    async fn attempt(&mut self, request: Outgoing) -> Result<Answer, TransportError> {
        let (within, closing) = (self.answer_within, self.closing.clone());
        tokio::select! {
            biased;
            // Boxed: otherwise each worker's future grows by kilobytes.
            answer = timeout(within, Box::pin(self.exchange(request))) => {
                answer.unwrap_or(Err(TransportError::TimedOut))
            }
            () = goodbye_is_over(&closing) => Err(TransportError::TimedOut),
        }
    }

    /// `GET` until there is a readable 200, or an answer that will not change, or the patience is over. It is not counted.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let patience = if self.closing.is_cancelled() {
            self.patience.min(PATIENCE_WHEN_STOPPED)
        } else {
            self.patience
        };
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::default();
        loop {
            let call = timeout(self.answer_within, Box::pin(self.call(Method::GET, path)));
            let silence = Err(Failure::Transport(TransportError::TimedOut));
            let answer = match call.await.unwrap_or(silence) {
                Ok(answer) if answer.status == StatusCode::OK => answer.json(),
                Ok(answer) => Err(Failure::Status(answer.status)),
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if failure.is_temporary() && Instant::now() < deadline => {
                    sleep(backoff.next()).await;
                }
                answer => return answer,
            }
        }
    }

    /// The same; none for a 404.
    pub(crate) async fn look_up<T: DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> Result<Option<T>, Failure> {
        match self.get(path).await {
            Err(Failure::Status(StatusCode::NOT_FOUND)) => Ok(None),
            answer => answer.map(Some),
        }
    }
}

/// `GET` before a run. No retries: a mistyped address is reported at once.
pub(crate) async fn beforehand<T: DeserializeOwned>(
    server: &Address,
    path: &str,
) -> anyhow::Result<T> {
    let answer = Client::new(server.clone()).get(path).await;
    answer.map_err(|failure| unreadable(path, failure))
}

/// `GET` before a run whose workers ask again after any refusal: without a credential they would be refused for as long as
/// it lasts. Every other answer, and none, is for the run.
pub(crate) async fn admitted(server: &Address, path: &str) -> anyhow::Result<()> {
    let mut client = Client::new(server.clone());
    let call = Box::pin(client.call(Method::GET, path));
    match timeout(ANSWER_WITHIN, call).await {
        Ok(Ok(Answer {
            status: status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            ..
        })) => Err(unreadable(path, Failure::Status(status))),
        _ => Ok(()),
    }
}

/// Why a run does not begin.
pub(crate) fn unreadable(path: &str, failure: Failure) -> anyhow::Error {
    let advice = match failure {
        Failure::Status(StatusCode::UNAUTHORIZED) => {
            ": give a valid token with --token-file or in ODYSSEY_TOKEN"
        }
        Failure::Status(StatusCode::FORBIDDEN) => {
            ": the token of --token-file or ODYSSEY_TOKEN needs a role for it"
        }
        _ => "",
    };
    anyhow!("cannot read GET {path} beforehand: {failure}{advice}")
}

pub(crate) async fn goodbye_is_over(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(GOODBYE_MAX).await;
}

/// None when the server did not say, or named a date.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let seconds = answer.header(RETRY_AFTER.as_str())?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A problem+json in one line; empty when it is none.
fn problem(answer: &Answer) -> String {
    let body = answer.value();
    let sentence = body["detail"].as_str().or_else(|| body["title"].as_str());
    let mut parts: Vec<_> = sentence.map(str::to_owned).into_iter().collect();
    for field in ["state", "allowed"] {
        if !body[field].is_null() {
            parts.push(format!("{field} {}", body[field]));
        }
    }
    parts.join(", ")
}

/// How the sending of a request ended.
#[derive(Debug)]
pub(crate) struct Sent<T> {
    /// With its status; none when it was given up.
    pub(crate) acknowledged: Option<(StatusCode, T)>,
    /// Tries that the server may have accepted, without the one that was acknowledged or refused.
    pub(crate) uncertain: u64,
    /// The status of a refusal for good.
    pub(crate) refused: Option<StatusCode>,
    /// Why it was given up.
    pub(crate) why: String,
}

impl<T> Sent<T> {
    /// The answer that acknowledged it.
    pub(crate) fn answer(&self) -> Option<&T> {
        self.acknowledged.as_ref().map(|(_, answer)| answer)
    }

    /// Whether the server may have accepted another try than the one that was acknowledged.
    pub(crate) fn may_be_taken(&self) -> bool {
        self.uncertain > 0
    }

    fn given_up(why: String, uncertain: u64) -> Self {
        Self {
            acknowledged: None,
            uncertain,
            refused: None,
            why,
        }
    }
}

/// Why there was no answer of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No complete answer.
    Transport(TransportError),
    /// A status that the contract has for this situation or another.
    Status(StatusCode),
    /// A 200 whose body is not the contract's.
    Unreadable,
}

impl Failure {
    /// Whether the same call may succeed later: there was no answer, or the server is overloaded or failed.
    pub(crate) fn is_temporary(self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Status(status) => {
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreadable => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "{error}"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Unreadable => f.write_str("unreadable answer"),
        }
    }
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| Failure::Unreadable)
    }

    /// Null when it is not JSON.
    pub(crate) fn value(&self) -> Value {
        self.json().unwrap_or_default()
    }
}

/// Percent-encodes a value in a path or query.
pub(crate) fn encoded(value: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(encode).collect()
}

/// Pauses between tries, doubling up to a bound; measured.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = BACKOFF_FIRST.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        pause.min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn ids_are_encoded_for_a_query() {
        assert_eq!(encoded("0198-ab_c.~"), "0198-ab_c.~");
        assert_eq!(encoded("a&b=c é"), "a%26b%3Dc%20%C3%A9");
    }

    #[test]
    fn a_problem_is_one_line_and_a_pause_is_in_seconds() {
        let answer = |body: &'static str, pause: &'static str| Answer {
            status: StatusCode::CONFLICT,
            headers: [(RETRY_AFTER, pause.parse().unwrap())]
                .into_iter()
                .collect(),
            body: body.into(),
        };
        let body = r#"{"title":"Conflict","state":"LANDED","allowed":["TAKEN_OFF"]}"#;
        let conflict = answer(body, "7");
        let expected = r#"Conflict, state "LANDED", allowed ["TAKEN_OFF"]"#;
        assert_eq!(problem(&conflict), expected);
        assert_eq!(retry_after(&conflict), Some(Duration::from_secs(7)));
        let other = answer("busy", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(
            (problem(&other), retry_after(&other)),
            (String::new(), None)
        );
    }
}
