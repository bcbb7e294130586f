//! A small assignment desk that keeps the contract, so that a day can be watched without the real one: lists, plans that
//! are the largest, updates, pages, and a few faults on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::server::{Reply, reply, serve};

/// What this desk does wrong from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Returns one package less than it was sent.
    LosesAPackage,
    /// Assigns every package to every driver.
    IgnoresRules,
    /// Assigns one package too many to each driver.
    IgnoresTheCap,
    /// Gives to the first who may, and moves nothing.
    IsGreedy,
    /// Plans from the start each time, the other way round.
    ForgetsPlans,
    /// Keeps what was only to be looked at.
    KeepsDryRuns,
    /// Does not say what it left behind.
    HidesTheRest,
    /// Does not name drivers who have nothing.
    HidesTheIdle,
    /// Acknowledges updates and keeps none.
    ForgetsUpdates,
    /// Acknowledges updates of what it does not know.
    AcknowledgesAnything,
    /// Leaves the last record of a list away.
    ShortensLists,
}

/// What this desk does wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) habits: &'static [Habit],
    /// Takes every so many requests and hangs up instead of answering.
    pub(crate) hangs_up_every: Option<u64>,
    /// Answers every so many requests with 503, without a look at them.
    pub(crate) is_busy_every: Option<u64>,
}

impl Faults {
    pub(crate) fn of(habits: &'static [Habit]) -> Self {
        Self {
            habits,
            ..Self::default()
        }
    }

    fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    requests: u64,
    pub(crate) plans: u64,
    pub(crate) manifest: Value,
    date: String,
    /// By package, with the driver.
    pub(crate) records: BTreeMap<String, Value>,
}

pub(crate) struct Desk {
    pub(crate) staff: String,
    book: Arc<Mutex<Book>>,
}

impl Desk {
    pub(crate) async fn open(faults: Faults) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let clerk = Arc::clone(&book);
        let address = serve(
            || {},
            move |request| {
                let (clerk, faults) = (Arc::clone(&clerk), faults.clone());
                async move { answer(&clerk, &faults, request).await }
            },
        );
        let staff = format!("--staff=http://{}", address.await);
        Self { staff, book }
    }

    /// What has happened so far.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

async fn answer(
    book: &Mutex<Book>,
    faults: &Faults,
    request: Request<Incoming>,
) -> io::Result<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default().split('&');
    let query: BTreeMap<_, _> = query.filter_map(|pair| pair.split_once('=')).collect();
    let mut book = book.lock().unwrap();
    book.requests += 1;
    let number = book.requests;
    // The first request is the simulator's check that the server is up.
    let is_nth =
        |every: Option<u64>| every.is_some_and(|every| number > 1 && number.is_multiple_of(every));
    if is_nth(faults.is_busy_every) {
        return Ok(reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null));
    }
    let answer = match (&head.method, head.uri.path()) {
        (&Method::PUT, "/manifest") => Ok(book.put(sent)),
        (&Method::GET, "/manifest") => book.show(faults),
        (&Method::POST, "/assign") => book.assign(faults, &sent),
        (&Method::POST, "/update") => book.update(faults, &sent),
        (&Method::GET, "/assignments") => Ok(book.list(faults, &query)),
        _ => Err(StatusCode::NOT_FOUND),
    };
    if is_nth(faults.hangs_up_every) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(match answer {
        Ok(body) => reply(StatusCode::OK, &body),
        Err(status) => {
            let mut refusal = reply(status, &json!({ "title": "No", "status": status.as_u16() }));
            let content_type = HeaderValue::from_static("application/problem+json");
            refusal.headers_mut().insert(CONTENT_TYPE, content_type);
            refusal
        }
    })
}

fn admits(rule: &Value, package: &Value) -> bool {
    let limit = |name: &str| rule["params"][name].as_f64().unwrap();
    let is = |name: &str| package[name].as_f64().unwrap();
    let list = |name: &str| rule["params"][name].as_array().unwrap();
    match rule["code"].as_str().unwrap() {
        "MAX_WEIGHT" => is("weight_kg") <= limit("limit_kg"),
        "NO_PERISHABLE" => package["is_perishable"] == false,
        "REGION_ONLY" => list("allowed_regions").contains(&package["region"]),
        "MAX_DISTANCE" => is("distance_km") <= limit("max_km"),
        "EXPRESS_ONLY" => package["is_express"] == true,
        "FRAGILE_ONLY" => package["is_fragile"] == true,
        "HAZMAT_ALLOWED" => {
            let class = &package["hazmat_class"];
            class.is_null() || list("allowed_classes").contains(class)
        }
        "TEMP_CONTROL" => (limit("min_c")..=limit("max_c")).contains(&is("temperature_c")),
        "TIME_WINDOW" => (limit("start_hour")..=limit("end_hour")).contains(&is("delivery_hour")),
        "OVERSIZED" => is("volume_m3") >= limit("min_volume_m3"),
        other => panic!("{other}"),
    }
}

/// A plan in the making: what each driver has, by their places in the lists.
struct Matching {
    cap: usize,
    may_carry: Vec<Vec<bool>>,
    has: Vec<Vec<usize>>,
    /// Packages that stay where they are.
    settled: BTreeSet<usize>,
}

impl Matching {
    /// Finds room for a package, moving others if need be.
    fn place(&mut self, package: usize, moves: bool, seen: &mut [bool]) -> bool {
        for driver in 0..self.has.len() {
            if seen[driver] || !self.may_carry[driver][package] {
                continue;
            }
            seen[driver] = true;
            if self.has[driver].len() < self.cap {
                self.has[driver].push(package);
                return true;
            }
            for place in 0..if moves { self.has[driver].len() } else { 0 } {
                let other = self.has[driver][place];
                if !self.settled.contains(&other) && self.place(other, moves, seen) {
                    self.has[driver][place] = package;
                    return true;
                }
            }
        }
        false
    }
}

type Answer = Result<Value, StatusCode>;

fn written(plan: &BTreeMap<&str, Value>, mut left: Vec<Value>, faults: &Faults) -> Value {
    let mut idle: Vec<_> = plan.iter().filter(|(_, has)| **has == json!([])).collect();
    if faults.has(Habit::HidesTheIdle) {
        idle.clear();
    }
    if faults.has(Habit::HidesTheRest) {
        left.clear();
    }
    let idle: Vec<_> = idle.into_iter().map(|(driver, _)| driver).collect();
    json!({ "assignments": plan, "unassigned_packages": left, "unassigned_drivers": idle })
}

impl Book {
    fn put(&mut self, sent: Value) -> Value {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date().to_string();
        sent["date"]
            .as_str()
            .unwrap_or(&today)
            .clone_into(&mut self.date);
        let count = |of: &str| sent[of].as_array().unwrap().len();
        let (drivers, packages) = (count("drivers"), count("packages"));
        self.manifest = sent;
        json!({ "date": self.date, "drivers": drivers, "packages": packages })
    }

    fn show(&self, faults: &Faults) -> Answer {
        if self.manifest.is_null() {
            return Err(StatusCode::NOT_FOUND);
        }
        let mut manifest = self.manifest.clone();
        manifest["date"] = json!(self.date);
        if faults.has(Habit::LosesAPackage) {
            manifest["packages"].as_array_mut().unwrap().pop();
        }
        Ok(manifest)
    }

    fn assign(&mut self, faults: &Faults, sent: &Value) -> Answer {
        let asked = sent["driver_ids"].as_array().unwrap();
        let asked: BTreeSet<_> = asked.iter().map(|id| id.as_str().unwrap()).collect();
        let drivers = self.manifest["drivers"].as_array().unwrap();
        let drivers: Vec<_> = drivers
            .iter()
            .filter(|driver| asked.contains(driver["driver_id"].as_str().unwrap()))
            .collect();
        if drivers.len() < asked.len() {
            return Err(StatusCode::UNPROCESSABLE_ENTITY);
        }
        self.plans += 1;
        let packages = self.manifest["packages"].as_array().unwrap();
        let ids: Vec<_> = packages
            .iter()
            .map(|package| &package["package_id"])
            .collect();
        let owner = |package: usize| self.records.get(ids[package].as_str().unwrap());
        let held = |driver: &Value| {
            let id = &driver["driver_id"];
            let is_theirs = |record: &Value| record["driver_id"] == *id;
            let all = 0..packages.len();
            all.filter(|package| owner(*package).is_some_and(is_theirs))
                .collect()
        };
        let forgets = faults.has(Habit::ForgetsPlans);
        let cap = sent["max_per_driver"].as_u64().unwrap();
        let may_carry = |driver: &Value, package: &Value| {
            let mut rules = driver["rules"].as_array().unwrap().iter();
            faults.has(Habit::IgnoresRules) || rules.all(|rule| admits(rule, package))
        };
        let of = |driver: &&Value| {
            packages
                .iter()
                .map(|package| may_carry(driver, package))
                .collect()
        };
        let mut matching = Matching {
            cap: usize::try_from(cap).unwrap() + usize::from(faults.has(Habit::IgnoresTheCap)),
            may_carry: drivers.iter().map(of).collect(),
            has: drivers
                .iter()
                .map(|driver| if forgets { Vec::new() } else { held(driver) })
                .collect(),
            settled: (0..packages.len())
                .filter(|package| !forgets && owner(*package).is_some())
                .collect(),
        };
        let mut left = Vec::new();
        let mut order: Vec<_> = (0..packages.len()).collect();
        if forgets && self.plans.is_multiple_of(2) {
            order.reverse();
        }
        for package in order {
            let moves = !faults.has(Habit::IsGreedy);
            let mut seen = vec![false; drivers.len()];
            if !matching.settled.contains(&package) && !matching.place(package, moves, &mut seen) {
                left.push(ids[package].clone());
            }
        }
        let drivers: Vec<_> = drivers.iter().map(|driver| &driver["driver_id"]).collect();
        let mut plan = BTreeMap::new();
        let mut given = Vec::new();
        for (driver, has) in drivers.iter().zip(&matching.has) {
            let of_driver: Vec<_> = has.iter().map(|package| ids[*package]).collect();
            plan.insert(driver.as_str().unwrap(), json!(of_driver));
            for package in has {
                let mut record = packages[*package].clone();
                record["driver_id"] = (*driver).clone();
                given.push(record);
            }
        }
        let answer = written(&plan, left, faults);
        if sent["dry_run"] != true || faults.has(Habit::KeepsDryRuns) {
            self.keep(given);
        }
        Ok(answer)
    }

    fn keep(&mut self, given: Vec<Value>) {
        let now = json!(Timestamp::now());
        for mut record in given {
            record["date"] = json!(self.date);
            record["status"] = json!("assigned");
            record["assigned_at"] = now.clone();
            record["updated_at"] = now.clone();
            let id = record["package_id"].as_str().unwrap().to_owned();
            self.records.entry(id).or_insert(record);
        }
    }

    fn update(&mut self, faults: &Faults, sent: &Value) -> Answer {
        let record = self.records.get_mut(sent["package_id"].as_str().unwrap());
        let record = record.filter(|record| record["driver_id"] == sent["driver_id"]);
        let Some(record) = record else {
            return if faults.has(Habit::AcknowledgesAnything) {
                Ok(sent.clone())
            } else {
                Err(StatusCode::NOT_FOUND)
            };
        };
        let mut updated = record.clone();
        updated["status"] = sent["status"].clone();
        updated["updated_at"] = json!(Timestamp::now());
        if !faults.has(Habit::ForgetsUpdates) {
            *record = updated.clone();
        }
        Ok(updated)
    }

    fn list(&self, faults: &Faults, query: &BTreeMap<&str, &str>) -> Value {
        let fits = |record: &&Value| {
            let mut fields = ["driver_id", "package_id", "status", "date"].into_iter();
            fields.all(|field| query.get(field).is_none_or(|value| record[field] == *value))
        };
        let mut fitting: Vec<_> = self.records.values().filter(fits).collect();
        if faults.has(Habit::ShortensLists) {
            fitting.pop();
        }
        let number = |name: &str| query.get(name).map(|text| text.parse::<usize>().unwrap());
        let (from, limit) = (number("cursor").unwrap_or(0), number("limit").unwrap_or(50));
        let page: Vec<_> = fitting.iter().skip(from).take(limit).collect();
        let mut body = json!({ "assignments": page });
        if from + limit < fitting.len() {
            body["next"] = json!((from + limit).to_string());
        }
        body
    }
}
