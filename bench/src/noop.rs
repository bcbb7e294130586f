//! The measured server without a desk: what its own stack costs for an answer that needs no storage and no lookup.
//!
//! The same listener, connections, edge, router, extractors, allocator and number of workers, all from the measured
//! server's library and with its configuration. It answers an event as the delivery desk does, always with sequence 1, a
//! package as the package desk does, as delivered, and an order for a courier as the courier desk does, always with the
//! same courier; it decides nothing and stores nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use odyssey::config::Config;
use odyssey::http::body::AnyJson;
use odyssey::http::caching::no_store;
use odyssey::http::connection::Shutdown;
use odyssey::http::edge::{self, Edge};
use odyssey::http::guard::Guard;
use odyssey::http::listen::{listen, raise_open_files};
use odyssey::http::origin::Origins;
use odyssey::http::params::Path;
use odyssey::http::recent::Problems;
use odyssey::http::security::Security;
use odyssey::http::server::{ConnectionLimit, Server, Settings};
use odyssey::http::{Api, Problem};
use odyssey::telemetry::{self, Registry};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

/// As the measured server's staff listener by default.
const CONNECTIONS_MAX: usize = 1000;
/// As long as the counts of a desk with a hundred ongoing deliveries.
const COUNTS: &[u8] = br#"{"ongoing":100,"total":100}"#;
/// As long as any courier's id.
const COURIER: &str = "5aa4a5c4-3f5f-4a0e-9a54-9a9f6f0f3b6d";

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Type {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

#[derive(Deserialize)]
struct NewEvent {
    #[serde(rename = "type")]
    event_type: Type,
}

#[derive(Serialize)]
struct Stored {
    delivery_id: String,
    sequence: u32,
    #[serde(rename = "type")]
    event_type: Type,
    received_at: Timestamp,
}

#[derive(Serialize)]
struct Sent<'a> {
    package_id: &'a str,
    package_type: &'a str,
    status: &'static str,
    duplicate: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    outcome: &'static str,
    courier_id: &'static str,
}

/// Serves on this port of the loopback network.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let config = Config::load(None)?;
    let logs = telemetry::init_logs(&config.log).map_err(anyhow::Error::msg)?;
    let runtime = odyssey::app::runtime(config.workers());
    let served = runtime
        .context("starting the runtime")?
        .block_on(serve(&config, port));
    logs.flush();
    served
}

async fn serve(config: &Config, port: u16) -> anyhow::Result<()> {
    raise_open_files();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let listener = listen(address, config.http.backlog).context("listening")?;
    let limits = config.http.body_limits();
    let api = Api::new("No-op", "Answers that need nothing.", Security::open()).routes(
        [
            routes!(record_event),
            routes!(send_package),
            routes!(order_event),
            routes!(get_counts),
        ],
        Some(&limits),
    );
    let registry = Registry::new(&[(edge::REQUEST_SECONDS, &edge::BUCKETS_SECONDS)]);
    let settings = Settings {
        name: "staff",
        h2c: config.staff.h2c,
        limit: ConnectionLimit::new(CONNECTIONS_MAX),
        tls: None,
        http: config.http.clone(),
    };
    let origins = Origins::new("staff", &config.staff.hosts, &[]);
    let guard = Guard::new("staff", None, |peer, _| peer.into(), &registry);
    let edge = Edge::new(
        "staff",
        api,
        origins,
        Arc::new(guard),
        (Problems::new(200), registry),
    );
    let server = Server::new(listener, edge, settings, Shutdown::default());
    // On a worker, as the measured server's listeners are.
    tokio::spawn(server.run()).await.context("serving ended")
}

/// Reads an event and answers as if it had been stored
#[utoipa::path(post, path = "/deliveries/{delivery_id}/events", security(()), params(("delivery_id" = String, Path)), responses((status = 201)))]
async fn record_event(
    Path(delivery_id): Path<String>,
    AnyJson(event): AnyJson,
) -> Result<Response, Problem> {
    let NewEvent { event_type } = serde_json::from_value(event).map_err(|_| unreadable())?;
    let stored = Stored {
        delivery_id,
        sequence: 1,
        event_type,
        received_at: Timestamp::now(),
    };
    created(
        format!("/deliveries/{}/events/1", stored.delivery_id),
        stored,
    )
}

/// Reads a package and answers as if it had been delivered
#[utoipa::path(post, path = "/packages", security(()), request_body = String, responses((status = 201)))]
async fn send_package(AnyJson(package): AnyJson) -> Result<Response, Problem> {
    let text = |name| package.get(name).and_then(serde_json::Value::as_str);
    let sent = Sent {
        package_id: text("package_id").ok_or_else(unreadable)?,
        package_type: text("package_type").ok_or_else(unreadable)?,
        status: "delivered",
        duplicate: false,
    };
    // The measured server encodes all except letters and digits; in these ids it is the hyphens.
    created(
        format!("/packages/{}", sent.package_id.replace('-', "%2D")),
        sent,
    )
}

/// Reads an order and answers as if a courier had been given it
#[utoipa::path(post, path = "/events", security(()), request_body = String, responses((status = 202)))]
async fn order_event(AnyJson(event): AnyJson) -> Result<Response, Problem> {
    let id = event.get("orderId").and_then(serde_json::Value::as_str);
    id.ok_or_else(unreadable)?;
    let mut response = no_store(&[Assigned {
        outcome: "assigned",
        courier_id: COURIER,
    }]);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Answers as short as counts, with their headers
#[utoipa::path(get, path = "/counts", security(()), responses((status = 200)))]
async fn get_counts() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ETAG, "\"0123456789abcdef\""),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Bytes::from_static(COUNTS)).into_response()
}

fn unreadable() -> Problem {
    Problem::unreadable("This is not what the no-op reads.")
}

/// With the headers of what the measured server has created.
fn created(location: String, body: impl Serialize) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(location).map_err(|_| unreadable())?;
    let no_store = HeaderValue::from_static("no-store");
    let headers = [
        (header::CACHE_CONTROL, no_store),
        (header::LOCATION, location),
    ];
    Ok((StatusCode::CREATED, headers, axum::Json(body)).into_response())
}
