//! Sends a request until it is acknowledged or refused, or the patience is at an end.
//!
//! | situation | what is done |
//! |---|---|
//! | no answer (refused, reset, closed, silence) | reconnects and sends the same again, ever later, up to 2 s |
//! | 503, 429 or another server error | sends the same again after `Retry-After`, or ever later, up to 2 s |
//! | any other status that does not acknowledge it | gives up |
//! | no acknowledgement within the patience | gives up; whether the request was taken may be unknown |
//! | ctrl-c | waits up to 2 s for the answer that is under way, and sends nothing again |

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use hyper::{StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    connection::{Answer, Outgoing, TransportError},
    shop::{Caller, Failure, read},
};

/// A server that keeps the connection and says nothing for this long, measured, has lost the request, unless it is given
/// more time.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Measured time for the answers that are under way when everything stops.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Pauses before another try are up to this share longer, so that not all clients retry at the same moment.
const JITTER: f64 = 0.25;
/// Patience with the server after ctrl-c, measured: the user who stops a run does not wait for long.
const PATIENCE_WHEN_STOPPED: Duration = Duration::from_secs(5);

/// What the server made of a request.
#[derive(Debug)]
pub(crate) enum Reply<T> {
    /// It was taken, now or before.
    Acknowledged { status: StatusCode, answer: T },
    /// Not now: 429 or a server error.
    Later {
        status: StatusCode,
        /// None when the server did not say, or named a date.
        retry_after: Option<Duration>,
    },
    /// Any other status: the same request will not be taken later either.
    Refused {
        status: StatusCode,
        /// What the problem says.
        problem: String,
    },
}

impl<T> Reply<T> {
    /// An answer that acknowledges nothing.
    pub(crate) fn unless_acknowledged(answer: &Answer) -> Self {
        let status = answer.status;
        if Failure::Status(status).is_temporary() {
            let seconds = answer.header(RETRY_AFTER.as_str());
            let seconds = seconds.and_then(|text| text.trim().parse().ok());
            return Self::Later {
                status,
                retry_after: seconds.map(Duration::from_secs),
            };
        }
        Self::Refused {
            status,
            problem: problem(answer),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Acknowledged { status, .. }
            | Self::Later { status, .. }
            | Self::Refused { status, .. } => *status,
        }
    }
}

/// What a problem+json says, in one line; empty when it is none.
fn problem(answer: &Answer) -> String {
    let body: Value = read(answer).unwrap_or_default();
    let sentence = body["detail"].as_str().or_else(|| body["title"].as_str());
    let mut parts: Vec<_> = sentence.map(str::to_owned).into_iter().collect();
    for field in ["state", "allowed"] {
        if !body[field].is_null() {
            parts.push(format!("{field} {}", body[field]));
        }
    }
    parts.join(", ")
}

/// What came of single tries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tries {
    /// Answers, repetitions among them.
    pub(crate) by_status: BTreeMap<u16, u64>,
    pub(crate) by_transport_error: BTreeMap<String, u64>,
    /// Times that a request was sent again because it had not been acknowledged.
    pub(crate) retries: u64,
}

impl Tries {
    /// Counts an answer, or that there was none.
    fn answered<T>(&mut self, reply: &Result<Reply<T>, TransportError>) {
        match reply {
            Ok(reply) => *self.by_status.entry(reply.status().as_u16()).or_default() += 1,
            Err(error) => {
                *self
                    .by_transport_error
                    .entry(error.to_string())
                    .or_default() += 1;
            }
        }
    }

    /// Adds the counts of another sender.
    pub(crate) fn add(&mut self, others: Self) {
        for (status, times) in others.by_status {
            *self.by_status.entry(status).or_default() += times;
        }
        for (error, times) in others.by_transport_error {
            *self.by_transport_error.entry(error).or_default() += times;
        }
        self.retries += others.retries;
    }
}

/// How the sending of a request ended.
#[derive(Debug)]
pub(crate) struct Sent<T> {
    /// With its status; none when it was given up.
    pub(crate) acknowledged: Option<(StatusCode, T)>,
    /// Tries that the server may have taken, without the one that was acknowledged or refused.
    pub(crate) uncertain: u64,
    /// The status of a refusal for good.
    pub(crate) refused: Option<StatusCode>,
    /// Why it was given up.
    pub(crate) why: String,
}

impl<T> Sent<T> {
    /// Whether the server may have taken another try than the one that was acknowledged.
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

/// A client that sends a request, and sends it again.
#[derive(Debug)]
pub(crate) struct Resender {
    /// From the first try to giving up, measured.
    patience: Duration,
    /// From sending to giving a try up, measured.
    answer_within: Duration,
    closing: CancellationToken,
    /// Only for the jitter: what is sent is planned elsewhere.
    chance: Rng,
    /// What came of all tries so far.
    pub(crate) tries: Tries,
}

impl Resender {
    /// `number` makes the jitter unlike that of others.
    pub(crate) fn new(patience: Duration, closing: CancellationToken, number: u64) -> Self {
        Self {
            patience,
            answer_within: ANSWER_WITHIN,
            closing,
            chance: Rng::with_seed(number),
            tries: Tries::default(),
        }
    }

    /// Of a server that may think so long about an answer, measured.
    pub(crate) fn waiting_up_to(mut self, answer_within: Duration) -> Self {
        self.answer_within = answer_within;
        self
    }

    /// Sends a request until it is acknowledged or refused, or there is no more to be hoped for. `meaning` is what its
    /// answers mean.
    pub(crate) async fn send<T>(
        &mut self,
        caller: &mut Caller,
        request: &Outgoing,
        meaning: fn(&Answer) -> Reply<T>,
    ) -> Sent<T> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::default();
        let mut uncertain = 0;
        loop {
            let answer = self.attempt(caller, request.clone()).await;
            let reply = answer.map(|answer| meaning(&answer));
            self.tries.answered(&reply);
            let (why, asked) = match reply {
                Ok(Reply::Acknowledged { status, answer }) => {
                    return Sent {
                        acknowledged: Some((status, answer)),
                        ..Sent::given_up(String::new(), uncertain)
                    };
                }
                Ok(Reply::Refused { status, problem }) => {
                    return Sent {
                        refused: Some(status),
                        ..Sent::given_up(format!("{status} {problem}"), uncertain)
                    };
                }
                Ok(Reply::Later {
                    status,
                    retry_after,
                }) => {
                    // An engine that failed during the request may have written it first.
                    uncertain += u64::from(status.is_server_error());
                    (status.to_string(), retry_after)
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
            self.tries.retries += 1;
        }
    }

    /// Sends it once.
    async fn attempt(
        &self,
        caller: &mut Caller,
        request: Outgoing,
    ) -> Result<Answer, TransportError> {
        tokio::select! {
            biased;
            // Boxed: otherwise each sender's future grows by kilobytes.
            answer = timeout(self.answer_within, Box::pin(caller.send(request))) => {
                answer.unwrap_or(Err(TransportError::TimedOut))
            }
            () = goodbye_is_over(&self.closing) => Err(TransportError::TimedOut),
        }
    }
}

async fn goodbye_is_over(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(GOODBYE_MAX).await;
}

/// The patience, measured, with questions at the end of a run that was stopped or not.
pub(crate) fn patience_at_the_end(patience: Duration, closing: &CancellationToken) -> Duration {
    if closing.is_cancelled() {
        patience.min(PATIENCE_WHEN_STOPPED)
    } else {
        patience
    }
}

/// Asks until there is an answer, or this one will not change, or the patience, measured, is at an end.
pub(crate) async fn insist<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::default();
    loop {
        let silence = Err(Failure::Transport(TransportError::TimedOut));
        let answer = timeout(ANSWER_WITHIN, ask()).await.unwrap_or(silence);
        match answer {
            Err(failure) if failure.is_temporary() && Instant::now() < deadline => {
                sleep(backoff.next()).await;
            }
            answer => return answer,
        }
    }
}

/// Unlike that of any other run: the moment, and chance that no seed repeats. At most 90 characters, hexadecimal
/// digits and a hyphen; ids that are made of it and a number are unlike those of any other run too.
pub(crate) fn run_id() -> String {
    let moment = Timestamp::now().as_millisecond();
    format!("{moment:x}-{:06x}", fastrand::u32(..1 << 24))
}

/// Locks briefly. A poisoned lock is used: the panic ends the run anyhow.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a server that answers like this until the patience of 10 s is at an end; how often and for how long.
    async fn asked(failure: Failure) -> (u32, Duration) {
        let begun = Instant::now();
        let mut times = 0;
        let answer = insist(Duration::from_secs(10), async || {
            times += 1;
            Err::<(), _>(failure)
        });
        assert_eq!(answer.await, Err(failure));
        (times, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_may_come_back_is_asked_until_the_patience_is_at_an_end() {
        for failure in [
            Failure::Transport(TransportError::Refused),
            Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let (times, elapsed) = asked(failure).await;
            assert!(times > 5, "{times}");
            assert!((10..=12).contains(&elapsed.as_secs()), "{elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_will_not_change_is_taken_at_once() {
        let (times, elapsed) = asked(Failure::Status(StatusCode::FORBIDDEN)).await;
        assert_eq!((times, elapsed), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_answer_after_a_while() {
        let patience = Duration::ZERO;
        let answer = insist(patience, async || {
            std::future::pending::<Result<(), _>>().await
        });
        let silence = Failure::Transport(TransportError::TimedOut);
        assert_eq!(answer.await, Err(silence));
    }

    #[test]
    fn runs_have_names_of_their_own_that_leave_room_for_a_number() {
        let (one, other) = (run_id(), run_id());
        assert_ne!(one, other);
        assert!(one.len() <= 90, "{one}");
    }
}
