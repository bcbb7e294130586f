//! JSON that is written field by field, for the answers of which there are most: serde takes twice as long.

use std::io::Write;

use serde::Serialize;
use uuid::Uuid;

use super::json::Opaque;
use super::time::Moment;

/// A value that writes itself as JSON.
pub trait WriteJson {
    fn write(&self, json: &mut Vec<u8>);
}

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    json: &'a mut Vec<u8>,
    is_empty: bool,
}

/// Writes an object with the fields that `fields` puts into it.
pub fn object(json: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    json.push(b'{');
    fields(&mut Object {
        json,
        is_empty: true,
    });
    json.push(b'}');
}

impl Object<'_> {
    /// `name`: in quotation marks and with its colon, and of characters that need no escape.
    pub fn put(&mut self, name: &'static str, value: &(impl WriteJson + ?Sized)) -> &mut Self {
        debug_assert!(name.starts_with('"') && name.ends_with("\":"), "{name}");
        if !self.is_empty {
            self.json.push(b',');
        }
        self.is_empty = false;
        self.json.extend_from_slice(name.as_bytes());
        value.write(self.json);
        self
    }

    /// As [`Object::put`], if there is a value.
    pub fn put_some(
        &mut self,
        name: &'static str,
        value: Option<&(impl WriteJson + ?Sized)>,
    ) -> &mut Self {
        match value {
            Some(value) => self.put(name, value),
            None => self,
        }
    }
}

impl WriteJson for str {
    fn write(&self, json: &mut Vec<u8>) {
        self.serialize(&mut serde_json::Serializer::new(json))
            .expect("text can be written to memory");
    }
}

impl WriteJson for u64 {
    fn write(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl WriteJson for u32 {
    fn write(&self, json: &mut Vec<u8>) {
        u64::from(*self).write(json);
    }
}

impl WriteJson for bool {
    fn write(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl WriteJson for Uuid {
    fn write(&self, json: &mut Vec<u8>) {
        let mut quoted = [b'"'; uuid::fmt::Hyphenated::LENGTH + 2];
        self.hyphenated().encode_lower(&mut quoted[1..]);
        json.extend_from_slice(&quoted);
    }
}

impl WriteJson for Opaque {
    fn write(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(self.text().as_bytes());
    }
}

impl WriteJson for Moment {
    fn write(&self, json: &mut Vec<u8>) {
        json.push(b'"');
        match self.digits() {
            Some(digits) => json.extend_from_slice(&digits),
            None => write!(json, "{:.6}", self.0).expect("text can be written to memory"),
        }
        json.push(b'"');
    }
}

impl<T: WriteJson> WriteJson for Option<T> {
    fn write(&self, json: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(json),
            None => json.extend_from_slice(b"null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_object_is_the_json_of_its_fields_whatever_text_they_have() {
        let id = Uuid::from_u128(7);
        for second in [-1, 0, 951_868_799, 253_402_207_199] {
            for text in ["", "Ada", "a \"quoted\\\" \u{1}\u{7f}\n name", "Zoë 🥐"] {
                let at = Timestamp::new(second, 0).unwrap();
                let mut written = Vec::new();
                object(&mut written, |outer| {
                    outer
                        .put("\"text\":", text)
                        .put("\"id\":", &id)
                        .put("\"at\":", &Moment(at))
                        .put("\"large\":", &u64::MAX)
                        .put("\"small\":", &0_u32)
                        .put("\"yes\":", &true)
                        .put("\"no\":", &false)
                        .put("\"none\":", &None::<u64>)
                        .put_some("\"some\":", Some(&1_u32))
                        .put_some("\"absent\":", None::<&u32>);
                });
                let expected = json!({
                    "text": text, "id": id, "at": format!("{at:.6}"), "large": u64::MAX, "small": 0,
                    "yes": true, "no": false, "none": null, "some": 1,
                });
                assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
            }
        }
        let mut written = Vec::new();
        object(&mut written, |_| {});
        assert_eq!(written, b"{}");
    }
}
