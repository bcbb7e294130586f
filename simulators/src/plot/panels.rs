//! The panels of the picture, each an SVG of its own over the same axis of waiting time.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use super::ticks::{nice_count_step, nice_step, tick_label, ticks};
use crate::{
    pace::{Span, Speed, spoken},
    report::status_name,
    visits::{Outcome, Visit, count},
};

/// Size and margins of a panel in SVG units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = WIDTH - 88.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 54.0;

/// More groups than this are not named: their names would touch.
const GROUPS_NAMED_MAX: usize = 12;
/// Above this many customers the marks shrink.
const LARGE_MARKS_MAX: usize = 600;

pub(super) fn open_panel(f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
    writeln!(
        f,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
    )
}

/// The vertical axis of both panels. Its grid is on the simulated scale, with the measured one on the right.
pub(super) struct WaitAxis {
    speed: Speed,
    /// Simulated.
    top: Duration,
    /// Simulated.
    step: Duration,
}

impl WaitAxis {
    /// High enough for all of these.
    pub(super) fn new<'a>(visits: impl IntoIterator<Item = &'a Visit>, speed: Speed) -> Self {
        let longest = visits
            .into_iter()
            .map(|visit| visit.wait)
            .max()
            .unwrap_or_default();
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

    pub(super) fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tick in ticks(self.top, self.step) {
            let y = self.y(tick);
            writeln!(
                f,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            )?;
            text(f, LEFT - 8.0, y + 4.0, "end", "tick", tick_label(tick))?;
        }
        let one_scale = self.speed.is_real_time();
        let title = if one_scale {
            "waiting time"
        } else {
            "waiting time, simulated"
        };
        upright(f, 16.0, title)?;
        if one_scale {
            return Ok(());
        }
        let measured_top = self.speed.measured(self.top);
        for tick in ticks(measured_top, nice_step(measured_top)) {
            let y = self.y_of(tick);
            let end = RIGHT + 5.0;
            writeln!(
                f,
                "<line class=\"axis\" x1=\"{RIGHT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            )?;
            text(f, RIGHT + 9.0, y + 4.0, "start", "tick", tick_label(tick))?;
        }
        upright(f, WIDTH - 8.0, "waiting time, measured")
    }
}

/// A moment of the run, measured since its beginning, and what happened then.
pub(super) type Moment = (Duration, &'static str);

/// Each customer by order of arrival.
pub(super) fn by_arrival(
    f: &mut fmt::Formatter<'_>,
    visits: &[Visit],
    axis: &WaitAxis,
    moments: &[Moment],
) -> fmt::Result {
    let total = count(visits.len()).max(1.0);
    // Each customer has a slot of the width; the mark stands in its middle.
    let slot = (RIGHT - LEFT) / total;
    let x = |index: usize| LEFT + slot * (count(index) + 0.5);
    let radius = if visits.len() <= LARGE_MARKS_MAX {
        3.0
    } else {
        1.8
    };

    group_bounds(f, visits, slot)?;
    for (line, (moment, happening)) in (1..).zip(moments) {
        let before = visits.partition_point(|visit| visit.arrived < *moment);
        let x = LEFT + slot * count(before);
        writeln!(
            f,
            "<line class=\"moment\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>"
        )?;
        let y = TOP + 16.0 * f64::from(line);
        text(f, x + 6.0, y, "start", "moment-name", happening)?;
    }
    horizontal_axis(f, "customers in order of arrival")?;
    let step = nice_count_step(visits.len());
    for number in (0..=visits.len()).step_by(step).skip(1) {
        text(f, x(number - 1), BOTTOM + 18.0, "middle", "tick", number)?;
    }
    for (index, visit) in visits.iter().enumerate() {
        let (x, y) = (x(index), axis.y_of(visit.wait));
        let class = class(visit.outcome);
        if visit.outcome.is_served() {
            write!(
                f,
                "<circle class=\"customer {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">"
            )?;
        } else {
            write!(
                f,
                "<path class=\"customer cross {class}\" d=\"M{x:.1} {y:.1}{CROSS}\">"
            )?;
        }
        let tag = if visit.outcome.is_served() {
            "circle"
        } else {
            "path"
        };
        writeln!(
            f,
            "<title>{}</title></{tag}>",
            tip(index, visit, axis.speed)
        )?;
    }
    Ok(())
}

/// A cross around the point moved to before.
pub(super) const CROSS: &str = "m-4 -4 8 8m0 -8 -8 8";

/// Lines between the groups, where they came one after the other.
fn group_bounds(f: &mut fmt::Formatter<'_>, visits: &[Visit], slot: f64) -> fmt::Result {
    let runs: Vec<_> = visits.chunk_by(|a, b| a.group == b.group).collect();
    if runs.len() < 2 || !runs.is_sorted_by(|a, b| a[0].group < b[0].group) {
        return Ok(());
    }
    let mut before = 0;
    for run in &runs {
        let begin = LEFT + slot * count(before);
        if before > 0 {
            writeln!(
                f,
                "<line class=\"group\" x1=\"{begin:.1}\" x2=\"{begin:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>"
            )?;
        }
        if runs.len() <= GROUPS_NAMED_MAX {
            let middle = begin + slot * count(run.len()) / 2.0;
            let name = format!("group {}", run[0].group);
            text(f, middle, TOP - 10.0, "middle", "tick", name)?;
        }
        before += run.len();
    }
    Ok(())
}

/// The waiting times of the served, sorted: those that matter, and others faintly behind them.
pub(super) fn distribution(
    f: &mut fmt::Formatter<'_>,
    visits: &[Visit],
    behind: Option<&[Visit]>,
    axis: &WaitAxis,
) -> fmt::Result {
    let x = |share: f64| LEFT + (RIGHT - LEFT) * share;
    horizontal_axis(f, "share of the served who waited no longer")?;
    for percent in [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0] {
        let label = format!("{percent} %");
        text(
            f,
            x(percent / 100.0),
            BOTTOM + 18.0,
            "middle",
            "tick",
            label,
        )?;
    }
    if let Some(behind) = behind {
        curve(f, &served_waits(behind), axis, "curve behind")?;
    }
    let waits = served_waits(visits);
    if waits.is_empty() {
        let middle = f64::midpoint(TOP, BOTTOM);
        return text(f, x(0.5), middle, "middle", "tick", "nobody was served");
    }
    curve(f, &waits, axis, "curve")?;
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        let index = (waits.len() * percent).div_ceil(100).saturating_sub(1);
        let at = x(f64::from(u8::try_from(percent).unwrap_or(100)) / 100.0);
        let y = axis.y_of(waits[index]);
        writeln!(
            f,
            "<line class=\"group\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>"
        )?;
        writeln!(
            f,
            "<circle class=\"mark\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
        )?;
        text(f, at, TOP - 10.0, "middle", "tick", name)?;
    }
    Ok(())
}

/// The waiting times of those who got a 200, shortest first.
fn served_waits(visits: &[Visit]) -> Vec<Duration> {
    let served = visits.iter().filter(|visit| visit.outcome.is_served());
    let mut waits: Vec<_> = served.map(|visit| visit.wait).collect();
    waits.sort_unstable();
    waits
}

fn curve(
    f: &mut fmt::Formatter<'_>,
    waits: &[Duration],
    axis: &WaitAxis,
    class: &str,
) -> fmt::Result {
    let Some(shortest) = waits.first() else {
        return Ok(());
    };
    let start = axis.y_of(*shortest);
    write!(f, "<path class=\"{class}\" d=\"M{LEFT} {start:.1}")?;
    let step = (RIGHT - LEFT) / count(waits.len());
    for (index, wait) in waits.iter().enumerate() {
        let (x, y) = (LEFT + step * count(index + 1), axis.y_of(*wait));
        write!(f, "V{y:.1}H{x:.1}")?;
    }
    writeln!(f, "\"/>")
}

fn horizontal_axis(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(
        f,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>"
    )?;
    text(
        f,
        f64::midpoint(LEFT, RIGHT),
        HEIGHT - 12.0,
        "middle",
        "title",
        title,
    )
}

pub(super) fn class(outcome: Outcome) -> &'static str {
    match outcome {
        served if served.is_served() => "served",
        Outcome::Answered(_) => "refused",
        Outcome::Failed(_) => "failed",
        Outcome::Unanswered => "unanswered",
    }
}

/// What is said about a customer when pointed at.
fn tip(index: usize, visit: &Visit, speed: Speed) -> String {
    let outcome = match visit.outcome {
        Outcome::Answered(status) => status_name(status.as_u16()),
        Outcome::Failed(error) => error.to_string(),
        Outcome::Unanswered => "unanswered".to_owned(),
    };
    let wait = both_scales(Span::new(visit.wait, speed), speed);
    format!(
        "customer {} of group {}: {outcome} after {wait}",
        index + 1,
        visit.group
    )
}

fn both_scales(span: Span, speed: Speed) -> String {
    let measured = spoken(span.measured);
    if speed.is_real_time() {
        measured
    } else {
        format!("{} simulated, {measured} measured", spoken(span.simulated))
    }
}

fn text(
    f: &mut fmt::Formatter<'_>,
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
fn upright(f: &mut fmt::Formatter<'_>, x: f64, label: &str) -> fmt::Result {
    let y = f64::midpoint(TOP, BOTTOM);
    writeln!(
        f,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\">{label}</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visits::tests::{SERVED, speed, visit};

    #[test]
    fn every_mark_lies_within_the_axes() {
        let visits: Vec<_> = [0, 1, 59_999, 60_001].map(|ms| visit(ms, SERVED)).into();
        for factor in [1, 7, 100] {
            let axis = WaitAxis::new(&visits, speed(factor));
            for visit in &visits {
                assert!((TOP..=BOTTOM).contains(&axis.y_of(visit.wait)));
            }
        }
    }
}
