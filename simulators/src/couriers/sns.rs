//! A topic of Amazon's SNS to which events are published instead of being sent over HTTP. Takes the Cargo feature `aws`.

use anyhow::Result;

/// From publishing to giving the try up, the SDK's own repetitions included; measured.
#[cfg(feature = "aws")]
const PUBLISHED_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The topic, and how it is reached.
#[cfg(feature = "aws")]
#[derive(Debug, Clone)]
pub(super) struct Topic {
    client: aws_sdk_sns::Client,
    arn: String,
}

#[cfg(feature = "aws")]
impl Topic {
    /// Takes region, credentials and endpoint from where all of Amazon's programs do: the environment and their files.
    pub(super) async fn connect(arn: String) -> Result<Self> {
        let version = aws_config::BehaviorVersion::v2026_01_12();
        // Without it, a topic that says nothing is waited for without end.
        let timeouts = aws_config::timeout::TimeoutConfig::builder();
        let timeouts = timeouts.operation_timeout(PUBLISHED_WITHIN).build();
        let config = aws_config::defaults(version).timeout_config(timeouts);
        let config = Box::pin(config.load()).await;
        let client = aws_sdk_sns::Client::new(&config);
        Ok(Self { client, arn })
    }

    /// Publishes a message, with the tries that the SDK makes of itself. An error is what went wrong.
    pub(super) async fn publish(&self, message: String) -> Result<(), String> {
        let publish = self.client.publish().topic_arn(&self.arn).message(message);
        let published = Box::pin(publish.send()).await;
        published.map(drop).map_err(|error| causes(&error))
    }
}

/// What went wrong, and why: the SDK's own words say little.
#[cfg(feature = "aws")]
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// There is none in this build.
#[cfg(not(feature = "aws"))]
#[derive(Debug, Clone)]
pub(super) enum Topic {}

#[cfg(not(feature = "aws"))]
impl Topic {
    #[expect(clippy::unused_async, reason = "with the feature it takes its time")]
    pub(super) async fn connect(_: String) -> Result<Self> {
        anyhow::bail!("--topic-arn needs a build with the feature `aws`")
    }

    #[expect(clippy::unused_async, reason = "with the feature it takes its time")]
    pub(super) async fn publish(&self, _: String) -> Result<(), String> {
        match *self {}
    }
}
