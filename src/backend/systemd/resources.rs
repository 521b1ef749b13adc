//! Limits, sandboxes and the properties of the file, as systemd is told them
//! (systemd.resource-control(5), systemd.exec(5)).

use super::unit::Properties;
use crate::config::load::Mode;
use crate::core::limits::{Limit, Limits};
use crate::core::spec::ExecSpec;
use crate::core::unit::{self, Part, UnitProperties, Value};
use std::collections::HashMap;
use zbus::{OwnedVariant, Variant};

/// What stands for no limit.
const INFINITY: u64 = u64::MAX;

/// Thousandths of a processor are so many microseconds a second.
const MICROSECONDS: u64 = 1_000;

/// Those that are properties; what restarts a run is in one of them.
const OF_UNITS: [Limit; 4] = [Limit::Memory, Limit::MemoryHigh, Limit::Cpu, Limit::Tasks];

fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "MemoryMax",
        Limit::MemoryHigh | Limit::MaxMemoryRestart => "MemoryHigh",
        Limit::Cpu => "CPUQuotaPerSecUSec",
        Limit::Tasks => "TasksMax",
    }
}

fn value(limits: &Limits, limit: Limit) -> Option<u64> {
    match limit {
        Limit::Memory => limits.memory,
        Limit::MemoryHigh | Limit::MaxMemoryRestart => limits.high(),
        Limit::Cpu => limits.cpu.map(|thousandths| u64::from(thousandths) * MICROSECONDS),
        Limit::Tasks => limits.tasks,
    }
}

/// The limits of a new unit. What the file does not limit is left to systemd.
pub(super) fn limits(limits: &Limits) -> Properties {
    let given = OF_UNITS.into_iter();
    given.filter_map(|limit| Some((name(limit), value(limits, limit)?.into()))).collect()
}

/// What makes of a unit with one set of limits one with another. `tasks` is what systemd gives a unit
/// that has no limit of tasks of its own.
pub(super) fn change(old: &Limits, new: &Limits, tasks: u64) -> Properties {
    let differing = OF_UNITS.into_iter().filter(|limit| value(old, *limit) != value(new, *limit));
    let told = differing.map(|limit| {
        let none = if limit == Limit::Tasks { tasks } else { INFINITY };
        (name(limit), value(new, limit).unwrap_or(none).into())
    });
    told.collect()
}

/// What lets a unit have its memory until it ends.
pub(super) fn relief() -> Properties {
    vec![(name(Limit::MemoryHigh), INFINITY.into())]
}

/// The limits that a unit has.
pub(super) fn observed(service: &HashMap<String, OwnedVariant>) -> Limits {
    let number = |limit| {
        let value = service.get(name(limit)).and_then(|value| value.try_clone().ok());
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value != INFINITY)
    };
    Limits {
        memory: number(Limit::Memory),
        memory_high: number(Limit::MemoryHigh),
        cpu: number(Limit::Cpu).and_then(|micros| u32::try_from(micros / MICROSECONDS).ok()),
        tasks: number(Limit::Tasks),
        max_memory_restart: None,
    }
}

/// What of its limits a unit that was found does not have: as for a change from what it has, but
/// that what the file does not limit is left as it is.
pub(super) fn missing(found: &Limits, wanted: &Limits) -> Properties {
    let differing =
        OF_UNITS.into_iter().filter(|limit| value(found, *limit) != value(wanted, *limit));
    differing.filter_map(|limit| Some((name(limit), value(wanted, limit)?.into()))).collect()
}

/// The sandbox and the properties of a process, for its own unit or for one of a command beside it.
pub(super) fn properties(exec: &ExecSpec, cwd: &str, mode: Mode, is_beside: bool) -> Properties {
    let mut all: UnitProperties = match mode {
        Mode::System => exec.sandbox.properties(cwd),
        Mode::User => exec.sandbox.properties_of_user(cwd),
    };
    let own = exec.unit.iter().map(|(name, words)| (name.clone(), words.clone()));
    all.extend(own);
    if is_beside {
        all.retain(|name, _| unit::property(name).is_ok_and(|known| known.part == Part::Sandbox));
    }
    told(&all)
}

/// The same of properties of our own.
pub(super) fn of_words(list: &[(&str, &str)]) -> Properties {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    told(&list.iter().map(|(name, text)| ((*name).to_owned(), words(text))).collect())
}

fn told(all: &UnitProperties) -> Properties {
    // Every one of them was read when the file was, or by a test.
    let read = all.iter().filter_map(|(name, words)| unit::read(name, words).ok());
    read.flatten().map(|(name, value)| (name, variant(value))).collect()
}

fn variant(value: Value) -> Variant<'static> {
    match value {
        Value::Bool(value) => value.into(),
        Value::Text(text) => text.into(),
        Value::Texts(texts) => texts.into(),
        Value::Large(number) => number.into(),
        Value::Integer(number) => number.into(),
        Value::Mode(mode) => mode.into(),
        Value::Filter(allows, names) => (allows, names).into(),
        Value::Pairs(pairs) => pairs.into(),
        Value::Binds(binds) => binds.into(),
        Value::Bits(bytes) => bytes.into(),
        Value::Addresses(addresses) => addresses.into(),
        // It was taken apart when it was read.
        Value::Two(_, hard) => hard.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessId;
    use crate::core::spec::{Command, ProcessSpec};
    use crate::core::unit::Sandbox;
    use std::sync::Arc;

    fn shown(properties: &Properties) -> Vec<String> {
        properties.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn exec(sandbox: Sandbox, entries: &[(&str, &str)]) -> ExecSpec {
        let id = ProcessId::new("web").unwrap();
        let mut exec = ProcessSpec::new(id, Command::Shell("true".into())).exec;
        exec.sandbox = sandbox;
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let all = entries.iter().map(|(name, text)| ((*name).to_owned(), words(text)));
        exec.unit = Arc::new(all.collect());
        exec
    }

    #[test]
    fn only_what_differs_is_changed() {
        let old = Limits { memory: Some(1 << 20), tasks: Some(5), ..Limits::default() };
        let new = Limits { memory: Some(1 << 20), cpu: Some(1_500), ..Limits::default() };
        assert_eq!(shown(&limits(&old)), ["MemoryMax=uint64 1048576", "TasksMax=uint64 5"]);
        let told = shown(&change(&old, &new, 77));
        assert_eq!(told, ["CPUQuotaPerSecUSec=uint64 1500000", "TasksMax=uint64 77"]);
        assert!(change(&old, &old, 77).is_empty());
        assert_eq!(shown(&missing(&old, &new)), ["CPUQuotaPerSecUSec=uint64 1500000"]);
    }

    #[test]
    fn what_the_file_says_comes_before_what_the_sandbox_says() {
        let exec = exec(
            Sandbox::Default,
            &[("ProtectSystem", "strict"), ("RuntimeDirectory", "web"), ("LimitCORE", "0:9")],
        );
        let own = shown(&properties(&exec, "/srv", Mode::System, false));
        for wanted in [
            "ProtectSystem=\"strict\"",
            "NoNewPrivileges=true",
            "RuntimeDirectory=[\"web\"]",
            "LimitCORE=uint64 9",
            "LimitCORESoft=uint64 0",
        ] {
            assert!(own.iter().any(|one| one == wanted), "{wanted}: {own:#?}");
        }
        let beside = shown(&properties(&exec, "/srv", Mode::System, true));
        assert!(beside.iter().any(|one| one.starts_with("ProtectSystem=")));
        assert!(!beside.iter().any(|one| one.starts_with("RuntimeDirectory=")), "{beside:#?}");
        let users = shown(&properties(&exec, "/srv", Mode::User, true));
        assert!(users.iter().any(|one| one == "NoNewPrivileges=true"), "{users:#?}");
        assert!(!users.iter().any(|one| one.starts_with("ProtectClock")), "{users:#?}");
    }

    #[test]
    fn without_a_sandbox_nothing_is_asked_for() {
        assert!(properties(&exec(Sandbox::None, &[]), "/", Mode::User, false).is_empty());
    }
}
