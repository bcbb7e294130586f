//! Cached JSON with an `ETag` (RFC 9110, section 8.8.3), for answers that are read more often than they change; and answers
//! that are `no-store`.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use super::problem::Problem;

/// Up to this many items are rendered on the runtime: some tens of microseconds.
const ITEMS_HERE_MAX: usize = 100;
/// Headers of an answer, those that are added later included: a map without room for them grows at the seventh.
const HEADERS: usize = 12;

/// 200 with JSON and `Cache-Control: no-store`.
pub fn no_store_json(json: Body) -> Response {
    let mut response = Response::new(json);
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    let json_type = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 200 with a value as JSON and `Cache-Control: no-store`.
pub fn no_store(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => no_store_json(json.into()),
        Err(error) => {
            error!(%error, "an answer cannot be rendered as JSON");
            Problem::bug().into_response()
        }
    }
}

/// As [`no_store`], for a value with so many `items`: many are rendered off the runtime.
pub async fn no_store_list<T: Serialize + Send + 'static>(items: usize, value: T) -> Response {
    if items <= ITEMS_HERE_MAX {
        return no_store(&value);
    }
    let rendered = tokio::task::spawn_blocking(move || no_store(&value)).await;
    rendered.unwrap_or_else(|_| Problem::bug().into_response())
}

/// Rendered JSON and its `ETag`.
#[derive(Debug, Clone)]
pub struct CachedJson {
    /// None if it could not be rendered.
    json: Option<Bytes>,
    /// A header value: hexadecimal digits between quotation marks.
    etag: Box<str>,
}

impl CachedJson {
    /// A value that cannot be JSON, such as a map with other keys than strings, is answered 500.
    pub fn render(value: &impl Serialize) -> Self {
        let json = match serde_json::to_vec(value) {
            Ok(json) => json,
            Err(error) => {
                error!(%error, "an answer cannot be rendered as JSON");
                return Self {
                    json: None,
                    etag: Box::default(),
                };
            }
        };
        let mut digest = DefaultHasher::new();
        digest.write(&json);
        let version = format!("{:016x}", digest.finish());
        Self::of(json.into(), &version)
    }

    /// As [`CachedJson::render`], for a value with so many `items`; see [`no_store_list`].
    ///
    /// # Errors
    /// If rendering panics.
    pub async fn render_list<T: Serialize + Send + 'static>(
        items: usize,
        value: T,
    ) -> Result<Self, Problem> {
        if items <= ITEMS_HERE_MAX {
            return Ok(Self::render(&value));
        }
        let rendered = tokio::task::spawn_blocking(move || Self::render(&value)).await;
        rendered.map_err(|_| Problem::bug())
    }

    /// Of rendered JSON and its version, in hexadecimal digits.
    pub fn of(json: Bytes, version: &impl fmt::Display) -> Self {
        Self {
            json: Some(json),
            etag: format!("\"{version}\"").into(),
        }
    }

    /// 200, or 304 if the client has it.
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let Some(json) = &self.json else {
            return Problem::bug().into_response();
        };
        let mut response = if is_known(request, &self.etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let json_type = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json_type)], json.clone()).into_response()
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(header::ETAG, etag);
        }
        // Cached, and revalidated each time.
        let no_cache = HeaderValue::from_static("no-cache");
        headers.insert(header::CACHE_CONTROL, no_cache);
        response
    }
}

/// Whether `If-None-Match` names this `ETag`, compared weakly (RFC 9110, section 13.1.2).
pub fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let fields = request.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// The latest JSON of one kind; cheap to clone.
#[derive(Clone, Default)]
pub struct JsonCache {
    latest: Arc<Mutex<Option<Latest>>>,
}

#[derive(Clone)]
struct Latest {
    version: u64,
    holds: Range<Timestamp>,
    page: CachedJson,
}

impl fmt::Debug for JsonCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonCache").finish_non_exhaustive()
    }
}

impl JsonCache {
    /// The JSON, if it is of this version and valid at this time.
    pub fn get(&self, version: u64, now: Timestamp) -> Option<CachedJson> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest
            .as_ref()
            .filter(|latest| latest.version == version && latest.holds.contains(&now))
            .map(|latest| latest.page.clone())
    }

    /// Caches the JSON of this version while `holds` contains the time, also after a clock was set back. An older version
    /// does not replace a newer one.
    pub fn put(&self, version: u64, holds: Range<Timestamp>, page: &CachedJson) {
        if page.json.is_none() {
            return;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest
            .as_ref()
            .is_none_or(|stored| stored.version <= version)
        {
            *latest = Some(Latest {
                version,
                holds,
                page: page.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_cannot_be_json_is_answered_500_and_not_kept() {
        let page = CachedJson::render(&HashMap::from([([1, 2], "a pair is no key")]));
        assert_eq!(page.answer(&HeaderMap::new()).status(), 500);
        let cache = JsonCache::default();
        cache.put(1, Timestamp::UNIX_EPOCH..Timestamp::MAX, &page);
        assert!(cache.get(1, Timestamp::UNIX_EPOCH).is_none());
    }

    #[test]
    fn a_client_who_has_the_page_is_not_sent_it_again() {
        let page = CachedJson::render(&["a"]);
        let etag = &*page.etag;
        assert_ne!(&*CachedJson::render(&["b"]).etag, etag);
        for (said, known) in [
            (None, false),
            (Some(etag.to_owned()), true),
            (Some(format!("W/{etag}")), true),
            (Some(format!("\"other\", {etag}")), true),
            (Some("*".to_owned()), true),
            (Some("\"other\"".to_owned()), false),
        ] {
            let mut request = HeaderMap::new();
            if let Some(said) = &said {
                request.insert(header::IF_NONE_MATCH, said.parse().unwrap());
            }
            let response = page.answer(&request);
            let status = if known { 304 } else { 200 };
            assert_eq!(response.status(), status, "{said:?}");
            assert_eq!(response.headers()[header::ETAG], etag);
        }
    }

    #[test]
    fn a_page_is_kept_for_its_version_and_its_time() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let cache = JsonCache::default();
        assert!(cache.get(0, second(0)).is_none());
        let until_10 = || second(5)..second(10);
        cache.put(3, until_10(), &CachedJson::render(&3));
        assert!(cache.get(3, second(9)).is_some());
        assert!(cache.get(3, second(4)).is_none(), "the clock was put back");
        assert!(cache.get(3, second(10)).is_none());
        assert!(cache.get(4, second(9)).is_none());
        cache.put(2, until_10(), &CachedJson::render(&2));
        assert!(cache.get(3, second(9)).is_some());
        assert!(cache.get(2, second(9)).is_none());
    }
}
