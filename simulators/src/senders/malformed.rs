//! Requests that the server must not take, each wrong in one way.

use hyper::Method;
use serde_json::{Value, json};

use self::{
    Of::{Package as P, Update as U},
    Spoil::{BrokenOff, CalledText, Instead, With, Without},
};
use crate::packages::{Malformed, Package, Update};

/// Longer than any id may be, by one character.
const TOO_LONG: usize = 129;
/// Stands for a text of that length.
const LONG: &str = "too long";

/// What a malformed request would have been.
#[derive(Debug, Clone, Copy)]
enum Of {
    Package,
    Update,
}

/// What is done to a proper request.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    Without(&'static str),
    /// Replaces a field's value by this JSON.
    With(&'static str, &'static str),
    /// Sends something else altogether.
    Instead(&'static str),
    /// Breaks the JSON off in the middle.
    BrokenOff,
    /// Says that it is something else than JSON.
    CalledText,
}

/// Every way to be wrong.
const KINDS: [(Of, Spoil); 38] = [
    (P, Without("timestamp")),
    (P, Without("sender_id")),
    (P, Without("recipient_id")),
    (P, Without("package_id")),
    (P, Without("package_type")),
    (P, With("sender_id", r#""""#)),
    (P, With("recipient_id", r#""""#)),
    (P, With("package_id", r#""""#)),
    (P, With("sender_id", LONG)),
    (P, With("recipient_id", LONG)),
    (P, With("package_id", LONG)),
    (P, With("sender_id", "true")),
    (P, With("recipient_id", "[]")),
    (P, With("package_id", "null")),
    (P, With("package_type", r#""fragile""#)),
    (P, With("package_type", r#""""#)),
    (P, With("package_type", "1")),
    (P, With("timestamp", r#""yesterday""#)),
    (P, With("timestamp", r#""2026-02-30T12:00:00Z""#)),
    (P, With("timestamp", "true")),
    (P, BrokenOff),
    (P, Instead("")),
    (P, Instead("[]")),
    (P, Instead("null")),
    (P, CalledText),
    (U, Without("timestamp")),
    (U, Without("recipient_id")),
    (U, Without("personal_preference")),
    (U, Without("marketing_preference")),
    (U, With("recipient_id", r#""""#)),
    (U, With("recipient_id", LONG)),
    (U, With("personal_preference", r#""no""#)),
    (U, With("marketing_preference", "0")),
    (U, With("marketing_preference", "null")),
    (U, With("timestamp", r#""soon""#)),
    (U, BrokenOff),
    (U, Instead("\"no\"")),
    (U, CalledText),
];

/// How many ways there are to be wrong.
pub(super) const WAYS: usize = KINDS.len();

/// One of the [`WAYS`] to spoil a package or a preference; neither of them may have been sent before.
pub(super) fn spoiled(way: usize, package: &Package, update: &Update) -> Malformed {
    let (of, spoil) = KINDS[way];
    let (what, method, path, proper) = match of {
        P => ("package", Method::POST, "/packages", package.json()),
        U => ("preference", Method::PUT, "/preferences", update.json()),
    };
    let content_type = match spoil {
        CalledText => "text/plain",
        _ => "application/json",
    };
    let (how, body) = spoil.applied_to(proper);
    Malformed {
        name: format!("{what} {how}"),
        method,
        path,
        content_type,
        body,
    }
}

impl Spoil {
    /// What is wrong, and the body that is.
    fn applied_to(self, mut proper: Value) -> (String, String) {
        match self {
            Without(field) => {
                if let Some(fields) = proper.as_object_mut() {
                    fields.remove(field);
                }
                (format!("without {field}"), proper.to_string())
            }
            With(field, LONG) => {
                proper[field] = json!("x".repeat(TOO_LONG));
                let how = format!("with {field} of {TOO_LONG} characters");
                (how, proper.to_string())
            }
            With(field, wrong) => {
                proper[field] = serde_json::from_str(wrong).unwrap_or_default();
                let name = if wrong == "\"\"" { "empty" } else { wrong };
                (format!("with {field} {name}"), proper.to_string())
            }
            Instead("") => ("without a body".to_owned(), String::new()),
            Instead(body) => (format!("that is {body}"), body.to_owned()),
            BrokenOff => {
                let mut body = proper.to_string();
                body.truncate(body.len() / 2);
                ("broken off".to_owned(), body)
            }
            CalledText => ("called text".to_owned(), proper.to_string()),
        }
    }
}
