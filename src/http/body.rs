//! Reading request bodies: whole, within a size and a time, as JSON. Every failure is a [`Problem`] with its place.
//!
//! A body is always read to its end before a request is held: while unread bytes wait in a connection's buffer, hyper
//! does not look whether the client is still there.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use garde::Validate;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::problem::{FieldError, Problem};

/// Pieces of a large body that may wait for its parser.
const CHUNKS_ON_THEIR_WAY: usize = 16;

/// How large a body may be, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub max_bytes: usize,
    /// From the first look at the body to its last byte.
    pub timeout: Duration,
}

/// A body that may be absent; if present it is a JSON value that `T` accepts.
#[derive(Debug)]
pub struct OptionalJson<T> {
    /// The value, if there was a body.
    pub value: Option<T>,
    /// The body as it came.
    pub raw: Bytes,
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let raw = read(body, BodyLimits::from_ref(state)).await?;
        let value = if raw.is_empty() {
            None
        } else {
            must_be_json(&parts.headers)?;
            Some(parse(&raw)?)
        };
        Ok(Self { value, raw })
    }
}

/// A body that is a JSON value which `T` accepts.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    BodyLimits: FromRef<S>,
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        json(request, BodyLimits::from_ref(state)).await.map(Self)
    }
}

/// A body that is a JSON value which `T` accepts, within limits of its own.
///
/// # Errors
/// As for [`read`] and [`parse`]; 415 if it is not JSON by its type; 400 if there is none.
pub async fn json<T>(request: Request, limits: BodyLimits) -> Result<T, Problem>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    let (parts, body) = request.into_parts();
    let raw = read(body, limits).await?;
    if raw.is_empty() {
        return Err(Problem::unreadable("There is no body; it must be JSON."));
    }
    must_be_json(&parts.headers)?;
    parse(&raw)
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
        let (parts, body) = request.into_parts();
        let raw = read(body, BodyLimits::from_ref(state)).await?;
        must_be_json(&parts.headers)?;
        let value = serde_json::from_slice(&raw);
        value.map(Self).map_err(|error| unfit(error, String::new()))
    }
}

/// A JSON object of any members, for requests whose fields are not known beforehand.
#[derive(Debug, Deserialize, Validate)]
#[serde(transparent)]
pub struct Object(#[garde(skip)] pub Map<String, Value>);

/// A body nobody reads, read to its end and dropped.
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
/// 413 if it is too large, 408 if it takes too long, 400 if it breaks off.
pub async fn read(body: Body, limits: BodyLimits) -> Result<Bytes, Problem> {
    // Most requests here have no body: they pay for neither a timer nor a buffer.
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limits.max_bytes as u64 {
        return Err(limits.too_large());
    }
    let collected = Limited::new(body, limits.max_bytes).collect();
    // Boxed: the timer is large, and most requests do without it.
    match Box::pin(tokio::time::timeout(limits.timeout, collected)).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(limits.broken_off(&*error)),
        Err(_) => Err(limits.too_slow()),
    }
}

impl BodyLimits {
    /// How much of a large body is heard out, in bytes, even if it is refused.
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

    /// Why a body ended before its end.
    fn broken_off(self, error: &(dyn Error + 'static)) -> Problem {
        if error.is::<LengthLimitError>() {
            self.too_large()
        } else {
            Problem::unreadable("The body broke off.")
        }
    }
}

/// Reads a large body as it comes, on a thread that may wait: `parse` gets its bytes as they arrive, and no more of them are
/// kept than are on their way. What `parse` leaves is read to its end all the same.
///
/// # Errors
/// As for [`read`], and 415 if it is not JSON by its type; else whatever `parse` says.
pub async fn stream<T: Send + 'static>(
    request: Request,
    limits: BodyLimits,
    parse: impl FnOnce(&mut dyn io::Read) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    must_be_json(request.headers())?;
    // Whoever asks first whether to send it hears the answer without sending it.
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
    // Without the sender the parser comes to its end.
    let parsed = parsing.await.unwrap_or_else(|_| Err(Problem::bug()));
    arrived.unwrap_or_else(|_| Err(limits.too_slow()))?;
    parsed
}

/// Passes on what arrives. What is too large is heard out all the same, unless it is much too large: a connection that is
/// closed while bytes arrive is reset, and with it the answer that says why.
async fn pump(
    mut body: Body,
    limits: BodyLimits,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Problem> {
    let mut sender = (body.size_hint().lower() <= limits.max_bytes as u64).then_some(sender);
    let mut arrived = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::unreadable("The body broke off."))?;
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
            // Nobody reads any more: the parser has seen enough.
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

/// Refuses a body that says it is something else than JSON. A body that says nothing is taken for JSON.
fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(declared) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = declared
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        "The body's type is not accepted",
        format!("Send Content-Type: application/json, not {essence:?}."),
    ))
}

/// Parses and validates JSON.
///
/// # Errors
/// 400 if it is not JSON; 422 with pointers if it is JSON of the wrong shape, or breaks a rule of `T`.
pub fn parse<T: DeserializeOwned + Validate<Context = ()>>(raw: &[u8]) -> Result<T, Problem> {
    // The parser would fill the fields from an array, too, one after the other.
    if raw.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid(vec![FieldError {
            pointer: Some(String::new()),
            parameter: None,
            detail: "The body must be an object.".to_owned(),
        }]));
    }
    let mut json = serde_json::Deserializer::from_slice(raw);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        unfit(error.into_inner(), pointer)
    })?;
    json.end().map_err(|error| unfit(error, String::new()))?;
    value.validate().map_err(|report| {
        let errors = report
            .iter()
            .map(|(path, error)| FieldError {
                pointer: Some(format!("/{}", path.to_string().replace('.', "/"))),
                parameter: None,
                detail: error.to_string(),
            })
            .collect();
        Problem::invalid(errors)
    })?;
    Ok(value)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the callers are done with the error"
)]
fn unfit(error: serde_json::Error, pointer: String) -> Problem {
    if error.is_data() {
        Problem::invalid(vec![FieldError {
            pointer: Some(pointer),
            parameter: None,
            detail: error.to_string(),
        }])
    } else {
        Problem::unreadable(format!("The body is not JSON: {error}."))
    }
}

/// The JSON pointer (RFC 6901) of a path.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            // An enum's variant has no place of its own in the JSON.
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}
