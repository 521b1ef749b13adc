//! The life of a run: started, running, its main process gone, empty, unloaded.
//!
//! One task does everything for a run, one thing after the other, so that nothing that was meant
//! for a run is done to the unit of the next one.

use super::explain::Attempt;
use super::log::{self, Connected, Pipe};
use super::manager::{CallError, MainChange, Manager, Observed, UnitEvent, Watch};
use super::pid_file::PidFile;
use super::status::{OF_SYSTEMD, exit_status};
use super::unit::{Life, Program, Properties, SERVICE};
use super::{Handover, Inner, bad_variable, lock};
use crate::backend::group::Watched;
use crate::backend::native::cgroup::directory_of;
use crate::backend::native::identity::Identity;
use crate::backend::native::launch::{failure, reason};
use crate::backend::native::sink::LAST_LINES;
use crate::core::event::{Event, ExitStatus, SpawnError, SpawnStage, Whom};
use crate::core::ids::{Generation, InstanceId, Run};
use crate::core::spec::{ExecSpec, ProcessSpec, Rendered, Signal, Text};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};

const CONT: Signal = Signal(18);

/// What is killed and still there is killed again after so long: something may have forked.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// What fails for want of something, such as descriptors, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Whoever has this has the unit of an instance. In it is the main process of the last run: what is
/// still told of that one is not of the next.
pub(super) type Gate = Arc<tokio::sync::Mutex<Option<u32>>>;

/// What is wanted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To end, by this signal.
    Terminate(Signal),
    /// To end, until nothing is left.
    Kill,
    /// To get a signal.
    Signal(Signal, Whom),
}

/// The orders for a run.
pub(super) type Orders = mpsc::UnboundedReceiver<Order>;

/// What the backend holds of a run.
pub(super) struct Handle {
    pub instance: InstanceId,
    pub run: Run,
    orders: mpsc::UnboundedSender<Order>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    main: Option<Arc<OwnedFd>>,
    group: Option<Arc<Group>>,
}

/// The control group of a run.
struct Group {
    name: String,
    watched: Arc<Watched>,
}

impl Handle {
    pub(super) fn new(instance: InstanceId, run: Run) -> (Handle, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Handle { instance, run, orders: sender, seen: Mutex::default() }, orders)
    }

    pub(super) fn order(&self, order: Order) {
        // A run that is over takes none.
        let _ = self.orders.send(order);
    }

    pub(super) fn group(&self) -> Option<Arc<Watched>> {
        Some(lock(&self.seen).group.as_ref()?.watched.clone())
    }

    pub(super) fn control_group(&self) -> Option<String> {
        Some(lock(&self.seen).group.as_ref()?.name.clone())
    }

    pub(super) fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.seen).main.clone()
    }
}

/// A unit in which a run is.
pub(super) struct Placed {
    pub unit: String,
    pub watch: Watch,
    pub main: MainChange,
    pub pid_file: Option<PidFile>,
    /// Comes when the last of its lines is in the log.
    pub logged: Option<oneshot::Receiver<()>>,
    pub gate: OwnedMutexGuard<Option<u32>>,
}

impl Inner {
    pub(super) fn gate(&self, instance: &InstanceId) -> Gate {
        lock(&self.gates).entry(instance.clone()).or_default().clone()
    }

    fn report(&self, event: Event) {
        // Nobody listens any more when the daemon ends.
        let _ = self.facts.send(event);
    }

    fn over(&self, handle: &Handle) {
        lock(&self.runs).remove(&(handle.instance.clone(), handle.run));
        *lock(&handle.seen) = Seen::default();
    }
}

/// What is to run.
pub(super) struct Asked {
    pub generation: Generation,
    pub spec: Arc<ProcessSpec>,
}

/// Carries out one run and reports what happens.
pub(super) async fn live(inner: Arc<Inner>, handle: Arc<Handle>, asked: Asked, mut orders: Orders) {
    let prepared = tokio::select! {
        // Whoever has asked already comes first.
        biased;
        () = stopped(&mut orders) => Err(stopped_before()),
        prepared = prepare(&inner, &handle, &asked) => prepared,
    };
    let placed = match prepared {
        Ok(prepared) => start(&inner, &handle, prepared, &mut orders).await,
        Err(error) => Err(error),
    };
    match placed {
        Ok((placed, pid)) => {
            let (instance, run) = (handle.instance.clone(), handle.run);
            inner.report(Event::Spawned { instance, run, pid });
            follow(&inner, &handle, placed, orders).await;
        }
        Err(error) => {
            inner.over(&handle);
            let (instance, run) = (handle.instance.clone(), handle.run);
            inner.report(Event::SpawnFailed { instance, run, error });
        }
    }
}

/// Returns when it shall end.
async fn stopped(orders: &mut Orders) {
    loop {
        match orders.recv().await {
            Some(Order::Terminate(_) | Order::Kill) => return,
            // There is nobody yet to get a signal.
            Some(Order::Signal(..)) => {}
            None => std::future::pending().await,
        }
    }
}

fn stopped_before() -> SpawnError {
    failure(SpawnStage::Fork, "", "it was stopped before it was started".to_owned())
}

/// All that is needed to start.
struct Prepared {
    attempt: Attempt,
    properties: Properties,
    /// Not needed any more once the process was started.
    handovers: (Handover, Option<Pipe>),
    pid_file: Option<Rendered>,
    logged: Option<oneshot::Receiver<()>>,
    gate: OwnedMutexGuard<Option<u32>>,
}

async fn prepare(
    inner: &Arc<Inner>,
    handle: &Handle,
    Asked { generation, spec }: &Asked,
) -> Result<Prepared, SpawnError> {
    const USUAL_UMASK: u32 = 0o022;
    let (instance, exec) = (&handle.instance, &spec.exec);
    // The unit of the run before may not be unloaded yet.
    let gate = inner.gate(instance).lock_owned().await;
    let identity = inner.identities.find(exec).await?;
    let umask = exec.umask.unwrap_or(USUAL_UMASK);
    let Connected { output, logged, pipe } =
        log::connect(inner, instance, exec, &identity, umask).await?;
    let variables =
        inner.identities.environment(&inner.environment, exec, &identity.record, instance.index);
    let argv = exec.command.argv(instance.index);
    let program = argv.first().cloned().unwrap_or_default();
    if let Some(name) = bad_variable(&variables) {
        let text = format!("systemd takes no environment variable named {name:?}");
        return Err(failure(SpawnStage::Exec, program.shown(), text));
    }
    let unit = inner.names.of(instance);
    let environment = inner.write_environment(&unit, &variables).map_err(|io| {
        let text = format!("writing its environment for systemd: {}", reason(&io));
        failure(SpawnStage::Fork, "", text)
    })?;
    let cwd = exec.cwd.rendered(instance.index);
    let directory = without_steps_up(&identity, &cwd).await?;
    let what = Program {
        argv: &argv,
        path: variables.get("PATH").map_or("", String::as_str),
        cwd: &directory,
        identity: &identity,
        umask,
        nice: exec.nice,
        max_files: exec.max_files,
        environment: Some(&environment.0),
    };
    let description = spec.description.as_deref().or(spec.name.as_deref()).unwrap_or("");
    let description = match description {
        "" => format!("Provost: {instance}"),
        text => format!("Provost: {instance}: {text}"),
    };
    let life = Life {
        instance,
        run: handle.run,
        generation: *generation,
        description: &description,
        stop: (spec.stop.signal, spec.stop.timeout),
        daemon: inner.daemon_unit.as_deref(),
    };
    let mut properties = life.properties();
    properties.extend(what.properties(&output).map_err(|io| log::output_error(&io))?);
    let attempt = Attempt {
        executable: what.executable(),
        search: what.search(),
        unit,
        program,
        path_is_own: exec.env.contains_key("PATH"),
        cwd,
        identity,
        nice: exec.nice,
        max_files: exec.max_files,
    };
    let pid_file = exec.pid_file.as_ref().map(|path| path.rendered(instance.index));
    let handovers = (environment, pipe);
    Ok(Prepared { attempt, properties, handovers, pid_file, logged, gate })
}

/// The directory without `..` in it, which systemd does not take.
async fn without_steps_up(identity: &Identity, cwd: &Rendered) -> Result<String, SpawnError> {
    let has_steps_up = Path::new(cwd.value()).components().any(|part| part == Component::ParentDir);
    if !has_steps_up {
        return Ok(cwd.value().to_owned());
    }
    let (identity, path) = (identity.clone(), cwd.value().to_owned());
    let find = move || identity.run(|| std::fs::canonicalize(path));
    let found = tokio::task::spawn_blocking(find).await;
    let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
    let failed = |io: io::Error| failure(SpawnStage::Cwd, cwd.shown(), reason(&io));
    Ok(found.map_err(failed)?.to_string_lossy().into_owned())
}

/// Starts the unit. Comes back with it and its main process, or when nothing is left of it.
async fn start(
    inner: &Arc<Inner>,
    handle: &Arc<Handle>,
    prepared: Prepared,
    orders: &mut Orders,
) -> Result<(Placed, u32), SpawnError> {
    let Prepared { attempt, properties, handovers, pid_file, logged, gate } = prepared;
    let unit = attempt.unit.clone();
    let manager = &inner.manager;
    let mut placed = Placed {
        watch: manager.watch(&unit),
        unit,
        main: MainChange::default(),
        pid_file: None,
        logged,
        gate,
    };
    let slot = tokio::select! {
        biased;
        () = stopped(orders) => return Err(stopped_before()),
        slot = manager.job_slot() => slot,
    };
    let job = placed.ask(manager, handle.run, &properties).await?;
    // What of the output is ours must not stay open.
    drop(properties);
    let outcome = placed.wait_for_start(manager, job, orders, handle.run).await;
    drop(slot);
    drop(handovers);
    if let Outcome::Failed = outcome {
        let main = placed.main.clone();
        let explained = tokio::task::spawn_blocking(move || attempt.explain(&main)).await;
        placed.unload(manager).await;
        return Err(
            explained.unwrap_or_else(|error| failure(SpawnStage::Fork, "", error.to_string()))
        );
    }
    if let Outcome::Stopped = outcome {
        placed.unload(manager).await;
        return Err(stopped_before());
    }
    let Some(pid) = placed.find_pid(manager).await else {
        placed.unload(manager).await;
        let text = "systemd lost it while it was started".to_owned();
        return Err(failure(SpawnStage::Fork, "", text));
    };
    if let Some(path) = pid_file {
        let file = PidFile { path, pid, identity: attempt.identity };
        if let Err(error) = file.write().await {
            // Like every other step before the command: without it there is no run.
            placed.end(inner, handle).await;
            file.remove().await;
            return Err(error);
        }
        placed.pid_file = Some(file);
    }
    placed.look_into(inner, handle, pid).await;
    Ok((placed, pid))
}

/// What came of a start.
enum Outcome {
    /// The command was executed.
    Executed,
    /// It was not.
    Failed,
    /// It was stopped before that.
    Stopped,
}

impl Placed {
    /// Has systemd start the unit; returns the object of the job where it is known.
    async fn ask(
        &mut self,
        manager: &Manager,
        run: Run,
        properties: &Properties,
    ) -> Result<Option<String>, SpawnError> {
        let mut cleared = false;
        loop {
            match manager.start_transient(&self.unit, properties).await {
                Ok(job) => return Ok(Some(job)),
                // Whether it was carried out shows when it is tried again.
                Err(CallError::Lost) => {}
                Err(error) if error.is_unit_exists() => match self.observe(manager).await {
                    Some(found) if found.run == Some(run) => return Ok(None),
                    // What is left of a run of ours, with nothing in it.
                    Some(found) if found.run.is_some() && !cleared => {
                        cleared = true;
                        self.unload(manager).await;
                    }
                    Some(_) => {
                        let text = "another unit has this name".to_owned();
                        return Err(failure(SpawnStage::Fork, &self.unit, text));
                    }
                    // Just gone.
                    None => {}
                },
                Err(error) => return Err(failure(SpawnStage::Fork, "", error.to_string())),
            }
        }
    }

    async fn wait_for_start(
        &mut self,
        manager: &Manager,
        job: Option<String>,
        orders: &mut Orders,
        run: Run,
    ) -> Outcome {
        let mut is_stopped = false;
        // Where the job is not known it may be over.
        let mut look = job.is_none();
        loop {
            if std::mem::take(&mut look) {
                match self.observe(manager).await.filter(|found| found.run == Some(run)) {
                    None if is_stopped => return Outcome::Stopped,
                    None => return Outcome::Failed,
                    Some(found) => {
                        self.main.absorb(found.main);
                        match (found.has_job, found.state.as_str()) {
                            (true, _) => {}
                            (false, "active" | "reloading") => return Outcome::Executed,
                            (false, "inactive") if is_stopped => return Outcome::Stopped,
                            (false, _) => return Outcome::Failed,
                        }
                    }
                }
            }
            tokio::select! {
                event = self.watch.next() => match event {
                    UnitEvent::Main(change) => self.absorb(change),
                    UnitEvent::JobRemoved { job: of, result } => {
                        if job.as_ref().is_some_and(|job| *job != of) {
                            continue;
                        }
                        return match (result.as_str(), is_stopped) {
                            ("done", _) if job.is_some() => Outcome::Executed,
                            (_, true) => Outcome::Stopped,
                            ("done", false) => { look = true; continue }
                            // Somebody else stopped it, or it failed.
                            _ => Outcome::Failed,
                        };
                    }
                    UnitEvent::Removed | UnitEvent::Look => look = true,
                },
                () = stopped(orders), if !is_stopped => {
                    is_stopped = true;
                    // It takes the place of the job that starts it.
                    self.ask_stop(manager).await;
                }
            }
        }
    }

    /// The same for a start that another daemon has asked for: whether the command was executed.
    pub(super) async fn wait_until_started(
        &mut self,
        inner: &Inner,
        run: Run,
        orders: &mut Orders,
    ) -> bool {
        let outcome = self.wait_for_start(&inner.manager, None, orders, run).await;
        matches!(outcome, Outcome::Executed)
    }

    /// Takes in what was told, unless it is of the run before.
    fn absorb(&mut self, change: MainChange) {
        if change.pid.is_none() || change.pid != *self.gate {
            self.main.absorb(change);
        }
    }

    async fn observe(&self, manager: &Manager) -> Option<Observed> {
        loop {
            match manager.observe(&self.unit).await {
                Ok(found) => return found,
                Err(CallError::Lost) => {}
                Err(error) => {
                    tracing::warn!("{}: {error}; trying again", self.unit);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn find_pid(&mut self, manager: &Manager) -> Option<u32> {
        if self.main.pid.is_none() {
            let found = self.observe(manager).await?;
            self.absorb(found.main);
        }
        self.main.pid
    }

    /// How the main process ended; None while it runs.
    fn status(&self) -> Option<ExitStatus> {
        exit_status(self.main.code.unwrap_or(0), self.main.status.unwrap_or(0))
    }

    /// Gets hold of the main process and of the control group.
    pub(super) async fn look_into(&mut self, inner: &Inner, handle: &Handle, pid: u32) {
        let group = loop {
            match inner.manager.get::<String>(&self.unit, SERVICE, "ControlGroup").await {
                Ok(group) => break group,
                Err(CallError::Lost) => {}
                // The unit is gone, and with it its group.
                Err(_) => break String::new(),
            }
        };
        // A unit that has ended and has nothing in it has no group any more.
        if group.is_empty() {
            return;
        }
        let directory = self.directory(&group).await;
        let watched = loop {
            match inner.groups.watch_foreign(directory.clone()) {
                Ok(watched) => break watched,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => {
                    tracing::error!(
                        "{}: its control group cannot be watched: {}; trying again",
                        self.unit,
                        reason(&error)
                    );
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let watched = Arc::new(watched);
        // The number may be another's by now; whoever is in the group is of this run.
        let main = crate::sys::signal::open(pid).ok().flatten();
        let main = main.filter(|_| watched.pids().contains(&pid)).map(Arc::new);
        *lock(&handle.seen) = Seen { main, group: Some(Arc::new(Group { name: group, watched })) };
    }

    /// Where a group is. Whoever took one that cannot be seen for empty would start another run
    /// beside what is in it.
    async fn directory(&self, group: &str) -> PathBuf {
        let mut told = false;
        loop {
            if let Some(directory) = directory_of(group) {
                return directory;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::error!("{}: its control group {group} is mounted nowhere", self.unit);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn ask_stop(&self, manager: &Manager) -> Option<String> {
        const FROZEN: &str = "frozen";
        loop {
            match manager.stop(&self.unit).await {
                Ok(job) => return job,
                Err(CallError::Lost) => {}
                Err(CallError::Refused { text, .. }) if text.contains(FROZEN) => {
                    if let Err(error) = manager.thaw(&self.unit).await {
                        tracing::warn!("{}: thawing it: {error}", self.unit);
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Err(error) => {
                    tracing::warn!("{}: unloading it: {error}", self.unit);
                    return None;
                }
            }
        }
    }

    /// Lets go of the unit, which has nothing in it any more, or is to be stopped by systemd.
    async fn unload(&mut self, manager: &Manager) {
        let job = self.ask_stop(manager).await;
        self.unloaded(manager, job).await;
    }

    /// Waits until the unit is unloaded. While the machine goes down that is not before the daemon
    /// has ended.
    async fn unloaded(&mut self, manager: &Manager, job: Option<String>) {
        *self.gate = self.main.pid.or(*self.gate);
        while let Some(job) = &job {
            match self.watch.next().await {
                UnitEvent::JobRemoved { job: of, .. } if of == *job => break,
                UnitEvent::Removed | UnitEvent::Look => {
                    if self.observe(manager).await.is_none_or(|found| !found.has_job) {
                        break;
                    }
                }
                UnitEvent::Main(change) => self.main.absorb(change),
                UnitEvent::JobRemoved { .. } => {}
            }
        }
        // What failed stays loaded until somebody has seen it.
        let is_failed = job.is_none() || self.main.status.is_some_and(|s| OF_SYSTEMD.contains(&s));
        while is_failed {
            match manager.reset_failed(&self.unit).await {
                Err(CallError::Lost) => {}
                Err(error) => {
                    tracing::warn!("{}: unloading it: {error}", self.unit);
                    break;
                }
                Ok(()) => break,
            }
        }
    }

    /// Kills all of it, and returns when it is unloaded.
    async fn end(&mut self, inner: &Inner, handle: &Handle) {
        if let Some(pid) = self.main.pid {
            self.look_into(inner, handle, pid).await;
        }
        while let Some(group) = handle.group().filter(|group| group.is_populated()) {
            self.kill(&inner.manager, Whom::All, Signal::KILL).await;
            let _ = tokio::time::timeout(KILL_AGAIN, group.emptied()).await;
        }
        self.unload(&inner.manager).await;
    }

    async fn kill(&self, manager: &Manager, whom: Whom, signal: Signal) {
        let word = match whom {
            Whom::Main => "main",
            Whom::All => "all",
        };
        loop {
            match manager.kill(&self.unit, word, i32::from(signal.0)).await {
                Err(CallError::Lost) => {}
                // There may be nobody any more.
                Err(error) => {
                    tracing::debug!("{}: sending {signal}: {error}", self.unit);
                    return;
                }
                Ok(()) => return,
            }
        }
    }
}

/// Goes on with a unit, and reports what happens, until nothing is left of it.
pub(super) async fn follow(
    inner: &Arc<Inner>,
    handle: &Arc<Handle>,
    mut placed: Placed,
    mut orders: Orders,
) {
    let manager = &inner.manager;
    let (instance, run) = (handle.instance.clone(), handle.run);
    let (mut has_exited, mut is_killing, mut is_gone) = (false, false, false);
    loop {
        let status = placed.status().or(is_gone.then_some(ExitStatus::Unknown));
        if let Some(status) = status.filter(|_| !has_exited) {
            has_exited = true;
            lock(&handle.seen).main = None;
            inner.report(Event::Exited { instance: instance.clone(), run, status });
        }
        let group = handle.group();
        tokio::select! {
            event = placed.watch.next() => match event {
                UnitEvent::Main(change) => placed.absorb(change),
                UnitEvent::Removed | UnitEvent::Look => {
                    match placed.observe(manager).await.filter(|found| found.run == Some(run)) {
                        Some(found) => placed.absorb_own(found.main),
                        None => is_gone = true,
                    }
                }
                UnitEvent::JobRemoved { .. } => {}
            },
            Some(order) = orders.recv() => {
                is_killing |= order == Order::Kill;
                placed.obey(manager, order, has_exited).await;
            }
            () = emptied(group.as_deref()), if has_exited => break,
            () = tokio::time::sleep(KILL_AGAIN), if is_killing => {
                placed.obey(manager, Order::Kill, has_exited).await;
            }
        }
    }
    if let Some(pid_file) = placed.pid_file.take() {
        pid_file.remove().await;
    }
    if let Some(logged) = placed.logged.take() {
        // Whoever stops it finds what it said at its end. A process that left the tree may hold the
        // pipe for ever, and a journal may take nothing.
        let _ = tokio::time::timeout(LAST_LINES, logged).await;
    }
    // Asked for before anybody hears that it is over, because the daemon may end then; not waited
    // for, because that may take until the daemon has ended.
    let job = placed.ask_stop(manager).await;
    inner.over(handle);
    inner.report(Event::Emptied { instance, run });
    placed.unloaded(manager, job).await;
}

async fn emptied(group: Option<&Watched>) {
    if let Some(group) = group {
        group.emptied().await;
    }
}

impl Placed {
    /// What was seen of the unit that is certainly the one of this run.
    fn absorb_own(&mut self, main: MainChange) {
        self.main.absorb(main);
    }

    async fn obey(&self, manager: &Manager, order: Order, has_exited: bool) {
        match (order, has_exited) {
            (Order::Terminate(signal), false) => {
                self.kill(manager, Whom::Main, signal).await;
                // A process that is stopped would not see the signal: it is woken up for it.
                self.kill(manager, Whom::Main, CONT).await;
            }
            (Order::Terminate(signal), true) => self.kill(manager, Whom::All, signal).await,
            (Order::Kill, _) => self.kill(manager, Whom::All, Signal::KILL).await,
            (Order::Signal(_, Whom::Main), true) => {}
            (Order::Signal(signal, whom), _) => self.kill(manager, whom, signal).await,
        }
    }
}

/// The pid file of a run that another daemon has started.
pub(super) fn pid_file_of(exec: &ExecSpec, index: u32) -> Option<Rendered> {
    exec.pid_file.as_ref().map(|path: &Text| path.rendered(index))
}
