//! Reading a manifest as it arrives: one driver and one package at a time. All that is wrong is told, with its place, up to
//! some number.

use std::collections::HashSet;
use std::fmt;
use std::io;

use jiff::civil::Date;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::model::{
    DESTINATION_CHARS_MAX, Driver, DriverId, ID_CHARS_MAX, Manifest, NamedRule, Package, PackageId,
    Region, parse_day,
};
use super::super::rules::{Params, Rule, Wrong};
use crate::http::Problem;
use crate::http::problem::FieldError;

/// Mistakes that are told; what comes after them is not looked at.
const MISTAKES_MAX: usize = 100;

/// The largest driver or package, in bytes of JSON: a driver of a thousand rules. As a tree of values it takes a hundred times
/// as much memory.
const ELEMENT_BYTES_MAX: usize = 128 << 10;

/// A manifest that was sent: its day, if it names one, and its lists.
pub(super) type Sent = (Option<Date>, Manifest);

/// Reads a manifest.
///
/// # Errors
/// 400 if it is not JSON, 422 with pointers if something in it is not acceptable.
pub(super) fn read(json: &mut dyn io::Read) -> Result<Sent, Problem> {
    let mut reading = Reading::default();
    // The parser asks for single bytes.
    let json = io::BufReader::new(json);
    let mut deserializer = serde_json::Deserializer::from_reader(json);
    let read = Whole(&mut reading).deserialize(&mut deserializer);
    if let Err(error) = read.and_then(|()| deserializer.end()) {
        // Too many mistakes end the reading, too; they are what is told.
        if !reading.is_full() {
            return Err(if error.is_data() {
                Problem::invalid(vec![mistake("", format!("{error}."))])
            } else {
                Problem::unreadable(format!("The body is not JSON: {error}."))
            });
        }
    }
    reading.end()
}

fn mistake(pointer: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError {
        pointer: Some(pointer.into()),
        parameter: None,
        detail: detail.into(),
    }
}

/// What was read so far, and what is wrong with it.
#[derive(Default)]
struct Reading {
    date: Option<Date>,
    drivers: Option<Vec<Driver>>,
    packages: Option<Vec<Package>>,
    driver_names: HashSet<DriverId>,
    package_names: HashSet<PackageId>,
    mistakes: Vec<FieldError>,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.mistakes.len() >= MISTAKES_MAX
    }

    fn wrong(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if !self.is_full() {
            self.mistakes.push(mistake(pointer, detail));
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
            return Err(Problem::invalid(self.mistakes));
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
            _ => self.wrong(
                "/date",
                "A date is written as in RFC 3339, such as 2142-05-01.",
            ),
        }
    }

    fn driver(&mut self, place: usize, value: &Value) {
        let pointer = format!("/drivers/{place}");
        let mut fields = Fields::of(value, &pointer, self);
        let id = fields.name("driver_id", DriverId::parse);
        let rules = match fields.get("rules") {
            Some(Value::Array(rules)) => Some(rules),
            Some(_) => fields.wrong("rules", "It must be a list."),
            None => None,
        };
        let rules = rules.map(|rules| {
            let rules = rules.iter().enumerate();
            let pointer = |place| format!("{pointer}/rules/{place}");
            rules
                .filter_map(|(place, rule)| read_rule(rule, &pointer(place), fields.reading))
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
        let Some(package) = read_package(&mut Fields::of(value, &pointer, self)) else {
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

fn read_rule(value: &Value, pointer: &str, reading: &mut Reading) -> Option<NamedRule> {
    let mut fields = Fields::of(value, pointer, reading);
    let id = match fields.look("rule_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id.chars().count() <= ID_CHARS_MAX => Some(id.as_str().into()),
        Some(_) => {
            let detail = format!("It must be a text of at most {ID_CHARS_MAX} characters.");
            return fields.wrong("rule_id", detail);
        }
    };
    let Some(code) = fields.get("code")?.as_str() else {
        return fields.wrong("code", "It must be a text.");
    };
    let none = Params::new();
    let params = match fields.look("params") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(params)) => params,
        Some(_) => return fields.wrong("params", "It must be an object."),
    };
    match Rule::read(code, params) {
        Some(Ok(rule)) => Some(NamedRule { id, rule }),
        Some(Err(Wrong { param, detail })) => fields.wrong(&format!("params/{param}"), detail),
        None => {
            let known = Rule::CODES.join(", ");
            fields.wrong(
                "code",
                format!("There is no rule {code:?}. The codes are {known}."),
            )
        }
    }
}

fn read_package(fields: &mut Fields<'_>) -> Option<Package> {
    const NOT_NEGATIVE: std::ops::RangeInclusive<f64> = 0.0..=f64::MAX;
    // Degrees Celsius from absolute zero on.
    const TEMPERATURES: std::ops::RangeInclusive<f64> = -273.15..=f64::MAX;
    let id = fields.name("package_id", PackageId::parse);
    let weight_kg = fields.number("weight_kg", NOT_NEGATIVE);
    let is_perishable = fields.flag("is_perishable");
    let region = fields.region("region");
    let distance_km = fields.number("distance_km", NOT_NEGATIVE);
    let (is_express, is_fragile) = (fields.flag("is_express"), fields.flag("is_fragile"));
    let hazmat_class = match fields.look("hazmat_class") {
        None | Some(Value::Null) => Some(None),
        Some(_) => fields.whole("hazmat_class", 1..=9).map(Some),
    };
    let temperature_c = fields.number("temperature_c", TEMPERATURES);
    let delivery_hour = fields.whole("delivery_hour", 0..=23);
    let volume_m3 = fields.number("volume_m3", NOT_NEGATIVE);
    let destination = match fields.look("destination") {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) if text.chars().count() <= DESTINATION_CHARS_MAX => {
            Some(Some(text.as_str().into()))
        }
        Some(_) => {
            let detail =
                format!("It must be a text of at most {DESTINATION_CHARS_MAX} characters.");
            fields.wrong("destination", detail)
        }
    };
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

/// Reads the fields of one object, and tells what is wrong with them.
struct Fields<'a> {
    /// Nothing if it is no object, which was told.
    object: Option<&'a Map<String, Value>>,
    pointer: &'a str,
    reading: &'a mut Reading,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, pointer: &'a str, reading: &'a mut Reading) -> Self {
        if !value.is_object() {
            reading.wrong(pointer, "It must be an object.");
        }
        Self {
            object: value.as_object(),
            pointer,
            reading,
        }
    }

    fn wrong<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        let pointer = format!("{}/{name}", self.pointer);
        self.reading.wrong(pointer, detail);
        None
    }

    /// A field that may be missing.
    fn look(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name)
    }

    /// A field that must be there.
    fn get(&mut self, name: &str) -> Option<&'a Value> {
        let value = self.object?.get(name);
        if value.is_none() {
            return self.wrong(name, "This field is missing.");
        }
        value
    }

    fn name<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let parsed = self.get(name)?.as_str().and_then(parse);
        if parsed.is_some() {
            return parsed;
        }
        let detail =
            format!("It must be a text of 1 to {ID_CHARS_MAX} characters, no control characters.");
        self.wrong(name, detail)
    }

    fn number(&mut self, name: &str, range: std::ops::RangeInclusive<f64>) -> Option<f64> {
        match self.get(name)?.as_f64() {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) => {
                let least = range.start();
                self.wrong(name, format!("It must be at least {least}."))
            }
            None => self.wrong(name, "It must be a number."),
        }
    }

    fn whole(&mut self, name: &str, range: std::ops::RangeInclusive<u8>) -> Option<u8> {
        let number = self
            .get(name)?
            .as_u64()
            .and_then(|number| u8::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_some() {
            return number;
        }
        let (least, most) = (range.start(), range.end());
        self.wrong(
            name,
            format!("It must be a whole number from {least} to {most}."),
        )
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => self.wrong(name, "It must be true or false."),
        }
    }

    fn region(&mut self, name: &str) -> Option<Region> {
        let region = self.get(name)?.as_str().and_then(Region::parse);
        if region.is_some() {
            return region;
        }
        let known = Region::ALL.map(Region::as_str).join(", ");
        self.wrong(name, format!("The regions are {known}."))
    }
}

/// The object around everything.
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
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "date" => {
                    let json = map.next_value::<Box<RawValue>>()?;
                    let short = json.get().len() <= ELEMENT_BYTES_MAX;
                    let value = short.then(|| serde_json::from_str(json.get()).ok());
                    // What is no date at all, however large.
                    reading.date(&value.flatten().unwrap_or(Value::Bool(false)));
                }
                "drivers" if reading.drivers.is_some() => {
                    reading.wrong("/drivers", "This list is there twice.");
                    map.next_value::<IgnoredAny>()?;
                }
                "packages" if reading.packages.is_some() => {
                    reading.wrong("/packages", "This list is there twice.");
                    map.next_value::<IgnoredAny>()?;
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
                    let take = Reading::package;
                    map.next_value_seed(List {
                        reading,
                        name: "/packages",
                        take,
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
        while let Some(json) = list.next_element::<Box<RawValue>>()? {
            let pointer = || format!("{}/{place}", self.name);
            if json.get().len() > ELEMENT_BYTES_MAX {
                let detail = format!("It is larger than {ELEMENT_BYTES_MAX} bytes.");
                self.reading.wrong(pointer(), detail);
            } else {
                // It was read as JSON before; what is left is that it is nested too deeply.
                match serde_json::from_str(json.get()) {
                    Ok(value) => (self.take)(self.reading, place, &value),
                    Err(error) => self.reading.wrong(pointer(), format!("{error}.")),
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
