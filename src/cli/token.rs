//! `odyssey token`: creates, lists and revokes tokens in a file. A running server reads it again within a second.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::output::{self, Format};
use crate::access::Role;
use crate::access::token::NewToken;
use crate::access::tokens_file::{self, Entry};
use crate::values::config::Text;

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Create a token and print it, once
    ///
    /// The file gets its digest only; it is created if it is missing. Two tokens may have the same name, so that one replaces the
    /// other without a gap: create the new one, hand it out, then revoke the old one by its id.
    New(New),
    /// List the tokens, without the tokens themselves
    List(List),
    /// Revoke tokens, by name or by id
    ///
    /// Browsers that logged in with one are logged out. Exit code 1 if there is none.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub struct New {
    /// What it may be used for; may be repeated: barista, drone, dispatcher, driver, courier-feed, operator, scraper, sender,
    /// recipient-service
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<Role>,
    /// Whose it is, for logs and lists
    #[arg(long)]
    name: String,
    /// For whom it acts: the name of a barista, drone, driver, sender or recipient [default: the name]
    #[arg(long)]
    subject: Option<String>,
    /// When it expires: a time such as 2027-01-31T00:00:00Z, or a duration from now such as 720h [default: never]
    #[arg(long, value_name = "TIME", value_parser = end)]
    not_after: Option<Timestamp>,
    #[command(flatten)]
    file: TokensFile,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    file: TokensFile,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// All tokens with this name
    #[arg(long, required_unless_present = "id", conflicts_with = "id")]
    name: Option<String>,
    /// The token with this id; `odyssey token list` shows it
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    file: TokensFile,
}

#[derive(Debug, Args)]
struct TokensFile {
    /// The file of tokens: `access.tokens_file` of the server
    #[arg(long = "file", value_name = "FILE")]
    path: PathBuf,
}

impl Token {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(),
            Self::List(list) => list.run(),
            Self::Revoke(revoke) => revoke.run(),
        }
    }
}

impl New {
    fn run(self) -> anyhow::Result<()> {
        tokens_file::check_name(&self.name).context("--name")?;
        if let Some(subject) = &self.subject {
            tokens_file::check_name(subject).context("--subject")?;
        }
        if let Some(end) = self.not_after {
            ensure!(end > Timestamp::now(), "--not-after: {end} is over already");
        }
        let token = NewToken::generate().context("the system has no random numbers")?;
        let entry = Entry {
            id: token.id.clone(),
            name: self.name.clone(),
            roles: self.roles.iter().copied().collect(),
            digest: token.digest(),
            subject: self.subject,
            not_after: self.not_after,
        };
        let others = tokens_file::edit(&self.file.path, |entries| {
            let same = entries
                .iter()
                .filter(|known| known.name == entry.name)
                .count();
            entries.push(entry);
            Ok(same)
        })?;
        if std::io::stderr().is_terminal() {
            let others = match others {
                0 => String::new(),
                1 => " Another token has this name.".to_owned(),
                count => format!(" {count} other tokens have this name."),
            };
            let _ = writeln!(
                std::io::stderr(),
                "Token {} of {}. It is printed this once only: keep it secret.{others}",
                token.id,
                output::printable(&self.name)
            );
        }
        output::print(&format!("{}\n", *token.text))
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        const SHOWN: &[&str] = &["id", "name", "roles", "subject", "not_after", "state"];
        let now = Timestamp::now();
        let entries = tokens_file::read(&self.file.path)?;
        let entries: Vec<Value> = entries.iter().map(|entry| shown(entry, now)).collect();
        output::print(&match self.output {
            Format::Table => output::rows(&entries, SHOWN),
            Format::Json => format!("{}\n", json!({"tokens": entries})),
        })
    }
}

fn shown(entry: &Entry, now: Timestamp) -> Value {
    let is_over = entry.not_after.is_some_and(|end| end <= now);
    json!({
        "id": entry.id,
        "name": entry.name,
        "roles": entry.roles.to_string(),
        "subject": entry.subject,
        "not_after": entry.not_after.map(|end| end.to_string()),
        "state": if is_over { "expired" } else { "valid" },
    })
}

impl Revoke {
    fn run(self) -> anyhow::Result<()> {
        let path = &self.file.path;
        ensure!(path.exists(), "there is no file {}", path.display());
        let is_revoked = |entry: &Entry| {
            self.id.as_ref().is_some_and(|id| entry.id == *id)
                || self.name.as_ref().is_some_and(|name| entry.name == *name)
        };
        let revoked = tokens_file::edit(path, |entries| {
            let (revoked, rest): (Vec<_>, Vec<_>) = entries.drain(..).partition(is_revoked);
            *entries = rest;
            ensure!(!revoked.is_empty(), "{} has no such token", path.display());
            Ok(revoked)
        })?;
        let lines = revoked.iter().map(|entry| {
            format!(
                "revoked {} ({})\n",
                entry.id,
                output::printable(&entry.name)
            )
        });
        output::print(&lines.collect::<String>())
    }
}

fn end(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is neither a time such as 2027-01-31T00:00:00Z nor a duration such as 720h"
        )
    };
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let duration = std::time::Duration::read(text).map_err(|_| wrong())?;
    let duration = SignedDuration::try_from(duration).map_err(|_| wrong())?;
    let end = Timestamp::now()
        .checked_add(duration)
        .map_err(|_| wrong())?;
    // Whole seconds: it is read by people.
    Timestamp::from_second(end.as_second()).map_err(|_| wrong())
}
