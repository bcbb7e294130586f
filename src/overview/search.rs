//! Finds things of all desks by their ids: those of exactly this id first, then those whose ids begin with it.

use std::net::IpAddr;

use ipnet::IpNet;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::service::{Overview, patiently};
use crate::assignments::model::{DriverId, Filter, PackageId};
use crate::assignments::service::today;
use crate::couriers::model::{CourierId, OrderId as CourierOrderId, Whereabouts};
use crate::deliveries::model::DeliveryId;
use crate::orders::model::OrderId;
use crate::packages::model::Id;

/// All but the unreserved characters (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Most results.
pub const FOUND_MAX: usize = 20;
/// Longest text that is searched for, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Assignments of one package that are listed.
const ASSIGNMENTS_MAX: usize = 5;

/// A thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Found {
    /// order, delivery, package, recipient, driver, assignment, courier, courier-order, blocked or request.
    #[schema(example = "delivery")]
    kind: &'static str,
    #[schema(example = "drone-7")]
    id: String,
    /// What it is at this moment.
    #[schema(example = "TAKEN_OFF")]
    title: String,
    /// Its place on the operator's page.
    #[schema(example = "/#/deliveries/drone-7")]
    href: String,
}

impl Found {
    /// `page`: the part of the operator's page that shows it.
    fn new(kind: &'static str, page: &str, id: &str, title: impl Into<String>) -> Self {
        let encoded = utf8_percent_encode(id, ESCAPED);
        Self {
            kind,
            id: id.to_owned(),
            title: title.into(),
            href: format!("/#/{page}/{encoded}"),
        }
    }
}

impl Overview {
    /// At most [`FOUND_MAX`] things of this id, or whose ids begin with it. Of desks that do not answer there are none.
    pub async fn search(&self, text: &str) -> Vec<Found> {
        let (by_uuid, by_name, assigned, beginning) = tokio::join!(
            self.of_uuid(text),
            self.of_name(text),
            self.assigned(text),
            self.beginning_with(text),
        );
        let exact = [by_uuid, by_name, assigned].concat();
        let mut found = exact.clone();
        found.extend(beginning.into_iter().filter(|one| {
            let is_same = |known: &Found| known.kind == one.kind && known.id == one.id;
            !exact.iter().any(is_same)
        }));
        found.truncate(FOUND_MAX);
        found
    }

    /// Orders of the line and of couriers, and couriers.
    async fn of_uuid(&self, text: &str) -> Vec<Found> {
        let Ok(id) = text.parse::<Uuid>() else {
            return Vec::new();
        };
        let (sources, id_text) = (&self.sources, id.to_string());
        let order = sources.orders.view(OrderId(id)).get();
        let (order, courier, courier_order) = tokio::join!(
            tokio::time::timeout(super::service::PATIENCE, order),
            patiently(sources.couriers.courier(CourierId(id))),
            patiently(sources.couriers.order(CourierOrderId(id))),
        );
        let order = order.ok().and_then(Result::ok).flatten().map(|view| {
            let stage = view.order.stage.as_str();
            let title = match &view.order.customer {
                Some(customer) => format!("{stage}, {customer}"),
                None => stage.to_owned(),
            };
            Found::new("order", "orders", &id_text, title)
        });
        let courier = courier.flatten().map(|known| {
            let title = format!("{}, {}", known.said.name, known.said.zone.as_str());
            Found::new("courier", "couriers", &id_text, title)
        });
        let courier_order = courier_order.flatten().map(|place| {
            let title = match place {
                Whereabouts::With(courier) => format!("with courier {courier}"),
                Whereabouts::Parked => "parked".to_owned(),
            };
            Found::new("courier-order", "courier-orders", &id_text, title)
        });
        [order, courier, courier_order]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Deliveries, packages, recipients, blocked addresses and requests.
    async fn of_name(&self, text: &str) -> Vec<Found> {
        let sources = &self.sources;
        let delivery = async {
            let known = sources.deliveries.delivery(DeliveryId::parse(text)?);
            let known = patiently(known).await??;
            let title = known.state.as_str();
            Some(Found::new(
                "delivery",
                "deliveries",
                known.id.as_str(),
                title,
            ))
        };
        let package = async {
            let id = Id::parse(text)?;
            let known = patiently(sources.packages.package(id.clone())).await??;
            let title = format!("{}, {}", known.outcome.as_str(), known.type_name);
            Some(Found::new("package", "packages", id.as_str(), title))
        };
        let recipient = async {
            let id = Id::parse(text)?;
            let known = patiently(sources.packages.has_preferences(id.clone())).await?;
            let found = || Found::new("recipient", "recipients", id.as_str(), "has preferences");
            known.then(found)
        };
        let (delivery, package, recipient) = tokio::join!(delivery, package, recipient);
        let request = sources.problems.find(text).map(|problem| {
            let title = format!("{} {} {}", problem.status, problem.method, problem.route);
            Found::new("request", "requests", text, title)
        });
        let mut found: Vec<_> = [delivery, package, recipient, request]
            .into_iter()
            .flatten()
            .collect();
        found.extend(self.blocked(text));
        found
    }

    /// A blocked address, or the blocked networks around it.
    fn blocked(&self, text: &str) -> Vec<Found> {
        let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let Some(asked) = text.parse::<IpNet>().ok().or_else(single) else {
            return Vec::new();
        };
        let is_around = |address: &str| {
            let single = || address.parse::<IpAddr>().map(IpNet::from).ok();
            let network = address.parse::<IpNet>().ok().or_else(single);
            network.is_some_and(|network| network.contains(&asked))
        };
        let blocked = self.sources.flood.blocked().into_iter();
        let around = blocked.filter(|one| is_around(&one.address));
        around
            .map(|one| Found::new("blocked", "flood", &one.address, one.reason))
            .collect()
    }

    /// Drivers and packages of assignments.
    async fn assigned(&self, text: &str) -> Vec<Found> {
        let assignments = &self.sources.assignments;
        let driver = async {
            let driver = DriverId::parse(text)?;
            let of_driver = Filter {
                driver: Some(driver.clone()),
                ..Filter::default()
            };
            let listing = patiently(assignments.list(of_driver, None, 1)).await?;
            let first = listing.assignments.first()?;
            let title = format!("has packages of {}", first.date);
            Some(Found::new("driver", "drivers", driver.as_str(), title))
        };
        let package = async {
            let of_package = Filter {
                package: Some(PackageId::parse(text)?),
                // Of all days every assignment would be read.
                date: Some(today()),
                ..Filter::default()
            };
            patiently(assignments.list(of_package, None, ASSIGNMENTS_MAX)).await
        };
        let (driver, package) = tokio::join!(driver, package);
        let mut found: Vec<_> = driver.into_iter().collect();
        let listed = package.into_iter().flat_map(|listing| listing.assignments);
        found.extend(listed.map(|one| {
            let title = format!("{}, {}", one.status.as_str(), one.driver);
            Found::new("assignment", "drivers", one.driver.as_str(), title).of(&one.package.id)
        }));
        found
    }

    /// Ongoing deliveries, blocked addresses and requests whose ids begin with this text.
    async fn beginning_with(&self, text: &str) -> Vec<Found> {
        let sources = &self.sources;
        let begins = |id: &str| id.starts_with(text);
        let ongoing = patiently(sources.deliveries.ongoing()).await;
        let ongoing = ongoing.into_iter().flatten();
        let deliveries = ongoing.filter(|one| begins(one.id.as_str())).map(|one| {
            let title = one.state.as_str();
            Found::new("delivery", "deliveries", one.id.as_str(), title)
        });
        let mut found: Vec<_> = deliveries.take(FOUND_MAX).collect();
        let blocked = sources.flood.blocked().into_iter();
        let blocked = blocked.filter(|one| begins(&one.address));
        found.extend(
            blocked
                .take(FOUND_MAX)
                .map(|one| Found::new("blocked", "flood", &one.address, one.reason)),
        );
        let problems = sources.problems.latest(usize::MAX).into_iter();
        let problems = problems.filter(|one| begins(&one.request_id));
        found.extend(problems.take(FOUND_MAX).map(|one| {
            let title = format!("{} {} {}", one.status, one.method, one.route);
            Found::new("request", "requests", &one.request_id, title)
        }));
        found
    }
}

impl Found {
    /// An assignment is shown with its driver.
    fn of(self, package: &PackageId) -> Self {
        Self {
            id: package.to_string(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_escaped_in_its_place() {
        let found = Found::new("blocked", "flood", "192.0.2.0/24", "rate");
        assert_eq!(found.href, "/#/flood/192.0.2.0%2F24");
    }
}
