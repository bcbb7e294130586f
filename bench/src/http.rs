//! HTTP/1.1: the measured server's customers and baristas, and the bare server's clients.

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use crate::client::Talk;
use crate::framing::Frame;
use crate::ledger::Ledger;

/// Asks for a coffee, with nothing that could be left out.
pub(crate) const ORDER: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
/// The same, on a connection for nothing else.
pub(crate) const ORDER_ONCE: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
/// Asks for the next order, and waits for it as long as the server allows.
const START: &[u8] = b"GET /start/?wait=55 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Reports an order as ready; the order's id comes between the two parts.
const FINISH: &[u8] = b"POST /finish/?order_id=";
const FINISH_TAIL: &[u8] = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
/// The same, and asks for the next order in the same breath.
const FINISH_NEXT_TAIL: &[u8] =
    b"&next=55 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
/// Releases all requests that the bare server holds.
const RELEASE: &[u8] = b"POST /release HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";

/// Longer heads are no answer of any server measured here.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const UUID_LEN: usize = 36;

/// The first response in `bytes`. A response without a body announces that with its status or a length of 0.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(head_len) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        ensure!(
            bytes.len() < HEAD_MAX_BYTES,
            "the head of an answer does not end"
        );
        return Ok(None);
    };
    let head = &bytes[..head_len];
    let body_len = match content_length(head)? {
        Some(len) => len,
        None if status(head)? == 204 => 0,
        None => bail!(
            "an answer without a length: {:?}",
            String::from_utf8_lossy(head)
        ),
    };
    let end = head_len + body_len;
    Ok((bytes.len() >= end).then_some(Frame {
        body: head_len..end,
        end,
    }))
}

fn content_length(head: &[u8]) -> Result<Option<usize>> {
    const NAME: &[u8] = b"content-length:";
    for line in head.split(|&byte| byte == b'\n') {
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = str::from_utf8(&line[NAME.len()..])?.trim();
            return Ok(Some(
                value
                    .parse()
                    .with_context(|| format!("the length {value:?}"))?,
            ));
        }
    }
    Ok(None)
}

/// An answer's status.
pub(crate) fn status(head: &[u8]) -> Result<u16> {
    let digits = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let digits = digits.context("this is not an HTTP/1.1 answer")?;
    Ok(str::from_utf8(digits)?.parse()?)
}

/// Orders in these words, is held, is answered, orders again.
pub(crate) struct Customer(pub(crate) &'static [u8]);

impl Talk for Customer {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(self.0);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(status(head)? == 200, "the customer was not given a coffee");
        ledger.answer(order_id(body)?.0);
        if ledger.open {
            self.open(ledger, out);
        }
        Ok(())
    }

    fn nudge(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        self.open(ledger, out);
    }
}

/// How a barista asks for work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// `/start/` and `/finish/` are two requests.
    Separate,
    /// `/finish/` with `next` is both.
    Next,
}

/// Takes the next order, reports it ready at once, and so on.
pub(crate) struct Barista {
    habit: Habit,
    asked: Asked,
}

/// What the barista's outstanding request was.
#[derive(Clone, Copy)]
enum Asked {
    Start,
    Finish(u128),
    FinishNext(u128),
}

impl Barista {
    /// A barista who has not begun.
    pub(crate) fn new(habit: Habit) -> Self {
        Barista {
            habit,
            asked: Asked::Start,
        }
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        self.asked = Asked::Start;
        out.extend_from_slice(START);
    }

    /// After the books are closed no worker asks for a next order with its confirmation: that order might never come.
    fn finish(&mut self, (order, written): (u128, &[u8]), ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.finish_unconfirmed(order);
        out.extend_from_slice(FINISH);
        out.extend_from_slice(written);
        if self.habit == Habit::Next && ledger.open {
            self.asked = Asked::FinishNext(order);
            out.extend_from_slice(FINISH_NEXT_TAIL);
        } else {
            self.asked = Asked::Finish(order);
            out.extend_from_slice(FINISH_TAIL);
        }
    }
}

impl Talk for Barista {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.ready += 1;
        self.start(out);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match (status(head)?, self.asked) {
            (200, Asked::Start) => self.finish(order_id(body)?, ledger, out),
            (204, Asked::Start) => self.start(out),
            (200, Asked::Finish(order)) => {
                confirm(body, order)?;
                ledger.confirm();
                self.start(out);
            }
            (200, Asked::FinishNext(order)) => {
                let (finished, next) = finished_and_next(body)?;
                confirm(finished, order)?;
                ledger.confirm();
                match next {
                    Some(next) => self.finish(order_id(next)?, ledger, out),
                    None => self.start(out),
                }
            }
            (status, _) => bail!("the barista was answered {status}"),
        }
        Ok(())
    }
}

/// Asks the bare server, which sends every client the same answer.
pub(crate) struct Guest;

impl Talk for Guest {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(ORDER);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(
            status(head)? == 200 && body == b"ok",
            "the bare server has one answer, and this is not it"
        );
        ledger.answer_alike();
        if ledger.open {
            self.open(ledger, out);
        }
        Ok(())
    }
}

/// Makes the bare server release all requests it holds.
pub(crate) struct Releaser;

impl Talk for Releaser {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.ready += 1;
        out.extend_from_slice(RELEASE);
    }

    fn receive(&mut self, head: &[u8], _: &[u8], _: &mut Ledger, _: &mut Vec<u8>) -> Result<()> {
        ensure!(status(head)? == 200, "the bare server did not let go");
        Ok(())
    }
}

/// The order's id, as a number to compare and as it was written.
pub(crate) fn order_id(body: &[u8]) -> Result<(u128, &[u8])> {
    const NAME: &[u8] = b"\"order_id\":\"";
    let at = memmem::find(body, NAME).context("an answer without order_id")? + NAME.len();
    let written = body
        .get(at..at + UUID_LEN)
        .context("an order_id that is cut off")?;
    Ok((uuid(written)?, written))
}

fn uuid(written: &[u8]) -> Result<u128> {
    let mut number = 0;
    let mut digits = 0;
    for (at, &byte) in written.iter().enumerate() {
        match (at, char::from(byte).to_digit(16)) {
            (8 | 13 | 18 | 23, None) if byte == b'-' => {}
            (_, Some(digit)) => {
                number = number << 4 | u128::from(digit);
                digits += 1;
            }
            (_, None) => bail!("an order_id that is no UUID"),
        }
    }
    ensure!(digits == 32, "an order_id that is no UUID");
    Ok(number)
}

/// Expects the confirmation that just this order has reached its customer.
fn confirm(body: &[u8], order: u128) -> Result<()> {
    ensure!(
        order_id(body)?.0 == order,
        "another order was confirmed than the one reported"
    );
    ensure!(
        memmem::find(body, b"\"delivered\":true").is_some(),
        "the order was not delivered"
    );
    ensure!(
        memmem::find(body, b"\"already\":false").is_some(),
        "the order had been finished before"
    );
    Ok(())
}

/// The two halves of the answer to a finish with `next`, whichever comes first.
fn finished_and_next(body: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    const NEXT: &[u8] = b"\"next\":";
    let next = memmem::find(body, NEXT).context("an answer without next")?;
    let finished = memmem::find(body, b"\"finished\":").context("an answer without finished")?;
    let (finished, next) = if finished < next {
        (&body[finished..next], &body[next + NEXT.len()..])
    } else {
        (&body[finished..], &body[next + NEXT.len()..finished])
    };
    Ok((finished, (!next.starts_with(b"null")).then_some(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Framing, contract};

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn answers_are_found_however_they_arrive() {
        let stream =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello\
            HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nContent-Length:0\r\n\r\n\
            HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 4\r\n\r\n\r\n\r\n";
        contract::holds_at_every_split(Framing::Http, stream, &[b"hello", b"", b"", b"\r\n\r\n"]);
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        assert!(first(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(first(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
        assert!(first(&vec![b'x'; HEAD_MAX_BYTES]).is_err());
    }

    #[test]
    fn an_order_id_is_found_and_read() {
        let body = format!(r#"{{"status":"ready","order_id":"{ID}","attempts":1}}"#);
        let (number, written) = order_id(body.as_bytes()).unwrap();
        assert_eq!(number, 0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
        assert_eq!(written, ID.as_bytes());
    }

    #[test]
    fn what_is_no_order_id_is_refused() {
        assert!(order_id(b"{}").is_err());
        assert!(order_id(br#"{"order_id":"0189"}"#).is_err());
        assert!(uuid(ID.replace('-', "a").as_bytes()).is_err());
        assert!(uuid(ID.replace('a', "g").as_bytes()).is_err());
    }

    #[test]
    fn both_halves_of_a_finish_with_next_are_told_apart() {
        let (finished, next) =
            finished_and_next(br#"{"finished":{"a":1},"next":{"b":2}}"#).unwrap();
        assert_eq!(
            (finished, next),
            (&br#""finished":{"a":1},"#[..], Some(&br#"{"b":2}}"#[..]))
        );
        let (finished, next) =
            finished_and_next(br#"{"next":{"b":2},"finished":{"a":1}}"#).unwrap();
        assert_eq!(
            (finished, next),
            (&br#""finished":{"a":1}}"#[..], Some(&br#"{"b":2},"#[..]))
        );
        assert_eq!(
            finished_and_next(br#"{"finished":{},"next":null}"#)
                .unwrap()
                .1,
            None
        );
        assert!(finished_and_next(br#"{"finished":{}}"#).is_err());
    }

    #[test]
    fn only_the_delivery_of_the_same_order_confirms_it() {
        let answer = |delivered, already| {
            format!(r#"{{"order_id":"{ID}","delivered":{delivered},"already":{already}}}"#)
        };
        let order = uuid(ID.as_bytes()).unwrap();
        assert!(confirm(answer(true, false).as_bytes(), order).is_ok());
        assert!(confirm(answer(false, false).as_bytes(), order).is_err());
        assert!(confirm(answer(true, true).as_bytes(), order).is_err());
        assert!(confirm(answer(true, false).as_bytes(), order + 1).is_err());
    }

    #[test]
    fn a_barista_with_next_waits_for_none_once_the_books_are_closed() {
        let mut ledger = Ledger::new();
        let mut barista = Barista::new(Habit::Next);
        let mut out = Vec::new();
        let started = format!(r#"{{"order_id":"{ID}"}}"#);

        ledger.open = true;
        barista.open(&mut ledger, &mut out);
        out.clear();
        barista
            .receive(
                b"HTTP/1.1 200 OK",
                started.as_bytes(),
                &mut ledger,
                &mut out,
            )
            .unwrap();
        assert!(memmem::find(&out, b"&next=55").is_some());

        ledger.open = false;
        out.clear();
        let both = format!(
            r#"{{"finished":{{"order_id":"{ID}","delivered":true,"already":false}},"next":{{"order_id":"{ID}"}}}}"#
        );
        barista
            .receive(b"HTTP/1.1 200 OK", both.as_bytes(), &mut ledger, &mut out)
            .unwrap();
        assert!(memmem::find(&out, b"POST /finish/").is_some());
        assert!(memmem::find(&out, b"next").is_none());
    }
}
