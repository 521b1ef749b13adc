//! The values of properties, and what of them has changed.
//!
//! Both are made from one table for each interface, so that a property cannot be shown one way and
//! announced another.

use super::paths;
use super::process::UNKNOWN;
use crate::core::event::{ExitStatus, RunEnd};
use crate::core::limits::Limit;
use crate::core::spec::{LogTarget, Signal};
use crate::core::time::Mono;
use crate::core::view::{Beside, InstanceView, active_state};
use crate::driver::handle::{self, CheckpointView, ManagerView};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zbus::{OwnedObjectPath, Variant};

/// A dictionary of properties.
pub type Dict = BTreeMap<&'static str, Variant<'static>>;

/// What is announced when a property changes (`EmitsChangedSignal`). Constant properties and those
/// that announce nothing are not in the tables of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    /// The new value.
    Value,
    /// Only that it changed.
    Invalidation,
    /// Nothing.
    Nothing,
}

/// One property of `T`.
pub struct Property<T> {
    /// Its name on the bus.
    pub name: &'static str,
    /// What is announced.
    pub emits: Emits,
    value: fn(&T, &Clock) -> Variant<'static>,
    /// Whether two have other values. Most have the same, and need not be put into a variant for it.
    differs: fn(&T, &T, &Clock) -> bool,
}

/// What of an object has changed.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    /// Properties with their new values.
    pub values: Dict,
    /// Properties of which only the name is told.
    pub invalidated: Vec<&'static str>,
}

impl Changed {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.invalidated.is_empty()
    }
}

/// Compares two states of one object.
pub fn changed<T>(table: &[Property<T>], old: &T, new: &T, clock: &Clock) -> Changed {
    let mut changed = Changed::default();
    for property in table.iter().filter(|property| property.emits != Emits::Nothing) {
        if !(property.differs)(old, new, clock) {
            continue;
        }
        if property.emits == Emits::Value {
            changed.values.insert(property.name, (property.value)(new, clock));
        } else {
            changed.invalidated.push(property.name);
        }
    }
    changed
}

/// All values of one object.
pub fn all<T>(table: &[Property<T>], subject: &T, clock: &Clock) -> Dict {
    table.iter().map(|property| (property.name, (property.value)(subject, clock))).collect()
}

/// Where the monotonic clock stands on the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_usec: i64,
}

/// The offset as it was told last. Measured again it differs by a little each time, and a property
/// must not change because of that.
static OFFSET: AtomicI64 = AtomicI64::new(i64::MIN);

/// A smaller change of the offset is not one.
const SAME_USEC: u64 = 10_000;

impl Clock {
    /// The clock as it stands.
    pub fn now() -> Clock {
        let wall = i64::try_from(real(SystemTime::now())).unwrap_or(i64::MAX);
        let mono = i64::try_from(handle::now().0 / 1000).unwrap_or(i64::MAX);
        let measured = wall.saturating_sub(mono);
        let told = OFFSET.load(Ordering::Relaxed);
        if told.abs_diff(measured) <= SAME_USEC {
            return Clock { offset_usec: told };
        }
        OFFSET.store(measured, Ordering::Relaxed);
        Clock { offset_usec: measured }
    }

    /// Microseconds of the wall clock; 0 for no time at all.
    pub fn usec(&self, at: Option<Mono>) -> u64 {
        let usec = monotonic(at);
        if usec == 0 { 0 } else { usec.saturating_add_signed(self.offset_usec) }
    }
}

/// Microseconds of the monotonic clock; 0 for no time at all.
pub fn monotonic(at: Option<Mono>) -> u64 {
    at.map_or(0, |at| at.0 / 1000)
}

/// Microseconds of the wall clock.
pub fn real(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds of the wall clock; 0 for no time at all.
pub fn real_or_none(at: Option<SystemTime>) -> u64 {
    at.map_or(0, real)
}

macro_rules! table {
    ($of:ty: $($name:literal $emits:ident $value:expr;)*) => {
        &[$(Property {
            name: $name,
            emits: Emits::$emits,
            value: |subject, clock| {
                let value: fn(&$of, &Clock) -> _ = $value;
                value(subject, clock).into()
            },
            differs: |old, new, clock| {
                let value: fn(&$of, &Clock) -> _ = $value;
                value(old, clock) != value(new, clock)
            },
        }),*]
    };
}

/// `org.provost.Provost1.Process`, but for what must be asked for (memory, processor time, tasks,
/// control group).
pub const PROCESS: &[Property<InstanceView>] = table! { InstanceView:
    "Name" Nothing |v, _| v.id.process.to_string();
    "Instance" Nothing |v, _| v.id.index;
    "Description" Value |v, _| description(v);
    "Enabled" Value |v, _| v.enabled;
    "DesiredState" Value |v, _| desired_state(v);
    "ActiveState" Value |v, _| active_state(v.state);
    "SubState" Value |v, _| v.state.as_str();
    "Phase" Value |v, _| v.sub_state;
    "StateChangeUSec" Value |v, c| c.usec(Some(v.since));
    "StateChangeUSecMonotonic" Value |v, _| monotonic(Some(v.since));
    "Result" Value |v, _| result(v);
    "Health" Value |v, _| v.health.as_str();
    "HealthDetail" Nothing |v, _| health_detail(v);
    "LastCheck" Nothing |v, c| c.usec(v.last_check);
    "StatusText" Value |v, _| status_text(v);
    "MainPID" Value |v, _| v.pid.unwrap_or(0);
    "OverlapPID" Value |v, _| overlap_pid(v);
    "ExitCode" Value |v, _| exit(v.last_exit).0;
    "ExitStatus" Value |v, _| exit(v.last_exit).1;
    "NRestarts" Value |v, _| restarts(v);
    "NextRestartUSec" Value |v, _| monotonic(v.next_start);
    "StartedAt" Value |v, c| c.usec(v.started);
    "MemoryMax" Value |v, _| v.spec.limits.memory.unwrap_or(UNKNOWN);
    "MemoryHigh" Value |v, _| v.spec.limits.memory_high.unwrap_or(UNKNOWN);
    "CPUQuotaPerSecUSec" Value |v, _| quota(v);
    "MaxMemoryRestart" Value |v, _| v.spec.limits.max_memory_restart.unwrap_or(UNKNOWN);
    "TasksMax" Value |v, _| v.spec.limits.tasks.unwrap_or(UNKNOWN);
    "Unit" Invalidation |v, _| unit_differs(v);
    "WaitingFor" Value |v, _| waiting_for(v);
    "NeedsRestart" Value |v, _| v.needs_restart;
    "ConfigGeneration" Value |v, _| v.generation.0;
    "EnvironmentNames" Invalidation |v, _| environment_names(v);
};

/// `org.provost.Provost1.Manager`, but for what never changes.
pub const MANAGER: &[Property<ManagerView>] = table! { ManagerView:
    "SystemState" Value |m, _| m.summary.system_state();
    "ConfigState" Value |m, _| m.config_state;
    "ConfigDetail" Value |m, _| m.config_detail.clone();
    "ConfigGeneration" Value |m, _| m.summary.generation.0;
    "ConfigDigest" Value |m, _| m.config_digest.clone();
    "LastModified" Value |m, _| real_or_none(m.last_modified);
    "LastReloaded" Value |m, _| real_or_none(m.last_reloaded);
    "Watching" Value |m, _| m.watching;
    "Valid" Value |m, _| m.valid;
    "Diagnostics" Invalidation |m, _| super::replies::public_diagnostics(&m.diagnostics);
    "DiskGeneration" Value |m, _| disk_generation(m);
    "Reloads" Value |m, _| reloads(m);
    "ReloadsTookUSec" Value |m, _| usec(m.reloads.took);
    "LastReloadTookUSec" Value |m, _| usec(m.reloads.last_took);
    "LastSucceeded" Value |m, _| real_or_none(m.reloads.last_success);
    "PendingCheckpoint" Value |m, _| pending_checkpoint(m);
    "NProcesses" Value |m, _| m.summary.total;
    "NEnabled" Value |m, _| m.summary.enabled;
    "NRunning" Value |m, _| m.summary.running;
    "NFailed" Value |m, _| m.summary.failed;
    "NUnhealthy" Value |m, _| m.summary.unhealthy;
    "NJobs" Value |m, _| m.summary.jobs;
};

/// Of `org.provost.Provost1.Checkpoint`.
pub const CHECKPOINT: &[Property<CheckpointView>] = table! { CheckpointView:
    "State" Value |c, _| c.state;
    "DeadlineUSec" Value |c, clock| clock.usec(c.until);
};

/// Which generation the files are; 0 where they are none.
pub fn disk_generation(view: &ManagerView) -> u64 {
    view.disk_generation.unwrap_or_default().0
}

/// How many reloads ended in which way.
pub fn reloads(view: &ManagerView) -> BTreeMap<String, u64> {
    view.reloads.counts.iter().map(|(result, count)| ((*result).to_owned(), *count)).collect()
}

/// Microseconds.
pub fn usec(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// The object of what is to be confirmed.
pub fn pending_checkpoint(view: &ManagerView) -> OwnedObjectPath {
    view.checkpoint
        .as_ref()
        .map_or_else(paths::none, |pending| paths::checkpoint(pending.generation))
}

/// What comes back; 0 where there was nothing.
pub fn base(view: &CheckpointView) -> u64 {
    view.base.unwrap_or_default().0
}

/// Microseconds of processor time a second; all ones without a limit.
pub fn quota(view: &InstanceView) -> u64 {
    view.spec.limits.cpu.map_or(UNKNOWN, |thousandths| u64::from(thousandths) * 1_000)
}

/// The keys of limits.
pub fn limit_keys(limits: &[Limit]) -> Vec<String> {
    limits.iter().map(|limit| limit.key().to_owned()).collect()
}

/// The description for people.
pub fn description(view: &InstanceView) -> String {
    view.spec.description.as_deref().unwrap_or_default().to_owned()
}

/// The operator's word.
pub fn desired_state(view: &InstanceView) -> &'static str {
    if view.wanted { "up" } else { "down" }
}

/// What the run last said of itself.
pub fn status_text(view: &InstanceView) -> String {
    view.status.as_deref().unwrap_or_default().to_owned()
}

/// The main process of its other run, while there are two.
pub fn overlap_pid(view: &InstanceView) -> u32 {
    view.beside.and_then(Beside::pid).unwrap_or(0)
}

/// What tells one unit of an instance from the other: the name is the backend's to say.
fn unit_differs(view: &InstanceView) -> bool {
    !view.slot.is_first()
}

/// What the last failed check said.
pub fn health_detail(view: &InstanceView) -> String {
    view.health_detail.as_deref().unwrap_or_default().to_owned()
}

/// Restarts by policy.
pub fn restarts(view: &InstanceView) -> u32 {
    u32::try_from(view.restarts).unwrap_or(u32::MAX)
}

/// What keeps it from starting.
pub fn waiting_for(view: &InstanceView) -> Vec<String> {
    view.blockers.iter().map(ToString::to_string).collect()
}

/// The names of its environment variables, never their values.
pub fn environment_names(view: &InstanceView) -> Vec<String> {
    view.spec.exec.env.keys().cloned().collect()
}

/// How the last run ended; empty before there was one.
pub fn result(view: &InstanceView) -> &'static str {
    match &view.last_end {
        None => "",
        Some(RunEnd::NotSpawned(_)) => "spawn-failed",
        Some(RunEnd::StartTimedOut) => "timeout",
        Some(RunEnd::Unhealthy(_)) => "unhealthy",
        Some(RunEnd::Outgrown(_)) => "max-memory",
        Some(RunEnd::Asked(_)) => "stopped",
        Some(RunEnd::Exited(status)) => match status {
            ExitStatus::Code(code) if view.spec.restart.success_exit_codes.contains(code) => {
                "success"
            }
            ExitStatus::Code(_) => "exit-code",
            ExitStatus::Signal { core: true, .. } => "core-dump",
            ExitStatus::Signal { .. } => "signal",
            ExitStatus::OutOfMemory => "oom-kill",
            ExitStatus::Unknown => "unknown",
        },
    }
}

/// Code and status of the end of a main process as waitid(2) has them: (1, exit code), (2, signal),
/// (3, signal with a core dump); (0, 0) when there was none or it is not known.
pub fn exit(status: Option<ExitStatus>) -> (i32, i32) {
    match status {
        None | Some(ExitStatus::Unknown) => (0, 0),
        Some(ExitStatus::Code(code)) => (1, i32::from(code)),
        Some(ExitStatus::OutOfMemory) => (2, i32::from(Signal::KILL.0)),
        Some(ExitStatus::Signal { signal, core: false }) => (2, i32::from(signal.0)),
        Some(ExitStatus::Signal { signal, core: true }) => (3, i32::from(signal.0)),
    }
}

/// Where its output goes: `file`, `journal`, `none`, or `auto`: to the journal where there is one,
/// else to the supervisor.
pub fn log_kind(view: &InstanceView) -> &'static str {
    let exec = &view.spec.exec;
    match exec.log_target {
        LogTarget::Journal => "journal",
        _ if exec.log_file.is_some() => "file",
        LogTarget::None => "none",
        LogTarget::Auto => "auto",
    }
}
