//! The answer that carries a lease to its barista.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::Version;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::super::hold::LeaseGuard;
use crate::http::caching::no_store_json;

/// Confirms the lease once the connection has taken the bytes; until then dropping it puts the order back.
///
/// Over HTTP/1.1 hyper polls the body when it can write, and only once: that poll confirms. Over HTTP/2 it polls before the
/// client has granted a window, and again after the bytes were sent: the second poll confirms.
struct LeaseBody {
    json: Option<Bytes>,
    guard: Option<LeaseGuard>,
    asks_again: bool,
}

impl HttpBody for LeaseBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let json = self.json.take();
        if (!self.asks_again || json.is_none())
            && let Some(guard) = self.guard.take()
        {
            guard.confirm();
        }
        Poll::Ready(json.map(|json| Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none() && self.guard.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, |json| json.len() as u64))
    }
}

pub(super) fn lease_response(json: Bytes, guard: Option<LeaseGuard>, version: Version) -> Response {
    let body = LeaseBody {
        json: Some(json),
        guard,
        asks_again: version == Version::HTTP_2,
    };
    no_store_json(Body::new(body))
}
