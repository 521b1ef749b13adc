//! The one table of keys: what a change of each causes. The manual publishes it, the plan is made
//! from it, and a test goes through it key by key.

use crate::graph::Dependents;
use crate::ids::ProcessId;
use crate::limits::Limit;
use crate::reload::{Awaits, Change, ChangeKind, FieldChange, Plan};
use crate::spec::{Condition, Config, ProcessSpec, ReloadSpec, Settings, Signal};
use crate::unit::UnitProperties;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a change causes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// In force at once, without a new run.
    Live,
    /// Instances start that did not run.
    Start,
    /// Instances stop that ran.
    Stop,
    /// A new run.
    Restart,
}

impl Consequence {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Consequence::Live => "live",
            Consequence::Start => "start",
            Consequence::Stop => "stop",
            Consequence::Restart => "restart",
        }
    }
}

/// What a change of a key causes, whatever its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causes {
    /// Nothing that touches a run.
    Live,
    /// The same, unless it changes what a run is told when it starts: how it may speak for itself.
    Told,
    /// A new run of each instance.
    Restart,
    /// More or fewer instances; those that stay are not touched.
    Count,
}

/// One key of a process.
pub struct Field {
    /// As in the file; inner keys with a dot.
    pub key: &'static str,
    /// What its change causes.
    pub causes: Causes,
    /// Whether it differs between two specs.
    differs: fn(&ProcessSpec, &ProcessSpec) -> bool,
    /// Its value as text; None where it is not set.
    value: fn(&ProcessSpec) -> Option<String>,
}

macro_rules! fields {
    ($($key:literal $causes:ident |$s:ident| $field:expr => $value:expr;)*) => {
        &[$(Field {
            key: $key,
            causes: Causes::$causes,
            differs: |old, new| {
                let was = { let $s = old; $field };
                let is = { let $s = new; $field };
                was != is
            },
            value: |$s| $value,
        }),*]
    };
}

/// All keys but `env`, whose variables are compared one by one.
///
/// The values are compared, not their texts: two different values may look the same to a person.
pub const FIELDS: &[Field] = fields! {
    "enabled" Count |s| s.enabled => Some(s.enabled.to_string());
    "name" Live |s| &s.name => s.name.as_ref().map(ToString::to_string);
    "description" Live |s| &s.description => s.description.as_ref().map(ToString::to_string);
    "tags" Live |s| &s.tags => list(s.tags.iter());
    "command" Restart |s| &s.exec.command => Some(command(s));
    "cwd" Restart |s| &s.exec.cwd => Some(s.exec.cwd.to_string());
    "user" Restart |s| &s.exec.user => s.exec.user.as_ref().map(ToString::to_string);
    "group" Restart |s| &s.exec.group => s.exec.group.as_ref().map(ToString::to_string);
    "umask" Restart |s| s.exec.umask => s.exec.umask.map(|mask| format!("{mask:04o}"));
    "nice" Restart |s| s.exec.nice => s.exec.nice.map(|nice| nice.to_string());
    "instances" Count |s| s.instances => Some(s.instances.to_string());
    "maxUnavailable" Live |s| s.max_unavailable => Some(s.max_unavailable.to_string());
    "overlap" Live |s| s.overlap => Some(s.overlap.to_string());
    "dependsOn" Live |s| &s.depends_on => list(s.depends_on.iter().map(|edge| {
        let restart = if edge.restart { " (restart)" } else { "" };
        format!("{}: {}{restart}", edge.on, edge.condition)
    }));
    "readiness" Told |s| s.readiness => Some(word(&s.readiness));
    "startTimeout" Live |s| s.start_timeout => Some(span(s.start_timeout));
    "restartPolicy.condition" Live |s| s.restart.condition => Some(word(&s.restart.condition));
    "restartPolicy.delay" Live |s| s.restart.delay => Some(span(s.restart.delay));
    "restartPolicy.maxDelay" Live |s| s.restart.max_delay => Some(span(s.restart.max_delay));
    "restartPolicy.factor" Live |s| s.restart.factor => Some(s.restart.factor.to_string());
    "restartPolicy.jitter" Live |s| s.restart.jitter => Some(s.restart.jitter.to_string());
    "restartPolicy.minUptime" Live |s| s.restart.min_uptime => Some(span(s.restart.min_uptime));
    "restartPolicy.maxAttempts" Live |s| s.restart.max_attempts
        => s.restart.max_attempts.map(|n| n.to_string());
    "restartPolicy.successExitCodes" Live |s| &s.restart.success_exit_codes
        => list(s.restart.success_exit_codes.iter());
    "healthCheck" Told |s| s.health.as_ref().map(|h| &h.check)
        => s.health.as_ref().map(|h| check(&h.check));
    "healthCheck.interval" Told |s| s.health.as_ref().map(|h| h.interval)
        => s.health.as_ref().map(|h| span(h.interval));
    "healthCheck.timeout" Live |s| s.health.as_ref().map(|h| h.timeout)
        => s.health.as_ref().map(|h| span(h.timeout));
    "healthCheck.startPeriod" Live |s| s.health.as_ref().map(|h| h.start_period)
        => s.health.as_ref().map(|h| span(h.start_period));
    "healthCheck.failureThreshold" Live |s| s.health.as_ref().map(|h| h.failure_threshold)
        => s.health.as_ref().map(|h| h.failure_threshold.to_string());
    "healthCheck.successThreshold" Live |s| s.health.as_ref().map(|h| h.success_threshold)
        => s.health.as_ref().map(|h| h.success_threshold.to_string());
    "healthCheck.onFailure" Live |s| s.health.as_ref().map(|h| h.on_failure)
        => s.health.as_ref().map(|h| word(&h.on_failure));
    "stop.signal" Live |s| s.stop.signal => Some(s.stop.signal.to_string());
    "stop.timeout" Live |s| s.stop.timeout => Some(span(s.stop.timeout));
    "reload" Live |s| (reload_signal(s), reload_command(s).map(|(command, _)| command)) => reload(s);
    "reload.timeout" Live |s| reload_command(s).map(|(_, timeout)| timeout)
        => reload_command(s).map(|(_, timeout)| span(timeout));
    "watch.paths" Live |s| s.watch.as_ref().map(|watch| &watch.paths)
        => s.watch.as_ref().and_then(|watch| list(watch.paths.iter()));
    "watch.action" Live |s| s.watch.as_ref().map(|watch| watch.action)
        => s.watch.as_ref().map(|watch| word(&watch.action));
    "watch.ignore" Live |s| s.watch.as_ref().map(|watch| &watch.ignore)
        => s.watch.as_ref().and_then(|watch| list(watch.ignore.iter()));
    "watch.debounce" Live |s| s.watch.as_ref().map(|watch| watch.debounce)
        => s.watch.as_ref().map(|watch| span(watch.debounce));
    "limits.memory" Live |s| s.limits.memory => s.limits.text(Limit::Memory);
    "limits.memoryHigh" Live |s| s.limits.memory_high => s.limits.text(Limit::MemoryHigh);
    "limits.cpu" Live |s| s.limits.cpu => s.limits.text(Limit::Cpu);
    "limits.tasks" Live |s| s.limits.tasks => s.limits.text(Limit::Tasks);
    "limits.files" Restart |s| s.exec.max_files => s.exec.max_files.map(|n| n.to_string());
    "logFile" Restart |s| &s.exec.log_file => s.exec.log_file.as_ref().map(ToString::to_string);
    "log.target" Restart |s| s.exec.log_target => Some(word(&s.exec.log_target));
    "log.maxSize" Restart |s| s.exec.log_rotation.map(|r| r.max_size)
        => s.exec.log_rotation.map(|r| crate::text::size(r.max_size));
    "log.maxFiles" Restart |s| s.exec.log_rotation.map(|r| r.max_files)
        => s.exec.log_rotation.map(|r| r.max_files.to_string());
    "pidFile" Restart |s| &s.exec.pid_file => s.exec.pid_file.as_ref().map(ToString::to_string);
    "sockets" Restart |s| &s.exec.sockets
        => list(s.exec.sockets.iter().map(|(name, listen)| format!("{name}: {listen}")));
    "essential" Live |s| s.essential => Some(s.essential.to_string());
    "maxMemoryRestart" Live |s| s.limits.max_memory_restart
        => s.limits.text(Limit::MaxMemoryRestart);
    "sandbox" Restart |s| s.exec.sandbox => Some(word(&s.exec.sandbox));
    "systemd" Restart |s| &s.exec.unit => unit(&s.exec.unit);
};

/// The key of one environment variable.
const ENV: &str = "env.";

fn word(value: &impl std::fmt::Debug) -> String {
    // The variants are CamelCase, the words of the file kebab-case.
    let mut text = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> Option<String> {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
}

fn span(value: Duration) -> String {
    crate::text::span(value)
}

fn command(spec: &ProcessSpec) -> String {
    use crate::spec::Command;
    match &spec.exec.command {
        Command::Shell(line) => format!("shell: {line}"),
        Command::Program { program, args } => {
            let all: Vec<_> = std::iter::once(program).chain(args.iter()).cloned().collect();
            words(&all)
        }
    }
}

/// As the file has it.
fn check(check: &crate::spec::Check) -> String {
    use crate::spec::Check;
    match check {
        Check::Http(url) => format!("url: {url}"),
        Check::Tcp(address) => format!("tcp: {address}"),
        Check::Exec(argv) => format!("exec: {}", words(argv)),
        Check::Notify => "notify: true".to_owned(),
    }
}

/// `["nginx", "-s", "reload"]`.
fn words(argv: &[crate::spec::Text]) -> String {
    let words: Vec<String> = argv.iter().map(quoted).collect();
    format!("[{}]", words.join(", "))
}

fn reload_signal(spec: &ProcessSpec) -> Option<Signal> {
    match spec.reload {
        Some(ReloadSpec::Signal(signal)) => Some(signal),
        _ => None,
    }
}

/// As the file has it.
fn reload(spec: &ProcessSpec) -> Option<String> {
    let signal = reload_signal(spec).map(|signal| format!("signal: {signal}"));
    let command = || reload_command(spec).map(|(argv, _)| format!("command: {}", words(argv)));
    signal.or_else(command)
}

fn reload_command(spec: &ProcessSpec) -> Option<(&[crate::spec::Text], Duration)> {
    match &spec.reload {
        Some(ReloadSpec::Command { command, timeout }) => Some((command, *timeout)),
        _ => None,
    }
}

/// `{ ProtectHome: tmpfs, ReadOnlyPaths: [/a, /b] }`.
fn unit(properties: &UnitProperties) -> Option<String> {
    let entries = properties.iter().map(|(name, words)| match &words[..] {
        [word] => format!("{name}: {word}"),
        words => format!("{name}: [{}]", words.join(", ")),
    });
    let entries: Vec<String> = entries.collect();
    (!entries.is_empty()).then(|| format!("{{ {} }}", entries.join(", ")))
}

fn quoted(text: &crate::spec::Text) -> String {
    format!("{:?}", text.to_string())
}

/// Whether the change from one spec to the other needs a new run.
#[must_use]
pub fn needs_restart(old: &ProcessSpec, new: &ProcessSpec) -> bool {
    old.exec != new.exec || is_told_otherwise(old, new)
}

/// Whether a run is told something else when it starts than one that runs was.
fn is_told_otherwise(old: &ProcessSpec, new: &ProcessSpec) -> bool {
    old.notify() != new.notify()
}

fn resolve(causes: Causes, more: bool) -> Consequence {
    match causes {
        Causes::Live | Causes::Told => Consequence::Live,
        Causes::Restart => Consequence::Restart,
        Causes::Count if more => Consequence::Start,
        Causes::Count => Consequence::Stop,
    }
}

/// The keys that differ between two specs.
#[must_use]
pub fn differences(old: &ProcessSpec, new: &ProcessSpec) -> Vec<FieldChange> {
    if old == new {
        return Vec::new();
    }
    let mut changes: Vec<FieldChange> = FIELDS
        .iter()
        .filter(|field| (field.differs)(old, new))
        .map(|field| {
            let (was, is) = ((field.value)(old), (field.value)(new));
            // What differs may be the value of a `${NAME}`, which is not shown.
            let hidden = was == is;
            FieldChange {
                key: field.key.to_owned(),
                old: was,
                new: is
                    .map(|text| if hidden { format!("{text} (with another value)") } else { text }),
                consequence: match (field.key, field.causes) {
                    (_, Causes::Told) if is_told_otherwise(old, new) => Consequence::Restart,
                    ("enabled", _) => resolve(field.causes, new.enabled),
                    _ => resolve(field.causes, new.instances > old.instances),
                },
            }
        })
        .collect();
    let names = old.exec.env.keys().chain(new.exec.env.keys());
    let names: BTreeSet<&String> = names.collect();
    for name in names {
        let (was, is) = (old.exec.env.get(name), new.exec.env.get(name));
        if was != is {
            changes.push(FieldChange {
                key: format!("{ENV}{name}"),
                old: was.map(ToString::to_string),
                new: is.map(ToString::to_string),
                consequence: Consequence::Restart,
            });
        }
    }
    changes
}

fn settings_differences(old: &Settings, new: &Settings) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    if old.enabled != new.enabled {
        changes.push(FieldChange {
            key: "processManagement.enabled".to_owned(),
            old: Some(old.enabled.to_string()),
            new: Some(new.enabled.to_string()),
            consequence: resolve(Causes::Count, new.enabled),
        });
    }
    changes
}

/// Compares two configurations, see [`Plan::between`].
pub(crate) fn plan(old: &Config, new: &Config) -> Plan {
    let dependents = Dependents::of(new);
    let held_before = held(old, &|| Dependents::of(old));
    let held_after = held(new, &|| dependents.clone());
    let mut plan = Plan::default();
    let management = settings_differences(&old.settings, &new.settings);
    for (id, was, is) in old.beside(new) {
        let (kind, fields, consequence) = match (was, is) {
            (Some(was), Some(is)) => {
                let same = std::sync::Arc::ptr_eq(was, is);
                let mut fields = if same { Vec::new() } else { differences(was, is) };
                fields.extend(management.iter().cloned());
                if fields.is_empty() {
                    plan.unchanged.push(id.clone());
                    continue;
                }
                let before = old.settings.enabled && was.enabled;
                let after = new.settings.enabled && is.enabled;
                let waits = (held_before.contains(id), held_after.contains(id));
                let consequence = match (before && after, waits) {
                    (true, (false, true)) => Consequence::Stop,
                    (true, (true, false)) => Consequence::Start,
                    _ => strongest(before, after, &fields),
                };
                (ChangeKind::Modified, fields, consequence)
            }
            (None, Some(is)) if new.settings.enabled && is.enabled && !held_after.contains(id) => {
                (ChangeKind::Added, Vec::new(), Consequence::Start)
            }
            (None, _) => (ChangeKind::Added, Vec::new(), Consequence::Live),
            (Some(was), None) if old.settings.enabled && was.enabled => {
                (ChangeKind::Removed, Vec::new(), Consequence::Stop)
            }
            (Some(_), None) => (ChangeKind::Removed, Vec::new(), Consequence::Live),
        };
        let touches = match consequence {
            Consequence::Restart => dependents.all_on(id, |edge| edge.restart),
            // Of what comes or goes as a whole nobody waits for another.
            _ if kind != ChangeKind::Modified || !management.is_empty() => BTreeSet::new(),
            Consequence::Start => waits_for(&dependents, id, &held_before, &held_after),
            Consequence::Stop => waits_for(&dependents, id, &held_after, &held_before),
            Consequence::Live => BTreeSet::new(),
        };
        let touches = touches.into_iter().collect();
        let awaits = is.and_then(|spec| awaited(spec, consequence));
        let process = id.clone();
        plan.changes.push(Change { process, kind, consequence, fields, touches, awaits });
    }
    plan
}

/// The processes that wait because what they need as long as they run is disabled, near or far.
fn held(config: &Config, dependents: &dyn Fn() -> Dependents) -> BTreeSet<ProcessId> {
    let mut held = BTreeSet::new();
    let mut disabled = config.processes.values().filter(|spec| !spec.enabled).peekable();
    if disabled.peek().is_none() {
        return held;
    }
    let dependents = dependents();
    for spec in disabled {
        held.extend(dependents.all_on(&spec.id, |edge| edge.condition != Condition::Completed));
    }
    held
}

fn awaited(spec: &ProcessSpec, consequence: Consequence) -> Option<Awaits> {
    let begins = matches!(consequence, Consequence::Start | Consequence::Restart);
    let overlaps = spec.overlap && consequence == Consequence::Restart;
    begins.then_some(Awaits { readiness: spec.readiness, within: spec.start_timeout, overlaps })
}

fn strongest(before: bool, after: bool, fields: &[FieldChange]) -> Consequence {
    match (before, after) {
        (false, false) => Consequence::Live,
        (false, true) => Consequence::Start,
        (true, false) => Consequence::Stop,
        (true, true) => {
            fields.iter().map(|field| field.consequence).max().unwrap_or(Consequence::Live)
        }
    }
}

/// Who is in the first and not in the second, of those who depend on `process` as long as they run.
fn waits_for(
    dependents: &Dependents,
    process: &ProcessId,
    held: &BTreeSet<ProcessId>,
    others: &BTreeSet<ProcessId>,
) -> BTreeSet<ProcessId> {
    if held.is_empty() {
        return BTreeSet::new();
    }
    let mut all = dependents.all_on(process, |edge| edge.condition != Condition::Completed);
    all.retain(|other| held.contains(other) && !others.contains(other));
    all
}
