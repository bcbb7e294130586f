//! A day from its lists to its end: plans, several at once, then updates of every package by many hands.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use jiff::civil::Date;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Call};
use crate::{
    assignments::{Link, Status, call},
    connection::Address,
    options::Display,
    progress::{self, Progress},
    resend::{Resender, locked},
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
pub(crate) struct Office {
    pub(crate) server: Address,
    pub(crate) date: Date,
    pub(crate) max_per_driver: u32,
    pub(crate) shifts: u32,
    /// Share of packages that are not delivered in the end.
    pub(crate) failures: f64,
    /// Share of updates that are sent twice.
    pub(crate) duplicates: f64,
    pub(crate) concurrency: u32,
    pub(crate) seed: u64,
    /// From the first try of a request to giving it up, measured.
    pub(crate) patience: Duration,
    pub(crate) display: Display,
    pub(crate) closing: CancellationToken,
    pub(crate) book: Arc<Mutex<Book>>,
}

/// A connection, and the patience to use it again and again.
#[derive(Debug)]
struct Line {
    link: Link,
    resender: Resender,
}

/// What one of those who ask for a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Waits,
    /// Leaves before the answer, then asks for the same again.
    LeavesFirst,
    DryRun,
}

/// What is to be said of a package until its story is over.
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
    fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }

    fn line(&self, number: u64) -> Line {
        let resender = Resender::new(self.patience, self.closing.clone(), number);
        Line {
            link: Link::new(self.server.clone()),
            resender: resender.waiting_up_to(PLANNED_WITHIN),
        }
    }

    fn everybody(&self) -> Arc<[usize]> {
        (0..self.book().roster.drivers()).collect()
    }

    /// Makes two calls that must change nothing: a dry run, and a call for an unknown driver.
    pub(crate) async fn rehearse(&self) {
        let mut chance = Rng::with_seed(self.seed);
        let everybody = self.everybody();
        self.ask(&everybody, Manner::DryRun, Some(0), &mut chance)
            .await;
        self.ask_for_a_stranger().await;
    }

    /// Plans the day shift by shift, then for some drivers here and there at once.
    pub(crate) async fn plan(&self) {
        let mut chance = Rng::with_seed(self.seed);
        let everybody = self.everybody();
        for shift in 1..=self.shifts {
            // A driver more at least in each shift, as far as there are so many.
            let share = everybody.len() * shift as usize;
            let drivers = everybody[..share.div_ceil(self.shifts as usize)].into();
            let settled_at = Some(self.book().now());
            let mut asking = JoinSet::new();
            for number in 0..CALLERS {
                let (office, drivers) = (self.clone(), Arc::clone(&drivers));
                let mut chance = chance.fork();
                let manner = if number == 0 {
                    Manner::LeavesFirst
                } else {
                    Manner::Waits
                };
                asking.spawn(async move {
                    let asked = office.ask(&drivers, manner, settled_at, &mut chance);
                    Box::pin(asked).await;
                });
            }
            asking.join_all().await;
            // Again, alone: a retry changes nothing.
            self.ask(&drivers, Manner::Waits, settled_at, &mut chance)
                .await;
        }
        let mut asking = JoinSet::new();
        for _ in 0..CALLERS {
            let office = self.clone();
            let mut chance = chance.fork();
            let some = chance.usize(1..=everybody.len());
            let mut drivers = chance.choose_multiple(everybody.iter().copied(), some);
            drivers.sort_unstable();
            let drivers = drivers.into();
            asking.spawn(async move {
                let asked = office.ask(&drivers, Manner::Waits, None, &mut chance);
                Box::pin(asked).await;
            });
        }
        asking.join_all().await;
        self.book().settle();
    }

    /// Asks for a plan for these drivers, named in any order and some of them twice.
    async fn ask(
        &self,
        drivers: &Arc<[usize]>,
        manner: Manner,
        settled_at: Option<u64>,
        chance: &mut Rng,
    ) {
        if self.closing.is_cancelled() {
            return;
        }
        let dry_run = manner == Manner::DryRun;
        let (request, asked) = {
            let book = self.book();
            let mut named = drivers.to_vec();
            named.push(named[chance.usize(..named.len())]);
            chance.shuffle(&mut named);
            let named = named.iter().map(|driver| book.roster.driver_id(*driver));
            let named: Vec<_> = named.collect();
            let asked = Call {
                drivers: Arc::clone(drivers),
                max_per_driver: self.max_per_driver,
                sent_at: book.now(),
                dry_run,
                settled_at,
            };
            (call(&named, self.max_per_driver, self.date, dry_run), asked)
        };
        let mut line = self.line(chance.u64(..));
        if manner == Manner::LeavesFirst {
            let after = Duration::from_micros(chance.u64(..LEAVES_WITHIN_US));
            line.link.assign_and_leave(&request, after).await;
            self.book().left += 1;
        }
        let begun = Instant::now();
        let sent = line.link.assign(&request, &mut line.resender).await;
        let mut book = self.book();
        book.assigned(&asked, &sent, begun.elapsed());
        book.tries.add(line.resender.tries);
    }

    /// A call for a driver who is not in the lists is rejected.
    async fn ask_for_a_stranger(&self) {
        let stranger = format!("{}-stranger", self.book().roster.driver_id(0));
        let request = call(&[&stranger], self.max_per_driver, self.date, false);
        let mut line = self.line(0);
        let sent = line.link.assign_unknown(&request, &mut line.resender).await;
        let mut book = self.book();
        book.refused("POST /assign for an unknown driver", &sent);
        book.tries.add(line.resender.tries);
    }

    /// Reports the progress of every assigned package, to its last status. Returns how long that took.
    pub(crate) async fn update(&self) -> Duration {
        let stories = self.stories();
        let progress = Progress::of_senders(3 * u64::try_from(stories.len()).unwrap_or(u64::MAX));
        let shown = progress::show(&progress, self.display);
        let stories = Arc::new(Mutex::new(stories));
        let begun = Instant::now();
        let mut publishing = JoinSet::new();
        for number in 0..u64::from(self.concurrency) {
            let publisher = Publisher {
                office: self.clone(),
                first: self.line(2 * number),
                second: self.line(2 * number + 1),
                progress: Arc::clone(&progress),
            };
            publishing.spawn(publisher.work(Arc::clone(&stories)));
        }
        publishing.join_all().await;
        let elapsed = begun.elapsed();
        drop(shown);
        elapsed
    }

    fn stories(&self) -> VecDeque<Story> {
        let mut chance = Rng::with_seed(self.seed.wrapping_add(1));
        let book = self.book();
        let stories = book.held().enumerate().map(|(number, (package, holding))| {
            let is_twice = |chance: &mut Rng| u8::from(chance.f64() < self.duplicates);
            Story {
                driver: holding.driver,
                package,
                end: if chance.f64() < self.failures {
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
    office: Office,
    first: Line,
    second: Line,
    progress: Arc<Progress>,
}

impl Publisher {
    async fn work(mut self, stories: Arc<Mutex<VecDeque<Story>>>) {
        while !self.office.closing.is_cancelled() {
            let Some(story) = locked(&stories).pop_front() else {
                break;
            };
            Box::pin(self.post(story)).await;
        }
        let mut book = locked(&self.office.book);
        book.tries.add(self.first.resender.tries);
        book.tries.add(self.second.resender.tries);
    }

    async fn post(&mut self, story: Story) {
        for (bit, status) in [Status::Accepted, Status::InProgress, story.end]
            .into_iter()
            .enumerate()
        {
            let twice = story.twice & (1 << bit) != 0;
            // A story goes on from where it is known to be.
            if !self.update(story, status, twice).await || self.office.closing.is_cancelled() {
                return;
            }
        }
        if story.is_strange {
            self.post_unknown(story).await;
        }
    }

    /// Whether it was acknowledged.
    async fn update(&mut self, story: Story, status: Status, twice: bool) -> bool {
        let roster = Arc::clone(&self.office.book().roster);
        let driver = roster.driver_id(story.driver);
        let package = roster.package_id(story.package);
        let office = &self.office;
        let say = async |line: &mut Line| {
            let begun = Instant::now();
            let before = office.book().times(story.package);
            let Line { link, resender } = line;
            let sent = link.update(driver, package, status, resender).await;
            let mut book = office.book();
            book.updated(story.package, status, &sent, before, begun.elapsed())
        };
        self.progress.customer_came();
        let acknowledged = if twice && story.at_once {
            let both = tokio::join!(say(&mut self.first), say(&mut self.second));
            both.0 && both.1
        } else {
            let once = say(&mut self.first).await;
            once && (!twice || say(&mut self.second).await)
        };
        self.progress.customer_left(acknowledged);
        self.office.book().repeated += u64::from(twice && acknowledged);
        acknowledged
    }

    /// Updates that must be rejected: another driver's package, an unknown package, an unknown driver.
    async fn post_unknown(&mut self, story: Story) {
        let roster = Arc::clone(&self.office.book().roster);
        let driver = roster.driver_id(story.driver);
        let package = roster.package_id(story.package);
        let (no_driver, no_package) = (format!("{driver}-stranger"), format!("{package}-none"));
        let mut pairs = vec![(driver, &no_package[..]), (&no_driver[..], package)];
        if roster.drivers() > 1 {
            let other = (story.driver + 1) % roster.drivers();
            pairs.push((roster.driver_id(other), package));
        }
        for (driver, package) in pairs {
            let Line { link, resender } = &mut self.first;
            let sent = link.update_unknown(driver, package, resender).await;
            let what = format!("POST /update of {package} by {driver}");
            // What ctrl-c has cut short proves nothing.
            if sent.acknowledged.is_some() || !self.office.closing.is_cancelled() {
                self.office.book().refused(&what, &sent);
            }
        }
    }
}
