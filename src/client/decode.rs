//! From dictionaries to data. A key that is missing leaves its default, one that is unknown or of
//! another type is passed over: the daemon may be older or newer.

use super::proxies::{DiagnosticRow, Dict};
use super::types::*;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zbus::{OwnedVariant, Variant};

/// Takes a value out of a dictionary.
fn take<T>(dict: &mut Dict, key: &str) -> Option<T>
where
    T: TryFrom<OwnedVariant>,
{
    dict.remove(key).and_then(|value| T::try_from(value).ok())
}

fn text(dict: &mut Dict, key: &str) -> String {
    take(dict, key).unwrap_or_default()
}

fn texts(dict: &mut Dict, key: &str) -> Vec<String> {
    take(dict, key).unwrap_or_default()
}

fn number(dict: &mut Dict, key: &str) -> u64 {
    take(dict, key).unwrap_or_default()
}

fn small(dict: &mut Dict, key: &str) -> u32 {
    take(dict, key).unwrap_or_default()
}

fn switch(dict: &mut Dict, key: &str) -> bool {
    take(dict, key).unwrap_or_default()
}

/// Microseconds of the wall clock; 0 is no time.
fn time(dict: &mut Dict, key: &str) -> Option<SystemTime> {
    match number(dict, key) {
        0 => None,
        usec => Some(wall(usec)),
    }
}

/// A number of which the largest stands for unknown.
fn known(dict: &mut Dict, key: &str) -> Option<u64> {
    take(dict, key).filter(|number| *number != u64::MAX)
}

pub fn wall(usec: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(usec)
}

/// The rows of an array of structures; a row that cannot be read is left out.
fn rows<T>(dict: &mut Dict, key: &str) -> Vec<T>
where
    T: TryFrom<OwnedVariant>,
{
    let Some(Variant::Array(array)) = dict.remove(key).map(Variant::from) else {
        return Vec::new();
    };
    array
        .iter()
        .filter_map(|row| OwnedVariant::try_from(row).ok())
        .filter_map(|row| T::try_from(row).ok())
        .collect()
}

/// `now` is the monotonic clock, on which the next restart is given.
pub fn process(id: String, mut dict: Dict, now: Duration) -> ProcessStatus {
    let d = &mut dict;
    let exit = match (take::<i32>(d, "ExitCode"), take::<i32>(d, "ExitStatus")) {
        (Some(1), Some(code)) => Some(Exit::Code(code)),
        (Some(kind @ (2 | 3)), Some(signal)) => Some(Exit::Signal { signal, core: kind == 3 }),
        _ => None,
    };
    let next = Duration::from_micros(number(d, "NextRestartUSec"));
    let history = rows::<(u64, String, String)>(d, "History");
    ProcessStatus {
        process: text(d, "Name"),
        instance: small(d, "Instance"),
        display_name: text(d, "DisplayName"),
        description: text(d, "Description"),
        tags: texts(d, "Tags"),
        enabled: switch(d, "Enabled"),
        desired: text(d, "DesiredState"),
        active_state: text(d, "ActiveState"),
        state: text(d, "SubState"),
        phase: text(d, "Phase"),
        since: time(d, "StateChangeUSec"),
        result: text(d, "Result"),
        health: text(d, "Health"),
        health_detail: text(d, "HealthDetail"),
        status_text: text(d, "StatusText"),
        last_check: time(d, "LastCheck"),
        pid: Some(small(d, "MainPID")).filter(|pid| *pid != 0),
        overlap_pid: Some(small(d, "OverlapPID")).filter(|pid| *pid != 0),
        exit,
        restarts: small(d, "NRestarts"),
        next_restart: (!next.is_zero()).then(|| next.saturating_sub(now)),
        started: time(d, "StartedAt"),
        memory: known(d, "MemoryCurrent"),
        cpu: known(d, "CPUUsageNSec").map(Duration::from_nanos),
        tasks: known(d, "TasksCurrent"),
        limits: Limits {
            memory: known(d, "MemoryMax"),
            memory_high: known(d, "MemoryHigh"),
            cpu: known(d, "CPUQuotaPerSecUSec").map(|micros| micros as f64 / 1e6),
            tasks: known(d, "TasksMax"),
            max_memory_restart: known(d, "MaxMemoryRestart"),
            unenforced: texts(d, "UnenforcedLimits"),
        },
        control_group: text(d, "ControlGroup"),
        waiting_for: texts(d, "WaitingFor"),
        needs_restart: switch(d, "NeedsRestart"),
        program_changed: switch(d, "ProgramChanged"),
        generation: number(d, "ConfigGeneration"),
        environment_names: texts(d, "EnvironmentNames"),
        reason: text(d, "Reason"),
        history: history
            .into_iter()
            .map(|(usec, kind, message)| HistoryLine { at: wall(usec), kind, message })
            .collect(),
        log_kind: text(d, "LogKind"),
        id,
    }
}

pub fn manager(mut dict: Dict) -> ManagerStatus {
    let d = &mut dict;
    let diagnostics = rows::<DiagnosticRow>(d, "Diagnostics");
    ManagerStatus {
        version: text(d, "Version"),
        backend: text(d, "Backend"),
        config_file: text(d, "ConfigFile"),
        system_state: text(d, "SystemState"),
        config_state: text(d, "ConfigState"),
        config_detail: text(d, "ConfigDetail"),
        generation: number(d, "ConfigGeneration"),
        disk_generation: number(d, "DiskGeneration"),
        reloads: take(d, "Reloads").unwrap_or_default(),
        digest: text(d, "ConfigDigest"),
        last_modified: time(d, "LastModified"),
        last_reloaded: time(d, "LastReloaded"),
        watching: switch(d, "Watching"),
        valid: switch(d, "Valid"),
        diagnostics: diagnostics.into_iter().map(diagnostic).collect(),
        processes: small(d, "NProcesses"),
        enabled: small(d, "NEnabled"),
        running: small(d, "NRunning"),
        failed: small(d, "NFailed"),
        unhealthy: small(d, "NUnhealthy"),
        jobs: small(d, "NJobs"),
    }
}

/// A severity of a newer daemon counts as the weakest.
pub fn diagnostic((severity, code, line, column, text): DiagnosticRow) -> DiagnosticLine {
    let severity = if severity == 0 { Severity::Error } else { Severity::Warning };
    DiagnosticLine { severity, code, line, column, text }
}

pub fn change((process, mut dict): (String, Dict)) -> Change {
    let d = &mut dict;
    let fields = rows::<(String, String, String, String)>(d, "fields");
    Change {
        process,
        kind: text(d, "kind"),
        consequence: text(d, "consequence"),
        fields: fields
            .into_iter()
            .map(|(key, old, new, consequence)| FieldChange { key, old, new, consequence })
            .collect(),
        touches: texts(d, "touches"),
        awaits: text(d, "awaits"),
        awaits_within: Duration::from_micros(number(d, "awaits-usec")),
        overlaps: switch(d, "overlaps"),
    }
}

pub fn event((kind, usec, mut dict): (String, u64, Dict)) -> EventLine {
    let d = &mut dict;
    EventLine {
        at: wall(usec),
        kind,
        instance: take(d, "instance"),
        run: take(d, "run"),
        job: take(d, "job"),
        message: text(d, "message"),
    }
}

/// The stages of a reload in their order; the bus has them without.
const STAGES: [&str; 4] = ["read", "check", "plan", "apply"];

fn timings(dict: &mut Dict) -> Vec<(String, Duration)> {
    let given: std::collections::BTreeMap<String, u64> = take(dict, "timings").unwrap_or_default();
    let mut timings: Vec<(String, Duration)> =
        given.into_iter().map(|(stage, millis)| (stage, Duration::from_millis(millis))).collect();
    timings.sort_by_key(|(stage, _)| STAGES.iter().position(|known| known == stage));
    timings
}

/// The job of a reload and what came of it.
pub fn reload(generation: u64, result: String, mut dict: Dict) -> (String, ReloadSummary) {
    let d = &mut dict;
    let job = take::<zbus::OwnedObjectPath>(d, "job").map(|job| job.to_string());
    let (timings, steps) = (timings(d), steps(d));
    let summary = ReloadSummary {
        generation,
        result,
        trigger: text(d, "trigger"),
        added: texts(d, "added"),
        removed: texts(d, "removed"),
        modified: texts(d, "modified"),
        unchanged: small(d, "unchanged"),
        failed: texts(d, "failed"),
        tried: take::<u64>(d, "tried"),
        why: texts(d, "why"),
        timings,
        took: Duration::from_micros(number(d, "took-usec")),
        steps,
    };
    (job.unwrap_or_default(), summary)
}

fn steps(dict: &mut Dict) -> Vec<Step> {
    let rows = rows::<(String, String, String, u64, String)>(dict, "steps");
    rows.into_iter().map(step).collect()
}

fn step((name, kind, state, millis, why): (String, String, String, u64, String)) -> Step {
    Step { name, kind, state, took: Duration::from_millis(millis), why }
}

/// A generation; what it has besides is left.
pub fn generation(d: &mut Dict) -> Generation {
    Generation {
        number: number(d, "number"),
        time: time(d, "time"),
        cause: text(d, "cause"),
        cause_text: text(d, "cause-text"),
        uid: take(d, "uid"),
        rollback_to: take(d, "rollback-to"),
        base: take(d, "base"),
        state: text(d, "state"),
        running: switch(d, "running"),
        why: texts(d, "why"),
        digest: text(d, "digest"),
        added: small(d, "added"),
        removed: small(d, "removed"),
        modified: small(d, "modified"),
        unchanged: small(d, "unchanged"),
    }
}

pub fn generation_page(mut dict: Dict) -> GenerationPage {
    let d = &mut dict;
    let files = rows::<(String, String, bool, String)>(d, "files");
    let file = |(kind, path, is_there, text): (String, String, bool, String)| FileText {
        kind,
        path,
        text: is_there.then_some(text),
    };
    GenerationPage {
        generation: generation(d),
        changes: changes(d),
        steps: steps(d),
        timings: timings(d),
        diagnostics: texts(d, "diagnostics"),
        last_modified: time(d, "last-modified"),
        files: files.into_iter().map(file).collect(),
    }
}

pub fn difference(mut dict: Dict) -> Difference {
    let d = &mut dict;
    let files = rows::<(String, String, bool, String)>(d, "files");
    let file = |(path, kind, hidden, hunks): (String, String, bool, String)| FileDifference {
        path,
        kind,
        hidden,
        hunks,
    };
    Difference {
        comparable: switch(d, "comparable"),
        changes: changes(d),
        files: files.into_iter().map(file).collect(),
    }
}

fn changes(dict: &mut Dict) -> Vec<Change> {
    let rows = rows::<(String, Dict)>(dict, "changes");
    rows.into_iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(value: impl Into<Variant<'a>>) -> OwnedVariant {
        OwnedVariant::try_from(value.into()).unwrap()
    }

    fn dict(entries: Vec<(&str, OwnedVariant)>) -> Dict {
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    #[test]
    fn a_daemon_that_says_less_and_more_is_understood() {
        let status = process(
            "api@0".into(),
            dict(vec![
                ("Name", value("api")),
                ("SubState", value("hibernating")),
                ("MainPID", value("not a number")),
                ("Colour", value("green")),
                ("MemoryCurrent", value(u64::MAX)),
                ("TasksCurrent", value(3u64)),
            ]),
            Duration::ZERO,
        );
        assert_eq!(status.id, "api@0");
        assert_eq!(status.state, "hibernating");
        assert_eq!((status.pid, status.memory, status.tasks), (None, None, Some(3)));
        assert_eq!(status.exit, None);
    }

    #[test]
    fn times_and_rows_are_read() {
        let history = vec![(5_000_000u64, "exited".to_owned(), "exited with code 1".to_owned())];
        let status = process(
            "api@1".into(),
            dict(vec![
                ("StartedAt", value(7_000_000u64)),
                ("NextRestartUSec", value(9_000_000u64)),
                ("ExitCode", value(2i32)),
                ("ExitStatus", value(15i32)),
                ("History", value(history)),
                ("WaitingFor", value(vec!["db".to_owned()])),
            ]),
            Duration::from_secs(4),
        );
        assert_eq!(status.started, Some(UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(status.next_restart, Some(Duration::from_secs(5)));
        assert_eq!(status.exit, Some(Exit::Signal { signal: 15, core: false }));
        assert_eq!(status.history[0].at, UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(status.waiting_for, ["db"]);
    }

    #[test]
    fn a_reload_has_its_stages_in_order() {
        let timings: std::collections::BTreeMap<String, u64> =
            [("apply".into(), 40), ("check".into(), 2), ("read".into(), 1)].into();
        let (_, summary) = reload(3, "applied".into(), dict(vec![("timings", value(timings))]));
        let stages: Vec<&str> = summary.timings.iter().map(|(stage, _)| stage.as_str()).collect();
        assert_eq!(stages, ["read", "check", "apply"]);
    }
}
