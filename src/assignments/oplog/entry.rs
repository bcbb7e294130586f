use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::super::model::{DriverId, PackageId, Status};

/// What caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub request_id: Arc<str>,
    /// The name of who sent the request, if that had to be proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
}

/// A request of an unknown sender.
impl From<&str> for Cause {
    fn from(request_id: &str) -> Self {
        Self {
            request_id: request_id.into(),
            identity: None,
        }
    }
}

/// A change of a package with a driver; serialized, a line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub at: Timestamp,
    #[serde(flatten)]
    pub cause: Cause,
    pub kind: Kind,
    #[serde(rename = "driver_id")]
    pub driver: DriverId,
    #[serde(rename = "package_id")]
    pub package: PackageId,
    /// The status before, if it had one.
    pub from: Option<Status>,
    /// The status after, if it has one.
    pub to: Option<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The package was assigned to the driver.
    Assign,
    /// It was removed from the driver, so that it can be planned again.
    GiveUp,
    /// Its status was updated.
    Update,
}

impl Entry {
    pub(super) fn line(&self) -> Vec<u8> {
        // Strings and a time, in memory: cannot fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
