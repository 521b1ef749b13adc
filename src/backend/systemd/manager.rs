//! The connection to systemd: calls, and what it tells about our units.
//!
//! It is one of our own, apart from the one on which we are served: a client of ours that reads
//! nothing must not get between us and our processes. It is systemd's private socket where we may
//! connect to it, which works without a bus; systemd closes it when it re-executes itself. Whatever
//! closes, a new connection is made, and everybody who watches a unit is told to look at it again,
//! because what happened meanwhile was told to nobody.

use super::link::{Link, Way, connect};
use super::resources;
use super::unit::{Properties, SERVICE, object_path, run_of};
use crate::core::ids::Run;
use crate::core::limits::Limits;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::AbortHandle;
use zbus::message::Type;
use zbus::{DynamicType, Message, MessageStream, OwnedObjectPath, OwnedVariant};

pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub(super) const PATH: &str = "/org/freedesktop/systemd1";
const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// So many jobs are under way at once. A bus takes no more than 128 calls of one client, and the
/// service manager carries out one after the other anyway.
const JOBS: usize = 64;

/// A service manager that answers nothing at the start is taken for none.
const PATIENCE: Duration = Duration::from_secs(30);

/// The waits before a lost connection is made again, the first and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Why a call brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The connection was lost; whether the call was carried out is not known.
    #[error("the connection to systemd was lost")]
    Lost,
    /// systemd refuses.
    #[error("systemd says: {text}")]
    Refused {
        /// The name of the D-Bus error.
        name: String,
        /// What it says.
        text: String,
    },
}

impl CallError {
    /// Whether there is no such unit.
    #[must_use]
    pub fn is_no_such_unit(&self) -> bool {
        self.has_name("org.freedesktop.systemd1.NoSuchUnit")
    }

    /// Whether a unit has the name already.
    #[must_use]
    pub fn is_unit_exists(&self) -> bool {
        self.has_name("org.freedesktop.systemd1.UnitExists")
    }

    fn has_name(&self, wanted: &str) -> bool {
        matches!(self, CallError::Refused { name, .. } if name == wanted)
    }
}

/// What is told about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitEvent {
    /// Of its main process.
    Main(MainChange),
    /// A job on it is over.
    JobRemoved {
        /// The object of the job.
        job: String,
        /// systemd's word: `done`, `failed`, `canceled` and so on.
        result: String,
    },
    /// It is not loaded any more, or is just being loaded again.
    Removed,
    /// Something may have happened of which nothing was told.
    Look,
}

/// What changed about a main process; None: nothing was told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MainChange {
    /// `ExecMainPID`, which stays after the end, or `MainPID`, which does not.
    pub pid: Option<u32>,
    /// `ExecMainCode`.
    pub code: Option<i32>,
    /// `ExecMainStatus`.
    pub status: Option<i32>,
    /// `Result`.
    pub result: Option<String>,
}

impl MainChange {
    fn of(mut values: HashMap<String, OwnedVariant>) -> MainChange {
        let pid = |value: OwnedVariant| u32::try_from(value).ok().filter(|pid| *pid > 0);
        let main = values.remove("ExecMainPID").and_then(pid);
        MainChange {
            pid: main.or_else(|| values.remove("MainPID").and_then(pid)),
            code: values.remove("ExecMainCode").and_then(|value| i32::try_from(value).ok()),
            status: values.remove("ExecMainStatus").and_then(|value| i32::try_from(value).ok()),
            result: values.remove("Result").and_then(|value| String::try_from(value).ok()),
        }
    }

    /// Takes in what was told later.
    pub fn absorb(&mut self, later: MainChange) {
        self.pid = later.pid.or(self.pid);
        self.code = later.code.or(self.code);
        self.status = later.status.or(self.status);
        self.result = later.result.or(self.result.take());
    }
}

/// What is there of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// `ActiveState`.
    pub state: String,
    /// Of its main process.
    pub main: MainChange,
    /// Whose run it is; None: it is none of ours.
    pub run: Option<Run>,
    /// Below the mount of the control groups; empty where it has none any more.
    pub control_group: String,
    /// The limits that it has.
    pub limits: Limits,
    /// Whether a job on it is under way.
    pub has_job: bool,
}

/// The service manager.
pub struct Manager {
    way: Way,
    link: watch::Sender<Option<Arc<Link>>>,
    /// By the object of the unit.
    watches: Mutex<HashMap<String, Listener>>,
    /// Of the next watch.
    number: AtomicU64,
    jobs: Semaphore,
    /// Reads what is told.
    reader: OnceLock<AbortHandle>,
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
    }
}

struct Listener {
    number: u64,
    events: mpsc::UnboundedSender<UnitEvent>,
}

/// Word of a unit, as long as this is there.
pub struct Watch {
    manager: Arc<Manager>,
    path: String,
    number: u64,
    events: mpsc::UnboundedReceiver<UnitEvent>,
}

impl Watch {
    /// What comes next.
    pub async fn next(&mut self) -> UnitEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The other end is dropped only when somebody else watches the same unit.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = lock(&self.manager.watches);
        // Another one may have taken its place.
        if watches.get(&self.path).is_some_and(|listener| listener.number == self.number) {
            watches.remove(&self.path);
        }
    }
}

impl Manager {
    /// Connects, and stays connected.
    ///
    /// # Errors
    /// When nobody is there, or we may not.
    pub async fn start(way: Way) -> io::Result<Arc<Manager>> {
        let connected = tokio::time::timeout(PATIENCE, connect(&way)).await;
        let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let (link, stream) = connected.map_err(io::Error::other)?;
        let manager = Arc::new(Manager {
            way,
            link: watch::Sender::new(Some(Arc::new(link))),
            watches: Mutex::default(),
            number: AtomicU64::new(0),
            jobs: Semaphore::new(JOBS),
            reader: OnceLock::new(),
        });
        let reader = tokio::spawn(keep(Arc::downgrade(&manager), stream));
        // It was just made.
        let _ = manager.reader.set(reader.abort_handle());
        Ok(manager)
    }

    /// Watches a unit. To be called before anything is done to it; whoever watched it before hears
    /// nothing more.
    #[must_use]
    pub fn watch(self: &Arc<Manager>, unit: &str) -> Watch {
        let (sender, events) = mpsc::unbounded_channel();
        let path = object_path(unit);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        lock(&self.watches).insert(path.clone(), Listener { number, events: sender });
        Watch { manager: self.clone(), path, number, events }
    }

    /// Watches a unit that was looked at before: what has happened since nobody was told of, so the
    /// first that is told is to look again.
    #[must_use]
    pub fn watch_on(self: &Arc<Manager>, unit: &str) -> Watch {
        let watch = self.watch(unit);
        self.tell(&watch.path, UnitEvent::Look);
        watch
    }

    /// Leave for one more job, to be kept until it is removed.
    pub async fn job_slot(&self) -> SemaphorePermit<'_> {
        // It is never closed.
        loop {
            if let Ok(permit) = self.jobs.acquire().await {
                return permit;
            }
            std::future::pending::<()>().await;
        }
    }

    /// Starts a transient unit; returns the object of the job.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn start_transient(
        &self,
        unit: &str,
        properties: &Properties,
    ) -> Result<String, CallError> {
        let auxiliary: Vec<(String, Properties)> = Vec::new();
        let body = (unit, "fail", properties, auxiliary);
        let answer = self.call(PATH, MANAGER, "StartTransientUnit", &body).await?;
        path(&answer)
    }

    /// Stops a unit, and with that has it unloaded; returns the object of the job. None: there is no
    /// such unit.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stop(&self, unit: &str) -> Result<Option<String>, CallError> {
        match self.call(PATH, MANAGER, "StopUnit", &(unit, "replace")).await {
            Ok(answer) => path(&answer).map(Some),
            Err(error) if error.is_no_such_unit() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets go of a failed unit.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn reset_failed(&self, unit: &str) -> Result<(), CallError> {
        match self.call(PATH, MANAGER, "ResetFailedUnit", &unit).await {
            Err(error) if !error.is_no_such_unit() => Err(error),
            _ => Ok(()),
        }
    }

    /// Thaws a unit: one that is frozen is not stopped.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn thaw(&self, unit: &str) -> Result<(), CallError> {
        self.call(PATH, MANAGER, "ThawUnit", &unit).await.map(drop)
    }

    /// Sends a signal to the main process (`main`) or to all processes of a unit (`all`).
    ///
    /// # Errors
    /// See [`CallError`]; also when there is nobody to send it to.
    pub async fn kill(&self, unit: &str, whom: &str, signal: i32) -> Result<(), CallError> {
        self.call(PATH, MANAGER, "KillUnit", &(unit, whom, signal)).await.map(drop)
    }

    /// Changes properties of a unit that is there, until it is unloaded.
    ///
    /// # Errors
    /// See [`CallError`]; also when there is no such unit.
    pub async fn set_properties(
        &self,
        unit: &str,
        properties: &Properties,
    ) -> Result<(), CallError> {
        let is_runtime = true;
        let body = (unit, is_runtime, properties);
        self.call(PATH, MANAGER, "SetUnitProperties", &body).await.map(drop)
    }

    /// A property of the manager itself.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn own<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Result<T, CallError> {
        let answer = self.call(PATH, PROPERTIES, "Get", &(MANAGER, name)).await?;
        let value: OwnedVariant = answer.body().deserialize().map_err(|_| unreadable())?;
        T::try_from(value).map_err(|_| unreadable())
    }

    /// The units whose names match, whatever their state.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list(&self, patterns: &[String]) -> Result<Vec<String>, CallError> {
        type Row = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        let states: Vec<String> = Vec::new();
        let body = (states, patterns);
        let answer = self.call(PATH, MANAGER, "ListUnitsByPatterns", &body).await?;
        let rows: Vec<Row> = answer.body().deserialize().map_err(|_| unreadable())?;
        Ok(rows.into_iter().filter(|row| row.2 != "not-found").map(|row| row.0).collect())
    }

    /// What is there of a unit; None when it is not loaded.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn observe(&self, unit: &str) -> Result<Option<Observed>, CallError> {
        // Asking for the properties of a unit that is not there would be answered, wrongly.
        match self.call(PATH, MANAGER, "GetUnit", &unit).await {
            Err(error) if error.is_no_such_unit() => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let path = object_path(unit);
        let whole = self.all(&path, UNIT).await?;
        let mut service = self.all(&path, SERVICE).await?;
        let text = |values: &HashMap<String, OwnedVariant>, name: &str| {
            let value = values.get(name).and_then(|value| value.try_clone().ok());
            value.and_then(|value| String::try_from(value).ok()).unwrap_or_default()
        };
        // One that can no longer be loaded still has its processes.
        if text(&whole, "LoadState") == "not-found" && text(&whole, "ActiveState") == "inactive" {
            return Ok(None);
        }
        let fields = service.remove("LogExtraFields");
        let fields = fields.and_then(|value| Vec::<Vec<u8>>::try_from(value).ok());
        let job = whole.get("Job").and_then(|value| value.try_clone().ok());
        let job = job.and_then(|value| <(u32, OwnedObjectPath)>::try_from(value).ok());
        Ok(Some(Observed {
            state: text(&whole, "ActiveState"),
            run: run_of(&fields.unwrap_or_default()),
            control_group: text(&service, "ControlGroup"),
            limits: resources::observed(&service),
            has_job: job.is_some_and(|(id, _)| id != 0),
            main: MainChange::of(service),
        }))
    }

    async fn all(
        &self,
        path: &str,
        interface: &str,
    ) -> Result<HashMap<String, OwnedVariant>, CallError> {
        let answer = self.call(path, PROPERTIES, "GetAll", &interface).await?;
        answer.body().deserialize().map_err(|_| unreadable())
    }

    /// Whether units can be given descriptors: those that can say which they have been given.
    pub async fn passes_descriptors(&self) -> bool {
        // Of a unit that is not there too.
        let unit = "provost-none.service";
        let names = self.get::<Vec<String>>(unit, super::unit::SERVICE, "ExtraFileDescriptorNames");
        names.await.is_ok()
    }

    /// The control group below which those of all units are; empty for the root.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn control_group(&self) -> Result<String, CallError> {
        let body = (MANAGER, "ControlGroup");
        let answer = self.call(PATH, PROPERTIES, "Get", &body).await?;
        let value: OwnedVariant = answer.body().deserialize().map_err(|_| unreadable())?;
        let group = String::try_from(value).map_err(|_| unreadable())?;
        Ok(group.trim_end_matches('/').to_owned())
    }

    /// A property of a unit that is loaded.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get<T: TryFrom<OwnedVariant>>(
        &self,
        unit: &str,
        interface: &str,
        name: &str,
    ) -> Result<T, CallError> {
        let body = (interface, name);
        let answer = self.call(&object_path(unit), PROPERTIES, "Get", &body).await?;
        let value: OwnedVariant = answer.body().deserialize().map_err(|_| unreadable())?;
        T::try_from(value).map_err(|_| unreadable())
    }

    /// Calls a method, on the next connection where there is none now.
    async fn call<B: serde::Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, CallError> {
        let mut links = self.link.subscribe();
        // The sender is ours, and this has it.
        let link = links.wait_for(Option::is_some).await.map_err(|_| CallError::Lost)?.clone();
        let Some(link) = link else { return Err(CallError::Lost) };
        let peer = link.peer.as_ref();
        let answer = link.connection.call_method(peer, path, Some(interface), method, body).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(zbus::Error::MethodError(name, text, _)) => {
                Err(CallError::Refused { name: name.to_string(), text: text.unwrap_or_default() })
            }
            Err(zbus::Error::FDO(error)) => {
                use zbus::DBusError;
                let text = error.description().unwrap_or_default().to_owned();
                Err(CallError::Refused { name: error.name().to_string(), text })
            }
            Err(zbus::Error::InputOutput(_)) => {
                // Whoever tries again must not find the same one.
                let is_other = |now: &Option<Arc<Link>>| {
                    now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &link))
                };
                let _ = links.wait_for(is_other).await;
                Err(CallError::Lost)
            }
            Err(error) => Err(CallError::Refused { name: String::new(), text: error.to_string() }),
        }
    }

    /// Takes in one message. Nothing is waited for: as long as nobody reads, no answer comes either.
    /// False: this connection is of no use any more.
    fn hear(&self, message: &Message) -> bool {
        if message.message_type() != Type::Signal {
            return true;
        }
        let header = message.header();
        let Some(member) = header.member() else { return true };
        // On a bus anybody may send a signal to anybody.
        let sender = header.sender().map(|sender| sender.as_str());
        let link = self.link.borrow();
        let peer = link.as_ref().and_then(|link| link.peer.as_ref());
        let is_of_bus = peer.is_some() && sender == Some("org.freedesktop.DBus");
        if peer.is_some_and(|peer| sender != Some(peer.as_str())) && !is_of_bus {
            return true;
        }
        match member.as_str() {
            "PropertiesChanged" => {
                let path = header.path().map(|path| path.as_str()).unwrap_or_default();
                if path.starts_with(UNITS) {
                    self.properties_changed(path, message);
                }
            }
            "JobRemoved" => {
                type Body = (u32, OwnedObjectPath, String, String);
                if let Ok((_, job, unit, result)) = message.body().deserialize::<Body>() {
                    let job = job.to_string();
                    self.tell(&object_path(&unit), UnitEvent::JobRemoved { job, result });
                }
            }
            "UnitRemoved" => {
                type Body = (String, OwnedObjectPath);
                if let Ok((_, path)) = message.body().deserialize::<Body>() {
                    self.tell(path.as_str(), UnitEvent::Removed);
                }
            }
            "Reloading" if message.body().deserialize().is_ok_and(|begins: bool| !begins) => {
                self.tell_all();
            }
            // The service manager came back to the bus as somebody else.
            "NameOwnerChanged" if is_of_bus => return false,
            _ => {}
        }
        true
    }

    async fn connect_again(&self) -> (Link, MessageStream) {
        let mut wait = AGAIN.0;
        loop {
            match connect(&self.way).await {
                Ok(connected) => return connected,
                Err(error) => {
                    if wait == AGAIN.1 {
                        tracing::warn!("systemd cannot be reached: {error}; trying again");
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN.1);
                }
            }
        }
    }

    fn properties_changed(&self, path: &str, message: &Message) {
        if !lock(&self.watches).contains_key(path) {
            return;
        }
        type Body = (String, HashMap<String, OwnedVariant>, Vec<String>);
        let body = message.body();
        let Ok((interface, values, _)) = body.deserialize::<Body>() else { return };
        if interface == SERVICE {
            let change = MainChange::of(values);
            if change != MainChange::default() {
                self.tell(path, UnitEvent::Main(change));
            }
        }
    }

    fn tell(&self, path: &str, event: UnitEvent) {
        if let Some(watch) = lock(&self.watches).get(path) {
            // Whoever listened may just be going.
            let _ = watch.events.send(event);
        }
    }

    fn tell_all(&self) {
        for watch in lock(&self.watches).values() {
            let _ = watch.events.send(UnitEvent::Look);
        }
    }
}

/// Reads what is told, and connects again when the connection is lost, as long as there is anybody
/// who wants to know.
async fn keep(manager: Weak<Manager>, mut stream: MessageStream) {
    loop {
        while let Some(Ok(message)) = stream.next().await {
            let Some(manager) = manager.upgrade() else { return };
            if !manager.hear(&message) {
                break;
            }
        }
        let Some(manager) = manager.upgrade() else { return };
        manager.link.send_replace(None);
        tracing::info!("the connection to systemd was closed: connecting again");
        let (link, new) = manager.connect_again().await;
        stream = new;
        manager.link.send_replace(Some(Arc::new(link)));
        manager.tell_all();
    }
}

fn path(answer: &Message) -> Result<String, CallError> {
    let path: OwnedObjectPath = answer.body().deserialize().map_err(|_| unreadable())?;
    Ok(path.to_string())
}

fn unreadable() -> CallError {
    CallError::Refused { name: String::new(), text: "an answer that cannot be read".to_owned() }
}

/// Each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
