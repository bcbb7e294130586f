//! `odyssey certificate`: certificates for trying TLS, and for shops without an authority of their own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use super::output;

/// Browsers refuse certificates that are valid for longer (CA/Browser Forum, 398 days).
const DAYS_MAX: u16 = 397;

#[derive(Debug, Subcommand)]
pub enum Certificate {
    /// Create a self-signed certificate and its key
    ///
    /// Clients must be given the certificate as the authority they trust: `curl --cacert`, `odyssey --ca-file`.
    SelfSigned(SelfSigned),
}

#[derive(Debug, Args)]
pub struct SelfSigned {
    /// Write the certificate to this file, as PEM: `tls.certificate_file` of the server
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Write its key to this file, as PEM: `tls.key_file` of the server
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A name or an address that clients use; may be repeated
    #[arg(long = "host", value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    hosts: Vec<String>,
    /// For how many days it is valid
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=i64::from(DAYS_MAX)))]
    days: u16,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

impl Certificate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::SelfSigned(it) = self;
        for path in [&it.certificate, &it.key] {
            ensure!(
                it.force || !path.exists(),
                "{} exists; --force replaces it",
                path.display()
            );
        }
        let key = KeyPair::generate().context("cannot create a key")?;
        let mut params = CertificateParams::new(it.hosts.clone()).context("--host")?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "Odyssey");
        params.distinguished_name = name;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let midnight = |days: i64| -> anyhow::Result<_> {
            let day = today.checked_add(Span::new().days(days))?;
            Ok(date_time_ymd(
                day.year().into(),
                day.month().try_into()?,
                day.day().try_into()?,
            ))
        };
        // A clock that is a little behind must not refuse it.
        params.not_before = midnight(-1)?;
        params.not_after = midnight(i64::from(it.days) + 1)?;
        let certificate = params
            .self_signed(&key)
            .context("cannot sign the certificate")?;
        write(&it.key, &key.serialize_pem(), 0o600)?;
        write(&it.certificate, &certificate.pem(), 0o644)?;
        output::print(&format!(
            "{} is valid for {} days, for {}\n",
            it.certificate.display(),
            it.days,
            it.hosts.join(", ")
        ))
    }
}

/// Atomic: a server that reads it at the same time sees the old file or the new one.
fn write(path: &Path, pem: &str, mode: u32) -> anyhow::Result<()> {
    let of = || format!("cannot write {}", path.display());
    let mut partial = path.to_owned().into_os_string();
    partial.push(".partial");
    // Of an interrupted run; with its own permissions.
    let _ = std::fs::remove_file(&partial);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)
        .with_context(of)?;
    file.write_all(pem.as_bytes()).with_context(of)?;
    file.sync_all().with_context(of)?;
    std::fs::rename(&partial, path).with_context(of)
}
