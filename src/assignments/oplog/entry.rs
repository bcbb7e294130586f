use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::super::model::{DriverId, PackageId, Status};

/// A change of a package with a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: Timestamp,
    pub request_id: Arc<str>,
    pub kind: Kind,
    pub driver: DriverId,
    pub package: PackageId,
    /// The status before, if it had one.
    pub from: Option<Status>,
    /// The status after, if it has one.
    pub to: Option<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The package was assigned to the driver.
    Assign,
    /// It was removed from the driver, so that it can be planned again.
    GiveUp,
    /// Its status was updated.
    Update,
}

impl Kind {
    /// The log's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::GiveUp => "give_up",
            Self::Update => "update",
        }
    }
}

/// The JSON of an entry.
#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    request_id: &'a str,
    kind: &'a str,
    driver_id: &'a str,
    package_id: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

impl Entry {
    /// Appends the entry as a line of JSON.
    pub(super) fn write_line(&self, lines: &mut Vec<u8>) {
        let line = Line {
            at: self.at,
            request_id: &self.request_id,
            kind: self.kind.as_str(),
            driver_id: self.driver.as_str(),
            package_id: self.package.as_str(),
            from: self.from.map(Status::as_str),
            to: self.to.map(Status::as_str),
        };
        let begin = lines.len();
        match serde_json::to_writer(&mut *lines, &line) {
            Ok(()) => lines.push(b'\n'),
            // Cannot fail: strings and a time, in memory. Never leaves half a line.
            Err(_) => lines.truncate(begin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_of_json_with_every_field() {
        let mut entry = Entry {
            at: "2142-11-21T23:59:59.000001Z".parse().unwrap(),
            request_id: "a \"quoted\" one".into(),
            kind: Kind::Assign,
            driver: DriverId::parse("Zoë").unwrap(),
            package: PackageId::parse("package_1").unwrap(),
            from: None,
            to: Some(Status::InProgress),
        };
        let mut lines = Vec::new();
        entry.write_line(&mut lines);
        entry.kind = Kind::GiveUp;
        (entry.from, entry.to) = (Some(Status::Assigned), None);
        entry.write_line(&mut lines);
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            concat!(
                r#"{"at":"2142-11-21T23:59:59.000001Z","request_id":"a \"quoted\" one","kind":"assign","driver_id":"Zoë","package_id":"package_1","from":null,"to":"in_progress"}"#,
                "\n",
                r#"{"at":"2142-11-21T23:59:59.000001Z","request_id":"a \"quoted\" one","kind":"give_up","driver_id":"Zoë","package_id":"package_1","from":"assigned","to":null}"#,
                "\n",
            )
        );
        assert_eq!(Kind::Update.as_str(), "update");
    }
}
