//! One pass over a request's headers for all that is checked before routing. A lookup of each would cost a hash each,
//! though most clients send none of them, except `Host`.

use axum::http::{HeaderMap, HeaderValue, Version};

use super::problem::Problem;

/// The first value of each header.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) second_host: Option<&'a HeaderValue>,
    pub(super) accept: Option<&'a HeaderValue>,
    pub(super) accept_language: Option<&'a HeaderValue>,
    pub(super) user_agent: Option<&'a HeaderValue>,
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) origin: Option<&'a HeaderValue>,
    pub(super) fetch_site: Option<&'a HeaderValue>,
    pub(super) fetch_mode: Option<&'a HeaderValue>,
    pub(super) fetch_dest: Option<&'a HeaderValue>,
    /// `Sec-Purpose`, or `Purpose`, which browsers sent before.
    pub(super) purposes: [Option<&'a HeaderValue>; 2],
    /// `Access-Control-Request-Method`: a preflight's.
    pub(super) requested_method: Option<&'a HeaderValue>,
}

impl<'a> Scan<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut scan = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "host" if scan.host.is_some() => &mut scan.second_host,
                "host" => &mut scan.host,
                "accept" => &mut scan.accept,
                "accept-language" => &mut scan.accept_language,
                "access-control-request-method" => &mut scan.requested_method,
                "user-agent" => &mut scan.user_agent,
                "x-request-id" => &mut scan.request_id,
                "origin" => &mut scan.origin,
                "sec-fetch-site" => &mut scan.fetch_site,
                "sec-fetch-mode" => &mut scan.fetch_mode,
                "sec-fetch-dest" => &mut scan.fetch_dest,
                "sec-purpose" => &mut scan.purposes[0],
                "purpose" => &mut scan.purposes[1],
                _ => continue,
            };
            place.get_or_insert(value);
        }
        scan
    }

    /// RFC 9112, section 3.2: none or two hosts may mean different servers to different readers.
    ///
    /// # Errors
    /// 400.
    pub(super) fn names_one_host(&self, version: Version) -> Result<(), Problem> {
        let detail = match self.host {
            None if version == Version::HTTP_11 => "There is no Host header.",
            _ if self.second_host.is_some() => "There is more than one Host header.",
            Some(host) if !is_authority(host.as_bytes()) => {
                "The Host header is not a host with an optional port."
            }
            None | Some(_) => return Ok(()),
        };
        Err(Problem::unreadable(detail))
    }
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
    use axum::http::header;

    use super::*;

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
            let named = Scan::of(&headers).names_one_host(version);
            assert_eq!(named.is_ok(), fits, "{version:?} {hosts:?}");
        }
    }
}
