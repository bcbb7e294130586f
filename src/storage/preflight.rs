//! The preflight: checks of the shared engines that the configuration names, run before the server is ready.
//!
//! A [`Probe`] asks an engine for what several checks compare: whether a queue exists, whether a table has the right keys.
//! [`Findings`] has the result of each check. It is logged when it changes, and shown by `/readyz`; `odyssey check --engines`
//! runs the probes once, without a server. A part of the server is not ready while a check of its engine is pending or has
//! failed. Failed probes are repeated until they pass.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};
use utoipa::ToSchema;

use super::State;
use crate::values::backoff::Backoff;
use crate::values::time::Moment;

/// How long a probe may take. One call of an AWS service, with its retries, may take 20 s.
const LIMIT: Duration = Duration::from_secs(25);
/// Between two runs of a failed probe.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// How often a failed check may be logged because its detail changes.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// A shared engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Redis or Valkey.
    Redis,
    /// Amazon `DynamoDB`.
    DynamoDb,
    /// Amazon S3.
    S3,
    /// Amazon SNS.
    Sns,
    /// Amazon SQS.
    Sqs,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::DynamoDb => "DynamoDB",
            Self::S3 => "S3",
            Self::Sns => "SNS",
            Self::Sqs => "SQS",
        })
    }
}

/// The outcome of a check, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    /// It works, but a setting is risky.
    Warning,
    /// The engine does not allow this user to ask.
    Unchecked,
    /// Not answered yet.
    Pending,
    /// It cannot work.
    Failed,
}

impl Outcome {
    /// Whether what needs the engine is not ready.
    fn blocks(self) -> bool {
        matches!(self, Self::Pending | Self::Failed)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// What was found, or why nothing was.
    pub detail: String,
}

impl Verdict {
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
        }
    }

    pub fn passed(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Passed, detail)
    }

    pub fn failed(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, detail)
    }
}

/// A check of a shared engine, and its latest verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// `redis`, `dynamodb`, `s3`, `sns` or `sqs`.
    #[schema(value_type = String, example = "redis")]
    pub engine: Engine,
    /// What is checked: a setting, or the configuration key that names a table, bucket, topic or queue.
    #[schema(example = "maxmemory-policy")]
    pub check: String,
    /// `passed`; `warning` for a risky setting; `unchecked` if this user may not ask; `pending` before the first answer; `failed`.
    #[schema(value_type = String, example = "passed")]
    pub outcome: Outcome,
    /// What was found, or why nothing was.
    #[schema(example = "noeviction")]
    pub detail: String,
    /// When the engine was asked last.
    #[schema(value_type = String, format = DateTime)]
    pub checked_at: Moment,
    /// Since when the outcome is the same.
    #[serde(skip)]
    since: Timestamp,
    /// The detail that was logged last, and when.
    #[serde(skip)]
    logged: Option<(String, Instant)>,
}

/// The latest verdict of each check; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Findings(watch::Sender<Vec<Finding>>);

impl Findings {
    /// Records the verdicts of an engine's checks. Each is logged when its outcome changes, and a failed one also when its detail
    /// does, at most every few seconds.
    pub fn record(&self, engine: Engine, verdicts: impl IntoIterator<Item = (String, Verdict)>) {
        let now = Timestamp::now();
        self.0.send_modify(|findings| {
            for (check, verdict) in verdicts {
                let is_it = |known: &Finding| known.engine == engine && known.check == check;
                let place = findings.iter().position(is_it).unwrap_or_else(|| {
                    findings.push(Finding::pending(engine, check.clone(), now));
                    findings.len() - 1
                });
                findings[place].update(verdict, now);
            }
        });
    }

    pub fn of(&self, engines: &[Engine]) -> Vec<Finding> {
        let findings = self.0.borrow();
        let found = findings
            .iter()
            .filter(|found| engines.contains(&found.engine));
        found.cloned().collect()
    }

    pub fn all(&self) -> Vec<Finding> {
        self.0.borrow().clone()
    }

    /// Whether these engines can be used: down with the first check that failed or, if none has, the first that is pending.
    /// `None` if every check passed.
    pub fn state(&self, engines: &[Engine]) -> Option<State> {
        let found = self.of(engines);
        let blocking = found.into_iter().filter(|found| found.outcome.blocks());
        // The first of the worst.
        let worst = blocking.reduce(|worst, found| {
            if found.outcome > worst.outcome {
                found
            } else {
                worst
            }
        })?;
        Some(State::down_since(&worst, worst.since))
    }

    /// Waits until no check of these engines is pending or failed.
    pub async fn pass(&self, engines: &[Engine]) {
        let blocks = |found: &Finding| engines.contains(&found.engine) && found.outcome.blocks();
        let mut findings = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = findings.wait_for(|found| !found.iter().any(blocks)).await;
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            engine,
            check,
            detail,
            ..
        } = self;
        write!(f, "{engine}: {check}: {detail}")
    }
}

impl Finding {
    fn pending(engine: Engine, check: String, now: Timestamp) -> Self {
        Self {
            engine,
            check,
            outcome: Outcome::Pending,
            detail: String::new(),
            checked_at: now.into(),
            since: now,
            logged: None,
        }
    }

    fn update(&mut self, verdict: Verdict, now: Timestamp) {
        let changes = self.outcome != verdict.outcome;
        if changes {
            self.since = now;
        }
        self.checked_at = now.into();
        self.outcome = verdict.outcome;
        self.detail = verdict.detail;
        let is_news = match &self.logged {
            Some((detail, at)) => *detail != self.detail && at.elapsed() >= LOG_EVERY,
            None => true,
        };
        if changes || (self.outcome == Outcome::Failed && is_news) {
            self.log();
            self.logged = Some((self.detail.clone(), Instant::now()));
        }
    }

    fn log(&self) {
        let Self {
            engine,
            check,
            detail,
            ..
        } = self;
        match self.outcome {
            Outcome::Passed => info!(%engine, check, detail, "engine check passed"),
            Outcome::Warning => warn!(%engine, check, detail, "engine check: risky setting"),
            Outcome::Unchecked => warn!(%engine, check, detail, "engine check not possible"),
            Outcome::Pending => {}
            Outcome::Failed => {
                warn!(%engine, check, detail, "engine check failed; it is repeated until it passes");
            }
        }
    }
}

type Look = Pin<Box<dyn Future<Output = Vec<Verdict>> + Send>>;

/// Asks an engine for what some checks compare.
pub struct Probe {
    engine: Engine,
    checks: Vec<String>,
    look: Box<dyn Fn() -> Look + Send + Sync>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("engine", &self.engine)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl Probe {
    /// A probe for these checks. `look` returns their verdicts in the same order.
    pub fn new<F>(
        engine: Engine,
        checks: Vec<String>,
        look: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Verdict>> + Send + 'static,
    {
        Self {
            engine,
            checks,
            look: Box::new(move || Box::pin(look())),
        }
    }

    /// Runs it once. True if no check failed.
    async fn run(&self, findings: &Findings) -> bool {
        let verdicts = timeout(LIMIT, (self.look)()).await.unwrap_or_else(|_| {
            let none = Verdict::failed(format!("no answer within {LIMIT:?}"));
            vec![none; self.checks.len()]
        });
        let passed = !verdicts
            .iter()
            .any(|verdict| verdict.outcome == Outcome::Failed);
        findings.record(self.engine, self.checks.iter().cloned().zip(verdicts));
        passed
    }

    /// Runs it until no check fails.
    async fn repeat(self, findings: Findings) {
        let mut backoff = BACKOFF;
        while !self.run(&findings).await {
            sleep(backoff.next_wait()).await;
        }
    }
}

/// The probes of all engines that are used.
#[derive(Debug, Default)]
pub struct Preflight {
    probes: Vec<Probe>,
    findings: Findings,
}

impl Preflight {
    /// Adds a probe; its checks are pending until it has run.
    pub fn add(&mut self, probe: Probe) {
        let pending = || Verdict::new(Outcome::Pending, "not answered yet");
        let checks = probe.checks.iter().cloned();
        self.findings
            .record(probe.engine, checks.map(|check| (check, pending())));
        self.probes.push(probe);
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Runs every probe once, all at the same time.
    pub async fn once(self) {
        let mut probes = JoinSet::new();
        for probe in self.probes {
            let findings = self.findings.clone();
            probes.spawn(async move { probe.run(&findings).await });
        }
        probes.join_all().await;
    }

    /// Runs every probe until it passes. Ends only if a probe panics: its checks would stay as they are.
    pub async fn run(self) {
        let mut probes = JoinSet::new();
        for probe in self.probes {
            probes.spawn(probe.repeat(self.findings.clone()));
        }
        while let Some(ended) = probes.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a probe of an engine has ended");
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const OF_QUEUES: &[Engine] = &[Engine::Sns, Engine::Sqs];

    fn probe(engine: Engine, check: &str, verdicts: Vec<Verdict>) -> Probe {
        let run = Arc::new(AtomicUsize::new(0));
        Probe::new(engine, vec![check.to_owned()], move || {
            let last = verdicts.len() - 1;
            let next = run.fetch_add(1, Ordering::Relaxed).min(last);
            std::future::ready(vec![verdicts[next].clone()])
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_is_repeated_until_it_passes() {
        let mut preflight = Preflight::default();
        preflight.add(probe(
            Engine::Sqs,
            "queue",
            vec![Verdict::failed("missing"), Verdict::passed("exists")],
        ));
        preflight.add(probe(
            Engine::Redis,
            "role",
            vec![Verdict::failed("a replica")],
        ));
        let findings = preflight.findings().clone();
        let reason = |state: Option<State>| state.and_then(|state| state.down);
        assert_eq!(
            reason(findings.state(OF_QUEUES)).as_deref(),
            Some("SQS: queue: not answered yet")
        );
        let running = tokio::spawn(preflight.run());
        findings.pass(OF_QUEUES).await;
        assert_eq!(findings.state(OF_QUEUES), None);
        assert_eq!(
            reason(findings.state(&[Engine::Redis])).as_deref(),
            Some("Redis: role: a replica")
        );
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_never_answers_fails_its_checks() {
        let mut preflight = Preflight::default();
        preflight.add(Probe::new(
            Engine::S3,
            vec!["bucket".to_owned()],
            std::future::pending,
        ));
        let findings = preflight.findings().clone();
        preflight.once().await;
        let found = findings.all().remove(0);
        assert_eq!(
            (found.outcome, found.to_string()),
            (
                Outcome::Failed,
                "S3: bucket: no answer within 25s".to_owned()
            )
        );
    }

    #[test]
    fn a_failed_check_is_the_reason_before_a_pending_one_and_warnings_are_none() {
        let findings = Findings::default();
        let verdict = |outcome| Verdict::new(outcome, "detail");
        for (check, outcome) in [
            ("append-only file", Outcome::Warning),
            ("rights", Outcome::Unchecked),
        ] {
            findings.record(Engine::Redis, [(check.to_owned(), verdict(outcome))]);
        }
        assert_eq!(findings.state(&[Engine::Redis]), None);
        for (check, outcome) in [("one", Outcome::Pending), ("two", Outcome::Failed)] {
            findings.record(Engine::Redis, [(check.to_owned(), verdict(outcome))]);
        }
        let down = findings.state(&[Engine::Redis]).unwrap().down;
        assert_eq!(down.as_deref(), Some("Redis: two: detail"));
    }
}
