//! `simulators senders`: senders of packages, and a comparison of the server's account with what it has acknowledged.

mod checks;
mod ledger;
mod malformed;
mod plan;
mod preference;
mod sending;
mod summary;

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::summary::Summary;
use self::{
    checks::Compared,
    ledger::Ledger,
    plan::{Part, Traits},
    sending::Office,
};
use crate::{
    audit::Counted,
    options::{CustomersDoor, Output, Pace, any_seed, duration, share},
    pace::Speed,
    packages::Link,
    progress::{self, Progress},
    report::Report,
    resend::{insist, patience_at_the_end, run_id},
    shop::Failure,
    sources::Sources,
};

/// Let senders send packages, and check that each is delivered or dropped once and as its recipient wants
///
/// Each sender keeps a connection and serves recipients of its own, one request after the other, so it knows what must
/// become of every package: recipients change their preferences during the run, out of order. Some packages are sent twice,
/// some of these over a second connection at the same time; some are sent again with another field; and some requests
/// are malformed. A request without an answer, or answered 503, is sent again, so a server that restarts during the run
/// costs nothing but time.
///
/// Ends when all errands are run; ctrl-c ends it earlier. In the end GET /statistics must have changed by just what was
/// acknowledged, and the last 200 packages and the preferences of up to 200 recipients must be known as they are. Other
/// programs that send packages at the same time spoil the comparison of the statistics: tell so with --shared. The exit
/// code is 0 only if every request was acknowledged and every check holds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: CustomersDoor,
    #[command(flatten)]
    errands: Errands,
    #[command(flatten)]
    trouble: Trouble,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How many packages there are and what they are like.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Packages")]
struct Errands {
    /// Packages in all, and updates of preferences instead of some of them, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    packages: u64,
    /// Senders at work at once, each with a connection of its own, 1 to 10000; not more than there are recipients
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    senders: u64,
    /// Recipients, 1 to 1000000; each is served by one sender
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    recipients: u64,
    /// Share of packages that are marketing, 0% to 100%; the others are personal
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    marketing: f64,
    /// Share of packages in whose place a recipient changes a preference, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share)]
    preferences: f64,
}

/// What is done to be found out.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Trouble")]
struct Trouble {
    /// Share of packages that are sent twice on purpose, 0% to 100%: at once, later, or both at the same time
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    duplicates: f64,
    /// Share of packages that are sent again with another field, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = share)]
    mismatches: f64,
    /// Malformed requests in addition, for so many of the packages, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "2%", value_parser = share)]
    malformed: f64,
}

fn senders_from() -> Sources {
    "127.2.0.0/16".parse().expect("this is a network")
}

/// How requests are sent and what is made of the answers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sending")]
struct Sending {
    /// Most packages per second of all senders together, measured, 1 to 1000000 [default: as fast as they are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Addresses of this machine that senders come from, one after the other: an IPv4 address or a network. A server limits
    /// what one address writes [default: 127.2.0.0/16 for a server on this machine, else whichever leads to it]
    #[arg(long, value_name = "NETWORK")]
    from: Option<Sources>,
    /// How long a request that is not acknowledged is sent again and again, measured, 0s to 24h; 0s is once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Others send packages to this server too: do not compare the statistics
    #[arg(long)]
    shared: bool,
    /// Seed of the random numbers, for a run that can be repeated [default: drawn, and reported]
    #[arg(long, value_name = "NUMBER", default_value_t = any_seed(), hide_default_value = true)]
    seed: u64,
}

impl Options {
    fn traits(&self) -> Traits {
        let (errands, trouble) = (&self.errands, &self.trouble);
        Traits {
            marketing: errands.marketing,
            preferences: errands.preferences,
            duplicates: trouble.duplicates,
            mismatches: trouble.mismatches,
            malformed: trouble.malformed,
        }
    }

    fn part(&self, run: String) -> Part {
        let errands = &self.errands;
        // In the past, however many updates there are: a second each, at most.
        let span = i64::try_from(errands.packages).unwrap_or(i64::MAX);
        Part {
            run,
            number: 0,
            senders: errands.senders.min(errands.recipients),
            errands: errands.packages,
            recipients: errands.recipients,
            began: Timestamp::now().as_second() - span - 3600,
        }
    }
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let sending = &options.sending;
    let server = options.door.customers_address.clone();
    let before = if sending.shared {
        None
    } else {
        // No retries: a mistyped address is reported at once.
        let asked = insist(Duration::ZERO, async || {
            Link::new(server.clone()).statistics().await
        });
        let failed =
            |failure: Failure| anyhow!("cannot read GET /statistics beforehand: {failure}");
        Some(asked.await.map_err(failed)?)
    };
    let run = run_id();
    let part = options.part(run.clone());
    let progress = Progress::of_senders(options.errands.packages);
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let pause = sending.rate.map(|rate| {
        // The senders share the rate.
        Duration::from_secs(part.senders) / rate
    });
    let office = Office {
        from: sending
            .from
            .or_else(|| server.is_loopback().then(senders_from)),
        server: server.clone(),
        part,
        traits: options.traits(),
        seed: sending.seed,
        pause: pause.unwrap_or_default(),
        patience: sending.patience,
        progress,
        closing: closing.clone(),
    };
    let ledger = office.work().await;
    let elapsed = begun.elapsed();
    drop(shown);
    let patience = patience_at_the_end(sending.patience, &closing);
    let mut link = Link::new(server);
    let counted = match before {
        None => Counted::NotCompared,
        Some(before) => {
            let after = insist(patience, async || link.statistics().await).await;
            Counted::of(before, after)
        }
    };
    let packages = compare_packages(&mut link, &ledger, patience).await;
    let preferences = compare_preferences(&mut link, &ledger, patience).await;
    let checks = checks::all(&ledger.tally, &counted, &packages, &preferences);
    let pace = Pace {
        speed: Speed::REAL_TIME,
        seed: sending.seed,
    };
    let mut report = Report::new("senders", &pace, elapsed);
    report.add_senders(Summary::of(run, &ledger, checks, elapsed, pace.speed));
    Ok(report)
}

/// Looks up the last packages, until one cannot be looked up.
async fn compare_packages(link: &mut Link, ledger: &Ledger, patience: Duration) -> Compared {
    let mut compared = Compared::default();
    for (package, fate) in &ledger.recent {
        let asked = insist(patience, async || link.package(&package.package_id).await);
        match asked.await {
            Ok(kept) => compared.add_package(package, *fate, kept.as_ref()),
            Err(failure) => {
                compared.broken_off = Some(failure.to_string());
                break;
            }
        }
    }
    compared
}

/// Looks up the preferences of some recipients, until one cannot be looked up.
async fn compare_preferences(link: &mut Link, ledger: &Ledger, patience: Duration) -> Compared {
    let mut compared = Compared::default();
    for (id, preference) in ledger.compared_recipients() {
        let asked = insist(patience, async || link.preferences(id).await);
        match asked.await {
            Ok(reported) => compared.add_recipient(id, *preference, &reported),
            Err(failure) => {
                compared.broken_off = Some(failure.to_string());
                break;
            }
        }
    }
    compared
}
