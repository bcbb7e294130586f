//! The table by situations, against a naive count, and at its bounds.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;

fn limits() -> Limits {
    Limits {
        outstanding_max: 250,
        burst: NonZeroU32::new(250).unwrap(),
        refill: Duration::from_secs(1),
        cutoff_after: 100,
        cutoff_window: Duration::from_secs(60),
        cutoff_for: Duration::from_secs(600),
        addresses_max: 100_000,
    }
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

/// Asks until cut off; everything admitted is released at once.
fn flood_until_cut_off(table: &Table, who: IpNet) -> u32 {
    for asked in 1..10_000 {
        match table.admit(who) {
            Ok(key) => table.release(key),
            Err(refused) if refused.cut_off_now => return asked,
            Err(_) => {}
        }
    }
    panic!("never cut off");
}

#[tokio::test(start_paused = true)]
async fn a_group_of_200_behind_one_address_passes_untouched() {
    let table = Table::new(limits());
    for _ in 0..200 {
        table.admit(flooder()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_many_may_be_outstanding_and_each_release_makes_room_for_one() {
    let table = Table::new(Limits {
        burst: NonZeroU32::new(1000).unwrap(),
        ..limits()
    });
    for _ in 0..250 {
        table.admit(flooder()).unwrap();
    }
    let refused = table.admit(flooder()).unwrap_err();
    assert_eq!(refused.reason, Reason::Outstanding);
    table.release(flooder());
    table.admit(flooder()).unwrap();
    assert!(table.admit(flooder()).is_err());
    table.admit(address("192.0.2.8/32")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_the_burst_one_is_admitted_each_refill() {
    let table = Table::new(limits());
    let ask = || table.admit(flooder()).map(|key| table.release(key));
    for _ in 0..250 {
        ask().unwrap();
    }
    let refused = ask().unwrap_err();
    assert_eq!(refused.reason, Reason::Rate);
    assert!(refused.retry_after <= Duration::from_secs(1) && !refused.retry_after.is_zero());
    pass(1).await;
    ask().unwrap();
    assert!(ask().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_too_often_is_cut_off_and_comes_back_after_the_time() {
    let table = Table::new(limits());
    assert_eq!(flood_until_cut_off(&table, flooder()), 350);
    let refused = table.admit(flooder()).unwrap_err();
    assert_eq!(
        (refused.reason, refused.cut_off_now),
        (Reason::CutOff, false)
    );
    assert_eq!(table.cut_off()[0].address, flooder());
    pass(599).await;
    assert_eq!(
        table.admit(flooder()).unwrap_err().retry_after,
        Duration::from_secs(1)
    );
    pass(2).await;
    table.admit(flooder()).unwrap();
    assert!(table.cut_off().is_empty());
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_far_apart_cut_nobody_off() {
    let table = Table::new(limits());
    for _ in 0..250 {
        table
            .admit(flooder())
            .map(|key| table.release(key))
            .unwrap();
    }
    for round in 0..20 {
        // A minute's refills are admitted; 50 more are refused, half of what cuts an address off.
        let refilled = if round == 0 { 0 } else { 61 };
        let ask = |_: &u32| {
            table
                .admit(flooder())
                .map(|key| table.release(key))
                .is_err()
        };
        let refused = (0..refilled + 50).filter(ask).count();
        assert_eq!(refused, 50);
        pass(61).await;
    }
    assert!(table.cut_off().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_let_back_in_starts_with_a_clean_slate() {
    let table = Table::new(limits());
    flood_until_cut_off(&table, flooder());
    assert!(table.let_back_in(flooder()));
    assert!(!table.let_back_in(flooder()));
    assert_eq!(flood_until_cut_off(&table, flooder()), 350);
}

#[tokio::test(start_paused = true)]
async fn the_idle_are_swept_the_busy_and_the_cut_off_are_not() {
    let table = Table::new(limits());
    table
        .admit(address("192.0.2.1/32"))
        .map(|key| table.release(key))
        .unwrap();
    table.admit(address("192.0.2.2/32")).unwrap();
    flood_until_cut_off(&table, flooder());
    assert_eq!(table.len(), 3);
    pass(249).await;
    table.sweep();
    assert_eq!(table.len(), 3);
    pass(2).await;
    table.sweep();
    assert_eq!(table.len(), 2);
    assert!(table.cut_off_for(flooder()).is_some());
    pass(600).await;
    table.sweep();
    assert_eq!(table.len(), 1, "whoever has something outstanding");
}

#[tokio::test(start_paused = true)]
async fn a_full_table_lets_newcomers_share_and_keeps_who_is_cut_off() {
    let table = Table::new(Limits {
        addresses_max: 64,
        ..limits()
    });
    flood_until_cut_off(&table, flooder());
    for n in 0..800_u32 {
        let (third, fourth) = (n / 200, n % 200);
        let single = IpNet::from(IpAddr::V4(Ipv4Addr::from(
            0x0a00_0000 | third << 8 | fourth,
        )));
        table.admit(single).map(|key| table.release(key)).unwrap();
    }
    assert!(table.len() <= 64);
    let newcomer = address("10.0.3.200/32");
    assert_eq!(table.admit(newcomer).unwrap(), address("10.0.3.0/24"));
    assert_eq!(table.admit(flooder()).unwrap_err().reason, Reason::CutOff);
    // Who was there before the table was full keeps an entry of their own.
    assert_eq!(
        table.admit(address("10.0.0.1/32")).unwrap(),
        address("10.0.0.1/32")
    );
}

#[tokio::test(start_paused = true)]
async fn a_million_addresses_all_over_the_world_stay_within_the_bound_and_regulars_are_served() {
    let table = Table::new(limits());
    let regular = address("198.51.100.9/32");
    table.admit(regular).unwrap();
    for n in 0..1_000_000_u32 {
        // Multiplying by an odd number visits each address once, far apart.
        let spread = n.wrapping_mul(0x9e37_79b1);
        let v4 = IpNet::from(IpAddr::V4(Ipv4Addr::from(spread)));
        let _ = table.admit(v4).map(|key| table.release(key));
        if n % 4 == 0 {
            let v6 = network(IpAddr::V6(Ipv6Addr::from(u128::from(spread) << 96)), 64);
            let _ = table.admit(v6).map(|key| table.release(key));
        }
    }
    assert!(table.len() <= 100_000, "{} entries", table.len());
    assert_eq!(table.entries.len(), table.len());
    table.admit(regular).unwrap();
    pass(1000).await;
    table.sweep();
    assert_eq!(
        table.len(),
        1,
        "all but the regular, who has something outstanding, are forgotten"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u8),
    Release(usize),
    Pass(u16),
    Sweep,
}

proptest! {
    /// Whatever happens in whatever order: what is outstanding is exactly what was admitted and not released.
    #[test]
    fn outstanding_is_counted_exactly(steps in prop::collection::vec(prop_oneof![
        6 => (0_u8..4).prop_map(Step::Admit),
        4 => (0_usize..64).prop_map(Step::Release),
        1 => (0_u16..400).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ], 1..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let table = Table::new(Limits { outstanding_max: 5, burst: NonZeroU32::new(20).unwrap(), cutoff_after: 30, addresses_max: 64, ..limits() });
            let mut held: Vec<IpNet> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit(who) => {
                        let who = IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, who)));
                        let before = held.iter().filter(|&&key| key == who).count();
                        match table.admit(who) {
                            Ok(key) => {
                                prop_assert!(before < 5);
                                held.push(key);
                            }
                            Err(refused) if refused.reason == Reason::Outstanding => prop_assert_eq!(before, 5),
                            Err(_) => {}
                        }
                    }
                    Step::Release(at) => {
                        if at < held.len() {
                            table.release(held.swap_remove(at));
                        }
                    }
                    Step::Pass(secs) => pass(u64::from(secs)).await,
                    Step::Sweep => table.sweep(),
                }
                for entry in &table.entries {
                    let outstanding = held.iter().filter(|key| *key == entry.key()).count();
                    prop_assert_eq!(entry.outstanding as usize, outstanding);
                }
                prop_assert!(held.iter().all(|key| table.entries.contains_key(key)), "whoever has something outstanding is tracked");
            }
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
        let table = Table::new(Limits {
            burst: NonZeroU32::new(burst).unwrap(),
            outstanding_max: 1_000_000,
            refill,
            ..limits()
        });
        table.admit(flooder()).unwrap();
        if burst == 1 {
            let refused = table.admit(flooder()).unwrap_err();
            assert_eq!(refused.retry_after, refill);
        } else {
            table.admit(flooder()).unwrap();
        }
        table.sweep();
        assert_eq!(table.len(), 1);
    }
}
