//! Path and query parameters, and who sent the request; a [`Problem`] for invalid ones.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tracing::{Level, enabled};
use uuid::Uuid;

use super::guard::{not_its_subject, revoked};
use super::problem::{FieldError, Problem};
use crate::access::{Granted, Role};
use crate::values::id::KEY_CHARS_MAX;

/// In the extensions of every request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: IpAddr,
    pub request_id: HeaderValue,
    /// With what it may use the route; none where nothing is required.
    pub granted: Option<Granted>,
}

impl Caller {
    pub fn actor(&self) -> Actor {
        Actor(self.granted.clone())
    }

    pub fn logged_request_id(&self) -> LoggedRequestId {
        let text = || self.request_id.to_str().unwrap_or_default();
        LoggedRequestId(enabled!(Level::DEBUG).then(|| text().into()))
    }
}

/// Who sent the request, if that had to be proved.
#[derive(Debug, Clone)]
pub struct Actor(Option<Granted>);

impl Actor {
    /// Its name, for logs and records.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|granted| &*granted.identity.name)
    }

    /// For whom it acts.
    pub fn subject(&self) -> Option<&str> {
        self.0.as_ref().map(|granted| &*granted.identity.subject)
    }

    /// The only subject that it may act for, if it may use the route for no other role than this.
    pub fn bound_to(&self, role: Role) -> Option<&str> {
        self.0.as_ref().and_then(|granted| granted.bound_to(role))
    }

    /// Resolves to 401 once its token is revoked: what a held request does then.
    pub async fn revoked(&self) -> Problem {
        match &self.0 {
            Some(granted) => granted.revoked().await,
            None => pending().await,
        }
        revoked()
    }

    /// # Errors
    /// 403 if it is here for this role only, and `subject` is not its own.
    pub fn may_act_for(&self, role: Role, subject: &str) -> Result<(), Problem> {
        match self.bound_to(role) {
            Some(own) if own != subject => Err(not_its_subject(own)),
            _ => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        Ok(caller.map_or(Self(None), Caller::actor))
    }
}

/// 400, for one parameter.
fn wrong_parameter(name: &str, detail: String) -> Problem {
    Problem::unreadable(detail.clone()).at(FieldError {
        pointer: None,
        parameter: Some(name.to_owned().into()),
        detail,
    })
}

/// Rejects an unknown query parameter: a misspelt one would be ignored silently.
///
/// # Errors
/// 400, naming the parameter and the known ones.
pub(super) fn reject_unknown(query: &str, known: &[Box<str>]) -> Result<(), Problem> {
    let is_known = |name: &[u8]| known.iter().any(|known| known.as_bytes() == name);
    // By bytes: a URI is ASCII.
    let given = query
        .as_bytes()
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split(|&byte| byte == b'=').next().unwrap_or(pair));
    for name in given.filter(|name| !is_known(name)) {
        let spaced = String::from_utf8_lossy(name).replace('+', " ");
        let name = percent_decode_str(&spaced).decode_utf8_lossy();
        if !is_known(name.as_bytes()) {
            let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() {
                "there are none here".to_owned()
            } else {
                format!("known are {}", quoted.join(", "))
            };
            let detail = format!("The query parameter `{name}` is unknown; {known}.");
            return Err(wrong_parameter(&name, detail));
        }
    }
    Ok(())
}

/// The query string as a `T`. The edge has rejected unknown parameters (`described`).
#[derive(Debug)]
pub struct Query<T>(pub T);

#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query));
        serde_path_to_error::deserialize(pairs)
            .map(Self)
            .map_err(|error| unreadable(&error))
    }
}

/// The library's texts name its own types.
fn unreadable(error: &serde_path_to_error::Error<serde_urlencoded::de::Error>) -> Problem {
    let said = error.inner().to_string();
    // The name of a missing or repeated parameter is only in its text.
    let quoted = said.split('`').nth(1).unwrap_or_default();
    let path = error.path().to_string();
    let (name, what) = if said.starts_with("duplicate field") {
        (quoted, "is there more than once")
    } else if said.starts_with("missing field") {
        (quoted, "is missing")
    } else if said.contains("true") {
        (&*path, "must be true or false")
    } else {
        (
            &*path,
            "must be a whole number, neither negative nor too large",
        )
    };
    wrong_parameter(name, format!("The query parameter `{name}` {what}."))
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| Problem::unreadable("The path is not UTF-8 after percent-decoding."))
    }
}

#[derive(Debug)]
pub struct RequestId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        let id = caller.and_then(|caller| caller.request_id.to_str().ok());
        Ok(Self(id.unwrap_or_default().to_owned()))
    }
}

/// The request's id if the log level is debug.
#[derive(Debug)]
pub struct LoggedRequestId(pub Option<Box<str>>);

impl<S: Send + Sync> FromRequestParts<S> for LoggedRequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        Ok(caller.map_or(Self(None), Caller::logged_request_id))
    }
}

/// The path or query parameter `name`; `detail` says which form it must have.
///
/// # Errors
/// 422 if `parse` rejects it.
pub fn parsed<T, D: Into<String>>(
    name: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Option<T>,
    detail: impl FnOnce() -> D,
) -> Result<T, Problem> {
    parse(text).ok_or_else(|| Problem::invalid_parameter(name, detail()))
}

/// # Errors
/// 422 if it is no UUID.
pub fn uuid(name: &'static str, text: &str) -> Result<Uuid, Problem> {
    parsed(
        name,
        text,
        |text| text.parse().ok(),
        || "It must be a UUID.",
    )
}

/// Default page size of a list.
const PAGE_LIMIT: usize = 100;
const PAGE_LIMIT_MAX: usize = 1000;

/// The parameter `limit` of a paged list.
///
/// # Errors
/// 422 if it is no number, or out of bounds.
pub fn page_limit(limit: Option<String>) -> Result<usize, Problem> {
    let parse = |text: &str| {
        let limit = text.parse().ok();
        limit.filter(|limit| (1..=PAGE_LIMIT_MAX).contains(limit))
    };
    let detail = || format!("It must be a number from 1 to {PAGE_LIMIT_MAX}.");
    let limit = limit.map(|text| parsed("limit", &text, parse, detail));
    limit.unwrap_or(Ok(PAGE_LIMIT))
}

/// The parameter `cursor` of a paged list.
///
/// # Errors
/// 422 if `parse` rejects it.
pub fn page_cursor<T>(
    cursor: Option<String>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let detail = || "It must be the `next` of an earlier answer.";
    let cursor = cursor.map(|text| parsed("cursor", &text, parse, detail));
    cursor.transpose()
}

/// The header `Idempotency-Key`.
///
/// # Errors
/// 400 if `parse` rejects it.
pub fn idempotency_key<T>(
    headers: &HeaderMap,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let detail =
        || format!("Idempotency-Key must be 1 to {KEY_CHARS_MAX} visible ASCII characters.");
    let key = parse(key.as_bytes()).ok_or_else(|| Problem::unreadable(detail()));
    key.map(Some)
}
