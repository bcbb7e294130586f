//! What is reached over the network.

#[cfg(any(feature = "aws", feature = "redis"))]
use anyhow::Context;

#[cfg(feature = "aws")]
use super::messages;
#[cfg(feature = "aws")]
use crate::assignments;
use crate::assignments::oplog;
use crate::config::{self, Config};
#[cfg(feature = "aws")]
use crate::couriers::queues;
#[cfg(feature = "aws")]
use crate::storage::aws::Aws;
#[cfg(feature = "redis")]
use crate::storage::preflight::{Engine, Findings};
use crate::storage::preflight::{Finding, Preflight};
#[cfg(feature = "redis")]
use crate::storage::redis::{Redis, Target};

/// What is reached over the network.
pub(super) struct Engines {
    #[cfg(feature = "aws")]
    pub(super) aws: Option<Aws>,
    #[cfg(feature = "redis")]
    pub(super) redis: Option<Redis>,
    /// The couriers' topics and queues.
    #[cfg(feature = "aws")]
    pub(super) topology: Option<queues::Topology>,
    /// What is checked of them.
    pub(super) preflight: Preflight,
}

impl Engines {
    /// Finds what is configured, and creates what is missing there if that is wanted.
    #[cfg_attr(
        not(any(feature = "aws", feature = "redis")),
        expect(
            clippy::unused_async,
            unused_mut,
            reason = "with a feature it waits, and adds probes"
        )
    )]
    pub(super) async fn find(config: &Config) -> anyhow::Result<Self> {
        let mut preflight = Preflight::default();
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
            redis: Self::find_redis(config, preflight.findings().clone()).await?,
            preflight,
        })
    }

    /// Runs every check once, and creates nothing.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    #[cfg_attr(
        not(feature = "aws"),
        expect(unused_mut, reason = "with the feature probes are added")
    )]
    pub(super) async fn check(config: &Config) -> anyhow::Result<Vec<Finding>> {
        let mut preflight = Preflight::default();
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
            // Not even an address that can be connected to.
            return Err(error);
        }
        checked.await?;
        Ok(findings.all())
    }

    #[cfg(feature = "redis")]
    pub(super) async fn find_redis(
        config: &Config,
        findings: Findings,
    ) -> anyhow::Result<Option<Redis>> {
        if config.couriers.store != config::CourierStore::Redis {
            return Ok(None);
        }
        let target = Target {
            url: config.redis.url.expose().to_owned(),
            sentinels: config
                .redis
                .sentinels
                .iter()
                .map(|url| url.expose().to_owned())
                .collect(),
            primary: config.redis.sentinel_primary.clone(),
        };
        let reached = Redis::connect(target, findings).await;
        let reached = reached.context("configuration key `redis.url`: cannot use Redis")?;
        Ok(Some(reached))
    }

    #[cfg(feature = "aws")]
    async fn find_aws(
        config: &Config,
        create: bool,
        preflight: &mut Preflight,
    ) -> anyhow::Result<(Option<Aws>, Option<queues::Topology>)> {
        let tables = config.assignments.store == config::AssignmentStore::DynamoDb;
        let bucket = config.oplog.sink == config::OplogSink::S3;
        let messages = config.couriers.events == config::CourierEvents::Sqs;
        if !(tables || bucket || messages) {
            return Ok((None, None));
        }
        let aws = Aws::find().await;
        if messages {
            config.couriers.check_region(aws.region())?;
        }
        if tables {
            let (client, names) = (aws.dynamodb(), Self::tables(config));
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
        let opened = queues::Topology::open(&aws, Self::endpoints(config), create);
        let topology = Box::pin(opened).await;
        let topology = topology.context("cannot create the topics and queues")?;
        for probe in queues::probes(&topology, messages::settings(config)) {
            preflight.add(probe);
        }
        Ok((Some(aws), Some(topology)))
    }

    /// Where the couriers' topics and queues are, as far as that is configured.
    #[cfg(feature = "aws")]
    pub(super) fn endpoints(config: &Config) -> queues::Endpoints {
        let config = &config.couriers;
        queues::Endpoints {
            events_topic: config.events_topic_arn.clone(),
            events_queue: config.events_queue_url.clone(),
            assignments_topic: config.assignments_topic_arn.clone(),
            assignments_queue: config.assignments_queue_url.clone(),
            dead_letters: config.dead_letter_queue_url.clone(),
        }
    }

    #[cfg(feature = "aws")]
    pub(super) fn tables(config: &Config) -> assignments::dynamodb::Tables {
        assignments::dynamodb::Tables {
            assignments: config.assignments.table.clone(),
            packages: config.assignments.packages_table.clone(),
        }
    }

    /// Where the operational log goes; nothing if nowhere.
    #[cfg_attr(
        not(feature = "aws"),
        expect(
            clippy::unused_self,
            reason = "only the bucket is reached over the network"
        )
    )]
    pub(super) fn sink(&self, config: &Config) -> Option<oplog::Sink> {
        match config.oplog.sink {
            config::OplogSink::None => None,
            config::OplogSink::Files => Some(oplog::Sink::Files),
            #[cfg(not(feature = "aws"))]
            config::OplogSink::S3 => None,
            #[cfg(feature = "aws")]
            config::OplogSink::S3 => self.aws.as_ref().map(|aws| oplog::Sink::S3 {
                client: aws.s3(),
                bucket: config.oplog.bucket.clone(),
                prefix: config.oplog.prefix.clone(),
                encryption: match config.oplog.sse {
                    config::OplogSse::None => oplog::Encryption::OfBucket,
                    config::OplogSse::Aes256 => oplog::Encryption::Aes256,
                    config::OplogSse::AwsKms => {
                        oplog::Encryption::Kms(config.oplog.kms_key.clone())
                    }
                },
            }),
        }
    }
}
