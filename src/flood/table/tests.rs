//! The table by situations, against a naive count, and at its bounds.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;

fn config() -> Config {
    crate::config::Config::defaults().flood
}

fn limits() -> Limits {
    limits_with(|_| {})
}

/// Limits with this change of the configuration.
fn limits_with(change: impl FnOnce(&mut Config)) -> Limits {
    let mut config = config();
    change(&mut config);
    Limits::new(config, 10_000, 12_000)
}

fn address(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn flooder() -> IpNet {
    address("192.0.2.7/32")
}

async fn pass(secs: u64) {
    sleep(Duration::from_secs(secs)).await;
}

/// A well-formed order that is over at once.
fn order(table: &Table, who: IpNet) -> Result<(), Refused> {
    table
        .admit(who, Ask::Order)
        .map(|counted| table.release(&counted))
}

/// Orders that stay open.
fn orders(table: &Table, who: IpNet, count: usize) -> Vec<Counted> {
    let one = |_| table.admit(who, Ask::Order).unwrap();
    (0..count).map(one).collect()
}

fn release(table: &Table, all: &[Counted]) {
    for counted in all {
        table.release(counted);
    }
}

fn reason(table: &Table, who: IpNet) -> Reason {
    table.admit(who, Ask::Order).unwrap_err().reason
}

/// Asks until blocked; everything admitted is over at once.
fn flood_until_cut_off(table: &Table, who: IpNet) -> u32 {
    for asked in 1..10_000 {
        if order(table, who).is_err_and(|refused| refused.blocked_since.is_some()) {
            return asked;
        }
    }
    panic!("never blocked");
}

#[tokio::test(start_paused = true)]
async fn a_group_of_200_behind_one_address_passes_untouched() {
    let table = Table::new(limits());
    orders(&table, flooder(), 200);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_may_be_open_and_each_that_is_over_makes_room_for_one() {
    let table = Table::new(limits_with(|it| it.burst = 1000));
    let open = orders(&table, flooder(), 250);
    assert_eq!(reason(&table, flooder()), Reason::Outstanding);
    table.release(&open[0]);
    orders(&table, flooder(), 1);
    assert_eq!(reason(&table, flooder()), Reason::Outstanding);
    orders(&table, address("192.0.2.8/32"), 1);
}

#[tokio::test(start_paused = true)]
async fn held_requests_count_by_themselves_and_cost_nothing_of_the_rate() {
    let table = Table::new(limits());
    let open = orders(&table, flooder(), 250);
    let watch = || table.admit(flooder(), Ask::Watch);
    let watching: Vec<_> = (0..250).map(|_| watch().unwrap()).collect();
    assert_eq!(watch().unwrap_err().reason, Reason::Outstanding);
    table.release(&watching[0]);
    assert!(watch().is_ok(), "a blocked client may poll its orders");
    assert_eq!(reason(&table, flooder()), Reason::Outstanding);
    release(&table, &open);
    assert_eq!(table.networks().total(Kind::Order), 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_burst_one_is_admitted_each_refill_or_ten_other_writes() {
    let table = Table::new(limits());
    for _ in 0..250 {
        order(&table, flooder()).unwrap();
    }
    let refused = order(&table, flooder()).unwrap_err();
    assert_eq!(refused.reason, Reason::Rate);
    assert!(refused.retry_after <= Duration::from_secs(1) && !refused.retry_after.is_zero());
    pass(1).await;
    order(&table, flooder()).unwrap();
    assert!(order(&table, flooder()).is_err());
    pass(1).await;
    let write = || table.admit(flooder(), Ask::Write);
    for left in (0..10).rev() {
        assert_eq!(write().unwrap().left, Some(left));
    }
    assert_eq!(write().unwrap_err().reason, Reason::Rate);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_too_often_is_cut_off_and_comes_back_after_the_time() {
    let table = Table::new(limits());
    assert_eq!(flood_until_cut_off(&table, flooder()), 350);
    let refused = order(&table, flooder()).unwrap_err();
    assert_eq!(
        (refused.reason, refused.blocked_since),
        (Reason::Blocked, None)
    );
    let [entry] = table.blocked()[..] else {
        panic!("one is blocked")
    };
    assert_eq!((entry.address, entry.reason), (flooder(), Reason::Rate));
    assert!(table.admit(flooder(), Ask::Write).is_err());
    assert!(table.admit(flooder(), Ask::Watch).is_ok());
    pass(599).await;
    let refused = order(&table, flooder()).unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_secs(1));
    pass(2).await;
    order(&table, flooder()).unwrap();
    assert!(table.blocked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_placed_before_the_refusals_is_told_from_what_came_after() {
    let table = Table::new(limits());
    pass(10).await;
    orders(&table, flooder(), 250);
    pass(1).await;
    let first = Instant::now();
    assert!(order(&table, flooder()).is_err(), "one is refused first");
    for _ in 0..98 {
        pass(1).await;
        order(&table, flooder()).unwrap_err();
    }
    // The window had been over: what counts began later.
    let later = Instant::now();
    let since = loop {
        let refused = order(&table, flooder()).unwrap_err();
        if let Some(since) = refused.blocked_since {
            break since;
        }
    };
    assert!(since > first && since <= later, "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_far_apart_cut_nobody_off() {
    let table = Table::new(limits());
    for _ in 0..250 {
        order(&table, flooder()).unwrap();
    }
    for round in 0..20 {
        // A minute's refills are admitted; 50 more are refused, half of what blocks an address.
        let refilled = if round == 0 { 0 } else { 61 };
        let ask = |_: &u32| order(&table, flooder()).is_err();
        let refused = (0..refilled + 50).filter(ask).count();
        assert_eq!(refused, 50);
        pass(61).await;
    }
    assert!(table.blocked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_let_back_in_starts_with_a_clean_slate() {
    let table = Table::new(limits());
    flood_until_cut_off(&table, flooder());
    assert!(table.unblock(flooder()));
    assert!(!table.unblock(flooder()));
    assert_eq!(flood_until_cut_off(&table, flooder()), 350);
}

// --- Networks --------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn all_addresses_of_a_network_have_no_more_than_its_share() {
    for (within, count, most) in [
        // One subscriber with 256 addresses of 64 bits, one site, and one provider.
        ("2001:db8:0:{}00::/56", 256, 250),
        ("2001:db8:0:{}::/48", 10_000, 325),
        ("2001:db8:{}::/32", 10_000, 400),
        ("192.0.2.{}/24", 256, 325),
        ("10.9.{}/16", 10_000, 400),
    ] {
        let table = Table::new(limits());
        let one = |n: u32| {
            let text = match within {
                "2001:db8:0:{}00::/56" => format!("2001:db8:0:1{n:02x}::/64"),
                "2001:db8:0:{}::/48" => format!("2001:db8:0:{n:x}::/64"),
                "2001:db8:{}::/32" => format!("2001:db8:{n:x}::/64"),
                "192.0.2.{}/24" => format!("192.0.2.{n}/32"),
                _ => format!("10.9.{}.{}/32", n >> 8, n & 255),
            };
            address(&text)
        };
        let mut open = Vec::new();
        for round in 0..3 {
            for n in 0..count {
                match table.admit(one(n), Ask::Order) {
                    Ok(counted) => open.push(counted),
                    Err(refused) => {
                        let reasons = [Reason::Network, Reason::Outstanding];
                        assert!(reasons.contains(&refused.reason), "{within} {round}");
                        assert_eq!(refused.blocked_since, None, "a neighbour's doing");
                    }
                }
            }
        }
        assert_eq!(open.len(), most, "{within}");
        // Elsewhere there is room, and what is over makes some here.
        orders(&table, address("198.51.100.1/32"), 1);
        release(&table, &open.split_off(open.len() - 1));
        assert!(table.admit(one(count - 1), Ask::Order).is_ok(), "{within}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_fuller_the_line_the_less_an_origin_may_have_and_the_last_places_are_for_newcomers() {
    let limits = Limits {
        shares: Shares {
            places: 1600,
            ..limits().shares
        },
        ..limits()
    };
    let table = Table::new(limits);
    // 1,600 places: 800 are half of them, the last 100 are reserved.
    let mut others = (0..).map(|n: u32| address(&format!("{}.7.0.1/32", 20 + n)));
    let mut fill = |until: usize| {
        while table.networks().total(Kind::Order) < until {
            let who = others.next().unwrap();
            let rest = until - table.networks().total(Kind::Order);
            for _ in 0..rest.min(200) {
                if table.admit(who, Ask::Order).is_err() {
                    break;
                }
            }
        }
    };
    let mut most = |open: usize, who: &str| {
        fill(open);
        let who = address(who);
        let mut held = Vec::new();
        let refused = loop {
            match table.admit(who, Ask::Order) {
                Ok(counted) => held.push(counted),
                Err(refused) => break refused,
            }
        };
        let count = held.len();
        release(&table, &held);
        (count, refused.reason)
    };
    assert_eq!(most(0, "10.1.0.1/32"), (250, Reason::Outstanding));
    let (count, reason) = most(1000, "10.2.0.1/32");
    assert!(
        (100..160).contains(&count) && reason == Reason::Scarce,
        "{count} {reason:?}"
    );
    let (count, reason) = most(1400, "10.3.0.1/32");
    assert!(
        (10..40).contains(&count) && reason == Reason::Scarce,
        "{count} {reason:?}"
    );
    assert_eq!(most(1500, "10.4.0.1/32"), (1, Reason::Scarce));
    // However often they are refused, they are not blocked.
    for _ in 0..1000 {
        let _ = table.admit(address("10.4.0.1/32"), Ask::Order);
    }
    assert!(table.blocked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_order_of_each_address_fills_no_more_than_the_shares_of_the_networks() {
    let table = Table::new(limits());
    let mut by_provider = Vec::new();
    for provider in 0..60 {
        let site = |n: u32| {
            address(&format!(
                "{}.7.{}.{}/32",
                20 + provider,
                n / 200,
                1 + n % 200
            ))
        };
        let admitted = (0..600).filter(|&n| table.admit(site(n), Ask::Order).is_ok());
        by_provider.push(admitted.count());
    }
    assert_eq!(by_provider[0], 400);
    assert!(
        by_provider[20] < 300 && by_provider[59] < 100,
        "{by_provider:?}"
    );
    assert!(table.networks().total(Kind::Order) < 9500);
}

#[tokio::test(start_paused = true)]
async fn a_line_of_a_few_places_has_none_to_reserve() {
    let table = Table::new(Limits {
        shares: Shares {
            places: 3,
            ..limits().shares
        },
        ..limits()
    });
    orders(&table, flooder(), 10);
}

// --- Memory ----------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn who_cannot_be_told_from_a_newcomer_is_swept_and_others_are_not() {
    let table = Table::new(limits());
    order(&table, address("192.0.2.1/32")).unwrap();
    flood_until_cut_off(&table, flooder());
    for _ in 0..250 {
        order(&table, address("192.0.2.2/32")).unwrap();
    }
    assert_eq!(table.len(), 3);
    pass(1).await;
    table.sweep();
    assert_eq!(table.len(), 2, "one order is refilled");
    pass(249).await;
    table.sweep();
    assert_eq!(table.len(), 1, "250 orders are refilled");
    assert!(!table.blocked().is_empty());
    pass(600).await;
    table.sweep();
    assert_eq!(table.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_leaves_no_entry_unless_there_was_one() {
    let table = Table::new(limits());
    let malformed = |who| {
        let mut counted = table.admit(who, Ask::Write).unwrap();
        counted.malformed = true;
        table.release(&counted);
    };
    for n in 0..100_000_u32 {
        malformed(IpNet::from(IpAddr::V4(Ipv4Addr::from(n << 12))));
    }
    // What remains is of the networks' rates, and is full again in a moment.
    pass(1).await;
    table.sweep();
    assert_eq!(table.len(), 0);
    order(&table, flooder()).unwrap();
    for _ in 0..2490 {
        malformed(flooder());
    }
    assert_eq!(reason(&table, flooder()), Reason::Rate);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_write_gives_nothing_back_of_what_others_have_taken() {
    let table = Table::new(limits());
    let write = || table.admit(flooder(), Ask::Write);
    let mut accepted = 0;
    while let (Ok(proper), Ok(mut malformed)) = (write(), write()) {
        malformed.malformed = true;
        table.release(&malformed);
        // Its client leaves before it is answered, or not.
        table.release(&proper);
        accepted += 1;
    }
    assert!(accepted <= 1250, "{accepted} of a burst of 2,500");
}

#[tokio::test(start_paused = true)]
async fn many_addresses_of_a_subscriber_or_a_provider_share_a_rate_of_writes() {
    for (bits, most) in [(56, 2500), (32, 4000)] {
        let table = Table::new(limits());
        let base = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
        let step = if bits == 56 { 1 << 64 } else { 1 << 72 };
        let mut accepted = 0;
        for n in 0..100_u128 {
            let who = network(IpAddr::V6(Ipv6Addr::from(base + n * step)), 64);
            for _ in 0..100 {
                let write = table.admit(who, Ask::Write);
                accepted += usize::from(write.map(|counted| table.release(&counted)).is_ok());
            }
        }
        assert_eq!(accepted, most, "of a /{bits}");
        let elsewhere = address("2001:db9::/64");
        assert!(table.admit(elsewhere, Ask::Write).is_ok());
        assert!(table.blocked().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_table_lets_newcomers_share_a_rate_and_cuts_no_shared_entry_off() {
    let table = Table::new(limits_with(|it| it.addresses_max = 128));
    flood_until_cut_off(&table, flooder());
    let one = |n: u32| address(&format!("10.0.{}.{}/32", n / 200, n % 200));
    for n in 0..800 {
        order(&table, one(n)).unwrap();
    }
    assert!(table.len() <= 64, "IPv4 has half of the room");
    let newcomer = address("10.0.3.200/32");
    let counted = table.admit(newcomer, Ask::Order).unwrap();
    assert_eq!(counted.entry, address("10.0.3.0/24"));
    assert_eq!(counted.address, newcomer);
    assert_eq!(reason(&table, flooder()), Reason::Blocked);
    // A flooder among those who share is refused by the rate, however often, and so are the others.
    for _ in 0..5000 {
        let refused = order(&table, address("10.0.3.201/32")).err();
        assert!(refused.is_none_or(|refused| refused.blocked_since.is_none()));
    }
    assert_eq!(reason(&table, newcomer), Reason::Rate);
    assert_eq!(table.blocked().len(), 1);
    // Addresses from before the table was full have entries of their own; IPv6 has its own room.
    let first = table.admit(one(0), Ask::Order).unwrap();
    assert_eq!(first.entry, one(0));
    let v6 = address("2001:db8::/64");
    assert_eq!(table.admit(v6, Ask::Order).unwrap().entry, v6);
    // A second later the others are in their initial state: there is room again.
    pass(1).await;
    let again = address("10.0.3.202/32");
    assert_eq!(table.admit(again, Ask::Order).unwrap().entry, again);
}

#[tokio::test(start_paused = true)]
async fn a_million_addresses_all_over_the_world_stay_within_the_bound_and_regulars_are_served() {
    let table = Table::new(limits());
    let regular = address("198.51.100.9/32");
    orders(&table, regular, 1);
    for n in 0..1_000_000_u32 {
        // Multiplying by an odd number visits each address once, far apart.
        let spread = n.wrapping_mul(0x9e37_79b1);
        let _ = order(&table, IpNet::from(IpAddr::V4(Ipv4Addr::from(spread))));
        if n % 4 == 0 {
            let v6 = network(IpAddr::V6(Ipv6Addr::from(u128::from(spread) << 96)), 64);
            let _ = order(&table, v6);
        }
    }
    assert!(table.len() <= 100_000, "{} entries", table.len());
    let entries = table.families.iter().map(|family| family.entries.len());
    assert_eq!(entries.sum::<usize>(), table.len());
    orders(&table, regular, 1);
    assert_eq!(table.networks().total(Kind::Order), 2);
    pass(1000).await;
    table.sweep();
    assert_eq!(table.len(), 0, "all entries are in their initial state");
}

// --- Every admission is released exactly once --------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Admit(u8, Ask, bool),
    Release(usize),
    Pass(u16),
    Sweep,
}

/// Twelve addresses that share networks of every width.
fn neighbour(n: u8) -> IpNet {
    const NEIGHBOURS: [&str; 12] = [
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.0.1.1/32",
        "10.1.0.1/32",
        "2001:db8::/64",
        "2001:db8:0:1::/64",
        "2001:db8:0:100::/64",
        "2001:db8:1::/64",
        "2001:db8:1:1::/64",
        "2001:db9::/64",
        "192.0.2.1/32",
        "192.0.3.1/32",
    ];
    address(NEIGHBOURS[usize::from(n)])
}

proptest! {
    /// After any sequence of operations the open items, at every width, are exactly those admitted and not released.
    #[test]
    fn what_is_open_is_counted_exactly_at_every_width(steps in prop::collection::vec(prop_oneof![
        6 => (0_u8..12, prop::sample::select(&[Ask::Order, Ask::Watch, Ask::Write][..]), any::<bool>())
            .prop_map(|(who, ask, kept)| Step::Admit(who, ask, kept)),
        4 => (0_usize..64).prop_map(Step::Release),
        1 => (0_u16..400).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ], 1..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let shares = Shares { address_max: 5, network_max: 9, places: 40 };
            let config = Config { burst: 20, cutoff_after: 30, addresses_max: 32, ..config() };
            let table = Table::new(Limits { shares, config, ..limits() });
            let mut held: Vec<(IpNet, Kind, Counted)> = Vec::new();
            let last = steps.len() - 1;
            for (number, step) in steps.into_iter().enumerate() {
                let mut touched = None;
                match step {
                    Step::Admit(who, ask, kept) => {
                        let who = neighbour(who);
                        touched = Some(who);
                        if let Ok(mut counted) = table.admit(who, ask) {
                            counted.malformed = !kept;
                            match ask.kind() {
                                Some(kind) => held.push((who, kind, counted)),
                                None => table.release(&counted),
                            }
                        }
                    }
                    Step::Release(at) => {
                        if at < held.len() {
                            let (who, _, counted) = held.swap_remove(at);
                            touched = Some(who);
                            table.release(&counted);
                        }
                    }
                    Step::Pass(secs) => pass(u64::from(secs)).await,
                    Step::Sweep => table.sweep(),
                }
                // Counting takes most of the time: of all addresses only now and then, of the one in the step always.
                let all = number % 8 == 0 || number == last;
                let compared = |who: &IpNet| all || touched == Some(*who);
                for kind in [Kind::Order, Kind::Watch] {
                    let open = |network: &IpNet| held.iter().filter(|(who, of, _)| *of == kind && network.contains(who)).count();
                    for bits in [16, 24, 32, 48, 56, 64] {
                        for who in (0..12).map(neighbour).filter(|who| compared(who) && bits <= who.prefix_len()) {
                            if matches!((who, bits), (IpNet::V6(_), 16 | 24)) {
                                continue;
                            }
                            let network = network(who.addr(), bits);
                            let count = table.networks().open(network, kind) as usize;
                            prop_assert_eq!(count, open(&network), "{} {:?}", network, kind);
                            prop_assert!(count <= 9, "{}", network);
                        }
                    }
                    prop_assert_eq!(table.networks().total(kind), held.iter().filter(|(_, of, _)| *of == kind).count());
                }
            }
            for (_, _, counted) in held.drain(..) {
                table.release(&counted);
            }
            prop_assert!(table.networks().is_empty(), "released networks are not tracked");
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_and_the_shortest_refills_are_counted_without_overflow() {
    let hours_24_000 = Duration::from_hours(24_000);
    for (burst, refill) in [
        (1_000_000, hours_24_000 / 1_000_000),
        (1000, hours_24_000 / 1000),
        (1_000_000, Duration::from_micros(1)),
        (1, Duration::from_hours(24)),
    ] {
        let table = Table::new(limits_with(|it| {
            (it.burst, it.refill) = (burst, refill);
        }));
        order(&table, flooder()).unwrap();
        if burst == 1 {
            let refused = order(&table, flooder()).unwrap_err();
            assert!(refused.retry_after <= refill && refused.retry_after > refill / 2);
        } else {
            order(&table, flooder()).unwrap();
        }
        let again = table.len();
        assert_eq!(again, 1);
    }
}
