//! How errors of AWS services are handled: one table, from which the code decides. `docs/operating.md` shows the same table; a
//! test compares them.

use std::error::Error;
use std::fmt;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use self::Action::{DeadLetter, NotReady, Refuse, Retry, RetryUnknown};
use self::Service::{All, DynamoDb, S3, Sns, Sqs};
use super::error_chain;
use crate::storage::preflight::{Outcome, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    All,
    DynamoDb,
    S3,
    Sns,
    Sqs,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::DynamoDb => "DynamoDB",
            Self::S3 => "S3",
            Self::Sns => "SNS",
            Self::Sqs => "SQS",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call was not executed. It is retried with backoff within the caller's time limit.
    Retry,
    /// As [`Action::Retry`], but the call may have been executed.
    RetryUnknown,
    /// A bug: the program sent an invalid request. Not retried; logged as an error.
    Refuse,
    /// The message is never accepted. A waiting client is answered 422; without a client the message goes to the dead-letter
    /// queue.
    DeadLetter,
    /// The operator must repair something. A waiting client is answered 503 at once, readiness fails, and what waits in a
    /// queue, an outbox or a spool is retried with backoff.
    NotReady,
}

impl Action {
    /// Whether a retry of the same call fails whatever the operator does.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Refuse | Self::DeadLetter)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::RetryUnknown => "retry, outcome unknown",
            Self::Refuse => "refuse",
            Self::DeadLetter => "dead-letter",
            Self::NotReady => "not ready",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub service: Service,
    /// Case-insensitive; a `*` at its end matches any suffix.
    pub code: &'static str,
    /// What the message must contain; empty: any message.
    pub about: &'static str,
    pub action: Action,
    pub why: &'static str,
}

/// The row as `docs/operating.md` shows it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            code,
            about,
            action,
            why,
        } = self;
        write!(f, "| {service} | `{code}`")?;
        if !about.is_empty() {
            write!(f, " about `{about}`")?;
        }
        write!(f, " | {action} | {why} |")
    }
}

impl Entry {
    fn is_for(&self, service: Service, code: &str, message: &str) -> bool {
        let begins = |start: &str| {
            let begin = code.as_bytes().get(..start.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes()))
        };
        let codes = match self.code.strip_suffix('*') {
            Some(start) => begins(start),
            None => code.eq_ignore_ascii_case(self.code),
        };
        codes && [service, Service::All].contains(&self.service) && message.contains(self.about)
    }
}

const fn row(service: Service, code: &'static str, action: Action, why: &'static str) -> Entry {
    Entry {
        service,
        code,
        about: "",
        action,
        why,
    }
}

/// The first row that matches counts.
#[rustfmt::skip] // A row a line.
pub static TABLE: &[Entry] = &[
    row(DynamoDb, "IdempotentParameterMismatchException", Refuse, "the token of another transaction"),
    row(DynamoDb, "ItemCollectionSizeLimitExceeded*", Refuse, "the table has a local index, which none of ours has"),
    row(DynamoDb, "ProvisionedThroughputExceeded*", Retry, "throttled: a table or one of its partitions has too many requests"),
    row(DynamoDb, "ReplicatedWriteConflictException", Retry, "the item is written in another region"),
    row(DynamoDb, "RequestLimitExceeded", Retry, "throttled: the account has too many requests"),
    row(DynamoDb, "ResourceNotFoundException", NotReady, "the table is missing, or is being created"),
    row(DynamoDb, "SerializationException", Refuse, "the request cannot be read"),
    row(DynamoDb, "TransactionConflict*", Retry, "another transaction has the item"),
    row(DynamoDb, "TransactionInProgressException", RetryUnknown, "the first attempt of the same transaction still runs"),
    row(DynamoDb, "Validation*", Refuse, "the request does not fit the table"),
    row(S3, "AllAccessDisabled", NotReady, "the bucket is locked"),
    row(S3, "AuthorizationHeaderMalformed", NotReady, "the bucket is in another region"),
    row(S3, "BadDigest", Retry, "the file was damaged in transit"),
    row(S3, "EntityTooLarge", NotReady, "`oplog.batch_max_bytes` is more than the bucket accepts"),
    row(S3, "IncompleteBody", Retry, "the connection was closed before the end of the file"),
    row(S3, "InvalidArgument", NotReady, "`oplog.sse` and `oplog.kms_key` are not what the bucket accepts"),
    row(S3, "InvalidBucketName", NotReady, "`oplog.bucket` cannot be a bucket"),
    row(S3, "InvalidRequest", NotReady, "the bucket requires more, such as encryption"),
    row(S3, "KeyTooLongError", NotReady, "`oplog.prefix` is too long"),
    row(S3, "KMS.Throttling*", Retry, "KMS has too many requests"),
    row(S3, "KMS*", NotReady, "the key of `oplog.kms_key` or of the bucket is missing, disabled or not allowed"),
    row(S3, "NoSuchBucket", NotReady, "the bucket is missing"),
    row(S3, "OperationAborted", Retry, "the bucket is being changed"),
    row(S3, "PermanentRedirect", NotReady, "the bucket is in another region"),
    row(S3, "RequestTimeout", Retry, "the file arrived too slowly"),
    row(S3, "SlowDown", Retry, "throttled: too many requests for the prefix"),
    row(Sns, "BatchEntryIdsNotDistinct*", Refuse, "the batch is wrong"),
    row(Sns, "BatchRequestTooLong*", Refuse, "the batch is wrong"),
    row(Sns, "EmptyBatchRequest*", Refuse, "the batch is wrong"),
    row(Sns, "InternalError", RetryUnknown, "SNS failed"),
    Entry {
        about: "TopicArn",
        ..row(Sns, "InvalidParameter", NotReady, "the topic is of another region, or not a topic")
    },
    row(Sns, "InvalidBatchEntryId*", Refuse, "the batch is wrong"),
    row(Sns, "InvalidParameter*", DeadLetter, "too large, or with characters that XML 1.0 does not have"),
    row(Sns, "InvalidSecurity", NotReady, "the topic demands TLS"),
    row(Sns, "KMSThrottling*", Retry, "KMS has too many requests"),
    row(Sns, "KMS*", NotReady, "the topic's key is missing, disabled or not allowed"),
    row(Sns, "NotFound", NotReady, "the topic is missing"),
    row(Sns, "ParameterValueInvalid", DeadLetter, "an attribute of the message is wrong"),
    row(Sns, "Throttled*", Retry, "throttled: too many requests"),
    row(Sns, "TooManyEntriesInBatchRequest*", Refuse, "the batch is wrong"),
    row(Sns, "Validation*", Refuse, "the request does not fit SNS"),
    row(Sqs, "AWS.SimpleQueueService.NonExistentQueue", NotReady, "the queue is missing"),
    row(Sqs, "AWS.SimpleQueueService.QueueDeletedRecently", Retry, "a queue of this name was deleted less than a minute ago"),
    row(Sqs, "AWS.SimpleQueueService.*", Refuse, "the batch is wrong"),
    row(Sqs, "BatchEntryIdsNotDistinct", Refuse, "the batch is wrong"),
    row(Sqs, "BatchRequestTooLong", Refuse, "the batch is wrong"),
    row(Sqs, "EmptyBatchRequest", Refuse, "the batch is wrong"),
    row(Sqs, "InternalError", RetryUnknown, "SQS failed"),
    row(Sqs, "InvalidAddress", NotReady, "the URL names no queue"),
    row(Sqs, "InvalidAttributeValue", DeadLetter, "an attribute of the message is wrong"),
    row(Sqs, "InvalidBatchEntryId", Refuse, "the batch is wrong"),
    row(Sqs, "InvalidMessageContents", DeadLetter, "with characters that XML 1.0 does not have"),
    row(Sqs, "InvalidParameterValue*", DeadLetter, "too large, or with more than ten attributes"),
    row(Sqs, "InvalidSecurity", NotReady, "the queue demands TLS"),
    row(Sqs, "KMS.Throttling*", Retry, "KMS has too many requests"),
    row(Sqs, "KmsThrottled", Retry, "KMS has too many requests"),
    row(Sqs, "KMS*", NotReady, "the queue's key is missing, disabled or not allowed"),
    row(Sqs, "MessageNotInflight", Refuse, "the message is received again"),
    row(Sqs, "OverLimit", Retry, "120,000 messages of the queue are in flight"),
    row(Sqs, "QueueDeletedRecently", Retry, "a queue of this name was deleted less than a minute ago"),
    row(Sqs, "QueueDoesNotExist", NotReady, "the queue is missing"),
    row(Sqs, "ReceiptHandleIsInvalid", Refuse, "the message is received again"),
    row(Sqs, "RequestThrottled", Retry, "throttled: too many requests"),
    row(Sqs, "TooManyEntriesInBatchRequest", Refuse, "the batch is wrong"),
    row(All, "AccessDenied*", NotReady, "a policy does not allow it"),
    row(All, "AuthorizationError*", NotReady, "a policy does not allow it"),
    row(All, "ExpiredToken*", NotReady, "the credentials have expired"),
    row(All, "IncompleteSignature*", NotReady, "the credentials are wrong"),
    row(All, "InvalidAccessKeyId", NotReady, "the credentials are wrong"),
    row(All, "InvalidClientTokenId", NotReady, "the credentials are wrong"),
    row(All, "InvalidSignature*", NotReady, "the credentials or the clock are wrong"),
    row(All, "MissingAuthenticationToken*", NotReady, "the credentials are missing"),
    row(All, "NotAuthorized*", NotReady, "a policy does not allow it"),
    row(All, "OptInRequired", NotReady, "the account may not use the service"),
    row(All, "RequestExpired", NotReady, "the clock is wrong"),
    row(All, "RequestTimeTooSkewed", NotReady, "the clock is wrong"),
    row(All, "SignatureDoesNotMatch", NotReady, "the credentials are wrong"),
    row(All, "Throttling*", Retry, "throttled: too many requests"),
    row(All, "UnrecognizedClientException", NotReady, "the credentials are wrong"),
];

/// Prefixes of the codes for calls that a policy denies.
const DENIED: [&str; 3] = ["AccessDenied", "AuthorizationError", "NotAuthorized"];

/// Errors without a row: 5xx and transport errors, and all others.
const OF_SERVER: Action = RetryUnknown;
const OF_CLIENT: Action = NotReady;

fn find(service: Service, code: &str, message: &str) -> Option<Action> {
    let row = TABLE.iter().find(|row| row.is_for(service, code, message));
    row.map(|row| row.action)
}

pub fn action<E>(service: Service, error: &SdkError<E, HttpResponse>) -> Action
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let (code, message) = (answer.err().code(), answer.err().message());
            let found = find(
                service,
                code.unwrap_or_default(),
                message.unwrap_or_default(),
            );
            let of_server = answer.raw().status().as_u16() >= 500;
            found.unwrap_or(if of_server { OF_SERVER } else { OF_CLIENT })
        }
        // Such as missing credentials: nothing was sent.
        SdkError::ConstructionFailure(_) => OF_CLIENT,
        _ => OF_SERVER,
    }
}

/// How to handle one failed part of a request: a message of a batch, an action of a transaction.
pub fn action_of_part(service: Service, code: &str, message: &str, sender_fault: bool) -> Action {
    let otherwise = if sender_fault { DeadLetter } else { Retry };
    find(service, code, message).unwrap_or(otherwise)
}

/// The verdict of a preflight check whose call failed. A call that a policy denies proves nothing: the check needs other rights
/// than the server.
pub fn verdict<E>(service: Service, error: &SdkError<E, HttpResponse>) -> Verdict
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let code = error.code();
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let is_denied = code.is_some_and(|code| DENIED.iter().any(|denied| code.starts_with(denied)));
    // Without the id of the request, so that the same cause reads the same.
    let detail = match (code, error.message(), status) {
        (Some(code), Some(message), _) => format!("{code}: {message}"),
        (Some(code), None, _) => code.to_owned(),
        (None, _, Some(status)) => format!("{service} answers {status}"),
        (None, _, None) => error_chain(error),
    };
    if is_denied {
        Verdict::new(Outcome::Unchecked, detail)
    } else {
        Verdict::failed(detail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Aws;
    use super::*;

    const MANUAL: &str = include_str!("../../../docs/operating.md");

    #[test]
    fn the_manual_shows_the_table_from_which_the_code_decides() {
        let head = "| Service | Error | Action | Why |";
        let lines = MANUAL.lines().skip_while(|line| *line != head).skip(2);
        let shown: Vec<&str> = lines.take_while(|line| line.starts_with('|')).collect();
        let expected: Vec<String> = TABLE.iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_error_has_one_row_and_no_row_hides_another() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            assert!(seen.insert((row.service.to_string(), row.code, row.about)));
            let start = row.code.trim_end_matches('*');
            let found = TABLE
                .iter()
                .find(|one| one.is_for(row.service, start, row.about));
            let found = found.map(ToString::to_string);
            assert_eq!(found, Some(row.to_string()), "hidden");
        }
    }

    async fn met(service: Service, code: &str, message: &str, status: u16) -> Action {
        let server = testkit::aws::Service::refusing(code, message, status).await;
        let aws = Aws::emulated(&server.endpoint).await.hasty();
        match service {
            DynamoDb | All => {
                let call = aws.dynamodb().delete_item().table_name("a-table");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            S3 => {
                let call = aws.s3().put_object().bucket("bucket").key("key");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            Sns => {
                let call = aws.sns().publish().topic_arn("topic").message("message");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            Sqs => {
                let url = format!("{}/1/queue", server.endpoint);
                let call = aws.sqs().send_message().queue_url(url).message_body("body");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
        }
    }

    #[tokio::test]
    async fn each_error_is_what_the_table_says_when_its_service_answers_with_it() {
        for row in TABLE {
            let code = row.code.replace('*', "Exception");
            let message = format!("on purpose {}", row.about);
            let action = met(row.service, &code, &message, 400).await;
            assert_eq!(action, row.action, "{row}");
        }
    }

    #[tokio::test]
    async fn an_error_without_a_row_is_tried_again_if_it_is_the_servers() {
        for service in [DynamoDb, S3, Sns, Sqs] {
            for (status, expected) in [(500, RetryUnknown), (503, RetryUnknown), (400, NotReady)] {
                let action = met(service, "NeverHeardOf", "on purpose", status).await;
                assert_eq!(action, expected, "{service} {status}");
            }
        }
    }

    #[test]
    fn a_part_without_a_row_is_at_fault_if_its_sender_is() {
        let of = |code, sender_fault| action_of_part(Sns, code, "", sender_fault);
        assert_eq!(of("InvalidParameter", true), DeadLetter);
        assert_eq!(of("NeverHeardOf", true), DeadLetter);
        assert_eq!(of("NeverHeardOf", false), Retry);
        assert_eq!(of("AuthorizationError", true), NotReady);
    }
}
