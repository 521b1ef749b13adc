//! Data for programs. Keys are `snake_case` and stable: they are added, never renamed. Times are RFC
//! 3339 in UTC, spans in milliseconds, amounts in bytes; what is not known is null.

use super::human::rfc3339;
use crate::client::{
    Change, DiagnosticLine, Difference, EventLine, Exit, FileText, Generation, GenerationPage,
    HistoryLine, JobOutcome, Limits, PlanSummary, ProcessStatus, ReloadSummary, Severity, Step,
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn time(at: Option<SystemTime>) -> Option<String> {
    at.and_then(rfc3339)
}

/// One instance.
#[must_use]
pub fn process(status: &ProcessStatus, shown: &str) -> Value {
    json!({
        "id": status.id,
        "name": shown,
        "process": status.process,
        "instance": status.instance,
        "display_name": status.display_name,
        "description": status.description,
        "tags": status.tags,
        "enabled": status.enabled,
        "desired": status.desired,
        "state": status.state,
        "phase": status.phase,
        "active_state": status.active_state,
        "since": time(status.since),
        "result": status.result,
        "health": status.health,
        "health_detail": status.health_detail,
        "status_text": status.status_text,
        "last_check": time(status.last_check),
        "pid": status.pid,
        "overlap_pid": status.overlap_pid,
        "exit": status.exit.map(exit),
        "restarts": status.restarts,
        "next_restart_ms": status.next_restart.map(millis),
        "started": time(status.started),
        "memory": status.memory,
        "cpu_ms": status.cpu.map(millis),
        "tasks": status.tasks,
        "limits": limits(&status.limits),
        "limits_enforced": status.limits.unenforced.is_empty(),
        "unenforced_limits": status.limits.unenforced,
        "control_group": status.control_group,
        "waiting_for": status.waiting_for,
        "needs_restart": status.needs_restart,
        "program_changed": status.program_changed,
        "generation": status.generation,
        "environment_names": status.environment_names,
        "reason": status.reason,
        "log": status.log_kind,
        "history": status.history.iter().map(noted).collect::<Vec<_>>(),
    })
}

fn limits(limits: &Limits) -> Value {
    json!({
        "memory": limits.memory,
        "memory_high": limits.memory_high,
        "cpu": limits.cpu,
        "tasks": limits.tasks,
        "max_memory_restart": limits.max_memory_restart,
    })
}

fn noted(line: &HistoryLine) -> Value {
    json!({ "at": rfc3339(line.at), "kind": line.kind, "message": line.message })
}

fn exit(exit: Exit) -> Value {
    match exit {
        Exit::Code(code) => json!({ "code": code }),
        Exit::Signal { signal, core } => json!({ "signal": signal, "core_dumped": core }),
    }
}

/// The end of one job.
#[must_use]
pub fn job(outcome: &JobOutcome, shown: &str, asked: bool) -> Value {
    json!({
        "id": outcome.name,
        "name": shown,
        "job": (outcome.id != 0).then_some(outcome.id),
        "asked": asked,
        "result": outcome.result,
        "success": outcome.is_success(),
        "detail": outcome.detail,
    })
}

/// One line of the event log.
#[must_use]
pub fn event(line: &EventLine) -> Value {
    json!({
        "at": rfc3339(line.at),
        "kind": line.kind,
        "id": line.instance,
        "run": line.run,
        "job": line.job,
        "message": line.message,
    })
}

/// What a reload came to.
#[must_use]
pub fn reload(summary: &ReloadSummary) -> Value {
    json!({
        "result": summary.result,
        "generation": summary.generation,
        "trigger": summary.trigger,
        "added": summary.added,
        "removed": summary.removed,
        "modified": summary.modified,
        "unchanged": summary.unchanged,
        "failed": summary.failed,
        "tried": summary.tried,
        "why": summary.why,
        "took_ms": millis(summary.took),
        "timings_ms": timings(&summary.timings),
        "steps": summary.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(step: &Step) -> Value {
    json!({
        "id": step.name,
        "kind": step.kind,
        "state": step.state,
        "took_ms": millis(step.took),
        "why": step.why,
    })
}

/// What a reload would do.
#[must_use]
pub fn plan(plan: &PlanSummary, replaced: &[String]) -> Value {
    json!({
        "valid": plan.valid(),
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "programs_replaced": replaced,
        "generation": plan.generation,
        "diagnostics": plan.diagnostics.iter().map(diagnostic).collect::<Vec<_>>(),
    })
}

fn change(change: &Change) -> Value {
    json!({
        "process": change.process,
        "kind": change.kind,
        "consequence": change.consequence,
        "fields": change.fields.iter().map(|field| json!({
            "key": field.key,
            "old": field.old,
            "new": field.new,
            "consequence": field.consequence,
        })).collect::<Vec<_>>(),
        "touches": change.touches,
        "overlaps": change.overlaps,
        "awaits": (!change.awaits.is_empty()).then(|| json!({
            "readiness": change.awaits,
            "within_ms": millis(change.awaits_within),
        })),
    })
}

fn diagnostic(line: &DiagnosticLine) -> Value {
    json!({
        "severity": match line.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": line.code,
        "line": line.line,
        "column": line.column,
        "text": line.text,
    })
}

/// A configuration that was accepted.
#[must_use]
pub fn generation(one: &Generation) -> Value {
    json!({
        "generation": one.number,
        "time": time(one.time),
        "cause": one.cause,
        "cause_text": one.cause_text,
        "uid": one.uid,
        "rollback_to": one.rollback_to,
        "base": one.base,
        "state": one.state,
        "running": one.running,
        "why": one.why,
        "digest": one.digest,
        "added": one.added,
        "removed": one.removed,
        "modified": one.modified,
        "unchanged": one.unchanged,
    })
}

/// The same with its changes and files.
#[must_use]
pub fn generation_page(page: &GenerationPage) -> Value {
    let mut value = generation(&page.generation);
    value["changes"] = page.changes.iter().map(change).collect();
    value["steps"] = page.steps.iter().map(step).collect();
    value["timings_ms"] = timings(&page.timings);
    value["diagnostics"] = json!(page.diagnostics);
    value["last_modified"] = json!(time(page.last_modified));
    let file = |file: &FileText| json!({ "kind": file.kind, "path": file.path, "text": file.text });
    value["files"] = page.files.iter().map(file).collect();
    value
}

/// What differs between two configurations; null is what is on disk.
#[must_use]
pub fn difference(found: &Difference, old: Option<u64>, new: Option<u64>) -> Value {
    json!({
        "old": old,
        "new": new,
        "comparable": found.comparable,
        "changes": found.changes.iter().map(change).collect::<Vec<_>>(),
        "files": found.files.iter().map(|file| json!({
            "path": file.path,
            "kind": file.kind,
            "hidden_values_differ": file.hidden,
            "hunks": file.hunks,
        })).collect::<Vec<_>>(),
    })
}

fn timings(timings: &[(String, Duration)]) -> Value {
    let entries = timings.iter().map(|(stage, took)| (stage.clone(), json!(millis(*took))));
    Value::Object(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_process_stay() {
        let value = process(&ProcessStatus::default(), "");
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "id",
            "name",
            "process",
            "instance",
            "display_name",
            "description",
            "tags",
            "enabled",
            "desired",
            "state",
            "phase",
            "active_state",
            "since",
            "result",
            "health",
            "health_detail",
            "status_text",
            "last_check",
            "pid",
            "overlap_pid",
            "exit",
            "restarts",
            "next_restart_ms",
            "started",
            "memory",
            "cpu_ms",
            "tasks",
            "limits",
            "limits_enforced",
            "unenforced_limits",
            "control_group",
            "waiting_for",
            "needs_restart",
            "program_changed",
            "generation",
            "environment_names",
            "reason",
            "log",
            "history",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let value = process(&ProcessStatus::default(), "");
        for key in ["pid", "exit", "memory", "started", "next_restart_ms"] {
            assert!(value[key].is_null(), "{key}");
        }
    }
}
