//! `simulators day`: draws a day's lists and plays the day, and compares the server's account with what it has
//! acknowledged.

mod book;
mod draw;
mod lists;
mod plan;
mod play;
mod roster;
mod rules;
mod summary;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::summary::Summary;
use self::{
    book::Book,
    draw::{RuleCount, Size},
    lists::Auditor,
    play::Office,
    roster::Roster,
    summary::Audit,
};
use crate::{
    assignments::{Link, Manifest, Stored},
    options::{Output, Pace, StaffDoor, any_seed, duration, share},
    pace::Speed,
    report::Report,
    resend::{Resender, insist, locked, patience_at_the_end, run_id},
    shop::Failure,
};

/// Let drivers deliver a day's packages, and check the plan and every record of it
///
/// Draws the day's drivers, rules and packages, or takes them from a file; sends them and compares what the server stored;
/// asks for plans, several at once, some again, one without waiting for the answer; and checks each against the rules,
/// the cap, all earlier plans, and for being the largest that there is. Then many hands tell how far every package has
/// come, from accepted to its end, some twice, and some of what the server cannot know. A request without an answer, or
/// answered 503, is sent again, so a server that restarts during the run costs nothing but time.
///
/// Ends when the day is over; ctrl-c ends it earlier. In the end the lists by driver, by status and by package must be
/// just what was acknowledged. The lists of that day on the server are replaced. The exit code is 0 only if every request
/// was acknowledged and every check holds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: StaffDoor,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    playing: Playing,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The day's lists.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Lists")]
struct Lists {
    /// Drivers, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    drivers: u32,
    /// Packages, 1 to 1000000; the server takes 32 MiB, which are some 100000
    #[arg(long, value_name = "N", default_value_t = 990, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    packages: u32,
    /// Rules of a driver: few (0..2), many (2..4), or a range from 0..0 to 10..10
    #[arg(long, value_name = "COUNT", default_value = "many")]
    rules: RuleCount,
    /// Take the lists from this file of JSON instead of drawing them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["drivers", "packages", "rules", "draw"])]
    manifest: Option<PathBuf>,
    /// Keep the ids as they are; otherwise each gets a name of the run at its end, so that a server can be played with
    /// again and again
    #[arg(long)]
    keep_ids: bool,
    /// Only draw the lists, and write them to this file as JSON
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// Seed of the random numbers, for a run that can be repeated [default: drawn, and reported]
    #[arg(long, value_name = "NUMBER", default_value_t = any_seed(), hide_default_value = true)]
    seed: u64,
}

/// How the day is played.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Day")]
struct Playing {
    /// The day, such as 2026-11-21 [default: today, as the server has it]
    #[arg(long, value_name = "DATE")]
    date: Option<Date>,
    /// Most packages of a driver on the day, 0 to 10000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    max_per_driver: u32,
    /// Shifts, 1 to 10: the drivers are planned for in so many steps, each with all those before
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    shifts: u32,
    /// Share of packages that fail to be delivered, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    failures: f64,
    /// Share of updates that are sent twice on purpose, 0% to 100%: at once, or both at the same time
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    duplicates: f64,
    /// Hands that update at once, each with a connection of its own, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// How long a request that is not acknowledged is sent again and again, measured, 0s to 24h; 0s is once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
}

impl Lists {
    fn manifest(&self) -> Result<Manifest> {
        let Some(file) = &self.manifest else {
            let size = Size {
                drivers: self.drivers,
                packages: self.packages,
                rules: self.rules,
            };
            return Ok(draw::manifest(size, self.seed));
        };
        let context = || format!("cannot read {}", file.display());
        let text = fs::read(file).with_context(context)?;
        let manifest: Manifest = serde_json::from_slice(&text).with_context(context)?;
        if manifest.drivers.is_empty() {
            bail!("{} has no drivers", file.display());
        }
        Ok(manifest)
    }

    /// The lists to be played, with ids of this run.
    fn roster(&self) -> Result<Roster> {
        let mut manifest = self.manifest()?;
        if !self.keep_ids {
            manifest = roster::renamed(manifest, &run_id()).map_err(anyhow::Error::msg)?;
        }
        Roster::of(manifest).map_err(|why| anyhow!("the lists cannot be played: {why}"))
    }
}

/// Plays the day. None when the lists were only to be drawn.
pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Option<Report>> {
    let lists = &options.lists;
    if let Some(file) = &lists.draw {
        write(file, &lists.manifest()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        return Ok(None);
    }
    let playing = &options.playing;
    let roster = Arc::new(lists.roster()?);
    let mut link = Link::new(options.door.staff_address.clone());
    look_first(&mut link, &roster, playing.date, lists.keep_ids).await?;
    let begun = Instant::now();
    let resender = Resender::new(playing.patience, closing.clone(), lists.seed);
    let (book, mut audit) = put(&mut link, roster, playing, resender).await?;
    let book = Arc::new(Mutex::new(book));
    let date = locked(&book).date;
    let office = Office {
        server: options.door.staff_address.clone(),
        date,
        max_per_driver: playing.max_per_driver,
        shifts: playing.shifts,
        failures: playing.failures,
        duplicates: playing.duplicates,
        concurrency: playing.concurrency,
        seed: lists.seed,
        patience: playing.patience,
        display: options.output.progress,
        closing: closing.clone(),
        book: Arc::clone(&book),
    };
    let mut auditor = Auditor {
        link,
        book: &book,
        patience: playing.patience,
    };
    Box::pin(office.rehearse()).await;
    audit.after_dry_run = Box::pin(auditor.by_driver()).await;
    Box::pin(office.plan()).await;
    let updating = Box::pin(office.update()).await;
    auditor.patience = patience_at_the_end(playing.patience, &closing);
    audit.by_driver = Box::pin(auditor.by_driver()).await;
    audit.by_status = Box::pin(auditor.by_status()).await;
    audit.by_package = Box::pin(auditor.by_package()).await;
    let pace = Pace {
        speed: Speed::REAL_TIME,
        seed: lists.seed,
    };
    let mut report = Report::new("day", &pace, begun.elapsed());
    report.add_day(Summary::of(&locked(&book), &audit, updating));
    Ok(Some(report))
}

/// No retries: a mistyped address is reported at once.
async fn look_first(
    link: &mut Link,
    roster: &Roster,
    date: Option<Date>,
    keep_ids: bool,
) -> Result<()> {
    let failed = |failure: Failure| anyhow!("cannot read GET /manifest beforehand: {failure}");
    let asked = insist(Duration::ZERO, async || link.manifest(date).await);
    asked.await.map_err(failed)?;
    if keep_ids {
        for driver in 0..roster.drivers() {
            let id = roster.driver_id(driver);
            let asked = insist(Duration::ZERO, async || {
                link.list(&[("driver_id", id)], None).await
            });
            let page = asked.await.map_err(failed)?;
            if !page.assignments.is_empty() {
                bail!("{id} has packages already; without --keep-ids that does not matter");
            }
        }
    }
    Ok(())
}

/// Sends the lists and asks for them back.
async fn put(
    link: &mut Link,
    roster: Arc<Roster>,
    playing: &Playing,
    mut resender: Resender,
) -> Result<(Book, Audit)> {
    let today = || Timestamp::now().to_zoned(TimeZone::UTC).date();
    let before = today();
    let sent = link
        .put_manifest(&roster.manifest, playing.date, &mut resender)
        .await;
    let mut book = Book::new(Arc::clone(&roster), playing.date.unwrap_or(before));
    book.tries.add(std::mem::take(&mut resender.tries));
    let Some(stored) = book.sent("PUT /manifest", &sent) else {
        bail!("PUT /manifest: {}", sent.why);
    };
    let mut audit = Audit::default();
    let is_expected = |date| match playing.date {
        Some(asked) => date == asked,
        None => (before..=today()).contains(&date),
    };
    let Stored {
        date,
        drivers,
        packages,
    } = *stored;
    if !is_expected(date) || (drivers, packages) != (roster.drivers(), roster.packages()) {
        let what = format!("PUT /manifest: told {drivers} drivers, {packages} packages, {date}");
        audit.manifest = Some(what);
    }
    book.date = date;
    let asked = insist(playing.patience, async || link.manifest(Some(date)).await);
    let fault = match asked.await {
        Ok(Some(reported)) if reported.date == date => roster.compare(&reported.manifest).err(),
        Ok(Some(reported)) => Some(format!("that of {} was told", reported.date)),
        Ok(None) => Some("it is not known".to_owned()),
        Err(failure) => Some(failure.to_string()),
    };
    let fault = fault.map(|what| format!("GET /manifest: {what}"));
    audit.manifest = audit.manifest.or(fault);
    Ok((book, audit))
}

fn write(file: &Path, manifest: &Manifest) -> Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    serde_json::to_writer(&mut file, manifest)?;
    file.write_all(b"\n")?;
    Ok(file.flush()?)
}
