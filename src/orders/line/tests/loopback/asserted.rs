//! What servers say of themselves: `Hello`, `Assert`, `Settle`, `Depart`.

use super::super::super::super::store::{Asserted, IdlePull};
use super::*;

impl Loopback {
    pub(super) fn hello(&mut self, server: ServerId) -> Welcome {
        for name in self.pulls_of(server).0 {
            self.remove_idle(&name);
        }
        let holds = self.attached.keys().any(|member| member.0 == server);
        let ticked = self.clock();
        let known = self.servers.entry(server).or_default();
        let unsettled = holds || known.named.is_some();
        *known = Known {
            ticked,
            named: unsettled.then(BTreeSet::new),
            departed: false,
        };
        let blocked = self.blocked.iter().filter(|(_, at)| **at > self.wall);
        let mut blocked: Vec<(&Box<str>, &Millis)> = blocked.collect();
        blocked.sort_by_key(|(origin, at)| (**at, (*origin).clone()));
        let blocked = blocked.into_iter().map(|(origin, at)| store::Blocked {
            origin: origin.clone(),
            remaining: at - self.wall,
        });
        Welcome {
            event: self.events.len() as u64,
            blocked: blocked.collect(),
        }
    }

    fn past(&self, at: Millis) -> Now {
        let age = Duration::from_millis(self.wall.saturating_sub(at));
        Now {
            instant: self.now().instant.checked_sub(age).unwrap(),
            wall: Timestamp::from_millisecond(at.cast_signed()).unwrap(),
        }
    }

    /// This server's attachments at an order become the given ones.
    fn adopt(&mut self, server: ServerId, slot: u32, attachments: &[(u64, bool)]) {
        let id = self.line.entry(slot).order.id;
        for &(number, customer) in attachments {
            let attachment = self.line.attach(slot, customer, number);
            self.attach(server, number, customer, attachment);
        }
        let own = self
            .attached
            .keys()
            .filter(|member| (member.0, member.1) == (server, id));
        let gone = own.filter(|member| !attachments.contains(&(member.2, member.3)));
        for member in gone.copied().collect::<Vec<Member>>() {
            let attachment = self.attached.remove(&member).unwrap();
            self.line.detach(attachment);
        }
        let extra = self.orders.get_mut(&id).unwrap();
        let first = attachments.iter().find(|(_, customer)| *customer);
        if matches!(extra.claim, Some(Claim::Request(_))) {
            let before = extra
                .attached
                .filter(|member| self.attached.contains_key(member));
            extra.attached = before.or(first.map(|&(number, _)| (server, id, number, true)));
        }
    }

    pub(super) fn assert(&mut self, server: ServerId, asserted: &Asserted) -> Option<Record> {
        let mut asserted = asserted.clone();
        let mut slot = self.slot(asserted.id);
        let has_customer = asserted.attachments.iter().any(|(_, customer)| *customer);
        let is_wanted = has_customer && asserted.record.ended.is_none();
        if let Some(gone) = slot.filter(|_| is_wanted && self.orders[&asserted.id].unwanted) {
            let (was, record) = (self.record(gone), &mut asserted.record);
            if was.attempts > record.attempts {
                (record.stage, record.attempts) = (StoredStage::Waiting, was.attempts);
                (record.started, record.barista) = (was.started, was.barista);
            }
            self.line.remembered.retain(|(_, slot)| *slot != gone);
            self.line.forget(gone);
            self.orders.remove(&asserted.id);
            slot = None;
        }
        let asserted = &asserted;
        if let Some(slot) = slot.filter(|&slot| self.line.entry(slot).order.stage.is_final()) {
            return Some(self.record(slot));
        }
        if asserted.record.ended.is_some() {
            return Some(asserted.record.clone());
        }
        let Some(slot) = slot else {
            self.put_back(server, asserted);
            return None;
        };
        self.adopt(server, slot, &asserted.attachments);
        let (now, entry) = (self.now(), self.line.entry_mut(slot));
        entry.promised |= asserted.record.promised;
        if entry.order.stage == Stage::Waiting {
            if entry.promised || entry.attached.has_customer() {
                self.line.set_deadline(slot, None);
                self.line.renew_promise(now, slot);
            } else if entry.deadline.is_none() {
                self.lose(slot);
                return None;
            }
        }
        Some(self.record(slot))
    }

    /// No request is attached; its server may have been lost.
    fn lose(&mut self, slot: u32) {
        let (now, id) = (self.now(), self.line.entry(slot).order.id);
        if !self.line.entry(slot).attached.has_customer() {
            let until = now.instant + self.line.rules.reconnect_grace;
            self.orders.get_mut(&id).unwrap().lost_until = Some(until);
        }
        let left = self.line.settle_unwanted(now, slot);
        if left == Left::Cancelled || (left == Left::Graced && !self.keep_by_request(id)) {
            self.dropped(id);
        }
    }

    fn put_back(&mut self, server: ServerId, asserted: &Asserted) {
        let (now, record) = (self.now(), &asserted.record);
        let by_key = record.key.clone().zip(record.fingerprint.clone());
        let by_key = by_key.map(|(key, fingerprint)| Claim::Key { key, fingerprint });
        let claim = by_key.or_else(|| record.request.clone().map(Claim::Request));
        let claim = claim.filter(|claim| !self.line.by_key.contains_key(&keyed(claim, None).key));
        let mut order = Order::new(
            asserted.id,
            record.customer.clone(),
            self.past(record.placed),
        );
        order.origin = record.origin.as_ref().map(|origin| origin.parse().unwrap());
        order.request_id.clone_from(&record.request_id);
        order.started = record.started.map(|at| self.past(at));
        order.barista.clone_from(&record.barista);
        order.attempts = record.attempts;
        let number = record.number.map(PickupNumber);
        order.number = number.filter(|&number| self.line.numbers.reserve(number));
        let slot = slot_number(self.line.entries.insert(super::super::super::Entry {
            order,
            ticket: record.ticket,
            expiries: record.expiries,
            promised: record.promised,
            permit: None,
            keyed: claim.as_ref().map(|claim| keyed(claim, record.keep)),
            attached: Attached::new(),
            deadline: None,
        }));
        self.line.by_id.insert(asserted.id, slot);
        if let Some(claim) = &claim {
            self.line.by_key.insert(keyed(claim, None).key, slot);
        }
        let extra = Extra {
            claim,
            details: record.details.clone(),
            result: record.result.clone(),
            origin: record.origin.clone(),
            report: record.report.clone(),
            keep: record.keep,
            ..Extra::default()
        };
        self.orders.insert(asserted.id, extra);
        self.adopt(server, slot, &asserted.attachments);
        self.line.next_ticket = self.line.next_ticket.max(record.ticket + 1);
        if record.stage == StoredStage::Brewing {
            if self.line.brewing.is_empty() {
                self.line.advance(now.instant, !self.line.places.is_empty());
            }
            self.line.entry_mut(slot).order.stage = Stage::Brewing;
            self.line.brewing.push(slot);
            self.line.crew_seen = Some(now.instant);
            let until = now.instant + self.line.rules.lease;
            self.line.set_deadline(slot, Some(until));
        } else if let Some(offer) = self.line.enter(now, slot) {
            self.offered(offer);
        } else {
            self.lose(slot);
        }
    }

    /// Idle pulls of a server, and its unconfirmed leases by ticket.
    pub(super) fn pulls_of(&self, server: ServerId) -> (Vec<Box<str>>, Vec<Box<str>>) {
        let own = self.pulls.iter().filter(|(_, pull)| pull.server == server);
        let idle = own
            .clone()
            .filter(|(_, pull)| matches!(pull.is, Is::Idle(_)));
        let mut leased: Vec<(u64, Box<str>)> = own
            .filter_map(|(name, _)| {
                let slot = self.lease(name)?;
                Some((self.line.entry(slot).ticket, name.clone()))
            })
            .collect();
        leased.sort();
        (
            idle.map(|(name, _)| name.clone()).collect(),
            leased.into_iter().map(|(_, name)| name).collect(),
        )
    }

    pub(super) fn settle(
        &mut self,
        server: ServerId,
        idle: &[IdlePull],
        unconfirmed: &[Box<str>],
    ) -> Reply {
        let (idle_here, leased) = self.pulls_of(server);
        let is_idle = |name: &str| idle.iter().any(|pull| *pull.pull == *name);
        for name in idle_here.iter().filter(|name| !is_idle(name)) {
            self.remove_idle(name);
        }
        for name in leased {
            if is_idle(&name) {
                self.give_back(&name);
            } else if !unconfirmed.contains(&name) {
                self.pulls.remove(&name);
            }
        }
        if let Some(named) = self.servers.get_mut(&server).unwrap().named.take() {
            let own = self.attached.keys().filter(|member| member.0 == server);
            let unnamed = own.filter(|member| !named.contains(member));
            for member in unnamed.copied().collect::<Vec<Member>>() {
                self.leave(member, false);
            }
        }
        for IdlePull { pull, barista } in idle {
            if !self.pulls.contains_key(pull) {
                let before = self.events.len();
                self.pull(server, pull, barista.clone(), true);
                // It is no answer: the server learns of the lease by the event.
                if let Some(Event::Started { to, .. }) = self.events.get_mut(before) {
                    *to = Some(Handed {
                        server: server.to_string().into(),
                        pull: pull.clone(),
                    });
                }
            }
        }
        Reply::Done
    }

    pub(super) fn depart(&mut self, server: ServerId, requests: &[(OrderId, u64)]) -> Reply {
        self.servers.get_mut(&server).unwrap().departed = true;
        for &(id, number) in requests {
            let member = (server, id, number, true);
            if self.attached.contains_key(&member) {
                self.leave(member, true);
            }
        }
        Reply::Done
    }
}
