//! Reads clients' JSON strictly, then field by field, so that all errors are reported at once.
//!
//! All texts that a client sees are here: the parser's own name Rust types.

use std::fmt;
use std::hash::Hasher;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::map::Entry;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use siphasher::sip::SipHasher13;

use super::{id, time};

/// Reported errors at most.
pub const MISTAKES_MAX: usize = 100;
/// Nesting of lists and objects; the parser's own bound is 128.
const DEPTH_MAX: usize = 100;
/// 2^53: from here on not every whole number is a floating-point number.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    pub detail: String,
}

impl Mistake {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Not JSON from this place on; both count from 1.
    Syntax {
        line: usize,
        /// In bytes.
        column: usize,
    },
    /// JSON that is never acceptable.
    Mistake(Mistake),
}

impl From<&serde_json::Error> for Unread {
    fn from(error: &serde_json::Error) -> Self {
        Self::Syntax {
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, column } => {
                write!(f, "It is not JSON: see line {line}, column {column}.")
            }
            Self::Mistake(Mistake { pointer, detail }) => write!(f, "{pointer}: {detail}"),
        }
    }
}

/// Reads a JSON value. Duplicate keys are refused: parsers differ in which value counts. A number without a fraction is an
/// integer: 3.0 is 3.
///
/// # Errors
/// See [`Unread`].
pub fn read(text: &[u8]) -> Result<Value, Unread> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut mistake = None;
    let strict = Strict {
        mistake: &mut mistake,
        depth: 0,
    };
    let read = strict.deserialize(&mut json);
    let read = read.and_then(|value| json.end().map(|()| value));
    read.map_err(|error| mistake.map_or_else(|| Unread::from(&error), Unread::Mistake))
}

/// A digest of the value, independent of its formatting, and the same in every build.
pub fn fingerprint(value: &Value) -> u64 {
    let mut digest = SipHasher13::new();
    // Keys are sorted and numbers normalized.
    digest.write(value.to_string().as_bytes());
    digest.finish()
}

/// A client's JSON value that is passed on without being looked at: compact text, with sorted keys.
#[derive(Debug, Clone)]
pub struct Opaque(Arc<RawValue>);

impl Opaque {
    #[expect(clippy::missing_panics_doc, reason = "a JSON value can be written")]
    pub fn new(value: &Value) -> Self {
        let raw = to_raw_value(value).expect("a JSON value can be written to memory");
        Self(raw.into())
    }

    /// None if it is not JSON.
    pub fn parse(text: &str) -> Option<Self> {
        let raw = RawValue::from_string(text.to_owned()).ok()?;
        Some(Self(raw.into()))
    }

    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Opaque {}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Escapes a key for a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

struct Strict<'a> {
    /// An error other than syntax. Its pointer grows while unwinding.
    mistake: &'a mut Option<Mistake>,
    depth: usize,
}

impl Strict<'_> {
    fn inner(&mut self) -> Strict<'_> {
        Strict {
            mistake: self.mistake,
            depth: self.depth + 1,
        }
    }

    fn refuse<E: serde::de::Error>(&mut self, pointer: String, detail: &str) -> E {
        *self.mistake = Some(Mistake::new(pointer, detail));
        E::custom("refused")
    }

    fn descend<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth < DEPTH_MAX {
            return Ok(());
        }
        let detail = format!("It is nested too deeply: {DEPTH_MAX} levels at most.");
        Err(self.refuse(String::new(), &detail))
    }

    /// Prefixes the pointer of a mistake.
    fn within(&mut self, part: &str) {
        // Not for too deep nesting: the pointer would be very long.
        let located = |mistake: &&mut Mistake| !mistake.pointer.is_empty();
        if let Some(mistake) = self.mistake.as_mut().filter(located) {
            mistake.pointer.insert_str(0, part);
            mistake.pointer.insert(0, '/');
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it is whole, and in bounds"
            )]
            return Ok((number as i64).into());
        }
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut list: S) -> Result<Value, S::Error> {
        self.descend()?;
        let mut values = Vec::new();
        loop {
            match list.next_element_seed(self.inner()) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => return Ok(values.into()),
                Err(error) => {
                    self.within(&values.len().to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Value, M::Error> {
        self.descend()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match object.entry(key) {
                Entry::Occupied(entry) => {
                    let pointer = format!("/{}", escaped(entry.key()));
                    return Err(self.refuse(pointer, "This field is duplicated."));
                }
                Entry::Vacant(entry) => match map.next_value_seed(self.inner()) {
                    Ok(value) => {
                        entry.insert(value);
                    }
                    Err(error) => {
                        self.within(&escaped(entry.key()));
                        return Err(error);
                    }
                },
            }
        }
        Ok(object.into())
    }
}

pub trait Read: Sized {
    /// None after an error, which is in `fields`.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// # Errors
/// All mistakes, up to [`MISTAKES_MAX`].
pub fn get<T: Read>(value: &Value) -> Result<T, Vec<Mistake>> {
    all(value, T::read)
}

/// # Errors
/// As [`get`].
pub fn all<T>(
    value: &Value,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Result<T, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let read = read(&mut Fields::of(value, "", &mut mistakes));
    read.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

/// All mistakes in one line.
pub fn joined(mistakes: &[Mistake]) -> String {
    let each = mistakes.iter().map(|mistake| match &*mistake.pointer {
        "" => mistake.detail.clone(),
        pointer => format!("{pointer}: {}", mistake.detail),
    });
    each.collect::<Vec<_>>().join(" ")
}

/// Reads the fields of one object and collects mistakes.
#[derive(Debug)]
pub struct Fields<'a> {
    /// `None` with a mistake if it is not an object.
    object: Option<&'a Map<String, Value>>,
    pointer: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Fields<'a> {
    /// The fields of the value at `pointer`.
    pub fn of(value: &'a Value, pointer: &'a str, mistakes: &'a mut Vec<Mistake>) -> Self {
        let mut fields = Self {
            object: value.as_object(),
            pointer,
            mistakes,
        };
        if fields.object.is_none() {
            fields.wrong::<()>("", "It must be an object.");
        }
        fields
    }

    pub fn mistakes(&mut self) -> &mut Vec<Mistake> {
        self.mistakes
    }

    /// Adds a mistake in this field; an empty name is the object itself.
    pub fn wrong<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        if self.mistakes.len() < MISTAKES_MAX {
            let separator = if name.is_empty() { "" } else { "/" };
            let pointer = format!("{}{separator}{name}", self.pointer);
            self.mistakes.push(Mistake::new(pointer, detail));
        }
        None
    }

    pub fn is_object(&self) -> bool {
        self.object.is_some()
    }

    /// Whether the field is present, also as null.
    pub fn has(&self, name: &str) -> bool {
        self.object.is_some_and(|object| object.contains_key(name))
    }

    /// An optional or null field.
    pub fn look(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| !value.is_null())
    }

    /// A required field.
    pub fn get(&mut self, name: &str) -> Option<&'a Value> {
        let object = self.object?;
        match object.get(name).filter(|value| !value.is_null()) {
            Some(value) => Some(value),
            None => self.wrong(name, "This field is missing."),
        }
    }

    /// An optional field, read by `read`.
    pub fn maybe<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.look(name) {
            None => Some(None),
            Some(_) => read(self).map(Some),
        }
    }

    /// The fields of an object in this field; without it, of an empty one.
    pub fn object<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let none = Value::Object(Map::new());
        let pointer = format!("{}/{name}", self.pointer);
        let value = self.look(name).unwrap_or(&none);
        read(&mut Fields::of(value, &pointer, self.mistakes))
    }

    /// A text with bounds on its length in characters.
    pub fn text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<&'a str> {
        let text = self.get(name)?.as_str();
        let text = text.filter(|text| chars.contains(&text.chars().count()));
        if text.is_some() {
            return text;
        }
        let (least, most) = chars.into_inner();
        self.wrong(
            name,
            format!("It must be a text of {least} to {most} characters."),
        )
    }

    /// An id: a text that `parse` accepts, or a whole number, read as its decimal text; else the mistake is `detail`.
    pub fn id<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        detail: impl FnOnce() -> String,
    ) -> Option<T> {
        let id = text_of_id(self.get(name)?).and_then(|text| parse(&text));
        if id.is_some() {
            return id;
        }
        self.wrong(name, detail())
    }

    /// A text that `parse` accepts; `known` lists them.
    pub fn word<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        known: impl FnOnce() -> String,
    ) -> Option<T> {
        let word = self.get(name)?.as_str().and_then(parse);
        if word.is_some() {
            return word;
        }
        self.wrong(name, known())
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => self.wrong(name, "It must be true or false."),
        }
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        match self.get(name)?.as_f64() {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) => {
                let least = range.start();
                self.wrong(name, format!("It must be at least {least}."))
            }
            None => self.wrong(name, "It must be a number."),
        }
    }

    pub fn whole<T: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<T> {
        let number = self.get(name)?.as_u64();
        let number = number.filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_some() {
            return number;
        }
        let (least, most) = range.into_inner();
        self.wrong(
            name,
            format!("It must be a whole number from {least} to {most}."),
        )
    }

    pub fn list(&mut self, name: &str) -> Option<&'a [Value]> {
        match self.get(name)? {
            Value::Array(list) => Some(list),
            _ => self.wrong(name, "It must be a list."),
        }
    }

    /// A time: RFC 3339, or if `or_seconds` a number of seconds since 1970.
    pub fn time(&mut self, name: &str, or_seconds: bool) -> Option<Timestamp> {
        let at = match self.get(name)? {
            Value::String(text) => time::parse(text),
            Value::Number(number) if or_seconds => number.as_f64().and_then(time::from_seconds),
            _ => None,
        };
        if at.is_some() {
            return at;
        }
        let seconds = if or_seconds {
            ", or in seconds since 1970"
        } else {
            ""
        };
        let form = "A time is written as in RFC 3339, such as 2142-05-01T12:00:00Z";
        self.wrong(name, format!("{form}{seconds}."))
    }
}

pub fn text_of_id(value: &Value) -> Option<std::borrow::Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// The detail for an invalid id.
pub fn not_an_id(chars_max: usize) -> String {
    let bytes_max = id::bytes_max(chars_max);
    format!(
        "An id is a text of 1 to {chars_max} characters and at most {bytes_max} bytes of UTF-8, no control characters, or a \
         whole number."
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
        for (text, pointer) in [
            (r#"{"a": 1, "a": 1}"#, "/a"),
            (r#"{"a": {"b": 1, "c": 2, "b": 3}}"#, "/a/b"),
            (r#"[1, {"x": [{"y": 1, "y": 2}]}]"#, "/1/x/0/y"),
            (r#"{"a/b~": 1, "a/b~": 2}"#, "/a~1b~0"),
            // The same key, differently escaped.
            (r#"{"a": 1, "\u0061": 2}"#, "/a"),
        ] {
            let expected = Mistake::new(pointer, "This field is duplicated.");
            assert_eq!(
                read(text.as_bytes()),
                Err(Unread::Mistake(expected)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_json_is_named_by_its_place() {
        for (text, line, column) in [
            ("", 1, 0),
            ("{\n  \"a\": x}", 2, 8),
            ("{} {}", 1, 4),
            ("{\"a\": 1e999}", 1, 11),
        ] {
            let unread = Unread::Syntax { line, column };
            assert_eq!(read(text.as_bytes()), Err(unread), "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(deep(DEPTH_MAX).as_bytes()).is_ok());
        for levels in [DEPTH_MAX + 1, 127, 128, 10_000] {
            let refused = read(deep(levels).as_bytes()).unwrap_err();
            assert!(matches!(refused, Unread::Mistake(_)), "{levels}: {refused}");
        }
    }

    #[test]
    fn the_same_value_has_the_same_fingerprint_however_it_is_written() {
        let of = |text: &str| fingerprint(&read(text.as_bytes()).unwrap());
        let value = of(r#"{"a": 1, "b": [true, null], "c": "é"}"#);
        for same in [
            r#"{"a":1,"b":[true,null],"c":"é"}"#,
            r#"{ "c": "\u00e9", "b": [ true, null ], "a": 1.0 }"#,
            r#"{"a": 10e-1, "b": [true, null], "c": "é"}"#,
        ] {
            assert_eq!(of(same), value, "{same}");
        }
        for other in [
            "{}",
            r#"{"a": "1", "b": [true, null], "c": "é"}"#,
            r#"{"a": 1, "b": [null, true], "c": "é"}"#,
            r#"{"a": 1.5, "b": [true, null], "c": "é"}"#,
        ] {
            assert_ne!(of(other), value, "{other}");
        }
    }

    #[test]
    fn numbers_without_a_fraction_are_integers() {
        for (text, number) in [
            ("3.0", json!(3)),
            ("-0.0", json!(0)),
            ("1e3", json!(1000)),
            ("1.5", json!(1.5)),
            ("1e30", json!(1e30)),
            ("18446744073709551615", json!(u64::MAX)),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(number), "{text}");
        }
    }
}
