//! The report: the run's settings, the outcome for each participant, and the exit code.

use std::{
    fmt,
    io::{self, Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use hyper::StatusCode;
use serde::Serialize;

use crate::{
    baristas::Tally,
    comparison::Comparison,
    couriers::Summary as Dispatch,
    day::Summary as Day,
    deeds::Deeds,
    drones::Summary as Missions,
    options::{Format, Pace},
    pace::{Span, Speed, spoken},
    plot,
    senders::Summary as Parcels,
    visits::{Summary, Visit, Waits},
};

/// Width of the column of labels, in characters.
pub(crate) const LABEL_WIDTH: usize = 36;

/// The outcome of a run. Every time in it is given on both scales, each under its name.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: &'static str,
    /// Whether the run was as it should be; decides the exit code.
    ok: bool,
    pub(crate) speed: Speed,
    /// None when nothing was left to chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    pub(crate) elapsed: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) customers: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baristas: Option<Tally>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flooder: Option<Deeds>,
    /// Of the regulars with and without the flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drones: Option<Missions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    senders: Option<Parcels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    couriers: Option<Dispatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<PathBuf>,
}

impl Report {
    /// `elapsed` is measured.
    pub(crate) fn new(command: &'static str, pace: &Pace, elapsed: Duration) -> Self {
        Self {
            command,
            ok: true,
            speed: pace.speed,
            seed: Some(pace.seed),
            elapsed: Span::new(elapsed, pace.speed),
            customers: None,
            baristas: None,
            flooder: None,
            comparison: None,
            drones: None,
            senders: None,
            day: None,
            couriers: None,
            picture: None,
        }
    }

    /// Of a run in real time that draws no random numbers. `elapsed` is measured.
    pub(crate) fn of_clock(command: &'static str, elapsed: Duration) -> Self {
        let pace = Pace {
            speed: Speed::REAL_TIME,
            seed: 0,
        };
        Self {
            seed: None,
            ..Self::new(command, &pace, elapsed)
        }
    }

    /// A run is in order only if every customer who came got a 200.
    pub(crate) fn add_customers(&mut self, visits: &[Visit], planned: usize) {
        let summary = Summary::of(visits, planned, self.speed);
        self.ok &= summary.all_served();
        self.customers = Some(summary);
    }

    /// Baristas meet refusals in the course of their work; only a shop that never answered puts a run of theirs
    /// out of order, and only if there are no customers to judge by.
    pub(crate) fn add_baristas(&mut self, tally: Tally) {
        let never_reached = !tally.shop_reached && !tally.by_transport_error.is_empty();
        self.ok &= self.customers.is_some() || !never_reached;
        self.baristas = Some(tally);
    }

    /// A flooder expects nothing but a shop that can be reached.
    pub(crate) fn add_flooder(&mut self, deeds: Deeds) {
        self.ok &= deeds.shop_reached;
        self.flooder = Some(deeds);
    }

    /// A rush with a flood is in order only if the regulars were served without the flood too, and the flooder was
    /// cut off.
    pub(crate) fn add_comparison(&mut self, comparison: Comparison) {
        let cut_off = self.flooder.as_ref().and_then(|deeds| deeds.cut_off);
        self.ok &= comparison.without_flood.all_served() && cut_off.is_some();
        self.comparison = Some(comparison);
    }

    /// A run of drones is in order only if every event was acknowledged and every check holds.
    pub(crate) fn add_drones(&mut self, missions: Missions) {
        self.ok &= missions.checks().all_hold();
        self.drones = Some(missions);
    }

    /// A run of senders is in order only if every request was acknowledged and every check holds.
    pub(crate) fn add_senders(&mut self, parcels: Parcels) {
        self.ok &= parcels.checks().all_hold();
        self.senders = Some(parcels);
    }

    /// A day is in order only if every request was acknowledged and every check holds.
    pub(crate) fn add_day(&mut self, day: Day) {
        self.ok &= day.checks().all_hold();
        self.day = Some(day);
    }

    /// A run of couriers is in order only if every event was acknowledged and every check holds.
    pub(crate) fn add_couriers(&mut self, dispatch: Dispatch) {
        self.ok &= dispatch.checks().all_hold();
        self.couriers = Some(dispatch);
    }

    /// Draws the picture. A picture that cannot be written does not cost the report.
    /// `without_flood` are the visits of the run before the flood, if there was one.
    pub(crate) fn draw(
        &mut self,
        file: Option<PathBuf>,
        visits: &[Visit],
        without_flood: Option<&[Visit]>,
    ) {
        let Some(file) = file else { return };
        match std::fs::write(&file, plot::page(self, visits, without_flood)) {
            Ok(()) => self.picture = Some(file),
            Err(error) => {
                complain(&format!("cannot write {}: {error}", file.display()));
                self.ok = false;
            }
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Prints the report on standard output.
    pub(crate) fn print(&self, format: Format) -> io::Result<()> {
        let mut text = match format {
            Format::Text => self.to_string(),
            Format::Json => serde_json::to_string_pretty(self)?,
        };
        text.push('\n');
        match stdout().write_all(text.as_bytes()) {
            // The reader has closed the pipe, which is no error; the exit code is still to come.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// The verdict in words.
    pub(crate) fn verdict(&self) -> String {
        if let Some(missions) = &self.drones {
            return missions.verdict();
        }
        if let Some(parcels) = &self.senders {
            return parcels.verdict();
        }
        if let Some(day) = &self.day {
            return day.verdict();
        }
        if let Some(dispatch) = &self.couriers {
            return dispatch.verdict();
        }
        match (&self.customers, &self.flooder) {
            (Some(customers), _) => {
                let who = if self.comparison.is_some() {
                    "regular"
                } else {
                    "customer"
                };
                match (customers.arrived, customers.arrived - customers.served) {
                    (0, _) => "Nobody came.".to_owned(),
                    (arrived, 0) => format!("Every {who} got a 200 ({arrived} of {arrived})."),
                    (arrived, unserved) => {
                        format!("{unserved} of {arrived} {who}s did not get a 200.")
                    }
                }
            }
            (None, Some(deeds)) if self.ok => deeds.verdict(),
            (None, None) if self.ok => "The shift is over.".to_owned(),
            (None, _) => "The shop never answered.".to_owned(),
        }
    }

    /// What else is to be said of a rush with a flood, a sentence each.
    pub(crate) fn findings(&self) -> Vec<String> {
        match &self.comparison {
            Some(comparison) => comparison.findings(self.flooder.as_ref()),
            None => Vec::new(),
        }
    }
}

/// Reports an error of the run itself on standard error.
pub(crate) fn complain(trouble: &str) {
    // With standard error closed there is no place left to report to.
    drop(writeln!(stderr(), "simulators: {trouble}"));
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

/// How the two scales relate, in words; nothing when they are one.
pub(crate) fn scales(speed: Speed) -> Option<String> {
    let factor = speed.factor();
    (!speed.is_real_time()).then(|| format!("1 s measured here = {factor} s simulated in the shop"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulators {}", self.command)?;
        if let Some(seed) = self.seed {
            write!(f, ", seed {seed}")?;
        }
        match scales(self.speed) {
            Some(scales) => writeln!(f, ", speed {}: {scales}", self.speed.factor())?,
            None => writeln!(f)?,
        }
        if let Some(customers) = &self.customers {
            self.write_customers(f, customers)?;
        }
        if let Some(baristas) = &self.baristas {
            write_baristas(f, baristas)?;
        }
        if let Some(deeds) = &self.flooder {
            write!(f, "{deeds}")?;
        }
        if let Some(comparison) = &self.comparison {
            write!(f, "{comparison}")?;
        }
        if let Some(missions) = &self.drones {
            missions.write_figures(f)?;
            self.write_waits(f, "From due to acknowledged", missions.waits())?;
            write!(f, "{}", missions.checks())?;
        }
        if let Some(parcels) = &self.senders {
            parcels.write_figures(f)?;
            self.write_waits(f, "From sent to acknowledged", parcels.waits())?;
            write!(f, "{}", parcels.checks())?;
        }
        if let Some(day) = &self.day {
            day.write_figures(f)?;
            let [plans, updates] = day.waits();
            self.write_waits(f, "From asking for a plan to its answer", plans)?;
            self.write_waits(f, "From update to acknowledgement", updates)?;
            write!(f, "{}", day.checks())?;
        }
        if let Some(dispatch) = &self.couriers {
            dispatch.write_figures(f)?;
            self.write_waits(f, "From sent to acknowledged", dispatch.waits())?;
            write!(f, "{}", dispatch.checks())?;
        }
        self.write_times(f)?;
        if let Some(picture) = &self.picture {
            writeln!(f, "\nPicture: {}", picture.display())?;
        }
        write!(f, "\n{}", self.verdict())?;
        for finding in self.findings() {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_customers(&self, f: &mut fmt::Formatter<'_>, customers: &Summary) -> fmt::Result {
        let heading = if self.comparison.is_some() {
            "Regulars, with the flood"
        } else {
            "Customers"
        };
        writeln!(f, "\n{heading}")?;
        for (status, times) in &customers.by_status {
            row(f, &status_name(*status), times)?;
        }
        for (error, times) in &customers.by_transport_error {
            row(f, error, times)?;
        }
        row_unless_zero(f, "unanswered when stopped", customers.unanswered)?;
        row_unless_zero(f, "not yet come when stopped", customers.not_arrived)?;
        if let Some(out_of_turn) = customers.out_of_turn {
            row(f, "started out of turn", &out_of_turn)?;
        }
        let heading = format!("Waiting time of the {} served", customers.served);
        self.write_waits(f, &heading, customers.waits)
    }

    /// Nothing when there are none.
    fn write_waits(
        &self,
        f: &mut fmt::Formatter<'_>,
        heading: &str,
        waits: Option<Waits>,
    ) -> fmt::Result {
        let Some(waits) = waits else {
            return Ok(());
        };
        self.write_scales(f, heading)?;
        for (name, span) in waits.named() {
            self.write_span(f, name, span)?;
        }
        Ok(())
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_scales(f, "Run")?;
        self.write_span(f, "duration", self.elapsed)?;
        if let Some(Summary { served_per_s, .. }) = &self.customers {
            let columns = self.columns(&rate(served_per_s.measured), &rate(served_per_s.simulated));
            row(f, "served, first arrival to last answer", &columns)?;
        }
        if let Some(per_s) = self.drones.as_ref().map(Missions::acknowledged_per_s) {
            let columns = self.columns(&rate(per_s.measured), &rate(per_s.simulated));
            row(f, "events acknowledged", &columns)?;
        }
        if let Some(per_s) = self.senders.as_ref().map(Parcels::acknowledged_per_s) {
            let columns = self.columns(&rate(per_s.measured), &rate(per_s.simulated));
            row(f, "packages acknowledged", &columns)?;
        }
        if let Some(per_s) = self.day.as_ref().map(Day::updates_per_s) {
            let columns = self.columns(&rate(per_s.measured), &rate(per_s.simulated));
            row(f, "updates acknowledged", &columns)?;
        }
        if let Some(per_s) = self.couriers.as_ref().map(Dispatch::acknowledged_per_s) {
            let columns = self.columns(&rate(per_s.measured), &rate(per_s.simulated));
            row(f, "events acknowledged", &columns)?;
        }
        Ok(())
    }

    /// A heading over columns of time.
    fn write_scales(&self, f: &mut fmt::Formatter<'_>, heading: &str) -> fmt::Result {
        if self.speed.is_real_time() {
            writeln!(f, "\n{heading}")
        } else {
            writeln!(
                f,
                "\n{heading:<width$}  {:>12}  {:>14}",
                "measured",
                "simulated",
                width = LABEL_WIDTH + 2
            )
        }
    }

    fn write_span(&self, f: &mut fmt::Formatter<'_>, label: &str, span: Span) -> fmt::Result {
        let columns = self.columns(&spoken(span.measured), &spoken(span.simulated));
        row(f, label, &columns)
    }

    /// The second column only where it differs from the first.
    fn columns(&self, measured: &str, simulated: &str) -> String {
        if self.speed.is_real_time() {
            format!("{measured:>12}")
        } else {
            format!("{measured:>12}  {simulated:>14}")
        }
    }
}

fn write_baristas(f: &mut fmt::Formatter<'_>, tally: &Tally) -> fmt::Result {
    writeln!(f, "\nBaristas")?;
    row(f, "orders taken", &tally.started)?;
    row(f, "coffees finished", &tally.finished)?;
    row_unless_zero(f, "  whose customer had gone", tally.customer_gone)?;
    row_unless_zero(f, "  reported before", tally.already_finished)?;
    row_unless_zero(f, "coffees not finished", tally.not_finished)?;
    row_unless_zero(f, "orders given back", tally.given_back)?;
    for (status, times) in &tally.unexpected_status {
        row(f, &status_name(*status), times)?;
    }
    row_unless_zero(f, "unreadable answers", tally.unreadable)?;
    for (error, times) in &tally.by_transport_error {
        row(f, error, times)?;
    }
    Ok(())
}

/// A label and its value, under one another in every part of the report.
pub(crate) fn row(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    value: &dyn fmt::Display,
) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}  {value:>12}")
}

pub(crate) fn row_unless_zero(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    value: usize,
) -> fmt::Result {
    if value == 0 {
        return Ok(());
    }
    row(f, label, &value)
}

/// A rate at a scale that leaves it readable.
pub(crate) fn rate(per_s: f64) -> String {
    if per_s >= 1.0 {
        format!("{per_s:.1}/s")
    } else if per_s * 60.0 >= 1.0 {
        format!("{:.1}/min", per_s * 60.0)
    } else {
        format!("{:.1}/h", per_s * 3600.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        comparison::tests::comparison,
        connection::TransportError,
        cut_off::Listed,
        deeds::{
            Beginning,
            tests::{deeds, listed},
        },
        visits::{
            Outcome,
            tests::{SERVED, speed, visit},
        },
    };

    pub(crate) fn report(factor: u32, visits: &[Visit]) -> Report {
        let pace = Pace {
            speed: speed(factor),
            seed: 7,
        };
        let mut report = Report::new("rush", &pace, Duration::from_secs(9));
        report.add_customers(visits, visits.len());
        report
    }

    #[test]
    fn everybody_served_is_in_order() {
        let report = report(1, &[visit(1, SERVED), visit(2, SERVED)]);
        assert_eq!(report.exit_code(), ExitCode::SUCCESS);
        assert_eq!(report.verdict(), "Every customer got a 200 (2 of 2).");
    }

    #[test]
    fn anything_else_for_anybody_is_not() {
        for outcome in [
            Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE),
            Outcome::Answered(StatusCode::ACCEPTED),
            Outcome::Failed(TransportError::Reset),
            Outcome::Unanswered,
        ] {
            let report = report(1, &[visit(1, SERVED), visit(2, outcome)]);
            assert_eq!(report.exit_code(), ExitCode::FAILURE, "{outcome:?}");
            assert_eq!(report.verdict(), "1 of 2 customers did not get a 200.");
        }
    }

    #[test]
    fn a_crew_that_never_reached_the_shop_is_not_in_order() {
        let pace = Pace {
            speed: speed(1),
            seed: 7,
        };
        let judge = |tally| {
            let mut report = Report::new("baristas", &pace, Duration::from_secs(9));
            report.add_baristas(tally);
            report.exit_code()
        };
        let mut tally = Tally::default();
        assert_eq!(judge(Tally::default()), ExitCode::SUCCESS);
        tally
            .by_transport_error
            .insert("connection refused".to_owned(), 3);
        assert_eq!(judge(tally), ExitCode::FAILURE);
    }

    /// A rush with a flood in which the regulars fared like this, and the flooder was cut off or not.
    pub(crate) fn flooded(visits: &[Visit], listed: Option<Listed>) -> Report {
        let mut report = report(100, visits);
        report.add_flooder(deeds(visits, Beginning::now(), Some(Ok(listed))));
        report.add_comparison(comparison(listed.map(|_| 500)));
        report
    }

    #[tokio::test]
    async fn a_flooded_rush_is_in_order_if_the_regulars_were_served_and_the_flooder_cut_off() {
        let served = [visit(1, SERVED)];
        let report = flooded(&served, Some(listed(100)));
        assert_eq!(report.exit_code(), ExitCode::SUCCESS, "{report}");
        assert_eq!(report.verdict(), "Every regular got a 200 (1 of 1).");
        let report = flooded(&served, None);
        assert_eq!(report.exit_code(), ExitCode::FAILURE, "{report}");
        let report = flooded(&[visit(1, Outcome::Unanswered)], Some(listed(100)));
        assert_eq!(report.exit_code(), ExitCode::FAILURE, "{report}");
        assert_eq!(report.verdict(), "1 of 1 regulars did not get a 200.");
    }

    #[test]
    fn the_text_names_both_scales_only_when_there_are_two() {
        let text = report(100, &[visit(3600, SERVED)]).to_string();
        assert!(
            text.contains("1 s measured here = 100 s simulated in the shop"),
            "{text}"
        );
        assert!(text.contains("3.6 s      6 min 00 s"), "{text}");
        let text = report(1, &[visit(3600, SERVED)]).to_string();
        assert!(!text.contains("simulated"), "{text}");
        assert!(text.contains("200 OK"), "{text}");
    }

    #[test]
    fn json_has_units_in_its_names() {
        let json = serde_json::to_value(report(10, &[visit(1500, SERVED)])).unwrap();
        let wait = &json["customers"]["waits"]["max"];
        assert_eq!(wait["measured_s"], 1.5);
        assert_eq!(wait["simulated_s"], 15.0);
        assert_eq!(json["customers"]["by_status"]["200"], 1);
        assert_eq!(json["ok"], true);
    }

    #[test]
    fn rates_and_statuses_are_readable() {
        assert_eq!(rate(22.44), "22.4/s");
        assert_eq!(rate(0.2244), "13.5/min");
        assert_eq!(rate(0.002_244), "8.1/h");
        assert_eq!(status_name(503), "503 Service Unavailable");
        assert_eq!(status_name(599), "599");
    }
}
