//! Turns what the driver published into objects and signals, one task for each connection.
//!
//! For each turn of the driver and each object there is at most one `PropertiesChanged`, with only
//! what differs from what was told before. It is built by hand: the generated functions send one
//! signal for each property.

use super::checkpoint::CheckpointObject;
use super::job::JobObject;
use super::lazy::Wanted;
use super::manager::{ManagerObject, write_cursor};
use super::matches::Signal;
use super::process::ProcessObject;
use super::values::{self, Changed, Clock};
use super::{Context, job_number, paths, replies};
use crate::core::ids::{InstanceId, JobId};
use crate::core::job::{JobKind, JobResult};
use crate::core::view::InstanceView;
use crate::driver::handle::{
    CheckpointView, ExitNotice, JobEnd, JobView, ManagerView, ReloadOutcome, Turn,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;
use zbus::message::Message;
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::Interface;
use zbus::{Connection, DynamicType, ObjectPath, OwnedObjectPath};

/// How long one turn may take to be sent to a peer. One that reads nothing for so long is given up,
/// so that it does not keep its place. A bus that does not read is waited for: giving up would not
/// give the name free, and it reads again when the client that holds it up has gone.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why no more signals can be sent on a connection.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The connection does not work any more.
    #[error("{0}")]
    Bus(#[from] zbus::Error),
    /// Nobody reads at the other end.
    #[error("the other end has not read for {} s", PATIENCE.as_secs())]
    Stuck,
    /// The driver is gone.
    #[error("the supervisor is gone")]
    DriverGone,
}

/// Tells one connection what changes.
pub struct Emitter {
    context: Arc<Context>,
    turns: broadcast::Receiver<Arc<Turn>>,
    told: Told,
    /// Where the objects are asked for; None when they are there.
    wanted: Option<Wanted>,
}

/// What the other end was told last.
struct Told {
    instances: BTreeMap<InstanceId, Arc<InstanceView>>,
    manager: Arc<ManagerView>,
    jobs: BTreeMap<JobId, JobView>,
    last_event: u64,
}

impl Emitter {
    /// Notes what there is now. Whoever makes an emitter registers [`Emitter::processes`] and
    /// [`Emitter::jobs`] before it runs.
    pub fn new(context: Arc<Context>) -> Emitter {
        // Subscribed first: what changes after this is seen twice and not missed.
        let turns = context.handle().subscribe();
        let published = context.handle().published();
        let told = Told {
            instances: published.instances().into_iter().map(|v| (v.id.clone(), v)).collect(),
            manager: published.manager(),
            jobs: published.jobs().into_iter().map(|job| (job.id, job)).collect(),
            last_event: published.last_event(),
        };
        Emitter { context, turns, told, wanted: None }
    }

    /// The same for a peer whose objects are made when they are asked for.
    pub fn lazy(context: Arc<Context>, wanted: Wanted) -> Emitter {
        context.has_objects.store(false, Ordering::Relaxed);
        Emitter { wanted: Some(wanted), ..Emitter::new(context) }
    }

    /// The objects of instances that there are at the beginning.
    pub fn processes(&self) -> impl Iterator<Item = (OwnedObjectPath, ProcessObject)> {
        self.told
            .instances
            .keys()
            .map(|id| (paths::process(id), ProcessObject::new(self.context.clone(), id.clone())))
    }

    /// The objects of jobs that there are at the beginning.
    pub fn jobs(&self) -> impl Iterator<Item = (OwnedObjectPath, JobObject)> {
        self.told.jobs.values().map(|job| (paths::job(job.id), JobObject(job.clone())))
    }

    /// The object of what is to be confirmed at the beginning.
    pub fn checkpoint(&self) -> Option<(OwnedObjectPath, CheckpointObject)> {
        let generation = self.told.manager.checkpoint.as_ref()?.generation;
        let object = CheckpointObject::new(self.context.clone(), generation);
        Some((paths::checkpoint(generation), object))
    }

    /// Tells what changes, until that is not possible any more.
    pub async fn run(mut self, connection: Connection, patience: Option<Duration>) -> EmitError {
        loop {
            let turn = tokio::select! {
                turn = self.turns.recv() => match turn {
                    Ok(turn) => Some(turn),
                    Err(RecvError::Lagged(_)) => Some(Arc::new(self.everything().await)),
                    Err(RecvError::Closed) => return EmitError::DriverGone,
                },
                waiting = asked(&mut self.wanted) => {
                    let made = in_time(patience, self.make_objects(&connection)).await;
                    // The connection is gone where nobody waits any more.
                    let _ = waiting.send(());
                    if let Err(error) = made {
                        return error;
                    }
                    None
                }
            };
            let Some(turn) = turn else { continue };
            if let Err(error) = in_time(patience, self.tell(&turn, &connection)).await {
                return error;
            }
        }
    }

    /// Makes the objects of what was told, where they are not there yet.
    async fn make_objects(&mut self, connection: &Connection) -> zbus::Result<()> {
        self.wanted = None;
        // First: what begins from here on is made by whoever names it.
        self.context.has_objects.store(true, Ordering::Relaxed);
        let server = connection.object_server();
        for (path, object) in self.processes() {
            server.at(path, object).await?;
        }
        for (path, object) in self.jobs() {
            server.at(path, object).await?;
        }
        // A job can have been named that is to be told in the next turn.
        for job in self.context.handle().published().jobs() {
            if !self.told.jobs.contains_key(&job.id) {
                server.at(paths::job(job.id), JobObject(job)).await?;
            }
        }
        if let Some((path, object)) = self.checkpoint() {
            server.at(path, object).await?;
        }
        Ok(())
    }

    /// A turn in which everything may have changed, for when turns were missed.
    async fn everything(&self) -> Turn {
        let published = self.context.handle().published();
        let mut turn = Turn { manager: true, ..Turn::default() };
        turn.instances = self.told.instances.keys().cloned().collect();
        turn.instances.extend(published.instances().iter().map(|view| view.id.clone()));
        let jobs = published.jobs();
        turn.jobs_new =
            jobs.iter().filter(|job| !self.told.jobs.contains_key(&job.id)).cloned().collect();
        for job in self.told.jobs.values() {
            if jobs.iter().all(|other| other.id != job.id) {
                turn.jobs_removed.push(self.end_of(job).await);
            }
        }
        turn
    }

    async fn end_of(&self, job: &JobView) -> JobEnd {
        self.context.handle().job_end(job.id).await.unwrap_or_else(|| JobEnd {
            id: job.id,
            kind: job.kind,
            instance: job.instance.clone(),
            // So long ago that nobody knows. It must not be told as success.
            result: JobResult::Canceled,
            detail: None,
        })
    }

    fn wants(&self, signal: Signal) -> bool {
        self.context.matches.want(signal)
    }

    async fn tell(&mut self, turn: &Turn, connection: &Connection) -> zbus::Result<()> {
        let mut out = Vec::new();
        let gone = self.tell_instances(turn, connection, &mut out).await?;
        self.tell_jobs_new(turn, connection, &mut out).await?;
        if self.wants(Signal::Exited) {
            for exit in &turn.exits {
                out.push(exited(exit)?);
            }
        }
        if self.wants(Signal::ReloadFinished) {
            for outcome in &turn.reloads {
                out.push(reload_finished(outcome)?);
            }
        }
        let mut over = None;
        if turn.manager {
            over = self.tell_manager(connection, &mut out).await?;
        }
        let last_event = self.context.handle().published().last_event();
        if last_event != self.told.last_event {
            self.told.last_event = last_event;
            if self.wants(Signal::EventsAdded) {
                out.push(events_added(&write_cursor(&self.context.service.epoch, last_event))?);
            }
        }
        self.tell_jobs_removed(turn, connection, out).await?;
        for id in gone {
            remove::<ProcessObject>(connection, paths::process(&id)).await?;
        }
        if let Some(checkpoint) = over {
            remove::<CheckpointObject>(connection, checkpoint).await?;
        }
        Ok(())
    }

    /// Compares the whole, and what is to be confirmed. What of that is over is given back, to be
    /// removed when all else was told.
    async fn tell_manager(
        &mut self,
        connection: &Connection,
        out: &mut Vec<Message>,
    ) -> zbus::Result<Option<OwnedObjectPath>> {
        let clock = Clock::now();
        let manager = self.context.handle().published().manager();
        let old = std::mem::replace(&mut self.told.manager, manager.clone());
        let are_wanted = self.wants(Signal::PropertiesChanged);
        if are_wanted {
            let changed = values::changed(values::MANAGER, &*old, &*manager, &clock);
            out.extend(properties_changed::<ManagerObject>(root(), changed)?);
        }
        let path = |view: &CheckpointView| paths::checkpoint(view.generation);
        match (&old.checkpoint, &manager.checkpoint) {
            (Some(old), Some(new)) if old.generation == new.generation => {
                if are_wanted {
                    let changed = values::changed(values::CHECKPOINT, old, new, &clock);
                    out.extend(properties_changed::<CheckpointObject>(path(new).into(), changed)?);
                }
                return Ok(None);
            }
            (_, Some(_)) if self.wanted.is_none() => {
                if let Some((path, object)) = self.checkpoint() {
                    connection.object_server().at(path, object).await?;
                }
            }
            _ => {}
        }
        Ok(old.checkpoint.as_ref().map(path))
    }

    /// Registers what is new and compares the rest; what is gone is given back, to be removed when
    /// all else was told.
    async fn tell_instances(
        &mut self,
        turn: &Turn,
        connection: &Connection,
        out: &mut Vec<Message>,
    ) -> zbus::Result<Vec<InstanceId>> {
        let clock = Clock::now();
        let mut gone = Vec::new();
        let are_wanted = self.wants(Signal::PropertiesChanged);
        for id in &turn.instances {
            let view = self.context.handle().published().instance(id);
            let Some(view) = view else {
                if self.told.instances.remove(id).is_some() {
                    gone.push(id.clone());
                }
                continue;
            };
            match self.told.instances.insert(id.clone(), view.clone()) {
                None if self.wanted.is_some() => {}
                None => {
                    let object = ProcessObject::new(self.context.clone(), id.clone());
                    connection.object_server().at(paths::process(id), object).await?;
                }
                Some(old) if are_wanted => {
                    let changed = values::changed(values::PROCESS, &*old, &*view, &clock);
                    let path = paths::process(id).into();
                    out.extend(properties_changed::<ProcessObject>(path, changed)?);
                }
                Some(_) => {}
            }
        }
        Ok(gone)
    }

    async fn tell_jobs_new(
        &mut self,
        turn: &Turn,
        connection: &Connection,
        out: &mut Vec<Message>,
    ) -> zbus::Result<()> {
        for job in &turn.jobs_new {
            if self.told.jobs.insert(job.id, job.clone()).is_some() {
                continue;
            }
            // One that has ended already is told in signals only.
            let has_ended = turn.jobs_removed.iter().any(|end| end.id == job.id);
            if !has_ended && self.wanted.is_none() {
                connection.object_server().at(paths::job(job.id), JobObject(job.clone())).await?;
            }
            if self.wants(Signal::JobNew) {
                out.push(job_new(job)?);
            }
        }
        Ok(())
    }

    /// Sends what there is to be told, and then the ends of jobs, after the replies that name them.
    async fn tell_jobs_removed(
        &mut self,
        turn: &Turn,
        connection: &Connection,
        mut out: Vec<Message>,
    ) -> zbus::Result<()> {
        if turn.jobs_removed.is_empty() {
            return connection.send_all(&out).await;
        }
        let reloads = turn
            .jobs_removed
            .iter()
            .any(|end| end.kind == JobKind::Reload && end.instance.is_none());
        if !self.context.replies.are_settled(reloads) {
            connection.send_all(&out).await?;
            out.clear();
            self.context.replies.settled(reloads).await;
        }
        for end in &turn.jobs_removed {
            if self.told.jobs.remove(&end.id).is_some() && self.wants(Signal::JobRemoved) {
                out.push(job_removed(end)?);
            }
        }
        connection.send_all(&out).await?;
        if self.wanted.is_none() {
            for end in &turn.jobs_removed {
                remove::<JobObject>(connection, paths::job(end.id)).await?;
            }
        }
        Ok(())
    }
}

/// Comes when somebody asks for the objects, and never where they are there.
async fn asked(wanted: &mut Option<Wanted>) -> oneshot::Sender<()> {
    match wanted {
        Some(wanted) => match wanted.recv().await {
            Some(waiting) => waiting,
            // It asked already, or reads no more.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Gives up after the patience there is.
async fn in_time(
    patience: Option<Duration>,
    work: impl Future<Output = zbus::Result<()>>,
) -> Result<(), EmitError> {
    match patience {
        None => Ok(work.await?),
        Some(patience) => match tokio::time::timeout(patience, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(EmitError::Stuck),
        },
    }
}

/// Makes jobs visible before a reply names them. They may be there already. Where no object was asked
/// for, these wait with the others until one is.
pub async fn expose_jobs(context: &Context, connection: &Connection, jobs: &[JobId]) {
    if !context.has_objects.load(Ordering::Relaxed) {
        return;
    }
    for job in jobs {
        if let Some(view) = context.handle().published().job(*job) {
            // It fails only when the connection is gone, and with it whoever could look.
            let _ = connection.object_server().at(paths::job(*job), JobObject(view)).await;
        }
    }
}

/// Removes an object; that it is not there is as good.
async fn remove<I: Interface>(connection: &Connection, path: OwnedObjectPath) -> zbus::Result<()> {
    match connection.object_server().remove::<I, _>(path).await {
        Ok(_) | Err(zbus::Error::InterfaceNotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// All that name it are valid: so nobody looks at them again for each signal.
fn message<B>(path: ObjectPath<'_>, signal: Signal, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + DynamicType,
{
    let interface = InterfaceName::from_static_str_unchecked(signal.interface());
    let member = MemberName::from_static_str_unchecked(signal.member());
    Message::signal(path, interface, member).build(body)
}

/// The signal, or none when nothing changed.
fn properties_changed<I: Interface>(
    path: ObjectPath<'_>,
    changed: Changed,
) -> zbus::Result<Option<Message>> {
    if changed.is_empty() {
        return Ok(None);
    }
    let body = (I::name(), changed.values, changed.invalidated);
    message(path, Signal::PropertiesChanged, &body).map(Some)
}

fn root() -> ObjectPath<'static> {
    ObjectPath::from_str_unchecked(paths::ROOT)
}

fn job_new(job: &JobView) -> zbus::Result<Message> {
    let instance = job.instance.as_ref().map(ToString::to_string).unwrap_or_default();
    message(root(), Signal::JobNew, &(job_number(job.id), paths::job(job.id), instance))
}

fn job_removed(end: &JobEnd) -> zbus::Result<Message> {
    let instance = end.instance.as_ref().map(ToString::to_string).unwrap_or_default();
    let body = (job_number(end.id), paths::job(end.id), instance, end.result.as_str());
    message(root(), Signal::JobRemoved, &body)
}

fn reload_finished(outcome: &ReloadOutcome) -> zbus::Result<Message> {
    let body = (outcome.generation.0, outcome.result, replies::reload_info(outcome));
    message(root(), Signal::ReloadFinished, &body)
}

fn events_added(cursor: &str) -> zbus::Result<Message> {
    message(root(), Signal::EventsAdded, &(cursor,))
}

fn exited(exit: &ExitNotice) -> zbus::Result<Message> {
    let (code, status) = values::exit(Some(exit.status));
    let generation = u32::try_from(exit.generation.0).unwrap_or(u32::MAX);
    let body = (generation, exit.pid, code, status);
    message(paths::process(&exit.instance).into(), Signal::Exited, &body)
}
