//! The picture of the waiting times: one HTML page with inline SVG that needs nothing else to be viewed.
//!
//! Panels over the same axis of waiting time: each customer by order of arrival, of a rush with a flood once without
//! and once with it, and the distribution.
//! Drawn by hand and not with a plotting crate, because the page follows the reader's light or dark colours,
//! which takes CSS classes on every mark.

mod panels;
mod ticks;

use std::fmt::{self, Display};

use self::panels::{CROSS, Moment, WaitAxis, by_arrival, class, distribution, open_panel};
use crate::{
    pace::spoken,
    report::{Report, rate, scales, status_name},
    visits::{Visit, Waits},
};

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
.moment { stroke: var(--refused); } svg .moment-name { fill: var(--refused); }
.curve { fill: none; stroke: var(--served); stroke-width: 2; } .behind { stroke: var(--faint); } .mark { fill: var(--served); }
table { border-collapse: collapse; margin-top: .3rem; } th { font-weight: 600; text-align: left; }
th, td { padding: .15rem 1.6rem .15rem 0; } td { text-align: right; font-variant-numeric: tabular-nums; }
thead th + th { text-align: right; }
";

/// The whole page. `without_flood` are the same visits in a run before the flood, if there was one.
pub(crate) fn page(report: &Report, visits: &[Visit], without_flood: Option<&[Visit]>) -> String {
    Page {
        report,
        visits,
        without_flood,
    }
    .to_string()
}

struct Page<'a> {
    report: &'a Report,
    visits: &'a [Visit],
    without_flood: Option<&'a [Visit]>,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        let before = self.without_flood.unwrap_or_default();
        let axis = WaitAxis::new(self.visits.iter().chain(before), self.report.speed);
        let (mut which, mut moments) = ("", Vec::new());
        if let Some(without) = self.without_flood {
            self.arrivals(f, without, &axis, ", without the flood", &[])?;
            which = ", with the flood";
            moments = self.moments();
        }
        self.arrivals(f, self.visits, &axis, which, &moments)?;

        writeln!(
            f,
            "<h2>Distribution of the waiting times of the served</h2>"
        )?;
        if self.without_flood.is_some() {
            writeln!(
                f,
                "<p class=\"faint\">The faint curve is the run without the flood.</p>"
            )?;
        }
        open_panel(f, "Waiting time by percentile of the served customers")?;
        axis.draw(f)?;
        distribution(f, self.visits, self.without_flood, &axis)?;
        writeln!(f, "</svg>")?;
        tables(f, self.report, which)
    }
}

impl Page<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
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
        for finding in report.findings() {
            writeln!(f, "<p>{finding}</p>")?;
        }
        write!(f, "<p class=\"faint\">simulators {}", report.command)?;
        if let Some(seed) = report.seed {
            write!(f, ", seed {seed}")?;
        }
        write!(f, ", {} measured", spoken(report.elapsed.measured))?;
        if let Some(scales) = scales(report.speed) {
            write!(f, "; {scales}")?;
        }
        writeln!(f, "</p>")
    }

    fn arrivals(
        &self,
        f: &mut fmt::Formatter<'_>,
        visits: &[Visit],
        axis: &WaitAxis,
        which: &str,
        moments: &[Moment],
    ) -> fmt::Result {
        writeln!(f, "<h2>Waiting time by order of arrival{which}</h2>")?;
        legend(f, visits)?;
        let customers = self.report.customers.as_ref();
        if customers.is_some_and(|customers| customers.out_of_turn.is_some()) {
            writeln!(
                f,
                "<p class=\"faint\">Those who came at once stand in the order in which the shop noted them.</p>"
            )?;
        }
        open_panel(f, "Waiting time of each customer by order of arrival")?;
        axis.draw(f)?;
        by_arrival(f, visits, axis, moments)?;
        writeln!(f, "</svg>")
    }

    fn moments(&self) -> Vec<Moment> {
        let Some(comparison) = &self.report.comparison else {
            return Vec::new();
        };
        let moments = [
            (comparison.flood_came, "the flood comes"),
            (comparison.cut_off, "the flooder is cut off"),
        ];
        let known = moments.into_iter();
        known
            .filter_map(|(span, happening)| Some((span?.measured, happening)))
            .collect()
    }
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

fn tables(f: &mut fmt::Formatter<'_>, report: &Report, which: &str) -> fmt::Result {
    let Some(customers) = &report.customers else {
        return Ok(());
    };
    writeln!(f, "<h2>Figures{which}</h2>\n<table>")?;
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
    writeln!(f, "</table>\n<h2>Customers{which}</h2>\n<table>")?;
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

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::{
        connection::TransportError,
        deeds::tests::listed,
        report::tests::{flooded, report},
        visits::{
            Outcome,
            tests::{SERVED, visit},
        },
    };

    fn page_of(factor: u32, visits: &[Visit]) -> String {
        page(&report(factor, visits), visits, None)
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

    #[tokio::test]
    async fn a_flooded_rush_shows_both_runs_and_when_the_flood_came() {
        let visits = [visit(100, SERVED), visit(200, SERVED)];
        let report = flooded(&visits, Some(listed(100)));
        let page = page(&report, &visits, Some(&visits[..1]));
        assert_eq!(page.matches("class=\"customer served\"").count(), 3);
        assert_eq!(page.matches("class=\"moment\"").count(), 2);
        assert_eq!(page.matches("class=\"curve behind\"").count(), 1);
        assert!(page.contains("by order of arrival, without the flood"));
        assert!(page.contains("by order of arrival, with the flood"));
        assert!(page.contains("The flooder was cut off 100 ms after the first order."));
        let calm = page_of(100, &visits);
        assert!(!calm.contains("flood"), "{calm}");
    }

    #[test]
    fn an_empty_run_and_one_without_service_are_drawn_too() {
        assert!(page_of(1, &[]).contains("nobody was served"));
        assert!(page_of(1, &[visit(0, Outcome::Unanswered)]).contains("nobody was served"));
    }
}
