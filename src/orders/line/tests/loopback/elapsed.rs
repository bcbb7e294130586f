//! `Tick`.

use super::super::super::super::store::{Expired, Figures, SILENT_AFTER, Ticked};
use super::*;

impl Loopback {
    pub(super) fn tick(&mut self, server: ServerId) -> Ticked {
        (self.clock, self.ticked) = (self.clock(), Some(self.wall));
        let clock = self.clock;
        self.servers.get_mut(&server).unwrap().ticked = clock;
        self.set_quiet_aside();
        let now = self.now();
        while !self.line.places.is_empty() && !self.line.idle.is_empty() {
            self.line.see_crew(now.instant);
            let (_, (barista, name)) = self.line.idle.pop_first().unwrap();
            let Pulled::Order(lease) = self.line.pull(now, name, None) else {
                panic!("an order waits");
            };
            self.offered(Offer { barista, lease });
        }
        let [abandoned, unasked] = [0, 0];
        let mut ticked = Ticked {
            more: false,
            next_due: None,
            others: 0,
            expired: Vec::new(),
            abandoned,
            unasked,
            removed: 0,
            figures: Figures::default(),
        };
        self.elapse(&mut ticked);
        self.line.forget_until(now.instant);
        ticked.removed = self.remove_silent();
        self.blocked.retain(|_, at| *at > self.wall);
        let others = self.servers.iter().filter(|(other, known)| {
            **other != server && !known.departed && !self.is_quiet(**other)
        });
        ticked.others = u32::try_from(others.count()).unwrap();
        let next = self.line.next_deadline();
        ticked.next_due = next.map(|at| millis(at.saturating_duration_since(now.instant)));
        ticked.figures = self.figures();
        ticked
    }

    /// As [`Line::elapse`], with an event after each step.
    fn elapse(&mut self, ticked: &mut Ticked) {
        let now = self.now();
        let mut due = Vec::new();
        while let Some(&(at, slot)) = self.line.deadlines.first()
            && at <= now.instant
        {
            self.line.set_deadline(slot, None);
            due.push(slot);
        }
        due.sort_by_key(|&slot| self.line.entry(slot).ticket);
        for slot in due {
            let entry = self.line.entry(slot);
            let id = entry.order.id;
            if entry.order.stage == Stage::Brewing {
                self.pulls
                    .retain(|_, pull| !matches!(pull.is, Is::Leased(of, ..) if of == id));
                let expired = self.line.expire(now, slot);
                ticked.expired.push(Expired {
                    id,
                    attempt: expired.attempt,
                    barista: expired.barista,
                    request_id: expired.request_id,
                    moved_back: expired.moved_back,
                    returned: self.returned(id, expired.returned),
                });
            } else if entry.promised && !entry.attached.is_empty() {
                self.line.renew_promise(now, slot);
            } else if entry.promised {
                self.conclude(slot, None);
                ticked.unasked += 1;
            } else {
                self.line.drop_unwanted(now, slot);
                self.dropped(id);
                ticked.abandoned += 1;
            }
        }
    }

    fn remove_silent(&mut self) -> u32 {
        let silent = self
            .servers
            .iter()
            .filter(|(_, known)| known.ticked + millis(SILENT_AFTER) <= self.clock);
        let mut silent: Vec<(Millis, ServerId)> = silent
            .map(|(server, known)| (known.ticked, *server))
            .collect();
        silent.sort();
        for &(_, server) in &silent {
            self.calls.remove(&server);
            let (idle, leased) = self.pulls_of(server);
            for name in idle {
                self.remove_idle(&name);
            }
            for name in leased {
                let slot = self.lease(&name).unwrap();
                let id = self.line.entry(slot).order.id;
                self.pulls.remove(&name);
                let returned = self.line.return_to_line(self.now(), slot);
                self.returned(id, returned);
            }
            let own = self.attached.keys().filter(|member| member.0 == server);
            for member in own.copied().collect::<Vec<Member>>() {
                self.leave(member, true);
            }
            self.servers.remove(&server);
        }
        u32::try_from(silent.len()).unwrap()
    }

    fn figures(&self) -> Figures {
        let figures = self.line.figures(self.now().instant);
        Figures {
            waiting: figures.waiting as u64,
            brewing: figures.brewing as u64,
            ready: figures.ready as u64,
            cancelled: figures.cancelled as u64,
            held: figures.held as u64,
            idle_baristas: (figures.idle_baristas + self.aside.len()) as u64,
            oldest_waiting: millis(figures.oldest_waiting),
        }
    }
}
