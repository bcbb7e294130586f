//! `odyssey check`: checks of stored data and shared engines.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

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
    source: Source,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

impl Check {
    pub(super) fn run(self, runtime: &Runtime) -> anyhow::Result<()> {
        if self.engines {
            return self.check_engines(runtime);
        }
        let checked = match &self.url {
            Some(url) => runtime.block_on(ask(url)),
            None => self.look(),
        };
        let checked = checked.map_err(|error| Unchecked(format!("{error:#}")))?;
        output::print(&match self.output {
            Format::Json => format!("{checked}\n"),
            Format::Table => format!("{}{LIMITS}", table(&checked)),
        })?;
        match checked["verdict"].as_str() {
            Some("good") => Ok(()),
            Some("damaged") => anyhow::bail!("the stored data is damaged"),
            _ => Err(Unchecked("not everything could be checked".to_owned()).into()),
        }
    }

    fn check_engines(&self, runtime: &Runtime) -> anyhow::Result<()> {
        let found = runtime.block_on(app::check_engines(&self.source.load()?))?;
        let worst = found.iter().map(|found| found.outcome).max();
        let rows = serde_json::to_value(found).context("cannot print the findings")?;
        output::print(&match (self.output, rows.as_array()) {
            (Format::Table, Some(rows)) if rows.is_empty() => {
                "The configuration names no shared engine.\n".to_owned()
            }
            (Format::Table, Some(rows)) => {
                output::rows(rows, &["engine", "check", "outcome", "detail"])
            }
            _ => format!("{rows}\n"),
        })?;
        match worst {
            None | Some(Outcome::Passed | Outcome::Warning) => Ok(()),
            Some(Outcome::Failed) => anyhow::bail!("an engine cannot be used as it is"),
            Some(Outcome::Unchecked | Outcome::Pending) => {
                Err(Unchecked("not everything could be checked".to_owned()).into())
            }
        }
    }

    fn look(&self) -> anyhow::Result<Value> {
        let config = self.source.load()?;
        let data = self.data.as_ref().unwrap_or(&config.data_dir);
        let checked = app::check_directory(&config, data)?;
        serde_json::to_value(checked).context("cannot print the findings")
    }
}

async fn ask(url: &Url) -> anyhow::Result<Value> {
    let ask = Ask::new(Method::POST, url.join("/storage/check")?);
    ask.within(PATIENCE).await?.success()?.json()
}

fn table(checked: &Value) -> String {
    let mut rows = Vec::new();
    for database in checked["databases"].as_array().into_iter().flatten() {
        for found in database["findings"].as_array().into_iter().flatten() {
            let mut row = json!({"database": database["database"]});
            for name in ["check", "verdict", "detail"] {
                row[name] = found[name].clone();
            }
            rows.push(row);
        }
    }
    output::rows(&rows, &["database", "check", "verdict", "detail"])
}
