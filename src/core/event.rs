//! What the machine is told and what it answers.
//!
//! Events about a run are facts and carry the run; an event about a run that is not the current one
//! of its instance changes nothing. Effects are whole outside operations, never a step of one.

use crate::ids::{Generation, InstanceId, JobId, ProbeId, ProcessId, Request, Run};
use crate::job::{JobKind, JobResult};
use crate::reload::{Plan, ReloadReport};
use crate::spec::{Config, HealthCheck, ProcessSpec, Signal, StopSpec};
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened, or something that somebody asked for.
#[derive(Clone, Debug)]
pub enum Event {
    /// The command of a run was executed.
    Spawned {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// The main process.
        pid: u32,
    },
    /// The command of a run was not executed; nothing of the run exists.
    SpawnFailed {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// What did not work.
        error: SpawnError,
    },
    /// The main process of a run has ended. Descendants may be left.
    Exited {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// How it ended.
        status: ExitStatus,
    },
    /// Nothing is left of a run: neither the main process nor any descendant. Comes after
    /// [`Event::Exited`], once.
    Emptied {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
    },
    /// A check has an answer.
    Probed {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Which check.
        probe: ProbeId,
        /// The answer; an error says in words what was wrong, such as `HTTP 500`.
        outcome: Result<(), String>,
    },
    /// A configuration was read, is valid, and shall be what runs.
    ConfigAccepted {
        /// Who waits for the answer.
        request: Request,
        /// The configuration.
        config: Arc<Config>,
        /// Its number, higher than any before.
        generation: Generation,
    },
    /// Somebody wants instances up.
    StartRequested {
        /// Who waits for the answer.
        request: Request,
        /// Which, in the order asked.
        instances: Vec<InstanceId>,
        /// Start also what the file disables, until the next stop or reload.
        once: bool,
    },
    /// Somebody wants instances down.
    StopRequested {
        /// Who waits for the answer.
        request: Request,
        /// Which, in the order asked.
        instances: Vec<InstanceId>,
    },
    /// Somebody wants a new run of instances.
    RestartRequested {
        /// Who waits for the answer.
        request: Request,
        /// Which, in the order asked.
        instances: Vec<InstanceId>,
    },
    /// Somebody wants a signal sent.
    SignalRequested {
        /// Who waits for the answer.
        request: Request,
        /// To which.
        instance: InstanceId,
        /// What.
        signal: Signal,
        /// To its main process only or to the whole tree.
        whom: Whom,
    },
    /// Somebody wants failed instances to be tried again, or waiting ones at once.
    ResetFailedRequested {
        /// Who waits for the answer.
        request: Request,
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// Everything shall end, in order; nothing is started any more.
    ShutdownRequested,
    /// Everything that is still there shall be killed.
    KillRequested,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The main process.
    Main,
    /// The main process and all its descendants.
    All,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal {
        /// The signal.
        signal: Signal,
        /// Whether it left a core dump.
        core: bool,
    },
    /// It ended while nobody could see how. Counts as failure.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exited with code {code}"),
            ExitStatus::Signal { signal, core } => {
                let core = if *core { " (core dumped)" } else { "" };
                write!(f, "was ended by {signal}{core}")
            }
            ExitStatus::Unknown => write!(f, "ended, how is unknown"),
        }
    }
}

impl fmt::Display for Signal {
    /// The name with `SIG`, for those that have one on every architecture.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(*self) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

const SIGNALS: [(u8, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

fn signal_name(signal: Signal) -> Option<&'static str> {
    SIGNALS.iter().find(|(number, _)| *number == signal.0).map(|(_, name)| *name)
}

impl Signal {
    /// Reads `SIGTERM`, `TERM`, `term` or `15` (signal(7), numbers of x86 and arm).
    #[must_use]
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse::<u8>() {
            return (1..=64).contains(&number).then_some(Signal(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<u8>().ok()) {
            return (offset <= 30).then(|| Signal(34 + offset));
        }
        SIGNALS.iter().find(|(_, known)| *known == name).map(|(number, _)| Signal(*number))
    }

    /// All names that [`Signal::parse`] knows, without `SIG`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIGNALS.iter().map(|(_, name)| *name)
    }
}

/// The step of starting a process at which it failed. The order is that of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpawnStage {
    /// Making the process at all.
    Fork,
    /// Finding user and group.
    Identity,
    /// Entering its control group.
    Cgroup,
    /// Opening the journal stream or pipe for its output.
    Output,
    /// Resource limits.
    Limits,
    /// Scheduling priority.
    Nice,
    /// Becoming user and group.
    Credentials,
    /// The working directory.
    Cwd,
    /// The log file.
    LogFile,
    /// The pid file.
    PidFile,
    /// Executing the command.
    Exec,
}

impl fmt::Display for SpawnStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpawnStage::Fork => "making the process",
            SpawnStage::Identity => "looking up the user",
            SpawnStage::Cgroup => "entering the control group",
            SpawnStage::Output => "connecting the output",
            SpawnStage::Limits => "setting resource limits",
            SpawnStage::Nice => "setting the priority",
            SpawnStage::Credentials => "changing to the user",
            SpawnStage::Cwd => "changing directory",
            SpawnStage::LogFile => "opening the log file",
            SpawnStage::PidFile => "writing the pid file",
            SpawnStage::Exec => "executing",
        })
    }
}

/// Why a command was not executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnError {
    /// The step that failed.
    pub stage: SpawnStage,
    /// What it was about: a path, a user, a command. May be empty.
    pub subject: String,
    /// What the system said, such as `No such file or directory`.
    pub reason: String,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            write!(f, "{}: {}", self.stage, self.reason)
        } else if self.stage == SpawnStage::Cwd {
            write!(f, "{} to {}: {}", self.stage, self.subject, self.reason)
        } else {
            write!(f, "{} {}: {}", self.stage, self.subject, self.reason)
        }
    }
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a run. Answered by [`Event::Spawned`] or [`Event::SpawnFailed`]; after the former, in
    /// the end, by [`Event::Exited`] and [`Event::Emptied`].
    Spawn {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// What to run.
        spec: Arc<ProcessSpec>,
    },
    /// Ask a run to end: the main process, or where that is gone, all that is left.
    Terminate {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// How.
        stop: StopSpec,
    },
    /// Kill all of a run, again and again until nothing is left.
    Kill {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
    },
    /// Send a signal that does not end a run as far as the machine is concerned.
    Signal {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// What.
        signal: Signal,
        /// To whom.
        whom: Whom,
    },
    /// Ask for the health of a run. Answered by [`Event::Probed`].
    Probe {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Which check.
        probe: ProbeId,
        /// How to ask, and the deadline.
        check: Arc<HealthCheck>,
        /// In whose context.
        spec: Arc<ProcessSpec>,
    },
    /// Whoever asked gets this. Comes in the same turn as the question, before anything about the
    /// jobs it names.
    Answer {
        /// Who asked.
        request: Request,
        /// The jobs, one for each instance asked for (the same one twice where a job merged), or
        /// why nothing was done.
        answer: Result<Vec<JobId>, Refusal>,
    },
    /// A job exists.
    JobNew {
        /// Its number.
        job: JobId,
        /// What it is for.
        kind: JobKind,
        /// On what; None for a reload.
        instance: Option<InstanceId>,
    },
    /// A job has ended and is gone.
    JobRemoved {
        /// Its number.
        job: JobId,
        /// What it was for.
        kind: JobKind,
        /// On what; None for a reload.
        instance: Option<InstanceId>,
        /// What came of it.
        result: JobResult,
        /// In words, where there is more to say than `result` does.
        detail: Option<String>,
    },
    /// A run's main process ended: what a client that counts exits must not miss.
    RunExited {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Of which generation its spec was.
        generation: Generation,
        /// The main process, 0 if it was never known.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// A reload was carried out, or superseded.
    ReloadFinished(Arc<ReloadReport>),
    /// Something worth telling and keeping.
    Note(Note),
    /// All is down after [`Event::ShutdownRequested`] or [`Event::KillRequested`], or an essential
    /// process ended for good and all else is down. Comes once.
    Finished {
        /// Exit code for the supervisor.
        code: u8,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such instance.
    NoSuchProcess(String),
    /// The file disables it.
    Disabled(InstanceId),
    /// `processManagement.enabled` is false.
    ManagementDisabled,
    /// It has no run that could be signalled.
    NotRunning(InstanceId),
    /// The supervisor is ending.
    ShuttingDown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchProcess(name) => write!(f, "there is no process {name:?}"),
            Refusal::Disabled(instance) => write!(
                f,
                "{instance} is disabled in the file; `provost enable {}` changes that, \
                 `start --once` runs it until the next stop or reload",
                instance.process
            ),
            Refusal::ManagementDisabled => {
                write!(f, "processManagement.enabled is false: no process may run")
            }
            Refusal::NotRunning(instance) => write!(f, "{instance} is not running"),
            Refusal::ShuttingDown => write!(f, "the supervisor is shutting down"),
        }
    }
}

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
    SpawnFailed(SpawnError),
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
    /// A configuration is being applied.
    ReloadStarted {
        /// Its number.
        generation: Generation,
        /// What will change.
        plan: Arc<Plan>,
    },
    /// A configuration was applied, or superseded by a newer one.
    ReloadFinished(Arc<ReloadReport>),
    /// Everything is being ended.
    ShuttingDown,
    /// A process is still there after it was killed (it may be in an uninterruptible wait).
    StillThere,
}

impl What {
    /// A stable name, `kebab-case`, for programs and for the journal.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            What::Starting { .. } => "starting",
            What::Started { .. } => "started",
            What::Ready { .. } => "ready",
            What::SpawnFailed(_) => "spawn-failed",
            What::StartTimedOut { .. } => "start-timed-out",
            What::Exited { .. } => "exited",
            What::Stopping { .. } => "stopping",
            What::Killing { .. } => "killing",
            What::Stopped => "stopped",
            What::BackingOff { .. } => "backing-off",
            What::GaveUp { .. } => "gave-up",
            What::Completed => "completed",
            What::CheckFailed { .. } => "check-failed",
            What::Healthy => "healthy",
            What::Unhealthy { .. } => "unhealthy",
            What::Waiting { .. } => "waiting",
            What::ReloadStarted { .. } => "reload-started",
            What::ReloadFinished(_) => "reload-finished",
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
    /// Its check says unhealthy.
    Unhealthy(String),
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
    NotSpawned(SpawnError),
    /// The main process ended by itself.
    Exited(ExitStatus),
    /// It was not ready in time and was ended.
    StartTimedOut,
    /// Its check failed and it was ended.
    Unhealthy(String),
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
