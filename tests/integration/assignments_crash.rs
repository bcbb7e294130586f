//! Dispatchers and drivers whose server may end at any moment, and who know afterwards what must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::until;
use tokio::time::sleep;

use crate::assignments::{
    STATUSES, assign, driver, expect_plan, holders, listed, logged, most, names, package,
    put_manifest, update, wanted,
};
use crate::client::{Connection, within};
use crate::durability::{
    ROUNDS_VARIABLE, Seed, number_from_environment, open, refused, start_that_is_cut_short,
};
use crate::packages::with;
use crate::shop::{Shop, text};

/// How often the server is killed. `make soak` wants a thousand.
const ROUNDS: u64 = 10;
/// Who is at it at once.
const WORKERS: usize = 8;
/// Packages of one driver at most.
const CAP: u32 = 40;
const DRIVERS: usize = 12;
const PACKAGES: usize = 400;
/// A day on which what was given stays, and is updated; ...
const STEADY: &str = "2142-05-01";
/// ... and one that is reset and planned again and again.
const RESTLESS: &str = "2142-05-02";

/// A day's lists, with packages of its own.
fn manifest(date: &str, random: &mut fastrand::Rng) -> Value {
    let regions = ["north", "east", "south", "west"];
    let drivers = (0..DRIVERS).map(|number| {
        let allowed = [
            random.choice(regions).unwrap(),
            random.choice(regions).unwrap(),
        ];
        let rules = [
            ("REGION_ONLY", json!({"allowed_regions": allowed})),
            ("MAX_WEIGHT", json!({"limit_kg": random.u32(5..15)})),
        ];
        driver(&format!("driver {number}"), &rules)
    });
    let drivers: Vec<_> = drivers.collect();
    let packages = (0..PACKAGES).map(|number| {
        let mut package = package(&format!("{date} {number}"));
        package["region"] = json!(random.choice(regions).unwrap());
        package["weight_kg"] = json!(random.u32(1..20));
        package["is_express"] = json!(random.bool());
        package
    });
    let packages: Vec<_> = packages.collect();
    json!({"date": date, "drivers": drivers, "packages": packages})
}

/// What is known of a package of the steady day.
#[derive(Debug, Clone)]
struct Known {
    driver: String,
    status: &'static str,
    /// What was said last, and not answered.
    unknown: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Book {
    /// By package.
    steady: BTreeMap<String, Known>,
    answered: u64,
    updates: u64,
}

impl Book {
    fn given(&mut self, driver: &str, package: &str) {
        let known = Known {
            driver: driver.to_owned(),
            status: "assigned",
            unknown: None,
        };
        let known = self.steady.entry(package.to_owned()).or_insert(known);
        assert_eq!(known.driver, driver, "{package} has two drivers");
    }
}

struct Worker {
    number: usize,
    connection: Connection,
    days: Arc<[Value; 2]>,
    book: Arc<Mutex<Book>>,
    random: fastrand::Rng,
}

impl Worker {
    /// Does one thing after the other, until the server is gone.
    async fn work(mut self) {
        loop {
            let answered = match self.random.u8(..10) {
                0..3 => self.assign(0).await,
                3..5 => self.assign(1).await,
                _ => self.update().await,
            };
            if answered.is_none() {
                return;
            }
            self.book.lock().unwrap().answered += 1;
        }
    }

    /// Asks for a plan for some of the drivers.
    async fn assign(&mut self, day: usize) -> Option<()> {
        let day = &self.days[day];
        let mut drivers = names(day, "drivers");
        self.random.shuffle(&mut drivers);
        drivers.truncate(self.random.usize(1..=DRIVERS));
        let is_steady = day["date"] == STEADY;
        // The steady day is filled little by little.
        let most = if is_steady {
            self.random.u32(..=CAP) / 4
        } else {
            self.random.u32(..=CAP)
        };
        let ask = with(&wanted(&drivers, most), "date", day["date"].clone());
        let ask = with(&ask, "reset", !is_steady && self.random.bool());
        let answer = self.connection.try_ask(&assign(&ask)).await.ok()?;
        // Others may have asked for more.
        let plan = expect_plan(day, &with(&ask, "max_per_driver", CAP), &answer);
        if is_steady {
            let mut book = self.book.lock().unwrap();
            for (driver, packages) in &plan {
                for package in packages {
                    book.given(driver, package);
                }
            }
        }
        Some(())
    }

    /// Updates a package that no other worker updates.
    async fn update(&mut self) -> Option<()> {
        let (package, driver) = {
            let book = self.book.lock().unwrap();
            let mine = |name: &str| {
                let number = name.rsplit(' ').next().unwrap();
                number.parse::<usize>().unwrap() % WORKERS == self.number
            };
            let of_mine = book.steady.iter().filter(|(name, _)| mine(name));
            let of_mine: Vec<_> = of_mine
                .map(|(name, known)| (name.clone(), known.driver.clone()))
                .collect();
            let Some(chosen) = self.random.choice(of_mine) else {
                return Some(());
            };
            chosen
        };
        let status = self.random.choice(STATUSES).unwrap();
        let answer = self
            .connection
            .try_ask(&update(&driver, &package, status))
            .await;
        let mut book = self.book.lock().unwrap();
        book.updates += 1;
        let known = book.steady.get_mut(&package).unwrap();
        let Ok(answer) = answer else {
            known.unknown = Some(status);
            return None;
        };
        assert_eq!(answer.expect(200)["status"], status);
        known.status = status;
        Some(())
    }
}

/// Checks that a restarted server agrees with the book, and adds to the book what was unknown.
async fn check(shop: &Shop, days: &[Value; 2], book: &Mutex<Book>) {
    for day in days {
        let date = text(&day["date"]);
        let found = listed(shop, &format!("limit=1000&date={date}")).await;
        let held = holders(&found);
        let mut loads: BTreeMap<&str, u32> = BTreeMap::new();
        for driver in held.values() {
            *loads.entry(driver).or_default() += 1;
        }
        assert!(loads.values().all(|load| *load <= CAP), "{loads:?}");
        if date == STEADY {
            let mut book = book.lock().unwrap();
            for name in book.steady.keys() {
                assert!(held.contains_key(name), "lost: {name}");
            }
            for item in &found {
                let (driver, package) = (text(&item["driver_id"]), text(&item["package_id"]));
                book.given(&driver, &package);
                let known = book.steady.get_mut(&package).unwrap();
                let possible = [Some(known.status), known.unknown.take()];
                let status = STATUSES
                    .into_iter()
                    .find(|status| item["status"] == *status);
                assert!(possible.contains(&status), "{possible:?}: {item}");
                known.status = status.unwrap();
            }
        }
    }
}

/// Asks for all drivers, each up to the cap: the server must assign as many packages as are still possible.
async fn complete(shop: &Shop, days: &[Value; 2]) {
    for (day, reset) in days.iter().zip([false, true]) {
        let date = text(&day["date"]);
        let before = holders(&listed(shop, &format!("date={date}")).await);
        let before = if reset { BTreeMap::new() } else { before };
        let all = with(&wanted(&names(day, "drivers"), CAP), "date", date.as_str());
        let all = with(&all, "reset", reset);
        let answer = shop.staff.ask(assign(&all)).await;
        let plan = expect_plan(day, &all, &answer);
        let held = holders(&listed(shop, &format!("date={date}")).await);
        let carried: usize = plan.values().map(Vec::len).sum();
        assert_eq!(carried, held.len());
        assert_eq!(carried, most(day, CAP, &before), "{date}");
        for (package, driver) in before {
            assert_eq!(held[&package], driver);
        }
        let again = shop.staff.ask(assign(&with(&all, "reset", false))).await;
        assert_eq!(expect_plan(day, &all, &again), plan);
    }
}

#[tokio::test]
async fn the_plans_of_a_server_that_is_killed_again_and_again_stay_and_no_package_is_given_twice() {
    let rounds = number_from_environment(ROUNDS_VARIABLE).unwrap_or(ROUNDS);
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let data = tempfile::tempdir().unwrap();
    let days = Arc::new([STEADY, RESTLESS].map(|date| manifest(date, &mut random)));
    let book = Arc::new(Mutex::new(Book::default()));
    let shop = open(data.path(), &[]).await;
    for day in days.iter() {
        shop.staff.ask(put_manifest(day)).await.expect(200);
    }
    shop.crash().await;
    for _ in 0..rounds {
        if random.u8(..4) == 0 {
            start_that_is_cut_short(data.path(), &mut random).await;
        }
        let shop = open(data.path(), &[]).await;
        check(&shop, &days, &book).await;
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let worker = Worker {
                number,
                connection: shop.staff.connect().await,
                days: Arc::clone(&days),
                book: Arc::clone(&book),
                random: random.fork(),
            };
            workers.push(tokio::spawn(worker.work()));
        }
        let target = book.lock().unwrap().answered + random.u64(1..100);
        until("so many requests are answered", async || {
            book.lock().unwrap().answered >= target
        })
        .await;
        sleep(Duration::from_micros(random.u64(0..5000))).await;
        shop.crash().await;
        for worker in workers {
            within("a worker notices the end", worker).await.unwrap();
        }
    }
    let shop = open(data.path(), &[]).await;
    check(&shop, &days, &book).await;
    complete(&shop, &days).await;
    let held = holders(&listed(&shop, &format!("date={STEADY}")).await);
    shop.close().await;
    let lines = check_log(&logged(data.path()), &held);
    print_summary(&book.lock().unwrap(), rounds, lines);
}

/// Crashes may have cost lines, but there is none twice, and none that is not so. How many there are.
fn check_log(lines: &[Value], held: &BTreeMap<String, String>) -> usize {
    let mut seen = BTreeSet::new();
    for line in lines {
        assert!(seen.insert(line.to_string()), "there twice: {line}");
        let package = text(&line["package_id"]);
        if package.starts_with(STEADY) {
            assert_eq!(line["driver_id"], held[&package], "{line}");
            assert_ne!(line["kind"], "give_up", "{line}");
        }
    }
    lines.len()
}

#[expect(clippy::print_stderr, reason = "a soak says what it has done")]
fn print_summary(book: &Book, rounds: u64, lines: usize) {
    let Book {
        answered, updates, ..
    } = book;
    let given = book.steady.len();
    eprintln!(
        "{rounds} crashes, {answered} answers, {given} packages known to be given, {updates} updates, {lines} lines of the \
         operational log"
    );
    assert!(*answered > rounds && given > 0, "too little was done");
}

#[tokio::test]
async fn a_second_server_cannot_have_the_days_of_the_first() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    let mut random = fastrand::Rng::with_seed(2142);
    let day = manifest(STEADY, &mut random);
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let all = with(&wanted(&names(&day, "drivers"), 2), "date", STEADY);
    let first = shop.staff.ask(assign(&all)).await.expect(200);
    let sentence = refused(data.path());
    let who = format!("in use by process {} on ", shop.pid().as_raw_nonzero());
    assert!(sentence.contains(&who), "{sentence}");
    assert_eq!(shop.staff.ask(assign(&all)).await.expect(200), first);
    shop.close().await;
}
