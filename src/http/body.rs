//! Reads request bodies as JSON, within a size and a time. Every failure is a [`Problem`] with its place.
//!
//! A body is always read to its end before a request is held: with unread bytes in its buffer hyper does not notice that
//! the client has left.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::mpsc;

use super::problem::{FieldError, Problem};
use crate::values::json::{self, Mistake, Read, Unread};

/// Queued pieces of a large body.
const CHUNKS_ON_THEIR_WAY: usize = 16;

#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub max_bytes: usize,
    /// From the first poll of the body to its last byte.
    pub timeout: Duration,
}

/// An optional body: JSON from which `T` is read.
#[derive(Debug)]
pub struct OptionalJson<T> {
    pub value: Option<T>,
    /// The body as JSON; without one, an empty object.
    pub json: Value,
}

impl<T> OptionalJson<T> {
    /// Of a request without a body.
    pub fn none() -> Self {
        Self {
            value: None,
            json: Value::Object(serde_json::Map::new()),
        }
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
    T: Read,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let raw = read(body, BodyLimits::from_ref(state)).await?;
        if raw.is_empty() {
            return Ok(Self::none());
        }
        must_be_json(&parts.headers)?;
        let json = json::read(&raw)?;
        let value = Some(json::get(&json)?);
        Ok(Self { value, json })
    }
}

/// A JSON body from which `T` is read.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
    T: Read,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        json(request, BodyLimits::from_ref(state)).await.map(Self)
    }
}

/// Reads a JSON body as `T`, within its own limits.
///
/// # Errors
/// As for [`read`] and [`json::read`]; 415 if it is not JSON by its type; 400 if there is none; 422 with pointers if it is
/// not acceptable.
pub async fn json<T: Read>(request: Request, limits: BodyLimits) -> Result<T, Problem> {
    let value = any_json(request, limits).await?;
    Ok(json::get(&value)?)
}

/// A JSON value of any kind.
#[derive(Debug)]
pub struct AnyJson(pub Value);

impl<S> FromRequest<S> for AnyJson
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let value = any_json(request, BodyLimits::from_ref(state)).await;
        value.map(Self)
    }
}

async fn any_json(request: Request, limits: BodyLimits) -> Result<Value, Problem> {
    let (parts, body) = request.into_parts();
    let raw = read(body, limits).await?;
    if raw.is_empty() {
        return Err(Problem::unreadable("There is no body; it must be JSON."));
    }
    must_be_json(&parts.headers)?;
    Ok(json::read(&raw)?)
}

/// An ignored body, read to its end and dropped.
#[derive(Debug)]
pub struct Ignored;

impl<S> FromRequest<S> for Ignored
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request.into_body(), BodyLimits::from_ref(state)).await?;
        Ok(Self)
    }
}

/// Reads a body to its end.
///
/// # Errors
/// 413 if it is too large, 408 if it takes too long, 400 if it is incomplete.
pub async fn read(body: Body, limits: BodyLimits) -> Result<Bytes, Problem> {
    // Most requests have no body: no timer, no buffer.
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limits.max_bytes as u64 {
        return Err(limits.too_large());
    }
    let collected = Limited::new(body, limits.max_bytes).collect();
    // Boxed: the timer is large, and most requests do not need it.
    match Box::pin(tokio::time::timeout(limits.timeout, collected)).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(limits.broken_off(&*error)),
        Err(_) => Err(limits.too_slow()),
    }
}

impl BodyLimits {
    /// How much of a refused body is read, in bytes.
    fn heard_max(self) -> u64 {
        self.max_bytes as u64 * 2
    }

    fn too_large(self) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The body is too large",
            format!("At most {} bytes are accepted.", self.max_bytes),
        )
    }

    fn too_slow(self) -> Problem {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-too-slow",
            "The body took too long",
            format!("A body must be here within {:?}.", self.timeout),
        )
    }

    /// Why reading a body failed.
    fn broken_off(self, error: &(dyn Error + 'static)) -> Problem {
        if error.is::<LengthLimitError>() {
            self.too_large()
        } else {
            Problem::unreadable("The body is incomplete.")
        }
    }
}

/// Streams a large body to `parse` on a blocking thread, with a bounded queue. What `parse` leaves unread is drained.
///
/// # Errors
/// As for [`read`], and 415 if it is not JSON by its type; else the error of `parse`.
pub async fn stream<T: Send + 'static>(
    request: Request,
    limits: BodyLimits,
    parse: impl FnOnce(&mut dyn io::Read) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    must_be_json(request.headers())?;
    // Before the first poll: a client with `Expect: 100-continue` need not send the body.
    let is_asked = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    let length = body.size_hint().lower();
    let is_too_large = length > limits.max_bytes as u64;
    if is_too_large && (is_asked || length > limits.heard_max()) {
        return Err(limits.too_large());
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_ON_THEIR_WAY);
    let parsing = tokio::task::spawn_blocking(move || {
        let mut incoming = Incoming {
            receiver,
            chunk: Bytes::new(),
        };
        parse(&mut incoming)
    });
    let arrived = tokio::time::timeout(limits.timeout, pump(body, limits, sender)).await;
    // Dropping the sender ends the parser.
    let parsed = parsing.await.unwrap_or_else(|_| Err(Problem::bug()));
    arrived.unwrap_or_else(|_| Err(limits.too_slow()))?;
    parsed
}

/// Forwards the body. One that is too large is drained, up to a bound: a connection that is closed while bytes arrive is
/// reset, and the answer is lost.
async fn pump(
    mut body: Body,
    limits: BodyLimits,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Problem> {
    let mut sender = (body.size_hint().lower() <= limits.max_bytes as u64).then_some(sender);
    let mut arrived = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::unreadable("The body is incomplete."))?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        arrived += chunk.len() as u64;
        if arrived > limits.heard_max() {
            break;
        }
        if arrived > limits.max_bytes as u64 {
            sender = None;
        }
        if let Some(sender) = &sender {
            // The parser stopped reading.
            let _ = sender.send(chunk).await;
        }
    }
    sender.map(drop).ok_or_else(|| limits.too_large())
}

/// Bytes of a body as they arrive.
struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl io::Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// Rejects a body whose type is not JSON in UTF-8. Without a type it is taken for JSON.
fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    must_be_plain(headers)?;
    let Some(declared) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let declared = declared.to_str().unwrap_or_default();
    let mut parts = declared.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if !is_json {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "The body's type is not accepted",
            format!("Send Content-Type: application/json, not {essence:?}."),
        ));
    }
    let charsets = parts.filter_map(|part| part.split_once('='));
    let mut charsets = charsets.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let other = charsets.find(|(_, charset)| {
        let charset = charset.trim().trim_matches('"');
        // ASCII is a part of it.
        let accepted = ["utf-8", "utf8", "us-ascii"];
        !accepted.iter().any(|one| charset.eq_ignore_ascii_case(one))
    });
    other.map_or(Ok(()), |(_, charset)| {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-utf-8",
            "The body's charset is not accepted",
            format!("Send JSON in UTF-8, not in {:?}.", charset.trim()),
        ))
    })
}

/// Rejects a body with a content coding, such as gzip, and names the one that is accepted (RFC 9110, section 12.5.3).
fn must_be_plain(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = codings.flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    let other = codings
        .find(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
        .map(|coding| String::from_utf8_lossy(coding.trim_ascii()).into_owned());
    other.map_or(Ok(()), |coding| {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "body-encoded",
            "The body's encoding is not accepted",
            format!("Send the body as it is, without Content-Encoding: {coding:?}."),
        )
        .accept_identity())
    })
}

impl From<Mistake> for FieldError {
    fn from(Mistake { pointer, detail }: Mistake) -> Self {
        Self {
            pointer: Some(pointer),
            parameter: None,
            detail,
        }
    }
}

impl From<Vec<Mistake>> for Problem {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self::invalid(mistakes.into_iter().map(FieldError::from).collect())
    }
}

/// 400 for what is not JSON, 422 for JSON that is not acceptable.
impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Mistake(mistake) => vec![mistake].into(),
            Unread::Syntax { line, column } => Self::unreadable(format!(
                "The body is not JSON from line {line}, column {column} on."
            )),
        }
    }
}
