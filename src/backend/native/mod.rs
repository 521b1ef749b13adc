//! The native backend: runs are children of the daemon.
//!
//! | module | owns |
//! |---|---|
//! | [`launch`] | from what shall run to the first instruction of the command |
//! | [`identity`] | who a process shall be |
//! | [`reaper`] | the statuses of all children |
//! | [`tree`] | all that a run has started: by [`cgroup`] where there is one, else by [`census`] |
//! | `local` | whether who a user is can be told at once |
//! | `hold` | standing still for another program in this process, and going on after one |
//! | [`run`] | the life of a run, from the request to the end of its tree |
//! | [`command`] | commands beside a run, such as exec checks |
//! | `controllers` | what control groups need to hold runs to limits |
//! | `adopt` | runs of a daemon that was killed |
//! | `whose` | whose run a process is that has sent something |
//! | [`output`] | where output goes: [`console`], [`lines`], [`ring`], [`sink`] |

mod adopt;
pub mod census;
pub mod cgroup;
pub mod command;
pub mod console;
mod controllers;
pub mod hold;
pub mod identity;
pub mod launch;
pub mod lines;
mod local;
pub mod mark;
pub mod output;
pub mod reaper;
pub mod ring;
pub mod run;
pub mod sink;
pub mod tree;
mod walk;
mod whose;

pub use self::adopt::end_all;

use self::census::{Census, TreeId};
use self::cgroup::Cgroups;
use self::console::{Console, ConsoleOptions, Prefix};
use self::identity::{Identities, Identity, Need};
use self::launch::{Launcher, Recipe, Waiting, failure, reason};
use self::mark::Marks;
use self::output::Route;
use self::reaper::Reaper;
use self::ring::Ring;
use self::run::Handle;
use self::tree::Tree;
use super::held;
use super::sockets::Sockets;
use super::starts::Starts;
use super::{
    Backend, Beside, CommandFuture, Facts, HoldFuture, Kept, LogRequest, Purpose, RecoverFuture,
    Usage,
};
use crate::config::load::Mode;
use crate::core::event::{SpawnError, SpawnStage, Whom};
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::limits::{Limit, Limits};
use crate::core::spec::{ExecSpec, ProcessSpec, Rendered, Signal, StopSpec};
use crate::store::runs::{RunRecord, Runs};
use crate::sys::random;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What the backend has to know about the daemon.
pub struct NativeOptions {
    /// Whose daemon it is.
    pub mode: Mode,
    /// The daemon's own environment. Of it, processes see what the mode lets them see; the backend
    /// looks for [`cgroup::VARIABLE`] in it.
    pub environment: Arc<BTreeMap<String, String>>,
    /// The user of processes that name none, in [`Mode::System`].
    pub default_user: Arc<str>,
    /// The name of this daemon, in control groups: it tells two daemons apart.
    pub name: String,
    /// The socket of the journal, [`crate::journal::stream::socket`]; None in the foreground.
    pub journal: Option<PathBuf>,
    /// Where lines are shown that have nowhere else to go.
    pub console: ConsoleOptions,
    /// The program that writes log files, [`sink`].
    pub log_program: PathBuf,
    /// Where it is kept by what runs are found again.
    pub runs: Runs,
    /// The socket that runs speak to ([`super::notices`]).
    pub notices: Option<Arc<Path>>,
    /// What is held for processes.
    pub sockets: Arc<Sockets>,
}

/// Runs processes as children of this one.
///
/// It takes the statuses of all children of this process: nothing else may wait for a child.
pub struct NativeBackend {
    inner: Arc<Inner>,
}

struct Inner {
    facts: Facts,
    environment: Arc<BTreeMap<String, String>>,
    identities: Identities,
    journal: Option<PathBuf>,
    log_program: PathBuf,
    launcher: Launcher,
    census: Arc<Census>,
    marks: Option<Marks>,
    runs_kept: Runs,
    /// That records cannot be written was said.
    told_unkept: AtomicBool,
    cgroups: Option<Cgroups>,
    console: Arc<Console>,
    shown: Mutex<HashMap<InstanceId, Shown>>,
    runs: Mutex<BTreeMap<(InstanceId, Run), Arc<Handle>>>,
    starts: Arc<Starts>,
    notices: Option<Arc<Path>>,
    sockets: Arc<Sockets>,
    /// Runs that speak for themselves, by their main processes.
    speakers: Mutex<HashMap<u32, Arc<Handle>>>,
    /// Commands beside runs, by instance.
    commands: Mutex<HashMap<(InstanceId, Purpose), Arc<command::Place>>>,
    /// How many outputs are being read.
    pumps: watch::Sender<usize>,
    holding: hold::Holding,
    /// What another program in this process has handed on, until it is taken over.
    handed: Mutex<Vec<(String, OwnedFd)>>,
    reaper: Reaper,
}

/// What is kept and shown of an instance over all its runs.
#[derive(Clone)]
struct Shown {
    ring: Arc<Ring>,
    prefix: Prefix,
}

impl NativeBackend {
    /// Begins to reap and gets ready to run processes. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses something no run can do without, or the control group that was given
    /// cannot be used.
    pub fn new(facts: Facts, options: NativeOptions) -> io::Result<Arc<NativeBackend>> {
        let given = options.environment.get(cgroup::VARIABLE).map(String::as_str);
        let inner = Inner {
            facts,
            identities: Identities::new(options.mode, options.default_user, &options.environment),
            launcher: Launcher::new()?,
            census: Arc::default(),
            marks: Marks::new(options.runs.token()),
            runs_kept: options.runs,
            told_unkept: AtomicBool::new(false),
            cgroups: Cgroups::find(given, &options.name)?,
            console: Arc::new(Console::new(options.console)),
            environment: options.environment,
            journal: options.journal,
            log_program: options.log_program,
            shown: Mutex::default(),
            runs: Mutex::default(),
            starts: Starts::new(),
            notices: options.notices,
            sockets: options.sockets,
            speakers: Mutex::default(),
            commands: Mutex::default(),
            pumps: watch::Sender::new(0),
            holding: hold::Holding::new(),
            handed: Mutex::default(),
            reaper: Reaper::new()?,
        };
        Ok(Arc::new(NativeBackend { inner: Arc::new(inner) }))
    }

    fn handle(&self, instance: &InstanceId, run: Run) -> Option<Arc<Handle>> {
        lock(&self.inner.runs).get(&(instance.clone(), run)).cloned()
    }
}

impl Inner {
    async fn identity(&self, exec: &ExecSpec) -> Result<Identity, SpawnError> {
        self.identities.find(exec, Need::All).await
    }

    /// What runs for `argv` in the context of a process: without its log file and pid file.
    fn recipe(
        &self,
        instance: &InstanceId,
        exec: &ExecSpec,
        argv: Vec<Rendered>,
        identity: Identity,
    ) -> Recipe {
        let index = instance.index;
        let env = self.identities.environment(&self.environment, exec, &identity.record, index);
        const USUAL_UMASK: u32 = 0o022;
        Recipe {
            argv,
            env,
            path_is_own: exec.env.contains_key("PATH"),
            cwd: exec.cwd.rendered(index),
            identity,
            umask: exec.umask.unwrap_or(USUAL_UMASK),
            nice: exec.nice,
            max_files: exec.max_files,
            log_file: None,
            pid_file: None,
            sockets: Vec::new(),
            is_limited: false,
            mark: None,
        }
    }

    /// A tree for what shall run, and its mark in the recipe where it needs one.
    fn plant(
        &self,
        label: &str,
        run: Option<Run>,
        recipe: &mut Recipe,
    ) -> Result<Tree, SpawnError> {
        let mark =
            self.marks.map(|marks| run.map_or_else(|| marks.of_command(), |run| marks.of_run(run)));
        let Some(cgroups) = &self.cgroups else {
            recipe.mark = mark;
            let tree = TreeId(mark.unwrap_or_else(random));
            return Ok(Tree::Marked(tree, self.census.clone()));
        };
        // Two daemons in a row may have the same number.
        let name = format!("{label}-{:016x}", random());
        let group = cgroups.create(&name);
        let group = group.map(|group| Tree::Cgroup(Box::new(group)));
        group.map_err(|io| failure(SpawnStage::Cgroup, &name, reason(&io)))
    }

    /// Makes a process in a tree that waits to become the command. It ends with this daemon until its
    /// record is written and it is let go, whatever comes in between.
    fn begin(
        &self,
        recipe: &Recipe,
        output: BorrowedFd<'_>,
        tree: &Tree,
    ) -> Result<Waiting, SpawnError> {
        let group = match tree {
            Tree::Cgroup(group) => Some(group),
            Tree::Marked(..) => None,
        };
        let waiting = self.launcher.begin(recipe, output, group.map(|group| group.directory()))?;
        tree.set_main(waiting.pid, waiting.start);
        if let Some(group) = group
            && !waiting.in_cgroup
        {
            let error = |io| failure(SpawnStage::Cgroup, group.below_mount(), reason(&io));
            group.take_in(waiting.pid).map_err(error)?;
        }
        Ok(waiting)
    }

    /// Writes down by what the processes of a run are found again. A run that cannot be written
    /// down runs all the same: its mark or control group still tells whose it is.
    fn keep(
        &self,
        (instance, run, slot): (&InstanceId, Run, Slot),
        waiting: &mut Waiting,
        mark: Option<u64>,
        tree: &Tree,
    ) {
        let record = RunRecord {
            instance: instance.clone(),
            run,
            slot,
            pid: waiting.pid,
            start: waiting.start,
            mark,
            group: tree.group_name().map(str::to_owned),
        };
        waiting.use_reserve();
        match self.runs_kept.record(&record) {
            Ok(()) => self.told_unkept.store(false, Ordering::Relaxed),
            Err(error) if !self.told_unkept.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    "{instance}: its run cannot be written down ({}): a daemon that is killed now \
                     ends it when it comes back",
                    reason(&error)
                );
            }
            Err(_) => {}
        }
    }

    fn route(&self, exec: &ExecSpec) -> Route {
        Route::of(exec, self.journal.is_some())
    }

    fn shown(&self, instance: &InstanceId, instances: u32) -> Shown {
        let mut shown = lock(&self.shown);
        let new = || {
            let name = match instances {
                1 => instance.process.to_string(),
                _ => instance.to_string(),
            };
            Shown { ring: Arc::default(), prefix: self.console.prefix(name) }
        };
        shown.entry(instance.clone()).or_insert_with(new).clone()
    }

    /// Opens the log file as the user whose it is; parts of it are shown by a program.
    fn open_log_file(
        self: &Arc<Inner>,
        instance: &InstanceId,
        path: &str,
        exec: &ExecSpec,
        request: LogRequest,
    ) -> io::Result<OwnedFd> {
        let identity = self.identities.find_now(exec);
        let identity = identity.map_err(|error| io::Error::other(error.to_string()))?;
        let file = output::open_log_file(&identity, path)?;
        if request == LogRequest::default() {
            return Ok(file.into());
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (inner, instance, path) = (self.clone(), instance.clone(), PathBuf::from(path));
        tokio::spawn(async move {
            sink::show(&inner, &instance, identity, path, request, write).await;
        });
        Ok(read)
    }
}

impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        "native"
    }

    fn recover(
        &self,
        known: Vec<Kept>,
        stored: HashMap<(InstanceId, Run), OwnedFd>,
    ) -> RecoverFuture {
        let inner = self.inner.clone();
        Box::pin(async move { adopt::recover(&inner, known, stored).await })
    }

    fn drained(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let mut pumps = inner.pumps.subscribe();
            // An error means that the sender is gone, and it is ours.
            let _ = pumps.wait_for(|reading| *reading == 0).await;
            inner.console.flush().await;
        })
    }

    fn spawn(
        &self,
        instance: &InstanceId,
        run: Run,
        slot: Slot,
        _: Generation,
        spec: &Arc<ProcessSpec>,
    ) {
        let handle = Arc::new(Handle::new(instance.clone(), run, slot));
        lock(&self.inner.runs).insert((instance.clone(), run), handle.clone());
        self.inner.starts.push(run::live(self.inner.clone(), handle, spec.clone()));
    }

    fn prepare(&self) {
        self.inner.starts.prepare_first();
    }

    fn begin(&self) {
        self.inner.starts.begin_first();
    }

    fn terminate(&self, instance: &InstanceId, run: Run, stop: &StopSpec) {
        if let Some(handle) = self.handle(instance, run) {
            handle.terminate(stop.signal);
        }
    }

    fn kill(&self, instance: &InstanceId, run: Run) {
        if let Some(handle) = self.handle(instance, run) {
            handle.kill();
        }
    }

    fn signal(&self, instance: &InstanceId, run: Run, signal: Signal, whom: Whom) {
        if let Some(handle) = self.handle(instance, run) {
            handle.signal(signal, whom);
        }
    }

    fn limit(&self, instance: &InstanceId, run: Run, spec: &Arc<ProcessSpec>) {
        if let Some(handle) = self.handle(instance, run) {
            handle.limit(&spec.limits);
        }
    }

    fn unenforced(&self, instance: &InstanceId, run: Run, limits: &Limits) -> Vec<Limit> {
        let tree = self.handle(instance, run).and_then(|handle| handle.tree());
        tree.map(|tree| held::unenforced(tree.directory(), limits)).unwrap_or_default()
    }

    fn enforceable(&self) -> BTreeSet<Limit> {
        let groups = self.inner.cgroups.as_ref();
        groups.map(|groups| groups.enforceable().clone()).unwrap_or_default()
    }

    fn usage(&self, instance: &InstanceId, run: Run) -> Option<Usage> {
        Some(self.handle(instance, run)?.tree()?.usage())
    }

    fn control_group(&self, instance: &InstanceId, run: Run) -> Option<String> {
        match &*self.handle(instance, run)?.tree()? {
            Tree::Cgroup(group) => Some(group.below_mount().to_owned()),
            Tree::Marked(..) => None,
        }
    }

    fn pidfd(&self, instance: &InstanceId, run: Run) -> Option<OwnedFd> {
        self.handle(instance, run)?.pidfd()?.try_clone().ok()
    }

    fn run_of(&self, pid: u32) -> Option<(InstanceId, Run)> {
        self.inner.run_of(pid)
    }

    fn run_in_context(
        &self,
        instance: &InstanceId,
        spec: &Arc<ProcessSpec>,
        beside: Beside,
        argv: Vec<Rendered>,
        timeout: Duration,
    ) -> CommandFuture {
        let wanted = command::Wanted { spec: spec.clone(), beside, argv, timeout };
        command::run(self.inner.clone(), instance.clone(), wanted)
    }

    fn command_output(&self, instance: &InstanceId, purpose: Purpose) -> Option<Arc<str>> {
        lock(&self.inner.commands).get(&(instance.clone(), purpose))?.printed()
    }

    fn open_log(
        &self,
        instance: &InstanceId,
        spec: &Arc<ProcessSpec>,
        request: LogRequest,
    ) -> Option<io::Result<OwnedFd>> {
        match (self.inner.route(&spec.exec), &spec.exec.log_file) {
            (Route::File | Route::Sink { .. }, Some(path)) => {
                let path = path.render(instance.index);
                Some(self.inner.open_log_file(instance, &path, &spec.exec, request))
            }
            (Route::Console, _) => {
                Some(self.inner.shown(instance, spec.instances).ring.open(request))
            }
            _ => None,
        }
    }

    fn sockets(&self) -> &Arc<Sockets> {
        &self.inner.sockets
    }

    fn hold(&self) -> HoldFuture {
        let inner = self.inner.clone();
        Box::pin(async move { hold::hold(&inner).await })
    }

    fn go_on(&self) {
        hold::go_on(&self.inner);
    }

    fn take_over(&self, handed: Vec<(String, OwnedFd)>) {
        *lock(&self.inner.handed) = handed;
    }

    fn forget(&self, instance: &InstanceId) {
        lock(&self.inner.shown).remove(instance);
        for purpose in Purpose::ALL {
            lock(&self.inner.commands).remove(&(instance.clone(), purpose));
        }
    }
}

/// Nothing panics while it holds one of these, and each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
