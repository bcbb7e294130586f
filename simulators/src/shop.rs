//! The shop's HTTP contract as its visitors see it: what is sent, and what the answers mean.

use std::{fmt, net::Ipv4Addr};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};

use crate::connection::{Address, Answer, Connection, Outgoing, TransportError};

/// `POST /order/` on a connection of its own, from this address of ours if one is given; returns when the shop has
/// answered.
pub(crate) async fn order(
    shop: &Address,
    from: Option<Ipv4Addr>,
    customer: &str,
) -> Result<Answer, TransportError> {
    let request = order_request(shop, customer);
    shop.connect(from).await?.exchange(request).await
}

/// `POST /order/`, to be sent on whatever connection.
pub(crate) fn order_request(shop: &Address, customer: &str) -> Outgoing {
    let body = serde_json::json!({ "customer": customer }).to_string();
    shop.request(Method::POST, "/order/", Some(body.into()))
}

/// The body of a customer's 200. All of it is optional here: the status is what counts, these fields only show whether the
/// order of the line was respected.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) placed_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) attempts: Option<u32>,
}

impl Receipt {
    /// An answer that cannot be read is an empty receipt.
    pub(crate) fn read(answer: &Answer) -> Self {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

/// An order handed to a barista.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Order {
    #[serde(rename = "order_id")]
    pub(crate) id: String,
    /// Fences the finish against a later barista's, where the shop gave one.
    pub(crate) attempt: Option<u32>,
}

/// What the shop made of a finished coffee.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Finished {
    /// False when the customer had gone.
    pub(crate) delivered: Option<bool>,
    /// True when this finish had been reported before.
    pub(crate) already: bool,
}

/// A finish that also asked for the next order.
#[derive(Debug, Deserialize)]
struct FinishedAndNext {
    finished: Finished,
    next: Option<Order>,
}

/// Why a barista got nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No complete answer.
    Transport(TransportError),
    /// A status that the contract has for this situation or another.
    Status(StatusCode),
    /// A 200 that does not say what it should.
    Unreadable,
}

impl Failure {
    /// Whether the same call may succeed later: nothing was said, or the shop is unwell.
    pub(crate) fn is_temporary(self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Status(status) => {
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreadable => false,
        }
    }
}

/// A staff client; its connection is reused between calls and replaced when it is closed.
///
/// Every call may be dropped while it waits; the connection is then closed, so the shop notices.
#[derive(Debug)]
pub(crate) struct Caller {
    shop: Address,
    connection: Option<Connection>,
    /// The address of ours that it comes from; none for whichever leads to the shop.
    from: Option<Ipv4Addr>,
    /// None for the connection's own.
    answer_max_bytes: Option<usize>,
}

impl Caller {
    pub(crate) fn new(shop: Address) -> Self {
        Self {
            shop,
            connection: None,
            from: None,
            answer_max_bytes: None,
        }
    }

    /// It comes from this address of ours.
    pub(crate) fn coming_from(self, from: Option<Ipv4Addr>) -> Self {
        Self { from, ..self }
    }

    /// Answers may be so large, and no larger.
    pub(crate) fn taking_answers_up_to(mut self, bytes: usize) -> Self {
        self.answer_max_bytes = Some(bytes);
        self
    }

    /// Calls without a body.
    pub(crate) async fn call(&mut self, method: Method, path: &str) -> Result<Answer, Failure> {
        let request = self.request(method, path, None);
        self.send(request).await.map_err(Failure::Transport)
    }

    /// A request that is yet to be sent; a body is JSON.
    pub(crate) fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Outgoing {
        self.shop.request(method, path, body)
    }

    pub(crate) async fn send(&mut self, request: Outgoing) -> Result<Answer, TransportError> {
        // The connection is put back only after a whole answer, so an exchange that failed or
        // was dropped half-way takes its connection with it.
        let kept = self.connection.take().filter(Connection::is_open);
        let exchange = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer = connection.exchange(request).await?;
            Ok((connection, answer))
        };
        let (connection, answer) = exchange.await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let connection = self.shop.connect(self.from).await?;
        Ok(match self.answer_max_bytes {
            Some(bytes) => connection.taking_answers_up_to(bytes),
            None => connection,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "{error}"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Unreadable => f.write_str("unreadable answer"),
        }
    }
}

/// One barista's side of the counter.
#[derive(Debug)]
pub(crate) struct Counter {
    caller: Caller,
    barista: String,
}

impl Counter {
    /// `barista` must be made of letters, digits and hyphens.
    pub(crate) fn new(shop: Address, barista: String) -> Self {
        Self {
            caller: Caller::new(shop),
            barista,
        }
    }

    /// `GET /start/`: the oldest order, waiting up to `wait_s` for one. None when there was none.
    pub(crate) async fn start(&mut self, wait_s: u32) -> Result<Option<Order>, Failure> {
        let path = format!("/start/?wait={wait_s}&barista={}", self.barista);
        let answer = self.caller.call(Method::GET, &path).await?;
        match answer.status {
            StatusCode::OK => read(&answer).map(Some),
            StatusCode::NO_CONTENT => Ok(None),
            other => Err(Failure::Status(other)),
        }
    }

    /// `POST /finish/`.
    pub(crate) async fn finish(&mut self, order: &Order) -> Result<Finished, Failure> {
        let path = finish_path(order);
        let answer = self.caller.call(Method::POST, &path).await?;
        match answer.status {
            // The status is what counts; a shop that says no more is taken at its word.
            StatusCode::OK => Ok(read(&answer).unwrap_or_default()),
            other => Err(Failure::Status(other)),
        }
    }

    /// `POST /finish/` that waits up to `wait_s` for the next order in the same call.
    pub(crate) async fn finish_and_start(
        &mut self,
        order: &Order,
        wait_s: u32,
    ) -> Result<(Finished, Option<Order>), Failure> {
        let path = format!(
            "{}&next={wait_s}&barista={}",
            finish_path(order),
            self.barista
        );
        let answer = self.caller.call(Method::POST, &path).await?;
        match answer.status {
            StatusCode::OK => {
                read::<FinishedAndNext>(&answer).map(|both| (both.finished, both.next))
            }
            other => Err(Failure::Status(other)),
        }
    }

    /// `POST /release/`: gives an order back unbrewed.
    pub(crate) async fn release(&mut self, order: &Order) -> Result<(), Failure> {
        let path = format!("/release/?order_id={}", encoded(&order.id));
        let answer = self.caller.call(Method::POST, &path).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            other => Err(Failure::Status(other)),
        }
    }
}

/// The shop's record of an address that it has cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct CutOff {
    pub(crate) until: Timestamp,
    /// Orders of this address that the shop has refused, where it counts them.
    pub(crate) refused: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct FloodList {
    cut_off: Vec<FloodListEntry>,
}

#[derive(Debug, Deserialize)]
struct FloodListEntry {
    /// Not parsed: it may also name a network.
    address: String,
    #[serde(flatten)]
    cut_off: CutOff,
}

/// An operator's side of the counter, who looks after floods.
#[derive(Debug)]
pub(crate) struct Operator(Caller);

impl Operator {
    pub(crate) fn new(shop: Address) -> Self {
        Self(Caller::new(shop))
    }

    /// `GET /flood`: whether this address is cut off, and what is known about it.
    pub(crate) async fn cut_off(&mut self, address: Ipv4Addr) -> Result<Option<CutOff>, Failure> {
        let answer = self.0.call(Method::GET, "/flood").await?;
        match answer.status {
            StatusCode::OK => {
                let list: FloodList = read(&answer)?;
                let address = address.to_string();
                let mut entries = list.cut_off.into_iter();
                let entry = entries.find(|entry| entry.address == address);
                Ok(entry.map(|entry| entry.cut_off))
            }
            other => Err(Failure::Status(other)),
        }
    }

    /// `DELETE /flood/{address}`: lets it in again.
    pub(crate) async fn let_in(&mut self, address: Ipv4Addr) -> Result<(), Failure> {
        let path = format!("/flood/{address}");
        let answer = self.0.call(Method::DELETE, &path).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            other => Err(Failure::Status(other)),
        }
    }
}

fn finish_path(order: &Order) -> String {
    let id = encoded(&order.id);
    match order.attempt {
        Some(attempt) => format!("/finish/?order_id={id}&attempt={attempt}"),
        None => format!("/finish/?order_id={id}"),
    }
}

/// An answer's JSON.
pub(crate) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| Failure::Unreadable)
}

/// Percent-encodes a query value; an order's id is the shop's and may hold anything.
pub(crate) fn encoded(value: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_for_a_query() {
        assert_eq!(encoded("0198-ab_c.~"), "0198-ab_c.~");
        assert_eq!(encoded("a&b=c é"), "a%26b%3Dc%20%C3%A9");
    }

    #[test]
    fn a_finish_carries_the_attempt_as_its_fence() {
        let mut order = Order {
            id: "7".to_owned(),
            attempt: Some(2),
        };
        assert_eq!(finish_path(&order), "/finish/?order_id=7&attempt=2");
        order.attempt = None;
        assert_eq!(finish_path(&order), "/finish/?order_id=7");
    }

    #[test]
    fn only_silence_and_an_unwell_shop_are_worth_another_try() {
        assert!(Failure::Transport(TransportError::Refused).is_temporary());
        assert!(Failure::Status(StatusCode::SERVICE_UNAVAILABLE).is_temporary());
        assert!(Failure::Status(StatusCode::TOO_MANY_REQUESTS).is_temporary());
        assert!(!Failure::Status(StatusCode::CONFLICT).is_temporary());
        assert!(!Failure::Unreadable.is_temporary());
    }
}
