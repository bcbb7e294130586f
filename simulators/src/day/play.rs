//! A day from its lists to its end: plans, several at once, then updates of every package by many workers.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fastrand::Rng;
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::{
    Playing,
    book::{Book, Call, LEFT, REPEATED},
};
use crate::{
    assignments::{self, Item, Model, Plan, Status},
    client::Client,
    connection::Outgoing,
    crew::{Crew, Shared},
    options::Display,
    progress::{self, Progress},
};

/// So many ask for the same plan at once.
const CALLERS: u64 = 4;
/// A plan may take the server so long, measured.
const PLANNED_WITHIN: Duration = Duration::from_secs(60);
/// A caller who is not going to wait for the answer leaves after at most so many microseconds, measured.
const LEAVES_WITHIN_US: u64 = 3000;
/// One in so many updates is followed by one about something that the server does not know.
const STRANGE_EVERY: usize = 25;

/// The settings and the state that all clients of a run share.
#[derive(Debug, Clone)]
pub(super) struct Office {
    pub(super) playing: Playing,
    pub(super) seed: u64,
    pub(super) display: Display,
    pub(super) crew: Crew,
    pub(super) book: Shared<Book>,
}

/// What one of those who ask for a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Waits,
    /// Leaves before the answer, then asks for the same again.
    LeavesFirst,
    DryRun,
}

/// The updates of a package until its end.
#[derive(Debug, Clone, Copy)]
struct Story {
    driver: usize,
    package: usize,
    end: Status,
    /// How many of its updates are sent twice, and whether over two connections at once: a bit for each update.
    twice: u8,
    at_once: bool,
    is_strange: bool,
}

impl Office {
    fn client(&self, number: u64) -> Client {
        let client = self.crew.client(number).waiting_up_to(PLANNED_WITHIN);
        client.taking_answers_up_to(super::ANSWER_MAX_BYTES)
    }

    fn model(&self) -> Arc<Model> {
        Arc::clone(&self.book.lock().model)
    }

    fn everybody(&self) -> Arc<[usize]> {
        (0..self.model().drivers()).collect()
    }

    /// Makes two calls that must change nothing: a dry run, and a call for an unknown driver.
    pub(super) async fn rehearse(&self) {
        let mut chance = Rng::with_seed(self.seed);
        self.ask(&self.everybody(), Manner::DryRun, Some(0), &mut chance)
            .await;
        let stranger = format!("{}-stranger", self.model().driver_id(0));
        let mut client = self.client(0);
        let request = self.assign(&client, &[&stranger], false);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let read = |answer: &_| assignments::refused(answer, status);
        let sent = client.send(&request, read).await;
        let mut book = self.book.lock();
        book.refused("POST /assign for an unknown driver", &sent);
        book.tally.merge(client.tally);
    }

    fn assign(&self, client: &Client, drivers: &[&str], dry_run: bool) -> Outgoing {
        let date = self.book.lock().date;
        let call = assignments::assign(drivers, self.playing.max_per_driver, date, dry_run);
        client.request(Method::POST, "/assign", Some(call.to_string()))
    }

    /// Plans the day shift by shift, then for some drivers here and there at once.
    pub(super) async fn plan(&self) {
        let mut chance = Rng::with_seed(self.seed);
        let everybody = self.everybody();
        for shift in 1..=self.playing.shifts {
            // A driver more at least in each shift, as far as there are so many.
            let share = everybody.len() * shift as usize;
            let share = share.div_ceil(self.playing.shifts as usize);
            let drivers: Arc<[usize]> = everybody[..share].into();
            let settled_at = Some(self.book.lock().now());
            let asking = (0..CALLERS).map(|number| {
                let manner = match number {
                    0 => Manner::LeavesFirst,
                    _ => Manner::Waits,
                };
                self.clone()
                    .ask_beside(Arc::clone(&drivers), manner, settled_at, chance.fork())
            });
            self.crew.at_once(asking).await;
            // Again, alone: a retry changes nothing.
            self.ask(&drivers, Manner::Waits, settled_at, &mut chance)
                .await;
        }
        let asking = (0..CALLERS).map(|_| {
            let mut chance = chance.fork();
            let some = chance.usize(1..=everybody.len());
            let mut drivers = chance.choose_multiple(everybody.iter().copied(), some);
            drivers.sort_unstable();
            self.clone()
                .ask_beside(drivers.into(), Manner::Waits, None, chance)
        });
        self.crew.at_once(asking).await;
        self.book.lock().settle();
    }

    /// [`ask`](Self::ask) in a task of its own.
    async fn ask_beside(
        self,
        drivers: Arc<[usize]>,
        manner: Manner,
        settled_at: Option<u64>,
        mut chance: Rng,
    ) {
        Box::pin(self.ask(&drivers, manner, settled_at, &mut chance)).await;
    }

    /// Asks for a plan for these drivers, named in any order and one of them twice.
    async fn ask(
        &self,
        drivers: &Arc<[usize]>,
        manner: Manner,
        settled_at: Option<u64>,
        chance: &mut Rng,
    ) {
        if self.crew.is_stopped() {
            return;
        }
        let dry_run = manner == Manner::DryRun;
        let mut named = drivers.to_vec();
        named.push(named[chance.usize(..named.len())]);
        chance.shuffle(&mut named);
        let model = self.model();
        let named: Vec<_> = named
            .iter()
            .map(|driver| model.driver_id(*driver))
            .collect();
        let call = Call {
            drivers: Arc::clone(drivers),
            max_per_driver: self.playing.max_per_driver,
            sent_at: self.book.lock().now(),
            dry_run,
            settled_at,
        };
        let mut client = self.client(chance.u64(..));
        let request = self.assign(&client, &named, dry_run);
        if manner == Manner::LeavesFirst {
            let after = Duration::from_micros(chance.u64(..LEAVES_WITHIN_US));
            // The outcome does not matter: the same is asked for again.
            drop(timeout(after, Box::pin(client.exchange(request.clone()))).await);
            self.book.lock().tally.count(LEFT);
        }
        let begun = Instant::now();
        let sent = client.send(&request, assignments::accepted::<Plan>).await;
        let mut book = self.book.lock();
        book.assigned(&call, &sent, begun.elapsed());
        book.tally.merge(client.tally);
    }

    /// Reports the progress of every assigned package, to its last status. Returns how long that took.
    pub(super) async fn update(&self) -> Duration {
        let stories = self.stories();
        let mut office = self.clone();
        office.crew.progress = Progress::of_requests(3 * stories.len() as u64);
        let shown = progress::show(&office.crew.progress, self.display);
        let stories = Shared::new(stories);
        let begun = Instant::now();
        let publishers = (0..u64::from(self.playing.concurrency)).map(|number| {
            let publisher = Publisher {
                first: self.client(2 * number),
                second: self.client(2 * number + 1),
                model: self.model(),
                office: office.clone(),
            };
            Box::pin(publisher.work(stories.clone()))
        });
        self.crew.at_once(publishers).await;
        let elapsed = begun.elapsed();
        drop(shown);
        elapsed
    }

    fn stories(&self) -> VecDeque<Story> {
        let mut chance = Rng::with_seed(self.seed.wrapping_add(1));
        let book = self.book.lock();
        let stories = book.held().enumerate().map(|(number, (package, holding))| {
            let is_twice = |chance: &mut Rng| u8::from(chance.f64() < self.playing.duplicates);
            Story {
                driver: holding.driver,
                package,
                end: if chance.f64() < self.playing.failures {
                    Status::FailedToDeliver
                } else {
                    Status::Delivered
                },
                twice: (0..3).map(|bit| is_twice(&mut chance) << bit).sum(),
                at_once: chance.bool(),
                is_strange: number.is_multiple_of(STRANGE_EVERY),
            }
        });
        let mut stories: Vec<_> = stories.collect();
        chance.shuffle(&mut stories);
        stories.into()
    }
}

/// Reports the progress of packages, one after the other.
struct Publisher {
    first: Client,
    second: Client,
    model: Arc<Model>,
    office: Office,
}

impl Publisher {
    async fn work(mut self, stories: Shared<VecDeque<Story>>) {
        while !self.office.crew.is_stopped() {
            let Some(story) = stories.lock().pop_front() else {
                break;
            };
            self.post(story).await;
        }
        let mut book = self.office.book.lock();
        book.tally.merge(self.first.tally);
        book.tally.merge(self.second.tally);
    }

    async fn post(&mut self, story: Story) {
        let statuses = [Status::Accepted, Status::InProgress, story.end];
        for (bit, status) in statuses.into_iter().enumerate() {
            let twice = story.twice & (1 << bit) != 0;
            // A story goes on from where it is known to be.
            if !self.update(story, status, twice).await || self.office.crew.is_stopped() {
                return;
            }
        }
        if story.is_strange {
            self.post_unknown(story).await;
        }
    }

    /// Whether it was acknowledged.
    async fn update(&mut self, story: Story, status: Status, twice: bool) -> bool {
        let (model, office) = (&self.model, &self.office);
        let (driver, package) = (
            model.driver_id(story.driver),
            model.package_id(story.package),
        );
        let body = assignments::update(driver, package, status).to_string();
        let send = async |client: &mut Client| {
            let begun = Instant::now();
            let before = office.book.lock().times(story.package);
            let request = client.request(Method::POST, "/update", Some(body.clone()));
            let sent = client.send(&request, assignments::accepted::<Item>).await;
            let mut book = office.book.lock();
            book.updated(story.package, status, &sent, before, begun.elapsed())
        };
        office.crew.progress.came();
        let acknowledged = if twice && story.at_once {
            let both = tokio::join!(send(&mut self.first), send(&mut self.second));
            both.0 && both.1
        } else {
            let once = send(&mut self.first).await;
            once && (!twice || send(&mut self.second).await)
        };
        office.crew.progress.left(acknowledged);
        let repeated = u64::from(twice && acknowledged);
        office.book.lock().tally.add(REPEATED, repeated);
        acknowledged
    }

    /// Updates that must be rejected: another driver's package, an unknown package, an unknown driver.
    async fn post_unknown(&mut self, story: Story) {
        let model = &self.model;
        let (driver, package) = (
            model.driver_id(story.driver),
            model.package_id(story.package),
        );
        let (no_driver, no_package) = (format!("{driver}-stranger"), format!("{package}-none"));
        let mut pairs = vec![(driver, &no_package[..]), (&no_driver[..], package)];
        if model.drivers() > 1 {
            let other = (story.driver + 1) % model.drivers();
            pairs.push((model.driver_id(other), package));
        }
        for (driver, package) in pairs {
            let body = assignments::update(driver, package, Status::Accepted).to_string();
            let request = self.first.request(Method::POST, "/update", Some(body));
            let read = |answer: &_| assignments::refused(answer, StatusCode::NOT_FOUND);
            let sent = self.first.send(&request, read).await;
            let what = format!("POST /update of {package} by {driver}");
            // What ctrl-c has cut short proves nothing.
            if sent.answer().is_some() || !self.office.crew.is_stopped() {
                self.office.book.lock().refused(&what, &sent);
            }
        }
    }
}
