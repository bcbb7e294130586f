//! Maps errors to problems.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::civil::Date;

use super::super::error::{AssignError, Crowded, Refusal, UpdateError};
use super::super::model::DriverId;
use crate::http::Problem;
use crate::http::problem::FieldError;
use crate::http::responses::problems;

/// A large day is planned within some seconds.
const CROWDED_RETRY: Duration = Duration::from_secs(2);

problems! {
    impl AssignError {
        409: "There is no manifest for the day",
        422: "A field is missing or not acceptable, or a driver is not in the day's list",
        503: "Too many plan at once, or the storage is busy or down. Assignments up to the failure stay; a repeated request \
              completes them",
    }

    impl UpdateError {
        404: "The driver does not have the package",
        409: "The status is final (`assignments.strict`)",
        503: "The storage is busy or down",
    }
}

/// `listed`: the drivers in the order of the request.
pub(super) fn of_assign(error: AssignError, listed: &[DriverId]) -> Problem {
    match error {
        AssignError::NoManifest(date) => Problem::new(
            StatusCode::CONFLICT,
            "manifest-missing",
            "The day has no lists",
            format!("There is no manifest for {date}; PUT /manifest first."),
        )
        .with("date", date.to_string()),
        AssignError::UnknownDrivers(unknown) => unknown_drivers(&unknown, listed),
        AssignError::Crowded(Crowded) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "planning-busy",
            "Too many plans at once",
            "The maximum of running and waiting plans is reached. Try again in a moment.",
        )
        .retry_after(CROWDED_RETRY),
        AssignError::Unavailable(unavailable) => unavailable.into(),
    }
}

fn unknown_drivers(unknown: &[DriverId], listed: &[DriverId]) -> Problem {
    let place = |driver: &DriverId| listed.iter().position(|listed| listed == driver);
    let error = |driver: &DriverId| FieldError {
        pointer: place(driver).map(|place| format!("/driver_ids/{place}")),
        parameter: None,
        detail: format!("The driver {:?} is not in the day's list.", driver.as_str()),
    };
    Problem::invalid(unknown.iter().map(error).collect())
}

pub(super) fn no_manifest(date: Date) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "manifest-unknown",
        "No such manifest",
        format!("There is no manifest for {date}."),
    )
}

impl From<UpdateError> for Problem {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Refused(Refusal::NoSuchAssignment) => Self::new(
                StatusCode::NOT_FOUND,
                "assignment-unknown",
                "No such assignment",
                "The driver does not have this package.",
            ),
            UpdateError::Refused(Refusal::Final { status }) => Self::new(
                StatusCode::CONFLICT,
                "status-final",
                "The status is final",
                format!("It is {}, and final.", status.as_str()),
            )
            .with("current_status", status.as_str()),
            UpdateError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}
