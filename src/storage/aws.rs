//! Amazon's services, or an emulator. Region, credentials and endpoints follow the AWS SDK's conventions: the variables
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` etc., the files in `~/.aws`, or the machine's role.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_types::service_config::ServiceConfigKey;

pub mod errors;

/// How long it may take to reach a service.
const CONNECT: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_secs(5);
/// Timeout of a call with all its retries.
const OPERATION: Duration = Duration::from_secs(20);
/// Attempts of a call. The SDK's backoff: random, at first up to a second, doubled each time.
const ATTEMPTS: u32 = 5;

/// The SDK's configuration; cheap to clone.
#[derive(Clone)]
pub struct Aws {
    config: SdkConfig,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").finish_non_exhaustive()
    }
}

impl Aws {
    /// Reads region, credentials and endpoints. Calls only the services that provide these.
    pub async fn find() -> Self {
        // Boxed: the SDK's futures are large.
        let config = Box::pin(with_timeouts().load()).await;
        Self { config }
    }

    /// The region of all clients, if one is configured.
    pub fn region(&self) -> Option<&str> {
        self.config.region().map(AsRef::as_ref)
    }

    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    pub fn s3(&self) -> aws_sdk_s3::Client {
        // Only Amazon's own S3 has a DNS name per bucket.
        let config = aws_sdk_s3::config::Builder::from(&self.config);
        let config = config.force_path_style(self.s3_has_own_endpoint());
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// Whether the endpoint of S3 is configured: for all services, by `AWS_ENDPOINT_URL_S3`, or in the `services` section of a
    /// profile.
    fn s3_has_own_endpoint(&self) -> bool {
        let key = ServiceConfigKey::builder()
            .service_id("S3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let of_service = || self.config.service_config()?.load_config(key.ok()?);
        self.config.endpoint_url().is_some() || of_service().is_some()
    }

    pub fn sns(&self) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.config)
    }

    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.config)
    }

    /// A client of SQS for long polls of `wait`. One attempt per call.
    pub fn sqs_waiting(&self, wait: Duration) -> aws_sdk_sqs::Client {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(wait + ATTEMPT)
            .operation_timeout(wait + ATTEMPT);
        let config = aws_sdk_sqs::config::Builder::from(&self.config)
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    #[cfg(test)]
    pub(crate) async fn emulated(endpoint: &str) -> Self {
        use aws_sdk_dynamodb::config::{Credentials, Region};

        let dummy = Credentials::new("test", "test", None, None, "test");
        let config = with_timeouts()
            .credentials_provider(dummy)
            .region(Region::from_static("eu-west-2"))
            .endpoint_url(endpoint)
            .load();
        let config = Box::pin(config).await;
        Self { config }
    }

    #[cfg(test)]
    pub(crate) fn without_retries(self) -> Self {
        let config = self.config.into_builder();
        let config = config.retry_config(RetryConfig::disabled()).build();
        Self { config }
    }

    /// For an emulator that many tests share.
    #[cfg(test)]
    pub(crate) fn without_timeouts(self) -> Self {
        let config = self.config.into_builder();
        let config = config.timeout_config(TimeoutConfig::disabled()).build();
        Self { config }
    }
}

fn with_timeouts() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION);
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .timeout_config(timeouts.build())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
}

/// An SDK error with its causes, as one sentence.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
