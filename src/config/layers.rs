//! Merges the layers of the configuration: defaults, file, environment.
//!
//! The defaults have every key, and so define the keys and their types, which the environment's text is parsed as. A key
//! `x_file` next to a key `x` names a file with `x`, a secret whose value is never printed.

use std::ffi::OsString;
use std::path::Path;

use toml::{Table, Value};

use super::{ConfigError, DEFAULTS, wrong};
use crate::values::secret::Secret;

/// The prefix of environment variables that are keys.
const PREFIX: &str = "odyssey_";
/// The suffix of a key that names a secret's file.
const FILE: &str = "_file";
/// The least similarity of a suggested key (Jaro-Winkler, 0 to 1).
const SIMILAR: f64 = 0.85;

/// The merged layers.
#[derive(Debug)]
pub(super) struct Layers {
    defaults: Table,
    merged: Table,
    /// Environment variables with our prefix that name no key.
    pub(super) passed_over: Vec<String>,
}

impl Layers {
    pub(super) fn new() -> Self {
        let defaults: Table = DEFAULTS.parse().expect("config.default.toml is TOML");
        Self {
            merged: defaults.clone(),
            defaults,
            passed_over: Vec::new(),
        }
    }

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let layer = read(path)?;
        for (key, value) in leaves(&layer) {
            let value = self.checked(&key, value)?;
            // A section without keys has no effect.
            if !value.is_table() {
                self.set(&key, value);
            }
        }
        // A key in a higher layer wins over its file in a lower one; in the same layer the file wins.
        self.forget_files(|key| find(&layer, key).is_some());
        Ok(())
    }

    pub(super) fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        let mut said = Vec::new();
        for (variable, value) in variables {
            let variable = variable.to_string_lossy().into_owned();
            let name = variable.to_lowercase();
            let Some(name) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let top_level = self
                .defaults
                .get(name)
                .is_some_and(|value| !value.is_table());
            if !name.contains("__") && !top_level {
                self.passed_over.push(variable);
                continue;
            }
            let key = name.replace("__", ".");
            let value = self.read_as_its_kind(&key, value)?;
            // An empty file name is ignored.
            if !(key.ends_with(FILE) && value.as_str() == Some("")) {
                said.push(key.clone());
            }
            self.set(&key, value);
        }
        self.passed_over.sort();
        self.forget_files(|key| said.iter().any(|said| said == key));
        Ok(())
    }

    /// The merged table, with the contents of the secrets' files.
    pub(super) fn finish(&mut self) -> Result<Table, ConfigError> {
        for key in self.keys() {
            let file = format!("{key}{FILE}");
            let Some(Value::String(path)) = find(&self.merged, &file) else {
                continue;
            };
            if path.is_empty() {
                continue;
            }
            let content = std::fs::read_to_string(path).map_err(|error| {
                self.with_value(wrong(&file, &format!("it cannot be read: {error}")))
            })?;
            let content = content.trim_end_matches(['\r', '\n']);
            let value = Value::String(content.to_owned());
            self.set(&key, value);
        }
        Ok(self.merged.clone())
    }

    /// Adds the wrong value to an error.
    pub(super) fn with_value(&self, error: ConfigError) -> ConfigError {
        let ConfigError::Key { key, detail } = error else {
            return error;
        };
        // An element of a list, or part of a value.
        let mut key = key.as_str();
        while find(&self.defaults, key).is_none() {
            let Some(end) = key.rfind(['.', '[']) else {
                break;
            };
            key = &key[..end];
        }
        let detail = match find(&self.merged, key) {
            Some(Value::Table(_)) | None => detail,
            Some(value) => self.refused(key, value, &detail),
        };
        wrong(key, &detail)
    }

    /// The text for a wrong value, unless `detail` has it already.
    fn refused(&self, key: &str, value: &Value, detail: &str) -> String {
        let value = match value {
            _ if self.is_secret(key) => Secret::from(value.as_str().unwrap_or("?")).to_string(),
            Value::String(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        if detail.starts_with(&value) {
            detail.to_owned()
        } else {
            format!("{value} is not accepted: {detail}")
        }
    }

    fn is_secret(&self, key: &str) -> bool {
        find(&self.defaults, &format!("{key}{FILE}")).is_some()
    }

    /// A value of a file, which must have its key's type.
    fn checked(&self, key: &str, value: &Value) -> Result<Value, ConfigError> {
        let default = self.default(key)?;
        let texts = |values: &[Value]| values.iter().all(Value::is_str);
        let fits = match (default, value) {
            (Value::Array(_), Value::Array(values)) => texts(values),
            (Value::String(word), Value::Integer(_)) => word == "auto",
            _ => default.same_type(value),
        };
        if fits {
            return Ok(value.clone());
        }
        Err(wrong(key, &self.refused(key, value, kind(default))))
    }

    /// A value of the environment, parsed as its key's type.
    fn read_as_its_kind(&self, key: &str, value: OsString) -> Result<Value, ConfigError> {
        let default = self.default(key)?;
        let Ok(text) = value.into_string() else {
            return Err(wrong(key, "it is not text in UTF-8"));
        };
        let read = match default {
            Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
            Value::Boolean(_) => text.trim().to_lowercase().parse().ok().map(Value::Boolean),
            Value::Array(_) => {
                let items = text.split(',').map(str::trim);
                // An empty variable is an empty list.
                let items = items.filter(|item| !item.is_empty());
                Some(Value::Array(items.map(Value::from).collect()))
            }
            Value::String(_) => Some(Value::String(text.clone())),
            Value::Table(_) | Value::Float(_) | Value::Datetime(_) => None,
        };
        read.ok_or_else(|| {
            let value = Value::String(text);
            wrong(key, &self.refused(key, &value, kind(default)))
        })
    }

    fn default(&self, key: &str) -> Result<&Value, ConfigError> {
        find(&self.defaults, key).ok_or_else(|| {
            let similarity = |known: &str| strsim::jaro_winkler(key, known);
            let best = self
                .keys()
                .into_iter()
                .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
            let hint = match best.filter(|known| similarity(known) >= SIMILAR) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "`odyssey config --defaults` lists all keys".to_owned(),
            };
            wrong(key, &format!("there is no such key; {hint}"))
        })
    }

    fn keys(&self) -> Vec<String> {
        let keys = leaves(&self.defaults).into_iter();
        keys.map(|(key, _)| key).collect()
    }

    fn set(&mut self, key: &str, value: Value) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let table = if section.is_empty() {
            Some(&mut self.merged)
        } else {
            self.merged.get_mut(section).and_then(Value::as_table_mut)
        };
        if let Some(table) = table {
            table.insert(name.to_owned(), value);
        }
    }

    /// A layer with a secret but no file for it overrides a lower layer's file.
    fn forget_files(&mut self, is_said: impl Fn(&str) -> bool) {
        for key in self.keys() {
            let file = format!("{key}{FILE}");
            if find(&self.defaults, &file).is_some() && is_said(&key) && !is_said(&file) {
                self.set(&file, Value::String(String::new()));
            }
        }
    }
}

/// The required form of a value that replaces this default.
fn kind(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "it must be a whole number, without quotes",
        Value::Boolean(_) => "it must be true or false, without quotes",
        Value::Array(_) => {
            "it must be a list of texts such as [\"a\", \"b\"]; in the environment: a,b"
        }
        Value::Table(_) => "it is a section: its keys follow a line such as [orders]",
        _ => "it must be text in quotes",
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        file: file.clone(),
        detail: if error.kind() == std::io::ErrorKind::NotFound {
            "there is no such file".to_owned()
        } else {
            error.to_string()
        },
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start)];
        ConfigError::Malformed {
            file,
            line: before.matches('\n').count() + 1,
            detail: error.message().replace('\n', "; "),
        }
    })
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => find(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// All keys, with dots, and their values.
pub(super) fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) if !section.is_empty() => {
                let inside = self::leaves(section).into_iter();
                leaves.extend(inside.map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => leaves.push((name.clone(), value)),
        }
    }
    leaves
}
