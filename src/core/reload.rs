//! The plan of a change, its steps, and their record.
//!
//! A plan is a pure comparison of two configurations. Carrying it out is a list of steps, each with
//! its own record, so that it can be shown while it runs, and later be resumed or undone.

use crate::fields::{self, Consequence};
use crate::ids::{Generation, InstanceId, ProcessId};
use crate::spec::{Config, Readiness};
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a configuration change does to one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Only the new configuration has it.
    Added,
    /// Only the old configuration has it.
    Removed,
    /// Both have it and they differ.
    Modified,
}

impl ChangeKind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Modified => "modified",
        }
    }
}

/// One key that differs, with both values as text; secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The key as in the file, `restartPolicy.delay`; variables as `env.NAME`.
    pub key: String,
    /// Its old value; None where there was none.
    pub old: Option<String>,
    /// Its new value; None where there is none.
    pub new: Option<String>,
    /// What it causes by itself.
    pub consequence: Consequence,
}

/// What happens to one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub process: ProcessId,
    /// What the configurations say.
    pub kind: ChangeKind,
    /// What that causes: the strongest consequence of its fields.
    pub consequence: Consequence,
    /// The keys that differ, in the order of the table of keys. Empty for added and removed.
    pub fields: Vec<FieldChange>,
    /// Other processes that are restarted or held because of this, by edges of the graph.
    pub touches: Vec<ProcessId>,
    /// What a run that begins because of this is waited for; None where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaits>,
}

/// What is waited for when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaits {
    /// When it counts as ready.
    pub readiness: Readiness,
    /// How long that may take.
    pub within: Duration,
    /// The run before it goes on until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlaps: bool,
}

/// The difference of two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What differs, by process.
    pub changes: Vec<Change>,
    /// What does not.
    pub unchanged: Vec<ProcessId>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The processes of one kind of change.
    pub fn of(&self, kind: ChangeKind) -> impl Iterator<Item = &ProcessId> {
        self.changes.iter().filter(move |c| c.kind == kind).map(|c| &c.process)
    }

    /// Compares two configurations.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Plan {
        fields::plan(old, new)
    }
}

/// What a step does to one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// End it: it is removed, disabled or scaled away.
    Stop,
    /// Change it without a new run.
    Live,
    /// End its run and start one of the new spec.
    Restart,
    /// Start it: it is added, enabled or scaled up.
    Start,
}

impl StepKind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StepKind::Stop => "stop",
            StepKind::Live => "live",
            StepKind::Restart => "restart",
            StepKind::Start => "start",
        }
    }
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Its turn has not come.
    Pending,
    /// Under way since then.
    Running {
        /// Since when.
        since: Mono,
    },
    /// Ended as wanted.
    Done {
        /// How long it took.
        took: Duration,
    },
    /// What was started waits for a dependency that will not come by itself, or is not wanted; in
    /// words.
    Held {
        /// How long it took.
        took: Duration,
        /// Why.
        why: String,
    },
    /// Ended otherwise; in words.
    Failed {
        /// How long it took.
        took: Duration,
        /// Why.
        why: String,
    },
    /// A newer reload took over before its end, or the one before it again.
    Superseded,
}

impl StepState {
    /// Whether nothing more will come of it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, StepState::Pending | StepState::Running { .. })
    }
}

/// One step and its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// On what.
    pub instance: InstanceId,
    /// What.
    pub kind: StepKind,
    /// How far.
    pub state: StepState,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadResult {
    /// All of it was done.
    Applied,
    /// There was nothing to do.
    Unchanged,
    /// Applied, but not all that should be up came up; the new configuration stays.
    FailedKept,
    /// A newer configuration took over.
    Superseded,
    /// It did not come up, and the configuration before it takes over again.
    Withdrawn,
}

impl ReloadResult {
    /// Whether its steps had not all ended.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        matches!(self, ReloadResult::Superseded | ReloadResult::Withdrawn)
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadResult::Applied => "applied",
            ReloadResult::Unchanged => "unchanged",
            ReloadResult::FailedKept => "failed-kept",
            ReloadResult::Superseded => "superseded",
            ReloadResult::Withdrawn => "withdrawn",
        }
    }
}

/// The whole of a reload, when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The configuration that ran before.
    pub from: Generation,
    /// The configuration that was applied.
    pub generation: Generation,
    /// How it ended.
    pub result: ReloadResult,
    /// What was to change.
    pub plan: Plan,
    /// What was done, in the order it was planned.
    pub steps: Vec<Step>,
    /// From the acceptance to the end.
    pub took: Duration,
}
