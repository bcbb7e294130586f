//! The engines reached over the network.

use std::sync::Arc;

#[cfg(any(feature = "aws", feature = "redis"))]
use anyhow::Context;

use crate::assignments::oplog::Sink;
use crate::assignments::oplog::config::Destination;
#[cfg(feature = "aws")]
use crate::assignments::{self, oplog};
use crate::config::Config;
#[cfg(any(feature = "aws", feature = "redis"))]
use crate::couriers;
#[cfg(feature = "aws")]
use crate::couriers::queues;
use crate::orders;
#[cfg(feature = "aws")]
use crate::storage::aws::Aws;
#[cfg(feature = "redis")]
use crate::storage::preflight::{Engine, Findings};
use crate::storage::preflight::{Finding, Preflight};
#[cfg(feature = "redis")]
use crate::storage::redis::Redis;

/// The engines reached over the network.
pub(super) struct Engines {
    #[cfg(feature = "aws")]
    pub(super) aws: Option<Aws>,
    #[cfg(feature = "redis")]
    pub(super) redis: Option<Redis>,
    /// The couriers' topics and queues.
    #[cfg(feature = "aws")]
    pub(super) topology: Option<queues::Topology>,
    /// Their checks.
    pub(super) preflight: Preflight,
}

impl Engines {
    /// Connects to the configured engines, and creates missing resources with `aws.provision`.
    #[cfg_attr(
        not(any(feature = "aws", feature = "redis")),
        expect(clippy::unused_async, reason = "with a feature it waits")
    )]
    pub(super) async fn find(config: &Config) -> anyhow::Result<Self> {
        let preflight = Preflight::default();
        #[cfg(feature = "aws")]
        let mut preflight = preflight;
        // Not used without the features.
        let _ = config;
        #[cfg(feature = "aws")]
        let (aws, topology) = Self::find_aws(config, config.aws.provision, &mut preflight).await?;
        Ok(Self {
            #[cfg(feature = "aws")]
            aws,
            #[cfg(feature = "aws")]
            topology,
            #[cfg(feature = "redis")]
            redis: Self::find_current_redis(config, preflight.findings().clone()).await?,
            preflight,
        })
    }

    /// Runs every check once, read-only.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub(super) async fn check(config: &Config) -> anyhow::Result<Vec<Finding>> {
        let preflight = Preflight::default();
        #[cfg(feature = "aws")]
        let mut preflight = preflight;
        // Not used without the features.
        let _ = config;
        #[cfg(feature = "aws")]
        Self::find_aws(config, false, &mut preflight).await?;
        let findings = preflight.findings().clone();
        let checked = tokio::spawn(preflight.once());
        #[cfg(feature = "redis")]
        if let Err(error) = Self::find_redis(config, findings.clone()).await
            && findings.state(&[Engine::Redis]).is_none()
        {
            // Not a usable address.
            return Err(error);
        }
        checked.await?;
        Ok(findings.all())
    }

    /// Redis, if the couriers or the order line are there.
    ///
    /// # Errors
    /// If it cannot be used, or has couriers in an earlier format.
    #[cfg(feature = "redis")]
    pub(super) async fn find_current_redis(
        config: &Config,
        findings: Findings,
    ) -> anyhow::Result<Option<Redis>> {
        let found = Self::find_redis(config, findings).await?;
        if let Some(redis) = &found
            && has_couriers(config)
        {
            let is_old = couriers::redis::migration::is_needed(redis).await;
            anyhow::ensure!(
                !is_old.context("cannot read the format of the couriers in Redis")?,
                "the couriers in Redis are in the format of an earlier version: stop all servers, and run \
                 `odyssey couriers migrate`"
            );
        }
        Ok(found)
    }

    #[cfg(feature = "redis")]
    pub(super) async fn find_redis(
        config: &Config,
        findings: Findings,
    ) -> anyhow::Result<Option<Redis>> {
        if !has_couriers(config) && config.orders.store != orders::config::StoreKind::Redis {
            return Ok(None);
        }
        let reached = Redis::connect(config.redis.clone(), findings).await;
        let reached = reached.context("configuration key `redis.url`: cannot use Redis")?;
        Ok(Some(reached))
    }

    #[cfg(feature = "aws")]
    async fn find_aws(
        config: &Config,
        create: bool,
        preflight: &mut Preflight,
    ) -> anyhow::Result<(Option<Aws>, Option<queues::Topology>)> {
        let tables = config.assignments.store == assignments::config::StoreKind::DynamoDb;
        let bucket = config.oplog.sink == Destination::S3;
        let messages = config.couriers.events == couriers::config::Source::Sqs;
        if !(tables || bucket || messages) {
            return Ok((None, None));
        }
        let aws = Aws::find().await;
        if messages {
            config.check_region(aws.region())?;
        }
        if tables {
            let (client, names) = (aws.dynamodb(), (&config.assignments).into());
            if create {
                let made = assignments::dynamodb::provision(&client, &names).await;
                made.context("cannot create the tables")?;
            }
            preflight.add(assignments::dynamodb::probe(client, &names));
        }
        if bucket {
            let (client, name) = (aws.s3(), &config.oplog.bucket);
            if create {
                let made = oplog::provision(&client, name).await;
                made.context("cannot create the bucket")?;
            }
            preflight.add(oplog::probe(client, name));
        }
        if !messages {
            return Ok((Some(aws), None));
        }
        let opened = queues::Topology::open(&aws, (&config.couriers).into(), create);
        let topology = Box::pin(opened).await;
        let topology = topology.context("cannot create the topics and queues")?;
        for probe in queues::probes(&topology, &config.couriers) {
            preflight.add(probe);
        }
        Ok((Some(aws), Some(topology)))
    }

    /// The store of a shared line; none if the line is in memory.
    ///
    /// # Errors
    /// If Redis cannot be reached a second time, for the events.
    #[cfg_attr(
        not(feature = "redis"),
        expect(clippy::unused_async, reason = "only Redis is such a store")
    )]
    pub(super) async fn line(
        &self,
        config: &Config,
    ) -> anyhow::Result<Option<Arc<dyn orders::store::Store>>> {
        match config.orders.store {
            orders::config::StoreKind::Memory => Ok(None),
            #[cfg(not(feature = "redis"))]
            orders::config::StoreKind::Redis => Ok(None),
            #[cfg(feature = "redis")]
            orders::config::StoreKind::Redis => {
                let redis = self.redis.clone().context("Redis was not connected")?;
                let line = orders::redis::Redis::open(redis, &config.orders.line).await;
                let line = line.context("configuration key `redis.url`: cannot use Redis")?;
                Ok(Some(Arc::new(line)))
            }
        }
    }

    /// The sink of the operational log; none if it is off.
    #[cfg_attr(
        not(feature = "aws"),
        expect(
            clippy::unused_self,
            reason = "only the bucket is reached over the network"
        )
    )]
    pub(super) fn sink(&self, config: &Config) -> Option<Sink> {
        match config.oplog.sink {
            Destination::None => None,
            Destination::Files => Some(Sink::Files),
            #[cfg(not(feature = "aws"))]
            Destination::S3 => None,
            #[cfg(feature = "aws")]
            Destination::S3 => self.aws.as_ref().map(|aws| Sink::S3(aws.s3())),
        }
    }
}

/// Whether the couriers are in Redis.
#[cfg(feature = "redis")]
pub(super) fn has_couriers(config: &Config) -> bool {
    config.couriers.store == couriers::config::StoreKind::Redis
}
