//! What is measured: a program, used in one way, with the parties that use it.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;

use crate::client::{Crew, Side, Talk, Visit};
use crate::couriers::{self, Publisher, Publishing, Town};
use crate::drones::{Drone, Rhythm, Sequences};
use crate::framing::Framing;
use crate::http::{Barista, Customer, Guest, Habit, ORDER, ORDER_ONCE, Releaser};
use crate::lists::{self, Change, Onlooker, Trickle};
use crate::peers::{Manner, Program, Server};
use crate::refusals::{self, Outcast};
use crate::senders::{Ids, Sender};
use crate::{gearman, nats, redis};

/// A program in one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Order, start and finish as three requests.
    Cycle,
    /// Order, and finish with the next order in its answer: two requests.
    Next,
    /// The same as [`Subject::Cycle`], by a server without flood control.
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
    /// The same with one I/O thread, which is faster on a machine with few cores and no other load.
    GearmandOneThread,
    /// Requests to a queue group.
    Nats,
    /// Events of drones' missions, kept.
    Events,
    /// The same with a commit for each.
    EventsCommitEach,
    /// The same events, answered by the same stack without being kept.
    EventsNoop,
    /// The same events as entries of streams.
    EventsRedis,
    /// The list of a hundred ongoing deliveries.
    List,
    /// The same while a client reports a hundred events a second.
    ListMeanwhile,
    /// How many deliveries there are.
    Counts,
    /// As few bytes as counts are, from the same stack without a desk.
    CountsNoop,
    /// The bytes of the same list, from the same stack without a desk.
    ListNoop,
    /// Packages with rising ids, processed and kept.
    Packages,
    /// The same with random ids.
    PackagesRandom,
    /// The same packages as [`Subject::Packages`], answered by the same stack without being kept.
    PackagesNoop,
    /// Orders for couriers with rising ids, decided about and kept.
    Orders,
    /// The same with random ids.
    OrdersRandom,
    /// The same as [`Subject::Orders`] in lists.
    OrdersListed,
    /// The same orders as [`Subject::Orders`], answered by the same stack without being decided about or kept.
    OrdersNoop,
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
            | Subject::RefusedOnce
            | Subject::Events
            | Subject::EventsCommitEach
            | Subject::List
            | Subject::ListMeanwhile
            | Subject::Counts
            | Subject::Packages
            | Subject::PackagesRandom
            | Subject::Orders
            | Subject::OrdersRandom
            | Subject::OrdersListed => Program::Odyssey,
            Subject::Bare | Subject::BareHalved | Subject::BareHeld => Program::Bare,
            Subject::Gearmand | Subject::GearmandOneThread => Program::Gearmand,
            Subject::Nats => Program::Nats,
            Subject::EventsNoop
            | Subject::CountsNoop
            | Subject::ListNoop
            | Subject::PackagesNoop
            | Subject::OrdersNoop => Program::Noop,
            Subject::EventsRedis => Program::Redis,
        }
    }

    /// How the program is run when its speed is measured.
    pub(crate) fn manner(self) -> Manner {
        match self {
            Subject::BareHalved => Manner::HalfTheWorkers,
            Subject::GearmandOneThread => Manner::OneThread,
            Subject::Cycle
            | Subject::Next
            | Subject::CycleOnce
            | Subject::Packages
            | Subject::PackagesRandom => Manner::Generous,
            Subject::Unchecked => Manner::Unchecked,
            Subject::Refused | Subject::RefusedOnce => Manner::Unforgiving,
            Subject::EventsCommitEach => Manner::CommitEach,
            _ => Manner::Usual,
        }
    }

    /// Brings a fresh server into the state in which it is measured.
    pub(crate) fn prepare(self, server: &Server) -> Result<()> {
        match self {
            Subject::Refused | Subject::RefusedOnce => refusals::be_cut_off(server),
            Subject::List | Subject::ListMeanwhile | Subject::Counts => lists::begin(server),
            _ => match self.publishing() {
                Some(publishing) if publishing != Publishing::ToNoop => {
                    couriers::prepare(server, publishing, Town::All)
                }
                _ => Ok(()),
            },
        }
    }

    /// A background load during each measurement, until it is stopped.
    pub(crate) fn aside(self, server: &Server) -> Option<Trickle> {
        (self == Subject::ListMeanwhile).then(|| Trickle::start(server))
    }

    /// How many customers' answers make one unit of what is compared.
    pub(crate) fn answers_per_unit(self) -> u32 {
        match self {
            // A cycle is three requests.
            Subject::Bare | Subject::BareHalved | Subject::BareHeld => 3,
            _ => 1,
        }
    }

    /// How many units come with one answer.
    pub(crate) fn units_per_answer(self) -> f64 {
        match self {
            Subject::OrdersListed => couriers::LIST_F64,
            _ => 1.0,
        }
    }

    /// Whether work without a worker ready for it is lost. Then one worker must be there, and hold it.
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

    /// Drones and onlookers.
    fn at_the_delivery_desk(self, count: u32) -> Option<(Framing, Side)> {
        let drones = |sequences| {
            let drone = |number| Drone::new(number, sequences, Rhythm::AtOnce);
            (Framing::Http, each(count, drone))
        };
        let onlookers =
            |words, change| (Framing::Http, each(count, |_| Onlooker::new(words, change)));
        Some(match self {
            Subject::Events | Subject::EventsCommitEach => drones(Sequences::Counted),
            Subject::EventsNoop => drones(Sequences::AlwaysFirst),
            Subject::EventsRedis => (Framing::Redis, each(count, redis::Recorder::new)),
            Subject::List | Subject::ListNoop => onlookers(lists::LIST, Change::Never),
            Subject::ListMeanwhile => onlookers(lists::LIST, Change::MayCome),
            Subject::Counts | Subject::CountsNoop => onlookers(lists::COUNTS, Change::Never),
            _ => return None,
        })
    }

    /// Senders of packages.
    fn at_the_package_desk(self, count: u32) -> Option<Side> {
        let ids = match self {
            Subject::Packages | Subject::PackagesNoop => Ids::Rising,
            Subject::PackagesRandom => Ids::Random,
            _ => return None,
        };
        Some(each(count, |_| Sender::new(ids)))
    }

    /// How orders for couriers are reported, for the subjects that report any.
    pub(crate) fn publishing(self) -> Option<Publishing> {
        Some(match self {
            Subject::Orders => Publishing::Single,
            Subject::OrdersRandom => Publishing::SingleRandom,
            Subject::OrdersListed => Publishing::Listed,
            Subject::OrdersNoop => Publishing::ToNoop,
            _ => return None,
        })
    }

    /// The clients of a subject without workers, their framing, and the listener they connect to.
    fn by_themselves(self, server: &Server, count: u32) -> Option<(Framing, (SocketAddr, Side))> {
        if let Some((framing, asking)) = self.at_the_delivery_desk(count) {
            return Some((framing, (server.staff, asking)));
        }
        if let Some(senders) = self.at_the_package_desk(count) {
            return Some((Framing::Http, (server.customers, senders)));
        }
        let publishing = self.publishing()?;
        let publishers = each(count, |_| Publisher::new(publishing, Town::All));
        Some((Framing::Http, (server.staff, publishers)))
    }

    /// The parties.
    pub(crate) fn crew(self, server: &Server, customers: u32, workers: u32) -> Crew {
        if let Some((framing, customers)) = self.by_themselves(server, customers) {
            return Crew {
                framing,
                customers,
                visit: Visit::Stay,
                workers: (server.staff, Vec::new()),
            };
        }
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
            _ => unreachable!("all others come to one of the desks above"),
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
            Subject::Events => "events",
            Subject::EventsCommitEach => "events with a commit each",
            Subject::EventsNoop => "the no-op",
            Subject::EventsRedis => "Redis",
            Subject::List => "the list",
            Subject::ListMeanwhile => "the list while events come",
            Subject::Counts => "the counts",
            Subject::CountsNoop => "the no-op of few bytes",
            Subject::ListNoop => "the no-op of the list",
            Subject::Packages => "packages",
            Subject::PackagesRandom => "packages with random ids",
            Subject::PackagesNoop => "the no-op of packages",
            Subject::Orders => "orders",
            Subject::OrdersRandom => "orders with random ids",
            Subject::OrdersListed => "orders in lists",
            Subject::OrdersNoop => "the no-op of orders",
        })
    }
}

fn each<T: Talk + 'static>(count: u32, make: impl Fn(u32) -> T) -> Side {
    (0..count)
        .map(|number| Box::new(make(number)) as Box<dyn Talk>)
        .collect()
}
