//! What baristas ask.

use super::*;

impl Loopback {
    pub(super) fn pull(
        &mut self,
        server: ServerId,
        name: &str,
        barista: Option<Box<str>>,
        waits: bool,
    ) -> store::Pulled {
        let now = self.now();
        self.line.see_crew(now.instant);
        if let Some(slot) = self.lease(name) {
            self.pulls.get_mut(name).unwrap().server = server;
            return store::Pulled::Order(Box::new(self.leased(slot)));
        }
        let place = match self.pulls.remove(name) {
            Some(Pull {
                is: Is::Idle(place),
                ..
            }) => Some(place),
            _ => None,
        };
        if let Some(place) = &place {
            self.line.idle.remove(place);
            self.aside.remove(place);
        }
        let number = self.names.len() as u64;
        let reach = (waits && place.is_none()).then_some(number);
        let is = match self.line.pull(now, barista.clone(), reach) {
            Pulled::Order(lease) => Err(lease),
            Pulled::Idle(place) => Ok(place),
            Pulled::Nothing => match place.filter(|_| waits) {
                None => return store::Pulled::Nothing,
                Some(place) => {
                    self.line.idle.insert(place, (number, barista));
                    Ok(place)
                }
            },
        };
        self.names.push(name.into());
        let idle = Is::Idle(is.as_ref().copied().unwrap_or(Idle(0)));
        let pull = Pull { server, is: idle };
        self.pulls.insert(name.into(), pull);
        match is {
            Ok(_) => store::Pulled::Idle,
            Err(lease) => {
                let slot = self.line.by_id[&lease.id];
                self.start(name, lease, false);
                store::Pulled::Order(Box::new(self.leased(slot)))
            }
        }
    }

    pub(super) fn quit(&mut self, server: ServerId, name: &str) -> store::Pulled {
        let pull = self.pulls.get(name);
        if pull.is_none_or(|pull| pull.server != server) {
            return store::Pulled::Nothing;
        }
        if let Some(slot) = self.lease(name) {
            return store::Pulled::Order(Box::new(self.leased(slot)));
        }
        self.remove_idle(name);
        store::Pulled::Nothing
    }

    pub(super) fn remove_idle(&mut self, name: &str) {
        if let Some(Pull {
            is: Is::Idle(place),
            ..
        }) = self.pulls.remove(name)
        {
            self.line.idle.remove(&place);
            self.aside.remove(&place);
        }
    }

    pub(super) fn give_back(&mut self, name: &str) -> store::Returned {
        let Some(Is::Leased(id, attempt, previous)) = self.pulls.remove(name).map(|pull| pull.is)
        else {
            return store::Returned::Over;
        };
        let returned = self.line.give_back(self.now(), id, attempt, previous);
        returned.map_or(store::Returned::Over, |it| self.returned(id, it))
    }

    pub(super) fn finish(
        &mut self,
        id: OrderId,
        attempt: Option<u32>,
        report: &str,
        result: Option<&str>,
    ) -> store::Finished {
        let ready = |this: &Self, already| {
            let record = this.record(this.line.by_id[&id]);
            store::Finished::Ready { record, already }
        };
        let is_ready = |slot| self.line.entry(slot).order.stage == Stage::Ready;
        if self.slot(id).is_some_and(is_ready) && self.orders[&id].report.as_deref() == Some(report)
        {
            return ready(self, false);
        }
        match self.line.finish(self.now(), id, attempt, None) {
            Ok(finished) => {
                if !finished.already {
                    let extra = self.orders.get_mut(&id).unwrap();
                    extra.report = Some(report.into());
                    extra.result = result.map(Into::into);
                    self.attached.retain(|member, _| member.1 != id);
                    let record = self.record(self.line.by_id[&id]);
                    self.events.push(Event::Ready { id, record });
                }
                ready(self, finished.already)
            }
            Err(FinishError::Unknown) => store::Finished::Unknown,
            Err(FinishError::NotStarted { stage }) => store::Finished::NotStarted(stored(stage)),
            Err(FinishError::Fenced { stage, current }) => store::Finished::Fenced {
                stage: stored(stage),
                current,
            },
            Err(FinishError::Unavailable(_)) => unreachable!("it is in memory"),
        }
    }
}
