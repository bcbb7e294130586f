//! A server beside an emulator of Amazon's services.

use std::process::Command;

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
