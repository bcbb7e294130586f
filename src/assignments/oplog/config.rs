//! The section `oplog`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{WITHOUT_AWS, refuse_if, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    #[garde(custom(refuse_if(cfg!(not(feature = "aws")) && self.sink == Destination::S3, WITHOUT_AWS)))]
    pub sink: Destination,
    /// This server's name, which is part of each file's. Letters, digits, `.`, `_` and `-`; at most 64.
    pub instance: String,
    /// [`Destination::Files`]: a file is complete from this size on, in bytes of uncompressed lines.
    #[garde(custom(within(4096, 1 << 30)))]
    pub file_max_bytes: u64,
    /// [`Destination::Files`]: beyond it the oldest are removed.
    #[garde(custom(within(1, 100_000)))]
    pub files_max: usize,
    /// If it is missing, that is an outage like any other.
    #[garde(custom(refuse_if(
        self.sink == Destination::S3 && self.bucket.is_empty(),
        "with `oplog.sink = \"s3\"` it must name a bucket"
    )))]
    pub bucket: String,
    /// Prefix of the keys, without a trailing slash; may be empty.
    pub prefix: String,
    pub sse: Encryption,
    /// Empty: the account's default key for S3.
    #[garde(custom(refuse_if(
        !self.kms_key.is_empty() && self.sse != Encryption::AwsKms,
        "it is used with `oplog.sse = \"aws:kms\"` only"
    )))]
    pub kms_key: String,
    /// [`Destination::S3`]: a file is complete from this size on, in bytes of uncompressed lines.
    #[garde(custom(within(4096, 1 << 30)))]
    pub batch_max_bytes: u64,
    /// [`Destination::S3`]: a file is complete from this age on.
    #[serde(with = "text")]
    #[garde(custom(within("100ms", "1h")))]
    pub batch_age: Duration,
    /// Bound of the files that are not in the sink yet, in bytes; each file counts as whole blocks of 4 KiB. A file is complete
    /// at half of it at the latest.
    #[garde(custom(within(65_536, 1 << 40)))]
    pub spool_max_bytes: u64,
    /// Bound of the entries in memory.
    #[garde(custom(within(1, 100_000_000)))]
    pub waiting_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    Files,
    S3,
    None,
}

/// How an object in S3 is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Encryption {
    /// By the bucket's default.
    #[serde(rename = "none")]
    OfBucket,
    /// With S3's keys.
    #[serde(rename = "AES256")]
    Aes256,
    /// With the configured KMS key.
    #[serde(rename = "aws:kms")]
    AwsKms,
}
