use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

const MASK: &str = "***";

/// Text that may contain credentials, such as a URL with a password. `Display`, `Debug` and `Serialize` mask them.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl Secret {
    /// The unmasked text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A URL without user, password and parameters; anything else is masked completely.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str(MASK);
        };
        match (rest.rsplit_once('@'), rest.split_once('?')) {
            (None, None) => f.write_str(&self.0),
            (Some((_, place)), None) => write!(f, "{scheme}://{MASK}@{place}"),
            (None, Some((place, _))) => write!(f, "{scheme}://{place}?{MASK}"),
            // Either may belong to a password that is not percent-encoded.
            (Some(_), Some(_)) => write!(f, "{scheme}://{MASK}"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_without_its_credentials() {
        for (text, shown) in [
            ("", ""),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://redis:6379/3", "redis://redis:6379/3"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
            ),
            ("redis://:hunter2@redis:6379/3", "redis://***@redis:6379/3"),
            ("redis://user:hunter2@redis", "redis://***@redis"),
            ("redis://user:hunt/er@2@redis", "redis://***@redis"),
            ("redis://user:hunt?er2@redis", "redis://***"),
            ("redis://user:hunter2@redis?db=3", "redis://***"),
            (
                "unix:///run/redis.sock?pass=hunter2",
                "unix:///run/redis.sock?***",
            ),
            ("unix:///run/redis.sock?pass=hunter@2", "unix://***"),
            ("user:hunter2@redis", "***"),
            ("hunter2", "***"),
        ] {
            let secret = Secret::from(text);
            assert_eq!(secret.to_string(), shown, "{text}");
            let serialized = serde_json::to_string(&secret).unwrap();
            for printed in [format!("{secret:?}"), serialized] {
                assert!(!printed.contains("hunter"), "{text}: {printed}");
            }
            assert_eq!(secret.expose(), text);
        }
    }
}
