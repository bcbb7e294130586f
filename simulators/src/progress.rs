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

use crate::{options::Display, pace::spoken, tally::as_u64};

const REDRAW_EVERY: Duration = Duration::from_millis(100);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// The rate shown is that of this last stretch of measured time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What is going on right now. Relaxed counters: they are for looking at, the report counts for itself.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What this is, where there is more than one.
    name: Option<&'static str>,
    words: Words,
    /// Those who are to come; zero when there is no end of them.
    expected: u64,
    came: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    /// Coffees being brewed by this run's baristas.
    brewing: watch::Sender<u32>,
}

/// How the counts are called. A count without a name is not shown.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    under_way: Option<&'static str>,
    brewing: bool,
    ended: Option<&'static str>,
    failed: &'static str,
    /// The count whose growth is the rate, unless that is those who ended.
    events: Option<&'static str>,
}

const CUSTOMERS: Words = Words {
    under_way: Some("waiting"),
    brewing: false,
    ended: Some("served"),
    failed: "failed",
    events: None,
};

impl Progress {
    fn new(words: Words, expected: u64) -> Self {
        Self {
            name: None,
            words,
            expected,
            came: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            events: AtomicU64::new(0),
            brewing: watch::Sender::new(0),
        }
    }

    pub(crate) fn of_customers(expected: usize) -> Arc<Self> {
        Arc::new(Self::new(CUSTOMERS, as_u64(expected)))
    }

    pub(crate) fn of_baristas() -> Arc<Self> {
        let words = Words {
            brewing: true,
            events: Some("brewed"),
            ..Words::default()
        };
        Arc::new(Self::new(words, 0))
    }

    /// Customers and baristas, in one of several runs if it has a name.
    pub(crate) fn of_rush(name: Option<&'static str>, expected: usize) -> Arc<Self> {
        let words = Words {
            brewing: true,
            ..CUSTOMERS
        };
        let progress = Self::new(words, as_u64(expected));
        Arc::new(Self { name, ..progress })
    }

    /// Drones, a mission each.
    pub(crate) fn of_missions(expected: u64) -> Arc<Self> {
        let words = Words {
            under_way: Some("flying"),
            ended: Some("missions ended"),
            failed: "given up",
            events: Some("events"),
            ..CUSTOMERS
        };
        Arc::new(Self::new(words, expected))
    }

    pub(crate) fn of_requests(expected: u64) -> Arc<Self> {
        let words = Words {
            under_way: Some("under way"),
            ended: Some("acknowledged"),
            failed: "given up",
            ..CUSTOMERS
        };
        Arc::new(Self::new(words, expected))
    }

    pub(crate) fn came(&self) {
        self.came.fetch_add(1, Relaxed);
    }

    pub(crate) fn left(&self, is_ok: bool) {
        let counter = if is_ok { &self.ended } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// A coffee was brewed, or an event acknowledged.
    pub(crate) fn event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    /// Counts a coffee as being brewed for as long as the guard lives.
    pub(crate) fn brew(&self) -> Brewing<'_> {
        self.brewing.send_modify(|now| *now += 1);
        Brewing(self)
    }

    /// Follows the number of coffees being brewed.
    pub(crate) fn brewing(&self) -> watch::Receiver<u32> {
        self.brewing.subscribe()
    }

    /// The count whose growth is the rate.
    fn done(&self) -> u64 {
        let counter = match self.words.events {
            Some(_) => &self.events,
            None => &self.ended,
        };
        counter.load(Relaxed)
    }

    fn line(&self, per_s: f64) -> String {
        let words = self.words;
        let [came, ended, failed, events] =
            [&self.came, &self.ended, &self.failed, &self.events].map(|count| count.load(Relaxed));
        let mut parts: Vec<_> = self.name.map(str::to_owned).into_iter().collect();
        if let Some(word) = words.under_way {
            parts.push(format!("{word} {}", came.saturating_sub(ended + failed)));
        }
        if words.brewing {
            parts.push(format!("brewing {}", *self.brewing.borrow()));
        }
        if let Some(word) = words.ended {
            parts.push(match self.expected {
                0 => format!("{word} {ended}"),
                expected => format!("{word} {ended}/{expected}"),
            });
        }
        if failed > 0 {
            parts.push(format!("{} {failed}", words.failed));
        }
        if let Some(word) = words.events {
            parts.push(format!("{word} {events}"));
        }
        parts.push(format!("{per_s:.1}/s measured"));
        parts.join(" · ")
    }
}

/// A coffee being brewed.
pub(crate) struct Brewing<'a>(&'a Progress);

impl Drop for Brewing<'_> {
    fn drop(&mut self) {
        self.0.brewing.send_modify(|now| *now -= 1);
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
            bar.set_position(progress.ended.load(Relaxed));
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
    fn the_line_has_the_counts_of_its_run() {
        let rush = Progress::of_rush(Some("with flood"), 3);
        let drones = Progress::of_missions(0);
        for progress in [&rush, &drones] {
            progress.came();
            progress.came();
            progress.left(false);
            progress.event();
        }
        let brewing = rush.brew();
        let expected =
            "with flood · waiting 1 · brewing 1 · served 0/3 · failed 1 · 1.2/s measured";
        assert_eq!(rush.line(1.25), expected);
        drop(brewing);
        let expected = "flying 1 · missions ended 0 · given up 1 · events 1 · 0.0/s measured";
        assert_eq!(drones.line(0.0), expected);
        let baristas = Progress::of_baristas().line(0.0);
        assert_eq!(baristas, "brewing 0 · brewed 0 · 0.0/s measured");
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
