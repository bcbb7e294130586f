//! The final checks: the shop's answers among themselves, the events sent, and the log as the model reads it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ledger::Ledger,
    state::{Log, State},
};
use crate::{
    audit::{Check, Faults},
    courier_desk::{Parked, Whereabouts, Zone},
    shop::Failure,
};

/// All that must hold. The first of them is whether everything was acknowledged. `state` is why not all could be asked.
pub(crate) fn all(ledger: &Ledger, state: &Result<State, Failure>) -> Vec<Check> {
    let mut checks = vec![
        Check::nothing_given_up(
            "every event acknowledged",
            "events",
            ledger.acknowledged,
            &ledger.given_up,
            ledger.fate_unknown,
        ),
        Check::without(
            "outcomes fit their events",
            &ledger.misanswered,
            ledger.acknowledged,
        ),
    ];
    match state {
        Ok(state) => checks.extend(of_state(ledger, state)),
        Err(failure) => {
            let finding = format!("not all could be asked: {failure}");
            checks.push(Check::new("the shop's final state", false, finding));
        }
    }
    checks
}

fn of_state(ledger: &Ledger, state: &State) -> [Check; 10] {
    let Log {
        events,
        faults,
        concurrent,
        ..
    } = &state.log;
    let (orders, couriers) = (count(state.courier_of.len()), count(state.orders_of.len()));
    let quiet = match concurrent {
        0 => "nobody did".to_owned(),
        times => format!("{times} events: what the shop showed cannot be judged"),
    };
    let shown = count(state.couriers.len());
    [
        Check::new("nobody told anything meanwhile", *concurrent == 0, quiet),
        Check::without("the log comes to the same again", faults, *events),
        Check::without(
            "what was told is in the log",
            &missing(ledger, state),
            count(ledger.events.len()),
        ),
        Check::without(
            "orders given once, or parked",
            &given_once(ledger, state),
            orders,
        ),
        Check::without("both questions agree", &questions(state), orders),
        Check::without("answers name one courier", &answers(ledger, state), orders),
        Check::without("counts are those of the orders", &counts(state), couriers),
        Check::without("nobody idle beside the parked", &idle(state), 4),
        Check::without(
            "couriers as said last",
            &latest_of(ledger, state),
            count(ledger.couriers.len()),
        ),
        Check::without(
            "all is as the log has it",
            &as_logged(state),
            orders + shown,
        ),
    ]
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Events that are in the log less often than they were acknowledged.
fn missing(ledger: &Ledger, state: &State) -> Faults {
    let mut faults = Faults::default();
    for (event, acknowledged) in &ledger.events {
        let times = state.log.times.get(event).copied().unwrap_or(0);
        if times < *acknowledged {
            faults.note(|| format!("{event}: {times} times, acknowledged {acknowledged} times"));
        }
    }
    faults
}

/// In how many lists each order is, twice in one among them.
fn lists_with(state: &State) -> BTreeMap<&str, usize> {
    let mut lists: BTreeMap<&str, usize> = BTreeMap::new();
    for order in state.orders_of.values().flatten() {
        *lists.entry(order).or_default() += 1;
    }
    lists
}

/// Every order that was acknowledged is in one courier's list and not among the parked, or the other way round.
fn given_once(ledger: &Ledger, state: &State) -> Faults {
    let mut faults = Faults::default();
    let lists = lists_with(state);
    let listed: BTreeSet<&str> = state
        .parked
        .orders
        .iter()
        .map(|order| &order.id[..])
        .collect();
    for (order, found) in &state.courier_of {
        let times = lists.get(&order[..]).copied().unwrap_or(0);
        let is_listed = listed.contains(&order[..]);
        let holds = match found {
            Whereabouts::With(_) => times == 1 && !is_listed,
            Whereabouts::Parked => times == 0 && (is_listed || !is_whole(&state.parked)),
            Whereabouts::Unknown => !ledger.orders[order].acknowledged && times == 0,
        };
        if !holds {
            faults.note(|| {
                let parked = if is_listed { ", parked" } else { "" };
                format!("{order}: {found:?}, in {times} couriers' lists{parked}")
            });
        }
    }
    faults
}

/// Whether all orders that wait are listed.
fn is_whole(parked: &Parked) -> bool {
    count(parked.orders.len()) >= parked.total
}

/// An order is in the list of just the courier whom the shop names.
fn questions(state: &State) -> Faults {
    let mut faults = Faults::default();
    for (courier, orders) in &state.orders_of {
        for order in orders {
            if let Some(found) = state.courier_of.get(order)
                && *found != Whereabouts::With(courier.clone())
            {
                faults.note(|| format!("{order} is in the list of {courier}, but {found:?}"));
            }
        }
    }
    for (order, found) in &state.courier_of {
        if let Whereabouts::With(courier) = found
            && !state.orders_of[courier].contains(order)
        {
            faults.note(|| format!("{order} is not in the list of {courier}"));
        }
    }
    faults
}

/// An order's courier is still the one that the answers named.
fn answers(ledger: &Ledger, state: &State) -> Faults {
    let mut faults = Faults {
        times: ledger.contradictions.times,
        first: ledger.contradictions.first.clone(),
    };
    for (order, known) in &ledger.orders {
        let Some(courier) = &known.courier else {
            continue;
        };
        let found = &state.courier_of[order];
        if *found != Whereabouts::With(courier.clone()) {
            faults.note(|| format!("{order} was {courier}'s, but is {found:?}"));
        }
    }
    faults
}

/// A count is what the courier began with and the orders in the list.
fn counts(state: &State) -> Faults {
    let mut faults = Faults::default();
    for (courier, orders) in &state.orders_of {
        let known = state.log.model.couriers.get(courier);
        let expected = known.map(|known| known.began_with + count(orders.len()));
        let mut shown = state.couriers.iter();
        let shown = shown.find(|shown| shown.latest.id == *courier);
        let shown = shown.map(|shown| shown.count);
        // What was said of a courier may never have been heard; then there is nothing to count.
        if shown != expected || (known.is_none() && !orders.is_empty()) {
            faults.note(|| format!("{courier}: {shown:?}, not {expected:?}"));
        }
    }
    faults
}

/// No zone has both an available courier and a parked order.
fn idle(state: &State) -> Faults {
    let mut faults = Faults::default();
    for zone in Zone::ALL {
        let mut couriers = state.couriers.iter().map(|shown| &shown.latest);
        let mut orders = state.parked.orders.iter();
        let courier = couriers.find(|latest| latest.zone == zone && latest.is_available);
        let order = orders.find(|order| order.zone == zone);
        if let (Some(courier), Some(order)) = (courier, order) {
            faults.note(|| format!("{zone:?}: {} waits beside {}", order.id, courier.id));
        }
    }
    faults
}

/// Name, zone and availability are those that were said last.
fn latest_of(ledger: &Ledger, state: &State) -> Faults {
    let mut faults = Faults::default();
    for (id, known) in ledger.couriers.iter().filter(|(_, known)| known.is_certain) {
        let mut shown = state.couriers.iter().map(|shown| &shown.latest);
        let shown = shown.find(|shown| shown.id == *id);
        if shown != Some(&known.latest) {
            faults.note(|| format!("{shown:?}, not {:?}", known.latest));
        }
    }
    faults
}

/// Couriers, orders and parked orders are what replaying the log results in.
fn as_logged(state: &State) -> Faults {
    let mut faults = Faults::default();
    let model = &state.log.model;
    let ids: BTreeSet<_> = state
        .couriers
        .iter()
        .map(|shown| &shown.latest.id)
        .collect();
    if ids.len() != model.couriers.len() || ids.len() != state.couriers.len() {
        let (shown, logged) = (state.couriers.len(), model.couriers.len());
        faults.note(|| format!("{shown} couriers, not {logged}"));
    }
    for shown in &state.couriers {
        let known = model.couriers.get(&shown.latest.id);
        let agrees = |known: &super::model::Known| {
            known.latest == shown.latest && known.count == shown.count
        };
        if !known.is_some_and(agrees) {
            faults.note(|| format!("{shown:?}, not {known:?}"));
        }
    }
    for (order, found) in &state.courier_of {
        let logged = match model.orders.get(order) {
            Some(Some(courier)) => Whereabouts::With(courier.clone()),
            Some(None) => Whereabouts::Parked,
            None => Whereabouts::Unknown,
        };
        if *found != logged {
            faults.note(|| format!("{order}: {found:?}, not {logged:?}"));
        }
    }
    let total: usize = Zone::ALL
        .map(|zone| model.waiting(zone).count())
        .iter()
        .sum();
    if state.parked.total != count(total) {
        let shown = state.parked.total;
        faults.note(|| format!("{shown} parked orders, not {total}"));
    }
    for zone in Zone::ALL {
        let listed = state.parked.orders.iter();
        let listed = listed.filter(|order| order.zone == zone);
        let listed: Vec<&str> = listed.map(|order| &order.id[..]).collect();
        let waiting: Vec<&str> = model.waiting(zone).collect();
        let agrees = if is_whole(&state.parked) {
            listed == waiting
        } else {
            waiting.starts_with(&listed)
        };
        if !agrees {
            faults.note(|| format!("{zone:?}: others wait than are listed, or in another order"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::Outcome as Verdict,
        courier_desk::{
            Event, Kind, Order, Outcome, Recorded, Shown,
            tests::{courier, order},
        },
        couriers::{ledger::tests::ledger, model::Join},
    };

    fn events() -> Vec<Event> {
        vec![
            courier("a", Zone::N, true),
            order("1", Zone::N, 0),
            order("2", Zone::S, 0),
            order("3", Zone::S, 0),
            order("1", Zone::N, 0),
            courier("b", Zone::E, true),
            courier("b", Zone::E, false),
        ]
    }

    /// A shop that has done everything right, and its answers.
    fn right() -> (Ledger, State) {
        let json: Vec<String> = events().iter().map(Event::json).collect();
        let mut log = Log::new(Join::Zero, json.iter());
        let mut answered = Vec::new();
        let mut model = super::super::model::Model::new(Join::Zero);
        for (number, event) in (1..).zip(events()) {
            let outcome = model.apply(&event);
            answered.push((event.clone(), outcome.clone()));
            log.add(&Recorded {
                number: 3 * number,
                event,
                outcome,
            });
        }
        let shown = |event, count| {
            let Event::Courier(latest) = event else {
                unreachable!("a courier")
            };
            Shown { latest, count }
        };
        let parked = |event| {
            let Event::Order(order) = event else {
                unreachable!("an order")
            };
            order
        };
        let state = State {
            log,
            couriers: vec![
                shown(courier("a", Zone::N, true), 1),
                shown(courier("b", Zone::E, false), 0),
            ],
            parked: Parked {
                orders: vec![
                    parked(order("2", Zone::S, 0)),
                    parked(order("3", Zone::S, 0)),
                ],
                total: 2,
            },
            courier_of: BTreeMap::from([
                ("1".to_owned(), with("a")),
                ("2".to_owned(), Whereabouts::Parked),
                ("3".to_owned(), Whereabouts::Parked),
            ]),
            orders_of: BTreeMap::from([
                ("a".to_owned(), vec!["1".to_owned()]),
                ("b".to_owned(), Vec::new()),
            ]),
        };
        (ledger(answered), state)
    }

    fn with(courier: &str) -> Whereabouts {
        Whereabouts::With(courier.to_owned())
    }

    fn failed(ledger: &Ledger, state: State) -> Vec<&'static str> {
        let checks = all(ledger, &Ok(state)).into_iter();
        let failed = checks.filter(|check| check.outcome == Verdict::Failed);
        failed.map(|check| check.name).collect()
    }

    #[test]
    fn a_shop_that_does_everything_right_passes() {
        let (ledger, state) = right();
        assert_eq!(failed(&ledger, state), [""; 0]);
    }

    #[test]
    fn a_part_of_the_parked_may_be_all_that_is_listed() {
        let (ledger, mut state) = right();
        state.parked.orders.pop();
        assert_eq!(failed(&ledger, state), [""; 0]);
    }

    #[test]
    fn a_shop_that_cannot_be_asked_fails() {
        let (ledger, _) = right();
        let checks = all(&ledger, &Err(Failure::Unreadable));
        assert_eq!(checks.last().unwrap().outcome, Verdict::Failed);
    }

    type Wrong = fn(&mut Ledger, &mut State);

    /// Each of these must be found out by this check; what else it breaks does not matter.
    fn wrongs() -> [(&'static str, Wrong); 21] {
        [
            ("every event acknowledged", |ledger, _| {
                ledger.given_up.note(|| "no".to_owned());
            }),
            ("outcomes fit their events", |ledger, _| {
                ledger.misanswered.note(|| "no".to_owned());
            }),
            ("nobody told anything meanwhile", |_, state| {
                state.log.concurrent += 1;
            }),
            ("the log comes to the same again", |_, state| {
                state.log.faults.note(|| "no".to_owned());
            }),
            ("what was told is in the log", |_, state| {
                state.log.times.values_mut().for_each(|times| *times -= 1);
            }),
            ("orders given once, or parked", |_, state| {
                state
                    .courier_of
                    .insert("2".to_owned(), Whereabouts::Unknown);
            }),
            ("orders given once, or parked", |_, state| {
                state.orders_of.get_mut("b").unwrap().push("1".to_owned());
            }),
            ("orders given once, or parked", |_, state| {
                state.orders_of.get_mut("a").unwrap().push("2".to_owned());
            }),
            ("orders given once, or parked", |_, state| {
                state.parked.orders.pop();
                state.parked.total = 1;
            }),
            ("both questions agree", |_, state| {
                state.orders_of.get_mut("a").unwrap().clear();
            }),
            ("both questions agree", |_, state| {
                state.orders_of.get_mut("b").unwrap().push("2".to_owned());
            }),
            ("answers name one courier", |_, state| {
                state.courier_of.insert("1".to_owned(), with("b"));
            }),
            ("answers name one courier", |ledger, _| {
                ledger.contradictions.note(|| "no".to_owned());
            }),
            ("counts are those of the orders", |_, state| {
                state.couriers[0].count = 2;
            }),
            ("counts are those of the orders", |_, state| {
                state.couriers.pop();
            }),
            ("nobody idle beside the parked", |_, state| {
                state.couriers[0].latest.zone = Zone::S;
            }),
            ("couriers as said last", |_, state| {
                state.couriers[1].latest.name = "Bo".to_owned();
            }),
            ("couriers as said last", |_, state| {
                state.couriers[1].latest.is_available = true;
            }),
            ("all is as the log has it", |_, state| {
                state.couriers[1].count = 1;
            }),
            ("all is as the log has it", |_, state| {
                state.courier_of.insert("2".to_owned(), with("a"));
            }),
            ("all is as the log has it", |_, state| {
                state.parked.orders.swap(0, 1);
            }),
        ]
    }

    #[test]
    fn every_fault_is_found_out() {
        for (check, wrong) in wrongs() {
            let (mut ledger, mut state) = right();
            wrong(&mut ledger, &mut state);
            let failed = failed(&ledger, state);
            assert!(failed.contains(&check), "{check}: {failed:?}");
        }
    }

    #[test]
    fn a_log_that_goes_back_is_found_out() {
        let (_, mut state) = right();
        state.log.add(&Recorded {
            number: 1,
            event: order("9", Zone::W, 0),
            outcome: Outcome::of_order(Kind::Parked, None),
        });
        assert!(state.log.faults.first.unwrap().contains("1 after 21"));
    }

    #[test]
    fn an_outcome_that_the_model_does_not_come_to_is_found_out() {
        let wrong = [
            (courier("c", Zone::S, true), Outcome::updated(1)),
            (
                order("4", Zone::N, 0),
                Outcome::of_order(Kind::Parked, None),
            ),
            (
                order("4", Zone::N, 0),
                Outcome::of_order(Kind::Assigned, Some("b".to_owned())),
            ),
            (
                order("1", Zone::N, 0),
                Outcome::of_order(Kind::Assigned, Some("a".to_owned())),
            ),
        ];
        for (event, outcome) in wrong {
            let (_, mut state) = right();
            state.log.add(&Recorded {
                number: 100,
                event,
                outcome,
            });
            assert_eq!(state.log.faults.times, 1);
        }
    }

    #[test]
    fn what_came_later_disturbs_unless_it_was_told_before() {
        let (_, mut state) = right();
        for (kind, concurrent) in [(Kind::Duplicate, 0), (Kind::Parked, 1)] {
            state.log.add_later(&Recorded {
                number: 100,
                event: Event::Order(Order {
                    id: "1".to_owned(),
                    ..state.parked.orders[0].clone()
                }),
                outcome: Outcome::of_order(kind, None),
            });
            assert_eq!(state.log.concurrent, concurrent);
        }
    }
}
