//! The same rush without and with a flood: what the flood cost the regulars.

use std::time::Duration;

use serde::Serialize;

use crate::{
    flood::Deeds,
    outcome::Block,
    pace::{Span, Speed, spoken},
    tally::{Waits, as_u64},
    visits::{Summary, Visit, waits},
};

/// What is sought; the report says whether it was reached, the exit code does not depend on it.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(2);
/// Of the waits of those who come when the flooder's coffees are done, compared to the run without the flood.
const RATIO_MAX: f64 = 1.1;
/// Coffees for the flooder: the places that one address may have (`flood.outstanding_max` as it is by default). What was
/// placed before the first refusal may be a neighbour's behind the same address, and stays in line.
const COFFEES_MAX: u64 = 250;

/// Two runs with the same arrivals and the same seed of brewing times.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) without_flood: Summary,
    /// Since the beginning of the run, as the next one.
    flood_came: Option<Span>,
    cut_off: Option<Span>,
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

impl FloodTimes {
    pub(crate) fn moments(self) -> Vec<(Duration, &'static str)> {
        let moments = [
            (self.came, "the flood comes"),
            (self.cut_off, "the flooder is cut off"),
        ];
        let known = moments.into_iter();
        known
            .filter_map(|(moment, happening)| Some((moment?, happening)))
            .collect()
    }
}

/// Waiting times of the same regulars in both runs.
#[derive(Debug, Serialize)]
struct Pair {
    regulars: u64,
    without: Option<Waits>,
    with: Option<Waits>,
    /// With the flood, in multiples of without it.
    ratios: Option<Waits<f64>>,
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
                "All regulars waited, compared to the run without the flood: {}.",
                words(ratios)
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

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let after = |pair: &Option<Pair>, since: &str| {
            let pair = pair.as_ref()?;
            pair.block(&format!("{} {since}", pair.regulars))
        };
        let blocks = [
            self.waits.block("all regulars"),
            after(&self.waits_after_cut_off, "after cut-off"),
            after(&self.waits_after_last_coffee, "after last coffee"),
        ];
        blocks.into_iter().flatten().collect()
    }

    fn without_the_flood(&self) -> String {
        let summary = &self.without_flood;
        let arrived = summary.arrived;
        match arrived - summary.served {
            0 => format!("Without the flood every one did ({arrived} of {arrived})."),
            unserved => format!("Without the flood {unserved} of {arrived} did not."),
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
        let regulars = as_u64(with.len());
        let [without, with] = [without, with].map(|visits| waits(visits, speed));
        let ratios = without.zip(with).map(|(without, with)| Waits {
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
        let Some(ratios) = self.ratios else {
            return "No regular came after the cut-off.".to_owned();
        };
        format!(
            "The {} who came after the cut-off, some of them behind the flooder's coffees: {}.",
            self.regulars,
            words(ratios)
        )
    }

    fn of_those_after_last_coffee(&self) -> String {
        let Some(ratios) = self.ratios else {
            return "No regular came when the flooder's coffees were done.".to_owned();
        };
        format!(
            "The {} who came when the flooder's coffees were done too: {}. Sought: at most {RATIO_MAX} x, {}.",
            self.regulars,
            words(ratios),
            sought(ratios.p50 <= RATIO_MAX && ratios.p99 <= RATIO_MAX)
        )
    }

    /// Nothing without waiting times in both runs.
    fn block(&self, who: &str) -> Option<Block> {
        let (without, with, ratios) = (self.without?, self.with?, self.ratios?);
        let mut block = Block::new(format!("Measured waits of {who}"));
        block.columns = vec!["without", "with flood", "ratio"];
        let all = without.named().into_iter().zip(with.named());
        for (((name, without), (_, with)), (_, ratio)) in all.zip(ratios.named()) {
            let spans = [without, with].map(|span| spoken(span.measured));
            let [without, with] = spans;
            let row = vec![name.to_owned(), without, with, format!("{ratio:.2}")];
            block.rows.push(row);
        }
        Some(block)
    }
}

fn words(ratios: Waits<f64>) -> String {
    format!("median {:.2} x, p99 {:.2} x", ratios.p50, ratios.p99)
}

fn ratio(without: Span, with: Span) -> f64 {
    with.measured.div_duration_f64(without.measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visits::tests::{SERVED, visit};

    /// Regulars who came at these milliseconds and each waited so long.
    fn regulars(visits_ms: &[(u64, u64)]) -> Vec<Visit> {
        let regular = |(arrived_ms, wait_ms): &(u64, u64)| Visit {
            arrived: Duration::from_millis(*arrived_ms),
            ..visit(*wait_ms, SERVED)
        };
        visits_ms.iter().map(regular).collect()
    }

    fn comparison(cut_off_ms: Option<u64>) -> Comparison {
        let times = FloodTimes {
            came: Some(Duration::from_millis(10)),
            cut_off: cut_off_ms.map(Duration::from_millis),
            last_coffee: Some(Duration::from_millis(900)),
        };
        let without = regulars(&[(0, 100), (0, 200), (800, 300), (1000, 400)]);
        let with = regulars(&[(0, 300), (0, 400), (800, 300), (1000, 420)]);
        Comparison::of(&without, &with, 4, times, Speed::REAL_TIME)
    }

    #[test]
    fn those_who_came_after_the_cut_off_are_compared_with_themselves() {
        let near = |ratio: f64, expected: f64| (ratio - expected).abs() < 0.01;
        let comparison = comparison(Some(500));
        let all = comparison.waits.ratios.unwrap();
        assert!(near(all.p50, 1.5) && near(all.max, 1.05), "{all:?}");
        let after = comparison.waits_after_cut_off.as_ref().unwrap();
        assert_eq!(after.regulars, 2);
        let ratios = after.ratios.unwrap();
        assert!(
            near(ratios.p50, 1.0) && near(ratios.p99, 1.05),
            "{ratios:?}"
        );
        let text = comparison.findings(None).join("\n");
        let expected = "The 1 who came when the flooder's coffees were done too: median 1.05 x, p99 1.05 x. Sought: at most 1.1 x, reached.";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_run_without_a_cut_off_or_without_service_has_no_ratios_after_it() {
        assert!(comparison(None).waits_after_cut_off.is_none());
        let text = comparison(Some(2001)).findings(None).join("\n");
        let expected = "No regular came after the cut-off.";
        assert!(text.contains(expected), "{text}");
        let none = Comparison::of(&[], &[], 1, FloodTimes::default(), Speed::REAL_TIME);
        assert!(none.waits.ratios.is_none() && none.blocks().is_empty());
    }
}
