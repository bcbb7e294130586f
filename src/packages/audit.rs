//! Whether the statistics agree with the ledger. Pure: a store reads both.

use std::fmt;

use super::model::Outcome;

/// The packages of one type and outcome, counted in two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub type_name: String,
    pub outcome: Outcome,
    /// Rows of the ledger.
    pub ledger: u64,
    /// Expired rows (`packages.remember`).
    pub forgotten: u64,
    /// The statistics' count.
    pub counted: u64,
}

impl Line {
    pub fn agrees(&self) -> bool {
        self.ledger + self.forgotten == self.counted
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// By type and outcome.
    pub lines: Vec<Line>,
}

impl Audit {
    pub fn agrees(&self) -> bool {
        self.lines.iter().all(Line::agrees)
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:<10} {:>14} {:>14} {:>14}",
            "type", "outcome", "in the ledger", "forgotten", "counted"
        )?;
        for line in &self.lines {
            writeln!(
                f,
                "{:<24} {:<10} {:>14} {:>14} {:>14}{}",
                line.type_name,
                line.outcome.as_str(),
                line.ledger,
                line.forgotten,
                line.counted,
                if line.agrees() { "" } else { "  DIFFERS" }
            )?;
        }
        f.write_str(if self.agrees() {
            "The statistics agree with the ledger."
        } else {
            "The statistics do not agree with the ledger."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen_and_said() {
        let line = |ledger, forgotten, counted| Line {
            type_name: "personal".to_owned(),
            outcome: Outcome::Dropped,
            ledger,
            forgotten,
            counted,
        };
        let right = Audit {
            lines: vec![line(3, 2, 5), line(0, 0, 0)],
        };
        assert!(right.agrees());
        assert!(!right.to_string().contains("DIFFERS"));
        let wrong = Audit {
            lines: vec![line(3, 2, 5), line(3, 2, 6)],
        };
        assert!(!wrong.agrees());
        let said = wrong.to_string();
        assert_eq!(said.matches("DIFFERS").count(), 1);
        assert!(said.ends_with("do not agree with the ledger."));
    }
}
