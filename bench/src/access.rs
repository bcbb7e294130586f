//! Requests with tokens: refused ones beside an accepted one, and what the verification alone costs.

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use odyssey::access::token::NewToken;
use odyssey::access::tokens::{TokenSet, Tokens};
use odyssey::access::tokens_file::Entry;
use odyssey::access::{Role, Roles};

use crate::client::{Message, Received, Session, Turn};
use crate::engine::{Sample, Side, sample};
use crate::http;
use crate::load::Load;
use crate::machine::own_processor_time;

/// Of an order that does not exist.
const FINISH: &str = "POST /finish/?order_id=01890a5d-ac96-774b-bcce-b302099a8057 HTTP/1.1\r\nHost: 127.0.0.1\r\n\
    Content-Length: 0\r\n";
/// Clients whose requests one connection forwards in turn, so that none has too many refused.
const MANY: u32 = 1 << 17;
const VERIFICATIONS: u32 = 100_000;

/// A barista's token; the order is unknown.
pub(crate) const ACCEPTED: Load = Load {
    customer: |number, server| presenter(number, server.tokens.first(), MANY, &[404]),
    ..Load::HTTP
};

/// A known token without the route's role.
pub(crate) const WITHOUT_ROLE: Load = Load {
    customer: |number, server| presenter(number, server.tokens.last(), MANY, &[403]),
    ..Load::HTTP
};

pub(crate) const UNKNOWN: Load = Load {
    customer: |number, _| presenter(number, None, MANY, &[401]),
    ..Load::HTTP
};

/// The same of few clients, most of whose requests are one too many.
pub(crate) const LIMITED: Load = Load {
    customer: |number, _| presenter(number, None, 1, &[401, 429]),
    ..Load::HTTP
};

/// The header's line with this token.
pub(crate) fn authorization(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A token that no file has.
fn unknown(number: u32) -> String {
    format!("ody_{number:012x}_{:A<43}", "")
}

/// Presents a token to `/finish/`, in turn for so many `clients`. Without a known one, each client has an unknown one.
pub(crate) fn presenter(
    number: u32,
    known: Option<&String>,
    clients: u32,
    statuses: &'static [u16],
) -> Box<dyn Session> {
    Box::new(Presenter {
        number: number * MANY,
        known: known.cloned(),
        clients,
        statuses,
        sent: 0,
    })
}

struct Presenter {
    number: u32,
    known: Option<String>,
    clients: u32,
    statuses: &'static [u16],
    sent: u32,
}

impl Session for Presenter {
    fn request(&mut self, out: &mut Vec<u8>) {
        let number = self.number + self.sent % self.clients;
        self.sent += 1;
        let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
        let token = self.known.clone().unwrap_or_else(|| unknown(number));
        let line = authorization(&token);
        // Writing into a vector does not fail.
        let _ = write!(out, "{FINISH}{line}X-Forwarded-For: {client}\r\n\r\n");
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        let status = http::status(message.head)?;
        ensure!(self.statuses.contains(&status), "the status is {status}");
        Ok(Received::Answer)
    }
}

/// Verifies a token in this process, as the server does for each request.
pub(crate) struct Verification {
    tokens: TokenSet,
    presented: String,
    is_known: bool,
}

impl Verification {
    pub(crate) fn of(is_known: bool) -> Result<Self> {
        let token = NewToken::generate()?;
        let known = token.text.to_string();
        let entry = Entry {
            digest: token.digest(),
            id: token.id,
            name: "bench".to_owned(),
            roles: Roles::from(Role::Barista),
            subject: None,
            not_after: None,
        };
        let tokens = TokenSet::default();
        tokens.replace(Tokens::new(vec![entry]));
        Ok(Self {
            tokens,
            presented: if is_known { known } else { unknown(0) },
            is_known,
        })
    }
}

impl Side for Verification {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(Vec::new())
    }

    fn sample(&mut self) -> Result<Sample> {
        let begin = own_processor_time()?;
        for _ in 0..VERIFICATIONS {
            let presented = black_box(self.presented.as_bytes());
            let verified = self.tokens.verify(presented, Timestamp::now());
            ensure!(verified.is_ok() == self.is_known, "a wrong verdict");
        }
        let used = own_processor_time()?.saturating_sub(begin).as_secs_f64();
        let each = used * 1e9 / f64::from(VERIFICATIONS);
        Ok(sample([("per-token", each)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use odyssey::access::token::id_of;

    #[test]
    fn each_request_with_an_unknown_token_is_another_clients_with_another_token() {
        let mut presenter = presenter(63, None, MANY, &[401]);
        let mut request = || {
            let mut out = Vec::new();
            presenter.request(&mut out);
            let text = String::from_utf8(out).unwrap();
            let (_, rest) = text.split_once("Bearer ").unwrap();
            let (token, client) = rest.split_once("\r\nX-Forwarded-For: ").unwrap();
            (
                id_of(token.as_bytes()).unwrap().to_owned(),
                client.to_owned(),
            )
        };
        assert_eq!(
            request(),
            ("0000007e0000".to_owned(), "10.126.0.0\r\n\r\n".to_owned())
        );
        assert_eq!(
            request(),
            ("0000007e0001".to_owned(), "10.126.0.1\r\n\r\n".to_owned())
        );
    }
}
