//! Asks a running server whether it is well, for containers and scripts that have no other client.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A healthy server answers in far less.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks for `url`, which must be plain HTTP, such as `http://127.0.0.1:8000/healthz`.
///
/// # Errors
/// If there is no answer within 3 seconds, or it is not 2xx.
pub async fn probe(url: &str) -> anyhow::Result<()> {
    timeout(TIMEOUT, ask(url))
        .await
        .with_context(|| format!("{url} did not answer within {TIMEOUT:?}"))?
}

async fn ask(url: &str) -> anyhow::Result<()> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    ensure!(
        uri.scheme_str() == Some("http"),
        "{url} is not a plain http:// URL"
    );
    let Some(authority) = uri.authority() else {
        bail!("{url} names no host");
    };
    let address = (
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    );
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {authority}"))?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let answer = tokio::select! {
        answer = requests.send_request(request) => answer,
        ended = connection => bail!("the connection to {authority} ended: {ended:?}"),
    };
    let status = answer
        .with_context(|| format!("{url} did not answer"))?
        .status();
    ensure!(status.is_success(), "{url} answered {status}");
    Ok(())
}
