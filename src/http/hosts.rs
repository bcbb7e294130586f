//! The `Host` header: a listener answers for its own hosts only, so that a web page cannot reach it under a name of its own
//! (DNS rebinding). See `docs/adr` for the choices.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use axum::http::{HeaderValue, Request, StatusCode, Uri, Version};

use super::headers::Scan;
use super::problem::Problem;

/// A listener's hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    listener: &'static str,
    known: Box<[Host]>,
    /// Cache of the first accepted host: nearly all requests have it.
    usual: OnceLock<Box<str>>,
}

/// A pattern for the name in a `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// `*`
    Any,
    /// `ip`: an address, which DNS rebinding cannot fake.
    Address,
    /// `*.example.org`: the part from the dot on.
    Below(Box<str>),
    /// `example.org`
    Name(Box<str>),
}

impl Hosts {
    /// Of names, `*.` and a name, `ip`, or `*`.
    pub(super) fn new(listener: &'static str, hosts: &[String]) -> Self {
        let host = |text: &String| match text.to_ascii_lowercase() {
            any if any == "*" => Host::Any,
            address if address == "ip" => Host::Address,
            name => match name.strip_prefix('*') {
                Some(below) => Host::Below(below.into()),
                None => Host::Name(name.into()),
            },
        };
        Self {
            listener,
            usual: OnceLock::new(),
            // An empty variable is an empty list.
            known: hosts
                .iter()
                .filter(|text| !text.is_empty())
                .map(host)
                .collect(),
        }
    }

    /// The host and port that a request is for.
    ///
    /// # Errors
    /// 400 for no host or several, 421 for another one.
    pub(super) fn check<'a, B>(
        &self,
        request: &'a Request<B>,
        scan: &Scan<'a>,
    ) -> Result<Option<&'a str>, Problem> {
        let host = authority(request.uri(), scan);
        if !self.is_usual(request.uri(), scan) {
            names_one_host(scan, request.version())?;
            if let Some(host) = host {
                if !self.known.iter().any(|known| known.is(name(host))) {
                    return Err(self.misdirected(host));
                }
                let _ = self.usual.set(host.into());
            }
        }
        Ok(host)
    }

    fn is_usual(&self, uri: &Uri, scan: &Scan<'_>) -> bool {
        let usual = self.usual.get().map(|usual| usual.as_bytes());
        usual == scan.host.map(HeaderValue::as_bytes)
            && usual.is_some()
            && scan.second_host.is_none()
            && uri.authority().is_none()
    }

    fn misdirected(&self, host: &str) -> Problem {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "Not a host of this listener",
            format!(
                "This listener does not answer for the host {host:?}; add it to `{}.hosts` if it should.",
                self.listener
            ),
        )
    }
}

impl Host {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Address => is_address(name),
            Self::Name(known) => name.eq_ignore_ascii_case(known),
            Self::Below(suffix) => name
                .len()
                .checked_sub(suffix.len())
                .filter(|&below| below > 0)
                .and_then(|below| name.get(below..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        }
    }
}

fn is_address(name: &str) -> bool {
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match in_brackets {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Host and port that a request is for: of its target where that is absolute, as in HTTP/2, else of `Host` (RFC 9112,
/// section 3.2.2).
fn authority<'a>(uri: &'a Uri, scan: &Scan<'a>) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => scan.host.map(|host| host.to_str().unwrap_or_default()),
    }
}

/// The name without port and trailing dot.
fn name(authority: &str) -> &str {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// RFC 9112, section 3.2: none or two hosts may mean different servers to different readers.
///
/// # Errors
/// 400.
fn names_one_host(scan: &Scan<'_>, version: Version) -> Result<(), Problem> {
    let detail = match scan.host {
        None if version == Version::HTTP_11 => "There is no Host header.",
        _ if scan.second_host.is_some() => "There is more than one Host header.",
        Some(host) if !is_authority(host.as_bytes()) => {
            "The Host header is not a host with an optional port."
        }
        None | Some(_) => return Ok(()),
    };
    Err(Problem::unreadable(detail))
}

/// Bytes allowed in a host with a port.
const IN_AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = true;
        byte += 1;
    }
    let others = b"/?#@\\\"<>^`{|},";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = false;
        at += 1;
    }
    table
};

fn is_authority(host: &[u8]) -> bool {
    host.iter().all(|&byte| IN_AUTHORITY[usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, header};
    use axum::response::IntoResponse;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        // Of which a host need not be named.
        let mut request = Request::builder().version(Version::HTTP_10).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn status(hosts: &Hosts, request: &Request<()>) -> u16 {
        match hosts.check(request, &Scan::of(request.headers())) {
            Ok(_) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn a_listener_answers_for_its_own_hosts_only() {
        let usual = strings(&["localhost", "*.localhost", "ip"]);
        let named = strings(&["Staff.example", "*.shop.example"]);
        for (hosts, host, served) in [
            (&usual, "localhost", true),
            (&usual, "LOCALHOST:8001", true),
            (&usual, "localhost.", true),
            (&usual, "bar.localhost:8001", true),
            (&usual, "127.0.0.1:8001", true),
            (&usual, "192.168.0.7", true),
            (&usual, "[::1]:8001", true),
            (&usual, "[fe80::1]", true),
            (&usual, "evil.example", false),
            (&usual, "localhost.evil.example", false),
            (&usual, "notlocalhost", false),
            (&usual, ".localhost", false),
            (&usual, "127.0.0.1.evil.example", false),
            (&usual, "", false),
            (&named, "staff.example:443", true),
            (&named, "a.shop.example", true),
            (&named, "shop.example", false),
            (&named, "127.0.0.1", false),
            (&strings(&["*"]), "anything.example:1", true),
        ] {
            let ours = Hosts::new("staff", hosts);
            let answer = status(&ours, &request("/", &[("host", host)]));
            assert_eq!(answer, if served { 200 } else { 421 }, "{hosts:?} {host:?}");
        }
        let ours = Hosts::new("staff", &usual);
        // HTTP/1.0 without a host, and the target before the header.
        assert_eq!(status(&ours, &request("/", &[])), 200);
        let absolute = request("http://evil.example/", &[("host", "localhost")]);
        assert_eq!(status(&ours, &absolute), 421);
        let usual = request("/", &[("host", "localhost")]);
        assert_eq!(status(&ours, &usual), 200);
        assert_eq!(status(&ours, &absolute), 421);
        let other = request("/", &[("host", "evil.example")]);
        assert_eq!(status(&ours, &other), 421);
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(&ours, &request("/", &both)), 400);
    }

    #[test]
    fn over_http_1_1_exactly_one_host_is_named() {
        for (version, hosts, fits) in [
            (Version::HTTP_11, &["shop"][..], true),
            (Version::HTTP_11, &["[::1]:8000"], true),
            (Version::HTTP_11, &["127.0.0.1:8000"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["shop", "shop"], false),
            (Version::HTTP_11, &["shop, shop"], false),
            (Version::HTTP_11, &["user@shop"], false),
            (Version::HTTP_11, &["shop/path"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["shop", "shop"], false),
            (Version::HTTP_2, &[], true),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            let named = names_one_host(&Scan::of(&headers), version);
            assert_eq!(named.is_ok(), fits, "{version:?} {hosts:?}");
        }
    }
}
