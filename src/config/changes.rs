//! The keys that differ between two configurations, and the environment variables that were used.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Config;
use super::layers::leaves;

impl Config {
    /// The keys whose values differ in `new`, with dots, sorted.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let (old_keys, new_keys) = (self.by_key(), new.by_key());
        let keys = new_keys
            .iter()
            .filter(|(key, value)| old_keys.get(*key) != Some(value));
        let mut keys: Vec<String> = keys.map(|(key, _)| key.clone()).collect();
        // Serialized masked, so they need a comparison of their own.
        for (key, differs) in [
            ("redis.url", self.redis.url != new.redis.url),
            (
                "redis.sentinels",
                self.redis.sentinels != new.redis.sentinels,
            ),
        ] {
            if differs && !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
        keys.sort();
        keys
    }

    /// The keys that differ from the defaults, with dots, and their values; `***` for credentials.
    pub fn not_default(&self) -> serde_json::Map<String, serde_json::Value> {
        let values = self.by_key();
        let named = Self::defaults().changes(self).into_iter();
        let of = |key: String| {
            let value = serde_json::to_value(values.get(&key)).unwrap_or_default();
            (key, value)
        };
        named.map(of).collect()
    }

    /// The names of the environment variables that are keys; values may be secrets.
    pub fn variables(&self) -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let ours = |name: &String| name.starts_with("ODYSSEY_") && !self.passed_over.contains(name);
        let mut names: Vec<String> = names.filter(ours).collect();
        names.sort();
        names
    }

    fn by_key(&self) -> BTreeMap<String, Value> {
        let tree = Table::try_from(self).unwrap_or_default();
        let keys = leaves(&tree).into_iter();
        keys.map(|(key, value)| (key, value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn changes_are_named_by_their_keys() {
        let old = Config::defaults();
        assert_eq!(old.changes(&old.clone()), Vec::<String>::new());
        let mut new = old.clone();
        "debug".clone_into(&mut new.log.level);
        new.orders.lease = Duration::from_secs(7);
        new.flood.exempt = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(
            old.changes(&new),
            ["flood.exempt", "log.level", "orders.lease"]
        );
        new.redis.url = "redis://:secret@localhost".into();
        let shown = new.not_default();
        let keys: Vec<_> = shown.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["flood.exempt", "log.level", "orders.lease", "redis.url"]
        );
        assert_eq!(shown["orders.lease"], "7s");
        assert!(!format!("{shown:?}").contains("secret"), "{shown:?}");
    }
}
