//! The latest problems that both listeners answered, for operators. The edge records them; an answer that is no problem costs
//! one comparison, and 429 one counter: a flood of refusals would push everything else out, and must stay cheap.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::Response as Answer;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::caching::no_store_list;
use super::html::whole;
use super::params::{Query, parsed};
use super::problem::Problem;
use super::responses::Parameters;
use crate::values::time::Moment;
use crate::values::window::Counts;

/// Longest stored detail, in bytes.
const DETAIL_BYTES_MAX: usize = 1000;

/// A problem that was answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RecentProblem)]
pub struct Recorded {
    /// Its place among all problems since the start, from 1.
    #[schema(minimum = 1)]
    pub number: u64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Moment,
    /// As in `X-Request-Id`, and in the log.
    pub request_id: String,
    /// customers or staff.
    #[schema(example = "customers")]
    pub listener: &'static str,
    #[schema(example = "POST")]
    pub method: &'static str,
    /// The path as it is described, or `none`.
    #[schema(example = "/orders/{order_id}")]
    pub route: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    #[serde(rename = "type")]
    #[schema(example = "urn:odyssey:problem:storage-down")]
    pub kind: String,
    pub detail: String,
    /// The client's address or network.
    #[schema(example = "192.0.2.7")]
    pub client: String,
}

/// What the edge knows of a request whose answer is a problem.
pub(super) struct Asked<'a> {
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) listener: &'static str,
    pub(super) method: &'static str,
    pub(super) route: &'a str,
    pub(super) client: String,
}

/// The latest problems of both listeners; cheap to clone.
#[derive(Clone)]
pub struct Problems {
    shared: Arc<Shared>,
}

struct Shared {
    max: usize,
    begun: Instant,
    /// Answers 429.
    refused: Counts,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    /// Of the latest problem.
    number: u64,
    latest: VecDeque<Recorded>,
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problems").finish_non_exhaustive()
    }
}

impl Problems {
    /// At most `max` are stored; then each evicts the oldest.
    pub fn new(max: usize) -> Self {
        let shared = Shared {
            max,
            begun: Instant::now(),
            refused: Counts::default(),
            ring: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Those after a number, the oldest first; and the number of the latest.
    pub fn after(&self, number: u64) -> (Vec<Recorded>, u64) {
        let ring = self.lock();
        let rest = ring.latest.iter().filter(|one| one.number > number);
        (rest.cloned().collect(), ring.number)
    }

    /// The latest `count`, the newest first.
    pub fn latest(&self, count: usize) -> Vec<Recorded> {
        self.lock()
            .latest
            .iter()
            .rev()
            .take(count)
            .cloned()
            .collect()
    }

    /// The latest problem of a request.
    pub fn find(&self, request_id: &str) -> Option<Recorded> {
        let ring = self.lock();
        let mut latest = ring.latest.iter().rev();
        latest.find(|one| one.request_id == request_id).cloned()
    }

    /// Answers 429 of the last ten minutes.
    pub fn refused(&self) -> u64 {
        self.shared.refused.total(self.shared.begun.elapsed())
    }

    /// Records an answer of status 400 or more, if it is a problem. The answer is the same afterwards.
    pub(super) fn record<'a>(
        &self,
        response: Response<Body>,
        now: Instant,
        asked: impl FnOnce() -> Asked<'a>,
    ) -> Response<Body> {
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.count_refused(now);
            return response;
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != "application/problem+json") {
            return response;
        }
        let (head, body) = response.into_parts();
        let Some(bytes) = whole(body) else {
            return Response::from_parts(head, Body::empty());
        };
        // The answer to HEAD has no body.
        if let Ok(said) = serde_json::from_slice::<Said>(&bytes) {
            self.push(status, said, asked());
        }
        Response::from_parts(head, Body::from(bytes))
    }

    fn count_refused(&self, now: Instant) {
        let now = now.saturating_duration_since(self.shared.begun);
        self.shared.refused.add(now, 1);
    }

    fn push(&self, status: StatusCode, mut said: Said, asked: Asked<'_>) {
        let detail = &mut said.detail;
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        let id = asked.request_id.and_then(|id| id.to_str().ok());
        let mut recorded = Recorded {
            number: 0,
            at: Timestamp::now().into(),
            request_id: id.unwrap_or_default().to_owned(),
            listener: asked.listener,
            method: asked.method,
            route: asked.route.to_owned(),
            status: status.as_u16(),
            kind: said.kind,
            detail: said.detail,
            client: asked.client,
        };
        let mut ring = self.lock();
        ring.number += 1;
        recorded.number = ring.number;
        if ring.latest.len() >= self.shared.max {
            ring.latest.pop_front();
        }
        ring.latest.push_back(recorded);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing that holds the lock can panic half-way.
        let ring = self.shared.ring.lock();
        ring.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The members of a problem that are recorded.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// A method's name, for records.
pub(super) fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The latest problems.
#[derive(Debug, Serialize, ToSchema)]
struct RecentProblems {
    /// The oldest first.
    problems: Vec<Recorded>,
    /// The number of the latest, also if it is not among these: the `after` of the next request.
    latest: u64,
    /// Answers 429 of the last ten minutes, which are only counted.
    refused: u64,
}

#[derive(Debug, Deserialize)]
struct AfterQuery {
    after: Option<String>,
}

/// List the latest problems
///
/// Of both listeners, since the start, at most `pages.problems_max`. Answers 429 are only counted.
#[utoipa::path(
    get, path = "/problems", tag = "status", security(("token" = ["operator"])),
    params(("after" = Option<u64>, Query, description = "The number after which the list begins; 0 by default", format = "whole")),
    responses(Parameters, (status = 200, description = "The problems", body = RecentProblems)),
)]
async fn list_problems(
    State(problems): State<Problems>,
    Query(AfterQuery { after }): Query<AfterQuery>,
) -> Result<Answer, Problem> {
    let after = after.map_or(Ok(0), |text| {
        let detail = || "It must be a number from 0.";
        parsed("after", &text, |text| text.parse().ok(), detail)
    })?;
    let (recorded, latest) = problems.after(after);
    let answer = RecentProblems {
        problems: recorded,
        latest,
        refused: problems.refused(),
    };
    Ok(no_store_list(answer.problems.len(), answer).await)
}

/// The route `/problems`.
pub fn problem_routes() -> [UtoipaMethodRouter<Problems>; 1] {
    [routes!(list_problems)]
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn asked(id: &HeaderValue) -> Asked<'_> {
        Asked {
            request_id: Some(id),
            listener: "staff",
            method: "GET",
            route: "/deliveries",
            client: "192.0.2.7".to_owned(),
        }
    }

    #[test]
    fn the_oldest_problem_is_evicted_and_the_answer_is_the_same() {
        let problems = Problems::new(2);
        for id in ["a", "b", "c"].map(HeaderValue::from_static) {
            let response =
                problems.record(Problem::stopping().into_response(), Instant::now(), || {
                    asked(&id)
                });
            assert_eq!(response.headers()["retry-after"], "5");
            let body = whole(response.into_body()).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["type"], "urn:odyssey:problem:stopping");
        }
        let (stored, latest) = problems.after(0);
        let ids: Vec<_> = stored.iter().map(|one| &*one.request_id).collect();
        assert_eq!((ids, latest), (vec!["b", "c"], 3));
        assert_eq!(problems.after(2).0.len(), 1);
        assert_eq!(problems.latest(1)[0].number, 3);
        assert!(problems.find("a").is_none());
        assert_eq!(problems.find("c").unwrap().status, 503);
    }

    #[test]
    fn refusals_for_their_rate_are_only_counted_and_other_errors_are_no_problems() {
        let problems = Problems::new(2);
        let id = HeaderValue::from_static("a");
        let too_many = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "", "");
        problems.record(too_many.into_response(), Instant::now(), || asked(&id));
        problems.record(
            (StatusCode::NOT_FOUND, "nothing").into_response(),
            Instant::now(),
            || asked(&id),
        );
        assert_eq!((problems.after(0).1, problems.refused()), (0, 1));
    }

    #[test]
    fn a_long_detail_is_cut() {
        let problems = Problems::new(2);
        let id = HeaderValue::from_static("a");
        let long = Problem::unreadable("ü".repeat(DETAIL_BYTES_MAX));
        problems.record(long.into_response(), Instant::now(), || asked(&id));
        assert_eq!(problems.latest(1)[0].detail.len(), DETAIL_BYTES_MAX);
    }
}
