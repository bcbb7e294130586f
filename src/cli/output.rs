//! What commands print: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs: the server's own answer
    Json,
}

/// Prints to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

/// A line for each of these members of a JSON object, if present.
pub(super) fn members(object: &Value, names: &[&str]) -> String {
    let present = names
        .iter()
        .filter(|name| !object[**name].is_null())
        .map(|name| vec![heading(name).to_owned(), cell(name, &object[*name])]);
    columns(&present.collect::<Vec<_>>())
}

/// A table of these JSON objects with a header.
pub(super) fn rows(objects: &[Value], names: &[&str]) -> String {
    let headings = names.iter().map(|name| heading(name).to_uppercase());
    let mut rows = vec![headings.collect::<Vec<_>>()];
    rows.extend(objects.iter().map(|object| {
        let cells = names.iter().map(|name| cell(name, &object[*name]));
        cells.collect()
    }));
    columns(&rows)
}

/// Names without `_ms`: values are shown with their unit.
fn heading(name: &str) -> &str {
    name.strip_suffix("_ms").unwrap_or(name)
}

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Number(millis) if name.ends_with("_ms") => millis.as_u64().map_or_else(
            || millis.to_string(),
            |millis| format!("{:?}", Duration::from_millis(millis)),
        ),
        value => printable(&value.to_string()),
    }
}

/// Strips control and bidirectional characters: customers choose their names.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        let steers = matches!(letter,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || steers {
            printable.extend(letter.escape_default());
        } else {
            printable.push(letter);
        }
    }
    printable
}

/// Left-aligned, two spaces apart, the last column unpadded.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let width = *width;
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_its_columns_in_line_and_absent_members_left_out() {
        let order = json!({"order_id": "7", "customer": "Ada", "waited_ms": 1500, "barista": null});
        assert_eq!(
            members(&order, &["order_id", "barista", "customer", "waited_ms"]),
            "order_id  7\ncustomer  Ada\nwaited    1.5s\n"
        );
        let addresses = [
            json!({"address": "192.0.2.7", "refused": 100}),
            json!({"address": "2001:db8::/64"}),
        ];
        assert_eq!(
            rows(&addresses, &["address", "refused"]),
            "ADDRESS        REFUSED\n192.0.2.7      100\n2001:db8::/64  -\n"
        );
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        for (name, shown) in [
            ("Zoë 王", "Zoë 王"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}evil", "\\u{202e}evil"),
        ] {
            assert_eq!(printable(name), shown);
        }
    }
}
