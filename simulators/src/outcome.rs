//! What became of a run. The JSON report, its text, the page and the exit code are made of this and nothing else.

use std::{
    fmt,
    io::{self, Write as _, stdout},
    path::PathBuf,
    time::Duration,
};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    audit::{Check, Verdict},
    options::{Format, Pace},
    pace::{Span, Speed, spoken},
    plot::{Panel, page},
    tally::{Rate, Tally, Waits},
};

/// Width of the column of labels, in characters.
const LABEL_WIDTH: usize = 36;
/// Widths of the columns after it.
const WIDTHS: [usize; 3] = [12, 14, 8];

/// The outcome of a run. Every time in it is given on both scales, each under its name.
#[derive(Debug)]
pub struct Outcome {
    pub(crate) command: &'static str,
    pub(crate) speed: Speed,
    /// None when nothing was left to chance.
    pub(crate) seed: Option<u64>,
    pub(crate) elapsed: Span,
    parts: Vec<Part>,
    /// Those of the parts, and those that the report does not list.
    checks: Vec<Check>,
    verdict: String,
    /// Whether the verdict is also that of a run with failed checks.
    is_verdict_of_failures: bool,
    /// Sentences after the verdict.
    pub(crate) findings: Vec<String>,
    pub(crate) panels: Vec<Panel>,
    picture: Option<PathBuf>,
    is_picture_missing: bool,
    is_silent: bool,
}

impl Outcome {
    /// `elapsed` is measured.
    pub(crate) fn new(command: &'static str, pace: &Pace, elapsed: Duration) -> Self {
        Self {
            command,
            speed: pace.speed,
            seed: Some(pace.seed),
            elapsed: Span::new(elapsed, pace.speed),
            parts: Vec::new(),
            checks: Vec::new(),
            verdict: String::new(),
            is_verdict_of_failures: false,
            findings: Vec::new(),
            panels: Vec::new(),
            picture: None,
            is_picture_missing: false,
            is_silent: false,
        }
    }

    /// Of a run without a report, which did what it should.
    pub(crate) fn silent() -> Self {
        Self {
            is_silent: true,
            ..Self::new("", &Pace::real_time(0), Duration::ZERO)
        }
    }

    pub(crate) fn with(mut self, part: Part) -> Self {
        for item in &part.items {
            if let Item::Checks(checks) = item {
                self.checks.extend(checks.iter().cloned());
            }
        }
        self.parts.push(part);
        self
    }

    /// A check that decides the exit code and is not listed, because the verdict says the same.
    pub(crate) fn requires(mut self, name: &'static str, holds: bool) -> Self {
        self.checks.push(Check::new(name, holds, ""));
        self
    }

    /// The sentence at the end when all checks hold; otherwise the report says which do not.
    pub(crate) fn verdict(mut self, in_order: String) -> Self {
        self.verdict = in_order;
        self
    }

    /// The sentence at the end, whether the checks hold or not.
    pub(crate) fn verdict_in_any_case(mut self, sentence: String) -> Self {
        self.is_verdict_of_failures = true;
        self.verdict(sentence)
    }

    pub(crate) fn draws(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// Draws the latencies of this tally over time, their distribution, and how often there was which answer.
    pub(crate) fn drawn_from(mut self, tally: &Tally) -> Self {
        for (name, points) in tally.points() {
            self.panels.extend(Panel::of_latencies(name, points));
        }
        self.panels.push(Panel::of_answers(tally));
        self
    }

    /// Whether all checks hold, and the page that was asked for is written; decides the exit code.
    pub fn ok(&self) -> bool {
        self.failed().is_empty() && !self.is_picture_missing
    }

    /// The names of the checks that do not hold.
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self.checks.iter();
        let failed = failed.filter(|check| check.outcome == Verdict::Failed);
        failed.map(|check| check.name).collect()
    }

    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The verdict in words.
    pub(crate) fn sentence(&self) -> String {
        let failed = self.failed();
        if failed.is_empty() || self.is_verdict_of_failures {
            self.verdict.clone()
        } else {
            format!("FAILED: {}.", failed.join(", "))
        }
    }

    /// Writes the page. A page that cannot be written does not cost the report.
    pub(crate) fn draw(&mut self, file: PathBuf) {
        match std::fs::write(&file, page(self)) {
            Ok(()) => self.picture = Some(file),
            Err(error) => {
                crate::complain(&format!("cannot write {}: {error}", file.display()));
                self.is_picture_missing = true;
            }
        }
    }

    /// Prints the report on standard output.
    pub(crate) fn print(&self, format: Format) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut text = match format {
            Format::Text => self.to_string(),
            Format::Json => serde_json::to_string_pretty(&self.json())?,
        };
        text.push('\n');
        match stdout().write_all(text.as_bytes()) {
            // The reader has closed the pipe, which is no error; the exit code is still to come.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    pub fn json(&self) -> Value {
        let mut json = json!({
            "command": self.command,
            "ok": self.ok(),
            "speed": self.speed,
            "elapsed": self.elapsed,
        });
        if let Some(seed) = self.seed {
            json["seed"] = seed.into();
        }
        for part in &self.parts {
            json[part.name] = part.json.clone();
        }
        if let Some(picture) = &self.picture {
            json["picture"] = picture.to_string_lossy().into();
        }
        json
    }

    /// All tables of the report, in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut run = self.times("Run");
        run.rows.push(self.span("duration", self.elapsed));
        for part in &self.parts {
            for item in &part.items {
                blocks.push(match item {
                    Item::Block(block) => block.clone(),
                    Item::Checks(checks) => Block::of_checks(checks),
                    Item::Waits(heading, waits) => {
                        let mut block = self.times(heading);
                        let rows = waits.named().map(|(name, span)| self.span(name, span));
                        block.rows.extend(rows);
                        block
                    }
                });
            }
            for (label, rate) in &part.rates {
                let [measured, simulated] = [rate.measured, rate.simulated].map(Rate::spoken);
                run.rows.push(self.row(label, measured, simulated));
            }
        }
        blocks.push(run);
        blocks
    }

    /// A table of times.
    fn times(&self, heading: &str) -> Block {
        let mut block = Block::new(heading.to_owned());
        if !self.speed.is_real_time() {
            block.columns = vec!["measured", "simulated"];
        }
        block
    }

    fn span(&self, label: &str, span: Span) -> Vec<String> {
        self.row(label, spoken(span.measured), spoken(span.simulated))
    }

    /// The second column only where it differs from the first.
    fn row(&self, label: &str, measured: String, simulated: String) -> Vec<String> {
        let mut row = vec![label.to_owned(), measured];
        if !self.speed.is_real_time() {
            row.push(simulated);
        }
        row
    }

    /// What the run was, in a line.
    pub(crate) fn title(&self) -> String {
        let seed = self.seed.map(|seed| format!(", seed {seed}"));
        format!("simulators {}{}", self.command, seed.unwrap_or_default())
    }

    /// How the two scales relate, in words; nothing when they are one.
    pub(crate) fn scales(&self) -> Option<String> {
        let factor = self.speed.factor();
        let is_one = self.speed.is_real_time();
        (!is_one).then(|| format!("1 s measured here = {factor} s simulated in the shop"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title())?;
        match self.scales() {
            Some(scales) => writeln!(f, ", speed {}: {scales}", self.speed.factor())?,
            None => writeln!(f)?,
        }
        for block in self.blocks() {
            write!(f, "{block}")?;
        }
        if let Some(picture) = &self.picture {
            writeln!(f, "\nPicture: {}", picture.display())?;
        }
        write!(f, "\n{}", self.sentence())?;
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}

/// One object of the JSON report, and the text about it. Items appear in the order in which they are added.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    json: Value,
    items: Vec<Item>,
    rates: Vec<(String, Rate)>,
}

#[derive(Debug)]
enum Item {
    Block(Block),
    Waits(String, Waits),
    Checks(Vec<Check>),
}

impl Part {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::of(name, json!({}))
    }

    /// The whole object at once.
    pub(crate) fn of(name: &'static str, object: impl Serialize) -> Self {
        Self {
            name,
            json: as_json(object),
            items: Vec::new(),
            rates: Vec::new(),
        }
    }

    /// JSON only. Dots in the path make objects.
    pub(crate) fn data(mut self, path: &'static str, value: impl Serialize) -> Self {
        let place = path
            .split('.')
            .fold(&mut self.json, |json, key| &mut json[key]);
        *place = as_json(value);
        self
    }

    /// Text only: the heading of the rows that follow.
    pub(crate) fn section(self, title: impl Into<String>) -> Self {
        self.block(Block::new(title.into()))
    }

    pub(crate) fn block(mut self, block: Block) -> Self {
        self.items.push(Item::Block(block));
        self
    }

    /// Text only.
    pub(crate) fn row(mut self, label: &str, value: impl fmt::Display) -> Self {
        let Some(Item::Block(block)) = self.items.last_mut() else {
            unreachable!("a row is below the heading of a section")
        };
        block.rows.push(vec![label.to_owned(), value.to_string()]);
        self
    }

    /// JSON and text.
    pub(crate) fn figure(self, path: &'static str, label: &str, value: u64) -> Self {
        self.data(path, value).row(label, value)
    }

    /// JSON and text; the row is left out when it is zero.
    pub(crate) fn count(self, path: &'static str, label: &str, value: u64) -> Self {
        self.data(path, value).note(label, value)
    }

    /// Text only; left out when it is zero.
    pub(crate) fn note(self, label: &str, value: u64) -> Self {
        if value == 0 {
            return self;
        }
        self.row(label, value)
    }

    /// How often there was which answer, and why there was none.
    pub(crate) fn answers(self, tally: &Tally) -> Self {
        let part = self
            .data("by_status", &tally.by_status)
            .data("by_transport_error", &tally.by_transport_error);
        part.rows_of(tally)
    }

    /// The same; text only.
    pub(crate) fn rows_of(self, tally: &Tally) -> Self {
        let statuses = tally.by_status.iter();
        let part = statuses.fold(self, |part, (status, times)| {
            part.row(&status_name(*status), times)
        });
        let errors = tally.by_transport_error.iter();
        errors.fold(part, |part, (error, times)| part.row(error, times))
    }

    /// JSON, and a table unless there are none.
    pub(crate) fn waits(self, path: &'static str, heading: &str, waits: Option<Waits>) -> Self {
        self.data(path, waits).table(heading, waits)
    }

    /// Text only.
    pub(crate) fn table(mut self, heading: &str, waits: Option<Waits>) -> Self {
        let waits = waits.map(|waits| Item::Waits(heading.to_owned(), waits));
        self.items.extend(waits);
        self
    }

    /// JSON, and a row of the table of the run at the end.
    pub(crate) fn rate(self, path: &'static str, label: &str, rate: Rate) -> Self {
        self.data(path, rate).rate_of_run(label, rate)
    }

    /// Text only.
    pub(crate) fn rate_of_run(mut self, label: &str, rate: Rate) -> Self {
        self.rates.push((label.to_owned(), rate));
        self
    }

    /// JSON and text; they decide the exit code.
    pub(crate) fn checks(self, checks: Vec<Check>) -> Self {
        let mut part = self.data("checks", &checks);
        part.items.push(Item::Checks(checks));
        part
    }
}

fn as_json(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("figures are numbers, texts and objects of them")
}

/// A table with a heading: labels in the first column.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) heading: String,
    /// Names of the columns after the first, if they have names.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Below the rows, on the page only.
    pub(crate) notes: Vec<String>,
}

impl Block {
    pub(crate) fn new(heading: String) -> Self {
        Self {
            heading,
            columns: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn of_checks(checks: &[Check]) -> Self {
        let mut block = Self::new("Checks".to_owned());
        for check in checks {
            let row = [check.name, &check.outcome.to_string(), &check.finding];
            block.rows.push(row.map(str::to_owned).to_vec());
            let text = |text| format!("{}: {text}", check.name);
            block.notes.extend(check.texts.iter().map(text));
        }
        block
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for (cell, width) in cells.zip(WIDTHS) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)
        };
        if self.columns.is_empty() {
            write!(f, "\n{}", self.heading)?;
        } else {
            write!(f, "\n{:<1$}", self.heading, LABEL_WIDTH + 2)?;
        }
        cells(f, &mut self.columns.iter().copied())?;
        for row in &self.rows {
            write!(f, "  {:<LABEL_WIDTH$}", row[0])?;
            if self.columns.is_empty() && row.len() > 2 {
                // Words after a figure.
                writeln!(f, "  {:>1$}  {2}", row[1], WIDTHS[0], row[2])?;
                continue;
            }
            cells(f, &mut row[1..].iter().map(String::as_str))?;
        }
        Ok(())
    }
}

/// `200 OK`, or the bare number where it has no name.
pub(crate) fn status_name(code: u16) -> String {
    let reason = StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason());
    format!("{code} {}", reason.unwrap_or(""))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(speed: &str, check: bool) -> Outcome {
        let pace = Pace {
            speed: speed.parse().unwrap(),
            seed: 7,
        };
        let mut tally = Tally::default();
        tally.by_status.insert(503, 2);
        tally.record("wait", Duration::from_millis(3600));
        let part = Part::new("desk")
            .section("Events")
            .figure("events.acknowledged", "acknowledged", 5)
            .count("events.given_up", "given up", 0)
            .answers(&tally)
            .waits("latencies", "Latency", tally.waits("wait", pace.speed))
            .rate(
                "per_s",
                "events",
                Rate::of(5, Duration::from_secs(1), pace.speed),
            )
            .checks(vec![Check::new("counts", check, "5 right")]);
        let outcome = Outcome::new("desk", &pace, Duration::from_secs(9));
        outcome.with(part).verdict("All right.".to_owned())
    }

    #[test]
    fn a_figure_is_in_the_json_and_in_the_text() {
        let outcome = outcome("1", true);
        let json = outcome.json();
        assert_eq!(json["desk"]["events"]["acknowledged"], 5);
        assert_eq!(json["desk"]["events"]["given_up"], 0);
        assert_eq!(json["desk"]["by_status"]["503"], 2);
        assert_eq!(json["desk"]["latencies"]["max"]["measured_s"], 3.6);
        assert_eq!(json["desk"]["checks"][0]["outcome"], "ok");
        let text = outcome.to_string();
        let expected = "simulators desk, seed 7

Events
  acknowledged                                     5
  503 Service Unavailable                          2
";
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("simulated"), "{text}");
        assert!(text.ends_with("5.0/s\n\nAll right."), "{text}");
    }

    #[test]
    fn a_failed_check_decides_verdict_and_exit_code() {
        let outcome = outcome("1", false);
        assert!(!outcome.ok());
        assert_eq!(outcome.sentence(), "FAILED: counts.");
        assert_eq!(outcome.json()["ok"], false);
    }

    #[test]
    fn both_scales_are_named_when_there_are_two() {
        let text = outcome("100", true).to_string();
        let expected = "
Latency                                     measured       simulated
  p50                                          3.6 s      6 min 00 s
";
        assert!(text.contains(expected), "{text}");
        let scales = "speed 100: 1 s measured here = 100 s simulated in the shop\n";
        assert!(text.contains(scales), "{text}");
    }
}
