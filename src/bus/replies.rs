//! The larger replies and signals, as they are on the wire.

use super::values::{Clock, Dict, real};
use super::{job_number, paths, text};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::core::reload::{Change, ChangeKind, Step, StepState};
use crate::core::view::InstanceView;
use crate::driver::handle::{EventLine, ReloadOutcome};
use std::collections::BTreeMap;
use std::time::Duration;
use zbus::Variant;

/// Severity (0 error, 1 warning), code, line, column, text.
pub type DiagnosticRow = (u32, String, u32, u32, String);

/// Process and what happens to it.
pub type ChangeRow = (String, Dict);

/// Kind, microseconds of the wall clock, and the rest.
pub type EventRow = (String, u64, Dict);

/// Microseconds of the wall clock, kind, message.
pub type HistoryRow = (u64, String, String);

/// Instance, kind, state, milliseconds, why.
pub type StepRow = (String, String, String, u64, String);

fn row(diagnostic: &Diagnostic, text: String) -> DiagnosticRow {
    let severity = match diagnostic.severity {
        Severity::Error => 0,
        Severity::Warning => 1,
    };
    let place = &diagnostic.place;
    (severity, diagnostic.code.to_owned(), place.line, place.column, text)
}

/// Diagnostics for everybody: without excerpts.
pub fn public_diagnostics(diagnostics: &[Diagnostic]) -> Vec<DiagnosticRow> {
    diagnostics.iter().map(|d| row(d, text::diagnostic(d))).collect()
}

/// Diagnostics for a caller who may read the files; `rendered` has one text for each.
pub fn full_diagnostics(diagnostics: &[Diagnostic], rendered: &[String]) -> Vec<DiagnosticRow> {
    let texts = rendered.iter().cloned().map(Some).chain(std::iter::repeat(None));
    diagnostics
        .iter()
        .zip(texts)
        .map(|(d, rendered)| row(d, rendered.unwrap_or_else(|| text::diagnostic(d))))
        .collect()
}

/// What a plan would do.
pub fn changes(changes: &[Change]) -> Vec<ChangeRow> {
    changes.iter().map(|c| (c.process.to_string(), change(c))).collect()
}

fn change(change: &Change) -> Dict {
    let fields: Vec<(String, String, String, String)> = change
        .fields
        .iter()
        .map(|field| {
            (
                field.key.clone(),
                field.old.clone().unwrap_or_default(),
                field.new.clone().unwrap_or_default(),
                field.consequence.as_str().to_owned(),
            )
        })
        .collect();
    let touches: Vec<String> = change.touches.iter().map(ToString::to_string).collect();
    let mut dict = BTreeMap::from([
        ("kind", change.kind.as_str().into()),
        ("consequence", change.consequence.as_str().into()),
        ("fields", fields.into()),
        ("touches", touches.into()),
    ]);
    if let Some(awaits) = &change.awaits {
        dict.insert("awaits", awaits.readiness.as_str().into());
        let within = u64::try_from(awaits.within.as_micros()).unwrap_or(u64::MAX);
        dict.insert("awaits-usec", within.into());
        if awaits.overlaps {
            dict.insert("overlaps", true.into());
        }
    }
    dict
}

/// One line of the event log.
pub fn event(line: &EventLine) -> EventRow {
    let mut rest: Dict = BTreeMap::from([("message", line.message().into())]);
    if let Some(instance) = line.instance() {
        rest.insert("instance", instance.to_string().into());
    }
    if let Some(run) = line.run() {
        rest.insert("run", run.0.into());
    }
    if let Some(job) = line.job() {
        rest.insert("job", job_number(job).into());
    }
    (line.kind().to_owned(), real(line.at), rest)
}

/// What happened to an instance, oldest first.
pub fn history(view: &InstanceView, clock: &Clock) -> Vec<HistoryRow> {
    view.history
        .iter()
        .map(|note| (clock.usec(Some(note.at)), note.what.kind().to_owned(), note.what.to_string()))
        .collect()
}

/// The third argument of `ReloadFinished`.
pub fn reload_info(outcome: &ReloadOutcome) -> Dict {
    let job = outcome.job.map_or_else(paths::none, paths::job);
    let timings: BTreeMap<String, u64> =
        outcome.timings.iter().map(|(stage, took)| ((*stage).to_owned(), *took)).collect();
    let mut info: Dict = BTreeMap::from([
        ("job", Variant::from(job)),
        ("trigger", text::trigger(&outcome.trigger).into()),
        ("timings", timings.into()),
        ("why", outcome.why.clone().into()),
    ]);
    if let Some(tried) = outcome.tried {
        info.insert("tried", tried.0.into());
    }
    let Some(report) = &outcome.report else { return info };
    for (key, kind) in [
        ("added", ChangeKind::Added),
        ("removed", ChangeKind::Removed),
        ("modified", ChangeKind::Modified),
    ] {
        let processes: Vec<String> = report.plan.of(kind).map(ToString::to_string).collect();
        info.insert(key, processes.into());
    }
    let unchanged = u32::try_from(report.plan.unchanged.len()).unwrap_or(u32::MAX);
    info.insert("unchanged", unchanged.into());
    let failed: Vec<String> = report
        .steps
        .iter()
        .filter(|step| matches!(step.state, StepState::Failed { .. }))
        .map(|step| step.instance.to_string())
        .collect();
    info.insert("failed", failed.into());
    info.insert("steps", steps(&report.steps).into());
    let took = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX);
    info.insert("took-usec", took.into());
    info
}

/// What was done, in the order it was planned.
pub fn steps(steps: &[Step]) -> Vec<StepRow> {
    steps.iter().map(step).collect()
}

fn step(step: &Step) -> StepRow {
    let (state, took, why) = match &step.state {
        StepState::Pending => ("pending", Duration::ZERO, ""),
        StepState::Running { .. } => ("running", Duration::ZERO, ""),
        StepState::Done { took } => ("done", *took, ""),
        StepState::Held { took, why } => ("held", *took, why.as_str()),
        StepState::Failed { took, why } => ("failed", *took, why.as_str()),
        StepState::Superseded => ("superseded", Duration::ZERO, ""),
    };
    (
        step.instance.to_string(),
        step.kind.as_str().to_owned(),
        state.to_owned(),
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        why.to_owned(),
    )
}
