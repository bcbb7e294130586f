use hyper::StatusCode;
use serde_json::json;

use super::*;
use crate::{
    assignments::{Manifest, tests::item},
    day::{
        lists::List,
        roster::tests::{driver, two_by_three},
    },
};

fn book() -> Book {
    Book::new(Arc::new(two_by_three()), "2026-11-21".parse().unwrap())
}

fn call(book: &Book, drivers: &[usize], max_per_driver: u32) -> Call {
    Call {
        drivers: drivers.into(),
        max_per_driver,
        sent_at: book.now(),
        dry_run: false,
        settled_at: Some(0),
    }
}

/// A plan in which `d1` and `d2` have these.
fn plan(first: &[&str], second: &[&str], left: &[&str]) -> Plan {
    let both = [("d1", first), ("d2", second)];
    let idle = both.iter().filter(|(_, packages)| packages.is_empty());
    let idle: Vec<_> = idle.map(|(driver, _)| driver).collect();
    let plan = json!({
        "assignments": { "d1": first, "d2": second },
        "unassigned_packages": left,
        "unassigned_drivers": idle,
    });
    serde_json::from_value(plan).unwrap()
}

fn acknowledged<T>(answer: T) -> Sent<T> {
    Sent {
        acknowledged: Some((StatusCode::OK, answer)),
        uncertain: 0,
        refused: None,
        why: String::new(),
    }
}

fn given_up<T>(uncertain: u64) -> Sent<T> {
    Sent {
        acknowledged: None,
        uncertain,
        refused: None,
        why: "503 Service Unavailable".to_owned(),
    }
}

fn wrong(book: &Book) -> Vec<&'static str> {
    let aspects = ASPECTS.iter().zip(&book.aspects);
    let wrong = aspects.filter(|(_, faults)| faults.times > 0);
    wrong.map(|(name, _)| *name).collect()
}

/// What is wrong with a plan for both drivers, with at most this many packages each.
fn judged(max_per_driver: u32, plan: &Plan) -> Vec<&'static str> {
    let mut book = book();
    let call = call(&book, &[0, 1], max_per_driver);
    book.judge(&call, plan);
    book.settle();
    wrong(&book)
}

/// Both have something, and it is theirs: `p1` is `d1`'s, the rest `d2`'s.
fn planned() -> Book {
    let mut book = book();
    let call = call(&book, &[0, 1], 2);
    book.judge(&call, &plan(&["p1"], &["p2", "p3"], &[]));
    assert_eq!(wrong(&book), [""; 0]);
    book
}

#[test]
fn a_proper_plan_is_in_order() {
    assert_eq!(judged(2, &plan(&["p1"], &["p2", "p3"], &[])), [""; 0]);
    assert_eq!(judged(2, &plan(&["p1", "p3"], &["p2"], &[])), [""; 0]);
    assert_eq!(judged(0, &plan(&[], &[], &["p3", "p1", "p2"])), [""; 0]);
}

#[test]
fn every_fault_of_a_plan_is_found_under_its_name() {
    let [names, cap, once, rules, rest, grows, best] = ASPECTS;
    assert_eq!(judged(1, &plan(&["p1"], &["p2", "p3"], &[])), [cap]);
    assert_eq!(judged(2, &plan(&["p2"], &["p1", "p3"], &[])), [rules]);
    assert_eq!(judged(3, &plan(&["p1"], &["p1", "p2", "p3"], &[])), [once]);
    assert_eq!(judged(3, &plan(&["p9"], &["p1", "p2", "p3"], &[])), [once]);
    assert_eq!(judged(2, &plan(&["p1"], &["p2"], &[])), [rest]);
    assert_eq!(
        judged(2, &plan(&["p1"], &["p2", "p3"], &["p3"])),
        [rest, best]
    );
    let unknown = ["p9"];
    assert_eq!(judged(2, &plan(&["p1"], &["p2", "p3"], &unknown)), [rest]);
    assert_eq!(judged(2, &plan(&["p1"], &["p2"], &["p3"])), [best]);

    let mut silent = plan(&["p1"], &["p2", "p3"], &[]);
    silent.unassigned_drivers.push("d1".to_owned());
    assert_eq!(judged(2, &silent), [names]);
    let mut without = plan(&[], &["p2", "p1", "p3"], &[]);
    without.assignments.remove("d1");
    without.unassigned_drivers.clear();
    assert_eq!(judged(3, &without), [names]);
    let mut stranger = plan(&["p1"], &["p2", "p3"], &[]);
    stranger.assignments.insert("d3".to_owned(), vec![]);
    stranger.unassigned_drivers.push("d3".to_owned());
    assert_eq!(judged(2, &stranger), [names]);

    let mut book = planned();
    let again = call(&book, &[0, 1], 2);
    book.judge(&again, &plan(&["p1"], &["p2"], &["p3"]));
    assert_eq!(wrong(&book), [rest, grows, best]);
    let mut book = planned();
    book.judge(&again, &plan(&["p3"], &["p2"], &["p1"]));
    assert_eq!(wrong(&book), [once, rest, grows, best]);
}

#[test]
fn a_plan_is_the_best_only_if_no_package_could_be_moved_to_make_room() {
    let [.., best] = ASPECTS;
    // The light ones fill the one who could carry the heavy one.
    let wasteful = plan(&["p1"], &["p3"], &["p2"]);
    assert_eq!(judged(1, &wasteful), [""; 0]);
    let wasteful = plan(&[], &["p3"], &["p1", "p2"]);
    assert_eq!(judged(1, &wasteful), [best]);

    let light = json!([{ "code": "MAX_WEIGHT", "params": { "limit_kg": 10 } }]);
    let mut manifest: Manifest = two_by_three().manifest;
    manifest.packages.truncate(2);
    manifest.drivers = vec![driver("d1", &light), driver("d2", &json!([]))];
    let mut book = Book::new(
        Arc::new(Roster::of(manifest).unwrap()),
        "2026-11-21".parse().unwrap(),
    );
    // d2 has the light one, d1 nothing, and the heavy one stays: one move makes room for it.
    let moved = plan(&[], &["p1"], &["p2"]);
    let mut asked = call(&book, &[0, 1], 1);
    book.judge(&asked, &moved);
    assert_eq!(wrong(&book), [best]);
    // What was settled before may not be moved.
    book.aspects = Default::default();
    asked.settled_at = Some(book.now());
    asked.sent_at = book.now();
    book.judge(&asked, &moved);
    assert_eq!(wrong(&book), [""; 0]);
    // Nor with concurrent calls for other drivers.
    asked.settled_at = None;
    book.judge(&asked, &moved);
    assert_eq!(wrong(&book), [""; 0]);
}

#[test]
fn a_plan_for_some_leaves_to_others_what_is_theirs() {
    let rest = ASPECTS[4];
    let for_first = |packages: &[&str], left: &[&str]| {
        let mut plan = plan(packages, &[], left);
        plan.assignments.remove("d2");
        plan.unassigned_drivers.retain(|driver| driver != "d2");
        plan
    };
    let mut book = planned();
    let some = call(&book, &[0], 2);
    book.judge(&some, &for_first(&["p1"], &[]));
    book.settle();
    assert_eq!(wrong(&book), [""; 0]);

    // The first call began before the other: the other may have been answered in between, but no third call.
    let mut book = super::tests::book();
    let first = call(&book, &[0], 1);
    book.judge(&first, &for_first(&["p1"], &["p3"]));
    let both = call(&book, &[0, 1], 1);
    book.judge(&both, &plan(&["p1"], &["p2"], &["p3"]));
    book.settle();
    assert_eq!(wrong(&book), [""; 0]);
    book.judge(&first, &for_first(&["p1"], &["p2"]));
    book.settle();
    assert_eq!(wrong(&book), [rest]);
}

#[test]
fn a_dry_run_is_judged_and_not_taken_down() {
    let mut book = book();
    let mut dry = call(&book, &[0, 1], 2);
    dry.dry_run = true;
    book.judge(&dry, &plan(&["p2"], &["p1", "p3"], &[]));
    assert_eq!(wrong(&book), [ASPECTS[3]]);
    assert_eq!(book.held().count(), 0);
}

#[test]
fn an_answer_to_an_update_must_be_the_record_as_it_is_now() {
    let answered = |change: &dyn Fn(&mut Item)| {
        let mut book = planned();
        let package = book.roster.manifest.packages[0].clone();
        let mut item = item("d1", &package, Status::Accepted);
        change(&mut item);
        let sent = acknowledged(Some(item));
        assert!(book.updated(0, Status::Accepted, &sent, None, Duration::ZERO));
        book.misanswered.times
    };
    assert_eq!(answered(&|_| {}), 0);
    let changes: [&dyn Fn(&mut Item); 5] = [
        &|item| item.driver_id = "d2".to_owned(),
        &|item| item.package_id = "p2".to_owned(),
        &|item| item.status = Status::Assigned,
        &|item| item.date = "2026-11-22".parse().unwrap(),
        &|item| item.updated_at = "2026-11-20T00:00:00Z".parse().unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(answered(change), 1, "{number}");
    }
    let mut book = planned();
    assert!(book.updated(
        0,
        Status::Accepted,
        &acknowledged(None),
        None,
        Duration::ZERO
    ));
    assert_eq!(book.misanswered.times, 1);
}

#[test]
fn times_of_a_record_do_not_go_back() {
    let mut book = planned();
    let package = book.roster.manifest.packages[0].clone();
    let first = item("d1", &package, Status::Assigned);
    assert_eq!(book.record(0, &first, None), Ok(()));
    let before = book.times(0);
    assert_eq!(book.record(0, &first, before), Ok(()));
    let mut earlier = first.clone();
    earlier.updated_at = first.assigned_at;
    assert!(book.record(0, &earlier, before).is_err());
    // Asked for at the same time as the first.
    assert_eq!(book.record(0, &earlier, None), Ok(()));
    assert_eq!(book.times(0), before);
    let mut other = first.clone();
    other.assigned_at = "2026-11-21T05:00:00Z".parse().unwrap();
    assert!(book.record(0, &other, before).is_err());
}

#[test]
fn an_update_of_unknown_fate_leaves_its_status_open() {
    for (uncertain, is_open) in [(0, false), (1, true)] {
        let mut book = planned();
        let sent = given_up(uncertain);
        assert!(!book.updated(0, Status::Accepted, &sent, None, Duration::ZERO));
        assert_eq!((book.given_up.times, book.fate_unknown), (1, uncertain));
        let package = book.roster.manifest.packages[0].clone();
        let reported = item("d1", &package, Status::Accepted);
        assert_eq!(book.record(0, &reported, None).is_ok(), is_open);
    }
}

#[test]
fn what_is_not_known_must_be_refused_with_a_problem() {
    for (sent, times) in [
        (acknowledged(Refusal { is_problem: true }), 0),
        (acknowledged(Refusal { is_problem: false }), 1),
        (given_up(0), 1),
    ] {
        let mut book = book();
        book.refused("POST /update", &sent);
        assert_eq!((book.strange, book.not_refused.times), (1, times));
    }
}

/// What comes of this list of `d2`'s packages, in pages of two at most.
fn listed(pages: &[&[(&str, usize)]]) -> Result<u64, String> {
    let mut book = planned();
    let fits = |holding: &Holding| {
        if holding.driver == 1 {
            Fits::Yes
        } else {
            Fits::No
        }
    };
    let mut list = List::new(book.expected(fits), Some(2), false);
    for page in pages {
        let packages = book.roster.manifest.packages.clone();
        let items = page
            .iter()
            .map(|(driver, package)| item(driver, &packages[*package], Status::Assigned));
        let page = crate::assignments::Page {
            assignments: items.collect(),
            next: None,
        };
        list.add(&page, &mut book)?;
    }
    list.end(&book)
}

#[test]
fn a_list_has_just_what_belongs_in_it() {
    assert_eq!(listed(&[&[("d2", 1), ("d2", 2)]]), Ok(2));
    assert_eq!(listed(&[&[("d2", 2)], &[("d2", 1)]]), Ok(2));
    let wrong: [&[&[(&str, usize)]]; 6] = [
        &[],
        &[&[("d2", 1)]],
        &[&[("d2", 1), ("d2", 2)], &[("d2", 1)]],
        &[&[("d2", 1), ("d2", 2)], &[("d1", 0)]],
        &[&[("d1", 1), ("d2", 2)]],
        &[&[("d2", 1), ("d2", 2), ("d2", 2)]],
    ];
    for (number, pages) in wrong.into_iter().enumerate() {
        assert!(listed(pages).is_err(), "{number}");
    }
}
