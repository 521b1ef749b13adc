//! The life of a run: started, running, its main process gone, empty.

use super::adopt::{Adopted, is_waiting};
use super::identity::Identity;
use super::launch::{cancelled, reason};
use super::output::{Connection, Output, Route, connect};
use super::reaper::Exit;
use super::sink::LAST_LINES;
use super::tree::Tree;
use super::{Inner, hold, lock};
use crate::backend::{Facts, held, notices};
use crate::core::event::{Event, ExitStatus, SpawnError, SpawnStage, Whom};
use crate::core::ids::{InstanceId, Run, Slot};
use crate::core::limits::Limits;
use crate::core::spec::{ProcessSpec, Rendered, Signal, Text};
use crate::net::Network;
use crate::store::runs::RunRecord;
use crate::sys::pidfd::exit_status;
use crate::sys::signal::{gone, send};
use futures_util::future::join_all;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

const CONT: Signal = Signal(18);

/// What fails for want of something, such as descriptors, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Tries until it succeeds: whoever took a failure for the end of something would start another one
/// beside it.
async fn insist<F: Future<Output = io::Result<()>>>(
    name: &InstanceId,
    failing: &str,
    mut attempt: impl FnMut() -> F,
) {
    let mut told = false;
    while let Err(error) = attempt().await {
        if !std::mem::replace(&mut told, true) {
            tracing::error!("{name}: {failing}: {}; trying again", reason(&error));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn nothing_left(name: &InstanceId, tree: &Tree) {
    insist(name, "cannot tell whether anything is left of it", || tree.emptied()).await;
}

/// What the backend holds of a run, and by what others act on it.
pub struct Handle {
    instance: InstanceId,
    run: Run,
    slot: Slot,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// A signal that came before there was a command to get it.
    ending: Option<Signal>,
    /// Somebody is killing it until nothing is left.
    killing: bool,
    /// Limits that came before there was a command to hold to them.
    limits: Option<Box<Limits>>,
}

enum Phase {
    /// There is no process yet.
    Preparing,
    /// Somebody wanted it to end before there was a process.
    Cancelled,
    /// There is a process, which has not become the command yet.
    Starting(Child),
    /// The command runs.
    Running(Child),
    /// The main process is gone.
    Left(Arc<Tree>),
    /// Nothing is left.
    Over,
}

#[derive(Clone)]
struct Child {
    pidfd: Arc<OwnedFd>,
    tree: Arc<Tree>,
}

impl Handle {
    /// A run that was asked for.
    #[must_use]
    pub fn new(instance: InstanceId, run: Run, slot: Slot) -> Handle {
        let state = State { phase: Phase::Preparing, ending: None, killing: false, limits: None };
        Handle { instance, run, slot, state: Mutex::new(state) }
    }

    /// Which it is.
    #[must_use]
    pub fn key(&self) -> (InstanceId, Run) {
        (self.instance.clone(), self.run)
    }

    /// Whether its main process has not ended.
    #[must_use]
    pub fn main_is_alive(&self) -> bool {
        match &lock(&self.state).phase {
            Phase::Starting(child) | Phase::Running(child) => !has_ended(&child.pidfd),
            _ => false,
        }
    }

    /// Takes over what another daemon had started.
    pub(super) fn adopt(&self, adopted: &Adopted) {
        let tree = adopted.tree.clone();
        lock(&self.state).phase = match &adopted.main {
            Some(pidfd) => Phase::Running(Child { pidfd: pidfd.clone(), tree }),
            None => Phase::Left(tree),
        };
    }

    /// Asks it to end.
    pub fn terminate(&self, signal: Signal) {
        let mut state = lock(&self.state);
        match &state.phase {
            Phase::Preparing => state.phase = Phase::Cancelled,
            Phase::Starting(_) => state.ending = Some(signal),
            Phase::Running(child) => self.end_by(signal, &child.pidfd),
            Phase::Left(tree) => self.signal_all(signal, tree.clone()),
            Phase::Cancelled | Phase::Over => {}
        }
    }

    /// A process that is stopped would not see the signal: it is woken up for it.
    fn end_by(&self, signal: Signal, pidfd: &OwnedFd) {
        self.complain(send(pidfd, signal).and_then(|()| send(pidfd, CONT)));
    }

    fn signal_all(&self, signal: Signal, tree: Arc<Tree>) {
        let name = self.instance.clone();
        tokio::spawn(async move {
            if let Err(error) = tree.signal(signal).await {
                tracing::warn!("{name}: sending {signal}: {error}");
            }
        });
    }

    fn complain(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("{}: sending a signal: {error}", self.instance);
        }
    }

    /// Kills all of it until nothing is left.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        let tree = match &state.phase {
            Phase::Preparing => {
                state.phase = Phase::Cancelled;
                return;
            }
            Phase::Starting(child) | Phase::Running(child) => child.tree.clone(),
            Phase::Left(tree) => tree.clone(),
            Phase::Cancelled | Phase::Over => return,
        };
        if !std::mem::replace(&mut state.killing, true) {
            let name = self.instance.clone();
            tokio::spawn(async move { insist(&name, "killing it", || tree.kill()).await });
        }
    }

    /// Holds it to other limits.
    pub fn limit(&self, limits: &Limits) {
        let mut state = lock(&self.state);
        let tree = match &state.phase {
            // A process that has not executed its command may be in the daemon's memory: for want of its
            // own the daemon would be killed with it.
            Phase::Preparing | Phase::Starting(_) => {
                state.limits = Some(Box::new(limits.clone()));
                return;
            }
            Phase::Running(child) => child.tree.clone(),
            Phase::Left(tree) => tree.clone(),
            Phase::Cancelled | Phase::Over => return,
        };
        drop(state);
        hold_to(&self.instance, &tree, limits);
    }

    /// An end as it is to be told.
    fn told(&self, status: ExitStatus, tree: &Tree) -> ExitStatus {
        let is_ours = lock(&self.state).killing;
        held::told(status, || !is_ours && tree.was_out_of_memory())
    }

    /// Sends a signal to what runs.
    pub fn signal(&self, signal: Signal, whom: Whom) {
        match (&lock(&self.state).phase, whom) {
            (Phase::Running(child), Whom::Main) => self.complain(send(&child.pidfd, signal)),
            (Phase::Running(Child { tree, .. }) | Phase::Left(tree), Whom::All) => {
                self.signal_all(signal, tree.clone());
            }
            _ => {}
        }
    }

    /// Its tree, where there is one.
    #[must_use]
    pub fn tree(&self) -> Option<Arc<Tree>> {
        match &lock(&self.state).phase {
            Phase::Starting(child) | Phase::Running(child) => Some(child.tree.clone()),
            Phase::Left(tree) => Some(tree.clone()),
            Phase::Preparing | Phase::Cancelled | Phase::Over => None,
        }
    }

    /// Whether somebody wanted it to end while it had a process that was not its command.
    fn is_to_end(&self) -> bool {
        let state = lock(&self.state);
        state.ending.is_some() || state.killing
    }

    /// Whether it has a process that has not become its command.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Starting(_))
    }

    /// Its main process, while there is one.
    #[must_use]
    pub fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        match &lock(&self.state).phase {
            Phase::Running(child) => Some(child.pidfd.clone()),
            _ => None,
        }
    }
}

/// What a run that was started is waited for with.
struct Started {
    pid: u32,
    exit: Exit,
    tree: Arc<Tree>,
    rest: Rest,
}

/// What is to be done when nothing is left of a run.
struct Rest {
    /// Boxed, as few have one.
    pid_file: Option<Box<PidFile>>,
    /// Comes when the last of its lines is in the log.
    logged: Option<oneshot::Receiver<()>>,
}

struct PidFile {
    path: Rendered,
    pid: u32,
    identity: Identity,
}

/// Carries out one run and reports what happens. What it needs a lot of room for a moment for is apart:
/// the rest is there for as long as the run.
pub(super) async fn live(inner: Arc<Inner>, handle: Arc<Handle>, spec: Arc<ProcessSpec>) {
    let started = Box::pin(begin(&inner, &handle, spec)).await;
    let Some(Started { pid, exit, tree, rest }) = started else { return };
    // The table that holds the other end outlives all runs.
    let exit = watched(&handle, &tree, &inner.facts, exit);
    let status = exit.await.unwrap_or(ExitStatus::Unknown);
    left(&inner, &handle, &tree, pid, status);
    Box::pin(emptied(&inner, &handle, tree, rest)).await;
}

/// Starts it and reports that, or why it could not be.
async fn begin(
    inner: &Arc<Inner>,
    handle: &Arc<Handle>,
    spec: Arc<ProcessSpec>,
) -> Option<Started> {
    let starting = inner.holding.may_start().await;
    let started = start(inner, handle, &spec).await;
    drop(starting);
    let (instance, run) = handle.key();
    let (started, pidfd) = match started {
        Ok(started) => started,
        Err(error) => {
            over(inner, handle);
            report(inner, Event::SpawnFailed { instance, run, error });
            return None;
        }
    };
    report(inner, Event::Spawned { instance, run, pid: started.pid });
    let mut state = lock(&handle.state);
    if let Some(signal) = state.ending.take() {
        handle.end_by(signal, &pidfd);
    }
    state.phase = Phase::Running(Child { pidfd, tree: started.tree.clone() });
    if let Some(limits) = state.limits.take() {
        hold_to(&handle.instance, &started.tree, &limits);
    }
    drop(state);
    Some(started)
}

fn report(inner: &Inner, event: Event) {
    // Nobody listens any more when the daemon ends.
    let _ = inner.facts.send(event);
}

/// Its main process has ended.
fn left(inner: &Inner, handle: &Arc<Handle>, tree: &Arc<Tree>, pid: u32, status: ExitStatus) {
    inner.unhear(pid, handle);
    let status = handle.told(status, tree);
    lock(&handle.state).phase = Phase::Left(tree.clone());
    let (instance, run) = handle.key();
    report(inner, Event::Exited { instance, run, status });
}

/// Waits until nothing is left of it, and reports that.
async fn emptied(inner: &Inner, handle: &Handle, tree: Arc<Tree>, rest: Rest) {
    nothing_left(&handle.instance, &tree).await;
    if let Some(pid_file) = rest.pid_file {
        pid_file.remove().await;
    }
    if let Some(logged) = rest.logged {
        // Whoever stops it finds what it said at its end. A process that left the tree may hold the
        // pipe for ever, and a journal may take nothing.
        let _ = tokio::time::timeout(LAST_LINES, logged).await;
    }
    over(inner, handle);
    // With it goes the control group.
    drop(tree);
    let (instance, run) = handle.key();
    report(inner, Event::Emptied { instance, run });
}

/// There is nothing any more to act on.
fn over(inner: &Inner, handle: &Handle) {
    lock(&inner.runs).remove(&handle.key());
    inner.sockets.over(&handle.instance, handle.slot);
    lock(&handle.state).phase = Phase::Over;
}

/// Goes on with one run of another daemon, and reports what happens.
pub(super) async fn live_on(
    inner: Arc<Inner>,
    handle: Arc<Handle>,
    spec: Arc<ProcessSpec>,
    adopted: Adopted,
    logged: Vec<oneshot::Receiver<()>>,
) {
    let Adopted { main, tree, record, exit } = adopted;
    if spec.limits.given().next().is_some() {
        // The daemon before may have been killed between writing a change down and carrying it out.
        hold_to(&handle.instance, &tree, &spec.limits);
    }
    match main {
        None => {
            let (instance, run) = handle.key();
            report(&inner, Event::Exited { instance, run, status: ExitStatus::Unknown });
        }
        Some(pidfd) => {
            if Box::pin(becomes_command(&pidfd, &record)).await {
                // Where the machine knows that already it changes nothing.
                let (instance, run) = handle.key();
                report(&inner, Event::Spawned { instance, run, pid: record.pid });
            }
            let end = async {
                match exit {
                    Some(exit) => exit.await.unwrap_or(ExitStatus::Unknown),
                    None => Box::pin(ended(&pidfd, &record)).await,
                }
            };
            let status = watched(&handle, &tree, &inner.facts, end).await;
            left(&inner, &handle, &tree, record.pid, status);
        }
    }
    let left = async {
        nothing_left(&handle.instance, &tree).await;
        remove_pid_file(&inner, &record, &spec).await;
        let _ = tokio::time::timeout(LAST_LINES, join_all(logged)).await;
    };
    Box::pin(left).await;
    over(&inner, &handle);
    drop(tree);
    let (instance, run) = handle.key();
    report(&inner, Event::Emptied { instance, run });
}

/// Removes what a run of another daemon has left that ended while there was none.
pub(super) fn tidy(inner: &Arc<Inner>, record: &RunRecord, spec: &Arc<ProcessSpec>) {
    if spec.exec.pid_file.is_some() {
        let (inner, record, spec) = (inner.clone(), record.clone(), spec.clone());
        tokio::spawn(async move { remove_pid_file(&inner, &record, &spec).await });
    }
}

async fn remove_pid_file(inner: &Inner, record: &RunRecord, spec: &ProcessSpec) {
    let index = record.instance.index;
    let path = spec.exec.pid_file.as_ref().map(|path| path.rendered(index));
    if let (Some(path), Ok(identity)) = (path, inner.identity(&spec.exec).await) {
        PidFile { path, pid: record.pid, identity }.remove().await;
    }
}

/// Whether a process that may still be waiting becomes its command. It was let go, or sees that its
/// daemon is gone and ends: both are soon.
async fn becomes_command(pidfd: &OwnedFd, record: &RunRecord) -> bool {
    const LOOK_AGAIN: Duration = Duration::from_millis(5);
    while is_waiting(record) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // The number may be another's by now; the descriptor is not.
    !has_ended(pidfd)
}

/// Whether the process has ended, as far as the kernel answers at all.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = rustix::event::Timespec::default();
    let mut state = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    !rustix::event::poll(&mut state, Some(&now)).is_ok_and(|ready| ready == 0)
}

/// Waits for the end of a process that is no child, and finds out how it ended.
async fn ended(pidfd: &Arc<OwnedFd>, record: &RunRecord) -> ExitStatus {
    /// Whoever inherits orphans reaps them at once; one that does not says nothing.
    const REAPED: Duration = Duration::from_secs(5);
    let name = &record.instance;
    insist(name, "cannot wait for its end", || gone(pidfd.clone())).await;
    let (pidfd, pid, start) = (pidfd.clone(), record.pid, record.start);
    let asked = tokio::task::spawn_blocking(move || exit_status(&pidfd, pid, start, REAPED));
    asked.await.unwrap_or(ExitStatus::Unknown)
}

async fn start(
    inner: &Arc<Inner>,
    handle: &Arc<Handle>,
    spec: &Arc<ProcessSpec>,
) -> Result<(Started, Arc<OwnedFd>), SpawnError> {
    let (instance, exec) = (&handle.instance, &spec.exec);
    let path = |path: &Option<Text>| path.as_ref().map(|path| path.rendered(instance.index));
    let identity = inner.identity(exec).await?;
    let argv = exec.command.argv(instance.index);
    let sockets = inner.sockets.of_run(instance, handle.slot, exec, &identity, &Network::Own);
    let sockets = sockets.await?;
    let mut recipe = inner.recipe(instance, exec, argv, identity);
    recipe.take_sockets(sockets);
    let route = inner.route(exec);
    let connection = Connection {
        route,
        instance,
        slot: handle.slot,
        log_file: path(&exec.log_file),
        rotation: exec.log_rotation,
        identity: &recipe.identity,
        umask: recipe.umask,
    };
    let output = connect(inner, connection).await?;
    recipe.log_file = path(&exec.log_file).filter(|_| route == Route::File);
    recipe.pid_file = path(&exec.pid_file);
    recipe.env.extend(notices::variables(inner.notices.as_deref(), spec)?);
    let tree = Arc::new(inner.plant(&instance.to_string(), Some(handle.run), &mut recipe)?);

    let mut waiting = {
        let mut state = lock(&handle.state);
        if let Phase::Cancelled = state.phase {
            return Err(cancelled());
        }
        let changed = state.limits.take();
        let limits = changed.as_deref().unwrap_or(&spec.limits);
        // A new group has none.
        recipe.is_limited = limits.given().next().is_some();
        if recipe.is_limited {
            hold_to(instance, &tree, limits);
        }
        let null = inner.launcher.null();
        let waiting = inner.begin(&recipe, output.for_process(null), &tree)?;
        state.phase = Phase::Starting(Child { pidfd: waiting.pidfd.clone(), tree: tree.clone() });
        waiting
    };
    inner.starts.written().await;
    if handle.is_to_end() {
        // Nobody has let it go: it never becomes its command.
        waiting.give_up();
        let _ = waiting.exit.await;
        return Err(cancelled());
    }
    inner.keep((instance, handle.run, handle.slot), &mut waiting, recipe.mark, &tree);
    inner.hear(waiting.pid, handle, spec);
    // What of it is ours must not stay open.
    let logged = match output {
        Output::Null | Output::Held(_) => None,
        Output::Written(written) => Some(written.done),
        Output::Read { read, .. } => {
            hold::read(inner, instance, inner.shown(instance, spec.instances), read.into());
            None
        }
    };
    let pid_file = recipe.pid_file.clone();
    let pid_file = pid_file.map(|path| {
        Box::new(PidFile { path, pid: waiting.pid, identity: recipe.identity.clone() })
    });
    if let Err(error) = waiting.go(&recipe).await {
        // Reported only when nothing of it exists any more.
        let _ = waiting.exit.await;
        inner.unhear(waiting.pid, handle);
        if let Some(pid_file) = pid_file.filter(|_| error.stage >= SpawnStage::PidFile) {
            pid_file.remove().await;
        }
        return Err(error);
    }
    let rest = Rest { pid_file, logged };
    Ok((Started { pid: waiting.pid, exit: waiting.exit, tree, rest }, waiting.pidfd))
}

/// Waits for the end of a main process, and reports meanwhile that the run uses too much memory.
async fn watched<T>(
    handle: &Handle,
    tree: &Tree,
    facts: &Facts,
    end: impl Future<Output = T>,
) -> T {
    // Without a group nobody tells of it.
    if tree.directory().is_none() {
        return end.await;
    }
    tokio::pin!(end);
    loop {
        let outgrown = Box::pin(tree.outgrown());
        tokio::select! {
            biased;
            end = &mut end => return end,
            used = outgrown => {
                let (instance, run) = (handle.instance.clone(), handle.run);
                tree.relieve();
                let _ = facts.send(Event::Outgrown { instance, run, used });
            }
        }
    }
}

/// Holds a run to limits, and says which of them do not hold.
fn hold_to(instance: &InstanceId, tree: &Tree, limits: &Limits) {
    if let Err(error) = tree.limit(limits) {
        tracing::warn!("{instance}: setting its limits: {}", reason(&error));
    }
    held::complain(instance, tree.directory(), limits);
}

impl PidFile {
    /// Removes the file as the user, if it is still the one that was written.
    async fn remove(self) {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || {
            self.identity.run(|| {
                let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
                let mut options = std::fs::OpenOptions::new();
                let file = options.read(true).custom_flags(flags).open(self.path.value())?;
                let mut text = String::new();
                const LONGEST_PID: u64 = 12;
                file.take(LONGEST_PID).read_to_string(&mut text)?;
                match text.trim_end() == self.pid.to_string() {
                    true => std::fs::remove_file(self.path.value()),
                    false => Ok(()),
                }
            })
        });
        match removed.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("removing the pid file {path}: {}", reason(&error));
            }
            _ => {}
        }
    }
}
