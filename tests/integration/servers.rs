//! The fixture of a shared line: Redis, two servers, and nginx, which sends a lost server's requests to the other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::redis::Redis;
use testkit::until;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Answer, Ask, Visitor, get, order, post};
use crate::nginx::{BEHIND_NGINX, Nginx, free_address, variant_of};
use crate::shop::{Shop, Started, variable};

/// What a server needs to have its line in this Redis.
pub(crate) fn shared_line(url: &str) -> [(&str, &str); 2] {
    [("orders.store", "redis"), ("redis.url", url)]
}

/// Redis as docs/scaling.md has it: what it loses, the servers assert.
pub(crate) const REDIS: &str = "save \"\"\nappendonly yes\nappendfsync everysec\n";

/// Gives a server a line of its own in a Redis that all of this process's shops use.
pub(crate) async fn share_line(command: &mut Command) {
    static ALL: OnceCell<Redis> = OnceCell::const_new();
    static LINES: AtomicU64 = AtomicU64::new(0);
    let redis = ALL.get_or_init(Redis::durable).await;
    let line = format!("line-{}", LINES.fetch_add(1, Ordering::Relaxed));
    let url = redis.url();
    for (key, value) in shared_line(&url)
        .into_iter()
        .chain([("orders.line", &*line)])
    {
        command.env(variable(key), value);
    }
}

pub(crate) struct Servers {
    pub(crate) redis: Redis,
    urls: [String; 2],
    settings: Vec<(String, String)>,
    shops: [Option<Shop>; 2],
    addresses: [[SocketAddr; 2]; 2],
    pub(crate) nginx: Nginx,
}

impl Servers {
    pub(crate) async fn open(settings: &[(&str, &str)]) -> Self {
        let redis = Redis::with(REDIS).await;
        let url = redis.url();
        Self::on(redis, [url.clone(), url], settings).await
    }

    /// With Redis at these URLs, one for each server, which may be a proxy's.
    pub(crate) async fn on(redis: Redis, urls: [String; 2], settings: &[(&str, &str)]) -> Self {
        let addresses = [0, 1].map(|_| [free_address(), free_address()]);
        let settings = settings
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let list = |at: usize| addresses.map(|address| address[at].to_string()).join(",");
        let nginx = Nginx::start(variant_of(&list(0), &list(1), &[])).await;
        let mut new = Self {
            redis,
            urls,
            settings: settings.collect(),
            shops: [None, None],
            addresses,
            nginx,
        };
        for at in [0, 1] {
            new.start(at).await;
        }
        new
    }

    pub(crate) fn shop(&self, at: usize) -> &Shop {
        self.shops[at].as_ref().unwrap()
    }

    /// Starts a server that is not there, at its addresses.
    pub(crate) async fn start(&mut self, at: usize) {
        let [customers, staff] = self.addresses[at].map(|address| address.to_string());
        let mut settings = shared_line(&self.urls[at]).to_vec();
        settings.extend([
            ("customers.listen", &*customers),
            ("staff.listen", &*staff),
            BEHIND_NGINX,
        ]);
        let own = self.settings.iter();
        settings.extend(own.map(|(key, value)| (&**key, &**value)));
        let shop = Shop::open(&settings).await;
        until("the store knows the server", async || {
            shop.log().contains("knows what this server holds")
        })
        .await;
        self.shops[at] = Some(shop);
    }

    /// Ends a server as a crash does.
    pub(crate) async fn kill(&mut self, at: usize) {
        self.shops[at].take().unwrap().crash().await;
    }

    /// Ends a server in an orderly way. How long that took.
    pub(crate) async fn stop(&mut self, at: usize) -> Duration {
        let shop = self.shops[at].take().unwrap();
        let begun = Instant::now();
        shop.signal(Signal::TERM);
        shop.ended_well().await;
        begun.elapsed()
    }

    /// Waits for the orderly end of a server.
    pub(crate) async fn ended_well(&mut self, at: usize) {
        self.shops[at].take().unwrap().ended_well().await;
    }

    /// The server that holds more requests.
    pub(crate) async fn fuller(&self) -> usize {
        let held = [
            self.shop(0).metrics().await.held(),
            self.shop(1).metrics().await.held(),
        ];
        usize::from(held[1] > held[0])
    }

    /// Customers through nginx, each from an address and with a name of their own. Those in line have come in this order.
    pub(crate) async fn customers(&self, numbers: std::ops::Range<usize>) -> Vec<Visitor> {
        let mut visitors = Vec::new();
        for number in numbers {
            let from = format!("127.1.{}.{}", number / 250, number % 250 + 1);
            visitors.push(self.customer_from(&from, number).await);
        }
        visitors
    }

    pub(crate) async fn customer_from(&self, from: &str, number: usize) -> Visitor {
        let mut connection = self.nginx.customers.connect_from(from).await;
        let ask = order().json(&json!({"customer": number.to_string()}));
        Visitor::new(async move { connection.try_ask(&ask).await })
    }

    /// Waits until so many requests are held by both servers together.
    pub(crate) async fn holds(&self, count: usize) {
        until("the customers are held", async || {
            let mut held = 0;
            for shop in self.shops.iter().flatten() {
                held += shop.metrics().await.held();
            }
            held == count
        })
        .await;
    }

    /// Waits until so many orders wait in the line, as a server sees it.
    pub(crate) async fn line_has(&self, waiting: usize) {
        let shop = self.shops.iter().flatten().next().unwrap();
        shop.until("the line has so many", |metrics| {
            metrics.waiting() == waiting
        })
        .await;
    }

    /// Ends both servers, which hold no request any more, and reads their logs.
    pub(crate) async fn close(mut self) {
        for at in [0, 1] {
            if self.shops[at].is_some() {
                self.stop(at).await;
            }
        }
    }
}

/// Baristas behind nginx, each with so long for a coffee, until they are sent home.
pub(crate) struct Crew {
    /// The leases that reached a barista, and the refusals of their reports.
    tasks: JoinSet<(Vec<Started>, Vec<Answer>)>,
    goes_home: Arc<AtomicBool>,
}

impl Crew {
    /// `brew`: how long a coffee takes.
    pub(crate) fn at_work(servers: &Servers, count: usize, brew: Duration) -> Self {
        let goes_home = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (door, goes_home) = (servers.nginx.staff, Arc::clone(&goes_home));
            tasks.spawn(async move {
                let (mut leases, mut refused) = (Vec::new(), Vec::new());
                while !goes_home.load(Ordering::Relaxed) {
                    let answer = door.ask(get("/start/?wait=1")).await;
                    if matches!(answer.status, 204 | 503) {
                        if answer.status == 503 {
                            sleep(Duration::from_millis(50)).await;
                        }
                        continue;
                    }
                    let started = Started::of(&answer.expect(200));
                    sleep(brew).await;
                    let finish = finish(&started);
                    leases.push(started);
                    loop {
                        let answer = door.ask(finish.clone()).await;
                        match answer.status {
                            503 => sleep(Duration::from_millis(50)).await,
                            404 | 409 => {
                                refused.push(answer);
                                break;
                            }
                            _ => {
                                answer.expect(200);
                                break;
                            }
                        }
                    }
                }
                (leases, refused)
            });
        }
        Self { tasks, goes_home }
    }

    /// Ends the work. All leases that reached a barista.
    pub(crate) async fn go_home(self) -> Vec<Started> {
        let (leases, refused) = self.end().await;
        assert!(refused.is_empty(), "{refused:?}");
        leases
    }

    /// As [`Crew::go_home`], of a crew that was at work when Redis lost something: orders whose starts it has lost wait again, those
    /// of customers who had got theirs are unknown, and a short lease may end before its report is accepted.
    pub(crate) async fn go_home_after_a_loss(self) {
        for refused in self.end().await.1 {
            let kind = refused.json()["type"].clone();
            let is_of_loss = ["not-started", "attempt-outdated", "order-unknown"]
                .iter()
                .any(|slug| kind == format!("urn:odyssey:problem:{slug}"));
            assert!(is_of_loss, "{refused}");
        }
    }

    /// As [`Crew::go_home`], with the refusals of reports.
    pub(crate) async fn end(self) -> (Vec<Started>, Vec<Answer>) {
        self.goes_home.store(true, Ordering::Relaxed);
        let (leases, refused): (Vec<_>, Vec<_>) = self.tasks.join_all().await.into_iter().unzip();
        (leases.concat(), refused.concat())
    }
}

fn finish(started: &Started) -> Ask {
    post(format!(
        "/finish/?order_id={}&attempt={}",
        started.id, started.attempt
    ))
}

/// All customers are answered 200. Their answers.
pub(crate) async fn all_ready(visitors: Vec<Visitor>) -> Vec<Value> {
    let mut answers = Vec::new();
    for visitor in visitors {
        let ready = visitor.answer().await.expect(200);
        assert_eq!(ready["status"], "ready");
        answers.push(ready);
    }
    let ids: BTreeSet<&str> = answers
        .iter()
        .map(|ready| ready["order_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), answers.len(), "each has an order of their own");
    answers
}

/// No order was started before one that was placed earlier, among those that had one lease only.
pub(crate) fn assert_in_order(answers: &[Value]) {
    let time = |ready: &Value, at: &str| -> jiff::Timestamp {
        ready[at].as_str().unwrap().parse().unwrap()
    };
    let mut times: Vec<_> = answers
        .iter()
        .filter(|ready| ready["attempts"] == 1)
        .map(|ready| (time(ready, "placed_at"), time(ready, "started_at")))
        .collect();
    times.sort_unstable();
    let mut latest = None;
    for group in times.chunk_by(|a, b| a.0 == b.0) {
        for (placed, started) in group {
            assert!(
                Some(*started) >= latest,
                "an order of {placed} was started at {started}, after a later one at {latest:?}"
            );
        }
        latest = latest.max(group.iter().map(|(_, started)| *started).max());
    }
}
