//! What is measured: a program, used in one way, with the parties that use it.

use std::fmt;

use anyhow::Result;

use crate::client::{Crew, Side, Talk, Visit};
use crate::framing::Framing;
use crate::http::{Barista, Customer, Guest, Habit, ORDER, ORDER_ONCE, Releaser};
use crate::peers::{Manner, Program, Server};
use crate::refusals::{self, Outcast};
use crate::{gearman, nats};

/// A program in one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Order, start and finish as three requests.
    Cycle,
    /// Order, and finish with the next order in its answer: two requests.
    Next,
    /// The same as [`Subject::Cycle`], by a server that counts nobody.
    Unchecked,
    /// The same as [`Subject::Cycle`], each order on a new connection.
    CycleOnce,
    /// Orders from an address that is cut off.
    Refused,
    /// The same, each on a new connection.
    RefusedOnce,
    /// Requests to the barest hyper server, by as many clients as a cycle has parties.
    Bare,
    /// The same, with as many worker threads as the measured server has by default instead of tokio's one per
    /// processor.
    BareHalved,
    /// Requests that the barest hyper server holds until they are released.
    BareHeld,
    /// Foreground jobs, with the four I/O threads gearmand has by default.
    Gearmand,
    /// The same with one I/O thread, which is faster where cores are few and nobody else wants them.
    GearmandOneThread,
    /// Requests to a queue group.
    Nats,
}

impl Subject {
    /// The program behind it.
    pub(crate) fn program(self) -> Program {
        match self {
            Subject::Cycle
            | Subject::Next
            | Subject::Unchecked
            | Subject::CycleOnce
            | Subject::Refused
            | Subject::RefusedOnce => Program::Odyssey,
            Subject::Bare | Subject::BareHalved | Subject::BareHeld => Program::Bare,
            Subject::Gearmand | Subject::GearmandOneThread => Program::Gearmand,
            Subject::Nats => Program::Nats,
        }
    }

    /// How the program is run when its speed is measured.
    pub(crate) fn manner(self) -> Manner {
        match self {
            Subject::BareHalved => Manner::HalfTheWorkers,
            Subject::GearmandOneThread => Manner::OneThread,
            Subject::Cycle | Subject::Next | Subject::CycleOnce => Manner::Generous,
            Subject::Unchecked => Manner::Unchecked,
            Subject::Refused | Subject::RefusedOnce => Manner::Unforgiving,
            Subject::Bare | Subject::BareHeld | Subject::Gearmand | Subject::Nats => Manner::Usual,
        }
    }

    /// Brings a fresh server into the state in which it is measured.
    pub(crate) fn prepare(self, server: &Server) -> Result<()> {
        match self {
            Subject::Refused | Subject::RefusedOnce => refusals::be_cut_off(server),
            _ => Ok(()),
        }
    }

    /// How many customers' answers make one unit of what is compared.
    pub(crate) fn answers_per_unit(self) -> u32 {
        match self {
            // A cycle is three requests.
            Subject::Bare | Subject::BareHalved | Subject::BareHeld => 3,
            _ => 1,
        }
    }

    /// Whether work that is asked for while nobody can do it is lost. Then one worker must be there, and hold it.
    pub(crate) fn needs_workers_first(self) -> bool {
        self == Subject::Nats
    }

    /// The measured server's baristas alone, for customers who come in another way.
    pub(crate) fn baristas(count: u32) -> (Framing, Side) {
        (
            Framing::Http,
            each(count, |_| Barista::new(Habit::Separate)),
        )
    }

    /// The parties.
    pub(crate) fn crew(self, server: &Server, customers: u32, workers: u32) -> Crew {
        let (framing, asking, working): (_, Side, Side) = match self {
            Subject::Cycle | Subject::Unchecked => (
                Framing::Http,
                each(customers, |_| Customer(ORDER)),
                each(workers, |_| Barista::new(Habit::Separate)),
            ),
            Subject::CycleOnce => (
                Framing::Http,
                each(customers, |_| Customer(ORDER_ONCE)),
                each(workers, |_| Barista::new(Habit::Separate)),
            ),
            Subject::Refused => (
                Framing::Http,
                each(customers, |_| Outcast(ORDER)),
                Vec::new(),
            ),
            Subject::RefusedOnce => (
                Framing::Http,
                each(customers, |_| Outcast(ORDER_ONCE)),
                Vec::new(),
            ),
            Subject::Next => (
                Framing::Http,
                each(customers, |_| Customer(ORDER)),
                each(workers, |_| Barista::new(Habit::Next)),
            ),
            Subject::Bare | Subject::BareHalved => (
                Framing::Http,
                each(customers + workers, |_| Guest),
                Vec::new(),
            ),
            Subject::BareHeld => (
                Framing::Http,
                each(customers, |_| Guest),
                each(1, |_| Releaser),
            ),
            Subject::Gearmand | Subject::GearmandOneThread => (
                Framing::Gearman,
                each(customers, gearman::Submitter::new),
                each(workers, |_| gearman::Worker),
            ),
            Subject::Nats => (
                Framing::Nats,
                each(customers, nats::Requester::new),
                each(workers, |_| nats::Worker::new()),
            ),
        };
        Crew {
            framing,
            customers: (server.customers, asking),
            visit: match self {
                Subject::CycleOnce | Subject::RefusedOnce => Visit::Once,
                _ => Visit::Stay,
            },
            workers: (server.staff, working),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::Cycle | Subject::Next => "odyssey",
            Subject::Unchecked => "odyssey without flood control",
            Subject::CycleOnce => "odyssey with new connections",
            Subject::Refused => "refusals",
            Subject::RefusedOnce => "refusals with new connections",
            Subject::Bare | Subject::BareHeld => "bare hyper",
            Subject::BareHalved => "bare hyper with half the workers",
            Subject::Gearmand => "gearmand",
            Subject::GearmandOneThread => "gearmand with 1 thread",
            Subject::Nats => "NATS",
        })
    }
}

fn each<T: Talk + 'static>(count: u32, make: impl Fn(u32) -> T) -> Side {
    (0..count)
        .map(|number| Box::new(make(number)) as Box<dyn Talk>)
        .collect()
}
