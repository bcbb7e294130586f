//! Parses a manifest as a stream: one driver and one package at a time. All mistakes are reported with their places, up to a
//! limit.

use std::collections::HashSet;
use std::fmt;
use std::io;

use jiff::civil::Date;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::manifest::{Driver, Manifest, NamedRule};
use super::super::model::{
    DESTINATION_CHARS_MAX, DriverId, ID_CHARS_MAX, Package, PackageId, Region, parse_day,
};
use super::super::rules::Rule;
use super::wire::NO_DAY;
use crate::http::Problem;
use crate::values::json::{self, Fields, MISTAKES_MAX, Mistake, Read, Unread, not_an_id};

/// The largest driver or package, in bytes of JSON: a driver with a thousand rules. A tree of values takes a hundred times as
/// much memory.
const ELEMENT_BYTES_MAX: usize = 128 << 10;

/// A received manifest: its day, if it has one, and its lists.
pub(super) type Sent = (Option<Date>, Manifest);

/// # Errors
/// 400 if it is not JSON, 422 with pointers if something in it is invalid.
pub(super) fn read(json: &mut dyn io::Read) -> Result<Sent, Problem> {
    let mut reading = Reading::default();
    // The parser reads single bytes.
    let json = io::BufReader::new(json);
    let mut deserializer = serde_json::Deserializer::from_reader(json);
    let read = Whole(&mut reading).deserialize(&mut deserializer);
    if let Err(error) = read.and_then(|()| deserializer.end()) {
        // Too many mistakes end the parsing, too; then these are reported.
        if !reading.is_full() {
            return Err(if error.is_io() {
                Problem::unreadable(format!("It cannot be read: {error}."))
            } else if error.is_data() {
                // The only expectation of the parser itself.
                vec![Mistake::new(
                    reading.at,
                    "It must be an object with `drivers` and `packages`, which are lists.",
                )]
                .into()
            } else {
                Unread::from(&error).into()
            });
        }
    }
    reading.end()
}

/// What was read so far, and its mistakes.
#[derive(Default)]
struct Reading {
    date: Option<Date>,
    drivers: Option<Vec<Driver>>,
    packages: Option<Vec<Package>>,
    driver_names: HashSet<DriverId>,
    package_names: HashSet<PackageId>,
    mistakes: Vec<Mistake>,
    /// The list that is being read.
    at: &'static str,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.mistakes.len() >= MISTAKES_MAX
    }

    fn wrong(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if !self.is_full() {
            self.mistakes.push(Mistake::new(pointer, detail));
        }
    }

    fn end(mut self) -> Result<Sent, Problem> {
        for (name, missing) in [
            ("/drivers", self.drivers.is_none()),
            ("/packages", self.packages.is_none()),
        ] {
            if missing && !self.is_full() {
                self.wrong(name, "This list is missing.");
            }
        }
        if !self.mistakes.is_empty() {
            return Err(self.mistakes.into());
        }
        let manifest = Manifest {
            drivers: self.drivers.unwrap_or_default(),
            packages: self.packages.unwrap_or_default(),
        };
        Ok((self.date, manifest))
    }

    fn date(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) if parse_day(text).is_some() => self.date = parse_day(text),
            _ => self.wrong("/date", NO_DAY),
        }
    }

    fn driver(&mut self, place: usize, value: &Value) {
        let pointer = format!("/drivers/{place}");
        let mut fields = Fields::of(value, &pointer, &mut self.mistakes);
        let id = name(&mut fields, "driver_id", DriverId::parse);
        let rules = fields.list("rules").map(|rules| {
            let rules = rules.iter().enumerate();
            let pointer = |place| format!("{pointer}/rules/{place}");
            rules
                .filter_map(|(place, rule)| read_rule(rule, &pointer(place), fields.mistakes()))
                .collect()
        });
        let (Some(id), Some(rules)) = (id, rules) else {
            return;
        };
        if self.driver_names.insert(id.clone()) {
            let drivers = self.drivers.get_or_insert_default();
            drivers.push(Driver { id, rules });
        } else {
            self.wrong(
                format!("{pointer}/driver_id"),
                format!("There are two drivers {:?}.", id.as_str()),
            );
        }
    }

    fn package(&mut self, place: usize, value: &Value) {
        let pointer = format!("/packages/{place}");
        let Some(package) = read_package(&mut Fields::of(value, &pointer, &mut self.mistakes))
        else {
            return;
        };
        if self.package_names.insert(package.id.clone()) {
            self.packages.get_or_insert_default().push(package);
        } else {
            let detail = format!("There are two packages {:?}.", package.id.as_str());
            self.wrong(format!("{pointer}/package_id"), detail);
        }
    }
}

fn name<T>(fields: &mut Fields<'_>, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    fields.id(name, parse, || not_an_id(ID_CHARS_MAX))
}

fn read_rule(value: &Value, pointer: &str, mistakes: &mut Vec<Mistake>) -> Option<NamedRule> {
    let mut fields = Fields::of(value, pointer, mistakes);
    let id = fields.maybe("rule_id", |fields| {
        fields.text("rule_id", 0..=ID_CHARS_MAX).map(Box::from)
    })?;
    let rule = Rule::read(&mut fields)?;
    Some(NamedRule { id, rule })
}

fn read_package(fields: &mut Fields<'_>) -> Option<Package> {
    const NOT_NEGATIVE: std::ops::RangeInclusive<f64> = 0.0..=f64::MAX;
    // From absolute zero on, in degrees Celsius.
    const TEMPERATURES: std::ops::RangeInclusive<f64> = -273.15..=f64::MAX;
    let id = name(fields, "package_id", PackageId::parse);
    let weight_kg = fields.number("weight_kg", NOT_NEGATIVE);
    let is_perishable = fields.flag("is_perishable");
    let region = fields.word("region", Region::parse, Region::known);
    let distance_km = fields.number("distance_km", NOT_NEGATIVE);
    let (is_express, is_fragile) = (fields.flag("is_express"), fields.flag("is_fragile"));
    let hazmat_class = fields.maybe("hazmat_class", |fields| fields.whole("hazmat_class", 1..=9));
    let temperature_c = fields.number("temperature_c", TEMPERATURES);
    let delivery_hour = fields.whole("delivery_hour", 0..=23);
    let volume_m3 = fields.number("volume_m3", NOT_NEGATIVE);
    let destination = fields.maybe("destination", |fields| {
        let text = fields.text("destination", 0..=DESTINATION_CHARS_MAX);
        text.map(Box::from)
    });
    Some(Package {
        id: id?,
        weight_kg: weight_kg?,
        is_perishable: is_perishable?,
        region: region?,
        distance_km: distance_km?,
        is_express: is_express?,
        is_fragile: is_fragile?,
        hazmat_class: hazmat_class?,
        temperature_c: temperature_c?,
        delivery_hour: delivery_hour?,
        volume_m3: volume_m3?,
        destination: destination?,
    })
}

/// The top-level object.
struct Whole<'a>(&'a mut Reading);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `drivers` and `packages`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Self(reading) = self;
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                reading.wrong(format!("/{name}"), "This field is duplicated.");
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match name.as_str() {
                "date" => {
                    let json = map.next_value::<Box<RawValue>>()?;
                    let short = json.get().len() <= ELEMENT_BYTES_MAX;
                    let value = short.then(|| json::read(json.get().as_bytes()).ok());
                    // Not a date at all, however large.
                    reading.date(&value.flatten().unwrap_or(Value::Bool(false)));
                }
                "drivers" => {
                    reading.drivers = Some(Vec::new());
                    map.next_value_seed(List {
                        reading,
                        name: "/drivers",
                        take: Reading::driver,
                    })?;
                }
                "packages" => {
                    reading.packages = Some(Vec::new());
                    map.next_value_seed(List {
                        reading,
                        name: "/packages",
                        take: Reading::package,
                    })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A list of which one element is in memory at a time.
struct List<'a> {
    reading: &'a mut Reading,
    name: &'static str,
    take: fn(&mut Reading, usize, &Value),
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.reading.at = self.name;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list at `{}`", self.name)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let mut place = 0;
        // An element is read as raw text first, so later errors are the element's.
        self.reading.at = "";
        while let Some(json) = list.next_element::<Box<RawValue>>()? {
            let pointer = || format!("{}/{place}", self.name);
            if json.get().len() > ELEMENT_BYTES_MAX {
                let detail = format!("It is larger than {ELEMENT_BYTES_MAX} bytes.");
                self.reading.wrong(pointer(), detail);
            } else {
                match json::read(json.get().as_bytes()) {
                    Ok(value) => (self.take)(self.reading, place, &value),
                    Err(Unread::Mistake(Mistake {
                        pointer: inner,
                        detail,
                    })) => self.reading.wrong(pointer() + &inner, detail),
                    // It was skipped as JSON before, which checks less of its texts.
                    Err(unread) => self.reading.wrong(pointer(), unread.to_string()),
                }
            }
            place += 1;
            if self.reading.is_full() {
                return Err(serde::de::Error::custom("there are too many mistakes"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
