//! Baristas' requests for orders at this server.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::super::model::Lease;
use super::super::store::IdlePull;

/// A barista's request for an order.
#[derive(Debug)]
pub(super) struct Pull {
    id: Box<str>,
    barista: Option<Box<str>>,
    state: PullState,
    /// The store may know it.
    is_sent: bool,
}

#[derive(Debug)]
enum PullState {
    Waiting {
        sender: oneshot::Sender<Lease>,
        /// They do not wait any more, and the store is being asked whether they got an order.
        is_quitting: bool,
    },
    /// The lease was sent, and is not confirmed.
    Leased,
}

impl Pull {
    pub(super) fn new(
        id: Box<str>,
        barista: Option<Box<str>>,
        sender: oneshot::Sender<Lease>,
    ) -> Self {
        let state = PullState::Waiting {
            sender,
            is_quitting: false,
        };
        Self {
            id,
            barista,
            state,
            is_sent: false,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// What is to be done when a barista stops waiting.
#[derive(Debug)]
pub(super) enum Quitting {
    /// The store must be asked whether this pull got an order.
    Ask(Box<str>),
    /// Nothing: the store does not know of them.
    Unsent,
    /// Nothing: a lease was sent, or they have stopped before.
    Over,
}

/// All pulls, by their numbers, until their leases are confirmed or given back, or there is none.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pulls: HashMap<u64, Pull>,
    by_id: HashMap<Box<str>, u64>,
}

impl Pulls {
    pub(super) fn add(&mut self, number: u64, pull: Pull) {
        // The proxy has sent a request again of which the earlier connection is not known to be gone.
        if let Some(earlier) = self.by_id.insert(pull.id.clone(), number) {
            self.pulls.remove(&earlier);
        }
        self.pulls.insert(number, pull);
    }

    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    /// The store is about to learn of a pull. False if its barista has left.
    pub(super) fn is_sent(&mut self, id: &str) -> bool {
        let number = self.by_id.get(id);
        let pull = number.and_then(|number| self.pulls.get_mut(number));
        pull.is_some_and(|pull| {
            pull.is_sent = true;
            true
        })
    }

    /// Where the lease of a pull goes; from here on it is unconfirmed. None if it was sent, or the pull is over.
    pub(super) fn lease_to(&mut self, number: u64) -> Option<oneshot::Sender<Lease>> {
        let pull = self.pulls.get_mut(&number)?;
        match std::mem::replace(&mut pull.state, PullState::Leased) {
            PullState::Waiting { sender, .. } => Some(sender),
            PullState::Leased => None,
        }
    }

    /// Whether an unconfirmed lease of this pull was sent.
    pub(super) fn is_leased(&self, number: u64) -> bool {
        let pull = self.pulls.get(&number);
        pull.is_some_and(|pull| matches!(pull.state, PullState::Leased))
    }

    /// Forgets a pull. Its id, if there was one.
    pub(super) fn take(&mut self, number: u64) -> Option<Box<str>> {
        let pull = self.pulls.remove(&number)?;
        if self.by_id.get(&pull.id) == Some(&number) {
            self.by_id.remove(&pull.id);
        }
        Some(pull.id)
    }

    /// A barista stops waiting.
    pub(super) fn quit(&mut self, number: u64) -> Quitting {
        let Some(pull) = self.pulls.get_mut(&number) else {
            return Quitting::Over;
        };
        match &mut pull.state {
            PullState::Waiting { .. } if !pull.is_sent => {
                // Its operation is passed over.
                self.take(number);
                Quitting::Unsent
            }
            PullState::Waiting { is_quitting, .. } if !*is_quitting => {
                *is_quitting = true;
                Quitting::Ask(pull.id.clone())
            }
            _ => Quitting::Over,
        }
    }

    /// All idle baristas stop waiting: the ids of their pulls.
    pub(super) fn quit_all(&mut self) -> Vec<Box<str>> {
        let numbers: Vec<u64> = self.pulls.keys().copied().collect();
        let asked = numbers
            .into_iter()
            .filter_map(|number| match self.quit(number) {
                Quitting::Ask(pull) => Some(pull),
                Quitting::Unsent | Quitting::Over => None,
            });
        asked.collect()
    }

    /// Forgets all who wait.
    pub(super) fn take_waiting(&mut self) -> Vec<Pull> {
        let waiting = |pull: &Pull| matches!(pull.state, PullState::Waiting { .. });
        let taken = self.pulls.extract_if(|_, pull| waiting(pull));
        let taken: Vec<Pull> = taken.map(|(_, pull)| pull).collect();
        for pull in &taken {
            self.by_id.remove(&pull.id);
        }
        taken
    }

    /// Idle baristas without those in `unseen`, and unconfirmed leases.
    pub(super) fn known(&self, unseen: &HashSet<&str>) -> (Vec<IdlePull>, Vec<Box<str>>) {
        let (mut idle, mut unconfirmed) = (Vec::new(), Vec::new());
        for pull in self.pulls.values() {
            match &pull.state {
                PullState::Leased => unconfirmed.push(pull.id.clone()),
                PullState::Waiting { .. } if !unseen.contains(&*pull.id) => idle.push(IdlePull {
                    pull: pull.id.clone(),
                    barista: pull.barista.clone(),
                }),
                PullState::Waiting { .. } => {}
            }
        }
        (idle, unconfirmed)
    }
}
