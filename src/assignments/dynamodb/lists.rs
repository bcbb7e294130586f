use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;

use super::super::error::Unavailable;
use super::super::model::{Assignment, Filter, Place};
use super::super::store::Listing;
use super::Dynamodb;
use super::calls::call_error;
use super::tables::{BY_PACKAGE, DATE, DRIVER_ID, PACKAGE_ID, STATUS};
use super::values::{Item, assignment, key, malformed, place, text};

/// Pages of a megabyte each per answer. After these the answer may have fewer items than requested, and a cursor: a query for
/// rare items among millions has a bounded duration.
const PAGES_MAX: usize = 64;

enum Pages {
    Query(QueryFluentBuilder),
    Scan(ScanFluentBuilder),
}

/// Attributes that must have these values.
type Having = Vec<(&'static str, String)>;

impl Dynamodb {
    pub(super) async fn find(
        &self,
        filter: Filter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Listing, Unavailable> {
        let nothing = Listing {
            assignments: Vec::new(),
            next: None,
        };
        // DynamoDB rejects a start key outside of the query; nothing follows it.
        if after
            .as_ref()
            .is_some_and(|place| is_elsewhere(&filter, place))
        {
            return Ok(nothing);
        }
        let pages = self.pages(&filter, limit);
        let table = &self.tables.assignments;
        let mut from = after.map(|place| key(&place.driver, &place.package));
        let mut found: Vec<Assignment> = Vec::new();
        for _ in 0..PAGES_MAX {
            let (items, next) = self.page(&pages, from).await?;
            for item in &items {
                match assignment(item) {
                    Some(one) => found.push(one),
                    // It is skipped and logged: a list of all others is more useful than none.
                    None => {
                        malformed(table, item);
                    }
                }
            }
            from = next;
            // One more than requested shows that there is a next page.
            if found.len() > limit || from.is_none() {
                break;
            }
        }
        let next = if found.len() > limit {
            found.truncate(limit);
            found.last().map(|last| Place {
                driver: last.driver.clone(),
                date: None,
                package: last.package.id.clone(),
            })
        } else {
            match from {
                Some(key) => Some(place(&key).ok_or_else(|| malformed(table, &key))?),
                None => None,
            }
        };
        Ok(Listing {
            assignments: found,
            next,
        })
    }

    fn pages(&self, filter: &Filter, limit: usize) -> Pages {
        let (keys, others) = attributes(filter);
        // Without a filter every item that is read is returned.
        let limit = i32::try_from(limit.saturating_add(1)).ok();
        let limit = limit.filter(|_| others.is_empty());
        let table = &self.tables.assignments;
        let (key_condition, other_condition) = (condition(&keys), condition(&others));
        if key_condition.is_none() {
            let mut scan = self.client.scan().table_name(table).set_limit(limit);
            scan = scan
                .consistent_read(true)
                .set_filter_expression(other_condition);
            for (name, value) in others {
                scan = scan
                    .expression_attribute_names(format!("#{name}"), name)
                    .expression_attribute_values(format!(":{name}"), text(value));
            }
            return Pages::Scan(scan);
        }
        let mut query = self.client.query().table_name(table).set_limit(limit);
        query = query
            .set_key_condition_expression(key_condition)
            .set_filter_expression(other_condition);
        query = if filter.driver.is_some() {
            query.consistent_read(true)
        } else {
            // An index lags behind its table by some milliseconds; consistent reads are impossible.
            query.index_name(BY_PACKAGE)
        };
        for (name, value) in keys.into_iter().chain(others) {
            query = query
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), text(value));
        }
        Pages::Query(query)
    }

    async fn page(
        &self,
        pages: &Pages,
        from: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), Unavailable> {
        let answer = match pages {
            Pages::Query(query) => {
                let page = query.clone().set_exclusive_start_key(from);
                let call = self.calls.call(|| {
                    let page = page.clone();
                    async move { Box::pin(page.send()).await.map_err(call_error) }
                });
                let page = call.await?.done;
                (page.items, page.last_evaluated_key)
            }
            Pages::Scan(scan) => {
                let page = scan.clone().set_exclusive_start_key(from);
                let call = self.calls.call(|| {
                    let page = page.clone();
                    async move { Box::pin(page.send()).await.map_err(call_error) }
                });
                let page = call.await?.done;
                (page.items, page.last_evaluated_key)
            }
        };
        Ok((answer.0.unwrap_or_default(), answer.1))
    }
}

fn is_elsewhere(filter: &Filter, place: &Place) -> bool {
    let other_driver = filter.driver.as_ref().is_some_and(|it| *it != place.driver);
    let other_package = filter
        .package
        .as_ref()
        .is_some_and(|it| *it != place.package);
    other_driver || other_package
}

/// The filter's conditions on keys, and on other attributes.
fn attributes(filter: &Filter) -> (Having, Having) {
    let driver = filter.driver.as_ref().map(|it| (DRIVER_ID, it.to_string()));
    let package = filter
        .package
        .as_ref()
        .map(|it| (PACKAGE_ID, it.to_string()));
    let status = filter.status.map(|it| (STATUS, it.as_str().to_owned()));
    let date = filter.date.map(|it| (DATE, it.to_string()));
    (
        driver.into_iter().chain(package).collect(),
        status.into_iter().chain(date).collect(),
    )
}

fn condition(having: &Having) -> Option<String> {
    let each = having.iter().map(|(name, _)| format!("#{name} = :{name}"));
    let all = each.collect::<Vec<_>>().join(" AND ");
    (!all.is_empty()).then_some(all)
}
