//! Uploads files to S3.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, ServerSideEncryption,
};
use jiff::Timestamp;
use tokio::fs;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::Shared;
use super::config::{Config, Encryption};
use super::writer::Waiting;
use crate::storage::aws::errors::{self, Action, CallError};
use crate::storage::preflight::{Engine, Probe, Verdict};
use crate::values::backoff::Backoff;

const CONNECT: Duration = Duration::from_secs(2);
/// Timeout of one attempt. A file has some megabytes; a slow connection is better than none.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Attempts of the SDK per upload. Its backoff is random, at first up to [`FIRST_WAIT`], doubled each time.
const ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Between the uploads of a file.
const BACKOFF: Backoff = Backoff::new(FIRST_WAIT, Duration::from_secs(30));
/// Longest backoff while the log is being closed.
const WAIT_MAX_CLOSING: Duration = Duration::from_millis(500);

pub(super) struct Uploads {
    client: Client,
    config: Config,
    spool: PathBuf,
    shared: Arc<Shared>,
    backoff: Backoff,
}

impl Uploads {
    pub(super) fn new(
        client: &Client,
        config: Config,
        spool: PathBuf,
        shared: Arc<Shared>,
    ) -> Self {
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_WAIT);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(ATTEMPT * ATTEMPTS);
        let own = client.config().to_builder().retry_config(retries);
        let client = Client::from_conf(own.timeout_config(timeouts.build()).build());
        Self {
            client,
            config,
            spool,
            shared,
            backoff: BACKOFF,
        }
    }

    /// Uploads the files in turn. Ends after the last one; `_alive` is dropped then.
    pub(super) async fn run(
        mut self,
        mut files: UnboundedReceiver<Waiting>,
        _alive: watch::Receiver<()>,
    ) {
        while let Some(file) = files.recv().await {
            while let Err(failure) = self.upload(&file).await {
                self.failed(&failure);
                let wait = self.backoff.next_wait();
                let closing = &self.shared.closing;
                if closing.is_cancelled() {
                    sleep(wait.min(WAIT_MAX_CLOSING)).await;
                } else {
                    let _ = timeout(wait, closing.cancelled()).await;
                }
            }
        }
    }

    /// Uploads a file and removes it. Idempotent: the key is the same.
    async fn upload(&mut self, (name, length): &Waiting) -> Result<(), CallError> {
        let path = name.in_spool(&self.spool);
        match fs::read(&path).await {
            Ok(body) => self.send(&name.key(&self.config.prefix), body).await?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!(path = %path.display(), "a file of the operational log was removed before its upload");
                self.shared.resized(*length, 0);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => self.shared.resized(*length, 0),
        }
        let failures = self.backoff.failures();
        if failures > 0 {
            info!(failures, "the operational log is uploaded again");
            self.backoff.reset();
        }
        Ok(())
    }

    async fn send(&self, key: &str, body: Vec<u8>) -> Result<(), CallError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(key);
        // Without a content encoding, so that clients do not decompress the object.
        let put = self.encrypted(put.content_type("application/x-ndjson").body(body.into()));
        // Boxed: the SDK's futures are large.
        let sent = Box::pin(put.send()).await;
        sent.map_err(|error| CallError {
            cause: DisplayErrorContext(&error).to_string(),
            ..CallError::of_call(Engine::S3, &error)
        })?;
        let metrics = &self.shared.metrics;
        metrics.stored.increment(1);
        metrics
            .last_stored
            .set(Timestamp::now().as_duration().as_secs_f64());
        self.shared.bucket.works();
        Ok(())
    }

    fn encrypted(&self, put: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        let kms_key = &self.config.kms_key;
        match self.config.sse {
            Encryption::OfBucket => put,
            Encryption::Aes256 => put.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::AwsKms => put
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .set_ssekms_key_id((!kms_key.is_empty()).then(|| kms_key.clone())),
        }
    }

    fn failed(&self, failure: &CallError) {
        self.shared.metrics.failed.increment(1);
        let (reason, bucket) = (&failure.cause, &self.config.bucket);
        let passes = matches!(failure.action, Action::Retry | Action::RetryUnknown);
        let sentence = "cannot upload the operational log; it waits on the disk";
        if !passes
            && self
                .shared
                .bucket
                .fails(format_args!("{sentence}: {reason}"))
        {
            error!(%bucket, reason, "the operational log waits on the disk until this is repaired");
        } else if self.backoff.failures() == 0 {
            warn!(%bucket, reason, "{sentence}");
        }
    }
}

/// An error of the disk.
impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::transient(error.to_string())
    }
}

/// Checks that the bucket exists in the client's region.
pub fn probe(client: Client, bucket: &str) -> Probe {
    let bucket = bucket.to_owned();
    let check = vec!["oplog.bucket".to_owned()];
    Probe::new(Engine::S3, check, move || {
        let (client, bucket) = (client.clone(), bucket.clone());
        async move {
            // Not HeadBucket, whose errors have no code.
            let list = client.list_objects_v2().bucket(&bucket).max_keys(0);
            let mut verdict = match Box::pin(list.send()).await {
                Ok(_) => Verdict::passed("exists"),
                Err(error) => errors::verdict(Engine::S3, &error),
            };
            verdict.detail = format!("{bucket}: {}", verdict.detail);
            vec![verdict]
        }
    })
}

/// Creates the bucket if it is missing: for emulators and development.
///
/// # Errors
/// If it does not exist, and cannot be created.
pub async fn provision(client: &Client, bucket: &str) -> io::Result<()> {
    let looked = Box::pin(client.head_bucket().bucket(bucket).send()).await;
    if looked.is_ok() {
        return Ok(());
    }
    let region = client.config().region().map(ToString::to_string);
    // us-east-1 is the default, and must not be given.
    let elsewhere = region.filter(|region| region != "us-east-1");
    let place = elsewhere.map(|region| {
        let region = BucketLocationConstraint::from(region.as_str());
        let place = CreateBucketConfiguration::builder();
        place.location_constraint(region).build()
    });
    let create = client.create_bucket().bucket(bucket);
    let create = create.set_create_bucket_configuration(place);
    let created = Box::pin(create.send()).await;
    match created.map_err(aws_sdk_s3::error::SdkError::into_service_error) {
        Ok(_) => Ok(()),
        // Another process of ours has created it.
        Err(error) if error.is_bucket_already_owned_by_you() => Ok(()),
        Err(error) => {
            let reason = DisplayErrorContext(error);
            let sentence = format!("cannot create the bucket `{bucket}`: {reason}");
            Err(io::Error::other(sentence))
        }
    }
}
