//! Senders whose server may end at any moment, and who know afterwards what must have become of their packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection as Database;
use serde_json::{Value, json};
use testkit::until;
use tokio::time::sleep;

use crate::client::{Answer, Connection, get, send, within};
use crate::durability::{
    ROUNDS_VARIABLE, Seed, number_from_environment, open, start_that_is_cut_short,
};
use crate::packages::{counted, package, preferences, put_preferences, with};
use crate::shop::{Shop, odyssey, variable};

/// How often the server is killed. `make soak` wants a thousand.
const ROUNDS: u64 = 10;
/// Senders that are at it at once.
const SENDERS: usize = 8;
const RECIPIENTS: u64 = 6;
const TYPES: [&str; 2] = ["personal", "marketing"];

/// When something was said, and whether it is a refusal: the greater word holds.
type Word = (i64, bool);
/// A recipient's preference of one type.
type Preference = (u64, usize);

#[derive(Debug, Clone, Copy)]
struct Update {
    recipient: u64,
    second: i64,
    /// By type.
    takes: [bool; 2],
}

impl Update {
    fn body(&self) -> Value {
        let recipient = format!("recipient-{}", self.recipient);
        let message = preferences(self.second, self.takes[0], self.takes[1]);
        with(&message, "recipient_id", recipient)
    }

    fn all_preferences(&self) -> impl Iterator<Item = (Preference, Word)> {
        let types = self.takes.into_iter().enumerate();
        types.map(|(at, takes)| ((self.recipient, at), (self.second, !takes)))
    }
}

/// A package that was sent, maybe several times.
#[derive(Debug, Clone, Default)]
struct Sent {
    /// The first outcome, once an answer has reported it.
    first: Option<Value>,
    /// A sender received a 201.
    created: bool,
}

/// What all senders together know.
#[derive(Debug, Default)]
struct Book {
    packages: Vec<Sent>,
    /// Everything that was ever said, acknowledged or not.
    message: BTreeSet<(Preference, Word)>,
    /// The words that hold by what was acknowledged.
    all_preferences: BTreeMap<Preference, Word>,
    /// Updates that were not answered.
    unknown: Vec<Update>,
    /// Malformed requests that were refused, ...
    rejected: u64,
    /// ... and those that were not answered.
    maybe_rejected: u64,
    /// ... and of those, what the last start has shown.
    rejected_before: u64,
    answered: u64,
}

/// The number determines recipient and type, so that each repetition has the same fields.
fn numbered(number: usize) -> Value {
    let recipient = format!("recipient-{}", preference(number).0);
    let sent = with(
        &package(format!("package {number}")),
        "recipient_id",
        recipient,
    );
    with(&sent, "package_type", TYPES[preference(number).1])
}

fn preference(number: usize) -> Preference {
    (number as u64 / 2 % RECIPIENTS, number % 2)
}

impl Book {
    /// Notes the outcome of a package. `known`: a sender knew it before this request; `word`: the recipient's latest
    /// word that was acknowledged by then.
    fn sent(&mut self, number: usize, answer: &Answer, known: bool, preferences: Option<Word>) {
        let mut body = answer.expect(if answer.status == 201 { 201 } else { 200 });
        let duplicate = body.as_object_mut().unwrap().remove("duplicate");
        assert_eq!(duplicate, Some(json!(answer.status == 200)), "{answer}");
        assert_eq!(body["package_id"], format!("package {number}"), "{answer}");
        if answer.status == 201 {
            let again = known || self.packages[number].created;
            assert!(!again, "processed twice: {answer}");
            self.packages[number].created = true;
            assert!(
                word_of(&body) >= preferences,
                "not what was said: {preferences:?} {answer}"
            );
        }
        self.found(number, &body);
    }

    /// What became of it is what was known, and what its recipient had wished some time.
    fn found(&mut self, number: usize, body: &Value) {
        let preferences = word_of(body);
        let message = preferences
            .is_none_or(|preferences| self.message.contains(&(preference(number), preferences)));
        assert!(message, "nobody said so: {body}");
        let first = self.packages[number].first.get_or_insert(body.clone());
        assert_eq!(first, body, "the first outcome is another");
    }

    fn updated(&mut self, update: &Update) {
        for (preference, preferences) in update.all_preferences() {
            let holds = self
                .all_preferences
                .entry(preference)
                .or_insert(preferences);
            *holds = preferences.max(*holds);
        }
    }

    /// The statistics by what is known.
    fn statistics(&self) -> Value {
        let mut tallies = [[0; 2]; 2];
        for (number, sent) in self.packages.iter().enumerate() {
            if let Some(first) = &sent.first {
                let dropped = first["status"] == "dropped";
                tallies[preference(number).1][usize::from(dropped)] += 1;
            }
        }
        counted(tallies[0], tallies[1], self.rejected)
    }
}

/// The word that decided, as the answer reports it.
fn word_of(body: &Value) -> Option<Word> {
    let dropped = body["status"] == "dropped";
    let Some(said_at) = body["preference_timestamp"].as_str() else {
        assert!(!dropped, "nobody has declined it: {body}");
        return None;
    };
    let said_at: Timestamp = said_at.parse().unwrap();
    Some((said_at.as_second(), dropped))
}

struct Sender {
    connection: Connection,
    book: Arc<Mutex<Book>>,
    random: fastrand::Rng,
}

impl Sender {
    /// Does one thing after the other, until the server is gone.
    async fn work(mut self) {
        loop {
            let answered = match self.random.u8(..10) {
                0 => self.reject().await,
                1 | 2 => self.update().await,
                _ => self.send().await,
            };
            if answered.is_none() {
                return;
            }
            self.book.lock().unwrap().answered += 1;
        }
    }

    /// A new package, or one that a worker has sent lately, or is sending.
    async fn send(&mut self) -> Option<()> {
        let (number, known, preferences) = {
            let mut book = self.book.lock().unwrap();
            let count = book.packages.len();
            let number = if self.random.u8(..3) == 0 && count > 0 {
                self.random.usize(count.saturating_sub(30)..count)
            } else {
                book.packages.push(Sent::default());
                count
            };
            let preferences = book.all_preferences.get(&preference(number)).copied();
            (number, book.packages[number].first.is_some(), preferences)
        };
        let answer = self.connection.try_ask(&send(&numbered(number))).await;
        let mut book = self.book.lock().unwrap();
        book.sent(number, &answer.ok()?, known, preferences);
        Some(())
    }

    async fn update(&mut self) -> Option<()> {
        let update = {
            let mut book = self.book.lock().unwrap();
            // Time goes on, now and then backwards or not at all.
            let now = i64::try_from(book.answered / 16).unwrap();
            let update = Update {
                recipient: self.random.u64(..RECIPIENTS),
                second: now + self.random.i64(0..5),
                takes: [self.random.bool(), self.random.bool()],
            };
            book.message.extend(update.all_preferences());
            update
        };
        let answer = self
            .connection
            .try_ask(&put_preferences(&update.body()))
            .await;
        let mut book = self.book.lock().unwrap();
        let Ok(answer) = answer else {
            book.unknown.push(update);
            return None;
        };
        assert!(answer.expect(200)["applied"].is_boolean());
        book.updated(&update);
        Some(())
    }

    async fn reject(&mut self) -> Option<()> {
        let wrong = with(&package("wrong"), "package_type", "none");
        let answer = self.connection.try_ask(&send(&wrong)).await;
        let mut book = self.book.lock().unwrap();
        let Ok(answer) = answer else {
            book.maybe_rejected += 1;
            return None;
        };
        answer.expect_problem(422, "invalid");
        book.rejected += 1;
        Some(())
    }
}

/// Checks that a restarted server agrees with the book, and adds to the book what was unknown. Packages up to
/// `checked` are only counted.
async fn check(shop: &Shop, book: &mut Book, checked: usize) {
    let mut connection = shop.customers.connect().await;
    for number in 0..book.packages.len() {
        let known = book.packages[number].first.is_some();
        if known && number < checked {
            continue;
        }
        let path = format!("/packages/package%20{number}");
        let answer = connection.ask(&get(path)).await;
        if answer.status == 404 {
            answer.expect_problem(404, "package-unknown");
            assert!(!known, "lost: {:?}", book.packages[number]);
        } else {
            book.found(number, &answer.expect(200));
        }
    }
    let now = connection.ask(&get("/statistics")).await.expect(200);
    let rejected = now["requests_rejected"].as_u64().unwrap();
    // A crash loses those of the last quarter of a second, and none that were seen after an earlier one.
    let possible = book.rejected_before..=book.rejected + book.maybe_rejected;
    assert!(possible.contains(&rejected), "{rejected} of {possible:?}");
    (book.rejected, book.maybe_rejected) = (rejected, 0);
    book.rejected_before = rejected;
    assert_eq!(now, book.statistics());
    check_preferences(&mut connection, book).await;
}

/// What holds was acknowledged, or is what was not answered. Said again it is acknowledged, and then all is known.
async fn check_preferences(connection: &mut Connection, book: &mut Book) {
    expect_preferences(connection, book).await;
    for update in &book.unknown {
        connection
            .ask(&put_preferences(&update.body()))
            .await
            .expect(200);
    }
    for update in std::mem::take(&mut book.unknown) {
        book.updated(&update);
    }
    expect_preferences(connection, book).await;
}

/// Each preference is the latest word that was acknowledged, or a later one of those that were not answered.
async fn expect_preferences(connection: &mut Connection, book: &Book) {
    for recipient in 0..RECIPIENTS {
        let path = format!("/preferences/recipient-{recipient}");
        let found = connection.ask(&get(path)).await.expect(200);
        for (at, name) in TYPES.iter().enumerate() {
            let known = book.all_preferences.get(&(recipient, at)).copied();
            let unknown = book.unknown.iter().flat_map(Update::all_preferences);
            let unknown = unknown.filter(|(of, _)| *of == (recipient, at));
            let all_preferences = unknown.map(|(_, preferences)| known.max(Some(preferences)));
            let mut possible = all_preferences.chain([known]);
            let takes = found[format!("{name}_preference")].as_bool().unwrap();
            // Who has said nothing takes everything.
            let holds = possible
                .any(|preferences| preferences.is_none_or(|preferences| !preferences.1) == takes);
            assert!(holds, "{found}: {known:?} {:?}", book.unknown);
        }
    }
}

/// Everything that was ever sent is sent again, and nothing of it processed again but what never was.
async fn resend_all(shop: &Shop, book: &Arc<Mutex<Book>>) {
    let count = book.lock().unwrap().packages.len();
    let tasks: Vec<_> = (0..SENDERS)
        .map(|first| {
            let (door, book) = (shop.customers, Arc::clone(book));
            tokio::spawn(async move {
                let mut connection = door.connect().await;
                for number in (first..count).step_by(SENDERS) {
                    let known = book.lock().unwrap().packages[number].first.is_some();
                    let answer = connection.ask(&send(&numbered(number))).await;
                    assert_eq!(answer.status, if known { 200 } else { 201 }, "{answer}");
                    book.lock().unwrap().sent(number, &answer, known, None);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = shop.customers.ask(get("/statistics")).await.expect(200);
    assert_eq!(now, book.lock().unwrap().statistics());
}

// --- The audit -----------------------------------------------------------------------------------------------------

/// Recounts the ledger, while other requests may run.
async fn audit(data: &Path) -> Output {
    let mut command = odyssey();
    command.args(["packages", "audit"]);
    command.env(variable("data_dir"), data);
    command.env_remove("RUST_BACKTRACE");
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    within("the audit ends", run).await.unwrap()
}

async fn expect_agreement(data: &Path) {
    let output = audit(data).await;
    let message = String::from_utf8_lossy(&output.stdout);
    let agrees = "The statistics agree with the ledger.\n";
    let well = output.status.code() == Some(0) && message.ends_with(agrees);
    assert!(well && output.stderr.is_empty(), "{output:?}");
    assert!(!message.contains("DIFFERS"), "{message}");
}

// --- The tests -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_packages_of_a_server_that_is_killed_again_and_again_are_processed_once() {
    let rounds = number_from_environment(ROUNDS_VARIABLE).unwrap_or(ROUNDS);
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let data = tempfile::tempdir().unwrap();
    let book = Arc::new(Mutex::new(Book::default()));
    let mut checked = 0;
    for _ in 0..rounds {
        if random.u8(..4) == 0 {
            start_that_is_cut_short(data.path(), &mut random).await;
        }
        let shop = open(data.path(), &[]).await;
        checked = checked_anew(&shop, &book, checked).await;
        let mut senders = Vec::new();
        for _ in 0..SENDERS {
            let sender = Sender {
                connection: shop.customers.connect().await,
                book: Arc::clone(&book),
                random: random.fork(),
            };
            senders.push(tokio::spawn(sender.work()));
        }
        let target = book.lock().unwrap().answered + random.u64(1..150);
        if random.bool() {
            expect_agreement(data.path()).await;
        }
        until("so many requests are answered", async || {
            book.lock().unwrap().answered >= target
        })
        .await;
        sleep(Duration::from_micros(random.u64(0..5000))).await;
        shop.crash().await;
        for sender in senders {
            let noticed = within("a sender notices the end", sender).await;
            noticed.unwrap();
        }
        expect_agreement(data.path()).await;
    }
    let shop = open(data.path(), &[]).await;
    checked_anew(&shop, &book, 0).await;
    resend_all(&shop, &book).await;
    resend_all(&shop, &book).await;
    expect_agreement(data.path()).await;
    print_summary(&book.lock().unwrap(), rounds);
    shop.close().await;
    expect_agreement(data.path()).await;
}

#[expect(clippy::print_stderr, reason = "a soak says what it has done")]
fn print_summary(book: &Book, rounds: u64) {
    let created = book.packages.iter().filter(|sent| sent.created).count();
    let (answered, sent) = (book.answered, book.packages.len());
    let (message, rejected) = (book.message.len(), book.rejected);
    eprintln!(
        "{rounds} crashes, {answered} answers, {sent} packages, {created} of them answered 201, \
         {message} words said, {rejected} requests rejected"
    );
    assert!(answered > rounds && created > 0, "too little was done");
}

/// Checks the book, which no worker uses during the check; returns how many packages the next check can skip.
async fn checked_anew(shop: &Shop, book: &Mutex<Book>, checked: usize) -> usize {
    let mut taken = std::mem::take(&mut *book.lock().unwrap());
    check(shop, &mut taken, checked).await;
    let count = taken.packages.len();
    *book.lock().unwrap() = taken;
    // Those of the last round are looked at once more.
    count.saturating_sub(200)
}

#[tokio::test]
async fn an_audit_says_where_the_statistics_differ_from_the_ledger() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    expect_agreement(data.path()).await;
    let refusal = put_preferences(&preferences(1, true, false));
    shop.customers.ask(refusal).await.expect(200);
    for number in 0..5 {
        let kind = TYPES[number % 2];
        let sent = with(&package(format!("p-{number}")), "package_type", kind);
        shop.customers.ask(send(&sent)).await.expect(201);
    }
    let message = String::from_utf8(audit(data.path()).await.stdout).unwrap();
    let lines: Vec<Vec<_>> = message
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1], ["personal", "delivered", "3", "0", "3"]);
    assert_eq!(lines[2], ["marketing", "dropped", "2", "0", "2"]);
    expect_agreement(data.path()).await;
    shop.close().await;
    expect_agreement(data.path()).await;
    let database = Database::open(data.path().join("packages.db")).unwrap();
    let deleted = database.execute("DELETE FROM packages WHERE id = 'p-1'", []);
    assert_eq!(deleted.unwrap(), 1);
    database.close().unwrap();
    let output = audit(data.path()).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stdout).unwrap();
    let differs: Vec<_> = message
        .lines()
        .filter(|line| line.contains("DIFFERS"))
        .collect();
    assert!(
        matches!(&differs[..], [line] if line.starts_with("marketing")),
        "{message}"
    );
    assert!(
        message.ends_with("The statistics do not agree with the ledger.\n"),
        "{message}"
    );
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.starts_with("odyssey: "), "{complaint}");
}

#[tokio::test]
async fn an_audit_of_nothing_says_so_and_makes_nothing() {
    let around = tempfile::tempdir().unwrap();
    let data = around.path().join("data");
    let output = audit(&data).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    let file = data.join("packages.db").display().to_string();
    assert!(
        complaint.starts_with("odyssey: ") && complaint.contains(&file),
        "{complaint}"
    );
    assert!(!data.exists(), "{complaint}");
}
