//! An HTTP client: one request per connection.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::output::printable;
use super::tls::{Presented, Trust};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP keepalive: a vanished server is noticed after about four of these, while an order is held.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Far above any answer here.
const BODY_MAX_BYTES: usize = 64 << 20;

/// A URL, such as `http://127.0.0.1:8000/healthz`.
#[derive(Debug, Clone)]
pub(super) struct Url {
    is_https: bool,
    authority: Authority,
    path: PathAndQuery,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a URL such as http://127.0.0.1:8001 or https://shop.example")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let parts = uri.into_parts();
        let is_https = parts.scheme == Some(Scheme::HTTPS);
        let is_http = is_https || parts.scheme == Some(Scheme::HTTP);
        match parts.authority {
            // Credentials in a URL are seen by others.
            Some(authority) if is_http && !authority.as_str().contains('@') => Ok(Self {
                is_https,
                authority,
                path: parts
                    .path_and_query
                    .unwrap_or_else(|| PathAndQuery::from_static("/")),
            }),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Url {
    /// This path below the URL.
    pub(super) fn join(&self, path: &str) -> anyhow::Result<Self> {
        let base = self.path.path().trim_end_matches('/');
        let joined = format!("{base}{path}");
        let path = joined
            .parse()
            .with_context(|| format!("{joined} is not a path"))?;
        Ok(Self {
            path,
            ..self.clone()
        })
    }

    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let authority = &self.authority;
        let default = if self.is_https { 443 } else { 80 };
        let address = (self.host(), authority.port_u16().unwrap_or(default));
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| anyhow!("no answer within {CONNECT_TIMEOUT:?}"))
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("cannot connect to {authority}"))?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        // Best effort.
        drop(SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        Ok(stream)
    }
}

/// A connection's bytes, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

#[derive(Debug)]
pub(super) struct Ask {
    url: Url,
    request: axum::http::request::Builder,
    body: Bytes,
    trust: Trust,
    presented: Option<Presented>,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    pub(super) url: Url,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let agent = concat!("odyssey/", env!("CARGO_PKG_VERSION"));
        let request = Request::builder()
            .method(method)
            .uri(url.path.as_str())
            .header(header::HOST, url.authority.as_str())
            .header(header::USER_AGENT, agent)
            .header(header::ACCEPT, "application/json");
        Self {
            url,
            request,
            body: Bytes::new(),
            trust: Trust::default(),
            presented: None,
        }
    }

    /// Whom to trust over https.
    pub(super) fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// With this client certificate, if any, over https.
    pub(super) fn presenting(self, presented: Option<Presented>) -> Self {
        Self { presented, ..self }
    }

    /// With this token, if any.
    pub(super) fn with_token(self, token: Option<&Zeroizing<String>>) -> Self {
        match token {
            Some(token) => {
                let mut request = self;
                let bearer = HeaderValue::try_from(format!("Bearer {}", **token));
                // The caller has seen that it is visible ASCII. Masked in `Debug`.
                if let Ok(mut bearer) = bearer {
                    bearer.set_sensitive(true);
                    request.request = request.request.header(header::AUTHORIZATION, bearer);
                }
                request
            }
            None => self,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(super) fn json(mut self, value: &Value) -> Self {
        self.body = value.to_string().into();
        self.header("content-type", "application/json")
    }

    /// The answer of any status, within `patience`.
    pub(super) async fn within(self, patience: Duration) -> anyhow::Result<Answer> {
        let url = self.url.clone();
        timeout(patience, self.answer())
            .await
            .with_context(|| format!("{url} did not answer within {patience:?}"))?
    }

    /// The answer of any status, without a timeout.
    pub(super) async fn answer(self) -> anyhow::Result<Answer> {
        let url = self.url;
        let stream = url.connect().await?;
        let stream: Box<dyn Stream> = if url.is_https {
            let presented = self.presented.as_ref();
            let connecting = self.trust.connect(url.host(), stream, presented);
            let connected = timeout(CONNECT_TIMEOUT, connecting).await;
            let connected = connected.map_err(|_| anyhow!("no answer within {CONNECT_TIMEOUT:?}"));
            Box::new(
                connected
                    .and_then(|tls| tls)
                    .with_context(|| format!("cannot connect to {url}"))?,
            )
        } else {
            Box::new(stream)
        };
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // An error there fails the request, too.
        let driver = tokio::spawn(async { drop(connection.await) });
        let request = self.request.body(Full::new(self.body))?;
        let exchange = async {
            let (head, body) = requests.send_request(request).await?.into_parts();
            let body = Limited::new(body, BODY_MAX_BYTES).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            anyhow::Ok((head, body))
        };
        let exchanged = exchange.await;
        driver.abort();
        let (head, body) = exchanged.with_context(|| format!("{url} did not answer"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            url,
        })
    }
}

impl Answer {
    /// This answer if it is 2xx; else its problem as an error.
    pub(super) fn success(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let problem = serde_json::from_slice(&self.body).unwrap_or_default();
        bail!("{}", self.problem(&problem))
    }

    /// A problem (RFC 9457) in one line.
    fn problem(&self, problem: &Value) -> String {
        let status = self.status.as_u16();
        let mut said = match (problem["title"].as_str(), problem["detail"].as_str()) {
            (Some(title), Some(detail)) => format!("{title} ({status}): {detail}"),
            (Some(said), None) | (None, Some(said)) => format!("{said} ({status})"),
            (None, None) => return format!("{} answered {}", self.url, self.status),
        };
        // A single error repeats the detail.
        let errors = problem["errors"].as_array().filter(|all| all.len() > 1);
        for error in errors.into_iter().flatten() {
            let place = [&error["pointer"], &error["parameter"]]
                .into_iter()
                .find_map(Value::as_str)
                .unwrap_or_default();
            let detail = error["detail"].as_str().unwrap_or_default();
            said = format!("{said} {place}: {detail}");
        }
        let retry_after = self.headers.get(header::RETRY_AFTER);
        if let Some(secs) = retry_after.and_then(|after| after.to_str().ok()) {
            said = format!("{said} Try again in {secs} s.");
        }
        printable(&said)
    }

    pub(super) fn text(&self) -> anyhow::Result<&str> {
        std::str::from_utf8(&self.body).with_context(|| format!("{} did not answer text", self.url))
    }

    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} did not answer JSON: is it Odyssey's?", self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_http_or_https_and_paths_go_below_it() {
        for (base, joined) in [
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001/start/"),
            ("http://[::1]:8001/", "http://[::1]:8001/start/"),
            ("https://shop.example", "https://shop.example/start/"),
            (
                "http://shop.example/staff/",
                "http://shop.example/staff/start/",
            ),
        ] {
            let url: Url = base.parse().unwrap();
            assert_eq!(url.join("/start/").unwrap().to_string(), joined);
        }
        for wrong in [
            "",
            "/healthz",
            "localhost",
            "localhost:8001",
            "ftp://127.0.0.1",
            "https://ada:secret@127.0.0.1",
            "http://",
            "http://ada:secret@127.0.0.1",
            "http://a b",
        ] {
            let said = wrong.parse::<Url>().unwrap_err();
            assert!(said.contains("is not a URL such as"), "{wrong}: {said}");
        }
    }

    #[test]
    fn a_problem_is_one_line_with_its_title_and_detail() {
        for (status, body, retry_after, said) in [
            (
                409,
                r#"{"title": "Too late", "detail": "It is being brewed."}"#,
                None,
                "Too late (409): It is being brewed.",
            ),
            (
                429,
                r#"{"title": "Slow\ndown", "detail": "Please."}"#,
                Some("7"),
                "Slow\\ndown (429): Please. Try again in 7 s.",
            ),
            (
                422,
                r#"{"title": "No", "detail": "See.", "errors": [{"pointer": "/a", "detail": "x."}, {"parameter": "b", "detail": "y."}]}"#,
                None,
                "No (422): See. /a: x. b: y.",
            ),
            (502, "<html>", None, "http://a/b answered 502 Bad Gateway"),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .extend(retry_after.map(|secs: &str| (header::RETRY_AFTER, secs.parse().unwrap())));
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: Bytes::from(body),
                url: "http://a/b".parse().unwrap(),
            };
            assert_eq!(answer.success().unwrap_err().to_string(), said);
        }
    }
}
