//! The answer that carries an order to its barista.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::Version;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::super::hold;
use super::super::service::LockedLine;
use crate::http::caching::no_store_json;

/// An order in the server's hands.
pub(super) type LeaseGuard = hold::LeaseGuard<Mutex<LockedLine>>;

/// A body that carries an order to its barista. Until the connection has taken the bytes the order can still go back.
///
/// Over HTTP/1.1 hyper asks for the bytes when it has room for them, and not again once it has them all: the moment it
/// asks is the moment. Over HTTP/2 it asks before the client has granted any window, and asks again after the bytes have
/// gone: there the second time is the moment.
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
