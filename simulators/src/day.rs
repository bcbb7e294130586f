//! `simulators day`: draws a day's lists and plays the day, and compares the server's account with what it has
//! acknowledged.

mod book;
mod draw;
mod lists;
mod play;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use hyper::Method;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::{
    book::{
        ACKNOWLEDGED, ANSWERS, ASSIGN, BY_DRIVER, BY_PACKAGE, BY_STATUS, Book, DRY_RUN, LEFT,
        PLANS, REFUSALS, REPEATED, UPDATE,
    },
    draw::RuleCount,
    lists::Auditor,
    play::Office,
};
use crate::{
    assignments::{Manifest, Model, Page, Reported, Status, Stored, accepted, model::ASPECTS},
    audit::Check,
    client::{Client, beforehand, encoded, unreadable},
    connection::Address,
    crew::{Crew, Shared, run_id},
    options::{Credential, Output, Pace, StaffDoor, any_seed, duration, share},
    outcome::{Outcome, Part},
    pace::Speed,
    progress::Progress,
    scenario::{Env, Scenario},
    tally::{FATE_UNKNOWN, GIVEN_UP, RETRIES, Rate, as_u64},
};

/// The largest manifest is 32 MiB; the server may return its numbers with more digits.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// The longest id that the contract permits, in characters.
const ID_CHARS_MAX: usize = 128;

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
pub struct Options {
    #[command(flatten)]
    door: StaffDoor,
    #[command(flatten)]
    credential: Credential,
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
            return Ok(draw::manifest(self));
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
    fn model(&self) -> Result<Model> {
        let mut manifest = self.manifest()?;
        if !self.keep_ids {
            rename(&mut manifest, &run_id())?;
        }
        Model::new(manifest).map_err(|why| anyhow!("the lists cannot be played: {why}"))
    }
}

impl Scenario for Options {
    async fn run(&self, env: Env) -> Result<Outcome> {
        let (lists, playing) = (&self.lists, &self.playing);
        if let Some(file) = &lists.draw {
            let written = write(file, &lists.manifest()?);
            written.with_context(|| format!("cannot write {}", file.display()))?;
            return Ok(Outcome::silent());
        }
        let model = Arc::new(lists.model()?);
        let server = self.credential.added_to(&self.door.staff_address)?;
        look_first(&server, &model, playing.date, lists.keep_ids).await?;
        let crew = Crew {
            server,
            patience: playing.patience,
            closing: env.closing,
            // Of the updates; replaced when it is known how many there are.
            progress: Progress::of_requests(0),
        };
        let begun = Instant::now();
        let mut client = crew
            .client(lists.seed)
            .taking_answers_up_to(ANSWER_MAX_BYTES);
        let (book, manifest) = put(&mut client, model, playing.date).await?;
        let book = Shared::new(book);
        let office = Office {
            playing: playing.clone(),
            seed: lists.seed,
            display: env.display,
            crew,
            book: book.clone(),
        };
        let mut auditor = Auditor {
            client,
            book: book.clone(),
        };
        Box::pin(office.rehearse()).await;
        Box::pin(auditor.by_driver(DRY_RUN)).await;
        Box::pin(office.plan()).await;
        let updating = Box::pin(office.update()).await;
        Box::pin(auditor.all()).await;
        let book = book.lock();
        let part = report(&book, updating).checks(checks(&book, manifest));
        let (assigned, packages) = (book.held().count(), book.model.packages());
        let delivered = book.count(Status::Delivered);
        Ok(Outcome::new("day", &Pace::real_time(lists.seed), begun.elapsed())
            .with(part)
            .verdict(format!(
                "The day is over and every check holds ({assigned} of {packages} packages assigned, {delivered} delivered)."
            ))
            .drawn_from(&book.tally))
    }
}

/// `updating` is measured, from the first update to the last.
fn report(book: &Book, updating: Duration) -> Part {
    let (tally, speed) = (&book.tally, Speed::REAL_TIME);
    let (n, waits) = (|name| tally.get(name), |name| tally.waits(name, speed));
    let unknown = n(FATE_UNKNOWN);
    let (assigned, packages) = (book.held().count(), book.model.packages());
    let updates = n(ANSWERS);
    let rate = Rate::of(updates, updating, speed);
    let failed = book.count(Status::FailedToDeliver);
    Part::new("day")
        .data("date", book.date)
        .section(format!("The day {}", book.date))
        .figure("drivers", "drivers", as_u64(book.model.drivers()))
        .figure("packages", "packages", as_u64(packages))
        .figure("assigned", "  assigned", as_u64(assigned))
        .figure("left_behind", "  left behind", as_u64(packages - assigned))
        .figure("delivered", "delivered", book.count(Status::Delivered))
        .figure("failed_to_deliver", "failed to deliver", failed)
        .section("Requests")
        .figure("plans", "plans answered", n(PLANS))
        .count("left", "  asked for and left before", n(LEFT))
        .figure("updates", "updates acknowledged", updates)
        .rate("updates_per_s", "updates acknowledged", rate)
        .count("repeated", "  sent twice on purpose", n(REPEATED))
        .count("strange", "about what is not", n(REFUSALS))
        .count("given_up", "given up", tally.faults(GIVEN_UP).times)
        .count("fate_unknown", "  which may have been taken", unknown)
        .count("retries", "sent again for want of an answer", n(RETRIES))
        .answers(tally)
        .waits(
            "assign_latencies",
            "From asking for a plan to its answer",
            waits(ASSIGN),
        )
        .waits(
            "update_latencies",
            "From update to acknowledgement",
            waits(UPDATE),
        )
}

/// All that must hold. `manifest` is how the manifest that the server returned differs from the one it was sent.
fn checks(book: &Book, manifest: Option<String>) -> Vec<Check> {
    let tally = &book.tally;
    let holds = manifest.is_none();
    let finding = manifest.unwrap_or_else(|| "told as it was sent".to_owned());
    let mut checks = vec![
        Check::nothing_given_up(
            "every request acknowledged",
            "manifest, plans and updates",
            tally.get(ACKNOWLEDGED),
            tally,
        ),
        Check::new("manifest kept", holds, finding),
    ];
    checks.extend(ASPECTS.map(|name| Check::of(name, tally)));
    let lists = |name| {
        let records = book.records.get(name).unwrap_or(&0);
        let check = Check::of(name, tally).and(&format!(" lists, {records} records"));
        let broken_off = book.broken_off.get(name).map(String::as_str);
        check.broken_off("GET /assignments", broken_off)
    };
    checks.push(lists(DRY_RUN));
    checks.extend([ANSWERS, REFUSALS].map(|name| Check::of(name, tally)));
    checks.extend([BY_DRIVER, BY_STATUS, BY_PACKAGE].map(lists));
    checks
}

/// No retries: a mistyped address is reported at once.
async fn look_first(
    server: &Address,
    model: &Model,
    date: Option<Date>,
    keep_ids: bool,
) -> Result<()> {
    let mut client = Client::new(server.clone()).taking_answers_up_to(ANSWER_MAX_BYTES);
    let path = date.map_or_else(String::new, |date| format!("?date={date}"));
    let stored: Result<Option<Value>, _> = client.look_up(&format!("/manifest{path}")).await;
    stored.map_err(|failure| unreadable("/manifest", failure))?;
    for id in (0..model.drivers()).map(|driver| model.driver_id(driver)) {
        if !keep_ids {
            break;
        }
        let path = format!("/assignments?driver_id={}", encoded(id));
        let page: Page = beforehand(server, &path).await?;
        if !page.assignments.is_empty() {
            bail!("{id} has packages already; without --keep-ids that does not matter");
        }
    }
    Ok(())
}

/// Sends the lists and asks for them back; how they differ from those that were sent.
async fn put(
    client: &mut Client,
    model: Arc<Model>,
    asked: Option<Date>,
) -> Result<(Book, Option<String>)> {
    let today = || Timestamp::now().to_zoned(TimeZone::UTC).date();
    let before = today();
    let mut body = json!(model.manifest);
    if let Some(date) = asked {
        body["date"] = json!(date);
    }
    let request = client.request(Method::PUT, "/manifest", Some(body.to_string()));
    let sent = client.send(&request, accepted::<Stored>).await;
    let mut book = Book::new(Arc::clone(&model), asked.unwrap_or(before));
    book.tally.merge(std::mem::take(&mut client.tally));
    let Some(stored) = book.sent("PUT /manifest", &sent) else {
        bail!("PUT /manifest: {}", sent.why);
    };
    let Stored {
        date,
        drivers,
        packages,
    } = *stored;
    let is_expected = asked.map_or_else(|| (before..=today()).contains(&date), |it| it == date);
    let is_whole = (drivers, packages) == (model.drivers(), model.packages());
    let told = format!("PUT /manifest: told {drivers} drivers, {packages} packages, {date}");
    let fault = (!is_expected || !is_whole).then_some(told);
    book.date = date;
    let reported: Result<Option<Reported>, _> =
        client.look_up(&format!("/manifest?date={date}")).await;
    let other = match reported {
        Ok(Some(reported)) if reported.date == date => model.compare(&reported.manifest).err(),
        Ok(Some(reported)) => Some(format!("that of {} was told", reported.date)),
        Ok(None) => Some("it is not known".to_owned()),
        Err(failure) => Some(failure.to_string()),
    };
    Ok((
        book,
        fault.or(other.map(|what| format!("GET /manifest: {what}"))),
    ))
}

/// Gives every id the name of the run, which no other run has.
fn rename(manifest: &mut Manifest, run: &str) -> Result<()> {
    let drivers = manifest.drivers.iter_mut().map(|driver| &mut driver.id);
    let packages = manifest.packages.iter_mut().map(|package| &mut package.id);
    for id in drivers.chain(packages) {
        id.push('-');
        id.push_str(run);
        if id.chars().count() > ID_CHARS_MAX {
            bail!("{id} would be too long; see --keep-ids");
        }
    }
    Ok(())
}

fn write(file: &Path, manifest: &Manifest) -> Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    serde_json::to_writer(&mut file, manifest)?;
    file.write_all(b"\n")?;
    Ok(file.flush()?)
}
