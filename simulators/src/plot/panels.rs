//! The panels of the page, each an SVG of its own over the same axis of waiting time.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use tokio::time::Instant;

use super::ticks::{nice_count_step, nice_step, tick_label, ticks};
use crate::{
    outcome::status_name,
    pace::{Speed, spoken},
    tally::{Tally, as_f64, as_u64},
};

/// Size and margins of a panel in SVG units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = WIDTH - 88.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 54.0;
/// A bar of a panel of answers, and the column of its label.
const BAR_HEIGHT: f64 = 22.0;
const BAR_LEFT: f64 = 280.0;

/// Above this many marks they shrink.
const LARGE_MARKS_MAX: usize = 600;

/// A cross around the point moved to before.
const CROSS: &str = "m-4 -4 8 8m0 -8 -8 8";

/// What a page shows.
#[derive(Debug)]
pub(crate) enum Panel {
    Marks(Marks),
    Distribution(Distribution),
    /// How often there was which answer, or none for which reason.
    Answers(Vec<(String, u64)>),
}

/// Waiting times, each at its place.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) title: String,
    pub(crate) note: Option<&'static str>,
    pub(crate) horizontal: Horizontal,
    pub(crate) points: Vec<Mark>,
    /// Dashed lines between groups of marks.
    pub(crate) bounds: Vec<f64>,
    /// Names above the panel.
    pub(crate) names: Vec<(f64, String)>,
    /// What happened at which place.
    pub(crate) moments: Vec<(f64, &'static str)>,
}

/// The horizontal axis of marks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Horizontal {
    /// So many customers; the first is between 0 and 1.
    Arrivals(usize),
    /// Seconds of a run that took so long, measured.
    Run(Duration),
}

#[derive(Debug)]
pub(crate) struct Mark {
    /// On the horizontal axis.
    pub(crate) place: f64,
    /// Measured.
    pub(crate) wait: Duration,
    pub(crate) kind: Kind,
    /// What is said about it when pointed at, before the waiting time.
    pub(crate) tip: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Served,
    Refused,
    Failed,
    Unanswered,
}

impl Kind {
    /// As a class, and in words.
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Served, "served", "served (200)"),
        (Self::Refused, "refused", "another status"),
        (Self::Failed, "failed", "transport error"),
        (Self::Unanswered, "unanswered", "unanswered when stopped"),
    ];

    fn class(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Waiting times, sorted; measured.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub(crate) title: String,
    pub(crate) note: Option<&'static str>,
    /// What the horizontal axis is.
    pub(crate) share: &'static str,
    pub(crate) waits: Vec<Duration>,
    /// Others, faintly behind them.
    pub(crate) behind: Option<Vec<Duration>>,
}

impl Panel {
    /// Over time, and their distribution.
    pub(crate) fn of_latencies(name: &str, points: &[(Instant, Duration)]) -> [Self; 2] {
        let begun = points.iter().map(|(at, latency)| *at - *latency).min();
        let place = |at: Instant| begun.map_or(Duration::ZERO, |begun| at - begun);
        let length = points.iter().map(|(at, _)| place(*at)).max();
        let mut waits: Vec<_> = points.iter().map(|(_, latency)| *latency).collect();
        waits.sort_unstable();
        let points = points.iter().map(|(at, latency)| Mark {
            place: place(*at).as_secs_f64(),
            wait: *latency,
            kind: Kind::Served,
            tip: format!("at {}", spoken(place(*at))),
        });
        let over_time = Marks {
            title: format!("Latency over time: {name}"),
            note: None,
            horizontal: Horizontal::Run(length.unwrap_or_default()),
            points: points.collect(),
            bounds: Vec::new(),
            names: Vec::new(),
            moments: Vec::new(),
        };
        let distribution = Distribution {
            title: format!("Distribution of the latencies: {name}"),
            note: None,
            share: "share of the acknowledged that took no longer",
            waits,
            behind: None,
        };
        [Self::Marks(over_time), Self::Distribution(distribution)]
    }

    pub(crate) fn of_answers(tally: &Tally) -> Self {
        let statuses = tally.by_status.iter();
        let statuses = statuses.map(|(status, times)| (status_name(*status), *times));
        let errors = tally.by_transport_error.iter();
        let errors = errors.map(|(error, times)| (error.clone(), *times));
        Self::Answers(statuses.chain(errors).collect())
    }

    /// The longest waiting time in it, measured.
    pub(super) fn longest(&self) -> Duration {
        match self {
            Self::Marks(panel) => panel.points.iter().map(|mark| mark.wait).max(),
            Self::Distribution(panel) => panel.waits.last().copied(),
            Self::Answers(_) => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn draw(&self, f: &mut Formatter<'_>, axis: &WaitAxis) -> fmt::Result {
        match self {
            Self::Marks(panel) => panel.draw(f, axis),
            Self::Distribution(panel) => panel.draw(f, axis),
            Self::Answers(answers) => bars(f, answers),
        }
    }
}

fn heading(f: &mut Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "<h2>{title}</h2>")
}

fn open(f: &mut Formatter<'_>, title: &str, note: Option<&str>, height: f64) -> fmt::Result {
    if let Some(note) = note {
        writeln!(f, "<p class=\"faint\">{note}</p>")?;
    }
    writeln!(
        f,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    )
}

/// The vertical axis of all panels. Its grid is on the simulated scale, with the measured one on the right.
pub(super) struct WaitAxis {
    speed: Speed,
    /// Simulated.
    top: Duration,
    /// Simulated.
    step: Duration,
}

impl WaitAxis {
    /// High enough for this waiting time, measured.
    pub(super) fn new(longest: Duration, speed: Speed) -> Self {
        let longest = speed.simulated(longest).max(Duration::from_millis(1));
        let step = nice_step(longest);
        let steps = longest.as_nanos().div_ceil(step.as_nanos());
        Self {
            speed,
            top: step * u32::try_from(steps).unwrap_or(u32::MAX),
            step,
        }
    }

    /// The height of a simulated time.
    fn y(&self, simulated: Duration) -> f64 {
        BOTTOM - (BOTTOM - TOP) * simulated.div_duration_f64(self.top)
    }

    /// The height of a measured time.
    fn y_of(&self, wait: Duration) -> f64 {
        self.y(self.speed.simulated(wait))
    }

    fn draw(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for tick in ticks(self.top, self.step) {
            let y = self.y(tick);
            line(f, "grid", [LEFT, RIGHT], [y, y])?;
            text(f, LEFT - 8.0, y + 4.0, "end", "tick", tick_label(tick))?;
        }
        if self.speed.is_real_time() {
            return upright(f, 16.0, "waiting time");
        }
        upright(f, 16.0, "waiting time, simulated")?;
        let measured_top = self.speed.measured(self.top);
        for tick in ticks(measured_top, nice_step(measured_top)) {
            let y = self.y_of(tick);
            line(f, "axis", [RIGHT, RIGHT + 5.0], [y, y])?;
            text(f, RIGHT + 9.0, y + 4.0, "start", "tick", tick_label(tick))?;
        }
        upright(f, WIDTH - 8.0, "waiting time, measured")
    }

    fn spoken(&self, wait: Duration) -> String {
        let measured = spoken(wait);
        if self.speed.is_real_time() {
            return measured;
        }
        let simulated = spoken(self.speed.simulated(wait));
        format!("{simulated} simulated, {measured} measured")
    }
}

impl Horizontal {
    fn x(self, place: f64) -> f64 {
        let whole = match self {
            Self::Arrivals(customers) => as_f64(as_u64(customers)).max(1.0),
            Self::Run(length) => length.as_secs_f64().max(1e-3),
        };
        LEFT + (RIGHT - LEFT) * place / whole
    }

    fn draw(self, f: &mut Formatter<'_>) -> fmt::Result {
        let y = BOTTOM + 18.0;
        match self {
            Self::Arrivals(customers) => {
                horizontal_axis(f, "customers in order of arrival")?;
                let step = nice_count_step(customers);
                for number in (0..=customers).step_by(step).skip(1) {
                    let x = self.x(as_f64(as_u64(number)) - 0.5);
                    text(f, x, y, "middle", "tick", number)?;
                }
            }
            Self::Run(length) => {
                horizontal_axis(f, "time of the run, measured")?;
                for tick in ticks(length, nice_step(length.max(Duration::from_millis(1)))) {
                    let x = self.x(tick.as_secs_f64());
                    text(f, x, y, "middle", "tick", tick_label(tick))?;
                }
            }
        }
        Ok(())
    }
}

impl Marks {
    fn draw(&self, f: &mut Formatter<'_>, axis: &WaitAxis) -> fmt::Result {
        heading(f, &self.title)?;
        self.legend(f)?;
        open(f, &self.title, self.note, HEIGHT)?;
        axis.draw(f)?;
        let x = |place: f64| self.horizontal.x(place);
        for bound in &self.bounds {
            line(f, "group", [x(*bound); 2], [TOP, BOTTOM])?;
        }
        for (place, name) in &self.names {
            text(f, x(*place), TOP - 10.0, "middle", "tick", name)?;
        }
        for (number, (place, happening)) in (1..).zip(&self.moments) {
            line(f, "moment", [x(*place); 2], [TOP, BOTTOM])?;
            let y = TOP + 16.0 * f64::from(number);
            text(f, x(*place) + 6.0, y, "start", "moment-name", happening)?;
        }
        self.horizontal.draw(f)?;
        let radius = if self.points.len() <= LARGE_MARKS_MAX {
            3.0
        } else {
            1.8
        };
        for mark in &self.points {
            mark.draw(f, x(mark.place), axis, radius)?;
        }
        writeln!(f, "</svg>")
    }

    /// What the marks mean, of those that occur.
    fn legend(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if matches!(self.horizontal, Horizontal::Run(_)) {
            return Ok(());
        }
        write!(f, "<p class=\"faint\">")?;
        for (kind, class, meaning) in Kind::ALL {
            if !self.points.iter().any(|mark| mark.kind == kind) {
                continue;
            }
            write!(
                f,
                "<svg viewBox=\"0 0 12 12\" style=\"display:inline;width:.8em\">"
            )?;
            if kind == Kind::Served {
                write!(f, "<circle class=\"served\" cx=\"6\" cy=\"6\" r=\"5\"/>")?;
            } else {
                write!(f, "<path class=\"cross {class}\" d=\"M6 6{CROSS}\"/>")?;
            }
            write!(f, "</svg> {meaning} &emsp;")?;
        }
        writeln!(f, "</p>")
    }
}

impl Mark {
    fn draw(&self, f: &mut Formatter<'_>, x: f64, axis: &WaitAxis, radius: f64) -> fmt::Result {
        let y = axis.y_of(self.wait);
        let class = self.kind.class();
        let title = format!("<title>{} {}</title>", self.tip, axis.spoken(self.wait));
        if self.kind == Kind::Served {
            writeln!(
                f,
                "<circle class=\"mark-of {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">{title}</circle>"
            )
        } else {
            writeln!(
                f,
                "<path class=\"mark-of cross {class}\" d=\"M{x:.1} {y:.1}{CROSS}\">{title}</path>"
            )
        }
    }
}

impl Distribution {
    fn draw(&self, f: &mut Formatter<'_>, axis: &WaitAxis) -> fmt::Result {
        heading(f, &self.title)?;
        open(f, &self.title, self.note, HEIGHT)?;
        axis.draw(f)?;
        let x = |share: f64| LEFT + (RIGHT - LEFT) * share;
        horizontal_axis(f, self.share)?;
        for percent in [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0] {
            let label = format!("{percent} %");
            let x = x(percent / 100.0);
            text(f, x, BOTTOM + 18.0, "middle", "tick", label)?;
        }
        if let Some(behind) = &self.behind {
            curve(f, behind, axis, "curve behind")?;
        }
        if self.waits.is_empty() {
            let middle = f64::midpoint(TOP, BOTTOM);
            text(f, x(0.5), middle, "middle", "tick", "there are none")?;
        }
        curve(f, &self.waits, axis, "curve")?;
        for (name, percent) in [("p50", 50_u8), ("p90", 90), ("p99", 99)] {
            let index = (self.waits.len() * usize::from(percent)).div_ceil(100);
            let Some(wait) = self.waits.get(index.saturating_sub(1)) else {
                continue;
            };
            let (at, y) = (x(f64::from(percent) / 100.0), axis.y_of(*wait));
            line(f, "group", [at; 2], [TOP, BOTTOM])?;
            writeln!(
                f,
                "<circle class=\"mark\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
            )?;
            text(f, at, TOP - 10.0, "middle", "tick", name)?;
        }
        writeln!(f, "</svg>")
    }
}

fn curve(f: &mut Formatter<'_>, waits: &[Duration], axis: &WaitAxis, class: &str) -> fmt::Result {
    let Some(shortest) = waits.first() else {
        return Ok(());
    };
    let start = axis.y_of(*shortest);
    write!(f, "<path class=\"{class}\" d=\"M{LEFT} {start:.1}")?;
    let step = (RIGHT - LEFT) / as_f64(as_u64(waits.len()));
    for (index, wait) in (1..).zip(waits) {
        let (x, y) = (LEFT + step * as_f64(index), axis.y_of(*wait));
        write!(f, "V{y:.1}H{x:.1}")?;
    }
    writeln!(f, "\"/>")
}

fn bars(f: &mut Formatter<'_>, answers: &[(String, u64)]) -> fmt::Result {
    let height = BAR_HEIGHT * (as_f64(as_u64(answers.len())) + 0.5);
    heading(f, "Answers")?;
    open(f, "Answers", None, height)?;
    let most = answers.iter().map(|(_, times)| *times).max();
    let most = as_f64(most.unwrap_or_default()).max(1.0);
    for (index, (label, times)) in (0..).zip(answers) {
        let y = BAR_HEIGHT * as_f64(index);
        let width = (RIGHT - BAR_LEFT) * as_f64(*times) / most;
        text(f, BAR_LEFT - 8.0, y + 15.0, "end", "tick", label)?;
        writeln!(
            f,
            "<rect class=\"served\" x=\"{BAR_LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"18\"/>"
        )?;
        text(f, BAR_LEFT + width + 8.0, y + 15.0, "start", "tick", times)?;
    }
    writeln!(f, "</svg>")
}

fn horizontal_axis(f: &mut Formatter<'_>, title: &str) -> fmt::Result {
    line(f, "axis", [LEFT, RIGHT], [BOTTOM, BOTTOM])?;
    let middle = f64::midpoint(LEFT, RIGHT);
    text(f, middle, HEIGHT - 12.0, "middle", "title", title)
}

fn line(f: &mut Formatter<'_>, class: &str, x: [f64; 2], y: [f64; 2]) -> fmt::Result {
    let ([x1, x2], [y1, y2]) = (x, y);
    writeln!(
        f,
        "<line class=\"{class}\" x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>"
    )
}

fn text(
    f: &mut Formatter<'_>,
    x: f64,
    y: f64,
    anchor: &str,
    class: &str,
    label: impl Display,
) -> fmt::Result {
    writeln!(
        f,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{label}</text>"
    )
}

/// The title of a vertical axis.
fn upright(f: &mut Formatter<'_>, x: f64, label: &str) -> fmt::Result {
    let y = f64::midpoint(TOP, BOTTOM);
    writeln!(
        f,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\">{label}</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waiting_time_lies_within_the_axis() {
        for factor in ["1", "7", "100"] {
            let waits = [0, 1, 59_999, 60_001].map(Duration::from_millis);
            let axis = WaitAxis::new(waits[3], factor.parse().unwrap());
            for wait in waits {
                assert!((TOP..=BOTTOM).contains(&axis.y_of(wait)), "{wait:?}");
            }
        }
    }
}
