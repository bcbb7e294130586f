//! One HTTP/1.1 connection: the only place that resolves names, opens sockets and names what went wrong with them.
//!
//! hyper's connection is used as it is, without a client on top. A customer *is* one connection that is held and
//! never shared, so a pool would have to be switched off rather than used; the socket's options stay in our hands;
//! and a failure has a kind (refused, reset, closed before the answer), which is what gets counted.

use std::{error::Error as _, fmt, io, net::Ipv4Addr, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
};
use tokio_util::task::AbortOnDropHandle;

use crate::dribble::{Slow, dribbled};

/// The shop's answers are small; anything larger is not the shop's, unless larger ones are asked for.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Customers wait without a time-out, but a shop that vanished without a word is noticed within about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A base URL: `http://host[:port][/prefix]`, and the token of the requests below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// Without a slash at its end; empty for most.
    prefix: String,
    /// Marked as sensitive, so that `Debug` does not print it.
    authorization: Option<HeaderValue>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("expected http://HOST[:PORT]".to_owned());
        }
        if uri.query().is_some() {
            return Err("a base URL has no query".to_owned());
        }
        let authority = uri.authority().ok_or("the host is missing")?;
        if authority.as_str().contains('@') {
            return Err("user names are not supported".to_owned());
        }
        Ok(Self {
            // Brackets belong to the URL's form of an IPv6 address, not to the address.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|error| error.to_string())?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authorization: None,
        })
    }
}

impl Address {
    /// The same, with this token in every request; None if it is not the text of a token.
    pub(crate) fn with_token(self, token: &str) -> Option<Self> {
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        is_token.then_some(Self {
            authorization: Some(bearer),
            ..self
        })
    }

    /// Whether its requests have a token.
    pub(crate) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// Whether it is this machine's own, over IPv4: then we may come from any of 127.0.0.0/8.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<Ipv4Addr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Opens a connection of its own, from this address of ours if one is given.
    pub(crate) async fn connect(
        &self,
        from: Option<Ipv4Addr>,
    ) -> Result<Connection, TransportError> {
        Connection::over(self.open(from).await?).await
    }

    /// Opens a connection that is broken off instead of closed when it is dropped, so that its port is free again at
    /// once: the kernel keeps closed ones for a minute, and among thousands of those it takes seconds to find a free
    /// one. What is `slow` is done a byte at a time with this pause; then it is good for one exchange.
    pub(crate) async fn connect_rudely(
        &self,
        from: Ipv4Addr,
        slow: Option<(Slow, Duration)>,
    ) -> Result<Connection, TransportError> {
        let stream = self.open(Some(from)).await?;
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| TransportError::of_connect(&error))?;
        match slow {
            None => Connection::over(stream).await,
            Some((slow, pause)) => Connection::over(dribbled(stream, slow, pause)).await,
        }
    }

    async fn open(&self, from: Option<Ipv4Addr>) -> Result<TcpStream, TransportError> {
        let candidates = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|_| TransportError::UnknownHost)?;
        let mut failure = TransportError::UnknownHost;
        for candidate in candidates {
            if from.is_some() && !candidate.is_ipv4() {
                failure = TransportError::ConnectFailed;
                continue;
            }
            let opened = async {
                let of_connect = |error: io::Error| TransportError::of_connect(&error);
                let socket = prepared(candidate.is_ipv4()).map_err(of_connect)?;
                if let Some(from) = from {
                    let bound = socket.bind((from, 0).into());
                    bound.map_err(|error| TransportError::of_bind(&error))?;
                }
                socket.connect(candidate).await.map_err(of_connect)
            };
            match opened.await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A request to `path_and_query` below the base URL; a body is JSON.
    pub(crate) fn request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
    ) -> Outgoing {
        let is_json = body.is_some();
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path_and_query}", self.prefix)
            .parse()
            .expect("a checked prefix and an encoded path make a URI");
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("odyssey-simulators"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }
}

/// A socket with the options that every visitor's has.
fn prepared(is_ipv4: bool) -> io::Result<TcpSocket> {
    let socket = if is_ipv4 {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}

/// A request as this crate sends it.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// An open connection, one exchange at a time. Dropping it closes the socket at once.
#[derive(Debug)]
pub(crate) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    answer_max_bytes: usize,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, TransportError> {
        let (requests, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| TransportError::of_exchange(&error))?;
        // The driver's own result repeats the error that the exchange returned.
        let driver = tokio::spawn(async { drop(driver.await) });
        Ok(Self {
            requests,
            answer_max_bytes: ANSWER_MAX_BYTES,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// Larger answers, or smaller ones only, are the shop's too.
    pub(crate) fn taking_answers_up_to(mut self, bytes: usize) -> Self {
        self.answer_max_bytes = bytes;
        self
    }

    /// Whether the other side has not closed it, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Sends a request and reads its whole answer, however long that takes.
    pub(crate) async fn exchange(&mut self, request: Outgoing) -> Result<Answer, TransportError> {
        let of_exchange = |error: hyper::Error| TransportError::of_exchange(&error);
        self.requests.ready().await.map_err(of_exchange)?;
        let response = self
            .requests
            .send_request(request)
            .await
            .map_err(of_exchange)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.answer_max_bytes);
        let body = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return TransportError::Malformed;
            }
            let of_body = error.downcast_ref().map(TransportError::of_exchange);
            of_body.unwrap_or(TransportError::Closed)
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// None when there is no such header, or it is not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there was no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransportError {
    UnknownHost,
    NotOurAddress,
    Refused,
    ConnectTimedOut,
    OutOfFiles,
    OutOfPorts,
    ConnectFailed,
    Reset,
    TimedOut,
    Closed,
    Malformed,
}

impl TransportError {
    /// Whether there was never a connection, so that the other side said nothing at all.
    pub(crate) fn is_of_connecting(self) -> bool {
        !matches!(
            self,
            Self::Reset | Self::TimedOut | Self::Closed | Self::Malformed
        )
    }

    fn of_bind(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrNotAvailable => Self::NotOurAddress,
            _ => Self::of_connect(error),
        }
    }

    fn of_connect(error: &io::Error) -> Self {
        let code = error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error);
        if matches!(
            code,
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
        ) {
            return Self::OutOfFiles;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::ConnectTimedOut,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Self::OutOfPorts,
            _ => Self::ConnectFailed,
        }
    }

    fn of_exchange(error: &hyper::Error) -> Self {
        if error.is_parse() {
            return Self::Malformed;
        }
        let cause = error
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Self::Reset,
            Some(io::ErrorKind::TimedOut) => Self::TimedOut,
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "host name not found",
            Self::NotOurAddress => "not an address of this machine to come from",
            Self::Refused => "connection refused",
            Self::ConnectTimedOut => "connecting timed out",
            Self::OutOfFiles => "out of file descriptors here",
            Self::OutOfPorts => "out of local ports here",
            Self::ConnectFailed => "connecting failed",
            Self::Reset => "connection reset",
            Self::TimedOut => "shop vanished while waiting",
            Self::Closed => "connection closed before the answer",
            Self::Malformed => "answer is not the shop's HTTP",
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    #[test]
    fn base_urls_are_read() {
        let address: Address = "http://127.0.0.1:8000".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 8000));
        assert_eq!(address.prefix, "");
        let address: Address = "http://[::1]/shop/".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 80));
        assert_eq!(address.prefix, "/shop");
        let request = address.request(Method::GET, "/start/?wait=1", None);
        assert_eq!(request.uri().path(), "/shop/start/");
        assert_eq!(request.headers()[HOST], "[::1]");
        for text in [
            "",
            "127.0.0.1:8000",
            "https://shop",
            "http://a@b",
            "http://shop/?a=b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_in_every_request_and_in_no_debug_output() {
        let plain: Address = "http://shop:8001".parse().unwrap();
        let request = |address: &Address| address.request(Method::GET, "/start/", None);
        assert!(!request(&plain).headers().contains_key(AUTHORIZATION));
        let locked = plain.clone().with_token("ody_secret").unwrap();
        assert!(locked.has_token() && !plain.has_token());
        let asked = request(&locked);
        assert_eq!(asked.headers()[AUTHORIZATION], "Bearer ody_secret");
        for debug in [format!("{locked:?}"), format!("{asked:?}")] {
            assert!(!debug.contains("secret"), "{debug}");
        }
        for text in ["", "two words", "tab\tbed", "line\nbreak", "é"] {
            assert_eq!(plain.clone().with_token(text), None, "{text:?}");
        }
    }

    /// What a client makes of a server that reads the request and then writes this and closes, or breaks off.
    async fn outcome_of(answer: &[u8], linger: Option<Duration>) -> Result<u16, TransportError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let address: Address = url.parse().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            SockRef::from(&stream).set_linger(linger).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            drop(stream.write_all(answer).await);
        };
        let client = async {
            let mut connection = address.connect(None).await?;
            let request = address.request(Method::GET, "/", None);
            let answer = connection.exchange(request).await?;
            Ok(answer.status.as_u16())
        };
        tokio::join!(client, server).0
    }

    #[tokio::test]
    async fn failures_are_distinguished() {
        let complete = b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(outcome_of(complete, None).await, Ok(503));
        let length = ANSWER_MAX_BYTES + 1;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let large = [head.into_bytes(), vec![b' '; length]].concat();
        let cut_short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
        for (answer, linger, error) in [
            (&b""[..], None, TransportError::Closed),
            (b"", Some(Duration::ZERO), TransportError::Reset),
            (cut_short, None, TransportError::Closed),
            (b"220 mail ready\r\n", None, TransportError::Malformed),
            (&large, None, TransportError::Malformed),
        ] {
            assert_eq!(outcome_of(answer, linger).await, Err(error));
        }
    }

    #[tokio::test]
    async fn no_listener_and_no_address_to_come_from_are_errors_of_connecting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let address: Address = url.parse().unwrap();
        drop(listener);
        let refused = address.connect(None).await.unwrap_err();
        assert_eq!(refused, TransportError::Refused);
        // Reserved for documentation: no machine has it.
        let foreign = Some(Ipv4Addr::new(192, 0, 2, 1));
        let foreign = address.connect(foreign).await.unwrap_err();
        assert_eq!(foreign, TransportError::NotOurAddress);
        assert!(refused.is_of_connecting() && foreign.is_of_connecting());
    }
}
