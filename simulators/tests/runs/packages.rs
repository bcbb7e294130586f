//! A small package desk that keeps the contract, so that senders can be watched without the real one: packages once,
//! preferences by their times, statistics, and a few faults on demand.

use std::{
    collections::BTreeMap,
    io,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, LOCATION},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::timeout};

use crate::server::{Reply, reply, serve};

/// What this desk does wrong from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Takes every package for a new one.
    ForgetsPackages,
    /// Delivers packages that the recipient does not want.
    IgnoresPreferences,
    /// Keeps the preference that came last.
    LastPreferenceWins,
    /// Counts one malformed request too few once there are any.
    MiscountsRejected,
    /// Counts too many packages of one type.
    MiscountsTypes,
    /// Rejects without saying why.
    RejectsWithoutAProblem,
    /// Does not say that a package differs from the one before.
    HidesMismatches,
}

/// What this desk does wrong. Packages and preferences are numbered from 1, in the order in which they arrive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) habits: &'static [Habit],
    /// Takes every so many requests and hangs up instead of answering.
    pub(crate) hangs_up_every: Option<u64>,
    /// Hangs up on these requests without a look at them, as if it were being restarted.
    pub(crate) is_down_for: Option<RangeInclusive<u64>>,
    /// Answers every so many requests with 503, without a look at them.
    pub(crate) is_busy_every: Option<u64>,
    /// Answers nothing but packages and preferences once so many of these have come.
    pub(crate) tells_nothing_after: Option<u64>,
}

impl Faults {
    pub(crate) fn of(habits: &'static [Habit]) -> Self {
        Self {
            habits,
            ..Self::default()
        }
    }

    fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) packages: BTreeMap<String, Stored>,
    pub(crate) preferences: BTreeMap<String, Preference>,
    pub(crate) rejected: u64,
    /// By type and status.
    counts: BTreeMap<(String, &'static str), u64>,
}

#[derive(Debug)]
pub(crate) struct Stored {
    sent: Value,
    status: &'static str,
    /// How often it came.
    pub(crate) times: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Preference {
    second: i64,
    personal: bool,
    marketing: bool,
}

pub(crate) struct Desk {
    pub(crate) customers: String,
    book: Arc<Mutex<Book>>,
    changed: Arc<Notify>,
}

impl Desk {
    pub(crate) async fn open(faults: Faults) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let came = {
            let book = Arc::clone(&book);
            move || book.lock().unwrap().connections += 1
        };
        let changed = Arc::new(Notify::new());
        let (clerk, bell) = (Arc::clone(&book), Arc::clone(&changed));
        let address = serve(came, move |request| {
            let (clerk, faults) = (Arc::clone(&clerk), faults.clone());
            let bell = Arc::clone(&bell);
            async move {
                let answer = answer(&clerk, &faults, request).await;
                bell.notify_one();
                answer
            }
        });
        let customers = format!("--customers=http://{}", address.await);
        Self {
            customers,
            book,
            changed,
        }
    }

    /// Waits until the book is as described.
    pub(crate) async fn until(&self, as_described: impl Fn(&Book) -> bool) {
        let reached = async {
            while !as_described(&self.book()) {
                self.changed.notified().await;
            }
        };
        let reached = timeout(Duration::from_secs(30), reached).await;
        assert!(reached.is_ok(), "never came to be: {:?}", self.book());
    }

    /// What has happened so far.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

async fn answer(
    book: &Mutex<Book>,
    faults: &Faults,
    request: Request<Incoming>,
) -> io::Result<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path: Vec<_> = head.uri.path().split('/').skip(1).collect();
    let mut book = book.lock().unwrap();
    let is_package = match (&head.method, &path[..]) {
        (&Method::POST, ["packages"]) => true,
        (&Method::PUT, ["preferences"]) => false,
        (&Method::GET, path) => {
            let tells = |after| book.requests < after;
            return if faults.tells_nothing_after.is_none_or(tells) {
                Ok(book.show(faults, path))
            } else {
                Err(io::ErrorKind::ConnectionAborted.into())
            };
        }
        _ => return Ok(reply(StatusCode::NOT_FOUND, &Value::Null)),
    };
    book.requests += 1;
    let number = book.requests;
    let is_nth = |every: Option<u64>| every.is_some_and(|every| number.is_multiple_of(every));
    if faults
        .is_down_for
        .as_ref()
        .is_some_and(|down| down.contains(&number))
    {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if is_nth(faults.is_busy_every) {
        return Ok(reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null));
    }
    let is_json = head.headers[CONTENT_TYPE] == "application/json";
    let answer = match serde_json::from_slice(&body) {
        _ if !is_json => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Err(_) => Err(StatusCode::BAD_REQUEST),
        Ok(sent) if is_package => book.take(faults, &sent),
        Ok(sent) => book.prefer(faults, &sent),
    };
    let answer = answer.unwrap_or_else(|status| book.reject(faults, status));
    if is_nth(faults.hangs_up_every) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(answer)
}

/// Formats an id as the server stores it.
fn id(sent: &Value) -> Result<String, StatusCode> {
    let id = match sent {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(StatusCode::UNPROCESSABLE_ENTITY),
    };
    let is_proper = (1..=128).contains(&id.len());
    is_proper
        .then_some(id)
        .ok_or(StatusCode::UNPROCESSABLE_ENTITY)
}

fn second(sent: &Value) -> Result<i64, StatusCode> {
    let second = match sent {
        Value::String(text) => text.parse().ok().map(Timestamp::as_second),
        other => other.as_i64(),
    };
    second.ok_or(StatusCode::UNPROCESSABLE_ENTITY)
}

fn flag(sent: &Value) -> Result<bool, StatusCode> {
    sent.as_bool().ok_or(StatusCode::UNPROCESSABLE_ENTITY)
}

impl Book {
    /// How many there are of this type (any if none) and status.
    pub(crate) fn count(&self, kind: Option<&str>, status: &str) -> u64 {
        let counts = self.counts.iter();
        let counts =
            counts.filter(|((of, is), _)| *is == status && kind.is_none_or(|kind| kind == of));
        counts.map(|(_, times)| times).sum()
    }

    fn preference(&self, recipient: &str) -> Preference {
        let stranger = Preference {
            second: i64::MIN,
            personal: true,
            marketing: true,
        };
        self.preferences.get(recipient).copied().unwrap_or(stranger)
    }

    fn take(&mut self, faults: &Faults, sent: &Value) -> Result<Reply, StatusCode> {
        let package_id = id(&sent["package_id"])?;
        let recipient = id(&sent["recipient_id"])?;
        let kept = json!({
            "timestamp": second(&sent["timestamp"])?,
            "sender_id": id(&sent["sender_id"])?,
            "recipient_id": recipient,
            "package_id": package_id,
            "package_type": sent["package_type"],
        });
        let preference = self.preference(&recipient);
        let (kind, wanted) = match sent["package_type"].as_str() {
            Some("personal") => ("personal", preference.personal),
            Some("marketing") => ("marketing", preference.marketing),
            _ => return Err(StatusCode::UNPROCESSABLE_ENTITY),
        };
        if let Some(first) = self.packages.get_mut(&package_id) {
            first.times += 1;
            if !faults.has(Habit::ForgetsPackages) {
                let mut body = json!({
                    "package_id": package_id,
                    "status": first.status,
                    "duplicate": true,
                });
                if first.sent != kept && !faults.has(Habit::HidesMismatches) {
                    body["mismatch"] = json!(true);
                }
                return Ok(reply(StatusCode::OK, &body));
            }
        }
        let status = if wanted || faults.has(Habit::IgnoresPreferences) {
            "delivered"
        } else {
            "dropped"
        };
        *self.counts.entry((kind.to_owned(), status)).or_default() += 1;
        let body = json!({ "package_id": package_id, "status": status, "duplicate": false });
        let mut created = reply(StatusCode::CREATED, &body);
        let place = format!("/packages/{package_id}").parse().unwrap();
        created.headers_mut().insert(LOCATION, place);
        let first = Stored {
            sent: kept,
            status,
            times: 1,
        };
        self.packages.entry(package_id).or_insert(first);
        Ok(created)
    }

    fn prefer(&mut self, faults: &Faults, sent: &Value) -> Result<Reply, StatusCode> {
        let recipient = id(&sent["recipient_id"])?;
        let mut preference = Preference {
            second: second(&sent["timestamp"])?,
            personal: flag(&sent["personal_preference"])?,
            marketing: flag(&sent["marketing_preference"])?,
        };
        let before = self.preference(&recipient);
        if preference.second == before.second {
            preference.personal &= before.personal;
            preference.marketing &= before.marketing;
        }
        let is_newest = preference.second >= before.second;
        let holds = if is_newest || faults.has(Habit::LastPreferenceWins) {
            preference
        } else {
            before
        };
        self.preferences.insert(recipient.clone(), holds);
        let body = json!({
            "recipient_id": recipient,
            "personal_preference": holds.personal,
            "marketing_preference": holds.marketing,
            "applied": is_newest,
        });
        Ok(reply(StatusCode::OK, &body))
    }

    fn reject(&mut self, faults: &Faults, status: StatusCode) -> Reply {
        self.rejected += 1;
        let mut rejected = reply(status, &json!({ "title": "No", "status": status.as_u16() }));
        if !faults.has(Habit::RejectsWithoutAProblem) {
            let content_type = HeaderValue::from_static("application/problem+json");
            rejected.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        rejected
    }

    fn show(&self, faults: &Faults, path: &[&str]) -> Reply {
        match path {
            ["statistics"] => {
                let of = |kind: &str| {
                    let wrong = u64::from(faults.has(Habit::MiscountsTypes) && kind == "marketing");
                    json!({
                        "delivered": self.count(Some(kind), "delivered") + wrong * self.requests,
                        "dropped": self.count(Some(kind), "dropped"),
                    })
                };
                let too_few = u64::from(faults.has(Habit::MiscountsRejected));
                let statistics = json!({
                    "packages_delivered": self.count(None, "delivered"),
                    "packages_dropped": self.count(None, "dropped"),
                    "requests_rejected": self.rejected.saturating_sub(too_few),
                    "by_type": { "personal": of("personal"), "marketing": of("marketing") },
                });
                reply(StatusCode::OK, &statistics)
            }
            ["preferences", recipient] => {
                let holds = self.preference(recipient);
                let body = json!({
                    "recipient_id": recipient,
                    "personal_preference": holds.personal,
                    "marketing_preference": holds.marketing,
                });
                reply(StatusCode::OK, &body)
            }
            ["packages", package_id] => match self.packages.get(*package_id) {
                Some(kept) => {
                    let mut body = kept.sent.clone();
                    body["status"] = json!(kept.status);
                    reply(StatusCode::OK, &body)
                }
                None => reply(StatusCode::NOT_FOUND, &Value::Null),
            },
            _ => reply(StatusCode::NOT_FOUND, &Value::Null),
        }
    }
}
