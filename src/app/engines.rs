//! What is reached over the network.

#[cfg(feature = "aws")]
use anyhow::Context;

#[cfg(feature = "aws")]
use crate::assignments;
use crate::assignments::oplog;
use crate::config::{self, Config};
#[cfg(feature = "aws")]
use crate::storage::aws::Aws;

/// What is reached over the network.
pub(super) struct Engines {
    #[cfg(feature = "aws")]
    pub(super) aws: Option<Aws>,
}

impl Engines {
    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with the feature `aws` it waits")]
    pub(super) async fn find(_: &Config) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Finds what is configured, and creates what is missing there if that is wanted.
    #[cfg(feature = "aws")]
    pub(super) async fn find(config: &Config) -> anyhow::Result<Self> {
        let tables = config.assignments.store == config::AssignmentStore::DynamoDb;
        let bucket = config.oplog.sink == config::OplogSink::S3;
        if !(tables || bucket) {
            return Ok(Self { aws: None });
        }
        let aws = Aws::find().await;
        if config.aws.provision && tables {
            let names = Self::tables(config);
            let made = assignments::dynamodb::provision(&aws.dynamodb(), &names).await;
            made.context("cannot create the tables")?;
        }
        if config.aws.provision && bucket {
            let made = oplog::provision(&aws.s3(), &config.oplog.bucket).await;
            made.context("cannot create the bucket")?;
        }
        Ok(Self { aws: Some(aws) })
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
            }),
        }
    }
}
