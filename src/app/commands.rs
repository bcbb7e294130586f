//! Commands on a server's data directory or shared engines.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::engines::Engines;
#[cfg(feature = "redis")]
use super::engines::has_couriers;
use super::registry;
#[cfg(feature = "redis")]
use super::storage::couriers_in_redis;
use super::storage::{COURIERS, PACKAGES};
use crate::config::Config;
use crate::couriers::store::Store;
use crate::storage::preflight::Finding;
#[cfg(feature = "redis")]
use crate::storage::preflight::Findings;
use crate::storage::sqlite::{self, Database};
use crate::{couriers, packages};

/// Recounts the ledger of packages in the data directory. A server may be running on it.
///
/// # Errors
/// If the ledger cannot be read.
pub fn audit_packages(config: &Config) -> anyhow::Result<packages::audit::Audit> {
    let path = config.data_dir.join(PACKAGES.file);
    Ok(packages::sqlite::audit(&path)?)
}

/// Checks the configured shared engines; see [`preflight`](crate::storage::preflight).
///
/// # Errors
/// If topics and queues are in another region than the AWS SDK's, or an address cannot be one.
pub async fn check_engines(config: &Config) -> anyhow::Result<Vec<Finding>> {
    Box::pin(Engines::check(config)).await
}

/// Replays the couriers' event log into a new store and compares it with the stored state. The new store is a database in
/// the directory `into`, or a temporary one. A server may be running.
///
/// # Errors
/// If the log cannot be read, or the directory has such a database already.
pub async fn replay_couriers(
    config: &Config,
    into: Option<&Path>,
) -> anyhow::Result<couriers::replay::Comparison> {
    // The data directory is writable and has room for a copy.
    let elsewhere = tempfile::env::temp_dir();
    let parent = Some(&config.data_dir).filter(|data| data.is_dir());
    let parent = parent.unwrap_or(&elsewhere);
    let scratch = tempfile::Builder::new()
        .prefix("replay-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a directory in `{}`", parent.display()))?;
    let into = into.unwrap_or(scratch.path());
    let path = into.join(COURIERS.file);
    ensure!(!path.exists(), "`{}` exists already", path.display());
    std::fs::create_dir_all(into).with_context(|| format!("cannot create `{}`", into.display()))?;
    let fresh = open(config, &path)?;
    let live = live_store(config, scratch.path()).await?;
    let store = store_in(config, fresh.clone());
    let compared = couriers::replay::replay(live.as_ref(), store.as_ref()).await;
    // Closing writes the WAL back into the file.
    fresh.close().await;
    compared.context("the stored state cannot be compared")
}

/// The server's store, or a snapshot of it.
#[cfg_attr(
    not(feature = "redis"),
    expect(clippy::unused_async, reason = "only Redis is waited for")
)]
async fn live_store(config: &Config, scratch: &Path) -> anyhow::Result<Arc<dyn Store>> {
    #[cfg(feature = "redis")]
    if has_couriers(config)
        && let Some(redis) = Engines::find_current_redis(config, Findings::default()).await?
    {
        return Ok(couriers_in_redis(config, redis, false));
    }
    let copy = scratch.join("live.db");
    sqlite::copy(&config.data_dir.join(COURIERS.file), &copy)?;
    Ok(store_in(config, open(config, &copy)?))
}

/// Migrates the couriers in Redis from an earlier format; with `deletes_old`, deletes its keys.
///
/// # Errors
/// If the couriers are not in Redis, or cannot be migrated.
#[cfg(feature = "redis")]
pub async fn migrate_couriers(
    config: &Config,
    deletes_old: bool,
) -> anyhow::Result<couriers::redis::migration::Migration> {
    let redis = if has_couriers(config) {
        Engines::find_redis(config, Findings::default()).await?
    } else {
        None
    };
    let redis = redis.context("configuration key `couriers.store`: it is not \"redis\"")?;
    let join = config.couriers.join;
    Ok(couriers::redis::migration::migrate(&redis, join, deletes_old).await?)
}

/// Redrives couriers' dead letters; returns a summary. With `dry_run` each is passed to `list`, as a line, and stays.
///
/// # Errors
/// If it was interrupted, or topics and queues are in another region than the AWS SDK's.
#[cfg(feature = "aws")]
pub async fn redrive_couriers(
    config: &Config,
    dry_run: bool,
    list: &mut (dyn FnMut(&str) + Send),
) -> anyhow::Result<String> {
    let aws = crate::storage::aws::Aws::find().await;
    config.check_region(aws.region())?;
    let endpoints = (&config.couriers).into();
    let mut list = |letter: &couriers::queues::redrive::DeadLetter| list(&letter.to_string());
    let redriven = couriers::queues::redrive::redrive(&aws, &endpoints, dry_run, &mut list);
    Ok(Box::pin(redriven).await?.to_string())
}

fn open(config: &Config, path: &Path) -> anyhow::Result<Database> {
    let settings = sqlite::Settings {
        readers: 1,
        ..COURIERS.settings(config, path.to_owned())
    };
    let metrics = registry().register(|| sqlite::Metrics::register(&settings.path));
    Ok(Database::open(settings, metrics)?)
}

fn store_in(config: &Config, database: Database) -> Arc<dyn Store> {
    Arc::new(couriers::sqlite::Sqlite::new(
        database,
        config.couriers.join,
        false,
    ))
}
