//! The same rush without and with a flood: what the flood cost the regulars.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    deeds::Deeds,
    pace::{Span, Speed, spoken},
    report::LABEL_WIDTH,
    visits::{Summary, Visit, Waits},
};

/// What is sought; the report says whether it was reached, the exit code does not depend on it.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(2);
/// Of the waits of those who come when the flooder's coffees are done, compared to the run without the flood.
const RATIO_MAX: f64 = 1.1;
/// Coffees for the flooder: the places that one address may have (`flood.outstanding_max` as it is by default). What was
/// placed before the first refusal may be a neighbour's behind the same address, and stays in line.
const COFFEES_MAX: usize = 250;

/// Two runs with the same arrivals and the same seed of brewing times.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) without_flood: Summary,
    /// Since the beginning of the run, as the next one.
    pub(crate) flood_came: Option<Span>,
    pub(crate) cut_off: Option<Span>,
    waits: Pair,
    /// Of those regulars who came when the flooder had been cut off. They may still find baristas busy with coffees
    /// that were begun before ...
    waits_after_cut_off: Option<Pair>,
    /// ... and of those who came when these had been served too; none when there were none.
    waits_after_last_coffee: Option<Pair>,
}

/// What happened when, measured since the beginning of the run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FloodTimes {
    pub(crate) came: Option<Duration>,
    pub(crate) cut_off: Option<Duration>,
    /// When the flooder got the last coffee.
    pub(crate) last_coffee: Option<Duration>,
}

/// Waiting times of the same regulars in both runs.
#[derive(Debug, Serialize)]
struct Pair {
    regulars: usize,
    without: Option<Waits>,
    with: Option<Waits>,
    /// With the flood, in multiples of without it.
    ratios: Option<Ratios>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Ratios {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Comparison {
    /// `planned` is the number of regulars of one run.
    pub(crate) fn of(
        without: &[Visit],
        with: &[Visit],
        planned: usize,
        times: FloodTimes,
        speed: Speed,
    ) -> Self {
        let after = |moment: Duration| {
            let came_after = |visits: &[Visit]| -> Vec<_> {
                let after = visits.iter().filter(|visit| visit.arrived > moment);
                after.copied().collect()
            };
            Pair::of(&came_after(without), &came_after(with), speed)
        };
        let span = |measured| Span::new(measured, speed);
        Self {
            without_flood: Summary::of(without, planned, speed),
            flood_came: times.came.map(span),
            cut_off: times.cut_off.map(span),
            waits: Pair::of(without, with, speed),
            waits_after_cut_off: times.cut_off.map(after),
            waits_after_last_coffee: times
                .cut_off
                .zip(times.last_coffee)
                .map(|(cut_off, coffee)| after(cut_off.max(coffee))),
        }
    }

    /// A sentence for each thing that is sought.
    pub(crate) fn findings(&self, flooder: Option<&Deeds>) -> Vec<String> {
        let mut findings = vec![self.without_the_flood()];
        match flooder {
            Some(deeds) => findings.extend(of_flooder(deeds)),
            None => findings.push("The flood never came.".to_owned()),
        }
        if let Some(ratios) = self.waits.ratios {
            findings.push(format!(
                "All regulars waited, compared to the run without the flood: {ratios}."
            ));
        }
        if let Some(after) = &self.waits_after_cut_off {
            findings.push(after.of_those_after_cut_off());
        }
        if let Some(after) = &self.waits_after_last_coffee {
            findings.push(after.of_those_after_last_coffee());
        }
        findings
    }

    fn without_the_flood(&self) -> String {
        let Summary {
            arrived, served, ..
        } = self.without_flood;
        if served == arrived {
            format!("Without the flood every one did ({arrived} of {arrived}).")
        } else {
            format!(
                "Without the flood {} of {arrived} did not.",
                arrived - served
            )
        }
    }
}

fn of_flooder(deeds: &Deeds) -> Vec<String> {
    let verdict = deeds.verdict();
    let Some(listed) = deeds.cut_off else {
        let served = deeds.coffees.served;
        return vec![verdict, format!("Coffees for the flooder: {served}.")];
    };
    let started = deeds.coffees.started_after_cut_off.unwrap_or_default();
    vec![
        format!(
            "{verdict} Sought: within {}, {}.",
            spoken(CUT_OFF_WITHIN),
            sought(listed.after <= CUT_OFF_WITHIN)
        ),
        format!(
            "Coffees started for the flooder: {} before, {started} after the cut-off. Sought: at most {COFFEES_MAX}, {}.",
            deeds.coffees.served - started,
            sought(deeds.coffees.served <= COFFEES_MAX)
        ),
    ]
}

fn sought(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

impl Pair {
    fn of(without: &[Visit], with: &[Visit], speed: Speed) -> Self {
        let (regulars, without, with) = (
            with.len(),
            Waits::of(without, speed),
            Waits::of(with, speed),
        );
        let ratios = without.zip(with).map(|(without, with)| Ratios {
            p50: ratio(without.p50, with.p50),
            p90: ratio(without.p90, with.p90),
            p99: ratio(without.p99, with.p99),
            max: ratio(without.max, with.max),
        });
        Self {
            regulars,
            without,
            with,
            ratios,
        }
    }

    fn of_those_after_cut_off(&self) -> String {
        match self.ratios {
            Some(ratios) => format!(
                "The {} who came after the cut-off, some of them behind the flooder's coffees: {ratios}.",
                self.regulars
            ),
            None => "No regular came after the cut-off.".to_owned(),
        }
    }

    fn of_those_after_last_coffee(&self) -> String {
        match self.ratios {
            Some(ratios) => format!(
                "The {} who came when the flooder's coffees were done too: {ratios}. Sought: at most {RATIO_MAX} x, {}.",
                self.regulars,
                sought(ratios.p50 <= RATIO_MAX && ratios.p99 <= RATIO_MAX)
            ),
            None => "No regular came when the flooder's coffees were done.".to_owned(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, who: &str) -> fmt::Result {
        let (Some(without), Some(with), Some(ratios)) = (&self.without, &self.with, self.ratios)
        else {
            return Ok(());
        };
        writeln!(
            f,
            "\n{:<width$}  {:>12}  {:>14}  {:>8}",
            format!("Measured waits of {who}"),
            "without",
            "with flood",
            "ratio",
            width = LABEL_WIDTH + 2
        )?;
        let ratios = [ratios.p50, ratios.p90, ratios.p99, ratios.max];
        for (((name, without), (_, with)), ratio) in
            without.named().into_iter().zip(with.named()).zip(ratios)
        {
            let (without, with) = (spoken(without.measured), spoken(with.measured));
            writeln!(
                f,
                "  {name:<LABEL_WIDTH$}  {without:>12}  {with:>14}  {ratio:>8.2}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:.2} x, p99 {:.2} x", self.p50, self.p99)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waits.write(f, "all regulars")?;
        for (pair, since) in [
            (&self.waits_after_cut_off, "after cut-off"),
            (&self.waits_after_last_coffee, "after last coffee"),
        ] {
            if let Some(pair) = pair {
                pair.write(f, &format!("{} {since}", pair.regulars))?;
            }
        }
        Ok(())
    }
}

fn ratio(without: Span, with: Span) -> f64 {
    with.measured.div_duration_f64(without.measured)
}

#[cfg(test)]
pub(crate) mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::{
        deeds::{
            Beginning,
            tests::{deeds, listed},
        },
        visits::{
            Outcome,
            tests::{SERVED, speed, visit},
        },
    };

    /// Regulars who came at these milliseconds and each waited so long.
    fn regulars(visits_ms: &[(u64, u64)]) -> Vec<Visit> {
        let regular = |(arrived_ms, wait_ms): &(u64, u64)| Visit {
            arrived: Duration::from_millis(*arrived_ms),
            ..visit(*wait_ms, SERVED)
        };
        visits_ms.iter().map(regular).collect()
    }

    pub(crate) fn comparison(cut_off_ms: Option<u64>) -> Comparison {
        Comparison::of(
            &regulars(&[(0, 100), (0, 200), (800, 300), (1000, 400)]),
            &regulars(&[(0, 300), (0, 400), (800, 300), (1000, 420)]),
            4,
            FloodTimes {
                came: Some(Duration::from_millis(10)),
                cut_off: cut_off_ms.map(Duration::from_millis),
                last_coffee: Some(Duration::from_millis(900)),
            },
            speed(1),
        )
    }

    fn near(ratio: f64, expected: f64) -> bool {
        (ratio - expected).abs() < 0.01
    }

    #[test]
    fn those_who_came_after_the_cut_off_are_compared_with_themselves() {
        let comparison = comparison(Some(500));
        let all = comparison.waits.ratios.unwrap();
        assert!(near(all.p50, 1.5) && near(all.max, 1.05), "{all:?}");
        let after = comparison.waits_after_cut_off.unwrap();
        assert_eq!(after.regulars, 2);
        let ratios = after.ratios.unwrap();
        assert!(
            near(ratios.p50, 1.0) && near(ratios.p99, 1.05),
            "{ratios:?}"
        );
    }

    #[tokio::test]
    async fn what_is_sought_is_said_to_be_reached_or_missed() {
        let of_listed = |after_ms| deeds(&[], Beginning::now(), Some(Ok(Some(listed(after_ms)))));
        let text = comparison(Some(500))
            .findings(Some(&of_listed(490)))
            .join("\n");
        assert!(text.contains("Sought: within 2.0 s, reached."), "{text}");
        assert!(text.contains("Sought: at most 250, reached."), "{text}");
        assert!(
            text.contains("without the flood: median 1.50 x, p99 1.05 x."),
            "{text}"
        );
        assert!(
            text.contains("behind the flooder's coffees: median 1.00 x"),
            "{text}"
        );
        assert!(text.contains("at most 1.1 x, reached."), "{text}");
        assert!(
            text.contains("The 1 who came when the flooder's coffees were done too: median 1.05 x"),
            "{text}"
        );
        let text = comparison(Some(2001))
            .findings(Some(&of_listed(2001)))
            .join("\n");
        assert!(text.contains("Sought: within 2.0 s, missed."), "{text}");
        assert!(
            text.contains("No regular came after the cut-off."),
            "{text}"
        );
        let text = comparison(None).findings(None).join("\n");
        assert!(text.contains("The flood never came."), "{text}");
    }

    #[test]
    fn a_run_of_which_nobody_was_served_has_no_ratios() {
        let refused = [visit(1, Outcome::Answered(StatusCode::TOO_MANY_REQUESTS))];
        let comparison = Comparison::of(&refused, &refused, 1, FloodTimes::default(), speed(1));
        assert!(comparison.waits.ratios.is_none());
        assert_eq!(comparison.to_string(), "");
        let findings = comparison.findings(None);
        assert_eq!(findings[0], "Without the flood 1 of 1 did not.");
    }
}
