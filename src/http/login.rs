//! `/login` and `/logout`: a browser exchanges a token for a session. The token is in the body of one request, and in no URL,
//! page or log; the session is in a cookie that scripts cannot read.
//!
//! The page's referrer policy is `same-origin`, unlike that of other pages: under `no-referrer` browsers send `Origin: null` with
//! a form, and over plain HTTP to a name they send no Fetch metadata either, so the form would count as another site's.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::body::{self, BodyLimits};
use super::guard::{Guard, session};
use super::html::{page, prefers_html};
use super::params::{Caller, Query};
use super::problem::Problem;
use super::responses::problems;
use super::security::SESSION_COOKIE;
use crate::access::Identity;

/// A form with a token and a path, in bytes.
const FORM_MAX_BYTES: usize = 16 * 1024;
const FORM_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest path that a browser is sent back to, in bytes.
const NEXT_MAX_BYTES: usize = 1024;

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Login {
    guard: Arc<Guard>,
    /// The listener speaks TLS.
    tls: bool,
}

impl Login {
    pub fn new(guard: Arc<Guard>, tls: bool) -> Self {
        Self { guard, tls }
    }
}

pub fn login_routes() -> [UtoipaMethodRouter<Login>; 2] {
    [routes!(show_login, log_in), routes!(log_out)]
}

problems! {
    /// Of the page.
    struct PageProblems {
        404: "This listener takes no tokens",
    }
}

problems! {
    /// Of a token that was entered.
    struct LoginProblems {
        401: "The token is not valid",
        404: "This listener takes no tokens",
        408: "The body took too long",
        413: "The body is too large",
        415: "The body is not a form by its type",
        429: "Too many refused tokens from this address",
    }
}

/// Where a browser goes after it has logged in.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Next {
    /// A path of this listener.
    next: Option<String>,
}

/// The page's form.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "described only: it is read without copying the token"
)]
struct LoginForm {
    /// A token, from `odyssey token new`.
    token: String,
    /// A path of this listener.
    #[schema(required = false)]
    next: String,
}

/// The page where a token is entered
#[utoipa::path(
    get, path = "/login", tag = "access", security(()), params(Next),
    responses(
        PageProblems,
        (status = 200, description = "A form", content_type = "text/html", body = String),
    ),
)]
async fn show_login(
    State(login): State<Login>,
    Query(next): Query<Next>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = login.guard.logged_in(&headers)?;
    Ok(form(next.next.as_deref(), identity.as_deref(), None))
}

/// Log in with a token
///
/// The session's cookie is valid for `staff.session`, and no longer than the token.
#[utoipa::path(
    post, path = "/login", tag = "access", security(()),
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        LoginProblems,
        (status = 303, description = "Logged in", headers(("Location" = String), ("Set-Cookie" = String))),
    ),
)]
async fn log_in(
    State(login): State<Login>,
    headers: HeaderMap,
    form: LoginRequest,
) -> Result<Response, Response> {
    let LoginRequest { peer, fields } = form;
    let field = |name: &str| {
        let mut fields = form_urlencoded::parse(&fields);
        fields.find_map(|(key, value)| (key == name).then_some(value))
    };
    let token = Zeroizing::new(field("token").unwrap_or_default().trim().to_owned());
    let next = field("next");
    let (session, lifetime) = match login.guard.log_in(&headers, peer, token.as_bytes()) {
        Ok(issued) => issued,
        Err(problem) if prefers_html(&headers) && login.guard.has_sessions() => {
            return Err(refused(next.as_deref(), problem));
        }
        Err(problem) => return Err(problem.into_response()),
    };
    let next = next.filter(|next| is_local(next));
    Ok(login.answer(&headers, &session, lifetime, next.as_deref().unwrap_or("/")))
}

/// Log out
///
/// The browser forgets its session. Revoking the token ends all of its sessions.
#[utoipa::path(
    get, path = "/logout", tag = "access", security(()),
    responses((status = 303, description = "Logged out", headers(("Location" = String), ("Set-Cookie" = String)))),
)]
async fn log_out(State(login): State<Login>, headers: HeaderMap) -> Response {
    let mut response = login.answer(&headers, "", Duration::ZERO, "/login");
    if session(&headers).is_none() {
        // A page of another site has sent the browser here, without its cookie: it stays logged in.
        response.headers_mut().remove(header::SET_COOKIE);
    }
    response
}

impl Login {
    /// Sets the cookie, and sends the browser to this path.
    fn answer(
        &self,
        headers: &HeaderMap,
        session: &str,
        lifetime: Duration,
        path: &str,
    ) -> Response {
        // nginx says so where it ends TLS. Who claims it falsely only keeps their own cookie from being sent.
        let is_https = headers
            .get("x-forwarded-proto")
            .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
        let secure = if self.tls || is_https { "; Secure" } else { "" };
        let lifetime = lifetime.as_secs();
        let cookie = format!(
            "{SESSION_COOKIE}={session}; Path=/; Max-Age={lifetime}; HttpOnly; SameSite=Strict{secure}"
        );
        let bug = || Problem::bug().into_response();
        let (Ok(cookie), Ok(location)) =
            (HeaderValue::try_from(cookie), HeaderValue::try_from(path))
        else {
            return bug();
        };
        let headers = [
            (header::SET_COOKIE, cookie),
            (header::LOCATION, location),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (StatusCode::SEE_OTHER, headers).into_response()
    }
}

/// The fields of a form, and who sent it.
struct LoginRequest {
    peer: std::net::IpAddr,
    fields: bytes::Bytes,
}

impl<S: Send + Sync> FromRequest<S> for LoginRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let Some(&Caller { peer, .. }) = request.extensions().get() else {
            unreachable!("the edge adds a `Caller` to every request")
        };
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_form = kind.split(';').next().is_some_and(|kind| {
            kind.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        let limits = BodyLimits {
            max_bytes: FORM_MAX_BYTES,
            timeout: FORM_TIMEOUT,
        };
        let fields = body::read(request.into_body(), limits).await?;
        if !is_form {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not-a-form",
                "The body is not a form",
                "Send application/x-www-form-urlencoded with the field `token`.",
            ));
        }
        Ok(Self { peer, fields })
    }
}

/// Where a browser is sent to log in for this page.
pub(super) fn location(page: &Uri) -> HeaderValue {
    let path = page.path_and_query().map_or("/", |path| path.as_str());
    let next = if is_local(path) { path } else { "/" };
    let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
    HeaderValue::try_from(format!("/login?next={next}"))
        .expect("percent-encoded text is visible ASCII")
}

/// Whether a path stays at this listener: `//host` and `/\host` do not.
fn is_local(path: &str) -> bool {
    let visible = |b: u8| b.is_ascii_graphic() && b != b'\\';
    path.len() <= NEXT_MAX_BYTES
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(visible)
}

/// The form again, with a problem's status and headers.
fn refused(next: Option<&str>, problem: Problem) -> Response {
    let (page, body) = form(next, None, Some(&problem)).into_parts();
    let mut response = problem.into_response();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().extend(page.headers);
    *response.body_mut() = body;
    response
}

fn form(next: Option<&str>, identity: Option<&Identity>, refused: Option<&Problem>) -> Response {
    let next = next.filter(|next| is_local(next)).unwrap_or("/");
    let describes = refused.map(|_| "refused");
    let content = html! {
        @if let Some(identity) = identity {
            p { "This browser is logged in as " strong { (identity.name) } " (" (identity.roles) "). " a href="/logout" { "Log out" } }
        }
        @if let Some(problem) = refused {
            p id="refused" role="alert" { strong { (problem.title()) "." } " " (problem) }
        }
        form method="post" action="/login" {
            label for="token" { @if identity.is_some() { "Another token" } @else { "Token" } }
            input type="password" id="token" name="token" required autofocus autocomplete="current-password"
                autocapitalize="none" spellcheck="false" aria-invalid=[describes.map(|_| "true")] aria-describedby=[describes];
            input type="hidden" name="next" value=(next);
            button type="submit" { "Log in" }
        }
        p { small { "An operator creates tokens with " code { "odyssey token new" } "." } }
    };
    let mut response = page("Log in", &content);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_back_only_to_a_path_of_this_listener() {
        for (path, local) in [
            ("/", true),
            ("/orders?limit=1", true),
            ("/docs/", true),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("https://evil.example", false),
            ("evil", false),
            ("", false),
            ("/a b", false),
            ("/a\nSet-Cookie: b", false),
        ] {
            assert_eq!(is_local(path), local, "{path}");
        }
        let location = location(&Uri::from_static("/orders?limit=1"));
        assert_eq!(location, "/login?next=%2Forders%3Flimit%3D1");
    }
}
