//! Error answers: RFC 9457 problem details.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::access::Roles;
use crate::storage::{SpaceLow, Unavailable};

/// A problem, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Stable name of the kind of problem.
    #[serde(rename = "type", serialize_with = "as_urn")]
    #[schema(example = "urn:odyssey:problem:order-unknown")]
    kind: &'static str,
    /// The same for every occurrence.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Of this occurrence.
    detail: Cow<'static, str>,
    /// The wrong places in the request, if known.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: Box<[FieldError]>,
    /// Further members, such as the current state in a conflict.
    #[serde(flatten)]
    #[schema(ignore)]
    more: Option<Box<Map<String, Value>>>,
    /// As `Retry-After`, in seconds.
    #[serde(rename = "retry_after_s", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    retry_after_secs: Option<u32>,
    #[serde(skip)]
    #[schema(ignore)]
    accepted: Option<Accepted>,
}

/// What would be accepted instead, as headers.
#[derive(Debug, Clone, Copy)]
enum Accepted {
    /// These methods.
    Methods(&'static str),
    /// A body without a content coding.
    Identity,
    /// A token (RFC 6750, section 3): the error, if one was sent, and the roles of which one is needed.
    Token(Option<&'static str>, Roles),
}

/// One wrong place in a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// Name of a query or path parameter, or of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<Cow<'static, str>>,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem of the kind `urn:odyssey:problem:<slug>`.
    pub fn new(
        status: StatusCode,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind: slug,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Box::default(),
            more: None,
            retry_after_secs: None,
            accepted: None,
        }
    }

    /// 400: the request cannot be read.
    pub fn unreadable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable",
            "The request cannot be read",
            detail,
        )
    }

    /// 422: the request is well-formed, but not acceptable.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "The request is not acceptable",
            "See the list of errors.",
        );
        if let [error] = errors.as_slice() {
            problem.detail = error.detail.clone().into();
        }
        problem.errors = errors.into();
        problem
    }

    /// 422: this parameter is not acceptable.
    pub fn invalid_parameter(parameter: &'static str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError {
            pointer: None,
            parameter: Some(parameter.into()),
            detail: detail.into(),
        }])
    }

    /// Adds a place that is wrong.
    #[must_use]
    pub fn at(mut self, error: FieldError) -> Self {
        self.errors = [error].into();
        self
    }

    /// 404: nothing is served at this path.
    pub fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "Nothing is here",
            "Nothing is served at this path; see /docs.",
        )
    }

    /// 405: the path exists, the method does not. The router adds `Allow` where it knows the methods.
    pub fn no_such_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "no-such-method",
            "The method is not allowed here",
            "The path exists, but not for this method; see the Allow header.",
        )
    }

    /// 500: a bug.
    pub fn bug() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong",
            "This is a bug in the server; find it in the log by the request id.",
        )
    }

    /// 503: shutdown.
    pub fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The server is stopping",
            "The server is stopping; try again in a moment.",
        )
        .retry_after(Duration::from_secs(5))
    }

    /// Adds `Retry-After` and the member `retry_after_s`: rounded up to whole seconds, at least 1.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.retry_after_secs = Some(u32::try_from(whole).unwrap_or(u32::MAX).max(1));
        self
    }

    /// Adds an `Allow` header, for a 405 that the router does not know of.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.accepted = Some(Accepted::Methods(methods));
        self
    }

    /// Adds `Accept-Encoding: identity`, for a body with another content coding.
    #[must_use]
    pub fn accept_identity(mut self) -> Self {
        self.accepted = Some(Accepted::Identity);
        self
    }

    /// Adds `WWW-Authenticate: Bearer`.
    #[must_use]
    pub(super) fn challenge(mut self, error: Option<&'static str>, roles: Roles) -> Self {
        self.accepted = Some(Accepted::Token(error, roles));
        self
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What kind of problem it is, in words; the occurrence is what it displays.
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.more
            .get_or_insert_default()
            .insert(member.to_owned(), value.into());
        self
    }
}

/// The same for all desks and engines.
impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let unavailable_for = |slug, title, detail: &'static str, secs| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail)
                .retry_after(Duration::from_secs(secs))
        };
        match unavailable {
            // Load passes quickly; an outage needs an operator.
            Unavailable::Busy => unavailable_for(
                "storage-busy",
                "The storage is busy",
                "The storage queue is full; nothing of this request was stored. Try again in a moment.",
                1,
            ),
            Unavailable::Engine => unavailable_for(
                "storage-down",
                "The storage is unavailable",
                "The storage cannot be written or read for the moment; the log has the cause.",
                5,
            ),
            Unavailable::Failed => Self::bug(),
            Unavailable::Stopped => Self::stopping(),
        }
    }
}

impl From<SpaceLow> for Problem {
    fn from(SpaceLow: SpaceLow) -> Self {
        let title = "The storage is nearly full";
        let detail = "Too little space is left on the server's disk; nothing of this request was stored. Try again later.";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "storage-low",
            title,
            detail,
        )
        .retry_after(Duration::from_secs(10))
    }
}

/// For the log.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return f.write_str(&self.detail);
        }
        for (place, error) in self.errors.iter().enumerate() {
            let separator = if place > 0 { "; " } else { "" };
            let pointer = error.pointer.as_deref().or(error.parameter.as_deref());
            let pointer = pointer.unwrap_or_default();
            write!(f, "{separator}{pointer}: {}", error.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

fn as_urn<S: Serializer>(slug: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:odyssey:problem:{slug}"))
}

fn challenge(error: Option<&'static str>, roles: Roles) -> HeaderValue {
    let error = error
        .map(|error| format!(", error=\"{error}\""))
        .unwrap_or_default();
    let scope = if roles.is_empty() {
        String::new()
    } else {
        format!(", scope=\"{roles}\"")
    };
    let text = format!("Bearer realm=\"odyssey\"{error}{scope}");
    HeaderValue::try_from(text).expect("names of roles are visible ASCII")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        // Strings, numbers and maps with string keys: this cannot fail, and an empty body would still carry the status.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(accepted) = self.accepted {
            let (name, value) = match accepted {
                Accepted::Methods(methods) => (header::ALLOW, HeaderValue::from_static(methods)),
                Accepted::Identity => (
                    header::ACCEPT_ENCODING,
                    HeaderValue::from_static("identity"),
                ),
                Accepted::Token(error, roles) => {
                    (header::WWW_AUTHENTICATE, challenge(error, roles))
                }
            };
            headers.insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_at_least_1() {
        for (millis, header) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            let response = Problem::stopping()
                .retry_after(Duration::from_millis(millis))
                .into_response();
            assert_eq!(response.headers()["retry-after"], header, "{millis} ms");
        }
    }
}
