//! Who sent a request, and whether they may: checked before routing, so that a refused request takes no order, counts for no
//! limit and is not read. What a route requires is in its description (`security`); see [`Requirement`].

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use jiff::Timestamp;
use metrics::{Counter, counter, describe_counter};
use tracing::info;

use super::headers::Scan;
use super::origin::{Rejection, takes_an_order};
use super::problem::Problem;
use super::security::{Requirement, SESSION_COOKIE};
use crate::access::session::Sessions;
use crate::access::tls::Certified;
use crate::access::tokens::{Refused, TokenSet};
use crate::access::{Granted, Identity, Role, Roles};
use crate::telemetry::Registry;

/// Refused credentials per second from one client that are answered 401, and of all clients that are logged; more are answered
/// 429, and counted only.
const REFUSED_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// As many at once.
const REFUSED_BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// So many refusals after each other, clients with none of late are forgotten: each refusal adds one client at most.
const FORGET_AFTER: u32 = 1000;

/// How a listener's requests prove who sent them.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Tokens, and where browsers log in, sessions.
    Tokens(TokenSet, Option<Sessions>),
    /// The connection's client certificate.
    Certificates,
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// Whom the connection's client certificate names. Boxed: most connections have none.
    pub certificate: Option<Box<Certified>>,
}

/// Decides about a listener's requests.
pub struct Guard {
    listener: &'static str,
    /// None: every client may use it.
    credentials: Option<Credentials>,
    client_of: Box<ClientOf>,
    /// By client.
    failures: DefaultKeyedRateLimiter<IpNet>,
    /// Refusals so far; wraps around.
    failed: AtomicU32,
    /// Of all clients: a flood of refusals must not become a flood of log lines.
    lines: DefaultDirectRateLimiter,
    refused: [Counter; Reason::ALL.len()],
}

/// The client's address or network, by peer and header.
type ClientOf = dyn Fn(IpAddr, &HeaderMap) -> IpNet + Send + Sync;

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It has no credential.
    Missing,
    Malformed,
    Unknown,
    Expired,
    /// None of its roles may use the route.
    Role,
    /// A browser's change without proof that a page of this listener made it.
    Origin,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::Role,
        Self::Origin,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Role => "role",
            Self::Origin => "origin",
        }
    }
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed => Self::Malformed,
            Refused::Unknown => Self::Unknown,
            Refused::Expired => Self::Expired,
        }
    }
}

impl Guard {
    pub fn new(
        listener: &'static str,
        credentials: Option<Credentials>,
        client_of: impl Fn(IpAddr, &HeaderMap) -> IpNet + Send + Sync + 'static,
        registry: &Registry,
    ) -> Self {
        const REFUSED: &str = "odyssey_access_refused_total";
        let refused = registry.register(|| {
            describe_counter!(REFUSED, "Requests refused for their credentials, by reason");
            Reason::ALL
                .map(|reason| counter!(REFUSED, "listener" => listener, "reason" => reason.name()))
        });
        let quota = Quota::per_second(REFUSED_PER_SECOND).allow_burst(REFUSED_BURST);
        Self {
            listener,
            credentials,
            client_of: Box::new(client_of),
            failures: RateLimiter::keyed(quota),
            failed: AtomicU32::new(0),
            lines: RateLimiter::direct(quota),
            refused,
        }
    }

    /// The client's address or network.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpNet {
        (self.client_of)(peer, headers)
    }

    /// A new session for a token that was entered on the page, and for how long it is valid.
    ///
    /// # Errors
    /// As [`Guard::check`]; 404 where browsers cannot log in.
    pub(super) fn log_in(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        token: &[u8],
    ) -> Result<(String, Duration), Problem> {
        let Some(Credentials::Tokens(tokens, Some(sessions))) = &self.credentials else {
            return Err(no_login());
        };
        let now = Timestamp::now();
        let tokens = tokens.now();
        let issued = tokens.verify(token, now).and_then(|identity| {
            let id = identity.token.as_deref().unwrap_or_default();
            info!(
                listener = self.listener,
                identity = &*identity.name,
                token = id,
                "a browser logged in"
            );
            sessions.issue(id, &tokens, now)
        });
        let issued = issued.map(|session| (session, sessions.lifetime()));
        issued.map_err(|refused| self.refuse(headers, peer, refused.into(), Roles::default(), None))
    }

    /// Whom the browser's session stands for; none without a valid one.
    ///
    /// # Errors
    /// 404 where browsers cannot log in.
    pub(super) fn logged_in(&self, headers: &HeaderMap) -> Result<Option<Arc<Identity>>, Problem> {
        let Some(Credentials::Tokens(tokens, Some(sessions))) = &self.credentials else {
            return Err(no_login());
        };
        let verify = |session| sessions.verify(session, &tokens.now(), Timestamp::now());
        Ok(session(headers).and_then(|session| verify(session).ok()))
    }

    /// Whether browsers can log in.
    pub(super) fn has_sessions(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Tokens(_, Some(_))))
    }

    /// The identity with which a request may use a route; none where none is needed.
    ///
    /// # Errors
    /// 401 without a valid credential, 403 for one that may not use it, 400 for several, 429 for too many of these.
    pub(super) fn check<B>(
        &self,
        request: &Request<B>,
        scan: &Scan<'_>,
        requirement: Requirement,
        peer: &Peer,
    ) -> Result<Option<Granted>, Rejection> {
        let (roles, required) = match requirement {
            Requirement::Undeclared => return Err(undeclared().into()),
            Requirement::Nothing => return Ok(None),
            Requirement::Optional(roles) => (roles, false),
            Requirement::Roles(roles) => (roles, true),
        };
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let fail = |reason, roles, identity: Option<&Identity>| {
            self.refuse(request.headers(), peer.address, reason, roles, identity)
        };
        if scan.second_authorization.is_some() {
            self.count(Reason::Malformed);
            let detail = "There is more than one Authorization header.";
            return Err(Problem::unreadable(detail).into());
        }
        let identity = match credentials.identity(request, scan, peer) {
            Ok(Some(identity)) => identity,
            Ok(None) if !required => return Ok(None),
            Ok(None) => return Err(fail(Reason::Missing, roles, None).into()),
            Err(reason) => return Err(fail(reason, roles, None).into()),
        };
        let roles_here = identity.roles.common(roles);
        if roles_here.is_empty() {
            return Err(fail(Reason::Role, roles, Some(&identity)).into());
        }
        let is_change = !request.method().is_safe() || takes_an_order(request);
        if is_change && roles_here.contains(Role::Operator) {
            // The audit trail of what only few do; others are named by the records that they change.
            info!(
                listener = self.listener,
                identity = &*identity.name,
                token = identity.token.as_deref(),
                method = %request.method(),
                path = request.uri().path(),
                "an operator changes something"
            );
        }
        Ok(Some(Granted {
            identity,
            roles: roles_here,
            tokens: credentials.tokens().cloned(),
        }))
    }

    fn count(&self, reason: Reason) {
        self.refused[reason as usize].increment(1);
    }

    /// The problem of a refused credential.
    fn refuse(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        reason: Reason,
        roles: Roles,
        identity: Option<&Identity>,
    ) -> Problem {
        self.count(reason);
        let client = (self.client_of)(peer, headers);
        if let Err(wait) = self.failures.check_key(&client) {
            let wait = wait.wait_time_from(DefaultClock::default().now());
            return too_many().retry_after(wait);
        }
        let failed = self.failed.fetch_add(1, Ordering::Relaxed);
        if failed.is_multiple_of(FORGET_AFTER) {
            self.failures.retain_recent();
        }
        if self.lines.check().is_ok() {
            // Never the credential: it may be a good one that was sent to the wrong place.
            info!(
                listener = self.listener,
                client = shown(client),
                reason = reason.name(),
                identity = identity.map(|identity| &*identity.name),
                token = identity.and_then(|identity| identity.token.as_deref()),
                "a credential was refused"
            );
        }
        if matches!(self.credentials, Some(Credentials::Certificates)) {
            return of_certificate(reason, roles);
        }
        of_token(reason, roles)
    }
}

impl Credentials {
    fn tokens(&self) -> Option<&TokenSet> {
        match self {
            Self::Tokens(tokens, _) => Some(tokens),
            Self::Certificates => None,
        }
    }

    /// Whom the request's credential stands for; none if it has none.
    fn identity<B>(
        &self,
        request: &Request<B>,
        scan: &Scan<'_>,
        peer: &Peer,
    ) -> Result<Option<Arc<Identity>>, Reason> {
        let (tokens, sessions) = match self {
            Self::Certificates => {
                let Some(certified) = &peer.certificate else {
                    return Ok(None);
                };
                // Connections may outlive certificates.
                if certified.not_after < Timestamp::now() {
                    return Err(Reason::Expired);
                }
                return Ok(Some(Arc::clone(&certified.identity)));
            }
            Self::Tokens(tokens, sessions) => (tokens, sessions),
        };
        if let Some(header) = scan.authorization {
            let token = bearer(header).ok_or(Reason::Malformed)?;
            return Ok(Some(tokens.verify(token, Timestamp::now())?));
        }
        let (Some(sessions), Some(_)) = (sessions, scan.cookie) else {
            return Ok(None);
        };
        let Some(session) = session(request.headers()) else {
            return Ok(None);
        };
        let identity = sessions.verify(session, &tokens.now(), Timestamp::now())?;
        // Browsers attach cookies of their own accord: that a page of this listener asked must be seen.
        let is_change = !request.method().is_safe() || takes_an_order(request);
        let is_own =
            scan.fetch_site.is_some_and(|site| site == "same-origin") || scan.origin.is_some();
        if is_change && !is_own {
            return Err(Reason::Origin);
        }
        Ok(Some(identity))
    }
}

/// An address without the length of its prefix.
pub(super) fn shown(client: IpNet) -> String {
    if client.prefix_len() == client.max_prefix_len() {
        return client.addr().to_string();
    }
    client.to_string()
}

/// The token in `Authorization: Bearer` (RFC 6750, section 2.1).
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = header.as_bytes().split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

/// The session in a request's cookies.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
}

/// Whether a person could answer this by logging in.
pub(super) fn may_log_in<B>(request: &Request<B>, problem: &Problem) -> bool {
    problem.status() == StatusCode::UNAUTHORIZED
        && (request.method() == Method::GET || request.method() == Method::HEAD)
        && !takes_an_order(request)
}

fn of_certificate(reason: Reason, roles: Roles) -> Problem {
    match reason {
        Reason::Role => Problem::new(
            StatusCode::FORBIDDEN,
            "role-missing",
            "The certificate's role does not allow this",
            format!("This needs one of the roles: {roles}."),
        ),
        Reason::Expired => Problem::new(
            StatusCode::UNAUTHORIZED,
            "credential-expired",
            "The client certificate has expired",
            "Connect again with a new one.",
        ),
        _ => Problem::new(
            StatusCode::UNAUTHORIZED,
            "credential-missing",
            "A client certificate is needed",
            format!("Connect with a certificate for one of the roles: {roles}."),
        ),
    }
}

fn of_token(reason: Reason, roles: Roles) -> Problem {
    let unauthorized = |slug, title, detail: Cow<'static, str>| {
        Problem::new(StatusCode::UNAUTHORIZED, slug, title, detail)
    };
    match reason {
        Reason::Missing => unauthorized(
            "credential-missing",
            "A token is needed",
            format!("Send Authorization: Bearer and a token for one of the roles: {roles}.").into(),
        )
        .challenge(None, Roles::default()),
        Reason::Malformed | Reason::Unknown => unauthorized(
            "credential-invalid",
            "The token is not valid",
            "It is malformed, unknown or revoked.".into(),
        )
        .challenge(Some("invalid_token"), Roles::default()),
        Reason::Expired => unauthorized(
            "credential-expired",
            "The token has expired",
            "Ask an operator for a new one, or log in again.".into(),
        )
        .challenge(Some("invalid_token"), Roles::default()),
        Reason::Role => Problem::new(
            StatusCode::FORBIDDEN,
            "role-missing",
            "The token's roles do not allow this",
            format!("This needs one of the roles: {roles}."),
        )
        .challenge(Some("insufficient_scope"), roles),
        Reason::Origin => Problem::new(
            StatusCode::FORBIDDEN,
            "cross-site",
            "A page of another site may have sent this",
            "With a session, changes are accepted from pages of this listener only (Sec-Fetch-Site, Origin); scripts send a token.",
        ),
    }
}

fn no_login() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-login",
        "There is nothing to log in to",
        "This listener takes no tokens (configuration key `staff.auth`).",
    )
}

fn undeclared() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "role-missing",
        "This is not allowed to anyone",
        "No role was declared for this operation; this is a bug in the server.",
    )
}

/// 503 of the readiness: the files of tokens or certificates cannot be read.
pub fn outdated() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "access-outdated",
        "Tokens or certificates cannot be read",
        "Those of before stay in force; the log has the cause.",
    )
}

fn too_many() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-refused",
        "Too many refused credentials",
        "Too many requests from this address had no valid credential.",
    )
}

/// For a held request whose token is revoked.
pub(crate) fn revoked() -> Problem {
    of_token(Reason::Unknown, Roles::default())
}

/// For an identity that may act for its subject only.
pub(crate) fn not_its_subject(subject: &str) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "subject-mismatch",
        "The token is for another subject",
        format!("This token may act for {subject:?} only."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_bearer_only() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Bearer", None),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            let read = HeaderValue::from_static(header);
            assert_eq!(bearer(&read), token.map(str::as_bytes), "{header:?}");
        }
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        assert_eq!(session(&headers), None);
        headers.append(
            "cookie",
            HeaderValue::from_static("a=b; odyssey_session2=x"),
        );
        assert_eq!(session(&headers), None);
        headers.append(
            "cookie",
            HeaderValue::from_static("c; odyssey_session=1.2.3;d=e"),
        );
        assert_eq!(session(&headers), Some("1.2.3"));
    }
}
