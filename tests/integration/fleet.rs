//! Drones that report to a server which may end at any moment, and know afterwards what must be there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odyssey::deliveries::sqlite::EVICTED_PER_EVENT;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::client::{Answer, Ask, Connection, event, get, post, within};
use crate::shop::{Shop, text};

/// Drones that are in the air at once.
pub(crate) const DRONES: usize = 8;

/// A delivery as its drone knows it.
#[derive(Debug)]
struct Mission {
    id: String,
    /// Events until it ends.
    length: usize,
    /// What was answered 201, as the list of its events shows it.
    stored: Vec<Value>,
    /// An event that was sent and not answered: its drone does not know whether it was stored.
    unknown: Option<&'static str>,
    /// Its number by first event is at least this.
    number_min: u64,
}

impl Mission {
    fn next(&self, random: &mut fastrand::Rng) -> Option<&'static str> {
        let between = ["TAKEN_OFF", "LANDED"];
        let last = ["CRASHED", "PARCEL_DELIVERED"];
        match self.stored.len() + 1 {
            1 => Some("PARCEL_COLLECTED"),
            sequence if sequence < self.length => random.choice(between),
            sequence if sequence == self.length => random.choice(last),
            _ => None,
        }
    }

    /// Its next event. The key is where the event will stand, in the header and in the body by turns.
    fn report(&self, event_type: &str) -> Ask {
        let key = format!("event-{}", self.stored.len() + 1);
        if self.stored.len().is_multiple_of(2) {
            return event(&self.id, event_type).key(key);
        }
        post(format!("/deliveries/{}/events", self.id))
            .json(&json!({"type": event_type, "event_id": key}))
    }

    /// The answer to the event whose fate was unknown.
    fn acknowledged(&mut self, answer: &Answer) {
        let mut body = answer.expect(201);
        let event_type = self.unknown.take();
        assert_eq!(body["type"], json!(event_type), "{self:?}: {answer}");
        assert_eq!(
            body["sequence"],
            self.stored.len() + 1,
            "{self:?}: {answer}"
        );
        let id = body.as_object_mut().unwrap().remove("delivery_id");
        assert_eq!(id, Some(json!(self.id)), "{self:?}: {answer}");
        self.stored.push(body);
    }

    /// Over, or maybe so.
    fn may_be_over(&self) -> bool {
        let over = |event: &str| matches!(event, "CRASHED" | "PARCEL_DELIVERED");
        let last = self.stored.last().map(|event| text(&event["type"]));
        last.is_some_and(|last| over(&last)) || self.unknown.is_some_and(over)
    }
}

/// A drone on its way; it ends with its missions when the server does.
type Flight = JoinHandle<Vec<Mission>>;

/// All drones, and all deliveries that the server may still store.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    missions: Vec<Mission>,
    /// Deliveries of which the server stores, or has stored, the first event.
    begun: Arc<AtomicU64>,
    /// The same when the server was last looked at.
    begun_before: u64,
    /// Up to this number a delivery that is over may be gone.
    outlived: u64,
    /// Deliveries that were named.
    named: Arc<AtomicU64>,
    /// Events that were answered 201, ever.
    pub(crate) acknowledged: u64,
    /// Events that were sent again, and had been stored.
    pub(crate) replayed: u64,
    /// The list when it was last looked at.
    ongoing: Vec<String>,
}

/// The fleet in the air.
pub(crate) struct Flying {
    flights: Vec<Flight>,
    acknowledged: UnboundedReceiver<()>,
}

impl Fleet {
    /// Sends the drones up. Those that were on a mission go on with it.
    pub(crate) async fn take_off(&mut self, shop: &Shop, random: &mut fastrand::Rng) -> Flying {
        let (sender, acknowledged) = unbounded_channel();
        let mut flights = Vec::new();
        for _ in 0..DRONES {
            let ongoing = self.missions.iter().position(|one| !one.may_be_over());
            let drone = Drone {
                connection: shop.staff.connect().await,
                mission: ongoing.map(|index| self.missions.swap_remove(index)),
                random: random.fork(),
                begun: Arc::clone(&self.begun),
                named: Arc::clone(&self.named),
                sender: sender.clone(),
            };
            flights.push(tokio::spawn(drone.fly()));
        }
        Flying {
            flights,
            acknowledged,
        }
    }

    /// Takes the drones back, once the server has ended.
    pub(crate) async fn land(&mut self, flying: Flying) {
        for flight in flying.flights {
            let missions = within("a drone notices the end", flight).await.unwrap();
            self.missions.extend(missions);
        }
        let mut acknowledged = flying.acknowledged;
        while acknowledged.recv().await.is_some() {
            self.acknowledged += 1;
        }
    }

    /// What was answered 201 is there, in its order, and nothing else but perhaps what was not answered; the counts and the
    /// list agree with that. `kept`: what the server that has ended went by.
    pub(crate) async fn check(&mut self, shop: &Shop, stored: u64) {
        let mut connection = shop.staff.connect().await;
        let total = self.begun.load(Ordering::SeqCst)
            + found_to_have_begun(&mut connection, &self.missions).await;
        self.outlived = self.outlived.max(total.saturating_sub(stored));
        let mut ongoing = BTreeSet::new();
        let mut over = 0;
        let mut still_kept = Vec::new();
        let known = self.missions.len() as u64;
        for mission in self.missions.drain(..) {
            let Some(history) = history(&mut connection, &mission.id).await else {
                let pushed_out = mission.may_be_over() && mission.number_min <= self.outlived;
                assert!(pushed_out || mission.stored.is_empty(), "lost: {mission:?}");
                if !pushed_out {
                    still_kept.push(mission);
                }
                continue;
            };
            expect_history(&mission, &history);
            if history["ongoing"] == true {
                ongoing.insert(mission.id.clone());
            } else {
                over += 1;
            }
            still_kept.push(mission);
        }
        self.missions = still_kept;
        // Each beginning pushes out so many at most: after `kept` was lowered a few of them are not enough.
        let pushed_out_max = (total - self.begun_before.min(total)) * u64::from(EVICTED_PER_EVENT);
        if pushed_out_max >= known.max(1) {
            // A delivery that ended after the last beginning stays until the next.
            let most = stored + DRONES as u64;
            assert!(over <= most, "{over} are over and still there, not {most}");
        }
        self.begun_before = total;
        let counts = connection.ask(&get("/counts")).await.expect(200);
        assert_eq!(counts, json!({"ongoing": ongoing.len(), "total": total}));
        self.check_list(&mut connection, &ongoing).await;
    }

    async fn check_list(&mut self, connection: &mut Connection, ongoing: &BTreeSet<String>) {
        let list = connection.ask(&get("/deliveries")).await.expect(200);
        let list = list["deliveries"].as_array().unwrap().iter();
        let list: Vec<_> = list.map(|one| text(&one["delivery_id"])).collect();
        assert_eq!(&list.iter().cloned().collect::<BTreeSet<_>>(), ongoing);
        assert_eq!(list.len(), ongoing.len(), "one is there twice: {list:?}");
        // The oldest are first; what was there before is older than what was not.
        self.ongoing.retain(|id| ongoing.contains(id));
        assert!(
            list.starts_with(&self.ongoing),
            "{list:?} does not begin with {:?}",
            self.ongoing
        );
        self.ongoing = list;
    }

    /// Sends unanswered events again: each is stored exactly once, whether or not the first request stored it.
    pub(crate) async fn resend(&mut self, shop: &Shop) {
        let mut connection = shop.staff.connect().await;
        // First events come last: each may evict a delivery that is over.
        self.missions
            .sort_by_key(|mission| mission.stored.is_empty());
        for mission in &mut self.missions {
            let Some(event_type) = mission.unknown else {
                continue;
            };
            let before = history(&mut connection, &mission.id).await;
            let events = before.map_or(0, |before| before["events"].as_array().unwrap().len());
            let was_kept = events > mission.stored.len();
            let answer = connection.ask(&mission.report(event_type)).await;
            let replayed = answer.header("idempotency-replayed") == Some("true");
            assert_eq!(replayed, was_kept, "{mission:?}: {answer}");
            self.replayed += u64::from(replayed);
            mission.acknowledged(&answer);
            if mission.stored.len() == 1 {
                self.begun.fetch_add(1, Ordering::SeqCst);
            }
            let after = history(&mut connection, &mission.id).await.unwrap();
            assert_eq!(after["events"], json!(mission.stored), "{mission:?}");
        }
    }
}

impl Flying {
    /// Waits for so many events to be answered 201; returns how many came.
    pub(crate) async fn until(&mut self, events: u64) -> u64 {
        for _ in 0..events {
            let acknowledged = within("an event is acknowledged", self.acknowledged.recv()).await;
            assert!(acknowledged.is_some(), "every drone has stopped");
        }
        events
    }
}

struct Drone {
    connection: Connection,
    mission: Option<Mission>,
    random: fastrand::Rng,
    begun: Arc<AtomicU64>,
    named: Arc<AtomicU64>,
    sender: UnboundedSender<()>,
}

impl Drone {
    /// Flies one mission after the other until the server is gone, or says that it is going.
    async fn fly(mut self) -> Vec<Mission> {
        let mut flown = Vec::new();
        loop {
            let mut mission = self.mission.take().unwrap_or_else(|| self.plan());
            let goes_on = self.report_all(&mut mission).await;
            flown.push(mission);
            if !goes_on {
                return flown;
            }
        }
    }

    fn plan(&mut self) -> Mission {
        let name = self.named.fetch_add(1, Ordering::SeqCst);
        Mission {
            id: format!("mission-{name}"),
            length: self.random.usize(2..=6),
            stored: Vec::new(),
            unknown: None,
            number_min: self.begun.load(Ordering::SeqCst) + 1,
        }
    }

    async fn report_all(&mut self, mission: &mut Mission) -> bool {
        while let Some(event_type) = mission.next(&mut self.random) {
            mission.unknown = Some(event_type);
            let ask = mission.report(event_type);
            let Ok(answer) = self.connection.try_ask(&ask).await else {
                return false;
            };
            if answer.status == 503 {
                answer.expect_problem(503, "stopping");
                mission.unknown = None;
                return false;
            }
            mission.acknowledged(&answer);
            let replayed = answer.header("idempotency-replayed");
            assert_eq!(replayed, None, "it was sent once: {mission:?}: {answer}");
            if mission.stored.len() == 1 {
                self.begun.fetch_add(1, Ordering::SeqCst);
            }
            // Fails only if the fleet no longer counts.
            let _ = self.sender.send(());
        }
        true
    }
}

async fn history(connection: &mut Connection, id: &str) -> Option<Value> {
    let ask = get(format!("/deliveries/{id}/events"));
    let answer = connection.ask(&ask).await;
    if answer.status == 404 {
        answer.expect_problem(404, "delivery-unknown");
        return None;
    }
    Some(answer.expect(200))
}

/// Deliveries that began without their drones' knowing: the first event was stored, and not answered.
async fn found_to_have_begun(connection: &mut Connection, missions: &[Mission]) -> u64 {
    let mut found = 0;
    for mission in missions.iter().filter(|one| one.stored.is_empty()) {
        // It has not ended, so it cannot be gone again.
        found += u64::from(history(connection, &mission.id).await.is_some());
    }
    found
}

fn expect_history(mission: &Mission, history: &Value) {
    let events = history["events"].as_array().unwrap();
    let (known, more) = events
        .split_at_checked(mission.stored.len())
        .unwrap_or_else(|| panic!("events are lost: {mission:?}: {history}"));
    assert_eq!(known, mission.stored, "{mission:?}");
    match more {
        [] => {}
        [one] => {
            assert_eq!(one["type"], json!(mission.unknown), "{mission:?}");
            assert_eq!(one["sequence"], known.len() + 1, "{mission:?}");
        }
        _ => panic!("nobody sent all of this: {mission:?}: {history}"),
    }
    assert_eq!(history["state"], events.last().unwrap()["type"]);
}
