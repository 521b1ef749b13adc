//! What the machine is told and what it answers.
//!
//! Events about a run are facts and carry the run; an event about a run that is not the current one
//! of its instance changes nothing. Effects are whole outside operations, never a step of one.

use crate::ids::{Generation, InstanceId, JobId, ProbeId, ReloadId, Request, Run, Slot};
use crate::job::{JobKind, JobResult};
use crate::reload::ReloadReport;
use crate::spec::{Config, HealthCheck, ProcessSpec, Signal, StopSpec, Text};
use crate::trial::Before;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use crate::note::{
    Blocker, DependencyState, FailReason, Note, Outcome, RunEnd, StopReason, What,
};

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
    /// A run uses more memory than it may have before it gets a new one.
    Outgrown {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Bytes.
        used: u64,
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
    /// A command that has a run take new settings has an answer.
    Reloaded {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Which command.
        reload: ReloadId,
        /// The answer; an error says in words what was wrong, such as `exited with code 1`.
        outcome: Result<(), String>,
    },
    /// Files that an instance has watched have changed, and have settled.
    WatchedChanged {
        /// Which instance.
        instance: InstanceId,
        /// One of them, for people.
        path: Arc<str>,
    },
    /// A run has said something of itself (sd_notify(3)). May come before [`Event::Spawned`]: who
    /// has just become the command may be quicker than the word of it.
    Notified {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// What.
        told: Told,
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
    /// A configuration did not come up, and the one before it shall be what runs again.
    ConfigWithdrawn {
        /// Who waits for the answer.
        request: Request,
        /// The configuration before it.
        config: Arc<Config>,
        /// The number it had.
        generation: Generation,
        /// How those it touched were then.
        before: Arc<BTreeMap<InstanceId, Before>>,
    },
    /// The first look at the files brought no configuration that can be applied. What a supervisor
    /// that was there before has left is gone on with.
    ConfigUnusable,
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
    /// Somebody wants runs to take new settings.
    ReloadRequested {
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

/// What a run says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// READY=1: it can do its work.
    Ready,
    /// WATCHDOG=1: it is alive.
    Alive,
    /// WATCHDOG=trigger: something is wrong with it.
    Trouble,
    /// STATUS=: one line for people.
    Status(Arc<str>),
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
    /// The kernel killed it (SIGKILL) because there was no more memory for it.
    OutOfMemory,
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
            ExitStatus::OutOfMemory => write!(f, "was killed by the kernel: out of memory"),
            ExitStatus::Unknown => write!(f, "ended, how is unknown"),
        }
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
    /// Opening the sockets that are held for it.
    Sockets,
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
            SpawnStage::Sockets => "opening its socket",
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
        /// Where.
        slot: Slot,
        /// Of which generation its spec is.
        generation: Generation,
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
    /// Hold a run to the limits of its new spec, without a new run. May come before the answer to
    /// its start.
    Limit {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Its limits are those that hold from now on; a run has taken in the rest, or does not.
        spec: Arc<ProcessSpec>,
    },
    /// Ask for the health of a run. Answered by [`Event::Probed`], or by the end of the run where that
    /// is why there is no good answer.
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
    /// Have a run take new settings by a command. Answered by [`Event::Reloaded`].
    Reload {
        /// Which instance.
        instance: InstanceId,
        /// Which run of it.
        run: Run,
        /// Which command.
        reload: ReloadId,
        /// The main process of the run, which the command is told; 0 where it is not known.
        main: u32,
        /// The program and its arguments.
        command: Arc<[Text]>,
        /// It is killed after so long.
        timeout: std::time::Duration,
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
    Note(Arc<Note>),
    /// All is down after [`Event::ShutdownRequested`] or [`Event::KillRequested`], or an essential
    /// process ended for good and all else is down. Comes once.
    Finished {
        /// Exit code for the supervisor.
        code: u8,
    },
}

/// In which order the effects of a turn are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A run begins.
    Begins,
    /// Something else is done to a process.
    Does,
    /// Somebody is told of what happened, and nothing is done to any process.
    Tells,
}

impl Effect {
    /// Which part of the turn it belongs to.
    #[must_use]
    pub fn part(&self) -> Part {
        match self {
            Effect::Spawn { .. } => Part::Begins,
            Effect::Terminate { .. }
            | Effect::Kill { .. }
            | Effect::Signal { .. }
            | Effect::Limit { .. }
            | Effect::Probe { .. }
            | Effect::Reload { .. } => Part::Does,
            Effect::Answer { .. }
            | Effect::JobNew { .. }
            | Effect::JobRemoved { .. }
            | Effect::RunExited { .. }
            | Effect::ReloadFinished(_)
            | Effect::Note(_)
            | Effect::Finished { .. } => Part::Tells,
        }
    }
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
    /// It is not ready yet.
    NotReady(InstanceId),
    /// The file does not say how it takes new settings.
    NoReload(InstanceId),
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
            Refusal::NotReady(instance) => {
                write!(f, "{instance} is still starting, and takes its settings as it starts")
            }
            Refusal::NoReload(instance) => write!(
                f,
                "the file does not say how {instance} takes new settings without a restart: \
                 write `reload: {{ signal: SIGHUP }}` or `reload: {{ command: [program, argument] }}`, \
                 or use `provost restart {instance}`"
            ),
            Refusal::ShuttingDown => write!(f, "the supervisor is shutting down"),
        }
    }
}
