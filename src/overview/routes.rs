//! HTTP paths and handlers.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::search::{Found, TEXT_CHARS_MAX};
use super::service::{Overview, STATE_FOR};
use super::state;
use crate::http::Problem;
use crate::http::caching::{no_store, no_store_json};
use crate::http::feed::{Feeds, Sent, Source, accepts_events};
use crate::http::params::Query;
use crate::http::responses::Parameters;

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Desk {
    pub overview: Overview,
    pub feeds: Feeds,
}

/// The feed of the state.
struct States {
    overview: Overview,
    begun: bool,
}

impl Source for States {
    async fn next(&mut self) -> Option<Sent> {
        if std::mem::replace(&mut self.begun, true) {
            sleep(STATE_FOR).await;
        }
        let json = self.overview.state().await;
        let json = String::from_utf8(json.into()).unwrap_or_default();
        Some(Sent::Event("overview", json))
    }
}

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 2] {
    [routes!(get_overview), routes!(search)]
}

/// The state of every desk
///
/// At most a second old; the day's plan 15 s. A desk that does not answer within two seconds is missing; see `engines`. As an
/// event stream: `event: overview` with the state, every second.
#[utoipa::path(
    get, path = "/overview", tag = "overview", security(("token" = ["operator"])),
    params(("Accept" = Option<String>, Header, description = "`text/event-stream` for the feed")),
    responses((status = 200, description = "The state", content(
        (state::State = "application/json"),
        (String = "text/event-stream"),
    ))),
)]
async fn get_overview(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, Problem> {
    let overview = desk.overview;
    if accepts_events(&headers) {
        let begun = false;
        return Ok(desk.feeds.open()?.answer(States { overview, begun }));
    }
    Ok(no_store_json(overview.state().await.into()))
}

#[derive(Debug, Deserialize)]
struct SearchQuery {
    q: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchResult)]
struct Results {
    /// At most 20; things of exactly this id first.
    #[schema(value_type = Vec<Found>)]
    found: Vec<Found>,
}

/// Search all desks
///
/// Orders, deliveries, packages, recipients, drivers, today's assignments, couriers and their orders, blocked addresses, and the
/// request ids of recent problems: by id, and some by its beginning.
#[utoipa::path(
    get, path = "/search", tag = "overview", security(("token" = ["operator"])),
    params(("q" = String, Query, description = "The id, or its beginning", min_length = 1, max_length = 200)),
    responses(Parameters, (status = 200, description = "What was found", body = Results)),
)]
async fn search(
    State(desk): State<Desk>,
    Query(SearchQuery { q }): Query<SearchQuery>,
) -> Result<Response, Problem> {
    let text = q.unwrap_or_default();
    let text = text.trim();
    if !(1..=TEXT_CHARS_MAX).contains(&text.chars().count()) {
        let detail = format!("It must be a text of 1 to {TEXT_CHARS_MAX} characters.");
        return Err(Problem::invalid_parameter("q", detail));
    }
    let found = desk.overview.search(text).await;
    Ok(no_store(&Results { found }))
}
