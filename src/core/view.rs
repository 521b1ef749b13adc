//! What others may read. A view is a copy, made when something about its subject changed; nobody
//! outside holds a reference into the machine.

use crate::event::{Blocker, ExitStatus, Note, RunEnd};
use crate::ids::{Generation, InstanceId, JobId, Run, Slot};
use crate::job::JobKind;
use crate::spec::ProcessSpec;
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What an instance is doing: the closed set of words every interface uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Down, and not wanted up.
    Down,
    /// Wanted up, kept from starting by something named.
    Waiting,
    /// A run exists and is not ready yet.
    Starting,
    /// Ready.
    Running,
    /// A run is being ended.
    Stopping,
    /// Its last run ended; the next start has a time.
    Backoff,
    /// A one-shot that ended with success.
    Completed,
    /// Ended, and not tried again.
    Failed,
}

impl State {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Waiting => "waiting",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Backoff => "backoff",
            State::Completed => "completed",
            State::Failed => "failed",
        }
    }

    /// All words.
    pub const ALL: [State; 8] = [
        State::Down,
        State::Waiting,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Backoff,
        State::Completed,
        State::Failed,
    ];
}

/// What the check of an instance says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// It has no check, or no run.
    None,
    /// The run is young and no check has succeeded.
    Starting,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

impl HealthState {
    /// The word; `none` where there is no check.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::None => "none",
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        }
    }
}

/// A run beside the one that serves, by its main process where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It is to replace the one that serves, and is not ready.
    New(Option<u32>),
    /// The one that serves has replaced it, and it ends.
    Former(Option<u32>),
}

impl Beside {
    /// Its main process.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        let (Beside::New(pid) | Beside::Former(pid)) = self;
        pid
    }
}

/// All about one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceView {
    /// Which.
    pub id: InstanceId,
    /// The spec of its current or next run.
    pub spec: Arc<ProcessSpec>,
    /// What the file says (with `processManagement.enabled`).
    pub enabled: bool,
    /// The operator's word.
    pub wanted: bool,
    /// Started with `--once` although disabled.
    pub once: bool,
    /// What it is doing.
    pub state: State,
    /// A finer word within the state: `spawning`, `checking` (waits for readiness), `terminating`,
    /// `killing`, `held` (its stop waits for dependents), `reaping` (main process gone, descendants
    /// left), `overlapping` (another run is beside that one, or is to be), else empty.
    pub sub_state: &'static str,
    /// Since when it is in that state.
    pub since: Mono,
    /// Its current run; while there are two, the one that serves.
    pub run: Option<Run>,
    /// Where that run is, or the next when there is none.
    pub slot: Slot,
    /// The other run, while there are two.
    pub beside: Option<Beside>,
    /// The main process of the current run.
    pub pid: Option<u32>,
    /// When the command of the current run was executed.
    pub started: Option<Mono>,
    /// What the check says.
    pub health: HealthState,
    /// What the last failed check of this run said.
    pub health_detail: Option<Arc<str>>,
    /// When the last check of this run was answered.
    pub last_check: Option<Mono>,
    /// What the current run last said of itself (STATUS= of sd_notify(3)).
    pub status: Option<Arc<str>>,
    /// How the last main process that ended did so.
    pub last_exit: Option<ExitStatus>,
    /// How the last run that ended did so.
    pub last_end: Option<RunEnd>,
    /// Restarts by policy since the supervisor knows it.
    pub restarts: u64,
    /// Restarts since the last stable run.
    pub attempt: u32,
    /// When it is started again.
    pub next_start: Option<Mono>,
    /// What keeps it from starting, or a new run from taking the place of the one that serves.
    pub blockers: Vec<Blocker>,
    /// Whether the run has another spec than the file, and a restart is due or under way.
    pub needs_restart: bool,
    /// How the run ended that was to replace the one there is and did not come up, where that is not
    /// tried again by itself.
    pub refused: Option<Arc<str>>,
    /// The generation its spec is from.
    pub generation: Generation,
    /// Its job.
    pub job: Option<(JobId, JobKind)>,
    /// What happened last, oldest first; bounded.
    pub history: Arc<[Arc<Note>]>,
}

/// What a program does with a state: `active`, `inactive`, `activating`, `deactivating`, `failed`
/// (systemd's words for the same).
#[must_use]
pub fn active_state(state: State) -> &'static str {
    match state {
        State::Running => "active",
        State::Starting | State::Waiting | State::Backoff => "activating",
        State::Stopping => "deactivating",
        State::Down | State::Completed => "inactive",
        State::Failed => "failed",
    }
}

/// Counts over all instances, and the state of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Instances.
    pub total: u32,
    /// Instances the file enables.
    pub enabled: u32,
    /// Instances that are running.
    pub running: u32,
    /// Instances in [`State::Failed`] or [`State::Backoff`].
    pub failed: u32,
    /// Instances whose check says unhealthy.
    pub unhealthy: u32,
    /// Jobs that have not ended.
    pub jobs: u32,
    /// Instances that are wanted, enabled, and neither running nor completed, and on their way: not
    /// those that wait for somebody to do something.
    pub missing: u32,
    /// Whether everything is being ended.
    pub shutting_down: bool,
    /// Whether a reload is being applied.
    pub reloading: bool,
    /// The generation that is wanted.
    pub generation: Generation,
}

impl Summary {
    /// `starting`, `running`, `degraded`, `reloading` or `stopping`.
    #[must_use]
    pub fn system_state(&self) -> &'static str {
        if self.shutting_down {
            "stopping"
        } else if self.reloading && self.generation.0 > 1 {
            "reloading"
        } else if self.failed > 0 || self.unhealthy > 0 {
            "degraded"
        } else if self.missing > 0 {
            "starting"
        } else {
            "running"
        }
    }
}
