//! Follows the server's lists from page to page, and compares them with what must be in them.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use super::book::{Book, Expectation, Fits};
use crate::{
    assignments::{Link, Page, Status},
    audit::{Check, Faults},
    resend::{insist, locked},
    shop::Failure,
};

/// Packages that are looked up by their ids, at most.
const LOOKED_UP_MAX: usize = 100;
/// Pages are of different sizes, so that some lists have several.
const LIMITS: [Option<usize>; 3] = [None, Some(3), Some(7)];

/// The server's final lists of one kind, compared with the book.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) lists: u64,
    pub(crate) records: u64,
    faults: Faults,
    /// Why not all could be looked up.
    broken_off: Option<String>,
}

impl Compared {
    pub(crate) fn check(&self, name: &'static str) -> Check {
        let broken_off = self.broken_off.as_deref();
        let asked = "GET /assignments";
        let mut check = Check::looked_up(name, asked, &self.faults, self.lists, broken_off);
        if broken_off.is_none() {
            check.finding = format!("{} lists, {} records", check.finding, self.records);
        }
        check
    }

    /// A list, or as much of it as there was.
    fn add(&mut self, what: &str, outcome: Result<Result<(), String>, Failure>) -> bool {
        self.lists += 1;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.faults.note(|| format!("{what}: {fault}")),
            Err(failure) => self.broken_off = Some(format!("{what}: {failure}")),
        }
        self.broken_off.is_none()
    }
}

/// One list as it comes in.
#[derive(Debug)]
pub(crate) struct List {
    expected: Expectation,
    limit: Option<usize>,
    seen: BTreeSet<usize>,
    /// Of those that are not of this run: the server keeps others' too.
    others: BTreeSet<(String, String)>,
    /// Others' are no fault.
    admits_others: bool,
}

impl List {
    pub(crate) fn new(expected: Expectation, limit: Option<usize>, admits_others: bool) -> Self {
        Self {
            expected,
            limit,
            seen: BTreeSet::new(),
            others: BTreeSet::new(),
            admits_others,
        }
    }

    /// Takes a page.
    pub(crate) fn add(&mut self, page: &Page, book: &mut Book) -> Result<(), String> {
        let items = &page.assignments;
        if self.limit.is_some_and(|limit| items.len() > limit) {
            return Err(format!("a page of {}", items.len()));
        }
        if items.is_empty() && page.next.is_some() {
            return Err("an empty page that is not the last".to_owned());
        }
        for item in items {
            let id = &item.package_id;
            let own = book.roster.driver(&item.driver_id);
            let package = own.and_then(|_| book.roster.package(id));
            let Some(package) = package else {
                let other = (item.driver_id.clone(), id.clone());
                if self.admits_others && own.is_none() && self.others.insert(other) {
                    continue;
                }
                return Err(format!("{id} of {} is in it, or is twice", item.driver_id));
            };
            let belongs =
                self.expected.must.contains(&package) || self.expected.may.contains(&package);
            // A package of a plan whose answer was lost.
            let is_unheard = book.may_have_assigned && book.owner_at(package, u64::MAX).is_none();
            if !belongs && !is_unheard {
                return Err(format!("{id} of {} does not belong in it", item.driver_id));
            }
            if !self.seen.insert(package) {
                return Err(format!("{id} is in it twice"));
            }
            if belongs {
                let before = book.times(package);
                book.record(package, item, before)
                    .map_err(|what| format!("{id}: {what}"))?;
            }
        }
        Ok(())
    }

    /// How many there were, when there are no more pages.
    pub(crate) fn end(self, book: &Book) -> Result<u64, String> {
        match self.expected.must.difference(&self.seen).next() {
            Some(package) => Err(format!("{} is missing", book.roster.package_id(*package))),
            None => Ok(u64::try_from(self.seen.len()).unwrap_or(u64::MAX)),
        }
    }
}

/// Reads lists and compares them.
pub(crate) struct Auditor<'a> {
    pub(crate) link: Link,
    pub(crate) book: &'a Mutex<Book>,
    /// Measured.
    pub(crate) patience: Duration,
}

impl Auditor<'_> {
    /// Follows a list to its end.
    async fn follow(
        &mut self,
        filter: &[(&str, &str)],
        mut list: List,
        records: &mut u64,
    ) -> Result<Result<(), String>, Failure> {
        let limit = list.limit.map(|limit| limit.to_string());
        let mut filter = filter.to_vec();
        filter.extend(limit.iter().map(|limit| ("limit", &limit[..])));
        let mut cursor: Option<String> = None;
        loop {
            let link = &mut self.link;
            let page = insist(self.patience, async || {
                link.list(&filter, cursor.as_deref()).await
            });
            let page = page.await?;
            if let Err(fault) = list.add(&page, &mut locked(self.book)) {
                return Ok(Err(fault));
            }
            match page.next {
                None => break,
                // Each page has a new record, so the loop ends.
                next => cursor = next,
            }
        }
        let ended = list.end(&locked(self.book));
        Ok(ended.map(|seen| *records += seen))
    }

    /// What every driver has, whatever its status.
    pub(crate) async fn by_driver(&mut self) -> Compared {
        let mut compared = Compared::default();
        let (roster, date) = {
            let book = locked(self.book);
            (book.roster.clone(), book.date.to_string())
        };
        for driver in 0..roster.drivers() {
            let fits = |is: bool| if is { Fits::Yes } else { Fits::No };
            let expected = locked(self.book).expected(|holding| fits(holding.driver == driver));
            let id = roster.driver_id(driver);
            let list = List::new(expected, LIMITS[driver % LIMITS.len()], false);
            let filter = [("driver_id", id), ("date", &date)];
            let outcome = self.follow(&filter, list, &mut compared.records).await;
            if !compared.add(id, outcome) {
                break;
            }
        }
        compared
    }

    /// What has each status.
    pub(crate) async fn by_status(&mut self) -> Compared {
        let mut compared = Compared::default();
        let date = locked(self.book).date.to_string();
        for status in Status::ALL {
            let expected = locked(self.book).expected(|holding| {
                if holding.is_uncertain {
                    Fits::Perhaps
                } else if holding.status == status {
                    Fits::Yes
                } else {
                    Fits::No
                }
            });
            let list = List::new(expected, Some(100), true);
            let filter = [("status", status.name()), ("date", &date)];
            let outcome = self.follow(&filter, list, &mut compared.records).await;
            if !compared.add(status.name(), outcome) {
                break;
            }
        }
        compared
    }

    /// Who has some of the packages.
    pub(crate) async fn by_package(&mut self) -> Compared {
        let mut compared = Compared::default();
        let roster = locked(self.book).roster.clone();
        for package in 0..roster.packages().min(LOOKED_UP_MAX) {
            let mut expected = Expectation::default();
            if locked(self.book).owner_at(package, u64::MAX).is_some() {
                expected.must.insert(package);
            }
            let id = roster.package_id(package);
            let list = List::new(expected, None, false);
            let filter = [("package_id", id)];
            let outcome = self.follow(&filter, list, &mut compared.records).await;
            if !compared.add(id, outcome) {
                break;
            }
        }
        compared
    }
}
