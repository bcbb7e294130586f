//! Ids of requests: the client's `X-Request-Id` or a new one, and the trace of a `traceparent`.

use axum::http::HeaderValue;
use uuid::Uuid;

/// The longest accepted `X-Request-Id`, in characters.
pub const REQUEST_ID_CHARS_MAX: usize = 128;

/// The client's id if it is acceptable, else a new one.
pub(super) fn request_id(chosen: Option<&HeaderValue>) -> HeaderValue {
    chosen
        .filter(|id| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .map_or_else(new_request_id, |id| {
            // Copied: a slice of the request's header would hold the connection's whole buffer.
            HeaderValue::from_bytes(id.as_bytes()).unwrap_or_else(|_| new_request_id())
        })
}

pub(super) fn new_request_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("hexadecimal digits and hyphens are a header value")
}

/// The trace id of a W3C `traceparent` header (Trace Context, level 1, section 3.2).
pub(super) fn trace_id(header: &HeaderValue) -> Option<&str> {
    let mut fields = header.to_str().ok()?.split('-');
    let (version, trace_id) = (fields.next()?, fields.next()?);
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let sane = version.len() == 2
        && hex(version)
        && version != "ff"
        && trace_id.len() == 32
        && hex(trace_id)
        && trace_id.bytes().any(|digit| digit != b'0');
    sane.then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_request_id_is_taken_over() {
        for (given, kept) in [
            ("abc-123", true),
            ("0191d5c8-7a9b-7000-8000-000000000000", true),
            ("", false),
            ("two words", false),
        ] {
            let chosen = HeaderValue::from_static(given);
            assert_eq!(request_id(Some(&chosen)) == given, kept, "{given:?}");
        }
        let long = HeaderValue::from_str(&"x".repeat(129)).unwrap();
        assert_ne!(request_id(Some(&long)), long);
        assert_ne!(request_id(None), request_id(None));
    }

    #[test]
    fn the_trace_id_is_read_from_a_valid_traceparent_only() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (header, found) in [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (format!("ff-{id}-00f067aa0ba902b7-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (
                format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
                None,
            ),
            ("00-short-00f067aa0ba902b7-01".to_owned(), None),
            ("nonsense".to_owned(), None),
        ] {
            let header = HeaderValue::from_str(&header).unwrap();
            assert_eq!(trace_id(&header), found, "{header:?}");
        }
    }
}
