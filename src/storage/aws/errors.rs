//! How errors of AWS services are handled: one table, from which the code decides. `docs/operating.md` shows the same table; a
//! test compares them.

use std::error::Error;
use std::fmt;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use self::Action::{DeadLetter, NotReady, Refuse, Retry, RetryUnknown};
use super::error_chain;
use crate::storage::preflight::{Engine, Outcome, Verdict};

/// The service of a row; none for all.
type Service = Option<Engine>;
const ALL: Service = None;
const DYNAMODB: Service = Some(Engine::DynamoDb);
const S3: Service = Some(Engine::S3);
const SNS: Service = Some(Engine::Sns);
const SQS: Service = Some(Engine::Sqs);

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
        match service {
            Some(service) => write!(f, "| {service}")?,
            None => f.write_str("| all")?,
        }
        write!(f, " | `{code}`")?;
        if !about.is_empty() {
            write!(f, " about `{about}`")?;
        }
        write!(f, " | {action} | {why} |")
    }
}

impl Entry {
    fn is_for(&self, service: Engine, code: &str, message: &str) -> bool {
        let begins = |start: &str| {
            let begin = code.as_bytes().get(..start.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes()))
        };
        let codes = match self.code.strip_suffix('*') {
            Some(start) => begins(start),
            None => code.eq_ignore_ascii_case(self.code),
        };
        codes && self.service.is_none_or(|of| of == service) && message.contains(self.about)
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
    row(DYNAMODB, "IdempotentParameterMismatchException", Refuse, "the token of another transaction"),
    row(DYNAMODB, "ItemCollectionSizeLimitExceeded*", Refuse, "the table has a local index, which none of ours has"),
    row(DYNAMODB, "ProvisionedThroughputExceeded*", Retry, "throttled: a table or one of its partitions has too many requests"),
    row(DYNAMODB, "ReplicatedWriteConflictException", Retry, "the item is written in another region"),
    row(DYNAMODB, "RequestLimitExceeded", Retry, "throttled: the account has too many requests"),
    row(DYNAMODB, "ResourceNotFoundException", NotReady, "the table is missing, or is being created"),
    row(DYNAMODB, "SerializationException", Refuse, "the request cannot be read"),
    row(DYNAMODB, "TransactionConflict*", Retry, "another transaction has the item"),
    row(DYNAMODB, "TransactionInProgressException", RetryUnknown, "the first attempt of the same transaction still runs"),
    row(DYNAMODB, "Validation*", Refuse, "the request does not fit the table"),
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
    row(SNS, "BatchEntryIdsNotDistinct*", Refuse, "the batch is wrong"),
    row(SNS, "BatchRequestTooLong*", Refuse, "the batch is wrong"),
    row(SNS, "EmptyBatchRequest*", Refuse, "the batch is wrong"),
    row(SNS, "InternalError", RetryUnknown, "SNS failed"),
    Entry {
        about: "TopicArn",
        ..row(SNS, "InvalidParameter", NotReady, "the topic is of another region, or not a topic")
    },
    row(SNS, "InvalidBatchEntryId*", Refuse, "the batch is wrong"),
    row(SNS, "InvalidParameter*", DeadLetter, "too large, or with characters that XML 1.0 does not have"),
    row(SNS, "InvalidSecurity", NotReady, "the topic demands TLS"),
    row(SNS, "KMSThrottling*", Retry, "KMS has too many requests"),
    row(SNS, "KMS*", NotReady, "the topic's key is missing, disabled or not allowed"),
    row(SNS, "NotFound", NotReady, "the topic is missing"),
    row(SNS, "ParameterValueInvalid", DeadLetter, "an attribute of the message is wrong"),
    row(SNS, "Throttled*", Retry, "throttled: too many requests"),
    row(SNS, "TooManyEntriesInBatchRequest*", Refuse, "the batch is wrong"),
    row(SNS, "Validation*", Refuse, "the request does not fit SNS"),
    row(SQS, "AWS.SimpleQueueService.NonExistentQueue", NotReady, "the queue is missing"),
    row(SQS, "AWS.SimpleQueueService.QueueDeletedRecently", Retry, "a queue of this name was deleted less than a minute ago"),
    row(SQS, "AWS.SimpleQueueService.*", Refuse, "the batch is wrong"),
    row(SQS, "BatchEntryIdsNotDistinct", Refuse, "the batch is wrong"),
    row(SQS, "BatchRequestTooLong", Refuse, "the batch is wrong"),
    row(SQS, "EmptyBatchRequest", Refuse, "the batch is wrong"),
    row(SQS, "InternalError", RetryUnknown, "SQS failed"),
    row(SQS, "InvalidAddress", NotReady, "the URL names no queue"),
    row(SQS, "InvalidAttributeValue", DeadLetter, "an attribute of the message is wrong"),
    row(SQS, "InvalidBatchEntryId", Refuse, "the batch is wrong"),
    row(SQS, "InvalidMessageContents", DeadLetter, "with characters that XML 1.0 does not have"),
    row(SQS, "InvalidParameterValue*", DeadLetter, "too large, or with more than ten attributes"),
    row(SQS, "InvalidSecurity", NotReady, "the queue demands TLS"),
    row(SQS, "KMS.Throttling*", Retry, "KMS has too many requests"),
    row(SQS, "KmsThrottled", Retry, "KMS has too many requests"),
    row(SQS, "KMS*", NotReady, "the queue's key is missing, disabled or not allowed"),
    row(SQS, "MessageNotInflight", Refuse, "the message is received again"),
    row(SQS, "OverLimit", Retry, "120,000 messages of the queue are in flight"),
    row(SQS, "QueueDeletedRecently", Retry, "a queue of this name was deleted less than a minute ago"),
    row(SQS, "QueueDoesNotExist", NotReady, "the queue is missing"),
    row(SQS, "ReceiptHandleIsInvalid", Refuse, "the message is received again"),
    row(SQS, "RequestThrottled", Retry, "throttled: too many requests"),
    row(SQS, "TooManyEntriesInBatchRequest", Refuse, "the batch is wrong"),
    row(ALL, "AccessDenied*", NotReady, "a policy does not allow it"),
    row(ALL, "AuthorizationError*", NotReady, "a policy does not allow it"),
    row(ALL, "ExpiredToken*", NotReady, "the credentials have expired"),
    row(ALL, "IncompleteSignature*", NotReady, "the credentials are wrong"),
    row(ALL, "InvalidAccessKeyId", NotReady, "the credentials are wrong"),
    row(ALL, "InvalidClientTokenId", NotReady, "the credentials are wrong"),
    row(ALL, "InvalidSignature*", NotReady, "the credentials or the clock are wrong"),
    row(ALL, "MissingAuthenticationToken*", NotReady, "the credentials are missing"),
    row(ALL, "NotAuthorized*", NotReady, "a policy does not allow it"),
    row(ALL, "OptInRequired", NotReady, "the account may not use the service"),
    row(ALL, "RequestExpired", NotReady, "the clock is wrong"),
    row(ALL, "RequestTimeTooSkewed", NotReady, "the clock is wrong"),
    row(ALL, "SignatureDoesNotMatch", NotReady, "the credentials are wrong"),
    row(ALL, "Throttling*", Retry, "throttled: too many requests"),
    row(ALL, "UnrecognizedClientException", NotReady, "the credentials are wrong"),
];

/// Prefixes of the codes for calls that a policy denies.
const DENIED: [&str; 3] = ["AccessDenied", "AuthorizationError", "NotAuthorized"];

/// Errors without a row: 5xx and transport errors, and all others.
const OF_SERVER: Action = RetryUnknown;
const OF_CLIENT: Action = NotReady;

fn find(service: Engine, code: &str, message: &str) -> Option<Action> {
    let row = TABLE.iter().find(|row| row.is_for(service, code, message));
    row.map(|row| row.action)
}

fn action<E>(service: Engine, error: &SdkError<E, HttpResponse>) -> Action
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
pub fn action_of_part(service: Engine, code: &str, message: &str, sender_fault: bool) -> Action {
    let otherwise = if sender_fault { DeadLetter } else { Retry };
    find(service, code, message).unwrap_or(otherwise)
}

/// A failed call, or a failed part of one.
#[derive(Debug, Clone)]
pub struct CallError {
    pub action: Action,
    pub cause: String,
}

impl CallError {
    pub fn new(action: Action, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self { action, cause }
    }

    /// A failure that a retry can end.
    pub fn transient(cause: impl Into<String>) -> Self {
        Self::new(Action::Retry, cause)
    }

    /// A failed call of this service.
    pub fn of_call<E>(service: Engine, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        Self::new(action(service, error), error_chain(error))
    }

    /// A failed entry of a batch.
    pub fn of_entry(
        service: Engine,
        code: &str,
        message: Option<&str>,
        sender_fault: bool,
    ) -> Self {
        let message = message.unwrap_or_default();
        let action = action_of_part(service, code, message, sender_fault);
        Self::new(action, format!("{code}: {message}"))
    }
}

/// The verdict of a preflight check whose call failed. A call that a policy denies proves nothing: the check needs other rights
/// than the server.
pub fn verdict<E>(service: Engine, error: &SdkError<E, HttpResponse>) -> Verdict
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
            let service = row.service.map(|service| service.to_string());
            assert!(seen.insert((service, row.code, row.about)));
            let start = row.code.trim_end_matches('*');
            let found = TABLE
                .iter()
                .find(|one| one.is_for(of(row), start, row.about));
            let found = found.map(ToString::to_string);
            assert_eq!(found, Some(row.to_string()), "hidden");
        }
    }

    /// The service of a row, or one of all.
    fn of(row: &Entry) -> Engine {
        row.service.unwrap_or(Engine::DynamoDb)
    }

    async fn met(service: Engine, code: &str, message: &str, status: u16) -> Action {
        let server = testkit::aws::Service::refusing(code, message, status).await;
        let aws = Aws::emulated(&server.endpoint).await.without_retries();
        match service {
            Engine::DynamoDb => {
                let call = aws.dynamodb().delete_item().table_name("a-table");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            Engine::S3 => {
                let call = aws.s3().put_object().bucket("bucket").key("key");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            Engine::Sns => {
                let call = aws.sns().publish().topic_arn("topic").message("message");
                action(service, &Box::pin(call.send()).await.unwrap_err())
            }
            Engine::Redis => unreachable!("it is not an AWS service"),
            Engine::Sqs => {
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
            let action = met(of(row), &code, &message, 400).await;
            assert_eq!(action, row.action, "{row}");
        }
    }

    #[tokio::test]
    async fn an_error_without_a_row_is_tried_again_if_it_is_the_servers() {
        for service in [Engine::DynamoDb, Engine::S3, Engine::Sns, Engine::Sqs] {
            for (status, expected) in [(500, RetryUnknown), (503, RetryUnknown), (400, NotReady)] {
                let action = met(service, "NeverHeardOf", "on purpose", status).await;
                assert_eq!(action, expected, "{service} {status}");
            }
        }
    }

    #[test]
    fn a_part_without_a_row_is_at_fault_if_its_sender_is() {
        let of = |code, sender_fault| action_of_part(Engine::Sns, code, "", sender_fault);
        assert_eq!(of("InvalidParameter", true), DeadLetter);
        assert_eq!(of("NeverHeardOf", true), DeadLetter);
        assert_eq!(of("NeverHeardOf", false), Retry);
        assert_eq!(of("AuthorizationError", true), NotReady);
    }
}
