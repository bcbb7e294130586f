//! Requests that the server must not take, each wrong in one way.

use hyper::Method;
use serde_json::{Value, json};

use crate::packages::{Malformed, Package, Update};

/// Longer than any id may be, by one character.
const TOO_LONG: usize = 129;

/// What a malformed request would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Package,
    Update,
}

/// What is done to a proper request.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    /// Leaves a field out.
    Without(&'static str),
    /// Puts something wrong in a field's place.
    With(&'static str, Wrong),
    /// Sends something else altogether.
    Instead(&'static str),
    /// Breaks the JSON off in the middle.
    BrokenOff,
    /// Says that it is something else than JSON.
    CalledText,
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    Text(&'static str),
    Number(u32),
    Yes,
    Null,
    List,
    TooLong,
}

impl Wrong {
    fn json(self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Yes => json!(true),
            Self::Null => Value::Null,
            Self::List => json!([]),
            Self::TooLong => json!("x".repeat(TOO_LONG)),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Text("") => "empty".to_owned(),
            Self::TooLong => format!("of {TOO_LONG} characters"),
            other => other.json().to_string(),
        }
    }
}

/// Every way to be wrong.
const KINDS: [(Of, Spoil); 38] = [
    (Of::Package, Spoil::Without("timestamp")),
    (Of::Package, Spoil::Without("sender_id")),
    (Of::Package, Spoil::Without("recipient_id")),
    (Of::Package, Spoil::Without("package_id")),
    (Of::Package, Spoil::Without("package_type")),
    (Of::Package, Spoil::With("sender_id", Wrong::Text(""))),
    (Of::Package, Spoil::With("recipient_id", Wrong::Text(""))),
    (Of::Package, Spoil::With("package_id", Wrong::Text(""))),
    (Of::Package, Spoil::With("sender_id", Wrong::TooLong)),
    (Of::Package, Spoil::With("recipient_id", Wrong::TooLong)),
    (Of::Package, Spoil::With("package_id", Wrong::TooLong)),
    (Of::Package, Spoil::With("sender_id", Wrong::Yes)),
    (Of::Package, Spoil::With("recipient_id", Wrong::List)),
    (Of::Package, Spoil::With("package_id", Wrong::Null)),
    (
        Of::Package,
        Spoil::With("package_type", Wrong::Text("fragile")),
    ),
    (Of::Package, Spoil::With("package_type", Wrong::Text(""))),
    (Of::Package, Spoil::With("package_type", Wrong::Number(1))),
    (
        Of::Package,
        Spoil::With("timestamp", Wrong::Text("yesterday")),
    ),
    (
        Of::Package,
        Spoil::With("timestamp", Wrong::Text("2026-02-30T12:00:00Z")),
    ),
    (Of::Package, Spoil::With("timestamp", Wrong::Yes)),
    (Of::Package, Spoil::BrokenOff),
    (Of::Package, Spoil::Instead("")),
    (Of::Package, Spoil::Instead("[]")),
    (Of::Package, Spoil::Instead("null")),
    (Of::Package, Spoil::CalledText),
    (Of::Update, Spoil::Without("timestamp")),
    (Of::Update, Spoil::Without("recipient_id")),
    (Of::Update, Spoil::Without("personal_preference")),
    (Of::Update, Spoil::Without("marketing_preference")),
    (Of::Update, Spoil::With("recipient_id", Wrong::Text(""))),
    (Of::Update, Spoil::With("recipient_id", Wrong::TooLong)),
    (
        Of::Update,
        Spoil::With("personal_preference", Wrong::Text("no")),
    ),
    (
        Of::Update,
        Spoil::With("marketing_preference", Wrong::Number(0)),
    ),
    (Of::Update, Spoil::With("marketing_preference", Wrong::Null)),
    (Of::Update, Spoil::With("timestamp", Wrong::Text("soon"))),
    (Of::Update, Spoil::BrokenOff),
    (Of::Update, Spoil::Instead("\"no\"")),
    (Of::Update, Spoil::CalledText),
];

/// How many ways there are to be wrong.
pub(crate) const WAYS: usize = KINDS.len();

/// One of the [`WAYS`] to spoil a package or a preference; neither of them may have been sent before.
pub(crate) fn spoiled(way: usize, package: &Package, update: &Update) -> Malformed {
    let (of, spoil) = KINDS[way];
    let (what, method, path, proper) = match of {
        Of::Package => ("package", Method::POST, "/packages", package.json()),
        Of::Update => ("preference", Method::PUT, "/preferences", update.json()),
    };
    let content_type = match spoil {
        Spoil::CalledText => "text/plain",
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
            Self::Without(field) => {
                if let Some(fields) = proper.as_object_mut() {
                    fields.remove(field);
                }
                (format!("without {field}"), proper.to_string())
            }
            Self::With(field, wrong) => {
                proper[field] = wrong.json();
                (format!("with {field} {}", wrong.name()), proper.to_string())
            }
            Self::Instead("") => ("without a body".to_owned(), String::new()),
            Self::Instead(body) => (format!("that is {body}"), body.to_owned()),
            Self::BrokenOff => {
                let mut body = proper.to_string();
                body.truncate(body.len() / 2);
                ("broken off".to_owned(), body)
            }
            Self::CalledText => ("called text".to_owned(), proper.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        packages::{PackageType, tests::package},
        senders::preference::tests::update,
    };

    #[test]
    fn every_way_is_wrong_under_a_name_of_its_own() {
        let (package, update) = (package(PackageType::Personal), update(1, true, true));
        let mut names = BTreeSet::new();
        for way in 0..WAYS {
            let malformed = spoiled(way, &package, &update);
            let proper = [package.json().to_string(), update.json().to_string()];
            let is_proper = proper.contains(&malformed.body);
            assert_eq!(is_proper, malformed.content_type != "application/json");
            names.insert(malformed.name);
        }
        assert_eq!(names.len(), WAYS);
        assert!(names.contains("package with sender_id of 129 characters"));
        assert!(names.contains("preference without timestamp"));
    }

    #[test]
    fn broken_json_is_none() {
        let (package, update) = (package(PackageType::Personal), update(1, true, true));
        let broken = (0..WAYS).map(|way| spoiled(way, &package, &update));
        let broken: Vec<_> = broken
            .filter(|malformed| malformed.name.ends_with("broken off"))
            .collect();
        assert_eq!(broken.len(), 2);
        for malformed in broken {
            assert!(serde_json::from_str::<Value>(&malformed.body).is_err());
        }
    }
}
