//! Uploads packed files to S3.

use std::io;
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
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, spawn_blocking};
use tracing::{error, info, warn};

use super::config::{Config, Encryption};
use super::metrics::Metrics;
use super::name::Name;
use super::spool::Spool;
use crate::storage::aws::errors::{self, Action, CallError};
use crate::storage::preflight::{Engine, Probe, Verdict};
use crate::storage::{Condition, State};
use crate::values::backoff::Backoff;

/// Timeout of one attempt. A file has some megabytes; a slow connection is better than none.
const TRY: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(2);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
/// Longest backoff while the log is being closed.
const WAIT_MAX_CLOSING: Duration = Duration::from_millis(500);
/// Names that are read from the directory at once; bounds the memory.
const NAMES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) config: Config,
}

impl Target {
    fn put(&self, key: String) -> PutObjectFluentBuilder {
        let Config {
            bucket,
            sse,
            kms_key,
            ..
        } = &self.config;
        let put = self.client.put_object().bucket(bucket).key(key);
        match sse {
            Encryption::OfBucket => put,
            Encryption::Aes256 => put.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::AwsKms => {
                let put = put.server_side_encryption(ServerSideEncryption::AwsKms);
                put.set_ssekms_key_id((!kms_key.is_empty()).then(|| kms_key.clone()))
            }
        }
    }
}

/// The log's handle to the upload task.
#[derive(Debug)]
pub(super) struct Uploads {
    /// True once no more files come. Closed when `finish` was abandoned.
    closing: watch::Sender<bool>,
    ended: watch::Sender<()>,
    task: AbortHandle,
    condition: Arc<Condition>,
}

impl Uploads {
    ///
    /// # Errors
    /// If there is no runtime around.
    pub(super) fn start(target: Target, spool: Arc<Spool>, metrics: Metrics) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let (closing, phase) = watch::channel(false);
        let (ended, alive) = watch::channel(());
        let condition = Arc::<Condition>::default();
        let uploader = Uploader {
            condition: Arc::clone(&condition),
            target: patient(target),
            spool,
            metrics,
            phase,
            backoff: BACKOFF,
        };
        let task = runtime.spawn(async move {
            uploader.run().await;
            drop(alive);
        });
        Ok(Self {
            closing,
            ended,
            task: task.abort_handle(),
            condition,
        })
    }

    /// Down while the operator must repair something, so that the bucket accepts files.
    pub(super) fn state(&self) -> State {
        self.condition.state()
    }

    /// Call after the last file: returns once all are uploaded.
    pub(super) async fn finish(&self) {
        self.closing.send_replace(true);
        self.ended.closed().await;
    }

    /// Ends the task at once. A partial upload does not exist in S3, and is repeated by the next start.
    pub(super) fn abort(&self) {
        self.task.abort();
    }
}

/// The same target without the SDK's retries: they would multiply ours.
fn patient(target: Target) -> Target {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(TRY)
        .operation_attempt_timeout(TRY);
    let config = target.client.config().to_builder();
    let config = config
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    Target {
        client: Client::from_conf(config.build()),
        ..target
    }
}

/// The server does not wait for uploads any more.
struct Abandoned;

struct Uploader {
    target: Target,
    spool: Arc<Spool>,
    metrics: Metrics,
    phase: watch::Receiver<bool>,
    backoff: Backoff,
    condition: Arc<Condition>,
}

/// An error of the disk, or of the runtime.
impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::transient(error.to_string())
    }
}

impl From<JoinError> for CallError {
    fn from(error: JoinError) -> Self {
        Self::transient(error.to_string())
    }
}

impl Uploader {
    async fn run(mut self) {
        while let Ok(more) = self.round().await {
            if !more {
                return;
            }
        }
    }

    /// Uploads existing files, the oldest first. False once there are none, and no more will come.
    async fn round(&mut self) -> Result<bool, Abandoned> {
        // Read before the directory: the last file is packed before this is true.
        let closing = *self.phase.borrow_and_update();
        let spool = Arc::clone(&self.spool);
        let names = match spawn_blocking(move || spool.oldest(NAMES_MAX)).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => {
                self.failed(&error.into());
                self.wait().await?;
                return Ok(!closing);
            }
            // The runtime ends.
            Err(_) => return Err(Abandoned),
        };
        if names.is_empty() {
            if closing {
                return Ok(false);
            }
            tokio::select! {
                () = self.spool.arrived.notified() => {}
                changed = self.phase.changed() => changed.map_err(|_| Abandoned)?,
            }
        }
        for name in names {
            while let Err(failure) = self.upload(&name).await {
                self.failed(&failure);
                self.wait().await?;
            }
        }
        Ok(true)
    }

    /// Uploads a file and removes it. Idempotent: the key is the same.
    async fn upload(&mut self, name: &Name) -> Result<(), CallError> {
        let (spool, file) = (Arc::clone(&self.spool), name.clone());
        let read = spawn_blocking(move || spool.read(&file)).await;
        let body = match read? {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!(file = %name, "a file of the operational log was removed by hand");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let put = self.target.put(name.key(&self.target.config.prefix));
        let put = put
            // Without a content encoding, so that clients do not decompress the object.
            .content_type("application/x-ndjson")
            .body(body.into());
        // Boxed: the SDK's futures are large.
        let sent = Box::pin(put.send()).await;
        sent.map_err(|error| CallError {
            cause: DisplayErrorContext(&error).to_string(),
            ..CallError::of_call(Engine::S3, &error)
        })?;
        self.metrics.uploaded(true);
        self.condition.works();
        let (spool, file) = (Arc::clone(&self.spool), name.clone());
        let removed = spawn_blocking(move || spool.remove(&file)).await;
        match removed? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let failures = self.backoff.failures();
        if failures > 0 {
            info!(failures, "the operational log is uploaded again");
            self.backoff.reset();
        }
        Ok(())
    }

    fn failed(&mut self, failure: &CallError) {
        self.metrics.uploaded(false);
        let (reason, bucket) = (failure.cause.as_str(), &self.target.config.bucket);
        let passes = matches!(failure.action, Action::Retry | Action::RetryUnknown);
        let sentence = "cannot upload the operational log; it waits on the disk";
        if !passes && self.condition.fails(format_args!("{sentence}: {reason}")) {
            error!(%bucket, reason, "the operational log waits on the disk until this is repaired");
        } else if self.backoff.failures() == 0 {
            warn!(%bucket, reason, "{sentence}");
        }
    }

    /// Waits before the next attempt. Returns when closing begins.
    async fn wait(&mut self) -> Result<(), Abandoned> {
        if *self.phase.borrow_and_update() {
            self.backoff = self.backoff.at_most(WAIT_MAX_CLOSING);
        }
        let wait = self.backoff.next_wait();
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            changed = self.phase.changed() => changed.map_err(|_| Abandoned),
        }
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
