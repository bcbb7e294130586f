//! The line in Redis or Valkey, one server or a cluster, shared by several servers of this program.
//!
//! One script, of several files, applies a call atomically. All keys are declared and share one hash tag, with the number of the
//! format and the name of the line: in a cluster one node has a line. Arguments and replies are `MessagePack` as `rmp-serde`
//! writes it: structs are arrays.
//!
//! # Durability
//! Orders are held by the servers, which assert them after Redis has lost any: `appendfsync everysec` is enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use redis::{Cmd, RedisError, RedisResult};
use serde::{Deserialize, Serialize};

use super::store::{
    Answer, Answering, Call, Event, Millis, Number, Operation, Reply, Store, StoreError,
};
use crate::storage::redis::{BLOCK_MAX, Redis as Client, Script};

const CODE: &str = concat!(
    include_str!("redis/line.lua"),
    include_str!("redis/line/steps.lua"),
    include_str!("redis/line/resync.lua"),
    include_str!("redis/line/customers.lua"),
    include_str!("redis/line/baristas.lua"),
    include_str!("redis/line/time.lua"),
    include_str!("redis/line/screens.lua"),
    include_str!("redis/line/call.lua"),
);
/// In the order of `KEYS` in the script.
const KEYS: [&str; 15] = [
    "meta", "orders", "places", "leases", "graces", "finals", "claims", "held", "named", "idle",
    "pulls", "servers", "calls", "blocked", "events",
];
/// Events of one answer at most.
const EVENTS_PAGE: usize = 1000;

/// Entries of a stream: their ids, and the name and the value of their only field.
type Entries = Vec<(String, (String, Vec<u8>))>;
/// Entries by the key of their stream; none if the time is over.
type Streams = Option<Vec<(String, Entries)>>;

/// A line in Redis.
#[derive(Debug)]
pub struct Redis {
    client: Client,
    /// Waits for events: with connections of its own, because a blocked connection answers nothing else.
    waiting: Client,
    script: Script,
    events: String,
    /// The latest event that was read, with its tag, by which the script knows it from another one of this number.
    latest: Mutex<(Number, String)>,
    /// The script's clock in milliseconds since 1970, if it is not zero.
    #[cfg(test)]
    time: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

/// [`Answer`], and the text of an error that is a defect.
#[derive(Deserialize)]
struct Applied {
    at: Millis,
    replies: Vec<Reply>,
    defect: Option<Box<str>>,
}

impl Redis {
    /// The line of this name, 1 to 64 letters, digits, `-` and `_`. Opens further connections, for events.
    ///
    /// # Errors
    /// If Redis cannot be reached a second time.
    pub async fn open(client: Client, name: &str) -> RedisResult<Self> {
        let key = |part: &str| format!("{{odyssey:line:1:{name}}}:{part}");
        Ok(Self {
            waiting: client.for_blocking().await?,
            client,
            script: Script::new(CODE, KEYS.map(key)),
            events: key("events"),
            latest: Mutex::default(),
            #[cfg(test)]
            time: std::sync::Arc::default(),
        })
    }

    async fn apply(&self, call: &Call) -> Result<Answer, StoreError> {
        let content = encode(&(call.rules, &call.operations))?;
        let (server, number, seen) = (
            call.server.to_string(),
            call.number.to_string(),
            call.seen.to_string(),
        );
        if call.operations.first() == Some(&Operation::Hello) {
            // Of what was read before, anything may be lost.
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        }
        let tag = self.tag_of(call.seen).unwrap_or_default();
        let time = self.time();
        let arguments = [
            server.as_bytes(),
            number.as_bytes(),
            seen.as_bytes(),
            tag.as_bytes(),
            time.as_bytes(),
            &content,
        ];
        let answer: RedisResult<Option<Vec<u8>>> = self.client.run(&self.script, &arguments).await;
        let applied = answer.map_err(|error| unavailable(&error))?;
        let applied: Applied = decode(&applied.ok_or(StoreError::Lost)?)?;
        match applied.defect {
            Some(defect) => Err(StoreError::Failed(defect)),
            None => Ok(Answer {
                at: applied.at,
                replies: applied.replies,
            }),
        }
    }

    fn tag_of(&self, event: Number) -> Option<String> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.0 == event && event > 0).then(|| latest.1.clone())
    }

    /// The time that the script uses; if it is empty, that of Redis.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have a clock of their own")]
    fn time(&self) -> String {
        String::new()
    }

    #[cfg(test)]
    fn time(&self) -> String {
        match self.time.load(std::sync::atomic::Ordering::Relaxed) {
            0 => String::new(),
            time => time.to_string(),
        }
    }

    async fn read_events(
        &self,
        client: &Client,
        after: Number,
        blocks: bool,
    ) -> Result<BTreeMap<Number, Event>, StoreError> {
        let mut read = Cmd::new();
        read.arg("XREAD").arg("COUNT").arg(EVENTS_PAGE);
        if blocks {
            read.arg("BLOCK").arg(BLOCK_MAX.as_millis().to_string());
        }
        read.arg("STREAMS").arg(&self.events);
        read.arg(format!("{after}-{}", u64::MAX));
        let answer: RedisResult<Streams> = client.ask(read).await;
        let streams = answer.map_err(|error| unavailable(&error))?;
        let mut events = BTreeMap::new();
        let entries = streams
            .into_iter()
            .flatten()
            .flat_map(|(_, entries)| entries);
        let mut tag = self.tag_of(after);
        for ((id, (_, event)), expected) in entries.zip(after + 1..) {
            let (before, event): (u64, Event) = decode(&event)?;
            let (number, tag_of) = id.split_once('-').unwrap_or_default();
            let follows = tag.is_none_or(|tag| tag == before.to_string());
            // Events that are missing were trimmed, or lost with others. Redis has lost the ones before if it gives their
            // numbers again.
            if number.parse() != Ok(expected) || !follows {
                return Err(StoreError::Lost);
            }
            tag = Some(tag_of.to_owned());
            events.insert(expected, event);
        }
        if let Some(((&number, _), tag)) = events.last_key_value().zip(tag) {
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = (number, tag);
        }
        Ok(events)
    }
}

/// Ids are text in it, not bytes.
fn encode(content: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_human_readable();
    let encoded = content.serialize(&mut serializer);
    encoded.map_err(|error| StoreError::Failed(error.to_string().into()))?;
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    T::deserialize(&mut deserializer).map_err(|error| StoreError::Failed(error.to_string().into()))
}

fn unavailable(error: &RedisError) -> StoreError {
    StoreError::Unavailable(error.to_string().into())
}

impl Store for Redis {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a, Answer> {
        Box::pin(self.apply(call))
    }

    fn events(&self, after: Number) -> Answering<'_, BTreeMap<Number, Event>> {
        Box::pin(self.read_events(&self.waiting, after, true))
    }
}

#[cfg(test)]
mod tests;
