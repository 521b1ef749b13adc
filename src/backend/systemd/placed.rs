//! The unit in which a run is: having it started, looking into it, signalling what is in it, and
//! letting go of it.

use super::Inner;
use super::manager::{CallError, MainChange, Manager, Observed, UnitEvent, Watch};
use super::pid_file::PidFile;
use super::resources;
use super::run::{Group, Handle, KILL_AGAIN, Order, Orders, stopped};
use super::status::{OF_SYSTEMD, exit_status};
use super::unit::{Properties, SERVICE};
use crate::backend::native::cgroup::directory_of;
use crate::backend::native::launch::{failure, reason};
use crate::backend::sockets::Passed;
use crate::core::event::{ExitStatus, SpawnError, SpawnStage, Whom};
use crate::core::ids::Run;
use crate::core::limits::Limits;
use crate::core::spec::Signal;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, oneshot};

const CONT: Signal = Signal(18);

/// What fails for want of something, such as descriptors, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// A unit of which nothing is left is unloaded within milliseconds.
const UNLOADED: Duration = Duration::from_secs(5);

/// A unit in which a run is.
pub(super) struct Placed {
    pub unit: String,
    pub watch: Watch,
    pub main: MainChange,
    pub pid_file: Option<PidFile>,
    /// Comes when the last of its lines is in the log.
    pub logged: Option<oneshot::Receiver<()>>,
    /// systemd has copies of these until the unit is unloaded.
    pub held: Passed,
    pub gate: OwnedMutexGuard<Option<u32>>,
    /// What it is held to.
    pub limits: Limits,
}

/// What came of a start.
pub(super) enum Outcome {
    /// The command was executed.
    Executed,
    /// It was not.
    Failed,
    /// It was stopped before that.
    Stopped,
}

impl Placed {
    /// Has systemd start the unit; returns the object of the job where it is known.
    pub(super) async fn ask(
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

    pub(super) async fn wait_for_start(
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
    pub(super) fn absorb(&mut self, change: MainChange) {
        if change.pid.is_none() || change.pid != *self.gate {
            self.main.absorb(change);
        }
    }

    pub(super) async fn observe(&self, manager: &Manager) -> Option<Observed> {
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

    pub(super) async fn find_pid(&mut self, manager: &Manager) -> Option<u32> {
        if self.main.pid.is_none() {
            let found = self.observe(manager).await?;
            self.absorb(found.main);
        }
        self.main.pid
    }

    /// How the main process ended; None while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        exit_status(self.main.code.unwrap_or(0), self.main.status.unwrap_or(0))
    }

    /// Whether systemd says that it was killed for want of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        self.main.result.as_deref() == Some("oom-kill")
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
        handle.see(main, Group { name: group, watched });
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

    /// Holds it to other limits, as long as it is there.
    pub(super) async fn hold(&mut self, manager: &Manager, limits: Limits) {
        // What a unit gets that has none of its own.
        let tasks = match (self.limits.tasks, limits.tasks) {
            (Some(_), None) => manager.own("DefaultTasksMax").await.unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        let changes = resources::change(&self.limits, &limits, tasks);
        self.set(manager, &changes).await;
        self.limits = limits;
    }

    /// Has it told when it uses more memory than it may before it gets a new run.
    pub(super) fn alert(&self, handle: &Handle) {
        if let Some(group) = handle.group() {
            group.alert_above(self.limits.max_memory_restart);
        }
    }

    /// Has it not slowed down any more for the memory that it uses: it is to end.
    pub(super) async fn relieve(&self, manager: &Manager) {
        self.set(manager, &resources::relief()).await;
    }

    pub(super) async fn set(&self, manager: &Manager, properties: &Properties) {
        if properties.is_empty() {
            return;
        }
        loop {
            match manager.set_properties(&self.unit, properties).await {
                Ok(()) => return,
                Err(CallError::Lost) => {}
                Err(error) if error.is_no_such_unit() => return,
                Err(error) => {
                    tracing::warn!("{}: changing its limits: {error}", self.unit);
                    return;
                }
            }
        }
    }

    pub(super) async fn ask_stop(&self, manager: &Manager) -> Option<String> {
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
    pub(super) async fn unload(&mut self, manager: &Manager) {
        let job = self.ask_stop(manager).await;
        self.unloaded(manager, job).await;
    }

    /// Waits until the unit is unloaded. While the machine goes down that is not before the daemon
    /// has ended.
    pub(super) async fn unloaded(&mut self, manager: &Manager, job: Option<String>) {
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
        if is_failed {
            while let Err(error) = manager.reset_failed(&self.unit).await {
                if !matches!(error, CallError::Lost) {
                    tracing::warn!("{}: unloading it: {error}", self.unit);
                    break;
                }
            }
        }
    }

    /// Waits until systemd has let go of the sockets it was given, which is when the unit is no more:
    /// a moment after the job that stops it. While the machine goes down nobody waits for it.
    pub(super) async fn let_go(&mut self, manager: &Manager) {
        let gone = async {
            while !self.held.is_empty() && self.observe(manager).await.is_some() {
                while !matches!(self.watch.next().await, UnitEvent::Removed | UnitEvent::Look) {}
            }
        };
        let _ = tokio::time::timeout(UNLOADED, gone).await;
    }

    /// Kills all of it, and returns when it is unloaded.
    pub(super) async fn end(&mut self, inner: &Inner, handle: &Handle) {
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

    /// Does what is wanted of it.
    pub(super) async fn obey(&self, manager: &Manager, order: Order, has_exited: bool) {
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
