//! What is reached over the network.

#[cfg(any(feature = "aws", feature = "redis"))]
use anyhow::Context;

#[cfg(feature = "aws")]
use crate::assignments;
use crate::assignments::oplog;
use crate::config::{self, Config};
#[cfg(feature = "aws")]
use crate::couriers::queues;
#[cfg(feature = "aws")]
use crate::storage::aws::Aws;
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
    pub(super) chain: Option<queues::Chain>,
}

impl Engines {
    /// Finds what is configured, and creates what is missing there if that is wanted.
    #[cfg_attr(
        not(any(feature = "aws", feature = "redis")),
        expect(clippy::unused_async, reason = "with a feature it waits")
    )]
    pub(super) async fn find(config: &Config) -> anyhow::Result<Self> {
        // Not used without the features.
        let _ = config;
        #[cfg(feature = "aws")]
        let (aws, chain) = Self::find_aws(config).await?;
        Ok(Self {
            #[cfg(feature = "aws")]
            aws,
            #[cfg(feature = "aws")]
            chain,
            #[cfg(feature = "redis")]
            redis: Self::find_redis(config).await?,
        })
    }

    #[cfg(feature = "redis")]
    pub(super) async fn find_redis(config: &Config) -> anyhow::Result<Option<Redis>> {
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
        let reached = Redis::connect(target).await;
        let reached = reached.context("configuration key `redis.url`: cannot use Redis")?;
        Ok(Some(reached))
    }

    #[cfg(feature = "aws")]
    async fn find_aws(config: &Config) -> anyhow::Result<(Option<Aws>, Option<queues::Chain>)> {
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
        if config.aws.provision && tables {
            let names = Self::tables(config);
            let made = assignments::dynamodb::provision(&aws.dynamodb(), &names).await;
            made.context("cannot create the tables")?;
        }
        if config.aws.provision && bucket {
            let made = oplog::provision(&aws.s3(), &config.oplog.bucket).await;
            made.context("cannot create the bucket")?;
        }
        let chain = if messages {
            let opened = queues::Chain::open(&aws, Self::places(config), config.aws.provision);
            let opened = Box::pin(opened).await;
            Some(opened.context("cannot create the topics and queues")?)
        } else {
            None
        };
        Ok((Some(aws), chain))
    }

    /// Where the couriers' topics and queues are, as far as that is configured.
    #[cfg(feature = "aws")]
    pub(super) fn places(config: &Config) -> queues::Places {
        let config = &config.couriers;
        queues::Places {
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
