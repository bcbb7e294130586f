//! `odyssey check`: checks of stored data and shared engines.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::client::Credentials;
use super::http::{Ask, Url};
use super::output::{self, Format};
use super::{Source, Unchecked};
use crate::app::{self, Outcome};

/// Time for a server to read all its files.
const PATIENCE: Duration = Duration::from_hours(1);
/// The line below every table.
const LIMITS: &str = "\nNo check can tell that a database was replaced together with its -wal and -sums files by older ones.\n";

#[derive(Debug, Args)]
pub struct Check {
    /// The data directory [default: that of the configuration]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// Have the server with this staff listener check its files instead
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Check the shared engines that the configuration names instead: Redis, `DynamoDB`, S3, SNS, SQS
    ///
    /// The checks that a server runs at its start; read-only.
    #[arg(long, conflicts_with_all = ["data", "url"])]
    engines: bool,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    source: Source,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

impl Check {
    pub(super) fn run(self, runtime: &Runtime) -> anyhow::Result<()> {
        if self.engines {
            let found = runtime.block_on(app::check_engines(&self.source.load()?))?;
            let worst = found.iter().map(|found| found.outcome).max();
            let json = json!(found);
            let table = match json.as_array().map(Vec::as_slice).unwrap_or_default() {
                [] => "The configuration names no shared engine.\n".to_owned(),
                rows => output::rows(rows, &["engine", "check", "outcome", "detail"]),
            };
            let worst = json!(worst.unwrap_or(Outcome::Passed));
            return self.report(&json, table, &worst, "an engine cannot be used as it is");
        }
        let checked = match &self.url {
            Some(url) => runtime.block_on(ask(url, &self.credentials)),
            None => self.look(),
        };
        let json = checked.map_err(|error| Unchecked(format!("{error:#}")))?;
        let mut rows = Vec::new();
        for database in json["databases"].as_array().into_iter().flatten() {
            for found in database["findings"].as_array().into_iter().flatten() {
                let mut row = found.clone();
                row["database"] = database["database"].clone();
                rows.push(row);
            }
        }
        let table = output::rows(&rows, &["database", "check", "verdict", "detail"]) + LIMITS;
        self.report(&json, table, &json["verdict"], "the stored data is damaged")
    }

    /// Prints the findings; an error, `bad`, if the worst of them is.
    fn report(
        &self,
        json: &Value,
        table: String,
        worst: &Value,
        bad: &'static str,
    ) -> anyhow::Result<()> {
        output::print(&match self.output {
            Format::Json => format!("{json}\n"),
            Format::Table => table,
        })?;
        match worst.as_str() {
            Some("good" | "passed" | "warning") => Ok(()),
            Some("damaged" | "failed") => anyhow::bail!(bad),
            _ => Err(Unchecked("not everything could be checked".to_owned()).into()),
        }
    }

    fn look(&self) -> anyhow::Result<Value> {
        let config = self.source.load()?;
        let data = self.data.as_ref().unwrap_or(&config.data_dir);
        Ok(json!(app::check_directory(&config, data)?))
    }
}

async fn ask(url: &Url, credentials: &Credentials) -> anyhow::Result<Value> {
    let ask = Ask::new(Method::POST, url.join("/storage/check")?);
    let ask = credentials.add_to(ask, None)?;
    ask.within(PATIENCE).await?.success()?.json()
}
