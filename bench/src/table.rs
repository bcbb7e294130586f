//! The table: what was measured, on both sides, against what was promised.
//!
//! A ratio is taken within each round, between neighbours in time, and the median of these ratios is judged. So a
//! machine that is slower for a while disturbs a round, not the comparison.

use std::fmt::{self, Write};

/// Values of several rounds, in their order of size. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spread {
    sorted: Vec<f64>,
}

impl Spread {
    /// Of at least one round's value.
    pub(crate) fn new(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a spread of nothing");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread { sorted }
    }

    /// Round by round, the one divided by the other.
    pub(crate) fn of_ratios(ours: &[f64], peers: &[f64]) -> Self {
        assert_eq!(ours.len(), peers.len(), "a round has both sides");
        let ratios: Vec<f64> = ours
            .iter()
            .zip(peers)
            .map(|(ours, peer)| ours / peer)
            .collect();
        Spread::new(&ratios)
    }

    /// The middle value; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len().is_multiple_of(2) {
            f64::midpoint(self.sorted[middle - 1], self.sorted[middle])
        } else {
            self.sorted[middle]
        }
    }

    /// The smallest value.
    pub(crate) fn low(&self) -> f64 {
        self.sorted[0]
    }

    /// The largest value.
    pub(crate) fn high(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(bound) => value >= bound,
            Target::AtMost(bound) => value <= bound,
        }
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A rate, per second.
    PerSecond,
    /// Memory, in bytes; judged in KB of 1000.
    Bytes,
    /// A row's place on the disk, in bytes.
    FewBytes,
    /// Much memory, in bytes; judged in MB of 1000 KB.
    Megabytes,
    /// A short time.
    Nanoseconds,
    /// A longer time, in nanoseconds; shown in milliseconds.
    Milliseconds,
    /// A whole number of packages.
    Packages,
    /// A whole number of orders.
    Orders,
    /// One number divided by another.
    Ratio,
}

impl Unit {
    /// A value alone.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::PerSecond => format!("{}/s", grouped(value)),
            Unit::Bytes => format!("{:.1} KB ({:.1} KiB)", value / 1000.0, value / 1024.0),
            Unit::FewBytes => format!("{value:.1} B"),
            Unit::Megabytes => format!("{:.1} MB ({:.1} MiB)", value / 1e6, value / 1_048_576.0),
            Unit::Nanoseconds => format!("{} ns", grouped(value)),
            Unit::Milliseconds => format!("{:.2} ms", value / 1e6),
            Unit::Packages | Unit::Orders => grouped(value),
            Unit::Ratio => format!("{value:.2} ×"),
        }
    }

    /// The same, short.
    fn show_short(self, value: f64) -> String {
        match self {
            Unit::PerSecond | Unit::Nanoseconds | Unit::Packages | Unit::Orders => grouped(value),
            Unit::Milliseconds => format!("{:.2}", value / 1e6),
            Unit::Bytes => format!("{:.1}", value / 1000.0),
            Unit::FewBytes => format!("{value:.1}"),
            Unit::Megabytes => format!("{:.1}", value / 1e6),
            Unit::Ratio => format!("{value:.2}"),
        }
    }

    fn show_target(self, target: Target) -> String {
        let (sign, bound) = match target {
            Target::AtLeast(bound) => ('≥', bound),
            Target::AtMost(bound) => ('≤', bound),
        };
        match self {
            Unit::PerSecond => format!("{sign} {}/s", grouped(bound)),
            Unit::Bytes => format!("{sign} {} KB", bound / 1000.0),
            Unit::FewBytes => format!("{sign} {bound} B"),
            Unit::Megabytes => format!("{sign} {} MB", bound / 1e6),
            Unit::Nanoseconds => format!("{sign} {} ns", grouped(bound)),
            Unit::Milliseconds => format!("{sign} {} ms", bound / 1e6),
            Unit::Packages | Unit::Orders => format!("{sign} {}", grouped(bound)),
            Unit::Ratio => format!("{sign} {bound} ×"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    cells: [String; 7],
}

const HEADINGS: [&str; 7] = ["measure", "ours", "peer", "ratio", "spread", "target", ""];
const NOTHING: &str = "–";

impl Row {
    /// Ours against a peer: the ratio is judged.
    pub(crate) fn compared(
        measure: &str,
        unit: Unit,
        ours: &[f64],
        peers: &[f64],
        target: Option<Target>,
    ) -> Self {
        let ratios = Spread::of_ratios(ours, peers);
        Row {
            cells: [
                measure.to_owned(),
                unit.show(Spread::new(ours).median()),
                unit.show(Spread::new(peers).median()),
                Unit::Ratio.show(ratios.median()),
                spread(Unit::Ratio, ratios.low(), ratios.high()),
                target.map_or_else(nothing, |target| Unit::Ratio.show_target(target)),
                verdict(ratios.median(), target),
            ],
        }
    }

    /// Ours against a peer that was not measured in the same rounds: the ratio of the medians is judged, and the spread
    /// is as wide as any two values make it.
    pub(crate) fn unpaired(
        measure: &str,
        unit: Unit,
        ours: &[f64],
        peers: &[f64],
        target: Target,
    ) -> Self {
        let (ours, peers) = (Spread::new(ours), Spread::new(peers));
        let ratio = ours.median() / peers.median();
        Row {
            cells: [
                measure.to_owned(),
                unit.show(ours.median()),
                unit.show(peers.median()),
                Unit::Ratio.show(ratio),
                spread(
                    Unit::Ratio,
                    ours.low() / peers.high(),
                    ours.high() / peers.low(),
                ),
                Unit::Ratio.show_target(target),
                verdict(ratio, Some(target)),
            ],
        }
    }

    /// Ours alone: the value itself is judged.
    pub(crate) fn alone(measure: &str, unit: Unit, ours: &[f64], target: Option<Target>) -> Self {
        let ours = Spread::new(ours);
        Row {
            cells: [
                measure.to_owned(),
                unit.show(ours.median()),
                nothing(),
                nothing(),
                spread(unit, ours.low(), ours.high()),
                target.map_or_else(nothing, |target| unit.show_target(target)),
                verdict(ours.median(), target),
            ],
        }
    }

    /// A promise that could not be looked at, and what to do about it.
    pub(crate) fn missing(measure: &str, target: Target, remedy: &str) -> Self {
        let mut cells = [const { String::new() }; 7].map(|_| nothing());
        measure.clone_into(&mut cells[0]);
        cells[5] = Unit::Ratio.show_target(target);
        remedy.clone_into(&mut cells[6]);
        Row { cells }
    }
}

fn nothing() -> String {
    NOTHING.to_owned()
}

fn spread(unit: Unit, low: f64, high: f64) -> String {
    format!("{}–{}", unit.show_short(low), unit.show_short(high))
}

fn verdict(value: f64, target: Option<Target>) -> String {
    match target {
        None => nothing(),
        Some(target) if target.is_met(value) => "met".to_owned(),
        Some(_) => "MISSED".to_owned(),
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// All rows, as aligned Markdown: readable on a terminal and in a document.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds rows at the end.
    pub(crate) fn extend(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = HEADINGS.map(|heading| heading.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        write_line(f, &HEADINGS, &widths)?;
        write_line(f, &widths.map(|width| "-".repeat(width)), &widths)?;
        for row in &self.rows {
            write_line(f, &row.cells, &widths)?;
        }
        Ok(())
    }
}

fn write_line<T: AsRef<str>>(
    f: &mut fmt::Formatter<'_>,
    cells: &[T],
    widths: &[usize],
) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {:width$} ", cell.as_ref())?;
    }
    f.write_str("|")?;
    f.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        close(Spread::new(&[3.0, 1.0, 2.0]).median(), 2.0);
        close(Spread::new(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        close(Spread::new(&[7.0]).median(), 7.0);
    }

    #[test]
    fn the_spread_is_from_the_smallest_to_the_largest() {
        let spread = Spread::new(&[2.0, -1.0, 5.0]);
        close(spread.low(), -1.0);
        close(spread.high(), 5.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was half as fast in the second round; the ratio does not show it.
        let ratios = Spread::of_ratios(&[100.0, 50.0, 102.0], &[50.0, 25.0, 51.0]);
        close(ratios.low(), 2.0);
        close(ratios.high(), 2.0);
    }

    #[test]
    fn a_target_is_met_at_its_bound() {
        assert!(Target::AtLeast(0.9).is_met(0.9));
        assert!(!Target::AtLeast(0.9).is_met(0.89));
        assert!(Target::AtMost(10_000.0).is_met(10_000.0));
        assert!(!Target::AtMost(10_000.0).is_met(10_001.0));
    }

    #[test]
    fn a_missed_target_is_shown_as_missed() {
        let row = Row::compared(
            "m",
            Unit::PerSecond,
            &[80.0, 81.0],
            &[100.0, 100.0],
            Some(Target::AtLeast(0.85)),
        );
        assert_eq!(
            row.cells,
            [
                "m",
                "80/s",
                "100/s",
                "0.81 ×",
                "0.80–0.81",
                "≥ 0.85 ×",
                "MISSED"
            ]
        );
    }

    #[test]
    fn memory_is_judged_by_itself_in_thousands_of_bytes() {
        let row = Row::alone(
            "m",
            Unit::Bytes,
            &[9_800.0, 9_900.0, 9_700.0],
            Some(Target::AtMost(10_000.0)),
        );
        assert_eq!(
            row.cells,
            [
                "m",
                "9.8 KB (9.6 KiB)",
                "–",
                "–",
                "9.7–9.9",
                "≤ 10 KB",
                "met"
            ]
        );
    }

    #[test]
    fn much_memory_is_judged_in_millions_of_bytes() {
        let target = Some(Target::AtMost(64e6));
        let row = Row::alone("m", Unit::Megabytes, &[64_100_000.0, 65_300_000.0], target);
        assert_eq!(
            row.cells,
            [
                "m",
                "64.7 MB (61.7 MiB)",
                "–",
                "–",
                "64.1–65.3",
                "≤ 64 MB",
                "MISSED"
            ]
        );
    }

    #[test]
    fn few_bytes_are_judged_one_by_one() {
        let target = Some(Target::AtMost(120.0));
        let row = Row::alone("m", Unit::FewBytes, &[119.96], target);
        assert_eq!(row.cells[1], "120.0 B");
        assert_eq!(row.cells[5..], ["≤ 120 B", "met"]);
    }

    #[test]
    fn values_without_counterparts_are_compared_by_their_medians() {
        let row = Row::unpaired(
            "m",
            Unit::Nanoseconds,
            &[300.0, 320.0, 1_200.0],
            &[200.0, 240.0],
            Target::AtMost(1.4),
        );
        assert_eq!(
            row.cells,
            [
                "m",
                "320 ns",
                "220 ns",
                "1.45 ×",
                "1.25–6.00",
                "≤ 1.4 ×",
                "MISSED"
            ]
        );
    }

    #[test]
    fn what_could_not_be_looked_at_is_neither_met_nor_missed() {
        let row = Row::missing("m", Target::AtMost(2.0), "measure it first");
        assert_eq!(
            row.cells,
            ["m", "–", "–", "–", "–", "≤ 2 ×", "measure it first"]
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1000.0), "1,000");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn all_lines_of_a_table_are_equally_long() {
        let mut table = Table::default();
        table.extend(vec![
            Row::alone("one", Unit::PerSecond, &[1e6], None),
            Row::missing("two", Target::AtMost(2.0), "measure it first"),
        ]);
        let lengths: Vec<usize> = table
            .to_string()
            .lines()
            .map(|line| line.chars().count())
            .collect();
        assert_eq!(lengths.len(), 4);
        assert!(lengths.iter().all(|&length| length == lengths[0]));
    }
}
