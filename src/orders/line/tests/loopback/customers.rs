//! What customers ask.

use super::*;

impl Loopback {
    pub(super) fn place(&mut self, server: ServerId, placing: &Placing) -> store::Placed {
        let (now, claim) = (self.now(), placing.claim.as_ref());
        let known = claim.and_then(|claim| self.line.by_key.get(&keyed(claim, None).key).copied());
        if let Some(slot) = self.slot(placing.id) {
            return self.place_same(server, slot, placing.attachment);
        }
        let until = placing
            .origin
            .as_ref()
            .and_then(|origin| self.blocked.get(origin));
        let until = until.copied().unwrap_or(0);
        if known.is_none() && until > self.wall {
            return store::Placed::Blocked(until - self.wall);
        }
        let mut order = Order::new(placing.id, placing.customer.clone(), now);
        order.request_id.clone_from(&placing.request_id);
        order.origin = placing
            .origin
            .as_ref()
            .map(|origin| origin.parse().unwrap());
        // An order by request has a grace of its own.
        let keep = placing
            .keep
            .filter(|_| matches!(claim, Some(Claim::Key { .. })));
        let extra = Extra {
            keep,
            claim: claim.cloned(),
            details: placing.details.clone(),
            origin: placing.origin.clone(),
            ..Extra::default()
        };
        let placed = self.line.place(
            now,
            order,
            claim.map(|claim| keyed(claim, keep)),
            placing.attachment,
        );
        match placed {
            Ok(Placed::New {
                id,
                attachment,
                offer,
            }) => {
                self.orders.insert(id, extra);
                self.attach_customer(server, placing.attachment, attachment);
                if let Some(offer) = offer {
                    self.offered(offer);
                }
                store::Placed::New(self.record(self.line.by_id[&id]))
            }
            Ok(Placed::Joined { id, attachment }) => {
                self.attach_customer(server, placing.attachment, attachment);
                let extra = self.orders.get_mut(&id).unwrap();
                extra.keep = keep.or(extra.keep);
                store::Placed::Joined(id, self.record(self.line.by_id[&id]))
            }
            Ok(Placed::Replayed(..)) => {
                let slot = known.unwrap();
                let id = self.line.entry(slot).order.id;
                store::Placed::Replayed(id, self.record(slot))
            }
            Err(PlaceError::KeyReused { id }) => store::Placed::KeyReused(id),
            Err(PlaceError::Closed(closed)) => {
                store::Placed::Shut(serde_json::to_string(&*closed).unwrap().into())
            }
            Err(PlaceError::Full { retry_after }) => {
                store::Placed::Full(retry_after.map(millis).filter(|&wait| wait < 1 << 53))
            }
            Err(error) => panic!("not an error of this line: {error}"),
        }
    }

    /// The request of a claim replaces its earlier one.
    pub(super) fn attach_customer(
        &mut self,
        server: ServerId,
        number: Option<u64>,
        attachment: Option<Attachment>,
    ) {
        let (Some(number), Some(attachment)) = (number, attachment) else {
            return;
        };
        let id = attachment.id;
        self.attach(server, number, true, attachment);
        let extra = self.orders.get_mut(&id).unwrap();
        if matches!(extra.claim, Some(Claim::Request(_))) {
            let member = (server, id, number, true);
            let before = extra
                .attached
                .replace(member)
                .filter(|&before| before != member);
            if let Some(attachment) = before.and_then(|before| self.attached.remove(&before)) {
                self.line.detach(attachment);
            }
        }
    }

    /// The order that has this id already.
    pub(super) fn place_same(
        &mut self,
        server: ServerId,
        slot: u32,
        number: Option<u64>,
    ) -> store::Placed {
        let (now, id) = (self.now(), self.line.entry(slot).order.id);
        if self.line.entry(slot).order.stage.is_final() {
            return store::Placed::Replayed(id, self.record(slot));
        }
        self.line.entry_mut(slot).promised |= number.is_none();
        if self.line.entry(slot).order.stage == Stage::Waiting {
            self.line.set_deadline(slot, None);
            self.line.renew_promise(now, slot);
        }
        let attachment = number.map(|number| self.line.attach(slot, true, number));
        self.attach_customer(server, number, attachment);
        store::Placed::Joined(id, self.record(slot))
    }

    pub(super) fn view(&mut self, id: OrderId, renew: bool) -> Option<Viewed> {
        let now = self.now();
        let view = if renew {
            self.line.ask(now, id)
        } else {
            self.line.view(now, id)
        }?;
        let slot = self.line.by_id[&id];
        let left = |until: Instant| millis(until.saturating_duration_since(now.instant));
        let deadline = self.line.entry(slot).deadline;
        Some(Viewed {
            record: self.record(slot),
            position: view.position.map(|position| position as u64),
            estimated_wait: view
                .estimated_wait
                .map(millis)
                .filter(|&wait| wait < 1 << 53),
            crew_present: view.crew.map(|crew| crew == Crew::Present),
            ask_before: view
                .ask_before
                .and(deadline)
                .map(|until| self.wall + left(until)),
        })
    }

    pub(super) fn survey(&mut self) -> store::Surveyed {
        let survey = self.line.survey(self.now());
        let orders = |orders: &[Order]| {
            let orders = orders.iter();
            let brief = |order: &Order| {
                let record = Record {
                    details: None,
                    result: None,
                    ..self.record(self.line.by_id[&order.id])
                };
                (order.id, record)
            };
            orders.map(brief).collect()
        };
        let cups = survey.cups.iter();
        let cups = cups.map(|cup| self.leased(self.line.by_id[&cup.order.id]));
        store::Surveyed {
            at: self.wall,
            waiting: survey.waiting as u64,
            idle_baristas: (self.line.idle.len() + self.aside.len()) as u64,
            oldest_waiting: survey.oldest_waiting.map(millis),
            estimated_wait: survey
                .estimated_wait
                .map(millis)
                .filter(|&wait| wait < 1 << 53),
            crew_present: survey.crew == Crew::Present,
            closed: survey
                .closed
                .map(|closed| serde_json::to_string(&*closed).unwrap().into()),
            next: orders(&survey.next),
            cups: cups.collect(),
            recent: orders(&survey.recent),
        }
    }

    pub(super) fn cancel(&mut self, id: OrderId) -> store::Cancelled {
        match self.line.cancel(self.now(), id) {
            Ok(cancelled) => {
                if !cancelled.already {
                    self.cancelled(id, None);
                }
                let record = self.record(self.line.by_id[&id]);
                if cancelled.already {
                    store::Cancelled::Already(record)
                } else {
                    store::Cancelled::Now(record)
                }
            }
            Err(CancelError::Unknown) => store::Cancelled::Unknown,
            Err(CancelError::TooLate { stage }) => store::Cancelled::TooLate(stored(stage)),
            Err(CancelError::Unavailable(_)) => unreachable!("it is in memory"),
        }
    }

    pub(super) fn purge(&mut self, origin: &str, age: Millis, blocked: Millis) -> Purged {
        if blocked > 0 {
            let before = self.blocked.insert(origin.into(), self.wall + blocked);
            if before.is_none_or(|until| until <= self.wall) {
                self.events.push(Event::Blocked(store::Blocked {
                    origin: origin.into(),
                    remaining: blocked,
                }));
            }
        }
        let age = Duration::from_millis(age);
        let since = self.now().instant.checked_sub(age).unwrap();
        let net: IpNet = origin.parse().unwrap();
        let theirs = self.line.places.iter().filter(|&slot| {
            let order = &self.line.entry(slot).order;
            order.origin == Some(net) && order.placed.instant > since
        });
        let theirs: Vec<u32> = theirs.collect();
        for &slot in &theirs {
            self.conclude(slot, Some(blocked));
        }
        Purged {
            count: theirs.len() as u64,
            more: false,
        }
    }
}
