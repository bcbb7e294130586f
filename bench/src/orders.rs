//! The order line's customers and baristas, blocked customers, and the clients of the bare server. The ideal server has the same customers and baristas.

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use crate::client::{Message, Received, Session, Turn};
use crate::engine::Bench;
use crate::http::{self, Answer, Connection, Repeat, contains, status};
use crate::ledger::Ledger;
use crate::load::{BARISTAS, CUSTOMERS, Load};
use crate::programs::Server;

const ORDER: &[u8] = b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
const ORDER_ASYNC: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: respond-async\r\nContent-Length: 0\r\n\r\n";
/// Baristas' requests end with their authorization and an empty line.
const START: &[u8] = b"GET /start/?wait=55 HTTP/1.1\r\nHost: 127.0.0.1\r\n";
/// The order's id comes between the two parts.
const FINISH: &[u8] = b"POST /finish/?order_id=";
const FINISH_TAIL: &[u8] = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n";
const FINISH_NEXT_TAIL: &[u8] = b"&next=55 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n";
/// Makes the bare server answer all requests that it holds.
const RELEASE: &[u8] = b"POST /release HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";

const BLOCKED_TYPE: &str = "urn:odyssey:problem:cut-off";
/// Far more than the default limits admit before an address is blocked.
const FLOOD_MAX: u32 = 10_000;

/// Three requests: order, start, finish.
pub(crate) const CYCLE: Load = Load {
    listener: |server| server.customers,
    customer: |_, _| Box::new(Customer),
    worker: Some(|server| barista(false, server.authorization())),
    ..Load::HTTP
};

/// Two requests: order, and a finish that returns the next order.
pub(crate) const NEXT: Load = Load {
    worker: Some(|server| barista(true, server.authorization())),
    ..CYCLE
};

/// Orders of a blocked address.
pub(crate) const BLOCKED: Load = Load {
    listener: |server| server.customers,
    customer: |_, _| Repeat::boxed(ORDER, 429, |_, body| contains(body, BLOCKED_TYPE)),
    prepare: be_blocked,
    ..Load::HTTP
};

/// As many clients of the bare server as a cycle has parties; a cycle is three requests.
pub(crate) const BARE: Load = Load {
    listener: |server| server.customers,
    clients: CUSTOMERS + BARISTAS,
    customer: |_, _| Repeat::boxed(ORDER, 200, |_, body| body == b"ok"),
    units_per_answer: 1.0 / 3.0,
    ..Load::HTTP
};

/// One request of it, by as many clients as place orders.
pub(crate) const BARE_REQUEST: Load = Load {
    clients: CUSTOMERS,
    units_per_answer: 1.0,
    ..BARE
};

/// The bare server holds every request until one for `/release`.
pub(crate) const BARE_HELD: Load = Load {
    worker: Some(|_| Box::new(Releaser)),
    ..BARE
};

/// Floods the server without waiting for the coffees until it blocks this address.
fn be_blocked(server: &Server, _: &Bench) -> Result<()> {
    let mut flooder = Connection::open(server.customers)?;
    for _ in 0..FLOOD_MAX {
        match flooder.ask(ORDER_ASYNC)? {
            answer if answer.status == 429 && contains(&answer.body, BLOCKED_TYPE) => return Ok(()),
            Answer { status, .. } => ensure!(status == 202 || status == 429, "answered {status}"),
        }
    }
    bail!("this address was not blocked")
}

/// Places an order, is held, is answered.
pub(crate) struct Customer;

impl Session for Customer {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(ORDER);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 200)?;
        Ok(Received::Identity(order_id(message.body)?.0))
    }
}

/// `authorization`: a header's line, or nothing.
pub(crate) fn barista(with_next: bool, authorization: String) -> Box<dyn Session> {
    Box::new(Barista {
        with_next,
        authorization,
        open: Open::Start,
        held: Vec::new(),
    })
}

/// Starts the next order, reports it as ready at once, and so on. While the ledger is holding, the report is held back.
struct Barista {
    with_next: bool,
    authorization: String,
    open: Open,
    held: Vec<u8>,
}

/// The barista's open request.
#[derive(Clone, Copy)]
enum Open {
    Start,
    Finish(u128),
    FinishNext(u128),
}

impl Barista {
    fn start(&mut self, turn: &mut Turn) {
        self.open = Open::Start;
        for part in [START, self.authorization.as_bytes(), b"\r\n"] {
            turn.out.extend_from_slice(part);
        }
    }

    /// Once the ledger is closed no barista asks for a next order: it might never come.
    fn finish(&mut self, order: &[u8], turn: &mut Turn) -> Result<()> {
        let (id, written) = order_id(order)?;
        turn.ledger.finish(id, true);
        let (open, tail) = if self.with_next && turn.ledger.open {
            (Open::FinishNext(id), FINISH_NEXT_TAIL)
        } else {
            (Open::Finish(id), FINISH_TAIL)
        };
        self.open = open;
        let out = if turn.ledger.holding {
            &mut self.held
        } else {
            &mut *turn.out
        };
        for part in [
            FINISH,
            written,
            tail,
            self.authorization.as_bytes(),
            b"\r\n",
        ] {
            out.extend_from_slice(part);
        }
        Ok(())
    }
}

impl Session for Barista {
    fn connected(&mut self, turn: &mut Turn) {
        turn.ledger.ready += 1;
        self.start(turn);
    }

    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received> {
        let body = message.body;
        match (status(message.head)?, self.open) {
            (200, Open::Start) => self.finish(body, turn)?,
            (204, Open::Start) => self.start(turn),
            (200, Open::Finish(order)) => {
                confirm(body, order, turn.ledger)?;
                self.start(turn);
            }
            (200, Open::FinishNext(order)) => {
                let (finished, next) = finished_and_next(body)?;
                confirm(finished, order, turn.ledger)?;
                match next {
                    Some(next) => self.finish(next, turn)?,
                    None => self.start(turn),
                }
            }
            (status, _) => bail!("the barista was answered {status}"),
        }
        Ok(Received::Other)
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

/// Sends `/release` once all others are held.
struct Releaser;

impl Session for Releaser {
    fn connected(&mut self, turn: &mut Turn) {
        turn.ledger.ready += 1;
        turn.out.extend_from_slice(RELEASE);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 200)?;
        Ok(Received::Other)
    }
}

/// The order's id, as a number and as it was written.
pub(crate) fn order_id(body: &[u8]) -> Result<(u128, &[u8])> {
    let written = http::text_after(body, "\"order_id\":\"")?;
    let id = Uuid::try_parse_ascii(written).context("an order_id that is no UUID")?;
    Ok((id.as_u128(), written))
}

/// The finished order must be this one, and must have reached its customer now.
fn confirm(body: &[u8], order: u128, ledger: &mut Ledger) -> Result<()> {
    let confirmed = order_id(body)?.0;
    ensure!(confirmed == order, "another order was confirmed");
    let is_delivered = contains(body, "\"delivered\":true");
    ensure!(is_delivered, "the order was not delivered");
    let is_first = contains(body, "\"already\":false");
    ensure!(is_first, "the order had been finished before");
    ledger.confirm();
    Ok(())
}

/// The two halves of the answer to a finish with `next`, in either order.
fn finished_and_next(body: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    let position = |name| Ok::<_, anyhow::Error>(body.len() - http::after(body, name)?.len());
    let (finished, next) = (position("\"finished\":")?, position("\"next\":")?);
    let (finished, next) = if finished < next {
        (&body[finished..next], &body[next..])
    } else {
        (&body[finished..], &body[next..finished])
    };
    Ok((finished, (!next.starts_with(b"null")).then_some(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::receive;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const OK: &[u8] = b"HTTP/1.1 200 OK";

    #[test]
    fn a_barista_with_next_asks_for_none_once_the_ledger_is_closed() {
        let mut ledger = Ledger::default();
        let mut barista = barista(true, String::new());
        let started = format!(r#"{{"order_id":"{ID}"}}"#);
        let delivered = format!(r#"{{"order_id":"{ID}","delivered":true,"already":false}}"#);
        let finished_first = format!(r#"{{"finished":{delivered},"next":{started}}}"#);
        let next_first = format!(r#"{{"next":{started},"finished":{delivered}}}"#);
        for (body, open, asks) in [
            (&started, true, true),
            (&finished_first, true, true),
            (&next_first, false, false),
        ] {
            ledger.open = open;
            let out = receive(&mut *barista, &mut ledger, OK, body.as_bytes()).unwrap();
            assert!(contains(&out, "POST /finish/"));
            assert_eq!(contains(&out, "&next=55"), asks);
        }
    }
}
