//! The port of a line that several servers share: what a server asks of it, and what it reports, as data.
//!
//! The rules are those of [`super::line`], which is also the oracle of every store's tests. What a shared line adds: an order is
//! held by *servers*, each of which may disappear, and each of which may send or receive something twice.
//!
//! # Terms
//! - **server**: one start of the program, with a random number. After a restart it is another one.
//! - **call**: operations that are applied in order, each atomically. A server's calls are numbered 1, 2, 3, ..., one at a
//!   time. The store keeps the number and the replies of the latest: a call that is sent again is answered, not repeated.
//! - **event**: what happened to an order, for all servers. Numbered 1, 2, 3, ... without gaps.
//! - **line clock**: milliseconds that pass only while servers [`tick`](Operation::Tick), at most [`TICK_MAX`] for each. All
//!   deadlines are on it: an outage ends no lease.
//! - **ticket**: a place in line. An order keeps it; only after `attempts_max` expired leases it gets a new one.
//! - **pull id**: names one barista's request for an order. Redelivered, it gets the same order again.
//! - **confirmed**: a lease whose answer the barista's connection has taken. An unconfirmed one ends with its server.
//!
//! # Invariants, after each operation
//! 1. While an order waits, no barista of a live server is idle.
//! 2. An order is in exactly one stage; each change of it is one event.
//! 3. Who waits is held, promised, or within a grace.
//! 4. The attempt grows by one with each lease; it shrinks only when the lease did not reach its barista.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::Config;
use super::model::{OrderId, Stage};

/// How far one tick moves the line clock at most.
pub const TICK_MAX: Duration = Duration::from_secs(2);
/// Idle baristas of a server that has not ticked for this long get no order.
pub const QUIET_AFTER: Duration = Duration::from_millis(2500);
/// A server that has not ticked for this long is removed: what it held is released.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Expired, forgotten, purged or removed items of one operation at most; then the reply says that there are more.
pub const ITEMS_MAX: usize = 200;

/// One start of the program, by a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A request attached to an order, by its number at its server.
pub type AttachmentNumber = u64;

/// A number of [`Call`]s or events.
pub type Number = u64;

/// Milliseconds since 1970 by the store's clock, which never goes back; or a duration.
pub type Millis = u64;

/// How an order is known when its request comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Claim {
    /// The client's own key. An order whose customer has left stays for `reconnect_grace`.
    Key {
        /// With its scope.
        key: Box<str>,
        /// Of the body, in hexadecimal: the same key with another one is refused.
        fingerprint: Box<str>,
    },
    /// The proxy's id of the request. The proxy sends it again when a server is lost, and only then: an order whose customer
    /// has left is cancelled at once, one whose server was lost stays for `reconnect_grace`.
    Request(Box<str>),
}

/// The rules that the store applies. They travel with each call: servers may be configured differently for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rules {
    pub lease: Millis,
    pub attempts_max: u32,
    pub reconnect_grace: Millis,
    pub promise_grace: Millis,
    pub replay: Millis,
    pub remembered_max: u64,
    pub waiting_max: u64,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            lease: millis(config.lease),
            attempts_max: config.attempts_max,
            reconnect_grace: millis(config.reconnect_grace),
            promise_grace: millis(config.promise_grace),
            replay: millis(config.replay),
            remembered_max: config.remembered_max as u64,
            waiting_max: config.waiting_max as u64,
        }
    }
}

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// What a server asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// [`Reply::Welcome`]. The server is known from now on, and holds nothing. Only as the first operation of a call, whose
    /// number counts from then on.
    Hello,
    /// What this server holds, of which the store may have lost anything. Unknown orders, and those that were cancelled as unwanted
    /// although a customer waits here, are put back as in their records: at their tickets, or with their baristas under a new lease. [`Reply::Asserted`] with one place per order.
    Assert(Vec<Asserted>),
    /// The end of the orders of [`Operation::Assert`]: what the store believes this server to hold, and was not named since its
    /// `Hello`, it does not hold. Its baristas are idle, and its leases unconfirmed, as said here. [`Reply::Done`].
    Settle {
        idle: Vec<IdlePull>,
        /// Unconfirmed leases that the server still has: pull ids.
        unconfirmed: Vec<Box<str>>,
    },
    /// [`Reply::Placed`].
    Place(Box<Placing>),
    /// Attaches a request that waits until the order is final, without being its customer. [`Reply::Watched`].
    Watch {
        id: OrderId,
        attachment: AttachmentNumber,
    },
    /// A held request has ended; of one that is not attached any more it is no news. [`Reply::Left`].
    Leave {
        id: OrderId,
        attachment: AttachmentNumber,
    },
    /// A held request is answered 202: it is detached, and the order stays. [`Reply::Promised`].
    Promise {
        id: OrderId,
        attachment: AttachmentNumber,
    },
    /// The order; `renew`: its customer asks, which renews a promise. [`Reply::Viewed`].
    View { id: OrderId, renew: bool },
    /// If it waits. [`Reply::Cancelled`].
    Cancel { id: OrderId },
    /// A barista asks for the oldest order. [`Reply::Pulled`].
    Pull {
        pull: Box<str>,
        barista: Option<Box<str>>,
        /// If no order waits, the barista is idle from now on.
        waits: bool,
    },
    /// An idle barista no longer waits. [`Reply::Pulled`]: the lease that they got in the meantime, or nothing.
    Quit { pull: Box<str> },
    /// These leases' answers were taken. [`Reply::Done`].
    Confirm { pulls: Vec<Box<str>> },
    /// The lease of this pull did not reach its barista: it never was. [`Reply::Returned`].
    GiveBack { pull: Box<str> },
    /// [`Reply::Finished`].
    Finish {
        id: OrderId,
        attempt: Option<u32>,
        /// Names this report: the same one again is answered as the first time.
        report: Box<str>,
        /// JSON for the order's customers.
        result: Option<Box<str>>,
    },
    /// Renews the lease. [`Reply::Extended`].
    Extend { id: OrderId, attempt: Option<u32> },
    /// Ends the lease: the order returns to its place. [`Reply::Released`].
    Release { id: OrderId, attempt: Option<u32> },
    /// Blocks an address for so long, and cancels its waiting orders that are younger than `age`. [`Reply::Purged`]; with more
    /// than [`ITEMS_MAX`] it must be asked again.
    Purge {
        origin: Box<str>,
        age: Millis,
        blocked: Millis,
    },
    /// [`Reply::Done`].
    Unblock { origin: Box<str> },
    /// The line for its screens. [`Reply::Surveyed`].
    Survey,
    /// No new orders are placed from now on: JSON that says why; none: they are again. [`Reply::Done`].
    Shut { closed: Option<Box<str>> },
    /// Time passes: leases, graces, promises and memories end, and silent servers are removed. [`Reply::Ticked`].
    Tick,
    /// The server is about to end, and these requests, [`ITEMS_MAX`] at most, come back through another one: they are detached,
    /// and orders that no other server holds stay for `reconnect_grace`. From here on the server does not count as another one.
    /// [`Reply::Done`].
    Depart(Vec<(OrderId, AttachmentNumber)>),
}

/// An order that is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placing {
    /// Made by the server. Placed again, it is the same order.
    pub id: OrderId,
    pub claim: Option<Claim>,
    pub customer: Option<Box<str>>,
    /// JSON for its barista.
    pub details: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    /// The client's network, if flood control counts it.
    pub origin: Option<Box<str>>,
    /// The held request; without one the order is promised.
    pub attachment: Option<AttachmentNumber>,
    /// In place of `reconnect_grace`.
    pub keep: Option<Millis>,
}

/// An order that a server holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asserted {
    pub id: OrderId,
    /// As last reported.
    pub record: Record,
    /// Numbers, and whether each is a customer's.
    pub attachments: Vec<(AttachmentNumber, bool)>,
}

/// An idle barista.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdlePull {
    pub pull: Box<str>,
    pub barista: Option<Box<str>>,
}

/// An order as the store has it. Servers give it back in [`Operation::Assert`] as they got it.
///
/// The fields that only the store needs are at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub stage: StoredStage,
    pub attempts: u32,
    pub placed: Millis,
    /// When the latest barista took it.
    pub started: Option<Millis>,
    /// When it became final.
    pub ended: Option<Millis>,
    pub customer: Option<Box<str>>,
    /// The latest barista's name.
    pub barista: Option<Box<str>>,
    pub details: Option<Box<str>>,
    pub result: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    /// Whether a request was attached when it became ready.
    pub delivered: bool,
    /// Whether a request was answered 202.
    pub promised: bool,
    /// Attached requests of customers.
    pub customers: u32,
    /// Attached requests of others.
    pub watchers: u32,
    pub ticket: Number,
    /// Expired leases since it last joined the end of the line.
    pub expiries: u32,
    /// Of [`Claim::Key`].
    pub key: Option<Box<str>>,
    pub fingerprint: Option<Box<str>>,
    /// Of [`Claim::Request`].
    pub request: Option<Box<str>>,
    /// The member of the held set that is attached by [`Claim::Request`].
    pub attached: Option<Box<str>>,
    /// The report that made it ready.
    pub report: Option<Box<str>>,
    /// See [`PickupNumber`](super::model::PickupNumber).
    pub number: Option<u16>,
    /// See [`Placing::keep`].
    pub keep: Option<Millis>,
}

/// [`Stage`] in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredStage {
    Waiting,
    Brewing,
    Ready,
    Cancelled,
}

impl From<StoredStage> for Stage {
    fn from(stage: StoredStage) -> Self {
        match stage {
            StoredStage::Waiting => Self::Waiting,
            StoredStage::Brewing => Self::Brewing,
            StoredStage::Ready => Self::Ready,
            StoredStage::Cancelled => Self::Cancelled,
        }
    }
}

/// An order with its barista.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Leased {
    pub id: OrderId,
    pub record: Record,
    /// By the store's clock, when the lease ends if it is not extended.
    pub expires: Millis,
}

/// A reply, to the operation in the same place.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum Reply {
    Done,
    Welcome(Welcome),
    /// The record of each order as it is now; none of one that was put back as asserted.
    Asserted(Vec<Option<Record>>),
    Placed(Placed),
    Watched(Watched),
    Left(Left),
    /// False if the order is final already, or unknown.
    Promised(bool),
    Viewed(Option<Viewed>),
    Surveyed(Box<Surveyed>),
    Cancelled(Cancelled),
    Pulled(Pulled),
    Returned(Returned),
    Finished(Finished),
    Extended(Fenced<Leased>),
    Released(Fenced<Returned>),
    Purged(Purged),
    Ticked(Box<Ticked>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Welcome {
    /// The number of the latest event.
    pub event: Number,
    pub blocked: Vec<Blocked>,
}

/// An address whose orders are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Blocked {
    pub origin: Box<str>,
    /// For how much longer.
    pub remaining: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Placed {
    New(Record),
    /// The claim was known and its order is pending.
    Joined(OrderId, Record),
    /// The claim was known and its order is final.
    Replayed(OrderId, Record),
    /// The key was used with another body.
    KeyReused(OrderId),
    /// The line is closed: see [`Operation::Shut`].
    Shut(Box<str>),
    /// `waiting_max` are in line; by the crew's pace there is room after this time.
    Full(Option<Millis>),
    /// Its address is blocked for so much longer.
    Blocked(Millis),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a reply is read once")]
pub enum Watched {
    /// It is pending: the request is attached.
    Attached(Record),
    /// It is final, or unknown: it is not.
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Left {
    Cancelled,
    Graced,
    /// No effect on the order.
    Kept,
    /// It was not a customer's, or was not attached any more.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Viewed {
    pub record: Record,
    /// Place in line while it waits, from 1.
    pub position: Option<u64>,
    /// By the crew's pace.
    pub estimated_wait: Option<Millis>,
    /// While it waits: whether there are baristas.
    pub crew_present: Option<bool>,
    /// While it waits and was promised: it is cancelled at this time unless it is asked for.
    pub ask_before: Option<Millis>,
}

/// See [`Survey`](super::model::Survey).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Surveyed {
    pub at: Millis,
    pub waiting: u64,
    pub idle_baristas: u64,
    pub oldest_waiting: Option<Millis>,
    pub estimated_wait: Option<Millis>,
    pub crew_present: bool,
    pub closed: Option<Box<str>>,
    pub next: Vec<(OrderId, Record)>,
    pub cups: Vec<Leased>,
    pub recent: Vec<(OrderId, Record)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Cancelled {
    Now(Record),
    Already(Record),
    TooLate(StoredStage),
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Pulled {
    Order(Box<Leased>),
    /// No order waits; the barista is idle.
    Idle,
    /// No order waits; or, after [`Operation::Quit`], none was given.
    Nothing,
}

/// Where an order went whose lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Returned {
    ToLine,
    /// To an idle barista.
    Offered,
    /// Its customer had left: it is cancelled.
    Cancelled,
    /// That lease was over.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a reply is read once")]
pub enum Finished {
    Ready {
        record: Record,
        /// By another report.
        already: bool,
    },
    Unknown,
    NotStarted(StoredStage),
    Fenced {
        stage: StoredStage,
        current: u32,
    },
}

/// The result of what only the current attempt may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Fenced<T> {
    Current(T),
    Unknown,
    NotBrewing(StoredStage),
    Another { stage: StoredStage, current: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Purged {
    pub count: u64,
    /// There are more: ask again.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ticked {
    /// Due items were left over: tick again.
    pub more: bool,
    /// Until the next lease, grace or promise ends.
    pub next_due: Option<Millis>,
    /// Other servers that tick.
    pub others: u32,
    pub expired: Vec<Expired>,
    /// Orders cancelled because their customers did not return in time.
    pub abandoned: u32,
    /// Promised orders cancelled because they were not asked for.
    pub unasked: u32,
    /// Servers that were silent and are removed.
    pub removed: u32,
    pub figures: Figures,
}

/// An order whose lease expired.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Expired {
    pub id: OrderId,
    pub attempt: u32,
    pub barista: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    pub moved_back: bool,
    pub returned: Returned,
}

/// Counts of the whole line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Figures {
    pub waiting: u64,
    pub brewing: u64,
    pub ready: u64,
    pub cancelled: u64,
    /// Attached requests, at all servers.
    pub held: u64,
    pub idle_baristas: u64,
    /// Age of the first in line.
    pub oldest_waiting: Millis,
}

impl Figures {
    /// Those that change only when the line does.
    #[must_use]
    pub fn without_age(self) -> Self {
        Self {
            oldest_waiting: 0,
            ..self
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Event {
    /// A barista has it. `barista` was idle: this event is how their server gets the lease.
    Started {
        id: OrderId,
        record: Record,
        expires: Millis,
        to: Option<Handed>,
    },
    /// It is back in line.
    Returned {
        id: OrderId,
        record: Record,
    },
    Ready {
        id: OrderId,
        record: Record,
    },
    Cancelled {
        id: OrderId,
        record: Record,
        /// Its address was blocked for so long.
        blocked: Option<Millis>,
        /// It had no customer any more. A server that holds one was taken for dead: it asserts the order.
        unwanted: bool,
    },
    /// It was dropped without trace: it has no customer any more, and no barista ever had it.
    Dropped {
        id: OrderId,
    },
    Blocked(Blocked),
    Unblocked {
        origin: Box<str>,
    },
}

/// The idle barista who got an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Handed {
    /// In hexadecimal.
    pub server: Box<str>,
    pub pull: Box<str>,
}

/// A call of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub server: ServerId,
    pub number: Number,
    /// The latest event that the server has seen: a store that has fewer has lost some.
    pub seen: Number,
    pub rules: Rules,
    pub operations: Vec<Operation>,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// The store's clock.
    pub at: Millis,
    /// One per operation.
    pub replies: Vec<Reply>,
}

#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The store does not know this server, or not all that it was sent: say `Hello`, and assert.
    #[error("the store has lost what it knew of this server")]
    Lost,
    /// It may have been done, or not.
    #[error("the store does not answer: {0}")]
    Unavailable(Box<str>),
    /// A defect: an operation of the call failed, and may be applied in part. The others were applied, and the number counts:
    /// the same call again has the same result. Say `Hello`, and assert.
    #[error("the store has a defect: {0}")]
    Failed(Box<str>),
}

pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A shared line.
pub trait Store: Send + Sync + 'static {
    /// Applies a call, or answers it again.
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a, Answer>;

    /// The events after this number, in order; waits some seconds for the first one, and then returns none.
    fn events(&self, after: Number) -> Answering<'_, BTreeMap<Number, Event>>;
}
