//! The measured server without a desk: what its own stack costs for an answer that needs no storage and no lookup.
//!
//! The same listener, connections, edge, router, extractors, allocator and number of workers, all from the measured
//! server's library and with its configuration. A reported event is read and answered as the delivery desk does it, with
//! sequence 1 each time, a sent package as the package desk does it, as delivered, and an
//! order for a courier as the courier desk does it, always with the same courier; it decides nothing and stores nothing.
//! The lists are bytes that are there already.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use axum::extract::{FromRef, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clap::Parser;
use jiff::Timestamp;
use odyssey::config::Config;
use odyssey::http::body::{AnyJson, BodyLimits};
use odyssey::http::caching::no_store;
use odyssey::http::connection::Shutdown;
use odyssey::http::edge::{self, Edge};
use odyssey::http::listen::{listen, raise_open_files};
use odyssey::http::origin::Origins;
use odyssey::http::params::Path;
use odyssey::http::server::{ConnectionLimit, Server, Settings};
use odyssey::http::{Api, Problem};
use odyssey::telemetry::{self, Registry};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

/// The measured server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As many connections as the measured server's staff may have by default.
const SEATS: usize = 1000;
/// As long as the counts of a desk with a hundred ongoing deliveries.
const COUNTS: &[u8] = br#"{"ongoing":100,"total":100}"#;

/// As long as any courier's id.
const COURIER: &str = "5aa4a5c4-3f5f-4a0e-9a54-9a9f6f0f3b6d";

/// The measured server without a desk.
#[derive(Parser)]
struct Options {
    /// Where to write the addresses once the server accepts, in the form the measured server uses.
    #[arg(long, value_name = "FILE")]
    addresses: PathBuf,
}

/// What the handlers share.
#[derive(Clone)]
struct Counter {
    limits: BodyLimits,
    list: Arc<OnceLock<Bytes>>,
}

impl FromRef<Counter> for BodyLimits {
    fn from_ref(counter: &Counter) -> Self {
        counter.limits
    }
}

/// What a drone reports.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Type {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

/// An event, as a drone sends it.
#[derive(Deserialize)]
struct NewEvent {
    #[serde(rename = "type")]
    event_type: Type,
}

/// The answer to it.
#[derive(Serialize)]
struct Stored {
    delivery_id: String,
    sequence: u32,
    #[serde(rename = "type")]
    event_type: Type,
    received_at: Timestamp,
}

/// The answer to a package.
#[derive(Serialize)]
struct Sent<'a> {
    package_id: &'a str,
    package_type: &'a str,
    status: &'static str,
    duplicate: bool,
}

/// The outcome of an order for a courier.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    outcome: &'static str,
    courier_id: &'static str,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let config = Config::load(None)?;
    let logs = telemetry::init_logs(&config.log).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(serve(&config, &options.addresses));
    logs.flush();
    served
}

async fn serve(config: &Config, addresses: &FilePath) -> anyhow::Result<()> {
    raise_open_files();
    let listener = listen(config.staff.listen, config.http.backlog).context("cannot listen")?;
    announce(addresses, &format!("http://{}", listener.local_addr()?))?;
    let counter = Counter {
        limits: config.http.body_limits(),
        list: Arc::default(),
    };
    let api = Api::new("No-op", "Answers that need nothing.").routes(
        [
            routes!(record_event),
            routes!(send_package),
            routes!(order_event),
            routes!(list_ongoing, lay_out),
            routes!(get_counts),
        ],
        Some(&counter),
    );
    let registry = Registry::new(&[(edge::REQUEST_SECONDS, &edge::BUCKETS_SECONDS)]);
    let settings = Settings {
        name: "staff",
        h2c: config.staff.h2c,
        limit: ConnectionLimit::new(SEATS),
        http: config.http.clone(),
    };
    let origins = Origins::new("staff", &config.staff.hosts, &[]);
    let edge = Edge::new("staff", api, origins, |peer, _| peer.to_string(), registry);
    let server = Server::new(listener, edge, settings, Shutdown::default());
    // On a worker, as the measured server's listeners are.
    let task = tokio::spawn(server.run());
    task.await.context("serving ended")
}

/// Writes the address under both names a server has, complete or not at all.
fn announce(file: &FilePath, url: &str) -> anyhow::Result<()> {
    let text = serde_json::json!({ "customers": url, "staff": url }).to_string();
    let draft = file.with_extension("draft");
    fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, file).with_context(|| format!("writing {}", file.display()))
}

/// Reads an event and answers as if it had been stored
#[utoipa::path(post, path = "/deliveries/{delivery_id}/events", params(("delivery_id" = String, Path)), responses((status = 201)))]
async fn record_event(
    Path(delivery_id): Path<String>,
    AnyJson(event): AnyJson,
) -> Result<Response, Problem> {
    let event: NewEvent =
        serde_json::from_value(event).map_err(|_| Problem::unreadable("This is no event."))?;
    let stored = Stored {
        delivery_id,
        sequence: 1,
        event_type: event.event_type,
        received_at: Timestamp::now(),
    };
    let location = format!(
        "/deliveries/{}/events/{}",
        stored.delivery_id, stored.sequence
    );
    let location = HeaderValue::try_from(location)
        .map_err(|_| Problem::unreadable("This is no delivery's id."))?;
    let no_store = HeaderValue::from_static("no-store");
    let headers = [
        (header::CACHE_CONTROL, no_store),
        (header::LOCATION, location),
    ];
    Ok((StatusCode::CREATED, headers, axum::Json(stored)).into_response())
}

/// Reads a package and answers as if it had been delivered
#[utoipa::path(post, path = "/packages", request_body = String, responses((status = 201)))]
async fn send_package(AnyJson(package): AnyJson) -> Result<Response, Problem> {
    let text = |name| package.get(name).and_then(serde_json::Value::as_str);
    let (id, package_type) = text("package_id")
        .zip(text("package_type"))
        .ok_or_else(|| Problem::unreadable("This is no package."))?;
    let sent = Sent {
        package_id: id,
        package_type,
        status: "delivered",
        duplicate: false,
    };
    // The measured server encodes whatever is neither a letter nor a digit; in these ids it is the hyphens.
    let location = format!("/packages/{}", id.replace('-', "%2D"));
    let location = HeaderValue::try_from(location)
        .map_err(|_| Problem::unreadable("This is no package's id."))?;
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::LOCATION, location),
    ];
    Ok((StatusCode::CREATED, headers, axum::Json(sent)).into_response())
}

/// Reads an order and answers as if a courier had been given it
#[utoipa::path(post, path = "/events", request_body = String, responses((status = 202)))]
async fn order_event(AnyJson(event): AnyJson) -> Result<Response, Problem> {
    let id = event.get("orderId").and_then(serde_json::Value::as_str);
    id.ok_or_else(|| Problem::unreadable("This is no order."))?;
    let mut response = no_store(&[Assigned {
        outcome: "assigned",
        courier_id: COURIER,
    }]);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Takes the list that is answered from now on
#[utoipa::path(put, path = "/deliveries", request_body = String, responses((status = 200)))]
async fn lay_out(State(counter): State<Counter>, list: Bytes) -> Response {
    // The first stays: it is laid out once.
    let list = counter.list.get_or_init(|| list);
    page(list.clone())
}

/// That list
#[utoipa::path(get, path = "/deliveries", responses((status = 200)))]
async fn list_ongoing(State(counter): State<Counter>) -> Response {
    page(counter.list.get().cloned().unwrap_or_default())
}

/// As few bytes as counts are
#[utoipa::path(get, path = "/counts", responses((status = 200)))]
async fn get_counts() -> Response {
    page(Bytes::from_static(COUNTS))
}

/// With the headers of a page of the measured server.
fn page(json: Bytes) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (
            header::ETAG,
            HeaderValue::from_static("\"0123456789abcdef\""),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, json).into_response()
}
