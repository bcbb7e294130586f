//! A server beside an emulator of Amazon's services, and how a test itself asks the emulator.

use std::process::Command;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};

use crate::shop::odyssey;

/// The server's identity at an emulator, independent of the AWS account of the user who runs the tests.
const AT_AN_EMULATOR: [(&str, &str); 6] = [
    ("AWS_REGION", "eu-west-2"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// The program, about to be started with an emulator at this address.
pub(crate) fn odyssey_at(endpoint: &str) -> Command {
    let mut command = odyssey();
    for (name, value) in AT_AN_EMULATOR {
        command.env(name, value);
    }
    command.env("AWS_ENDPOINT_URL", endpoint);
    command
}

/// For clients of the services at this address.
pub(crate) fn sdk(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(Region::from_static("eu-west-2"))
        .endpoint_url(endpoint)
        .build()
}
