//! Conversion to and from `DynamoDB`'s values.

use std::collections::HashMap;
use std::hash::Hasher;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use jiff::civil::Date;
use siphasher::sip::SipHasher24;

use super::super::error::Unavailable;
use super::super::model::{Assignment, DriverId, Package, PackageId, Place, Region, Status};
use super::tables::{ASSIGNED_AT, DATE, DRIVER_ID, ITEM, PACKAGE_ID, SHARD, STATUS, UPDATED_AT};

/// An item, or its key.
pub(super) type Item = HashMap<String, AttributeValue>;

/// Number of partition keys per day. It must not change while there are items.
pub const SHARDS: u64 = 16;

/// Prefix of the sort key of a package's item.
pub(super) const PACKAGE_ITEM: &str = "package/";
/// Prefix of the sort key of a driver's count.
const DRIVER_ITEM: &str = "driver/";

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// To the microsecond, with constant length: the order of the texts is the order of the times.
pub(super) fn moment(at: Timestamp) -> AttributeValue {
    AttributeValue::S(format!("{at:.6}"))
}

pub(super) fn count(number: u32) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// `DynamoDB`'s decimal numbers have a smaller range than `f64`; values outside are stored as text.
fn number(number: f64) -> AttributeValue {
    match number.abs() {
        0.0 => AttributeValue::N("0".to_owned()),
        1e-6..1e15 => AttributeValue::N(number.to_string()),
        1e-120..1e120 => AttributeValue::N(format!("{number:e}")),
        _ => AttributeValue::S(format!("{number:e}")),
    }
}

pub(super) fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn count_of(item: &Item, name: &str) -> Option<u32> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn number_of(item: &Item, name: &str) -> Option<f64> {
    match item.get(name)? {
        AttributeValue::N(text) | AttributeValue::S(text) => text.parse().ok(),
        _ => None,
    }
}

fn yes_or_no_of(item: &Item, name: &str) -> Option<bool> {
    item.get(name)?.as_bool().ok().copied()
}

/// Attributes that this adapter did not write. The log names the item.
pub(super) fn malformed(table: &str, item: &Item) -> Unavailable {
    let names = [DRIVER_ID, PACKAGE_ID, SHARD, ITEM].into_iter();
    let key = names.filter_map(|name| Some(format!("{name}={}", text_of(item, name)?)));
    let key = key.collect::<Vec<_>>().join(" ");
    tracing::error!(
        table,
        key,
        "an item in the table cannot be read; correct or delete it"
    );
    Unavailable::Failed
}

pub(super) fn key(driver: &DriverId, package: &PackageId) -> Item {
    [
        (DRIVER_ID.to_owned(), text(driver.as_str())),
        (PACKAGE_ID.to_owned(), text(package.as_str())),
    ]
    .into()
}

/// The cursor for an assignment's key.
pub(super) fn place(item: &Item) -> Option<Place> {
    Some(Place {
        driver: DriverId::stored(text_of(item, DRIVER_ID)?),
        date: None,
        package: PackageId::stored(text_of(item, PACKAGE_ID)?),
    })
}

pub(super) fn place_of_day(shard: String, item: String) -> Item {
    [
        (SHARD.to_owned(), text(shard)),
        (ITEM.to_owned(), text(item)),
    ]
    .into()
}

pub(super) fn shard(date: Date, number: u64) -> String {
    format!("{date}#{number:02x}")
}

fn shard_of(name: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(name.as_bytes());
    hasher.finish() % SHARDS
}

/// The key of a package's holder on this day.
pub(super) fn package_key(date: Date, package: &PackageId) -> Item {
    let shard = shard(date, shard_of(package.as_str()));
    place_of_day(shard, format!("{PACKAGE_ITEM}{package}"))
}

/// The key of a driver's number of packages on this day.
pub(super) fn driver_key(date: Date, driver: &DriverId) -> Item {
    let shard = shard(date, shard_of(driver.as_str()));
    place_of_day(shard, format!("{DRIVER_ITEM}{driver}"))
}

pub(super) fn item(assignment: &Assignment) -> Item {
    let package = &assignment.package;
    let mut item = key(&assignment.driver, &package.id);
    let mut add = |name: &str, value| item.insert(name.to_owned(), value);
    add(DATE, text(assignment.date.to_string()));
    add(STATUS, text(assignment.status.as_str()));
    add(ASSIGNED_AT, moment(assignment.assigned_at));
    add(UPDATED_AT, moment(assignment.updated_at));
    add("weight_kg", number(package.weight_kg));
    add("volume_m3", number(package.volume_m3));
    add("distance_km", number(package.distance_km));
    add("temperature_c", number(package.temperature_c));
    add("is_perishable", AttributeValue::Bool(package.is_perishable));
    add("is_express", AttributeValue::Bool(package.is_express));
    add("is_fragile", AttributeValue::Bool(package.is_fragile));
    add("region", text(package.region.as_str()));
    add("delivery_hour", count(package.delivery_hour.into()));
    if let Some(class) = package.hazmat_class {
        add("hazmat_class", count(class.into()));
    }
    if let Some(destination) = &package.destination {
        add("destination", text(destination.as_ref()));
    }
    item
}

pub(super) fn assignment(item: &Item) -> Option<Assignment> {
    let place = place(item)?;
    let small = |name| count_of(item, name).and_then(|number| u8::try_from(number).ok());
    let hazmat_class = match item.get("hazmat_class") {
        Some(_) => Some(small("hazmat_class")?),
        None => None,
    };
    Some(Assignment {
        driver: place.driver,
        package: Package {
            id: place.package,
            weight_kg: number_of(item, "weight_kg")?,
            is_perishable: yes_or_no_of(item, "is_perishable")?,
            region: Region::parse(text_of(item, "region")?)?,
            distance_km: number_of(item, "distance_km")?,
            is_express: yes_or_no_of(item, "is_express")?,
            is_fragile: yes_or_no_of(item, "is_fragile")?,
            hazmat_class,
            temperature_c: number_of(item, "temperature_c")?,
            delivery_hour: small("delivery_hour")?,
            volume_m3: number_of(item, "volume_m3")?,
            destination: text_of(item, "destination").map(Into::into),
        },
        date: text_of(item, DATE)?.parse().ok()?,
        status: Status::parse(text_of(item, STATUS)?)?,
        assigned_at: text_of(item, ASSIGNED_AT)?.parse().ok()?,
        updated_at: text_of(item, UPDATED_AT)?.parse().ok()?,
    })
}
