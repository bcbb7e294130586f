//! Options that several subcommands share.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use crate::{connection::Address, pace::Speed};

/// The environment variable of a token.
const TOKEN: &str = "ODYSSEY_TOKEN";

/// Where customers order.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shop")]
pub(crate) struct CustomersDoor {
    /// Base URL of the customers' side, http only
    #[arg(
        long = "customers",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub(crate) customers_address: Address,
}

/// Where staff works.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shop")]
pub(crate) struct StaffDoor {
    /// Base URL of the staff's side, http only
    #[arg(
        long = "staff",
        value_name = "URL",
        default_value = "http://127.0.0.1:8001"
    )]
    pub(crate) staff_address: Address,
}

/// What a locked server is shown.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shop")]
pub(crate) struct Credential {
    /// File with the token of all requests except customers' orders [environment: the token itself in `ODYSSEY_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Credential {
    /// This address, with the token in its requests if there is one.
    pub(crate) fn added_to(&self, address: &Address) -> Result<Address> {
        let address = address.clone();
        let (token, source) = match &self.token_file {
            Some(file) => {
                let source = format!("--token-file {}", file.display());
                let read = fs::read_to_string(file);
                (
                    read.with_context(|| format!("cannot read {source}"))?,
                    source,
                )
            }
            None => match std::env::var(TOKEN) {
                Ok(token) if !token.trim().is_empty() => (token, TOKEN.to_owned()),
                _ => return Ok(address),
            },
        };
        let locked = address.with_token(token.trim());
        // Not what is there: it may be another secret.
        locked.ok_or_else(|| anyhow!("{source} is not a token"))
    }
}

/// How fast time passes and where chance comes from.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Pace")]
pub(crate) struct Pace {
    /// Simulated seconds per measured second, 0.01 to 100000
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    pub(crate) speed: Speed,
    /// Seed of the random numbers, for a run that can be repeated [default: drawn, and reported]
    #[arg(long, value_name = "NUMBER", default_value_t = any_seed(), hide_default_value = true)]
    pub(crate) seed: u64,
}

/// What is shown while it runs and when it ends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// What to show on standard error during the run
    #[arg(long, value_enum, default_value_t = Display::Auto)]
    pub(crate) progress: Display,
    /// Write a picture of the waiting times to this HTML file, which needs nothing else to be viewed
    #[arg(long, value_name = "FILE", conflicts_with = "report_dir")]
    report: Option<PathBuf>,
    /// Write it to this directory instead, as SUBCOMMAND.html; the directory is made if missing
    #[arg(long, value_name = "DIR")]
    report_dir: Option<PathBuf>,
}

impl Output {
    /// The file to draw to, if one was asked for, with its directory made.
    /// Done before the run, so that a long one does not end in a surprise.
    pub(crate) fn prepare_picture(&self, subcommand: &str) -> Result<Option<PathBuf>> {
        let file = match (&self.report, &self.report_dir) {
            (Some(file), _) => file.clone(),
            (None, Some(directory)) => {
                fs::create_dir_all(directory)
                    .with_context(|| format!("cannot make {}", directory.display()))?;
                directory.join(format!("{subcommand}.html"))
            }
            (None, None) => return Ok(None),
        };
        File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Some(file))
    }
}

/// Form of the final report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What is shown during the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Display {
    /// A live line on a terminal, plain lines otherwise.
    Auto,
    /// A line every 5 seconds.
    Plain,
    /// Nothing.
    None,
}

impl Pace {
    /// Of a run without a speed.
    pub(crate) fn real_time(seed: u64) -> Self {
        Self {
            speed: Speed::REAL_TIME,
            seed,
        }
    }
}

/// A seed for who names none: short enough to be typed again.
pub(crate) fn any_seed() -> u64 {
    fastrand::u64(..=999_999)
}

const DURATION_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Reads a duration such as `500ms`, `30s` or `1h30m`; zero to 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<SignedDuration>() {
        Ok(span) if !span.is_negative() && span <= DURATION_MAX => Ok(span.unsigned_abs()),
        Ok(_) => Err("expected a duration from 0s to 24h".to_owned()),
        Err(_) => Err("expected a duration such as 500ms, 30s, 2m or 1h30m".to_owned()),
    }
}

/// Reads a share such as `5%` or `0.05`; none to all.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|share| share / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0% to 100%, such as 5% or 0.05".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_without_a_token_is_named_and_its_content_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bo.token");
        let credential = Credential {
            token_file: Some(file.clone()),
        };
        let address: Address = "http://shop".parse().unwrap();
        let added = || credential.added_to(&address);
        let missing = format!("{:#}", added().unwrap_err());
        assert!(missing.contains("cannot read --token-file"), "{missing}");
        for content in ["", "\n", "two secrets"] {
            fs::write(&file, content).unwrap();
            let wrong = format!("{:#}", added().unwrap_err());
            assert!(wrong.ends_with("bo.token is not a token"), "{wrong}");
        }
        fs::write(&file, "ody_secret\n").unwrap();
        assert_eq!(
            Some(added().unwrap()),
            address.clone().with_token("ody_secret")
        );
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "-1s", "25h", "a while"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_read_as_percentages_or_fractions() {
        for (text, expected) in [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("100 %", 1.0)] {
            let read = share(text).unwrap();
            assert!((read - expected).abs() < 1e-12, "{text}");
        }
        for text in ["", "5", "101%", "-1%", "NaN", "%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
