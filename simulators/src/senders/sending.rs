//! Senders at work: each serves recipients of its own, one request after the other, and so knows what must become of
//! every package. Only a package that is sent twice at once uses a second connection at the same time.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::Ledger,
    plan::{Again, Errand, Parcel, Part, Planner, Traits},
    preference::Preference,
};
use crate::{
    connection::Address,
    packages::{Fate, Handled, Link, Package},
    progress::Progress,
    resend::{Resender, Sent, locked},
    sources::Sources,
};

/// All senders of a run.
#[derive(Debug, Clone)]
pub(crate) struct Office {
    pub(crate) server: Address,
    /// The addresses of ours that the senders come from, one after the other.
    pub(crate) from: Option<Sources>,
    /// Of the sender with the number 0; the others' differ in that.
    pub(crate) part: Part,
    pub(crate) traits: Traits,
    pub(crate) seed: u64,
    /// Between two errands of a sender, measured; zero is as fast as the server answers.
    pub(crate) pause: Duration,
    /// From the first try of a request to giving it up, measured.
    pub(crate) patience: Duration,
    pub(crate) progress: Arc<Progress>,
    pub(crate) closing: CancellationToken,
}

impl Office {
    /// Runs all errands, or until `closing` is cancelled, and returns what became of them.
    pub(crate) async fn work(self) -> Ledger {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut working = JoinSet::new();
        for number in 0..self.part.senders {
            let part = Part {
                number,
                ..self.part.clone()
            };
            let turn = usize::try_from(number).unwrap_or(usize::MAX);
            let from = self.from.map(|sources| sources.of(turn));
            let line = |number| Line {
                link: Link::new(self.server.clone()).coming_from(from),
                resender: Resender::new(self.patience, self.closing.clone(), number),
            };
            let recipients = part.recipients().into_iter();
            let sender = Sender {
                first: line(2 * number),
                second: line(2 * number + 1),
                recipients: recipients.map(|id| (id, Preference::default())).collect(),
                later: BTreeMap::new(),
                done: 0,
                due: Instant::now(),
                pause: self.pause,
                progress: Arc::clone(&self.progress),
                closing: self.closing.clone(),
                ledger: Arc::clone(&ledger),
            };
            let planner = Planner::new(part, self.traits, self.seed);
            working.spawn(sender.work(planner));
        }
        working.join_all().await;
        let ledger = Arc::into_inner(ledger).expect("the senders have ended");
        ledger.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, and the patience to use it again and again.
#[derive(Debug)]
struct Line {
    link: Link,
    resender: Resender,
}

impl Line {
    async fn send(&mut self, package: &Package) -> Sent<Handled> {
        self.link.send(package, &mut self.resender).await
    }
}

/// An acknowledged package that is to be sent again.
#[derive(Debug)]
struct Later {
    package: Package,
    fate: Fate,
    over_second: bool,
}

/// One sender.
struct Sender {
    first: Line,
    second: Line,
    recipients: Vec<(String, Preference)>,
    /// By the number of errands that must be done before.
    later: BTreeMap<u64, Vec<Later>>,
    /// Errands so far.
    done: u64,
    /// When the next errand is.
    due: Instant,
    pause: Duration,
    progress: Arc<Progress>,
    closing: CancellationToken,
    ledger: Arc<Mutex<Ledger>>,
}

impl Sender {
    async fn work(mut self, planner: Planner) {
        for errand in planner {
            if !self.waits().await {
                break;
            }
            self.run(errand).await;
            self.done += 1;
            self.repeat_up_to(self.done).await;
        }
        self.repeat_up_to(u64::MAX).await;
        let mut ledger = locked(&self.ledger);
        ledger.tally.tries.add(self.first.resender.tries);
        ledger.tally.tries.add(self.second.resender.tries);
        ledger.recipients.extend(self.recipients);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Waits for the next errand to be due; false when the run was stopped.
    async fn waits(&mut self) -> bool {
        let due = self.due;
        if due > Instant::now() {
            self.closing.run_until_cancelled(sleep_until(due)).await;
        }
        // A late sender does not catch up: the rate is a bound.
        self.due = Instant::now().max(due) + self.pause;
        !self.closing.is_cancelled()
    }

    async fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Send(parcel) => {
                self.progress.customer_came();
                let acknowledged = self.send(parcel).await;
                self.progress.customer_left(acknowledged);
            }
            Errand::Update { recipient, update } => {
                self.progress.customer_came();
                let Line { link, resender } = &mut self.first;
                let sent = link.update(&update, resender).await;
                let preference = &mut self.recipients[recipient].1;
                locked(&self.ledger).updated(preference, &update, &sent);
                self.progress.customer_left(sent.acknowledged.is_some());
            }
            Errand::SendMalformed(malformed) => {
                let Line { link, resender } = &mut self.first;
                let sent = link.send_malformed(&malformed, resender).await;
                self.ledger().malformed(&malformed, &sent);
            }
        }
    }

    /// Sends a package, and again if it is to be; whether it was acknowledged.
    async fn send(&mut self, parcel: Parcel) -> bool {
        let Parcel { package, again, .. } = &parcel;
        let expected = self.recipients[parcel.recipient].1.fate_of(package.kind);
        let begun = Instant::now();
        let sent = if *again == Some(Again::Meanwhile) {
            let both = tokio::join!(self.first.send(package), self.second.send(package));
            vec![both.0, both.1]
        } else {
            vec![self.first.send(package).await]
        };
        let fate = self
            .ledger()
            .sent(package, expected, &sent, begun.elapsed());
        let Some(fate) = fate else {
            return false;
        };
        if let Some(Again::Then { over_second }) = *again {
            self.repeat(package, fate, over_second).await;
        }
        if let Some(other) = &parcel.mismatch
            && !self.closing.is_cancelled()
        {
            let sent = self.first.send(other).await;
            if !self.is_cut_short(&sent) {
                self.ledger().mismatched(other, fate, &sent);
            }
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
            self.repeat(&later.package, later.fate, later.over_second)
                .await;
        }
    }

    async fn repeat(&mut self, package: &Package, fate: Fate, over_second: bool) {
        if self.closing.is_cancelled() {
            return;
        }
        let line = if over_second {
            &mut self.second
        } else {
            &mut self.first
        };
        let sent = line.send(package).await;
        if !self.is_cut_short(&sent) {
            self.ledger().repeated(package, fate, &sent);
        }
    }

    /// A repetition that ctrl-c has cut short proves nothing.
    fn is_cut_short(&self, sent: &Sent<Handled>) -> bool {
        sent.acknowledged.is_none() && self.closing.is_cancelled()
    }
}
