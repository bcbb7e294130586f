//! Files: constant while the process runs, compressed once, shared by all requests.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::caching::is_known;

#[derive(Debug)]
pub struct File {
    content_type: HeaderValue,
    plain: Variant,
    /// None where compression does not pay.
    gzip: Option<Variant>,
}

#[derive(Debug)]
struct Variant {
    bytes: Bytes,
    /// A header value: letters, digits and a hyphen between quotation marks.
    etag: Box<str>,
}

impl File {
    /// Compression takes 50 ms per megabyte.
    pub fn new(content_type: HeaderValue, bytes: Bytes) -> Self {
        let version = version(&bytes);
        let gzip = compress(&bytes).map(|bytes| Variant {
            bytes,
            etag: format!("\"{version}-gzip\"").into(),
        });
        Self {
            content_type,
            plain: Variant {
                bytes,
                etag: format!("\"{version}\"").into(),
            },
            gzip,
        }
    }

    /// 200, or 304 if the client has it. `is_versioned`: the content of its URL never changes.
    pub fn answer(&self, request: &HeaderMap, is_versioned: bool) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let variant = gzip.unwrap_or(&self.plain);
        let mut response = if is_known(request, &variant.etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let content_type = [(header::CONTENT_TYPE, self.content_type.clone())];
            let mut response = (content_type, variant.bytes.clone()).into_response();
            if gzip.is_some() {
                let gzip = HeaderValue::from_static("gzip");
                response
                    .headers_mut()
                    .insert(header::CONTENT_ENCODING, gzip);
            }
            response
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&variant.etag) {
            headers.insert(header::ETAG, etag);
        }
        if self.gzip.is_some() {
            let by_encoding = HeaderValue::from_static("accept-encoding");
            headers.insert(header::VARY, by_encoding);
        }
        let caching = HeaderValue::from_static(if is_versioned {
            "public, max-age=31536000, immutable"
        } else {
            // Cached, and revalidated each time.
            "no-cache"
        });
        headers.insert(header::CACHE_CONTROL, caching);
        response
    }
}

/// A file's version: 16 hexadecimal digits.
pub fn version(bytes: &[u8]) -> String {
    let mut digest = DefaultHasher::new();
    digest.write(bytes);
    format!("{:016x}", digest.finish())
}

/// The bytes compressed, if that saves a tenth of them.
fn compress(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).ok()?;
    let compressed = encoder.finish().ok()?;
    (compressed.len() < bytes.len() - bytes.len() / 10).then(|| compressed.into())
}

/// Whether `Accept-Encoding` has gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &HeaderMap) -> bool {
    let fields = request.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(|coding| coding.split_once(';').unwrap_or((coding, "")));
    codings.any(|(coding, weight)| {
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        coding.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|q| q > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(header::HeaderName, &str)]) -> HeaderMap {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_file_is_sent_compressed_to_those_who_take_it_so() {
        let text = HeaderValue::from_static("text/plain");
        let file = File::new(text, "coffee ".repeat(100).into());
        for (accepted, is_compressed) in [
            ("", false),
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br, identity", false),
        ] {
            let request = request(&[(header::ACCEPT_ENCODING, accepted)]);
            let answer = file.answer(&request, false);
            let encoding = answer.headers().get(header::CONTENT_ENCODING);
            assert_eq!(encoding.is_some(), is_compressed, "{accepted}");
            assert_eq!(answer.headers()[header::VARY], "accept-encoding");
        }
        let text = HeaderValue::from_static("text/plain");
        assert!(File::new(text, "short".into()).gzip.is_none());
    }

    #[test]
    fn a_client_that_has_the_file_is_not_sent_it_again() {
        let text = HeaderValue::from_static("text/plain");
        let file = File::new(text, "coffee ".repeat(100).into());
        for coding in ["identity", "gzip"] {
            let accepted = (header::ACCEPT_ENCODING, coding);
            let first = file.answer(&request(std::slice::from_ref(&accepted)), true);
            let caching = first.headers()[header::CACHE_CONTROL].to_str().unwrap();
            assert!(caching.contains("immutable"), "{caching}");
            let etag = first.headers()[header::ETAG].to_str().unwrap();
            let again = request(&[accepted, (header::IF_NONE_MATCH, etag)]);
            assert_eq!(file.answer(&again, false).status(), 304, "{coding}");
        }
    }
}
