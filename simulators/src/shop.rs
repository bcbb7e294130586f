//! The shop's HTTP contract as its visitors see it: what is sent, and what the answers mean.

use std::net::Ipv4Addr;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    client::{Client, Failure, encoded},
    connection::{Address, Answer, Outgoing, TransportError},
};

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
        answer.json().unwrap_or_default()
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

/// An order that no shop has: baristas may look it up, and it changes nothing.
pub(crate) const UNKNOWN_ORDER: &str = "/orders/00000000-0000-0000-0000-000000000000";

/// One barista's side of the counter.
#[derive(Debug)]
pub(crate) struct Counter {
    client: Client,
    barista: String,
}

impl Counter {
    /// `barista` must be made of letters, digits and hyphens.
    pub(crate) fn new(shop: Address, barista: String) -> Self {
        Self {
            client: Client::new(shop),
            barista,
        }
    }

    /// `GET /start/`: the oldest order, waiting up to `wait_s` for one. None when there was none.
    pub(crate) async fn start(&mut self, wait_s: u32) -> Result<Option<Order>, Failure> {
        let path = format!("/start/?wait={wait_s}&barista={}", self.barista);
        let answer = self.client.call(Method::GET, &path).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(None),
            _ => read(&answer).map(Some),
        }
    }

    /// `POST /finish/`.
    pub(crate) async fn finish(&mut self, order: &Order) -> Result<Finished, Failure> {
        let answer = self.client.call(Method::POST, &finish_path(order)).await?;
        match answer.status {
            // The status is what counts, whatever the body is.
            StatusCode::OK => Ok(answer.json().unwrap_or_default()),
            other => Err(Failure::Status(other)),
        }
    }

    /// `POST /finish/` that waits up to `wait_s` for the next order in the same call.
    pub(crate) async fn finish_and_start(
        &mut self,
        order: &Order,
        wait_s: u32,
    ) -> Result<(Finished, Option<Order>), Failure> {
        let finish = finish_path(order);
        let path = format!("{finish}&next={wait_s}&barista={}", self.barista);
        let answer = self.client.call(Method::POST, &path).await?;
        read::<FinishedAndNext>(&answer).map(|both| (both.finished, both.next))
    }

    /// `POST /release/`: gives an order back unbrewed.
    pub(crate) async fn release(&mut self, order: &Order) -> Result<(), Failure> {
        let path = format!("/release/?order_id={}", encoded(&order.id));
        let answer = self.client.call(Method::POST, &path).await?;
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

/// The addresses that are cut off.
pub(crate) const BLOCKED: &str = "/flood";

/// An operator's side of the counter, who looks after floods.
#[derive(Debug)]
pub(crate) struct Operator(Client);

impl Operator {
    pub(crate) fn new(shop: Address) -> Self {
        Self(Client::new(shop))
    }

    /// `GET /flood`: whether this address is cut off, and what is known about it.
    pub(crate) async fn cut_off(&mut self, address: Ipv4Addr) -> Result<Option<CutOff>, Failure> {
        let list: FloodList = read(&self.0.call(Method::GET, BLOCKED).await?)?;
        let address = address.to_string();
        let mut entries = list.cut_off.into_iter();
        let entry = entries.find(|entry| entry.address == address);
        Ok(entry.map(|entry| entry.cut_off))
    }

    /// `DELETE /flood/{address}`: lets it in again.
    pub(crate) async fn let_in(&mut self, address: Ipv4Addr) -> Result<(), Failure> {
        let path = format!("{BLOCKED}/{address}");
        let answer = self.0.call(Method::DELETE, &path).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            other => Err(Failure::Status(other)),
        }
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    match answer.status {
        StatusCode::OK => answer.json(),
        other => Err(Failure::Status(other)),
    }
}

fn finish_path(order: &Order) -> String {
    let id = encoded(&order.id);
    match order.attempt {
        Some(attempt) => format!("/finish/?order_id={id}&attempt={attempt}"),
        None => format!("/finish/?order_id={id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finish_carries_the_attempt_as_its_fence() {
        let mut order = Order {
            id: "7&8".to_owned(),
            attempt: Some(2),
        };
        assert_eq!(finish_path(&order), "/finish/?order_id=7%268&attempt=2");
        order.attempt = None;
        assert_eq!(finish_path(&order), "/finish/?order_id=7%268");
    }
}
