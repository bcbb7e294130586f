//! What is done beside a server: on its data directory, or on the engines that it shares.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::registry;
use super::storage::{COURIERS_FILE, PACKAGES_FILE, courier_join};
use crate::config::Config;
use crate::couriers::store::Store;
use crate::storage::sqlite::{self, Database};
use crate::{couriers, packages};

/// Counts the ledger of packages anew, in the data directory of this configuration. A server may be running on it.
///
/// # Errors
/// If the ledger cannot be read.
pub fn audit_packages(config: &Config) -> anyhow::Result<packages::audit::Audit> {
    let path = config.data_dir.join(PACKAGES_FILE);
    Ok(packages::sqlite::audit(&path)?)
}

/// Tells the event log of the couriers again, to a new store, and compares what it comes to with what is kept. The new store is
/// a database in the directory `into`, or nowhere for long. A server may be running.
///
/// # Errors
/// If the log cannot be read, or the directory has such a database already.
pub async fn replay_couriers(
    config: &Config,
    into: Option<&Path>,
) -> anyhow::Result<couriers::replay::Comparison> {
    let scratch = tempfile::tempdir().context("cannot make a directory for the time being")?;
    let into = into.unwrap_or(scratch.path());
    let path = into.join(COURIERS_FILE);
    ensure!(!path.exists(), "`{}` is there already", path.display());
    std::fs::create_dir_all(into).with_context(|| format!("cannot make `{}`", into.display()))?;
    let fresh = sqlite_store(config, &path)?;
    let live = live_store(config, scratch.path())?;
    let compared = couriers::replay::replay(live.as_ref(), fresh.as_ref()).await;
    compared.context("what is kept cannot be compared")
}

/// What a server keeps, or one state of it.
fn live_store(config: &Config, scratch: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let copy = scratch.join("live.db");
    sqlite::copy(&config.data_dir.join(COURIERS_FILE), &copy)?;
    sqlite_store(config, &copy)
}

fn sqlite_store(config: &Config, path: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let settings = sqlite::Settings {
        path: path.to_owned(),
        migrations: couriers::sqlite::MIGRATIONS,
        queue_max: config.storage.queue_max,
        batch_max: config.storage.batch_max,
        readers: 1,
    };
    let metrics = registry()?.register(|| sqlite::Metrics::register(&settings.path));
    let database = Database::open(settings, metrics)?;
    let join = courier_join(config);
    Ok(Arc::new(couriers::sqlite::Sqlite::new(
        database, join, false,
    )))
}
