//! Fairness under attack, in simulated time: flood control and the order line as the server puts them together, ten
//! baristas who need 45 s for a coffee, and clients with addresses all over the world.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::flood::networks::Kind;
use crate::flood::table::{Reason, Refused};
use crate::flood::{Admission, Ask};
use crate::orders::error::PlaceError;
use crate::orders::memory::Memory;
use crate::orders::model::Outcome;
use crate::orders::requests::{Placement, Wanted};

const BARISTAS: usize = 10;
const BREW: Duration = Duration::from_secs(45);

struct Town {
    orders: Memory,
    flood: Flood,
    _crew: JoinSet<()>,
}

/// How long a served customer was held, or their answer.
type Served = Result<Duration, String>;
type Placed = Result<Placement, PlaceError>;

impl Town {
    fn open() -> Self {
        let config = Config::defaults();
        let registry = Registry::new(&[]);
        let (orders, flood) = orders_and_flood(&config, None, 15_000, &registry);
        let Orders::Memory(orders) = orders else {
            unreachable!("the default is the line in memory")
        };
        let mut crew = JoinSet::new();
        let (line, table) = (orders.clone(), flood.clone());
        crew.spawn(async move { line.run_timers().await });
        crew.spawn(async move { table.sweep().await });
        for _ in 0..BARISTAS {
            let orders = orders.clone();
            crew.spawn(async move {
                loop {
                    let hour = Duration::from_hours(1);
                    let Some(taken) = orders.pull(None, true).within(hour).await else {
                        continue;
                    };
                    let id = taken.lease().id;
                    taken.confirm();
                    sleep(BREW).await;
                    orders.finish(id, None, None).unwrap();
                }
            });
        }
        Self {
            orders,
            flood,
            _crew: crew,
        }
    }

    fn admit(&self, from: IpAddr, ask: Ask) -> Result<Admission, Refused> {
        let origin = self.flood.origin(from, &HeaderMap::new());
        self.flood.admit(&origin, ask)
    }

    /// A promised order, if it is admitted.
    fn promise(&self, from: IpAddr) -> Result<(), Refused> {
        place(&self.orders, &self.flood, from, false).map(drop)
    }

    /// A held customer.
    async fn held(orders: Memory, flood: Flood, from: IpAddr) -> Served {
        let begun = Instant::now();
        let placed =
            place(&orders, &flood, from, true).map_err(|refused| format!("{refused:?}"))?;
        let Ok(Placement::Held(held)) = placed else {
            return Err("there is no place in line".to_owned());
        };
        match held.await {
            Outcome::Ready(_) => Ok(begun.elapsed()),
            other => Err(format!("{other:?}")),
        }
    }

    fn customer(&self, from: IpAddr) -> impl Future<Output = Served> + use<> {
        Self::held(self.orders.clone(), self.flood.clone(), from)
    }

    fn open_orders(&self) -> usize {
        self.flood.table().networks().total(Kind::Order)
    }
}

/// Places an order as the handler does.
fn place(orders: &Memory, flood: &Flood, from: IpAddr, hold: bool) -> Result<Placed, Refused> {
    let origin = flood.origin(from, &HeaderMap::new());
    let admission = flood.admit(&origin, Ask::Order)?;
    let wanted = Wanted {
        origin: admission.address(),
        permit: Some(Box::new(admission)),
        ..Wanted::default()
    };
    let placed = orders.place(wanted, hold);
    flood.recheck(&origin);
    Ok(placed)
}

/// A normal client, each in a provider's network of its own.
fn regular(n: u32) -> IpAddr {
    let [_, _, high, low] = n.to_be_bytes();
    Ipv4Addr::new(100 + high, low, 7, 1).into()
}

/// An attacker's addresses.
#[derive(Debug, Clone, Copy)]
enum Attacker {
    OneAddress,
    Ipv6Slash32,
    Ipv6Slash56,
    Ipv4Slash16,
}

impl Attacker {
    /// One of its ten thousand addresses.
    fn address(self, n: u32) -> IpAddr {
        let base = 0x2001_0db8_u128 << 96;
        let low = u128::from(n);
        match self {
            Self::OneAddress => Ipv4Addr::new(192, 0, 2, 66).into(),
            // As far apart as they can be.
            Self::Ipv6Slash32 => {
                let spread = u128::from(n.wrapping_mul(0x9e37_79b1));
                Ipv6Addr::from(base | spread << 64).into()
            }
            Self::Ipv6Slash56 => Ipv6Addr::from(base | (low & 0xff) << 64 | low).into(),
            Self::Ipv4Slash16 => {
                let [_, _, third, fourth] = n.to_be_bytes();
                Ipv4Addr::new(10, 9, third, fourth).into()
            }
        }
    }
}

fn median(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits[waits.len() / 2]
}

/// The median wait of 200 who come after the attacker has placed as many promised orders as it could, while the attack goes
/// on.
async fn median_behind(attacker: Attacker) -> Duration {
    let town = Town::open();
    let attack = async || {
        for n in 0..10_000 {
            let _ = town.promise(attacker.address(n));
        }
    };
    attack().await;
    attack().await;
    let ahead = town.open_orders();
    let mut customers: JoinSet<Served> = (0..200).map(|n| town.customer(regular(n))).collect();
    let mut waits = Vec::new();
    loop {
        tokio::select! {
            served = customers.join_next() => match served {
                Some(Ok(Ok(wait))) => waits.push(wait),
                None => break,
                other => panic!("{attacker:?}: {other:?}"),
            },
            () = sleep(Duration::from_secs(60)) => attack().await,
        }
    }
    let median = median(waits);
    println!("{attacker:?}: {ahead} promised orders before them, median wait {median:?}");
    median
}

#[tokio::test(start_paused = true)]
async fn with_ten_thousand_addresses_an_attacker_delays_others_little_more_than_with_one() {
    let usual = median_behind(Attacker::OneAddress).await;
    for attacker in [
        Attacker::Ipv6Slash32,
        Attacker::Ipv6Slash56,
        Attacker::Ipv4Slash16,
    ] {
        let delayed = median_behind(attacker).await;
        let bound = usual * 3 / 2;
        assert!(delayed <= bound, "{attacker:?}: {delayed:?}, {usual:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_colleague_who_floods_takes_none_of_the_200_behind_one_address_out_of_the_line() {
    let town = Town::open();
    let office: IpAddr = "198.51.100.20".parse().unwrap();
    let mut colleagues: JoinSet<Served> = (0..200).map(|_| town.customer(office)).collect();
    sleep(Duration::from_secs(1)).await;
    let mut reasons: HashMap<&str, usize> = HashMap::new();
    for _ in 0..1000 {
        if let Err(refused) = town.promise(office) {
            let reason = match refused.reason {
                Reason::Blocked => "blocked",
                Reason::Rate | Reason::Outstanding => "too much",
                Reason::Network | Reason::Scarce => "others",
            };
            *reasons.entry(reason).or_default() += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(reasons["blocked"] > 500, "{reasons:?}");
    while let Some(served) = colleagues.join_next().await {
        assert!(matches!(served, Ok(Ok(_))), "{served:?}");
    }
}

/// A day: a normal client every eight seconds; an office of 200 at ten, one of whom floods; from noon on an attacker with a
/// provider's network, from two on one with a single address that never stops, and from four on one that holds connections
/// and requests.
#[tokio::test(start_paused = true)]
async fn on_a_day_with_three_attackers_everybody_else_is_served() {
    const DAY: Duration = Duration::from_hours(24);
    let town = Town::open();
    let midnight = Instant::now();
    let at = |hour: u64| midnight + Duration::from_hours(hour);
    let regulars = async {
        let mut customers = JoinSet::new();
        for n in 0.. {
            let Some(next) = Duration::from_secs(8)
                .checked_mul(n)
                .filter(|next| *next < DAY)
            else {
                break;
            };
            sleep_until(midnight + next).await;
            customers.spawn(town.customer(regular(n)));
        }
        customers.join_all().await
    };
    let office = async {
        let office: IpAddr = "198.51.100.20".parse().unwrap();
        sleep_until(at(10)).await;
        let colleagues: JoinSet<Served> = (0..200).map(|_| town.customer(office)).collect();
        for _ in 0..1000 {
            sleep(Duration::from_millis(100)).await;
            let _ = town.promise(office);
        }
        colleagues.join_all().await
    };
    let provider = async {
        for n in 0..120_u32 {
            sleep_until(at(12) + Duration::from_secs(60) * n).await;
            // Five times its network's share.
            for address in 0..2000 {
                let _ = town.promise(Attacker::Ipv6Slash32.address(address));
            }
        }
    };
    let single = async {
        sleep_until(at(14)).await;
        let mut refused = 0_u32;
        while Instant::now() < at(16) {
            refused += u32::from(town.promise(Attacker::OneAddress.address(0)).is_err());
            sleep(Duration::from_millis(200)).await;
        }
        assert!(refused > 30_000, "{refused}");
    };
    let holder = async {
        sleep_until(at(16)).await;
        let (mut held, mut connections) = (Vec::new(), Vec::new());
        for n in 0..10_000 {
            let from = Attacker::Ipv4Slash16.address(n);
            held.extend(town.admit(from, Ask::Watch));
            connections.extend((0..10).filter_map(|_| town.flood.connect(from)));
        }
        assert_eq!((held.len(), connections.len()), (400, 7500));
        let other: IpAddr = "203.0.113.1".parse().unwrap();
        assert!(town.admit(other, Ask::Watch).is_ok() && town.flood.connect(other).is_some());
        sleep(Duration::from_hours(1)).await;
    };
    let (regulars, office, (), (), ()) = tokio::join!(regulars, office, provider, single, holder);
    let waits = |served: Vec<Served>| served.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let (regulars, office) = (waits(regulars), waits(office));
    assert_eq!((regulars.len(), office.len()), (10_800, 200));
    let worst = regulars.iter().max().unwrap();
    // 400 of the provider's, 250 of the single address's, and each other.
    assert!(*worst < Duration::from_mins(100), "{worst:?}");
    assert!(median(regulars) < Duration::from_mins(1));
    // In the evening nothing is open or tracked.
    sleep(Duration::from_hours(1)).await;
    let table = town.flood.table();
    table.sweep();
    assert_eq!((town.open_orders(), table.len()), (0, 0));
    assert!(table.networks().is_empty());
}
