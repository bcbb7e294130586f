//! The picture of the waiting times: one HTML page with inline SVG that needs nothing else to be viewed.
//!
//! Two panels over the same axis of waiting time: each customer by order of arrival, and the distribution.
//! Drawn by hand and not with a plotting crate, because the page follows the reader's light or dark colours,
//! which takes CSS classes on every mark.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use crate::{
    pace::{Span, Speed, spoken},
    report::{Report, rate, scales, status_name},
    visits::{Outcome, Visit, Waits, count},
};

/// Size and margins of a panel in SVG units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = WIDTH - 88.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 54.0;

/// More ticks than this crowd an axis.
const TICKS_MAX: u128 = 7;
/// More groups than this are not named: their names would touch.
const GROUPS_NAMED_MAX: usize = 12;
/// Above this many customers the marks shrink.
const LARGE_MARKS_MAX: usize = 600;

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2129; --faint: #6b7280; --grid: #e4e7ec;
  --served: #2563eb; --refused: #c2410c; --failed: #dc2626; --unanswered: #7c3aed; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e6e8ec; --faint: #9aa3b2; --grid: #2b313b;
  --served: #6ea8fe; --refused: #fb923c; --failed: #f87171; --unanswered: #c4b5fd; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
p { margin: .2rem 0; } .faint { color: var(--faint); }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .tick { fill: var(--faint); }
.grid { stroke: var(--grid); } .axis { stroke: var(--faint); } .group { stroke: var(--faint); stroke-dasharray: 2 4; }
.served { fill: var(--served); fill-opacity: .75; } .cross { fill: none; stroke-width: 2; }
.refused { stroke: var(--refused); } .failed { stroke: var(--failed); } .unanswered { stroke: var(--unanswered); }
.curve { fill: none; stroke: var(--served); stroke-width: 2; } .mark { fill: var(--served); }
table { border-collapse: collapse; margin-top: .3rem; } th { font-weight: 600; text-align: left; }
th, td { padding: .15rem 1.6rem .15rem 0; } td { text-align: right; font-variant-numeric: tabular-nums; }
thead th + th { text-align: right; }
";

/// The whole page.
pub(crate) fn page(report: &Report, visits: &[Visit]) -> String {
    Page { report, visits }.to_string()
}

struct Page<'a> {
    report: &'a Report,
    visits: &'a [Visit],
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, visits } = *self;
        let axis = WaitAxis::new(visits, report.speed);
        writeln!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">"
        )?;
        writeln!(
            f,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        )?;
        writeln!(f, "<title>Waiting times: {}</title>", report.command)?;
        writeln!(f, "<style>{STYLE}</style>\n<h1>{}</h1>", report.verdict())?;
        let run = spoken(report.elapsed.measured);
        write!(
            f,
            "<p class=\"faint\">simulators {}, seed {}, {run} measured",
            report.command, report.seed
        )?;
        if let Some(scales) = scales(report.speed) {
            write!(f, "; {scales}")?;
        }
        writeln!(f, "</p>")?;

        writeln!(f, "<h2>Waiting time by order of arrival</h2>")?;
        legend(f, visits)?;
        if report
            .customers
            .as_ref()
            .is_some_and(|customers| customers.out_of_turn.is_some())
        {
            writeln!(
                f,
                "<p class=\"faint\">Those who came at once stand in the order in which the shop noted them.</p>"
            )?;
        }
        open_panel(f, "Waiting time of each customer by order of arrival")?;
        axis.draw(f)?;
        by_arrival(f, visits, &axis)?;
        writeln!(f, "</svg>")?;

        writeln!(
            f,
            "<h2>Distribution of the waiting times of the served</h2>"
        )?;
        open_panel(f, "Waiting time by percentile of the served customers")?;
        axis.draw(f)?;
        distribution(f, visits, &axis)?;
        writeln!(f, "</svg>")?;
        tables(f, report)
    }
}

fn open_panel(f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
    writeln!(
        f,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
    )
}

/// The vertical axis of both panels. Its grid is on the simulated scale, with the measured one on the right.
struct WaitAxis {
    speed: Speed,
    /// Simulated.
    top: Duration,
    /// Simulated.
    step: Duration,
}

impl WaitAxis {
    fn new(visits: &[Visit], speed: Speed) -> Self {
        let longest = visits
            .iter()
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

    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

fn by_arrival(f: &mut fmt::Formatter<'_>, visits: &[Visit], axis: &WaitAxis) -> fmt::Result {
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
const CROSS: &str = "m-4 -4 8 8m0 -8 -8 8";

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

fn distribution(f: &mut fmt::Formatter<'_>, visits: &[Visit], axis: &WaitAxis) -> fmt::Result {
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
    let mut waits: Vec<_> = visits
        .iter()
        .filter(|visit| visit.outcome.is_served())
        .map(|visit| visit.wait)
        .collect();
    waits.sort_unstable();
    let Some(shortest) = waits.first() else {
        let middle = f64::midpoint(TOP, BOTTOM);
        return text(f, x(0.5), middle, "middle", "tick", "nobody was served");
    };
    let total = count(waits.len());
    write!(
        f,
        "<path class=\"curve\" d=\"M{LEFT} {:.1}",
        axis.y_of(*shortest)
    )?;
    for (index, wait) in waits.iter().enumerate() {
        write!(
            f,
            "V{:.1}H{:.1}",
            axis.y_of(*wait),
            x(count(index + 1) / total)
        )?;
    }
    writeln!(f, "\"/>")?;
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

/// What the marks mean, of those that occur.
fn legend(f: &mut fmt::Formatter<'_>, visits: &[Visit]) -> fmt::Result {
    const MEANINGS: [(&str, &str); 4] = [
        ("served", "served (200)"),
        ("refused", "another status"),
        ("failed", "transport error"),
        ("unanswered", "unanswered when stopped"),
    ];
    let occurs = |wanted: &str| visits.iter().any(|visit| class(visit.outcome) == wanted);
    write!(f, "<p class=\"faint\">")?;
    for (name, meaning) in MEANINGS.into_iter().filter(|(name, _)| occurs(name)) {
        write!(
            f,
            "<svg viewBox=\"0 0 12 12\" style=\"display:inline;width:.8em\">"
        )?;
        if name == "served" {
            write!(f, "<circle class=\"served\" cx=\"6\" cy=\"6\" r=\"5\"/>")?;
        } else {
            write!(f, "<path class=\"cross {name}\" d=\"M6 6{CROSS}\"/>")?;
        }
        write!(f, "</svg> {meaning} &emsp;")?;
    }
    writeln!(f, "</p>")
}

fn class(outcome: Outcome) -> &'static str {
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

fn tables(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let Some(customers) = &report.customers else {
        return Ok(());
    };
    writeln!(f, "<h2>Figures</h2>\n<table>")?;
    let both = !report.speed.is_real_time();
    if both {
        writeln!(
            f,
            "<thead><tr><th></th><th>simulated</th><th>measured</th></tr></thead>"
        )?;
    }
    let mut times = |label: &str, simulated: String, measured: String| {
        write!(f, "<tr><th>{label}</th>")?;
        if both {
            write!(f, "<td>{simulated}</td>")?;
        }
        writeln!(f, "<td>{measured}</td></tr>")
    };
    for (name, span) in customers.waits.iter().flat_map(Waits::named) {
        times(
            &format!("waiting time, {name}"),
            spoken(span.simulated),
            spoken(span.measured),
        )?;
    }
    let per_s = &customers.served_per_s;
    times("served", rate(per_s.simulated), rate(per_s.measured))?;
    writeln!(f, "</table>\n<h2>Customers</h2>\n<table>")?;
    let mut row =
        |label: &str, times: usize| writeln!(f, "<tr><th>{label}</th><td>{times}</td></tr>");
    for (status, times) in &customers.by_status {
        row(&status_name(*status), *times)?;
    }
    for (error, times) in &customers.by_transport_error {
        row(error, *times)?;
    }
    for (label, times) in [
        ("unanswered when stopped", customers.unanswered),
        ("not yet come when stopped", customers.not_arrived),
    ] {
        if times > 0 {
            row(label, times)?;
        }
    }
    if let Some(out_of_turn) = customers.out_of_turn {
        row("started out of turn", out_of_turn)?;
    }
    writeln!(f, "</table>\n</html>")
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

/// Multiples of `step` from zero up to `top`.
fn ticks(top: Duration, step: Duration) -> impl Iterator<Item = Duration> {
    (0..)
        .map(move |number| step * number)
        .take_while(move |tick| *tick <= top)
}

/// A step between ticks that people count in, for an axis up to `top`.
fn nice_step(top: Duration) -> Duration {
    const STEPS_MS: [u64; 31] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        15_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        900_000,
        1_800_000,
        3_600_000,
        7_200_000,
        14_400_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        432_000_000,
        864_000_000,
        8_640_000_000,
    ];
    let step = STEPS_MS
        .into_iter()
        .find(|step| top.as_millis() <= u128::from(*step) * TICKS_MAX);
    // Beyond two years of waiting the axis is crowded, and nobody is left to mind.
    Duration::from_millis(step.unwrap_or(STEPS_MS[STEPS_MS.len() - 1]))
}

/// A step between counted ticks: 1, 2 or 5 times a power of ten.
fn nice_count_step(top: usize) -> usize {
    let mut power = 1;
    loop {
        if let Some(factor) = [1, 2, 5]
            .into_iter()
            .find(|factor| top <= factor * power * 10)
        {
            return factor * power;
        }
        power *= 10;
    }
}

/// A tick's time without odd zeros: `500 ms`, `30 s`, `2 min`, `1 h 30 min`.
fn tick_label(tick: Duration) -> String {
    let millis = tick.as_millis();
    if millis == 0 {
        return "0".to_owned();
    }
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 60_000 && !millis.is_multiple_of(1000) {
        return format!("{:.1} s", tick.as_secs_f64());
    }
    let seconds = tick.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let words: Vec<_> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::{
        connection::TransportError,
        report::tests::report,
        visits::tests::{SERVED, visit},
    };

    fn page_of(factor: u32, visits: &[Visit]) -> String {
        page(&report(factor, visits), visits)
    }

    #[test]
    fn there_is_one_mark_per_customer_of_the_kind_of_the_outcome() {
        let mut visits: Vec<_> = (0..150).map(|index| visit(index * 10, SERVED)).collect();
        visits.push(visit(5, Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE)));
        visits.push(visit(5, Outcome::Failed(TransportError::Reset)));
        visits.push(visit(5, Outcome::Unanswered));
        let page = page_of(100, &visits);
        let marks = |class: &str| page.matches(&format!("class=\"customer {class}")).count();
        assert_eq!(marks(""), 153);
        assert_eq!(marks("served"), 150);
        assert_eq!(
            (
                marks("cross refused"),
                marks("cross failed"),
                marks("cross unanswered")
            ),
            (1, 1, 1)
        );
        assert!(page.contains("customer 151 of group 1: 503 Service Unavailable"));
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page_of(100, &[visit(10, SERVED)]);
        for reference in [
            "http:", "https:", "src=", "href=", "@import", "url(", "<script",
        ] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn both_scales_are_named_only_when_there_are_two() {
        let visits = [visit(3600, SERVED)];
        let compressed = page_of(100, &visits);
        assert!(
            compressed.contains("waiting time, simulated")
                && compressed.contains("waiting time, measured")
        );
        assert!(compressed.contains("6 min 00 s simulated, 3.6 s measured"));
        let real = page_of(1, &visits);
        assert!(!real.contains("simulated"), "{real}");
    }

    #[test]
    fn an_empty_run_and_one_without_service_are_drawn_too() {
        assert!(page_of(1, &[]).contains("nobody was served"));
        assert!(page_of(1, &[visit(0, Outcome::Unanswered)]).contains("nobody was served"));
    }

    #[test]
    fn every_mark_lies_within_the_axes() {
        let visits: Vec<_> = [0, 1, 59_999, 60_001].map(|ms| visit(ms, SERVED)).into();
        for factor in [1, 7, 100] {
            let axis = WaitAxis::new(&visits, crate::visits::tests::speed(factor));
            for visit in &visits {
                assert!((TOP..=BOTTOM).contains(&axis.y_of(visit.wait)));
            }
        }
    }

    #[test]
    fn axes_have_a_handful_of_round_ticks() {
        for (top_ms, step_ms) in [
            (1, 1),
            (8, 2),
            (6_700, 1_000),
            (400_000, 60_000),
            (1_000_000, 300_000),
        ] {
            assert_eq!(
                nice_step(Duration::from_millis(top_ms)),
                Duration::from_millis(step_ms)
            );
        }
        assert_eq!(
            [7, 10, 150, 311, 5000].map(nice_count_step),
            [1, 1, 20, 50, 500]
        );
        let labels = [0, 500, 1_500, 30_000, 90_000, 5_400_000]
            .map(|ms| tick_label(Duration::from_millis(ms)));
        assert_eq!(
            labels,
            ["0", "500 ms", "1.5 s", "30 s", "1 min 30 s", "1 h 30 min"]
        );
    }
}
