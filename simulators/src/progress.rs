//! The live display: a line that is redrawn on a terminal, a plain line every few seconds elsewhere.

use std::{
    collections::VecDeque,
    io::{IsTerminal as _, Write as _, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{options::Display, pace::spoken};

const REDRAW_EVERY: Duration = Duration::from_millis(100);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// The rate shown is that of this last stretch of measured time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What is going on right now. Relaxed counters: they are for looking at, the report counts for itself.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What this is, where there is more than one.
    name: Option<&'static str>,
    /// Customers planned; zero when this run has none.
    expected: u64,
    arrived: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    /// Coffees being brewed by this run's baristas; none when it has no baristas.
    brewing: Option<watch::Sender<u32>>,
    brewed: AtomicU64,
    /// Events acknowledged; none when this run has no drones.
    events: Option<AtomicU64>,
    /// Whether those who come are requests of senders.
    is_sending: bool,
}

impl Progress {
    fn new(name: Option<&'static str>, expected: usize, baristas: bool) -> Arc<Self> {
        let expected = u64::try_from(expected).unwrap_or(u64::MAX);
        Arc::new(Self::blank(name, expected, baristas))
    }

    fn blank(name: Option<&'static str>, expected: u64, baristas: bool) -> Self {
        Self {
            name,
            expected,
            arrived: AtomicU64::new(0),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            brewing: baristas.then(|| watch::Sender::new(0)),
            brewed: AtomicU64::new(0),
            events: None,
            is_sending: false,
        }
    }

    pub(crate) fn of_customers(expected: usize) -> Arc<Self> {
        Self::new(None, expected, false)
    }

    pub(crate) fn of_baristas() -> Arc<Self> {
        Self::new(None, 0, true)
    }

    pub(crate) fn of_both(expected: usize) -> Arc<Self> {
        Self::new(None, expected, true)
    }

    /// One of several runs of customers and baristas.
    pub(crate) fn of_run(name: &'static str, expected: usize) -> Arc<Self> {
        Self::new(Some(name), expected, true)
    }

    /// Drones in the place of customers, a mission each; zero expected when there is no end of them.
    pub(crate) fn of_drones(expected: u64) -> Arc<Self> {
        Arc::new(Self {
            events: Some(AtomicU64::new(0)),
            ..Self::blank(None, expected, false)
        })
    }

    /// Requests in the place of customers.
    pub(crate) fn of_senders(expected: u64) -> Arc<Self> {
        Arc::new(Self {
            is_sending: true,
            ..Self::blank(None, expected, false)
        })
    }

    pub(crate) fn mission_began(&self) {
        self.arrived.fetch_add(1, Relaxed);
    }

    /// Its last event was acknowledged, or it was given up.
    pub(crate) fn mission_ended(&self, given_up: bool) {
        self.customer_left(!given_up);
    }

    pub(crate) fn event_acknowledged(&self) {
        if let Some(events) = &self.events {
            events.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn customer_came(&self) {
        self.arrived.fetch_add(1, Relaxed);
    }

    pub(crate) fn customer_left(&self, served: bool) {
        let counter = if served { &self.served } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a coffee as being brewed for as long as the guard lives.
    pub(crate) fn brew(&self) -> Brewing<'_> {
        if let Some(brewing) = &self.brewing {
            brewing.send_modify(|now| *now += 1);
        }
        Brewing(self)
    }

    pub(crate) fn coffee_brewed(&self) {
        self.brewed.fetch_add(1, Relaxed);
    }

    /// Follows the number of coffees being brewed; none when this run has no baristas.
    pub(crate) fn brewing(&self) -> Option<watch::Receiver<u32>> {
        self.brewing.as_ref().map(watch::Sender::subscribe)
    }

    /// The count whose growth is the rate: events acknowledged, or customers served, or coffees brewed when there are
    /// neither drones nor customers.
    fn done(&self) -> u64 {
        if let Some(events) = &self.events {
            events.load(Relaxed)
        } else if self.expected > 0 {
            self.served.load(Relaxed)
        } else {
            self.brewed.load(Relaxed)
        }
    }

    fn line(&self, per_s: f64) -> String {
        let mut parts: Vec<_> = self.name.map(str::to_owned).into_iter().collect();
        let (served, failed) = (self.served.load(Relaxed), self.failed.load(Relaxed));
        let waiting = self.arrived.load(Relaxed).saturating_sub(served + failed);
        if let Some(events) = &self.events {
            parts.push(format!("flying {waiting}"));
            let of = match self.expected {
                0 => String::new(),
                expected => format!("/{expected}"),
            };
            parts.push(format!("missions ended {served}{of}"));
            if failed > 0 {
                parts.push(format!("given up {failed}"));
            }
            parts.push(format!("events {}", events.load(Relaxed)));
        } else if self.is_sending {
            parts.push(format!("under way {waiting}"));
            parts.push(format!("acknowledged {served}/{}", self.expected));
            if failed > 0 {
                parts.push(format!("given up {failed}"));
            }
        } else if self.expected > 0 {
            parts.push(format!("waiting {waiting}"));
            if let Some(brewing) = &self.brewing {
                parts.push(format!("brewing {}", *brewing.borrow()));
            }
            parts.push(format!("served {served}/{}", self.expected));
            if failed > 0 {
                parts.push(format!("failed {failed}"));
            }
        } else if let Some(brewing) = &self.brewing {
            parts.push(format!("brewing {}", *brewing.borrow()));
            parts.push(format!("brewed {}", self.brewed.load(Relaxed)));
        }
        parts.push(format!("{per_s:.1}/s measured"));
        parts.join(" · ")
    }
}

/// A coffee being brewed.
pub(crate) struct Brewing<'a>(&'a Progress);

impl Drop for Brewing<'_> {
    fn drop(&mut self) {
        if let Some(brewing) = &self.0.brewing {
            brewing.send_modify(|now| *now -= 1);
        }
    }
}

/// Shows the progress until the returned value is dropped.
pub(crate) fn show(progress: &Arc<Progress>, display: Display) -> Shown {
    let live = match display {
        Display::None => {
            return Shown {
                bar: None,
                _ticker: None,
            };
        }
        Display::Auto => stderr().is_terminal(),
        Display::Plain => false,
    };
    let bar = live.then(|| live_line(progress.expected));
    let ticker = tokio::spawn(tick(Arc::clone(progress), bar.clone()));
    Shown {
        bar,
        _ticker: Some(AbortOnDropHandle::new(ticker)),
    }
}

/// The display while it is shown.
pub(crate) struct Shown {
    bar: Option<ProgressBar>,
    _ticker: Option<AbortOnDropHandle<()>>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn live_line(expected: u64) -> ProgressBar {
    let (bar, template) = if expected > 0 {
        (
            ProgressBar::new(expected),
            "{elapsed:>4} {bar:10} {wide_msg}",
        )
    } else {
        (
            ProgressBar::new_spinner(),
            "{elapsed:>4} {spinner} {wide_msg}",
        )
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    bar.with_style(style)
}

async fn tick(progress: Arc<Progress>, bar: Option<ProgressBar>) {
    let began = Instant::now();
    let every = if bar.is_some() {
        REDRAW_EVERY
    } else {
        PLAIN_EVERY
    };
    let mut rate = Rate::default();
    rate.per_s(began, progress.done());
    loop {
        tokio::time::sleep(every).await;
        let line = progress.line(rate.per_s(Instant::now(), progress.done()));
        if let Some(bar) = &bar {
            bar.set_position(progress.served.load(Relaxed));
            bar.set_message(line);
        } else {
            // A closed standard error must not stop the run.
            drop(writeln!(stderr(), "{} · {line}", spoken(began.elapsed())));
        }
    }
}

/// A rate over the last stretch of time.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn per_s(&mut self, now: Instant, done: u64) -> f64 {
        self.0.push_back((now, done));
        // One sample at or before the stretch's beginning stays, as its starting point.
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= RATE_OVER) {
            self.0.pop_front();
        }
        let (since, before) = self.0[0];
        let stretch = (now - since).as_secs_f64();
        if stretch > 0.0 {
            let grown = u32::try_from(done.saturating_sub(before)).unwrap_or(u32::MAX);
            f64::from(grown) / stretch
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_this_run_knows() {
        let both = Progress::of_both(3);
        for _ in 0..3 {
            both.customer_came();
        }
        both.customer_left(true);
        let brewing = both.brew();
        assert_eq!(
            both.line(1.25),
            "waiting 2 · brewing 1 · served 1/3 · 1.2/s measured"
        );
        drop(brewing);
        both.customer_left(false);
        assert_eq!(
            both.line(0.0),
            "waiting 1 · brewing 0 · served 1/3 · failed 1 · 0.0/s measured"
        );
        assert_eq!(
            Progress::of_customers(2).line(0.0),
            "waiting 0 · served 0/2 · 0.0/s measured"
        );
        assert_eq!(
            Progress::of_run("without flood", 2).line(0.0),
            "without flood · waiting 0 · brewing 0 · served 0/2 · 0.0/s measured"
        );
        let drones = Progress::of_drones(2);
        drones.mission_began();
        drones.event_acknowledged();
        assert_eq!(
            drones.line(2.0),
            "flying 1 · missions ended 0/2 · events 1 · 2.0/s measured"
        );
        assert_eq!(
            Progress::of_drones(0).line(0.0),
            "flying 0 · missions ended 0 · events 0 · 0.0/s measured"
        );
        let senders = Progress::of_senders(9);
        senders.customer_came();
        assert_eq!(
            senders.line(1.0),
            "under way 1 · acknowledged 0/9 · 1.0/s measured"
        );
        senders.customer_left(false);
        assert_eq!(
            senders.line(0.0),
            "under way 0 · acknowledged 0/9 · given up 1 · 0.0/s measured"
        );
        assert_eq!(
            Progress::of_baristas().line(0.0),
            "brewing 0 · brewed 0 · 0.0/s measured"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_stretch() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        let mut rate = Rate::default();
        assert!(rate.per_s(start, 0).abs() < f64::EPSILON);
        assert!((rate.per_s(after(5), 10) - 2.0).abs() < 1e-9);
        assert!((rate.per_s(after(15), 10) - 0.0).abs() < 1e-9);
        assert!((rate.per_s(after(20), 40) - 2.0).abs() < 1e-9);
    }
}
