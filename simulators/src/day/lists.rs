//! Follows the server's lists from page to page, and compares them with what must be in them.

use std::{collections::BTreeSet, sync::Arc};

use super::book::{BY_DRIVER, BY_PACKAGE, BY_STATUS, Book, Expectation};
use crate::{
    assignments::{Model, Page, Status},
    client::{Client, Failure, encoded},
    crew::Shared,
};

/// Packages that are looked up by their ids, at most.
const LOOKED_UP_MAX: usize = 100;
/// Pages are of different sizes, so that some lists have several.
const LIMITS: [Option<usize>; 3] = [None, Some(3), Some(7)];

/// One list as it comes in.
#[derive(Debug)]
struct List {
    expected: Expectation,
    limit: Option<usize>,
    seen: BTreeSet<usize>,
    /// Records of other runs, if the list may have them.
    others: Option<BTreeSet<(String, String)>>,
}

impl List {
    /// Takes a page.
    fn add(&mut self, page: &Page, book: &mut Book) -> Result<(), String> {
        let items = &page.assignments;
        if self.limit.is_some_and(|limit| items.len() > limit) {
            return Err(format!("a page of {}", items.len()));
        }
        if items.is_empty() && page.next.is_some() {
            return Err("an empty page that is not the last".to_owned());
        }
        for item in items {
            let (id, driver) = (&item.package_id, &item.driver_id);
            let own = book.model.driver(driver);
            let Some(package) = own.and_then(|_| book.model.package(id)) else {
                let others = self.others.as_mut().filter(|_| own.is_none());
                if others.is_some_and(|others| others.insert((driver.clone(), id.clone()))) {
                    continue;
                }
                return Err(format!("{id} of {driver} is in it, or is twice"));
            };
            let Expectation { must, may } = &self.expected;
            let belongs = must.contains(&package) || may.contains(&package);
            // A package of a plan whose answer was lost.
            let is_unheard = book.may_have_assigned && book.owner(package).is_none();
            if !belongs && !is_unheard {
                return Err(format!("{id} of {driver} does not belong in it"));
            }
            if !self.seen.insert(package) {
                return Err(format!("{id} is in it twice"));
            }
            if belongs {
                let before = book.times(package);
                let recorded = book.record(package, item, before);
                recorded.map_err(|what| format!("{id}: {what}"))?;
            }
        }
        Ok(())
    }
}

/// Reads lists and compares them.
pub(super) struct Auditor {
    pub(super) client: Client,
    pub(super) book: Shared<Book>,
}

impl Auditor {
    /// Follows a list to its end; how many records it had.
    async fn follow(
        &mut self,
        query: &str,
        mut list: List,
    ) -> Result<Result<usize, String>, Failure> {
        let limit = list.limit.map(|limit| format!("&limit={limit}"));
        let query = format!("/assignments?{query}{}", limit.unwrap_or_default());
        let mut cursor = String::new();
        loop {
            let path = format!("{query}{cursor}");
            let page: Page = self.client.get(&path).await?;
            if let Err(fault) = list.add(&page, &mut self.book.lock()) {
                return Ok(Err(fault));
            }
            match page.next {
                None => break,
                // Each page has a new record, so the loop ends.
                Some(next) => cursor = format!("&cursor={}", encoded(&next)),
            }
        }
        let missing = list.expected.must.difference(&list.seen).next();
        Ok(match missing {
            Some(package) => {
                let book = self.book.lock();
                Err(format!("{} is missing", book.model.package_id(*package)))
            }
            None => Ok(list.seen.len()),
        })
    }

    /// Compares lists under the name of a check: each with its name, its query, and what must be in it.
    async fn compare(
        &mut self,
        check: &'static str,
        lists: impl Iterator<Item = (String, String, List)>,
    ) {
        for (name, query, list) in lists {
            let outcome = self.follow(&query, list).await;
            let mut book = self.book.lock();
            match outcome {
                Ok(found) => {
                    *book.records.entry(check).or_default() += found.as_ref().unwrap_or(&0);
                    let holds = found.is_ok();
                    let what = || format!("{name}: {}", found.err().unwrap_or_default());
                    book.tally.expect(check, holds, what);
                }
                Err(failure) => {
                    book.broken_off.insert(check, format!("{name}: {failure}"));
                    return;
                }
            }
        }
    }

    fn model(&self) -> (Arc<Model>, String) {
        let book = self.book.lock();
        (Arc::clone(&book.model), book.date.to_string())
    }

    /// What every driver has, whatever its status.
    pub(super) async fn by_driver(&mut self, check: &'static str) {
        let (model, date) = self.model();
        let book = self.book.clone();
        let lists = (0..model.drivers()).map(|driver| {
            let id = model.driver_id(driver).to_owned();
            let list = List {
                expected: book
                    .lock()
                    .expected(|_, holding| Some(holding.driver == driver)),
                limit: LIMITS[driver % LIMITS.len()],
                seen: BTreeSet::new(),
                others: None,
            };
            let query = format!("driver_id={}&date={date}", encoded(&id));
            (id, query, list)
        });
        self.compare(check, lists).await;
    }

    /// What every driver has, what has each status, and who has some of the packages.
    pub(super) async fn all(&mut self) {
        self.by_driver(BY_DRIVER).await;
        let (model, date) = self.model();
        let book = self.book.clone();
        let lists = Status::ALL.into_iter().map(|status| {
            let expected = book
                .lock()
                .expected(|_, holding| (!holding.is_uncertain).then_some(holding.status == status));
            let list = List {
                expected,
                limit: Some(100),
                seen: BTreeSet::new(),
                others: Some(BTreeSet::new()),
            };
            let name = status.name();
            (name.to_owned(), format!("status={name}&date={date}"), list)
        });
        self.compare(BY_STATUS, lists).await;
        let lists = (0..model.packages().min(LOOKED_UP_MAX)).map(|package| {
            let list = List {
                expected: book.lock().expected(|other, _| Some(other == package)),
                limit: None,
                seen: BTreeSet::new(),
                others: None,
            };
            let id = model.package_id(package);
            (id.to_owned(), format!("package_id={}", encoded(id)), list)
        });
        self.compare(BY_PACKAGE, lists).await;
    }
}
