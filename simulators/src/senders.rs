//! `simulators senders`: senders of packages, and a comparison of the server's account with what it has acknowledged.

mod ledger;
mod malformed;
mod plan;
mod sending;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    ledger::{
        ACKNOWLEDGEMENTS, ANSWERS, DUPLICATES, FATES, LATENCY, Ledger, MISMATCHES, NEW_ONCE,
        OUTDATED, PACKAGES, PREFERENCES, REJECTED, REPLAYS, UNKNOWN, figures,
    },
    plan::{Part, Planner},
    sending::Sender,
};
use crate::{
    audit::{Check, Counted},
    client::{Client, beforehand, encoded},
    crew::{Crew, Shared, run_id},
    options::{Credential, CustomersDoor, Output, Pace, any_seed, duration, share},
    outcome::{self, Outcome},
    pace::Speed,
    packages::Fate,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    sources::Sources,
    tally::{FATE_UNKNOWN, GIVEN_UP, RETRIES, Rate},
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
pub struct Options {
    #[command(flatten)]
    door: CustomersDoor,
    #[command(flatten)]
    credential: Credential,
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
#[derive(Debug, Clone, Copy, Args)]
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
#[derive(Debug, Clone, Copy, Args)]
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
    fn part(&self, run: String, own_ids: bool) -> Part {
        let all = Errands {
            senders: self.errands.senders.min(self.errands.recipients),
            ..self.errands
        };
        // In the past, however many updates there are: a second each, at most.
        let span = i64::try_from(all.packages).unwrap_or(i64::MAX);
        Part {
            run,
            number: 0,
            all,
            began: Timestamp::now().as_second() - span - 3600,
            own_ids,
        }
    }

    /// Runs all errands, or until the run is stopped.
    async fn work(&self, crew: &Crew, part: &Part) -> Ledger {
        let ledger = Shared::new(Ledger::default());
        let here = || "127.2.0.0/16".parse().expect("this is a network");
        let from: Option<Sources> = self.sending.from;
        let from = from.or_else(|| crew.server.is_loopback().then(here));
        // The senders share the rate.
        let pause = self
            .sending
            .rate
            .map(|rate| Duration::from_secs(part.all.senders) / rate);
        let senders = (0..part.all.senders).map(|number| {
            let part = Part {
                number,
                ..part.clone()
            };
            let address = from.map(|from| from.of(usize::try_from(number).unwrap_or(usize::MAX)));
            let client = |number| crew.client(number).coming_from(address);
            let clients = [client(2 * number), client(2 * number + 1)];
            let pause = pause.unwrap_or_default();
            let sender = Sender::new(clients, &part, pause, crew.clone(), ledger.clone());
            sender.work(Planner::new(part, self.trouble, self.sending.seed))
        });
        crew.at_once(senders).await;
        ledger.into_inner()
    }
}

impl Scenario for Options {
    async fn run(&self, env: Env) -> Result<Outcome> {
        let server = self.credential.added_to(&self.door.customers_address)?;
        let before: Option<Value> = if self.sending.shared {
            None
        } else {
            Some(beforehand(&server, "/statistics").await?)
        };
        let own_ids = server.has_token();
        let crew = Crew {
            server,
            patience: self.sending.patience,
            closing: env.closing,
            progress: Progress::of_requests(self.errands.packages),
        };
        let run = run_id();
        let shown = progress::show(&crew.progress, env.display);
        let begun = Instant::now();
        let mut ledger = self.work(&crew, &self.part(run.clone(), own_ids)).await;
        let elapsed = begun.elapsed();
        drop(shown);
        let mut client = crew.client(0);
        let counted = match before {
            None => Counted::NotCompared,
            Some(before) => {
                let after: Result<Value, _> = client.get("/statistics").await;
                Counted::of(figures(&before), after.map(|after| figures(&after)))
            }
        };
        let packages = compare_packages(&mut client, &mut ledger, own_ids).await.err();
        let preferences = compare_preferences(&mut client, &mut ledger).await.err();
        let checks = checks(
            &ledger,
            &counted,
            packages.as_deref(),
            preferences.as_deref(),
        );
        let tally = &ledger.tally;
        let (packages, preferences) = (tally.get(ACKNOWLEDGEMENTS), tally.get(ANSWERS));
        let pace = Pace::real_time(self.sending.seed);
        Ok(Outcome::new("senders", &pace, elapsed)
            .with(report(&run, &ledger, elapsed).checks(checks))
            .verdict(format!(
                "Every request was acknowledged and every check holds ({packages} packages, {preferences} preferences)."
            ))
            .drawn_from(&ledger.tally))
    }
}

/// Looks up the last packages; why not all, if one cannot be looked up.
async fn compare_packages(
    client: &mut Client,
    ledger: &mut Ledger,
    own_ids: bool,
) -> Result<(), String> {
    for (package, fate) in std::mem::take(&mut ledger.recent) {
        let sender = own_ids.then(|| format!("?sender={}", encoded(&package.sender())));
        let path = format!("/packages/{}{}", package.package_id, sender.unwrap_or_default());
        let stored: Option<Value> = client.look_up(&path).await.map_err(|it| it.to_string())?;
        ledger.compare_package(&package, fate, stored.as_ref());
    }
    Ok(())
}

/// Looks up the preferences of some recipients; why not all, if one cannot be looked up.
async fn compare_preferences(client: &mut Client, ledger: &mut Ledger) -> Result<(), String> {
    for (id, expected) in ledger.compared_recipients() {
        let path = format!("/preferences/{id}");
        let reported: Value = client.get(&path).await.map_err(|it| it.to_string())?;
        ledger.compare_recipient(&id, &expected, &reported);
    }
    Ok(())
}

fn report(run: &str, ledger: &Ledger, elapsed: Duration) -> outcome::Part {
    let (tally, speed) = (&ledger.tally, Speed::REAL_TIME);
    let (n, waits) = (|name| tally.get(name), |name| tally.waits(name, speed));
    let unknown = n(FATE_UNKNOWN);
    let packages = n(ACKNOWLEDGEMENTS);
    let [delivered, dropped] = Fate::ALL.map(|fate| ledger.fates(None, fate).0);
    let (again, other) = (n(DUPLICATES), n(MISMATCHES));
    let rate = Rate::of(packages, elapsed, speed);
    outcome::Part::new("senders")
        .data("run", run)
        .section(format!("Packages package-{run}-…"))
        .figure("packages.acknowledged", "acknowledged", packages)
        .rate("packages.acknowledged_per_s", "packages acknowledged", rate)
        .figure("packages.delivered", "  delivered", delivered)
        .figure("packages.dropped", "  dropped", dropped)
        .count("packages.replays", "  taken at an earlier try", n(REPLAYS))
        .count("packages.duplicates", "sent twice on purpose", again)
        .count(
            "packages.mismatches",
            "sent again with another field",
            other,
        )
        .section("Preferences")
        .figure("preferences.acknowledged", "acknowledged", n(ANSWERS))
        .count("preferences.outdated", "  after a newer one", n(OUTDATED))
        .section("Requests")
        .count("malformed", "malformed on purpose", n(REJECTED))
        .count("given_up", "given up", tally.faults(GIVEN_UP).times)
        .count("fate_unknown", "  which may have been taken", unknown)
        .count("retries", "sent again for want of an answer", n(RETRIES))
        .answers(tally)
        .waits("latencies", "From sent to acknowledged", waits(LATENCY))
}

/// All that must hold.
fn checks(
    ledger: &Ledger,
    counted: &Counted<[u64; 7]>,
    packages: Option<&str>,
    preferences: Option<&str>,
) -> Vec<Check> {
    let tally = &ledger.tally;
    let mut checks = vec![Check::nothing_given_up(
        "every request acknowledged",
        "packages and preferences",
        tally.get(ACKNOWLEDGEMENTS) + tally.get(ANSWERS),
        tally,
    )];
    let of_answers = [
        FATES,
        NEW_ONCE,
        ACKNOWLEDGEMENTS,
        DUPLICATES,
        MISMATCHES,
        ANSWERS,
        REJECTED,
    ];
    checks.extend(of_answers.map(|name| Check::of(name, tally)));
    checks.extend(counted.changes("GET /statistics", ledger.growth()));
    let stored = Check::of(PACKAGES, tally).broken_off("GET /packages/…", packages);
    let mut last = Check::of(PREFERENCES, tally);
    if tally.get(UNKNOWN) > 0 {
        last = last.and(&format!("; {} of unknown fate", tally.get(UNKNOWN)));
    }
    checks.push(stored);
    checks.push(last.broken_off("GET /preferences/…", preferences));
    checks
}
