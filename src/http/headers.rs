//! One pass over a request's headers for all that is checked before routing. A lookup of each would cost a hash each,
//! though most clients send none of them, except `Host`.

use axum::http::{HeaderMap, HeaderValue};

/// The first value of each header.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) second_host: Option<&'a HeaderValue>,
    pub(super) accept: Option<&'a HeaderValue>,
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) second_authorization: Option<&'a HeaderValue>,
    /// The first of possibly several.
    pub(super) cookie: Option<&'a HeaderValue>,
    pub(super) accept_language: Option<&'a HeaderValue>,
    pub(super) user_agent: Option<&'a HeaderValue>,
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) origin: Option<&'a HeaderValue>,
    pub(super) fetch_site: Option<&'a HeaderValue>,
    pub(super) fetch_mode: Option<&'a HeaderValue>,
    pub(super) fetch_dest: Option<&'a HeaderValue>,
    /// `Sec-Purpose`, or `Purpose`, which browsers sent before.
    pub(super) purposes: [Option<&'a HeaderValue>; 2],
    pub(super) forwarded_for: Option<&'a HeaderValue>,
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
                "authorization" if scan.authorization.is_some() => &mut scan.second_authorization,
                "authorization" => &mut scan.authorization,
                "cookie" => &mut scan.cookie,
                "accept-language" => &mut scan.accept_language,
                "access-control-request-method" => &mut scan.requested_method,
                "user-agent" => &mut scan.user_agent,
                "x-forwarded-for" => &mut scan.forwarded_for,
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
}
