//! A sender at work: it serves recipients of its own, one request after the other, and so knows what must become of every
//! package. Only a package that is sent twice at once uses a second connection at the same time.

use std::{collections::BTreeMap, mem, time::Duration};

use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::time::{Instant, sleep_until};

use super::{
    ledger::Ledger,
    plan::{Again, Errand, Parcel, Part, Planner},
};
use crate::{
    client::{Client, Sent},
    crew::{Crew, Shared},
    packages::{self, Fate, Handled, Malformed, Package, Preferences},
};

/// An acknowledged package that is to be sent again.
#[derive(Debug)]
struct Later {
    package: Package,
    fate: Fate,
    over_second: bool,
}

/// One sender.
pub(super) struct Sender {
    first: Client,
    second: Client,
    recipients: Vec<(String, Preferences)>,
    /// By the number of errands that must be done before.
    later: BTreeMap<u64, Vec<Later>>,
    /// Errands so far.
    done: u64,
    /// When the next errand is.
    due: Instant,
    /// Between two errands, measured; zero is as fast as the server answers.
    pause: Duration,
    crew: Crew,
    ledger: Shared<Ledger>,
}

impl Sender {
    pub(super) fn new(
        [first, second]: [Client; 2],
        part: &Part,
        pause: Duration,
        crew: Crew,
        ledger: Shared<Ledger>,
    ) -> Self {
        let recipients = part.recipients().into_iter();
        Self {
            first,
            second,
            recipients: recipients.map(|id| (id, Preferences::default())).collect(),
            later: BTreeMap::new(),
            done: 0,
            due: Instant::now(),
            pause,
            crew,
            ledger,
        }
    }

    pub(super) async fn work(mut self, planner: Planner) {
        for errand in planner {
            if !self.waits().await {
                break;
            }
            self.run(errand).await;
            self.done += 1;
            self.repeat_up_to(self.done).await;
        }
        self.repeat_up_to(u64::MAX).await;
        let mut ledger = self.ledger.lock();
        ledger.tally.merge(self.first.tally);
        ledger.tally.merge(self.second.tally);
        ledger.recipients.extend(self.recipients);
    }

    /// Waits for the next errand to be due; false when the run was stopped.
    async fn waits(&mut self) -> bool {
        let due = self.due;
        if due > Instant::now() {
            let closing = &self.crew.closing;
            closing.run_until_cancelled(sleep_until(due)).await;
        }
        // A late sender does not catch up: the rate is a bound.
        self.due = Instant::now().max(due) + self.pause;
        !self.crew.is_stopped()
    }

    async fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Send(parcel) => {
                self.crew.progress.came();
                let acknowledged = self.send(parcel).await;
                self.crew.progress.left(acknowledged);
            }
            Errand::Update { recipient, update } => {
                self.crew.progress.came();
                let body = Some(update.json().to_string());
                let request = self.first.request(Method::PUT, "/preferences", body);
                let sent = self.first.send(&request, packages::updated).await;
                let preferences = &mut self.recipients[recipient].1;
                self.ledger.lock().updated(preferences, &update, &sent);
                self.crew.progress.left(sent.answer().is_some());
            }
            Errand::SendMalformed(malformed) => self.send_malformed(malformed).await,
        }
    }

    async fn send_malformed(&mut self, malformed: Malformed) {
        let body = Some(malformed.body.clone());
        let method = malformed.method.clone();
        let mut request = self.first.request(method, malformed.path, body);
        let content_type = HeaderValue::from_static(malformed.content_type);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let sent = self.first.send(&request, packages::rejected).await;
        self.ledger.lock().malformed(&malformed, &sent);
    }

    /// Sends a package, and again if it is to be; whether it was acknowledged.
    async fn send(&mut self, parcel: Parcel) -> bool {
        let Parcel { package, again, .. } = &parcel;
        let expected = self.recipients[parcel.recipient].1.fate_of(package.kind);
        let begun = Instant::now();
        let sent = if *again == Some(Again::Meanwhile) {
            let (first, second) = (&mut self.first, &mut self.second);
            let both = tokio::join!(send(first, package), send(second, package));
            vec![both.0, both.1]
        } else {
            vec![send(&mut self.first, package).await]
        };
        let wait = begun.elapsed();
        let fate = self.ledger.lock().sent(package, expected, &sent, wait);
        let Some(fate) = fate else {
            return false;
        };
        if let Some(Again::Then { over_second }) = *again {
            self.repeat(package, fate, over_second, false).await;
        }
        if let Some(other) = &parcel.mismatch {
            self.repeat(other, fate, false, true).await;
        }
        if let Some(Again::Later {
            errands,
            over_second,
        }) = *again
        {
            let later = Later {
                package: parcel.package,
                fate,
                over_second,
            };
            let due = self.done + errands;
            self.later.entry(due).or_default().push(later);
        }
        true
    }

    /// Sends again what is due when so many errands are done.
    async fn repeat_up_to(&mut self, done: u64) {
        let not_yet = match done.checked_add(1) {
            Some(next) => self.later.split_off(&next),
            None => BTreeMap::new(),
        };
        let due = mem::replace(&mut self.later, not_yet);
        for later in due.into_values().flatten() {
            self.repeat(&later.package, later.fate, later.over_second, false)
                .await;
        }
    }

    async fn repeat(&mut self, package: &Package, fate: Fate, over_second: bool, mismatch: bool) {
        if self.crew.is_stopped() {
            return;
        }
        let client = if over_second {
            &mut self.second
        } else {
            &mut self.first
        };
        let sent = send(client, package).await;
        // A repetition that ctrl-c has cut short proves nothing.
        if sent.answer().is_some() || !self.crew.is_stopped() {
            self.ledger.lock().again(package, fate, mismatch, &sent);
        }
    }
}

async fn send(client: &mut Client, package: &Package) -> Sent<Handled> {
    let body = package.json().to_string();
    let request = client.request(Method::POST, "/packages", Some(body));
    client.send(&request, Handled::read).await
}
