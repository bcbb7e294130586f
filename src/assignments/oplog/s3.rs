//! The way to S3.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};
use tracing::{info, warn};

use super::metrics::Metrics;
use super::name::Name;
use super::spool::Spool;
use crate::storage::aws::backoff;

/// How long one try may take. A file has some megabytes; a slow way is better than none.
const TRY: Duration = Duration::from_secs(30);
/// How long it may take to reach S3.
const CONNECT: Duration = Duration::from_secs(2);
/// The wait after the first failure; it doubles with each further one.
const WAIT: Duration = Duration::from_millis(250);
/// The longest wait after a failure.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest wait after a failure while the log is being closed.
const WAIT_MAX_CLOSING: Duration = Duration::from_millis(500);
/// Names of files that are read from the directory together. It bounds the memory; the directory has the others.
const NAMES_MAX: usize = 256;

/// Where files go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) bucket: String,
    pub(super) prefix: String,
}

/// The task that uploads, as the log's handle sees it.
#[derive(Debug)]
pub(super) struct Uploads {
    /// True once no more files come. Closed when nobody waits any more.
    closing: watch::Sender<bool>,
    ended: watch::Sender<()>,
    task: AbortHandle,
}

impl Uploads {
    /// Starts the task.
    ///
    /// # Errors
    /// If there is no runtime around.
    pub(super) fn start(target: Target, spool: Arc<Spool>, metrics: Metrics) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let (closing, phase) = watch::channel(false);
        let (ended, alive) = watch::channel(());
        let uploader = Uploader {
            target: patient(target),
            spool,
            metrics,
            phase,
            failures: 0,
        };
        let task = runtime.spawn(async move {
            uploader.run().await;
            drop(alive);
        });
        Ok(Self {
            closing,
            ended,
            task: task.abort_handle(),
        })
    }

    /// No more files come: returns once all that are there are uploaded.
    pub(super) async fn finish(&self) {
        self.closing.send_replace(true);
        self.ended.closed().await;
    }

    /// Ends the task wherever it is. A file that is half uploaded is not there, and is uploaded again another time.
    pub(super) fn abort(&self) {
        self.task.abort();
    }
}

/// The same target, whose tries are counted here alone: the SDK's own would multiply them.
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

/// Nobody waits for uploads any more.
struct Abandoned;

struct Uploader {
    target: Target,
    spool: Arc<Spool>,
    metrics: Metrics,
    phase: watch::Receiver<bool>,
    /// How often it has failed since it last succeeded.
    failures: u32,
}

impl Uploader {
    async fn run(mut self) {
        while let Ok(more) = self.round().await {
            if !more {
                return;
            }
        }
    }

    /// Uploads what is there, the oldest first. False once nothing is there, and nothing more comes.
    async fn round(&mut self) -> Result<bool, Abandoned> {
        // Looked at before the directory: what is packed last is there before this is true.
        let closing = *self.phase.borrow_and_update();
        let spool = Arc::clone(&self.spool);
        let names = match spawn_blocking(move || spool.oldest(NAMES_MAX)).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => {
                self.failed(&error.to_string());
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
            while let Err(reason) = self.upload(&name).await {
                self.failed(&reason);
                self.wait().await?;
            }
        }
        Ok(true)
    }

    /// Uploads a file and removes it. Done again, the same object is there.
    async fn upload(&mut self, name: &Name) -> Result<(), String> {
        let (spool, file) = (Arc::clone(&self.spool), name.clone());
        let read = spawn_blocking(move || spool.read(&file)).await;
        let body = match read.map_err(|error| error.to_string())? {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!(file = %name, "somebody removed a file of the operational log");
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let put = self.target.client.put_object();
        let put = put
            .bucket(&self.target.bucket)
            .key(name.key(&self.target.prefix))
            // The object is a compressed file, and stays one for whoever downloads it: no content encoding is said.
            .content_type("application/x-ndjson")
            .body(body.into());
        // Boxed: the SDK's futures are large.
        let sent = Box::pin(put.send()).await;
        sent.map_err(|error| DisplayErrorContext(error).to_string())?;
        self.metrics.uploaded(true);
        let (spool, file) = (Arc::clone(&self.spool), name.clone());
        let removed = spawn_blocking(move || spool.remove(&file)).await;
        match removed.map_err(|error| error.to_string())? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        if self.failures > 0 {
            let failures = self.failures;
            info!(failures, "the operational log is uploaded again");
            self.failures = 0;
        }
        Ok(())
    }

    fn failed(&mut self, reason: &str) {
        self.metrics.uploaded(false);
        if self.failures == 0 {
            let bucket = &self.target.bucket;
            warn!(%bucket, reason, "cannot upload the operational log; it waits on the disk");
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Waits before the next try: longer with every failure, by a random part, so that many servers do not come back at
    /// once. Not at all when the closing begins.
    async fn wait(&mut self) -> Result<(), Abandoned> {
        let longest = if *self.phase.borrow_and_update() {
            WAIT_MAX_CLOSING
        } else {
            WAIT_MAX
        };
        let wait = backoff(self.failures, WAIT, longest);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            changed = self.phase.changed() => changed.map_err(|_| Abandoned),
        }
    }
}

/// Makes the bucket if it is missing: for emulators and development.
///
/// # Errors
/// If it is not there, and cannot be made.
pub async fn provision(client: &Client, bucket: &str) -> io::Result<()> {
    let looked = Box::pin(client.head_bucket().bucket(bucket).send()).await;
    if looked.is_ok() {
        return Ok(());
    }
    let region = client.config().region().map(ToString::to_string);
    // The oldest region is the one that is meant when none is said, and may not be said.
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
        // Somebody else of ours was faster.
        Err(error) if error.is_bucket_already_owned_by_you() => Ok(()),
        Err(error) => {
            let reason = DisplayErrorContext(error);
            let sentence = format!("cannot make the bucket `{bucket}`: {reason}");
            Err(io::Error::other(sentence))
        }
    }
}
