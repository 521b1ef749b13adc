//! Where runs live. A backend carries out the effects of the machine that concern runs, and
//! reports what happens to them as events; it decides nothing.
//!
//! Rules for every backend, which the conformance tests hold them to:
//! - Every accepted [`Backend::spawn`] is answered by `Spawned` or `SpawnFailed`. After `Spawned`
//!   come, each once and in this order, `Exited` when the main process ended and `Emptied` when
//!   nothing of the run is left.
//! - Where it remembers how runs end, `Emptied` comes after [`Backend::end_is_kept`].
//! - `terminate` and `kill` may come at any moment of a run, also before `Spawned` was reported, and
//!   for a run that is over (then they do nothing).
//! - No method blocks: the work is done by tasks.

pub mod choice;
pub mod group;
pub mod held;
pub mod native;
pub mod notices;
pub mod sockets;
mod starts;
pub mod systemd;

use self::sockets::Sockets;
use crate::core::event::{Event, Whom};
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::limits::{Limit, Limits};
use crate::core::spec::{ProcessSpec, Rendered, Signal, StopSpec};
use crate::net::Network;
use crate::sys::pidfd::is_ending;
use crate::sys::signal::gone;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where a backend reports: the driver's mailbox for facts.
pub type Facts = tokio::sync::mpsc::UnboundedSender<Event>;

/// What a run uses at the moment; None where it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time in nanoseconds.
    pub cpu: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// What of a log is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Only the so many last lines; None: all that is kept in one piece.
    pub lines: Option<u64>,
    /// And what comes.
    pub follow: bool,
}

/// How a command that was run in the context of a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// With exit code 0.
    Success,
    /// Otherwise; in words, without anything it wrote: see [`Backend::command_output`].
    Failure(String),
    /// It was still there at its deadline and was killed, with all its descendants.
    TimedOut,
}

/// What a command beside a run is for, and what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It asks for the health of the run.
    Check,
    /// It has the run take new settings.
    Reload {
        /// The main process of the run: `MAINPID` of its environment.
        main: u32,
    },
    /// It is told what became of a reload.
    Hook,
}

/// What a command beside a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It asks for the health of the run.
    Check,
    /// It has the run take new settings.
    Reload,
    /// It is told what became of a reload.
    Hook,
}

impl Purpose {
    /// All there are.
    pub const ALL: [Purpose; 3] = [Purpose::Check, Purpose::Reload, Purpose::Hook];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Check => "check",
            Purpose::Reload => "reload",
            Purpose::Hook => "hook",
        }
    }
}

impl Beside {
    /// What it is for.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Beside::Check => Purpose::Check,
            Beside::Reload { .. } => Purpose::Reload,
            Beside::Hook => Purpose::Hook,
        }
    }

    /// A variable that it has besides those of the process.
    #[must_use]
    pub fn variable(self) -> Option<(String, String)> {
        match self {
            Beside::Check | Beside::Hook => None,
            Beside::Reload { main } => Some(("MAINPID".to_owned(), main.to_string())),
        }
    }
}

/// A run that was kept: what another daemon had started.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Of which instance.
    pub instance: InstanceId,
    /// Its number.
    pub run: Run,
    /// Where it is.
    pub slot: Slot,
    /// What it was started with, and has taken in since.
    pub spec: Arc<ProcessSpec>,
    /// Whether its command is known to have been executed.
    pub started: bool,
}

/// The future of [`Backend::run_in_context`].
pub type CommandFuture = Pin<Box<dyn Future<Output = CommandEnd> + Send>>;

/// The future of [`Backend::recover`].
pub type RecoverFuture = Pin<Box<dyn Future<Output = BTreeSet<(InstanceId, Run)>> + Send>>;

/// The future of [`Backend::hold`].
pub type HoldFuture = Pin<Box<dyn Future<Output = Result<Vec<(String, OwnedFd)>, String>> + Send>>;

/// A way to run processes.
pub trait Backend: Send + Sync {
    /// Its name: `native`, `systemd`.
    fn name(&self) -> &'static str;

    /// Goes on with runs of a daemon that was killed: returns those of which anything is there, or
    /// of which it can be told how they ended. Their ends are reported as those of any run. What is
    /// ours and of none of them is ended, before this returns.
    ///
    /// `stored` are pidfds of main processes that the service manager has held meanwhile.
    fn recover(
        &self,
        known: Vec<Kept>,
        stored: HashMap<(InstanceId, Run), OwnedFd>,
    ) -> RecoverFuture;

    /// Stands still, so that another program can take the place of this one in the same process:
    /// starts nothing, takes no status, and what was read or taken is told when this returns. Returns
    /// what only this program has and the next one needs, by name. An error says what cannot be left
    /// as it is; it is undone by [`Backend::go_on`] as well.
    fn hold(&self) -> HoldFuture {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Goes on after [`Backend::hold`], because no other program came.
    fn go_on(&self) {}

    /// Takes what the program before this one has handed on, before [`Backend::recover`].
    fn take_over(&self, _handed: Vec<(String, OwnedFd)>) {}

    /// Returns when all output of processes that we read is read to its end and shown. A process
    /// that outlived its run may hold its output open: the caller sets the limit.
    fn drained(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Starts a run of a spec, which is of this generation. In the other slot another run of the
    /// instance may be there, and go on.
    fn spawn(
        &self,
        instance: &InstanceId,
        run: Run,
        slot: Slot,
        generation: Generation,
        spec: &Arc<ProcessSpec>,
    );

    /// Gets the first run that was asked for as far as it may come before it is written down that it
    /// was: to a process that sets itself up and waits. One that is ended before [`Backend::begin`] never
    /// becomes its command.
    fn prepare(&self) {}

    /// Has the first run that was asked for begin now, instead of when its turn comes: all of the
    /// same moment was asked for, and what comes next is only told.
    fn begin(&self) {}

    /// Asks a run to end: a signal to the main process, or to all that is left where that is gone.
    fn terminate(&self, instance: &InstanceId, run: Run, stop: &StopSpec);

    /// Kills all of a run until nothing is left.
    fn kill(&self, instance: &InstanceId, run: Run);

    /// Sends a signal.
    fn signal(&self, instance: &InstanceId, run: Run, signal: Signal, whom: Whom);

    /// Holds a run to the limits of its new spec, from now on. May come at any moment of a run, also
    /// before `Spawned` was reported.
    fn limit(&self, instance: &InstanceId, run: Run, spec: &Arc<ProcessSpec>);

    /// Which of these limits do not hold for a run; none when it is over.
    fn unenforced(&self, instance: &InstanceId, run: Run, limits: &Limits) -> Vec<Limit>;

    /// The limits that can be enforced here, as far as that can be told beforehand.
    fn enforceable(&self) -> BTreeSet<Limit>;

    /// What a run uses; None when it is over.
    fn usage(&self, instance: &InstanceId, run: Run) -> Option<Usage>;

    /// The control group of a run, as a path below the mount of cgroup v2, where it has one.
    fn control_group(&self, instance: &InstanceId, run: Run) -> Option<String>;

    /// The unit of an instance in a slot, where each has one of its own.
    fn unit(&self, _instance: &InstanceId, _slot: Slot) -> Option<String> {
        None
    }

    /// A descriptor that stands for the main process of a run.
    fn pidfd(&self, instance: &InstanceId, run: Run) -> Option<OwnedFd>;

    /// The run that a process is of, if it is of one that speaks for itself
    /// ([`ProcessSpec::notify`]). Known before the command is executed.
    fn run_of(&self, pid: u32) -> Option<(InstanceId, Run)>;

    /// Whether how a run ends is told later by whoever runs it, and needs no pidfd that outlives the
    /// daemon. That is so until [`Backend::end_is_kept`].
    fn remembers_ends(&self) -> bool {
        false
    }

    /// How a run has ended, which was reported, is written down now, or cannot be: whoever remembers it may
    /// forget it.
    fn end_is_kept(&self, _instance: &InstanceId, _run: Run) {}

    /// Runs a command as the user, in the directory and with the environment of `spec`, apart from the
    /// run itself, with its output capped; kills it and all its descendants at the deadline. Of each
    /// purpose one at a time for each instance.
    fn run_in_context(
        &self,
        instance: &InstanceId,
        spec: &Arc<ProcessSpec>,
        beside: Beside,
        argv: Vec<Rendered>,
        timeout: Duration,
    ) -> CommandFuture;

    /// What the last command of [`Backend::run_in_context`] for this that failed wrote at its end. It may
    /// hold secrets, as any output may: for those who may read the log of the process.
    fn command_output(&self, instance: &InstanceId, purpose: Purpose) -> Option<Arc<str>>;

    /// Reads what an instance has written lately, where the backend has it: the log file, or the
    /// last lines kept in memory. None: it is in the journal, or nowhere.
    fn open_log(
        &self,
        instance: &InstanceId,
        spec: &Arc<ProcessSpec>,
        request: LogRequest,
    ) -> Option<std::io::Result<OwnedFd>>;

    /// The sockets that are held for processes.
    fn sockets(&self) -> &Arc<Sockets>;

    /// Who is on the network for the daemon: itself, unless its service may not be.
    fn network(&self) -> &Network {
        &Network::Own
    }

    /// What this backend lacks on this machine that the process needs, in words.
    fn lacks(&self, _spec: &ProcessSpec) -> Option<String> {
        None
    }

    /// An instance is gone for good, with all its runs: nothing needs to be kept of it.
    fn forget(&self, instance: &InstanceId);
}

/// Whether the main process of a run has ended, or does so within moments when it has begun to.
pub async fn has_ended(backend: &dyn Backend, instance: &InstanceId, run: Run) -> bool {
    /// To end takes a moment. It may take longer, and where only the first of its threads has ended it
    /// does not end at all.
    const PATIENCE: Duration = Duration::from_secs(1);
    let Some(pidfd) = backend.pidfd(instance, run) else { return false };
    is_ending(&pidfd) && matches!(tokio::time::timeout(PATIENCE, gone(pidfd)).await, Ok(Ok(())))
}
