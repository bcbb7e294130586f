//! HTML for browsers: content negotiation, the page layout, and problems as pages. Pages have no scripts and one style
//! sheet from the listener, so that the content security policy can forbid all else.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value};

const STYLE: &str = include_str!("style.css");
/// Browsers request an icon in any case.
const ICON: &str = include_str!("icon.svg");

const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const BY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");

/// Whether a client prefers HTML to JSON (RFC 9110, section 12.5.1). With equal quality the more precise range wins, then
/// JSON. Ignores a malformed `Accept`, and that of Java's `HttpURLConnection`, which puts HTML first in every request.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let fields = || {
        let fields = headers.get_all(header::ACCEPT).iter();
        fields.filter_map(|field| field.to_str().ok())
    };
    // Fast path: most clients accept anything, or JSON.
    let names_text = |field: &str| {
        let mut parts = field.as_bytes().windows(b"text/".len());
        parts.any(|part| part.eq_ignore_ascii_case(b"text/"))
    };
    if !fields().any(names_text) {
        return false;
    }
    let ranges = fields()
        .flat_map(|field| field.split(','))
        .filter(|range| !range.trim().is_empty())
        .map(media_range);
    let Some(ranges) = ranges.collect::<Option<Vec<_>>>() else {
        return false;
    };
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    if agent.is_some_and(|agent| agent.starts_with(b"Java/")) {
        return false;
    }
    // Quality, then precision.
    let welcome = |names: [&str; 3]| {
        names
            .iter()
            .zip([2, 1, 0])
            .find_map(|(name, precision)| {
                let named = |(range, _): &&(&str, u16)| range.eq_ignore_ascii_case(name);
                let &(_, quality) = ranges.iter().find(named)?;
                Some((quality, precision))
            })
            .unwrap_or_default()
    };
    let html = welcome(["text/html", "text/*", "*/*"]);
    html.0 > 0 && html > welcome(["application/json", "application/*", "*/*"])
}

/// A range of media types, and its quality in thousandths.
fn media_range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?;
    let (kind, subtype) = range.split_once('/')?;
    let named = !kind.is_empty() && !subtype.is_empty();
    let mut quality = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_once('=')?;
        if name.eq_ignore_ascii_case("q") {
            quality = thousandths(value)?;
        }
    }
    named.then_some((range, quality))
}

fn thousandths(quality: &str) -> Option<u16> {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let value = format!("{whole}{fraction:0<3}").parse().ok()?;
    (digits && matches!(whole, "0" | "1") && value <= 1000).then_some(value)
}

/// The layout of every page.
pub(super) fn page(title: &str, content: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body { main { h1 { (title) } (content) } }
        }
    };
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = [
        (header::CONTENT_TYPE, html),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::VARY, BY_ACCEPT),
    ];
    (headers, markup.into_string()).into_response()
}

/// A problem as a page: same status, headers and content. Other responses are unchanged.
pub(super) fn problem_as_page(response: Response, request_id: &str) -> Response {
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if !is_problem {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Some(bytes) = whole(body) else {
        return head.into_response();
    };
    let Ok(problem) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
        return Response::from_parts(head, Body::from(bytes));
    };
    let (page, body) = page(
        problem["title"].as_str().unwrap_or_default(),
        &problem_content(&problem, request_id),
    )
    .into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(page.headers);
    Response::from_parts(head, body)
}

/// A body that is complete already, as a problem's is.
pub(super) fn whole(body: Body) -> Option<bytes::Bytes> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(body.collect()).poll(&mut context) {
        Poll::Ready(Ok(collected)) => Some(collected.to_bytes()),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

fn problem_content(problem: &Map<String, Value>, request_id: &str) -> Markup {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let errors = problem.get("errors").and_then(Value::as_array);
    let shown = ["title", "detail", "errors"];
    let members = problem
        .iter()
        .filter(|(name, _)| !shown.contains(&name.as_str()));
    html! {
        p { (text(&problem["detail"])) }
        @if let Some(errors) = errors {
            ul {
                @for error in errors {
                    li {
                        @let place = error.get("pointer").or(error.get("parameter"));
                        @if let Some(place) = place.map(text).filter(|place| !place.is_empty()) { code { (place) } ": " }
                        (text(&error["detail"]))
                    }
                }
            }
        }
        dl {
            @for (name, value) in members { dt { (name) } dd { code { (text(value)) } } }
            dt { "request id" } dd { code { (request_id) } }
        }
        p { a href="/" { "What is here" } }
    }
}

pub(super) fn files() -> Router {
    let file = |kind, content| {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("max-age=3600"),
            ),
        ];
        get(async move || (headers, content))
    };
    Router::new()
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/icon.svg", file("image/svg+xml", ICON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_for_those_who_prefer_it() {
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8";
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, html) in [
            (&[chromium][..], true),
            (&[firefox], true),
            (&["text/html"], true),
            (&["TEXT/HTML"], true),
            (&["text/*"], true),
            (&["text/html, */*"], true),
            (&["application/json;q=0.5", "text/html;q=0.6"], true),
            (&["application/json, text/html"], false),
            (&["text/html;q=0.5, application/json"], false),
            (&["text/html;q=0.8, */*"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=0, */*"], false),
            (&["text/plain"], false),
            (&["application/json, text/plain, */*"], false),
            (&["*/*"], false),
            (&["application/problem+json"], false),
            (&[""], false),
            (&[], false),
            (
                &["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"],
                false,
            ),
            (&["text/html;q=2"], false),
            (&["text/html;q=0.1234"], false),
            (&["text/html;q=1.001"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(prefers_html(&headers), html, "{accept:?}");
        }
        let java = [
            ("accept", "text/html, image/gif, image/jpeg, */*; q=0.2"),
            ("user-agent", "Java/21.0.2"),
        ];
        let java = java.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        assert!(!prefers_html(&HeaderMap::from_iter(java)));
    }
}
