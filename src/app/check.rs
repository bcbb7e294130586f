//! Checks of the database files: on request of the staff, on a timer, and offline.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::storage::DESKS;
use crate::config::Config;
use crate::http::Problem;
use crate::storage::directory::DataDirectory;
use crate::storage::sqlite::Database;
use crate::storage::sqlite::check::{Offline, Report, Verdict};
use crate::{assignments, couriers};

/// The databases to check; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    databases: Arc<[Database]>,
    /// One check at a time: it reads all files.
    turn: Arc<Mutex<()>>,
}

/// The result of a check of all databases.
#[derive(Debug, Serialize, ToSchema)]
pub struct Checked {
    /// The worst of all: `good`, `unchecked`, `damaged`.
    #[schema(value_type = String, example = "good")]
    verdict: Verdict,
    /// Database by database.
    databases: Vec<Report>,
}

impl Checked {
    fn new(reports: Vec<Report>) -> Self {
        let verdicts = reports.iter().map(Report::verdict);
        Self {
            verdict: verdicts.max().unwrap_or(Verdict::Good),
            databases: reports,
        }
    }
}

impl Checks {
    pub(super) fn new(databases: Vec<Database>) -> Self {
        Self {
            databases: databases.into(),
            turn: Arc::default(),
        }
    }

    /// Checks all, one after the other. None if a check is running.
    async fn run(&self) -> Option<Checked> {
        let turn = Arc::clone(&self.turn).try_lock_owned().ok()?;
        let databases = Arc::clone(&self.databases);
        let checked = spawn_blocking(move || {
            let _turn = turn;
            databases.iter().map(Database::check).collect()
        });
        Some(Checked::new(checked.await.ok()?))
    }

    /// Never returns.
    pub(super) async fn keep_checking(self, every: Duration) {
        if every.is_zero() {
            return std::future::pending().await;
        }
        loop {
            sleep(every).await;
            match self.run().await {
                Some(checked) if checked.verdict == Verdict::Good => {
                    info!("the databases were checked: nothing is damaged");
                }
                Some(checked) => {
                    let verdict = serde_json::to_string(&checked).unwrap_or_default();
                    error!(
                        verdict,
                        "the databases were checked: something is damaged or unchecked"
                    );
                }
                // A check on request is running.
                None => {}
            }
        }
    }
}

/// Check the stored data
///
/// Reads all database files and their WALs, and compares them with their stored checksums. One check at a time; desks stay
/// available. A desk whose files are damaged answers 503 from then on, and `/readyz/{desk}` has the reason. Trees,
/// references and rows are checked offline by `odyssey check`.
#[utoipa::path(post, path = "/storage/check", tag = "status", security(("token" = ["operator"])), responses(
    (status = 200, description = "The findings, good or bad", body = Checked),
    (status = 409, description = "A check is running", body = Problem, content_type = "application/problem+json"),
))]
async fn check_storage(State(checks): State<Checks>) -> Result<Response, Problem> {
    let checked = checks.run().await.ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "check-running",
            "A check is running",
            "The stored data is being checked; one check at a time.",
        )
        .retry_after(Duration::from_secs(5))
    })?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(checked)).into_response())
}

/// The route `/storage/check`.
pub(super) fn check_routes() -> [UtoipaMethodRouter<Checks>; 1] {
    [routes!(check_storage)]
}

/// Checks the files of the desks that this configuration stores in a data directory. No server may be running.
///
/// # Errors
/// If there is no such directory, or a server uses it.
pub fn check_directory(config: &Config, data: &Path) -> anyhow::Result<Checked> {
    ensure!(data.is_dir(), "there is no directory `{}`", data.display());
    let directory = DataDirectory::open(data)
        .context("a running server checks its own files: name it with --url")?;
    let elsewhere = |file: &str| match file {
        "assignments.db" => config.assignments.store == assignments::config::StoreKind::DynamoDb,
        "couriers.db" => config.couriers.store == couriers::config::StoreKind::Redis,
        _ => false,
    };
    let desks = DESKS.iter().filter(|desk| !elsewhere(desk.file));
    let reports = desks.map(|desk| {
        let offline = Offline {
            path: directory.file(desk.file),
            application: desk.application,
            invariants: desk.invariants,
        };
        offline.check()
    });
    Ok(Checked::new(reports.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_while_another_one_runs_is_turned_away() {
        let checks = Checks::new(Vec::new());
        let running = Arc::clone(&checks.turn).lock_owned().await;
        let refused = check_storage(State(checks.clone())).await.unwrap_err();
        assert_eq!(refused.into_response().status(), StatusCode::CONFLICT);
        drop(running);
        let answer = check_storage(State(checks)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
