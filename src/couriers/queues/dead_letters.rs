//! Sends messages to the dead-letter queue, each with its own attributes, the reason, and its queue's name.

use std::collections::HashMap;

use aws_sdk_sqs::types::MessageAttributeValue;
use tracing::warn;

use super::topology::Topology;
use crate::storage::aws::errors::CallError;
use crate::storage::preflight::Engine;

/// The attribute with the reason. It replaces a message's own attribute of this name; so does [`QUEUE`].
pub(super) const REASON: &str = "reason";
/// The attribute with the name of the queue the message was in.
pub(super) const QUEUE: &str = "queue";

pub(super) type Attributes = HashMap<String, MessageAttributeValue>;

pub(super) struct Letter<'a> {
    /// Empty if it was never sent.
    pub(super) id: &'a str,
    pub(super) body: &'a str,
    pub(super) attributes: &'a Attributes,
    pub(super) reason: &'a str,
    /// The name of the queue that it was in, or was meant for; empty if it is not configured here.
    pub(super) queue: &'a str,
}

/// # Errors
/// Why it was not sent.
pub(super) async fn dead_letter(topology: &Topology, letter: &Letter<'_>) -> Result<(), CallError> {
    let Letter {
        id,
        body,
        attributes,
        reason,
        queue,
    } = *letter;
    let made = topology.ensure().await;
    made.map_err(|error| CallError::transient(error.to_string()))?;
    let mut ours = vec![(REASON, reason), (QUEUE, queue)];
    ours.retain(|(_, text)| !text.is_empty());
    // A message of the maximum size, or with ten attributes, has no room for ours.
    for count in (0..=ours.len()).rev() {
        let mut all = attributes.clone();
        for (name, text) in &ours[ours.len() - count..] {
            let text = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(*text)
                .build();
            let text = text.map_err(|error| CallError::transient(error.to_string()))?;
            all.insert((*name).to_owned(), text);
        }
        let send = topology.sqs().send_message();
        let send = send
            .queue_url(&topology.endpoints().dead_letters)
            .message_body(body)
            .set_message_attributes((!all.is_empty()).then_some(all));
        let answer = Box::pin(send.send()).await;
        match answer.map_err(|error| CallError::of_call(Engine::Sqs, &error)) {
            Ok(_) => break,
            Err(call_error) if call_error.action.is_final() && count > 0 => {}
            Err(call_error) => return Err(call_error),
        }
    }
    warn!(
        queue,
        message_id = id,
        reason,
        "a message is in the dead-letter queue"
    );
    Ok(())
}
