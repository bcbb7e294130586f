//! The table: what was measured, on both sides, and the target.
//!
//! A ratio is taken within each round, between neighbours in time, and the median of these ratios is judged. So a
//! machine that is slower for a while disturbs a round, not the comparison.

use std::fmt::{self, Write};

use crate::rows::{Figure, Target};

/// Values of several rounds, sorted. Never empty.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn new(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a spread of nothing");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread(sorted)
    }

    /// Of an even number of values, the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let (low, high) = ((self.0.len() - 1) / 2, self.0.len() / 2);
        f64::midpoint(self.0[low], self.0[high])
    }

    pub(crate) fn low(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn high(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(bound) => value >= bound,
            Target::AtMost(bound) => value <= bound,
        }
    }
}

impl Figure {
    fn ratio() -> Self {
        Figure {
            decimals: 2,
            suffix: " ×".to_owned(),
            ..Figure::default()
        }
    }

    pub(crate) fn show(&self, value: f64) -> String {
        self.show_short(value) + &self.suffix
    }

    fn scaled(&self, value: f64) -> f64 {
        value / self.scale.unwrap_or(1.0)
    }

    fn show_short(&self, value: f64) -> String {
        match self.decimals {
            0 => thousands(self.scaled(value)),
            decimals => format!("{:.decimals$}", self.scaled(value)),
        }
    }

    fn show_target(&self, target: Target) -> String {
        let (sign, bound) = match target {
            Target::AtLeast(bound) => ('≥', bound),
            Target::AtMost(bound) => ('≤', bound),
        };
        format!("{sign} {}{}", self.scaled(bound), self.suffix)
    }
}

/// A whole number with a comma between thousands.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const HEADINGS: [&str; 7] = ["measure", "ours", "peer", "ratio", "spread", "target", ""];

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line([String; 7]);

impl Line {
    /// Values round by round.
    pub(crate) fn new(
        measure: &str,
        figure: &Figure,
        ours: &[f64],
        peer: Option<&[f64]>,
        target: Option<Target>,
    ) -> Self {
        let dash = || "–".to_owned();
        let median = |values| figure.show(Spread::new(values).median());
        let ratios = peer.map(|peer| ours.iter().zip(peer).map(|(ours, peer)| ours / peer));
        let ratios = ratios.map(|ratios| Spread::new(&ratios.collect::<Vec<_>>()));
        let ratio = ratios
            .as_ref()
            .map(|ratios| Figure::ratio().show(ratios.median()));
        let (judged, unit) = match ratios {
            Some(ratios) => (ratios, &Figure::ratio()),
            None => (Spread::new(ours), figure),
        };
        let verdict = |target: Target| {
            if target.is_met(judged.median()) {
                "met"
            } else {
                "MISSED"
            }
        };
        let [low, high] = [judged.low(), judged.high()].map(|value| unit.show_short(value));
        Line([
            measure.to_owned(),
            median(ours),
            peer.map_or_else(dash, median),
            ratio.unwrap_or_else(dash),
            format!("{low}–{high}"),
            target.map_or_else(dash, |target| unit.show_target(target)),
            target.map_or_else(dash, |target| verdict(target).to_owned()),
        ])
    }
}

/// All lines, as aligned Markdown: readable on a terminal and in a document.
#[derive(Default)]
pub(crate) struct Table(pub(crate) Vec<Line>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.iter().map(|Line(cells)| cells.to_vec());
        f.write_str(&aligned(&HEADINGS.map(str::to_owned), lines.collect()))
    }
}

/// A table in Markdown.
pub(crate) fn aligned(headings: &[String], mut lines: Vec<Vec<String>>) -> String {
    lines.insert(0, headings.to_vec());
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    lines.insert(1, widths.iter().map(|&width| "-".repeat(width)).collect());
    let mut text = String::new();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text += "|\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate() -> Figure {
        Figure {
            suffix: "/s".to_owned(),
            decimals: 0,
            ..Figure::ratio()
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_judged() {
        // The machine was half as fast in the second round; the ratio does not show it.
        let (ours, peer): ([f64; 3], &[f64]) = ([80.0, 40.0, 81.0], &[100.0, 50.0, 100.0]);
        let line = Line::new("m", &rate(), &ours, Some(peer), Some(Target::AtLeast(0.85)));
        let expected = [
            "m",
            "80/s",
            "100/s",
            "0.80 ×",
            "0.80–0.81",
            "≥ 0.85 ×",
            "MISSED",
        ];
        assert_eq!(line.0, expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned);
        let lines = vec![cells(["1 µs", ""]).to_vec(), cells(["a", "b"]).to_vec()];
        let table = aligned(&cells(["m", "peer"]), lines);
        let expected = "| m    | peer |\n| ---- | ---- |\n| 1 µs |      |\n| a    | b    |\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn without_a_peer_the_value_is_judged_in_its_unit() {
        let kilobytes = Figure {
            scale: Some(1e3),
            decimals: 1,
            suffix: " KB".to_owned(),
            ..rate()
        };
        let ours = [9_800.0, 9_900.0, 9_700.0];
        let line = Line::new("m", &kilobytes, &ours, None, Some(Target::AtMost(10_000.0)));
        assert_eq!(
            line.0,
            ["m", "9.8 KB", "–", "–", "9.7–9.9", "≤ 10 KB", "met"]
        );
        let line = Line::new("m", &rate(), &[1_234_567.0], None, None);
        assert_eq!(
            line.0,
            [
                "m",
                "1,234,567/s",
                "–",
                "–",
                "1,234,567–1,234,567",
                "–",
                "–"
            ]
        );
    }
}
