//! The life of a run: started, running, its main process gone, empty, unloaded.
//!
//! One task does everything for a run, one thing after the other, so that nothing that was meant
//! for a run is done to the unit of the next one.

use super::explain::Attempt;
use super::log::{self, Connected, Pipe};
use super::manager::{MainChange, UnitEvent};
use super::pid_file::PidFile;
use super::placed::{Outcome, Placed};
use super::resources;
use super::unit::{CANNOT_PASS, Life, Program, Properties, passing_sockets};
use super::{Handover, Inner, bad_variable, lock};
use crate::backend::group::Watched;
use crate::backend::held;
use crate::backend::native::identity::{Identity, Need};
use crate::backend::native::launch::{cancelled, failure, reason};
use crate::backend::native::sink::LAST_LINES;
use crate::backend::notices;
use crate::backend::sockets::{Passed, take_out_variables};
use crate::core::event::{Event, ExitStatus, SpawnError, SpawnStage, Whom};
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::limits::Limits;
use crate::core::spec::{ExecSpec, ProcessSpec, Rendered, Signal, Text};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, oneshot, watch};

/// What is killed and still there is killed again after so long: something may have forked.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(1);

/// Whoever has this has the unit of an instance in a slot. In it is the main process of the last run:
/// what is still told of that one is not of the next.
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
    pub slot: Slot,
    orders: mpsc::UnboundedSender<Order>,
    /// What it is to be held to.
    limits: watch::Sender<Limits>,
    seen: Mutex<Seen>,
    /// The unit is this run's: systemd was asked for it, or has it.
    has_unit: AtomicBool,
    /// How it has ended is written down.
    end_kept: Notify,
}

#[derive(Default)]
struct Seen {
    main: Option<Arc<OwnedFd>>,
    group: Option<Arc<Group>>,
}

/// The control group of a run.
pub(super) struct Group {
    pub name: String,
    pub watched: Arc<Watched>,
}

impl Handle {
    pub(super) fn new(
        instance: InstanceId,
        run: Run,
        slot: Slot,
        limits: &Limits,
    ) -> (Handle, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        let limits = watch::Sender::new(limits.clone());
        let (seen, has_unit) = (Mutex::default(), AtomicBool::new(false));
        let end_kept = Notify::new();
        let handle =
            Handle { instance, run, slot, orders: sender, limits, seen, has_unit, end_kept };
        (handle, orders)
    }

    /// How it has ended is written down.
    pub(super) fn end_is_kept(&self) {
        self.end_kept.notify_one();
    }

    /// Holds it to other limits.
    pub(super) fn limit(&self, limits: &Limits) {
        self.limits.send_if_modified(|now| {
            let differs = now != limits;
            now.clone_from(limits);
            differs
        });
    }

    /// What it is to be held to, and when that changes.
    pub(super) fn limits(&self) -> watch::Receiver<Limits> {
        self.limits.subscribe()
    }

    /// What there is of it now.
    pub(super) fn see(&self, main: Option<Arc<OwnedFd>>, group: Group) {
        *lock(&self.seen) = Seen { main, group: Some(Arc::new(group)) };
    }

    /// From now on what is in the unit is of this run.
    pub(super) fn take_unit(&self) {
        self.has_unit.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_unit(&self) -> bool {
        self.has_unit.load(Ordering::Relaxed)
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

impl Inner {
    pub(super) fn gate(&self, handle: &Handle) -> Gate {
        let key = (handle.instance.clone(), handle.slot);
        lock(&self.gates).entry(key).or_default().clone()
    }

    fn report(&self, event: Event) {
        // Nobody listens any more when the daemon ends.
        let _ = self.facts.send(event);
    }

    fn over(&self, handle: &Handle) {
        lock(&self.runs).remove(&(handle.instance.clone(), handle.run));
        self.sockets.over(&handle.instance, handle.slot);
        *lock(&handle.seen) = Seen::default();
    }
}

/// What is to run.
pub(super) struct Asked {
    pub generation: Generation,
    pub spec: Arc<ProcessSpec>,
}

/// Carries out one run and reports what happens. What is over soon is in boxes, here and below: there
/// is one of these for as long as a run lives, and it is as large as all that is not.
pub(super) async fn live(inner: Arc<Inner>, handle: Arc<Handle>, asked: Asked, mut orders: Orders) {
    let prepared = tokio::select! {
        // Whoever has asked already comes first.
        biased;
        () = stopped(&mut orders) => Err(cancelled()),
        prepared = Box::pin(prepare(&inner, &handle, &asked)) => prepared,
    };
    let placed = match prepared {
        Ok(prepared) => Box::pin(start(&inner, &handle, prepared, &mut orders)).await,
        Err(error) => Err(error),
    };
    match placed {
        Ok((placed, pid)) => {
            let (instance, run) = (handle.instance.clone(), handle.run);
            let group = handle.group();
            let directory = group.as_ref().map(|group| group.path());
            held::complain(&instance, directory, &placed.limits);
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
pub(super) async fn stopped(orders: &mut Orders) {
    loop {
        match orders.recv().await {
            Some(Order::Terminate(_) | Order::Kill) => return,
            // There is nobody yet to get a signal.
            Some(Order::Signal(..)) => {}
            None => std::future::pending().await,
        }
    }
}

/// All that is needed to start.
struct Prepared {
    attempt: Attempt,
    properties: Properties,
    /// Not needed any more once the process was started.
    handovers: (Handover, Option<Pipe>),
    pid_file: Option<Rendered>,
    logged: Option<oneshot::Receiver<()>>,
    held: Passed,
    gate: OwnedMutexGuard<Option<u32>>,
    limits: Limits,
}

async fn prepare(
    inner: &Arc<Inner>,
    handle: &Handle,
    Asked { generation, spec }: &Asked,
) -> Result<Prepared, SpawnError> {
    const USUAL_UMASK: u32 = 0o022;
    let (instance, exec) = (&handle.instance, &spec.exec);
    // The unit of the run before may not be unloaded yet.
    let gate = inner.gate(handle).lock_owned().await;
    let identity = inner.identities.find(exec, Need::User).await?;
    let (held, sockets) = sockets(inner, handle, exec, &identity).await?;
    let umask = exec.umask.unwrap_or(USUAL_UMASK);
    let unit = inner.names.of(instance, handle.slot);
    let Connected { output, logged, pipe } =
        log::connect(inner, (instance, &unit), exec, &identity, umask).await?;
    let mut variables =
        inner.identities.environment(&inner.environment, exec, &identity.record, instance.index);
    variables.extend(notices::variables(inner.notices.as_deref(), spec)?);
    if !held.is_empty() {
        // What is in this file is said over what systemd says.
        take_out_variables(&mut variables);
    }
    let argv = exec.command.argv(instance.index);
    let program = argv.first().cloned().unwrap_or_default();
    if let Some(name) = bad_variable(&variables) {
        let text = format!("systemd takes no environment variable named {name:?}");
        return Err(failure(SpawnStage::Exec, program.shown(), text));
    }
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
    properties.extend(sockets);
    properties.extend(what.properties(&output).map_err(|io| log::output_error(&io))?);
    properties.extend(resources::properties(exec, &directory, inner.mode, false));
    properties.extend(resources::limits(&spec.limits));
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
    let limits = Limits::clone(&spec.limits);
    Ok(Prepared { attempt, properties, handovers, pid_file, logged, held, gate, limits })
}

/// The sockets that are held for a run, and how its unit gets them.
async fn sockets(
    inner: &Inner,
    handle: &Handle,
    exec: &ExecSpec,
    identity: &Identity,
) -> Result<(Passed, Properties), SpawnError> {
    let error = |text: String| failure(SpawnStage::Sockets, "", text);
    if !exec.sockets.is_empty() && !inner.passes {
        return Err(error(CANNOT_PASS.to_owned()));
    }
    let (instance, slot) = (&handle.instance, handle.slot);
    let held = inner.sockets.of_run(instance, slot, exec, identity, &inner.network).await?;
    let properties = passing_sockets(&held).map_err(|io| error(reason(&io)))?;
    Ok((held, properties))
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
    let Prepared { attempt, properties, handovers, pid_file, logged, held, gate, limits } =
        prepared;
    let unit = attempt.unit.clone();
    let manager = &inner.manager;
    let mut placed = Placed {
        watch: manager.watch(&unit),
        unit,
        main: MainChange::default(),
        pid_file: None,
        logged,
        held,
        gate,
        limits,
    };
    let slot = tokio::select! {
        biased;
        () = stopped(orders) => return Err(cancelled()),
        slot = manager.job_slot() => slot,
    };
    handle.take_unit();
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
        return Err(cancelled());
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
    let mut limits = handle.limits();
    placed.alert(handle);
    loop {
        let wanted = limits.borrow_and_update().clone();
        if wanted != placed.limits {
            Box::pin(placed.hold(manager, wanted)).await;
            placed.alert(handle);
        }
        let status = placed.status().or(is_gone.then_some(ExitStatus::Unknown));
        if let Some(status) = status.filter(|_| !has_exited) {
            has_exited = true;
            lock(&handle.seen).main = None;
            let group = handle.group();
            let status = held::told(status, || {
                let seen = group.is_some_and(|group| group.was_out_of_memory());
                !is_killing && (seen || placed.was_out_of_memory())
            });
            inner.report(Event::Exited { instance: instance.clone(), run, status });
        }
        let group = handle.group();
        tokio::select! {
            event = placed.watch.next() => match event {
                UnitEvent::Main(change) => placed.absorb(change),
                UnitEvent::Removed | UnitEvent::Look => {
                    match Box::pin(placed.observe(manager)).await.filter(|found| found.run == Some(run)) {
                        Some(found) => placed.main.absorb(found.main),
                        None => is_gone = true,
                    }
                }
                UnitEvent::JobRemoved { .. } => {}
            },
            Some(order) = orders.recv() => {
                is_killing |= order == Order::Kill;
                Box::pin(placed.obey(manager, order, has_exited)).await;
            }
            Ok(()) = limits.changed() => {}
            used = outgrown(group.as_deref()), if !has_exited => {
                Box::pin(placed.relieve(manager)).await;
                inner.report(Event::Outgrown { instance: instance.clone(), run, used });
            }
            () = emptied(group.as_deref()), if has_exited => break,
            () = tokio::time::sleep(KILL_AGAIN), if is_killing => {
                Box::pin(placed.obey(manager, Order::Kill, has_exited)).await;
            }
        }
    }
    Box::pin(leave(inner, handle, placed)).await;
}

/// Lets go of what is left of a run that is over, and reports that.
async fn leave(inner: &Arc<Inner>, handle: &Arc<Handle>, mut placed: Placed) {
    let manager = &inner.manager;
    let (instance, run) = (handle.instance.clone(), handle.run);
    if let Some(pid_file) = placed.pid_file.take() {
        pid_file.remove().await;
    }
    if let Some(logged) = placed.logged.take() {
        // Whoever stops it finds what it said at its end. A process that left the tree may hold the
        // pipe for ever, and a journal may take nothing.
        let _ = tokio::time::timeout(LAST_LINES, logged).await;
    }
    // Until then the unit is all that tells it to who comes next.
    handle.end_kept.notified().await;
    // Asked for before anybody hears that it is over, because the daemon may end then; not waited
    // for, because that may take until the daemon has ended.
    let job = placed.ask_stop(manager).await;
    inner.over(handle);
    inner.report(Event::Emptied { instance, run });
    placed.unloaded(manager, job).await;
    placed.let_go(manager).await;
}

async fn emptied(group: Option<&Watched>) {
    if let Some(group) = group {
        group.emptied().await;
    }
}

async fn outgrown(group: Option<&Watched>) -> u64 {
    match group {
        Some(group) => group.outgrown().await,
        None => std::future::pending().await,
    }
}

/// The pid file of a run that another daemon has started.
pub(super) fn pid_file_of(exec: &ExecSpec, index: u32) -> Option<Rendered> {
    exec.pid_file.as_ref().map(|path: &Text| path.rendered(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Thousands of them are there at the same time.
    #[test]
    fn what_is_kept_for_a_run_is_small() {
        assert!(size(live) < 4096, "{}", size(live));
    }
}
