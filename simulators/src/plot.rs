//! The page of a run: one HTML file with inline SVG that needs nothing else to be viewed. First the panels that the scenario
//! asked for, over the same axis of waiting time, then all tables of the report.
//!
//! Drawn by hand and not with a plotting crate, because the page follows the reader's light or dark colours,
//! which takes CSS classes on every mark.

mod panels;
mod ticks;

use std::fmt::{self, Display, Formatter};

use self::panels::WaitAxis;
pub(crate) use self::panels::{Distribution, Horizontal, Kind, Mark, Marks, Panel};
use crate::{
    outcome::{Block, Outcome},
    pace::spoken,
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
thead th + th { text-align: right; } td.words { text-align: left; }
";

/// The whole page.
pub(crate) fn page(outcome: &Outcome) -> String {
    Page(outcome).to_string()
}

struct Page<'a>(&'a Outcome);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        writeln!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Waiting times: {}</title>\n<style>{STYLE}</style>\n<h1>{}</h1>",
            outcome.command,
            escaped(&outcome.sentence())
        )?;
        for finding in &outcome.findings {
            writeln!(f, "<p>{}</p>", escaped(finding))?;
        }
        let elapsed = spoken(outcome.elapsed.measured);
        let scales = outcome.scales().map(|scales| format!("; {scales}"));
        let scales = scales.unwrap_or_default();
        let title = outcome.title();
        writeln!(
            f,
            "<p class=\"faint\">{title}, {elapsed} measured{scales}</p>"
        )?;
        let longest = outcome.panels.iter().map(Panel::longest).max();
        let axis = WaitAxis::new(longest.unwrap_or_default(), outcome.speed);
        for panel in &outcome.panels {
            panel.draw(f, &axis)?;
        }
        for block in outcome.blocks() {
            table(f, &block)?;
        }
        writeln!(f, "</html>")
    }
}

fn table(f: &mut Formatter<'_>, block: &Block) -> fmt::Result {
    writeln!(f, "<h2>{}</h2>\n<table>", escaped(&block.heading))?;
    if !block.columns.is_empty() {
        write!(f, "<thead><tr><th></th>")?;
        for column in &block.columns {
            write!(f, "<th>{column}</th>")?;
        }
        writeln!(f, "</tr></thead>")?;
    }
    for row in &block.rows {
        for (index, cell) in row.iter().enumerate() {
            let (open, close) = match index {
                0 => ("<tr><th>", "</th>"),
                1 => ("<td>", "</td>"),
                _ if block.columns.is_empty() => ("<td class=\"words\">", "</td>"),
                _ => ("<td>", "</td>"),
            };
            write!(f, "{open}{}{close}", escaped(cell))?;
        }
        writeln!(f, "</tr>")?;
    }
    writeln!(f, "</table>")?;
    for note in &block.notes {
        writeln!(f, "<p class=\"faint\">{}</p>", escaped(note))?;
    }
    Ok(())
}

/// The server's texts may hold anything.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
