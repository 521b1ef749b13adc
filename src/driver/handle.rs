//! What everybody else holds of the driver: a way to ask and a way to read.
//!
//! Asking goes through a mailbox and is answered after the machine has taken it in. Reading never
//! waits for the driver: after each turn it publishes what changed into [`Published`], and tells
//! subscribers which objects that were.

pub use super::history::{
    Cause, Difference, FileDifference, Listed, Record, Shown, ShownFile, Which,
};
pub use super::notice::Tally;
pub use super::published::{
    CheckpointView, EventLine, ExitNotice, JobEnd, JobView, ManagerView, Published, Remark, Says,
    Turn,
};
pub use crate::backend::LogRequest;
use crate::backend::{Backend, Purpose};
use crate::config::check::Programs;
use crate::config::diagnostic::Diagnostic;
use crate::config::load::Mode;
use crate::core::event::{Refusal, Whom};
use crate::core::ids::{Generation, InstanceId, JobId, Slot};
use crate::core::limits::Limit;
use crate::core::reload::{Plan, ReloadReport};
use crate::core::spec::Signal;
use crate::core::time::Mono;
use crate::core::view::InstanceView;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Who asks for a reload, for the log and the record.
pub use crate::store::generations::Cause as Trigger;

/// The machine's time now: CLOCK_MONOTONIC, which stands still while the system is suspended.
#[must_use]
pub fn now() -> Mono {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Mono(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// A point of the machine's time on the wall clock, for people.
#[must_use]
pub fn wall(at: Mono) -> SystemTime {
    let (mono, wall) = (now(), SystemTime::now());
    if at >= mono { wall + at.since(mono) } else { wall - mono.since(at) }
}

/// Why the driver did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The machine refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The configuration is not valid, or could not be read; nothing was changed.
    #[error("the configuration is not valid; nothing was changed")]
    Invalid {
        /// What is wrong.
        diagnostics: Arc<[Diagnostic]>,
        /// The same as text with excerpts, for a caller who may read the files.
        rendered: String,
    },
    /// The active generation is another than the caller expected.
    #[error("generation {actual} is active, not {expected}")]
    GenerationMismatch {
        /// What the caller expected.
        expected: u64,
        /// What is active.
        actual: u64,
    },
    /// What the files say was tried and did not come up, or is held off since a rollback.
    #[error("{0}")]
    HeldOff(String),
    /// The file was not changed.
    #[error("{0}")]
    EditRefused(String),
    /// Something that the caller asked for does not exist.
    #[error("{0}")]
    NotAvailable(String),
    /// Something waits to be confirmed first.
    #[error("{0}")]
    CheckpointPending(String),
    /// What somebody means does not wait to be confirmed.
    #[error("{0}")]
    NoSuchCheckpoint(String),
    /// A generation is not kept, or never was.
    #[error("{0}")]
    NoSuchGeneration(String),
    /// What is kept of a generation is not as it was written.
    #[error("{0}")]
    GenerationUnusable(String),
    /// The driver is gone.
    #[error("the supervisor is shutting down")]
    Gone,
}

/// What a reload came to.
#[derive(Clone, Debug)]
pub struct ReloadOutcome {
    /// The job it was; None when it was rejected or changed nothing.
    pub job: Option<JobId>,
    /// What caused it; the last cause where several were folded.
    pub trigger: Trigger,
    /// `applied`, `unchanged`, `failed-kept`, `rolled-back`, `rollback-incomplete`, `superseded`, or
    /// `rejected`.
    pub result: &'static str,
    /// The generation that is active now.
    pub generation: Generation,
    /// The generation that was tried, where that is another one.
    pub tried: Option<Generation>,
    /// What did not come up or back, and why; one sentence each.
    pub why: Vec<String>,
    /// What was done; None when nothing was.
    pub report: Option<Arc<ReloadReport>>,
    /// Errors and warnings about the files.
    pub diagnostics: Arc<[Diagnostic]>,
    /// Milliseconds each stage took, by name: `read`, `check`, `plan`, `apply`.
    pub timings: Vec<(&'static str, u64)>,
}

/// A reload that was accepted: the files are valid.
#[derive(Debug)]
pub struct ReloadTicket {
    /// The job that carries it out; None when nothing differs.
    pub job: Option<JobId>,
    /// What comes of it.
    pub outcome: oneshot::Receiver<Arc<ReloadOutcome>>,
}

/// Options of a reload.
#[derive(Clone, Debug, Default)]
pub struct ReloadOptions {
    /// Only apply on top of this generation.
    pub expect_generation: Option<u64>,
    /// Apply again although the content is the same as what is active.
    pub force: bool,
}

/// A job a caller was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The instance it is on.
    pub instance: InstanceId,
    /// The job.
    pub job: JobId,
}

/// What a plan would do.
#[derive(Clone, Debug)]
pub struct PlanOutcome {
    /// The generation it is made against.
    pub against: Generation,
    /// What would change; None when the files are not valid.
    pub plan: Option<Plan>,
    /// Errors and warnings about the files.
    pub diagnostics: Arc<[Diagnostic]>,
    /// The same as text with excerpts, for a caller who may read the files; one for each.
    pub rendered: Vec<String>,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, DriverError>>;

/// A content that somebody hands over.
pub(super) struct Handed {
    pub(super) content: Vec<u8>,
    /// Only on top of this generation.
    pub(super) expected: Option<u64>,
    /// It is to be confirmed in so much time.
    pub(super) confirm: Option<Duration>,
    pub(super) uid: u32,
}

/// What the driver is asked.
pub(super) enum Command {
    Start { names: Vec<String>, once: bool, reply: Reply<Vec<Accepted>> },
    Stop { names: Vec<String>, reply: Reply<Vec<Accepted>> },
    Restart { names: Vec<String>, reply: Reply<Vec<Accepted>> },
    ReloadProcess { names: Vec<String>, reply: Reply<Vec<Accepted>> },
    Signal { name: String, signal: Signal, whom: Whom, reply: Reply<()> },
    ResetFailed { names: Vec<String>, reply: Reply<()> },
    Reload { trigger: Trigger, options: ReloadOptions, reply: Reply<ReloadTicket> },
    SetEnabled { names: Vec<String>, enabled: bool, trigger: Trigger, reply: Reply<ReloadTicket> },
    Apply { handed: Handed, reply: Reply<ReloadTicket> },
    Commit { generation: Generation, uid: u32, reply: Reply<()> },
    SetConfirmTimeout { generation: Generation, within: Duration, reply: Reply<()> },
    TakeBack { generation: Generation, uid: u32, reply: Reply<ReloadTicket> },
    Rollback { to: Option<Generation>, write: bool, uid: u32, reply: Reply<ReloadTicket> },
    Plan { content: Option<Vec<u8>>, reply: Reply<PlanOutcome> },
    History { reply: Reply<Listed> },
    ShowGeneration { number: Generation, reply: Reply<Shown> },
    DiffGenerations { old: Which, new: Which, reply: Reply<Difference> },
    WaitJob { job: JobId, reply: oneshot::Sender<JobEnd> },
    OpenLog { name: String, request: LogRequest, reply: Reply<Option<OwnedFd>> },
    PidFd { instance: InstanceId, reply: Reply<OwnedFd> },
    MakeWay { reply: Reply<()> },
    Shutdown,
    Kill,
}

/// What a run uses, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time in nanoseconds.
    pub cpu: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// The control group, where it has one of its own.
    pub control_group: Option<String>,
    /// The limits of its spec that do not hold for it.
    pub unenforced: Vec<Limit>,
    /// The file of its program is another than when it was started.
    pub program_changed: bool,
}

fn used(backend: &dyn Backend, programs: &mut Programs, view: Option<&InstanceView>) -> Usage {
    let Some((view, run)) = view.and_then(|view| Some((view, view.run?))) else {
        return Usage::default();
    };
    let id = &view.id;
    let used = backend.usage(id, run).unwrap_or_default();
    Usage {
        memory: used.memory,
        cpu: used.cpu,
        tasks: used.tasks,
        control_group: backend.control_group(id, run),
        unenforced: backend.unenforced(id, run, &view.spec.limits),
        program_changed: view
            .started
            .is_some_and(|started| programs.is_changed(&view.spec, id.index, wall(started))),
    }
}

/// A way to ask the driver and to read what it published. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    turns: broadcast::Sender<Arc<Turn>>,
    published: Arc<Published>,
    /// For reading what runs use: counting may take time, and the driver has none.
    backend: Arc<dyn Backend>,
    /// One is counted at a time: more would only wait for each other, each in a thread.
    counting: Arc<tokio::sync::Mutex<()>>,
    mode: Mode,
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        turns: broadcast::Sender<Arc<Turn>>,
        published: Arc<Published>,
        backend: Arc<dyn Backend>,
        mode: Mode,
    ) -> Handle {
        Handle { commands, turns, published, backend, counting: Arc::default(), mode }
    }

    /// What there is to read.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// What each turn changes from now on. A subscriber that lags is told so, and must compare all
    /// it has with what is published.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Turn>> {
        self.turns.subscribe()
    }

    /// Returns when the files were looked at for the first time: before that no process is known,
    /// and a name would mean nothing. A file that is being written is waited for; a file system that does
    /// not answer is not.
    pub async fn first_look(&self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut looked = self.published.looked.subscribe();
        let _ = tokio::time::timeout(PATIENCE, looked.wait_for(|looked| *looked)).await;
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, DriverError> {
        self.first_look().await;
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DriverError::Gone)?;
        answer.await.map_err(|_| DriverError::Gone)?
    }

    /// Puts a content in the place of the file with the processes, and applies it. `confirm`: it is
    /// undone unless somebody confirms it within so much time from when it is up. `expected`: only on
    /// top of this generation.
    ///
    /// # Errors
    /// When it is not valid, or the file cannot be replaced; then it is as it was.
    pub async fn apply(
        &self,
        content: Vec<u8>,
        expected: Option<u64>,
        confirm: Option<Duration>,
        uid: u32,
    ) -> Result<ReloadTicket, DriverError> {
        let handed = Handed { content, expected, confirm, uid };
        self.ask(|reply| Command::Apply { handed, reply }).await
    }

    /// Keeps a generation that waits to be confirmed.
    ///
    /// # Errors
    /// When it does not wait, or that it is confirmed cannot be written down.
    pub async fn commit(&self, generation: Generation, uid: u32) -> Result<(), DriverError> {
        self.ask(|reply| Command::Commit { generation, uid, reply }).await
    }

    /// Gives a generation that waits to be confirmed so much time from now.
    ///
    /// # Errors
    /// When it does not wait, or that cannot be written down.
    pub async fn set_confirm_timeout(
        &self,
        generation: Generation,
        within: Duration,
    ) -> Result<(), DriverError> {
        self.ask(|reply| Command::SetConfirmTimeout { generation, within, reply }).await
    }

    /// Undoes a generation that waits to be confirmed, now.
    ///
    /// # Errors
    /// When it does not wait.
    pub async fn take_back(
        &self,
        generation: Generation,
        uid: u32,
    ) -> Result<ReloadTicket, DriverError> {
        self.ask(|reply| Command::TakeBack { generation, uid, reply }).await
    }

    /// Applies an older generation again, as a new one; None: the one before what runs. `write`: the
    /// files on disk become what they were then; else they are held off until they change.
    ///
    /// # Errors
    /// When it is not kept, or the files cannot be replaced; then nothing is changed.
    pub async fn roll_back(
        &self,
        to: Option<Generation>,
        write: bool,
        uid: u32,
    ) -> Result<ReloadTicket, DriverError> {
        self.ask(|reply| Command::Rollback { to, write, uid, reply }).await
    }

    /// Wants instances up. Returns as soon as the jobs exist, one for each instance.
    ///
    /// # Errors
    /// When a name means nothing, or one of them may not run; then nothing is done at all.
    pub async fn start(
        &self,
        names: Vec<String>,
        once: bool,
    ) -> Result<Vec<Accepted>, DriverError> {
        self.ask(|reply| Command::Start { names, once, reply }).await
    }

    /// Wants instances down, see [`Handle::start`]. Also names dependents that go down first.
    ///
    /// # Errors
    /// When a name means nothing.
    pub async fn stop(&self, names: Vec<String>) -> Result<Vec<Accepted>, DriverError> {
        self.ask(|reply| Command::Stop { names, reply }).await
    }

    /// Wants a new run of instances, see [`Handle::start`].
    ///
    /// # Errors
    /// When a name means nothing, or one of them may not run; then nothing is done at all.
    pub async fn restart(&self, names: Vec<String>) -> Result<Vec<Accepted>, DriverError> {
        self.ask(|reply| Command::Restart { names, reply }).await
    }

    /// Has runs take new settings, as their `reload` says, see [`Handle::start`].
    ///
    /// # Errors
    /// When a name means nothing, one of them does not run or is not ready, or the file does not say
    /// how it takes them; then nothing is done at all.
    pub async fn reload_process(&self, names: Vec<String>) -> Result<Vec<Accepted>, DriverError> {
        self.ask(|reply| Command::ReloadProcess { names, reply }).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the name means nothing, or it does not run.
    pub async fn signal(
        &self,
        name: String,
        signal: Signal,
        whom: Whom,
    ) -> Result<(), DriverError> {
        self.ask(|reply| Command::Signal { name, signal, whom, reply }).await
    }

    /// Has failed and waiting instances tried again at once.
    ///
    /// # Errors
    /// When a name means nothing.
    pub async fn reset_failed(&self, names: Vec<String>) -> Result<(), DriverError> {
        self.ask(|reply| Command::ResetFailed { names, reply }).await
    }

    /// Reads the files and applies what differs. Returns as soon as the files are read and the job
    /// exists; the ticket tells the end.
    ///
    /// # Errors
    /// When the files are not valid, or another generation is active than the options say; then
    /// nothing is changed.
    pub async fn reload(
        &self,
        trigger: Trigger,
        options: ReloadOptions,
    ) -> Result<ReloadTicket, DriverError> {
        self.ask(|reply| Command::Reload { trigger, options, reply }).await
    }

    /// Changes `enabled` of processes in the file, in place, and reloads.
    ///
    /// # Errors
    /// When a name means nothing or the file cannot be changed without changing its meaning; then
    /// the file is as it was.
    pub async fn set_enabled(
        &self,
        names: Vec<String>,
        enabled: bool,
        trigger: Trigger,
    ) -> Result<ReloadTicket, DriverError> {
        self.ask(|reply| Command::SetEnabled { names, enabled, trigger, reply }).await
    }

    /// What a reload would do. `content` stands in for the file with the processes; None: what is on
    /// disk.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn plan(&self, content: Option<Vec<u8>>) -> Result<PlanOutcome, DriverError> {
        self.ask(|reply| Command::Plan { content, reply }).await
    }

    /// Waits for the end of a job; at once when it has ended lately, None when it is not known.
    pub async fn job_end(&self, job: JobId) -> Option<JobEnd> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::WaitJob { job, reply }).await.ok()?;
        answer.await.ok()
    }

    /// What an instance wrote lately, as a stream. None: it is in the journal.
    ///
    /// # Errors
    /// When the name means nothing or the log cannot be read.
    pub async fn open_log(
        &self,
        name: String,
        request: LogRequest,
    ) -> Result<Option<OwnedFd>, DriverError> {
        self.ask(|reply| Command::OpenLog { name, request, reply }).await
    }

    /// What instances use at the moment, each in the place of its id; nothing where one does not run.
    pub async fn usages(&self, instances: Vec<InstanceId>) -> Vec<Usage> {
        let views = instances.iter().map(|id| self.published.instance(id));
        let views: Vec<Option<Arc<InstanceView>>> = views.collect();
        let count = views.len();
        if views.iter().flatten().all(|view| view.run.is_none()) {
            return vec![Usage::default(); count];
        }
        let backend = self.backend.clone();
        let _turn = self.counting.lock().await;
        let mut programs = Programs::new(self.mode);
        let used = move || {
            let used = |view: &Option<_>| used(&*backend, &mut programs, view.as_deref());
            views.iter().map(used).collect()
        };
        // In one thread at once: going there and back for each would take more than the counting.
        tokio::task::spawn_blocking(used).await.unwrap_or_else(|_| vec![Usage::default(); count])
    }

    /// A descriptor for the main process of an instance.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pidfd(&self, instance: InstanceId) -> Result<OwnedFd, DriverError> {
        self.ask(|reply| Command::PidFd { instance, reply }).await
    }

    /// The unit of an instance, where each has one of its own.
    #[must_use]
    pub fn unit(&self, instance: &InstanceId) -> Option<String> {
        let slot = self.published.instance(instance).map_or(Slot::A, |view| view.slot);
        self.backend.unit(instance, slot)
    }

    /// What the last exec check of an instance that failed wrote at its end.
    #[must_use]
    pub fn check_output(&self, instance: &InstanceId) -> Option<Arc<str>> {
        self.backend.command_output(instance, Purpose::Check)
    }

    /// What the last command of the `reload` of an instance that failed wrote at its end.
    #[must_use]
    pub fn reload_output(&self, instance: &InstanceId) -> Option<Arc<str>> {
        self.backend.command_output(instance, Purpose::Reload)
    }

    /// Has the driver write down all it knows and do nothing any more: another program follows in this
    /// process.
    ///
    /// # Errors
    /// When the next one would not know all; then the driver goes on.
    pub async fn make_way(&self) -> Result<(), DriverError> {
        self.ask(|reply| Command::MakeWay { reply }).await
    }

    /// Ends everything in order, and then the driver.
    pub async fn shutdown(&self) {
        // A driver that is gone has nothing left to end.
        let _ = self.commands.send(Command::Shutdown).await;
    }

    /// Kills everything that is left of a shutdown.
    pub async fn kill(&self) {
        let _ = self.commands.send(Command::Kill).await;
    }
}
