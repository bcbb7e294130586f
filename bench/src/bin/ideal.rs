//! An ideal server of orders: what a cycle costs on hyper when the server promises nothing else.
//!
//! It holds `POST /order/` until the order is started and finished, and `GET /start/` and a finish with `next` until an
//! order waits, oldest first. It has one thread, no router, and no timer: a barista waits without a limit. There are no
//! leases, no flood control, no metrics, no logs, and no request ids; an order whose barista has left is lost. Ids are
//! consecutive numbers in the form of UUIDs, and the answers have only the fields that the client checks.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use odyssey::http::listen::listen;
use tokio::sync::oneshot::{self, Receiver, Sender, error::RecvError};

/// The measured server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BACKLOG: u32 = 4096;

/// An ideal server of orders.
#[derive(Parser)]
struct Options {
    /// The port of the loopback network.
    #[arg(long)]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = (Ipv4Addr::LOCALHOST, Options::parse().port).into();
    let listener = listen(address, BACKLOG).context("listening")?;
    let shop = Shop::default();
    loop {
        // The listener's options, such as TCP_NODELAY, are inherited.
        let (stream, _) = listener.accept().await.context("accepting")?;
        let shop = shop.clone();
        let service = service_fn(move |request| answer(shop.clone(), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ended = connection.await;
        });
    }
}

/// What a request is for.
enum Asked {
    Order,
    Start,
    Finish { order: u128, with_next: bool },
}

fn read(uri: &Uri) -> Option<Asked> {
    match uri.path() {
        "/order/" => Some(Asked::Order),
        "/start/" => Some(Asked::Start),
        "/finish/" => {
            let query = uri.query()?;
            let mut parameters = query.split('&');
            let order = parameters.find_map(|parameter| parameter.strip_prefix("order_id="))?;
            Some(Asked::Finish {
                order: u128::from_str_radix(order, 16).ok()?,
                with_next: query.contains("&next="),
            })
        }
        _ => None,
    }
}

async fn answer(
    shop: Shop,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, RecvError> {
    let asked = read(request.uri());
    drop(request);
    Ok(match asked {
        Some(Asked::Order) => {
            let (order, ready) = shop.line().place();
            ready.await?;
            json(identified(order))
        }
        Some(Asked::Start) => json(identified(shop.start().await?)),
        Some(Asked::Finish { order, with_next }) => {
            let finished = finished(order, shop.line().finish(order));
            if with_next {
                let next = identified(shop.start().await?);
                json(format!(r#"{{"finished":{finished},"next":{next}}}"#))
            } else {
                json(finished)
            }
        }
        None => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn identified(order: u128) -> String {
    format!(r#"{{"order_id":"{order:032x}"}}"#)
}

fn finished(order: u128, delivered: bool) -> String {
    format!(r#"{{"order_id":"{order:032x}","delivered":{delivered},"already":false}}"#)
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Line>>);

impl Shop {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest order that waits, or the next one that is placed.
    async fn start(&self) -> Result<u128, RecvError> {
        let started = self.line().start();
        match started {
            Ok(order) => Ok(order),
            Err(placed) => placed.await,
        }
    }
}

#[derive(Default)]
struct Line {
    /// The number of the newest order.
    newest: u128,
    /// Orders without a barista, oldest first.
    waiting: VecDeque<u128>,
    /// The customers of all orders that are not finished.
    held: HashMap<u128, Sender<()>>,
    /// Baristas without an order.
    idle: VecDeque<Sender<u128>>,
}

impl Line {
    fn place(&mut self) -> (u128, Receiver<()>) {
        self.newest += 1;
        let order = self.newest;
        let (customer, ready) = oneshot::channel();
        self.held.insert(order, customer);
        // Sending fails if the barista has left; then the next one gets the order.
        let mut idle = std::iter::from_fn(|| self.idle.pop_front());
        if !idle.any(|barista| barista.send(order).is_ok()) {
            self.waiting.push_back(order);
        }
        (order, ready)
    }

    /// An order, or where the next one will arrive.
    fn start(&mut self) -> Result<u128, Receiver<u128>> {
        self.waiting.pop_front().ok_or_else(|| {
            let (barista, placed) = oneshot::channel();
            self.idle.push_back(barista);
            placed
        })
    }

    /// Whether a customer was waiting for it.
    fn finish(&mut self, order: u128) -> bool {
        let customer = self.held.remove(&order);
        customer.is_some_and(|customer| customer.send(()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_goes_to_the_first_barista_who_has_not_left() {
        let mut line = Line::default();
        let (left, first, second) = (line.start(), line.start(), line.start());
        drop(left);
        let (order, mut ready) = line.place();
        assert_eq!(first.unwrap_err().try_recv(), Ok(order));
        assert!(second.unwrap_err().try_recv().is_err());
        assert!(ready.try_recv().is_err());
        assert!(line.finish(order));
        assert_eq!(ready.try_recv(), Ok(()));
        assert!(!line.finish(order));
    }

    #[test]
    fn orders_that_wait_are_started_oldest_first() {
        let mut line = Line::default();
        let (oldest, _ready) = line.place();
        let (newest, _ready) = line.place();
        assert_eq!(line.start().ok(), Some(oldest));
        assert_eq!(line.start().ok(), Some(newest));
        assert!(line.start().is_err());
    }
}
