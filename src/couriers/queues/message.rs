//! Message bodies, and texts about unparseable ones. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::values::json::{self, Mistake};

const REASON_CHARS_MAX: usize = 1000;

/// Parses the body of a message with `read`: its JSON, or the JSON in an SNS envelope.
///
/// # Errors
/// Why it is unparseable: a text that SQS accepts as an attribute.
pub(super) fn parse<T>(
    body: &str,
    read: impl FnOnce(&Value) -> Result<T, Vec<Mistake>>,
) -> Result<T, String> {
    let value = json::read(body.as_bytes()).map_err(|unread| allowed(&unread.to_string()))?;
    let value = match enveloped(&value) {
        None => value,
        Some(message) => json::read(message.as_bytes())
            .map_err(|unread| allowed(&format!("In the envelope: {unread}")))?,
    };
    read(&value).map_err(|mistakes| reason(&mistakes))
}

/// The message in an SNS envelope.
fn enveloped(value: &Value) -> Option<&str> {
    let kind = value.get("Type")?.as_str()?;
    let message = value.get("Message")?.as_str()?;
    (kind == "Notification").then_some(message)
}

fn reason(mistakes: &[Mistake]) -> String {
    let text = json::joined(mistakes);
    if text.is_empty() {
        return "It makes no sense.".to_owned();
    }
    allowed(&text)
}

/// A text that SQS accepts: truncated, and with XML characters only.
pub(super) fn allowed(text: &str) -> String {
    let known = |c: char| if is_xml(c) { c } else { '\u{FFFD}' };
    text.chars().take(REASON_CHARS_MAX).map(known).collect()
}

/// JSON that SNS and SQS accept: characters outside XML are escaped, which only occur in strings.
pub(super) fn sendable(json: String) -> String {
    if json.chars().all(is_xml) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_xml(c) {
            text.push(c);
        } else {
            // The rest are single UTF-16 units. Writing to a string does not fail.
            let _ = write!(text, "\\u{:04X}", u32::from(c));
        }
    }
    text
}

/// Whether XML 1.0 permits this character: the services accept no others.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::model::Event;
    use super::super::super::reading::{assignment, event};
    use super::*;

    const ID: &str = "a97261aa-2907-498e-aa24-3bce25590a46";

    fn courier() -> Value {
        json!({"courierId": ID, "name": "Ada", "zone": "S", "isAvailable": true})
    }

    #[test]
    fn a_message_is_understood_raw_and_in_an_envelope() {
        let raw = courier().to_string();
        let envelope =
            json!({"Type": "Notification", "MessageId": "1", "Message": raw}).to_string();
        let understood = parse(&raw, event).unwrap();
        assert!(matches!(understood, Event::Courier(_)));
        assert_eq!(parse(&envelope, event).unwrap(), understood);
        assert_eq!(parse(&format!(" {raw}\n"), event).unwrap(), understood);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let body_text = json!({"orderId": ID, "courierId": 7}).to_string();
        let envelope =
            |message: &Value| json!({"Type": "Notification", "Message": message}).to_string();
        for (body, begins) in [
            (String::new(), "It is not JSON: "),
            ("hello".to_owned(), "It is not JSON: see line 1, column 1."),
            (
                "{\"orderId\": 1, \"orderId\": 2}".to_owned(),
                "/orderId: This field is duplicated.",
            ),
            ("[]".to_owned(), "It must be an object."),
            ("{}".to_owned(), "It is no event: "),
            (
                json!({"courierId": "x", "zone": "Q"}).to_string(),
                "/courierId: It must be a UUID. /name: This field",
            ),
            (
                envelope(&json!("hello")),
                "In the envelope: It is not JSON: ",
            ),
            (envelope(&json!("{}")), "It is no event: "),
            (envelope(&json!({})), "It is no event: "),
            (
                json!({"Type": "SubscriptionConfirmation", "Message": "{}"}).to_string(),
                "It is no event: ",
            ),
        ] {
            let reason = parse(&body, event).unwrap_err();
            assert!(reason.starts_with(begins), "{body}: {reason}");
        }
        let reason = parse(&body_text, assignment).unwrap_err();
        assert_eq!(reason, "/courierId: It must be a UUID.");
    }

    #[test]
    fn what_xml_does_not_know_is_escaped_and_read_as_it_was() {
        let details = "\u{0}\u{1F}\u{7F}\u{FFFD}\u{FFFE}\u{FFFF}\u{10000}\u{1FFFE}é\\日😀";
        let written = json!({ "details": details, "\u{FFFF}": 1 }).to_string();
        let sent = sendable(written.clone());
        assert!(sent.chars().all(is_xml), "{sent}");
        assert!(sent.contains("\u{10000}"), "{sent}");
        assert_eq!(
            serde_json::from_str::<Value>(&sent).unwrap(),
            serde_json::from_str::<Value>(&written).unwrap()
        );
        let harmless = courier().to_string();
        assert_eq!(sendable(harmless.clone()), harmless);
    }

    #[test]
    fn a_reason_is_short_and_of_characters_that_may_be_sent() {
        let long = vec![
            Mistake {
                pointer: "/\u{0}\u{1F}\u{FFFF}é日😀".to_owned(),
                detail: "x".repeat(400),
            };
            5
        ];
        let reason = reason(&long);
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX);
        assert!(
            reason.starts_with("/\u{FFFD}\u{FFFD}\u{FFFD}é日😀: xx"),
            "{reason}"
        );
        assert!(!super::reason(&[]).is_empty());
    }
}
