//! SNS and SQS with failures that an emulator does not have: entries of a batch fail, and invalid messages are refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use testkit::aws::{self, Request, Service};
use tokio::time::sleep;

/// What was asked for, and what is there.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Bodies of messages that were not received yet.
    pub(super) queue: Vec<String>,
    /// The ARN that every queue returns.
    pub(super) queue_arn: Option<String>,
    /// Delete calls, each with its receipts.
    pub(super) deletions: Vec<Vec<String>>,
    /// Publish calls, each with its messages.
    pub(super) publications: Vec<Vec<String>>,
    /// Messages that were sent to a queue, as requested.
    pub(super) sent: Vec<Value>,
    /// A message with this text is refused ...
    pub(super) refused: Option<String>,
    /// ... with the whole batch.
    pub(super) refuses_wholly: bool,
    /// How often each message, or receipt, was seen.
    seen: BTreeMap<String, u32>,
}

impl Book {
    /// Whether this entry fails: every second one, the first time it is seen.
    fn fails(&mut self, place: usize, one: &str) -> bool {
        let seen = self.seen.entry(one.to_owned()).or_default();
        *seen += 1;
        *seen == 1 && place % 2 == 1
    }

    fn receive(&mut self) -> Value {
        let bodies = self.queue.drain(..self.queue.len().min(10));
        let messages = bodies.map(|body| {
            let receipt = format!("receipt of {body}");
            json!({"MessageId": body, "ReceiptHandle": receipt, "Body": body})
        });
        json!({"Messages": messages.collect::<Vec<_>>()})
    }

    fn delete(&mut self, request: &Value) -> Value {
        let entries = request["Entries"].as_array().unwrap();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let receipts = entries.iter().map(|entry| text(entry, "ReceiptHandle"));
        self.deletions.push(receipts.collect());
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (place, entry) in entries.iter().enumerate() {
            let id = text(entry, "Id");
            if self.fails(place, &text(entry, "ReceiptHandle")) {
                failed.push(json!({"Id": id, "SenderFault": false, "Code": "InternalError"}));
            } else {
                done.push(json!({"Id": id}));
            }
        }
        json!({"Successful": done, "Failed": failed})
    }

    /// Whether the topic never accepts it: for its characters, as SNS does, or because the test says so.
    fn refuses(&self, message: &str) -> bool {
        let refused = self.refused.as_deref();
        message.contains(['\u{FFFE}', '\u{FFFF}'])
            || refused.is_some_and(|refused| message.contains(refused))
    }

    fn publish(&mut self, request: &Request) -> Vec<u8> {
        let form = std::str::from_utf8(&request.body).unwrap();
        let fields: BTreeMap<&str, String> = form
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| {
                let value = value.replace('+', " ");
                let value = percent_decode_str(&value).decode_utf8().unwrap();
                (name, value.into_owned())
            })
            .collect();
        let entry = |number: usize, name: &str| {
            let field = format!("PublishBatchRequestEntries.member.{number}.{name}");
            fields.get(&*field).cloned()
        };
        let entries = (1..).map_while(|number| entry(number, "Id").zip(entry(number, "Message")));
        let entries: Vec<(String, String)> = entries.collect();
        let messages = entries.iter().map(|(_, message)| message.clone());
        self.publications.push(messages.collect());
        if self.refuses_wholly && entries.iter().any(|(_, message)| self.refuses(message)) {
            return aws::error(request, "InvalidParameter", "on purpose", 400, None);
        }
        let (mut done, mut failed) = (String::new(), String::new());
        for (place, (id, message)) in entries.iter().enumerate() {
            if self.refuses(message) {
                let fault = "<Code>InvalidParameter</Code><SenderFault>true</SenderFault>";
                write!(failed, "<member><Id>{id}</Id>{fault}</member>").unwrap();
            } else if self.fails(place, message) {
                let fault = "<Code>InternalError</Code><SenderFault>false</SenderFault>";
                write!(failed, "<member><Id>{id}</Id>{fault}</member>").unwrap();
            } else {
                let message = format!("<MessageId>{id}</MessageId>");
                write!(done, "<member><Id>{id}</Id>{message}</member>").unwrap();
            }
        }
        let answer = format!(
            "<PublishBatchResponse><PublishBatchResult><Successful>{done}</Successful><Failed>{failed}</Failed>\
             </PublishBatchResult></PublishBatchResponse>"
        );
        aws::answer("text/xml", &answer)
    }
}

/// Both services at one address, until it is dropped.
pub(super) struct Fickle {
    pub(super) service: Service,
    pub(super) book: Arc<Mutex<Book>>,
}

impl Fickle {
    pub(super) async fn open(queue: Vec<String>) -> Self {
        let book = Book {
            queue,
            ..Book::default()
        };
        let book = Arc::new(Mutex::new(book));
        let ours = Arc::clone(&book);
        let service = Service::start(move |request| answer(Arc::clone(&ours), request)).await;
        Self { service, book }
    }
}

async fn answer(book: Arc<Mutex<Book>>, request: Request) -> Vec<u8> {
    let Some(target) = request.field("x-amz-target") else {
        return book.lock().unwrap().publish(&request);
    };
    let request: Value = serde_json::from_slice(&request.body).unwrap();
    let answer = match target {
        "AmazonSQS.ReceiveMessage" => {
            let received = book.lock().unwrap().receive();
            if received["Messages"] == json!([]) {
                sleep(Duration::from_millis(100)).await;
            }
            received
        }
        "AmazonSQS.GetQueueAttributes" => {
            let arn = book.lock().unwrap().queue_arn.clone();
            arn.map_or(json!({}), |arn| json!({"Attributes": {"QueueArn": arn}}))
        }
        "AmazonSQS.DeleteMessageBatch" => book.lock().unwrap().delete(&request),
        "AmazonSQS.SendMessage" => {
            book.lock().unwrap().sent.push(request);
            json!({"MessageId": "sent"})
        }
        _ => json!({}),
    };
    aws::answer("application/x-amz-json-1.0", &answer.to_string())
}
