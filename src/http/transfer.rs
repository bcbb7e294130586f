//! The bodies of a request and its answer on their way: the connection knows by them what is still to be read, and whether its
//! client reads.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};

use super::activity::{Activity, OpenRequest};

/// Over HTTP/2 answers are sent in pieces of this size, in bytes: each one taken shows that the client reads.
const PIECE_MAX_BYTES: usize = 16 * 1024;

/// A request's body. Reports to the connection when it was read to its end.
pub(super) fn arriving(body: Incoming, activity: &Arc<Activity>) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    if activity.streams().is_some() {
        return Body::new(body);
    }
    Body::new(Arriving {
        body,
        activity: Arc::clone(activity),
    })
}

struct Arriving {
    body: Incoming,
    activity: Arc<Activity>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.activity.set_unread(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Its request is open until the connection has taken all of it.
#[derive(Debug)]
pub struct Leaving {
    body: Body,
    /// HTTP/2: the rest of the last piece.
    rest: Bytes,
    open: Option<OpenRequest>,
}

impl Leaving {
    pub(super) fn new(body: Body, open: Option<OpenRequest>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            open,
        }
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let activity = this.open.as_ref().map(OpenRequest::activity);
        let Some(streams) = activity.and_then(|activity| activity.streams()) else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        if this.rest.is_empty() {
            let frame = Pin::new(&mut this.body).poll_frame(cx);
            let is_given = matches!(frame, Poll::Ready(Some(Ok(_))));
            streams.set_stalled(is_given);
            return frame.map_ok(|frame| match frame.into_data() {
                Ok(data) => Frame::data(first_piece(data, &mut this.rest)),
                Err(other) => other,
            });
        }
        // The previous piece was taken.
        streams.set_stalled(true);
        let piece = first_piece(mem::take(&mut this.rest), &mut this.rest);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Polled before the first piece.
        self.body.size_hint()
    }
}

/// The first piece of `data`; the rest goes to `rest`.
fn first_piece(mut data: Bytes, rest: &mut Bytes) -> Bytes {
    if data.len() > PIECE_MAX_BYTES {
        *rest = data.split_off(PIECE_MAX_BYTES);
    }
    data
}
