//! What is worth telling and keeping, and the reasons it names.

use crate::event::{ExitStatus, SpawnError};
use crate::ids::{Generation, InstanceId, JobId, ProcessId, Run};
use crate::reload::{Plan, ReloadReport};
use crate::spec::Signal;
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Something worth telling and keeping: one line of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When.
    pub at: Mono,
    /// About which instance; None: about all.
    pub instance: Option<InstanceId>,
    /// About which run.
    pub run: Option<Run>,
    /// As part of which job.
    pub job: Option<JobId>,
    /// What.
    pub what: What,
}

/// What a [`Note`] says. The kinds are a closed set with a stable name each ([`What::kind`]).
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A run is being started; the number counts restarts since the last stable run.
    Starting {
        /// 0 for a first start.
        attempt: u32,
    },
    /// Its command was executed.
    Started {
        /// The main process.
        pid: u32,
    },
    /// It is ready.
    Ready {
        /// Since it was started.
        after: Duration,
    },
    /// Its command was not executed.
    SpawnFailed {
        /// What failed.
        error: Box<SpawnError>,
        /// It was to end anyway: mostly that is all that failed.
        expected: bool,
    },
    /// It was not ready in time.
    StartTimedOut {
        /// The limit.
        limit: Duration,
        /// What the last check said, where there was one.
        last_check: Option<String>,
    },
    /// Its main process ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// Whether that was asked for.
        expected: bool,
    },
    /// It is being asked to end.
    Stopping {
        /// Why.
        why: StopReason,
    },
    /// It did not end in time and is killed.
    Killing {
        /// The limit.
        limit: Duration,
    },
    /// Nothing is left of it.
    Stopped,
    /// It will be started again.
    BackingOff {
        /// In how long.
        delay: Duration,
        /// Which restart that will be since the last stable run.
        attempt: u32,
    },
    /// It will not be started again.
    GaveUp {
        /// Why.
        why: FailReason,
    },
    /// It ended with success and will not be started again.
    Completed,
    /// A check failed; only told where it changes nothing yet.
    CheckFailed {
        /// What was wrong.
        detail: String,
        /// So many in a row.
        failures: u32,
        /// So many are needed.
        threshold: u32,
    },
    /// It is told to take new settings.
    Reloading {
        /// How.
        signal: Option<Signal>,
    },
    /// It has taken its new settings.
    Reloaded,
    /// It could not take its new settings.
    ReloadFailed {
        /// What was wrong.
        detail: String,
    },
    /// Files that it has watched have changed.
    WatchedChanged {
        /// One of them.
        path: Arc<str>,
    },
    /// It is healthy.
    Healthy,
    /// It is unhealthy.
    Unhealthy {
        /// What was wrong.
        detail: String,
    },
    /// It is wanted but may not start yet.
    Waiting {
        /// For what, in words.
        on: Vec<Blocker>,
    },
    /// It has a new run to come, and keeps the old one for as long as another of its process that had
    /// its turn before it does not come back.
    KeepsRun {
        /// Which, and what became of it.
        why: String,
    },
    /// A new run is to begin beside this one, which goes on until that is ready.
    Overlaps {
        /// Why there is to be a new one.
        why: StopReason,
    },
    /// Its new run did not come up, and the one before it goes on.
    FellBack {
        /// How the new run ended.
        end: RunEnd,
    },
    /// Its new run is not wanted any more, and the one before it goes on.
    TakenBack,
    /// A configuration is being applied.
    ReloadStarted {
        /// Its number.
        generation: Generation,
        /// What will change.
        plan: Arc<Plan>,
    },
    /// A configuration was applied, or superseded by a newer one.
    ReloadFinished(Arc<ReloadReport>),
    /// What another supervisor had started was found and is kept running.
    TookOver {
        /// So many runs are kept.
        kept: usize,
        /// So many have ended meanwhile.
        lost: usize,
    },
    /// A run of another supervisor was found and goes on.
    Kept {
        /// The main process.
        pid: u32,
    },
    /// Everything is being ended.
    ShuttingDown,
    /// A process is still there after it was killed (it may be in an uninterruptible wait).
    StillThere,
}

/// What came of a run, or of the instance with it: what nobody finds out later, since what is kept of
/// the instance tells of the next run by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// [`What::SpawnFailed`].
    SpawnFailed(Box<SpawnError>, bool),
    /// [`What::Exited`].
    Exited(ExitStatus, bool),
    /// [`What::Completed`].
    Completed,
    /// [`What::GaveUp`].
    GaveUp(FailReason),
}

impl From<Outcome> for What {
    fn from(outcome: Outcome) -> What {
        match outcome {
            Outcome::SpawnFailed(error, expected) => What::SpawnFailed { error, expected },
            Outcome::Exited(status, expected) => What::Exited { status, expected },
            Outcome::Completed => What::Completed,
            Outcome::GaveUp(why) => What::GaveUp { why },
        }
    }
}

impl What {
    /// The outcome that it tells of.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            What::SpawnFailed { error, expected } => {
                Some(Outcome::SpawnFailed(error.clone(), *expected))
            }
            What::Exited { status, expected } => Some(Outcome::Exited(*status, *expected)),
            What::Completed => Some(Outcome::Completed),
            What::GaveUp { why } => Some(Outcome::GaveUp(why.clone())),
            _ => None,
        }
    }

    /// A stable name, `kebab-case`, for programs and for the journal.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            What::Starting { .. } => "starting",
            What::Started { .. } => "started",
            What::Ready { .. } => "ready",
            What::SpawnFailed { .. } => "spawn-failed",
            What::StartTimedOut { .. } => "start-timed-out",
            What::Exited { .. } => "exited",
            What::Stopping { .. } => "stopping",
            What::Killing { .. } => "killing",
            What::Stopped => "stopped",
            What::BackingOff { .. } => "backing-off",
            What::GaveUp { .. } => "gave-up",
            What::Completed => "completed",
            What::CheckFailed { .. } => "check-failed",
            What::Reloading { .. } => "reloading",
            What::Reloaded => "reloaded",
            What::ReloadFailed { .. } => "reload-failed",
            What::WatchedChanged { .. } => "watched-changed",
            What::Healthy => "healthy",
            What::Unhealthy { .. } => "unhealthy",
            What::Waiting { .. } => "waiting",
            What::KeepsRun { .. } => "keeps-run",
            What::Overlaps { .. } => "overlaps",
            What::FellBack { .. } => "fell-back",
            What::TakenBack => "taken-back",
            What::ReloadStarted { .. } => "reload-started",
            What::ReloadFinished(_) => "reload-finished",
            What::TookOver { .. } => "took-over",
            What::Kept { .. } => "kept",
            What::ShuttingDown => "shutting-down",
            What::StillThere => "still-there",
        }
    }
}

/// Why a run is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// An operator stopped it.
    Requested,
    /// An operator restarts it.
    Restart,
    /// The file disables it.
    Disabled,
    /// The file has it no more.
    Removed,
    /// Its spec changed.
    Changed,
    /// A dependency was stopped or disabled.
    DependencyStopped(ProcessId),
    /// A dependency of an edge with `restart: true` got a new run.
    DependencyRestarted(ProcessId),
    /// Files that it has watched have changed; one of them.
    WatchedChanged(Arc<str>),
    /// Its check says unhealthy.
    Unhealthy(String),
    /// It used so many bytes of memory, more than its `maxMemoryRestart`.
    Outgrown(u64),
    /// It was not ready in time.
    StartTimedOut,
    /// Its main process ended and left others behind.
    Leftovers,
    /// The supervisor is ending.
    Shutdown,
}

/// Why an instance is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailReason {
    /// Its last run ended like this and the policy says no.
    Policy(RunEnd),
    /// The allowed attempts are used up; its last run ended like this.
    Attempts(u32, RunEnd),
    /// Its check failed and says `onFailure: stop`.
    Unhealthy(String),
}

/// How a run ended, as far as the restart policy is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// The command was not executed.
    NotSpawned(Box<SpawnError>),
    /// The main process ended by itself.
    Exited(ExitStatus),
    /// It was not ready in time and was ended.
    StartTimedOut,
    /// Its check failed and it was ended.
    Unhealthy(String),
    /// It used so many bytes of memory and was ended.
    Outgrown(u64),
    /// It was ended because somebody or the file said so.
    Asked(StopReason),
}

/// What keeps a wanted instance from starting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blocker {
    /// A dependency does not meet its condition.
    Dependency {
        /// Which.
        on: ProcessId,
        /// What it should be.
        condition: crate::spec::Condition,
        /// What it is.
        because: DependencyState,
    },
    /// A reload stops other processes first.
    Reload,
}

impl Blocker {
    /// Whether this stays as it is until somebody does something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Blocker::Dependency { because, .. } => because.is_final(),
            Blocker::Reload => false,
        }
    }

    /// Whether it is not worth waiting for: it will not pass by itself, or not soon.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        match self {
            Blocker::Dependency { because, .. } => because.is_final() || because.is_lasting(),
            Blocker::Reload => false,
        }
    }
}

/// Why a dependency does not meet its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyState {
    /// The file disables it.
    Disabled,
    /// An operator stopped it, or one it depends on.
    Stopped,
    /// It has failed and is not tried again.
    Failed,
    /// It is down and waits itself, for something that is on its way.
    Waiting,
    /// It is down and waits itself, for something that will not come by itself.
    Stuck,
    /// It is down and waits itself, for something that fails and is tried again.
    Delayed,
    /// It is on its way up.
    Starting,
    /// It is on its way down, to come back.
    Stopping,
    /// It failed and will be tried again.
    Restarting,
    /// It runs and its check says unhealthy, or says nothing yet.
    NotHealthy,
    /// It has not ended with success.
    NotCompleted,
    /// It has ended with success, and what has ended is not healthy any more.
    Over,
}

impl DependencyState {
    /// Whether this stays as it is until somebody does something.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            DependencyState::Disabled
                | DependencyState::Stopped
                | DependencyState::Failed
                | DependencyState::Stuck
                | DependencyState::Over
        )
    }

    /// Whether it is not worth waiting for, although it may end by itself.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            DependencyState::Restarting | DependencyState::Delayed | DependencyState::NotHealthy
        )
    }
}
