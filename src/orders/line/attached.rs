//! The requests attached to one order.
//!
//! Nearly every order has exactly one, its customer's: it is stored inline. Further ones are in a sorted map, so that
//! removing one does not scan the others.

use std::collections::BTreeMap;

/// The requests attached to one order, in order of arrival.
#[derive(Debug)]
pub(super) struct Attached<C> {
    first: Option<Request<C>>,
    #[expect(
        clippy::box_collection,
        reason = "rarely used, and every order in line pays for the field"
    )]
    others: Option<Box<BTreeMap<u32, Request<C>>>>,
    next_number: u32,
    customers: u32,
}

#[derive(Debug)]
struct Request<C> {
    number: u32,
    /// A customer's disconnect may cancel the order; a watcher's does not.
    customer: bool,
    receiver: C,
}

impl<C> Attached<C> {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            others: None,
            next_number: 0,
            customers: 0,
        }
    }

    /// Adds a request and returns its number, which is not reused.
    pub(super) fn add(&mut self, customer: bool, receiver: C) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        self.customers += u32::from(customer);
        let request = Request {
            number,
            customer,
            receiver,
        };
        if self.is_empty() {
            self.first = Some(request);
        } else {
            let others = self.others.get_or_insert_default();
            others.insert(number, request);
        }
        number
    }

    /// Removes a request. Returns whether it was a customer's; none if it is not attached.
    pub(super) fn remove(&mut self, number: u32) -> Option<bool> {
        let request = match self.first.take_if(|first| first.number == number) {
            Some(request) => request,
            None => self.others.as_mut()?.remove(&number)?,
        };
        self.customers -= u32::from(request.customer);
        Some(request.customer)
    }

    /// Removes all requests and returns their receivers.
    pub(super) fn take(&mut self) -> impl Iterator<Item = C> + use<C> {
        self.customers = 0;
        let others = self.others.take().map(|others| (*others).into_values());
        let requests = self.first.take().into_iter();
        let requests = requests.chain(others.into_iter().flatten());
        requests.map(|request| request.receiver)
    }

    pub(super) fn len(&self) -> usize {
        let others = self.others.as_ref().map_or(0, |others| others.len());
        usize::from(self.first.is_some()) + others
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn has_customer(&self) -> bool {
        self.customers > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn attached_requests_behave_like_a_list(steps in prop::collection::vec((0_u32..12, any::<bool>()), 1..60)) {
            let mut attached = Attached::new();
            let mut list: Vec<(u32, bool)> = Vec::new();
            for (step, customer) in steps {
                if step < 6 {
                    let number = attached.add(customer, step);
                    prop_assert!(list.iter().all(|&(other, _)| other < number));
                    list.push((number, customer));
                } else {
                    let number = step - 6;
                    let at = list.iter().position(|&(other, _)| other == number);
                    prop_assert_eq!(attached.remove(number), at.map(|at| list.remove(at).1));
                }
                prop_assert_eq!((attached.len(), attached.is_empty()), (list.len(), list.is_empty()));
                prop_assert_eq!(attached.has_customer(), list.iter().any(|&(_, customer)| customer));
            }
            prop_assert_eq!(attached.take().count(), list.len());
            prop_assert!(attached.is_empty() && !attached.has_customer());
        }
    }
}
