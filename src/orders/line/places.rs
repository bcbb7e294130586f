//! Places in line: a sorted, sparse set of tickets that counts the tickets before a given one.
//!
//! Tickets are issued in rising order, taken from the low end, removed anywhere, and sometimes put back. A page is a bitmap
//! of 256 neighbouring tickets: both ends are cheap however long the line is, a lookup touches one page, and counting adds
//! up pages instead of tickets. Empty pages are dropped: memory follows the places in use, not the tickets ever issued.

use std::collections::BTreeMap;

/// A place in the order of arrival.
pub(super) type Ticket = u64;

const PAGE_BITS: u32 = 8;
const PAGE_LEN: usize = 1 << PAGE_BITS;
const WORDS: usize = PAGE_LEN / 64;

/// The tickets in use, sorted, each with its holder.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: BTreeMap<u64, Box<Page>>,
    len: usize,
}

#[derive(Debug)]
struct Page {
    used: [u64; WORDS],
    holders: [u32; PAGE_LEN],
}

impl Page {
    const EMPTY: Self = Self {
        used: [0; WORDS],
        holders: [0; PAGE_LEN],
    };

    fn is_empty(&self) -> bool {
        self.used.iter().all(|&word| word == 0)
    }

    fn count(&self) -> usize {
        self.used
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Tickets in use before position `at` of this page.
    fn count_before(&self, at: usize) -> usize {
        let (word, bit) = (at / 64, at % 64);
        let whole: u32 = self.used[..word].iter().map(|w| w.count_ones()).sum();
        let part = (self.used[word] & ((1 << bit) - 1)).count_ones();
        (whole + part) as usize
    }

    fn first(&self) -> Option<usize> {
        let word = self.used.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.used[word].trailing_zeros() as usize)
    }
}

fn page_of(ticket: Ticket) -> (u64, usize) {
    let within = ticket & (PAGE_LEN as u64 - 1);
    (ticket >> PAGE_BITS, usize::try_from(within).unwrap_or(0))
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `holder` at `ticket`. The place must be free.
    pub(super) fn insert(&mut self, ticket: Ticket, holder: u32) {
        let (page, at) = page_of(ticket);
        let page = self
            .pages
            .entry(page)
            .or_insert_with(|| Box::new(Page::EMPTY));
        let bit = 1 << (at % 64);
        assert_eq!(page.used[at / 64] & bit, 0, "ticket {ticket} is taken");
        page.used[at / 64] |= bit;
        page.holders[at] = holder;
        self.len += 1;
    }

    /// Frees the place and returns its holder.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<u32> {
        let (number, at) = page_of(ticket);
        let page = self.pages.get_mut(&number)?;
        let bit = 1 << (at % 64);
        if page.used[at / 64] & bit == 0 {
            return None;
        }
        page.used[at / 64] &= !bit;
        let holder = page.holders[at];
        if page.is_empty() {
            self.pages.remove(&number);
        }
        self.len -= 1;
        Some(holder)
    }

    /// The lowest ticket in use and its holder.
    pub(super) fn first(&self) -> Option<(Ticket, u32)> {
        let (number, page) = self.pages.first_key_value()?;
        let at = page.first()?;
        Some(((number << PAGE_BITS) | at as u64, page.holders[at]))
    }

    /// The holders, by rising ticket.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.pages.values().flat_map(|page| {
            let used = (0..PAGE_LEN).filter(|at| page.used[at / 64] & (1 << (at % 64)) != 0);
            used.map(|at| page.holders[at])
        })
    }

    /// Tickets in use that are lower than this one.
    pub(super) fn count_before(&self, ticket: Ticket) -> usize {
        let (number, at) = page_of(ticket);
        let whole: usize = self
            .pages
            .range(..number)
            .map(|(_, page)| page.count())
            .sum();
        whole
            + self
                .pages
                .get(&number)
                .map_or(0, |page| page.count_before(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Ticket),
        Remove(Ticket),
        TakeFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few tickets around page borders, so that steps meet.
        let ticket = prop_oneof![0_u64..8, 250_u64..260, 510_u64..516, 100_000_u64..100_004];
        prop_oneof![
            3 => ticket.clone().prop_map(Step::Insert),
            2 => ticket.prop_map(Step::Remove),
            1 => Just(Step::TakeFirst),
        ]
    }

    proptest! {
        #[test]
        fn places_behave_like_a_sorted_map(steps in prop::collection::vec(step(), 1..200)) {
            let mut places = Places::default();
            let mut model = BTreeMap::new();
            for (holder, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(ticket) => {
                        if model.insert(ticket, holder).is_none() {
                            places.insert(ticket, holder);
                        } else {
                            places.remove(ticket);
                            places.insert(ticket, holder);
                        }
                    }
                    Step::Remove(ticket) => {
                        prop_assert_eq!(places.remove(ticket), model.remove(&ticket));
                    }
                    Step::TakeFirst => {
                        let first = places.first();
                        prop_assert_eq!(first, model.pop_first());
                        if let Some((ticket, _)) = first {
                            places.remove(ticket);
                        }
                    }
                }
                prop_assert_eq!(places.len(), model.len());
                prop_assert_eq!(places.is_empty(), model.is_empty());
                prop_assert!(places.iter().eq(model.values().copied()));
                for ticket in model.keys() {
                    prop_assert_eq!(places.count_before(*ticket), model.range(..ticket).count());
                }
            }
            for ticket in model.into_keys() {
                places.remove(ticket);
            }
            prop_assert!(places.pages.is_empty(), "an empty line has no pages");
        }
    }
}
