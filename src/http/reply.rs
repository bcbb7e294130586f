//! What a handler answers: at once, or later.

use axum::http::{HeaderMap, Method, Uri, Version};
use axum::response::{IntoResponse, Response};
use thiserror::Error;

use super::params::Caller;
use super::problem::Problem;
use crate::values::soon::Soon;

/// An answer, or what waits for it. A held request consists of the latter alone: it has nothing of the request any more.
pub type Reply = Soon<Response>;

impl Reply {
    pub fn now(response: impl IntoResponse) -> Self {
        Self::Now(response.into_response())
    }
}

/// In the extensions of an answer that is not sent: its connection ends without one. A proxy then sends the request to another
/// server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the request is handed over to another server")]
pub struct HangUp;

impl IntoResponse for HangUp {
    fn into_response(self) -> Response {
        let mut response = Problem::stopping().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A request that has passed all checks and has no body.
#[derive(Debug, Clone, Copy)]
pub struct Bare<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub version: Version,
    pub headers: &'a HeaderMap,
    pub caller: &'a Caller,
}

/// Answers the most frequent requests of a listener without its router, which costs as much as all else that is done for
/// them.
///
/// There is one behaviour: what is answered here is answered by the function that the router would call, and a request that is
/// unusual in any way is left to the router. Called once per request, before the router.
pub trait FastPath: Send + Sync {
    /// None: the router answers it.
    fn reply(&self, request: &Bare<'_>) -> Option<Reply>;
}

/// The values of the parameters `names` in a query. None if one of them is there twice or has to be decoded, or if the query
/// is written in an unusual way.
pub fn plain_query<'a, const N: usize>(
    query: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut values = [None; N];
    if query.is_empty() {
        return Some(values);
    }
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=')?;
        let at = names.iter().position(|known| *known == name)?;
        let is_plain = value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'));
        if !is_plain || values[at].replace(value).is_some() {
            return None;
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_here_only_if_it_means_what_it_says() {
        let read = |query| plain_query(query, ["wait", "barista"]);
        assert_eq!(read(""), Some([None, None]));
        assert_eq!(read("wait=5"), Some([Some("5"), None]));
        assert_eq!(read("barista=A-1&wait="), Some([Some(""), Some("A-1")]));
        for query in [
            "&",
            "wait",
            "wait=5&",
            "&wait=5",
            "wait=5&wait=6",
            "wait=+5",
            "wait=%35",
            "%77ait=5",
            "wait=5=6",
            "other=1",
            "barista=a b",
            "Wait=5",
        ] {
            assert_eq!(read(query), None, "{query}");
        }
    }
}
