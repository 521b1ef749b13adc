//! The systemd backend: each run is a transient unit of its own.
//!
//! | module | owns |
//! |---|---|
//! | [`manager`] | what is asked of systemd, and what it tells |
//! | [`link`] | the connection to it |
//! | [`unit`] | names of units, and what is asked of systemd for them |
//! | [`status`] | what systemd says of an end, in our words |
//! | [`run`] | the life of a run, from the request to the end of all that is in its unit |
//! | `placed` | that unit |
//! | `adopt` | the units of a daemon that is gone |
//! | `resources` | limits, sandboxes and properties of the file |
//! | `explain` | why a start failed |
//! | `command` | commands beside a run, such as exec checks |
//! | `log` | where output goes |
//! | `network` | the unit of what is on the network for the daemon |
//! | `socket` | the stream of systemd's private socket |
//! | `passing` | units of programs of ours |
//!
//! systemd decides nothing: a unit is not restarted, has no limit of starts, and remains after the
//! end of its main process, so that whoever comes back finds how that was. When nothing is left in
//! it, it is unloaded, and the next run of the instance gets a new one of the same name.

mod adopt;
mod command;
mod explain;
pub mod link;
mod log;
pub mod manager;
mod network;
mod passing;
mod pid_file;
mod placed;
mod resources;
mod run;
mod socket;
pub mod status;
pub mod unit;

pub use self::adopt::end_all;

use self::link::Way;
use self::manager::Manager;
use self::run::{Gate, Handle, Order};
use self::unit::Names;
use super::group::GroupEvents;
use super::held;
use super::native::census::{self, Process};
use super::native::cgroup::directory_of;
use super::native::identity::Identities;
use super::native::output::open_log_file;
use super::sockets::Sockets;
use super::starts::Starts;
use super::{
    Backend, Beside, CommandFuture, Facts, Kept, LogRequest, Purpose, RecoverFuture, Usage,
};
use crate::config::load::Mode;
use crate::core::event::Whom;
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::limits::{Limit, Limits};
use crate::core::spec::{ExecSpec, ProcessSpec, Rendered, Signal, StopSpec};
use crate::net::Network;
use crate::sys::controllers::limits_in;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What the backend has to know about the daemon.
pub struct SystemdOptions {
    /// Whose daemon it is.
    pub mode: Mode,
    /// The daemon's own environment. Of it, processes see what the mode lets them see.
    pub environment: Arc<BTreeMap<String, String>>,
    /// The user of processes that name none, in [`Mode::System`].
    pub default_user: Arc<str>,
    /// The name of this daemon in control groups of the native backend.
    pub name: String,
    /// The names of the units.
    pub names: Names,
    /// The program that writes log files, [`super::native::sink`].
    pub log_program: PathBuf,
    /// The program that is on the network for the system's daemon, [`crate::net`].
    pub net_program: PathBuf,
    /// Where environments are while processes are started; this daemon's alone.
    pub runtime: PathBuf,
    /// In the marks of processes that a daemon with the native backend has started here.
    pub token: u32,
    /// The socket that runs speak to ([`super::notices`]).
    pub notices: Option<Arc<Path>>,
    /// What is held for processes.
    pub sockets: Arc<Sockets>,
}

/// Runs processes as transient units.
pub struct SystemdBackend {
    inner: Arc<Inner>,
    starts: Arc<Starts>,
}

struct Inner {
    facts: Facts,
    environment: Arc<BTreeMap<String, String>>,
    identities: Identities,
    name: String,
    names: Names,
    /// The unit of this daemon, where it is in one.
    daemon_unit: Option<String>,
    manager: Arc<Manager>,
    groups: GroupEvents,
    log_program: PathBuf,
    mode: Mode,
    /// The limits that units can be held to.
    enforceable: BTreeSet<Limit>,
    /// Where files are that systemd is to find.
    handovers: PathBuf,
    token: u32,
    notices: Option<Arc<Path>>,
    sockets: Arc<Sockets>,
    network: Network,
    /// This systemd can pass descriptors to units.
    passes: bool,
    /// The control group of the service manager, below which those of its units are.
    root: String,
    runs: Mutex<BTreeMap<(InstanceId, Run), Arc<Handle>>>,
    /// One run of an instance after the other in each slot.
    gates: Mutex<HashMap<(InstanceId, Slot), Gate>>,
    /// Commands beside runs, by instance.
    commands: Mutex<HashMap<(InstanceId, Purpose), Arc<command::Place>>>,
    /// How many logs are being written.
    pumps: watch::Sender<usize>,
}

/// How the service manager of this mode is reached; None where systemd does not run here, or not
/// for us.
#[must_use]
pub fn way(mode: Mode, environment: &BTreeMap<String, String>) -> Option<Way> {
    // sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let root = rustix::process::geteuid().is_root();
    match mode {
        Mode::System if root => Some(Way::Socket("/run/systemd/private".into())),
        Mode::System => Some(Way::SystemBus),
        Mode::User => {
            let runtime = environment.get("XDG_RUNTIME_DIR").filter(|value| !value.is_empty())?;
            let socket = Path::new(runtime).join("systemd/private");
            Some(if socket.exists() { Way::Socket(socket) } else { Way::UserBus })
        }
    }
}

impl SystemdBackend {
    /// Connects to systemd. Needs a tokio runtime.
    ///
    /// # Errors
    /// When systemd cannot be reached, or the machine lacks what this needs.
    pub async fn new(
        facts: Facts,
        way: Way,
        options: SystemdOptions,
    ) -> io::Result<Arc<SystemdBackend>> {
        if directory_of("/").is_none_or(|root| !root.join("cgroup.controllers").exists()) {
            return Err(io::Error::other(
                "there is no cgroup version 2 hierarchy here, by which systemd knows its units",
            ));
        }
        let handovers = options.runtime.join("handover");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&handovers);
        made.map_err(|io| io::Error::new(io.kind(), format!("{}: {io}", handovers.display())))?;
        let identities = Identities::new(options.mode, options.default_user, &options.environment);
        let manager = Manager::start(way).await?;
        let passes = manager.passes_descriptors().await;
        let root = manager.control_group().await.map_err(io::Error::other)?;
        let daemon_unit = own_unit();
        let network = match options.mode {
            Mode::System => {
                network::helper(&manager, &options.names, daemon_unit.clone(), options.net_program)
            }
            // A user's manager can take nothing of the kind from its services.
            Mode::User => Network::Own,
        };
        let inner = Inner {
            facts,
            mode: options.mode,
            enforceable: enforceable(&manager).await,
            environment: options.environment,
            identities,
            name: options.name,
            names: options.names,
            daemon_unit,
            manager,
            groups: GroupEvents::new()?,
            log_program: options.log_program,
            handovers,
            token: options.token,
            notices: options.notices,
            sockets: options.sockets,
            network,
            passes,
            root,
            runs: Mutex::default(),
            gates: Mutex::default(),
            commands: Mutex::default(),
            pumps: watch::Sender::new(0),
        };
        Ok(Arc::new(SystemdBackend { inner: Arc::new(inner), starts: Starts::new() }))
    }

    fn handle(&self, instance: &InstanceId, run: Run) -> Option<Arc<Handle>> {
        lock(&self.inner.runs).get(&(instance.clone(), run)).cloned()
    }

    fn order(&self, instance: &InstanceId, run: Run, order: Order) {
        if let Some(handle) = self.handle(instance, run) {
            handle.order(order);
        }
    }
}

/// The limits that units of this manager can be held to: by the controllers of its own group, which
/// all its units are in.
async fn enforceable(manager: &Manager) -> BTreeSet<Limit> {
    let group = manager.own::<String>("ControlGroup").await.unwrap_or_default();
    let group = if group.is_empty() { "/" } else { &group };
    let directory = directory_of(group);
    directory.map(|path| limits_in(&path.join("cgroup.controllers"))).unwrap_or_default()
}

/// The service that this process is in, by its control group.
fn own_unit() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut units = own.rsplit('/').filter(|part| part.ends_with(".service"));
    // The manager of a user is a service too, of another manager.
    units.next().filter(|unit| !unit.starts_with("user@")).map(str::to_owned)
}

impl Inner {
    /// The run that a process is of, by its control group: only the service manager can make one
    /// there.
    fn run_of(&self, pid: u32) -> Option<(InstanceId, Run)> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let below = group.strip_prefix(&self.root)?.strip_prefix('/')?;
        let below = below.strip_prefix(unit::SLICE)?.strip_prefix('/')?;
        let (instance, slot) = self.names.instance(below.split('/').next()?)?;
        let all = (instance.clone(), Run(0))..=(instance, Run(u64::MAX));
        let runs = lock(&self.runs);
        // The run before has nothing in the unit any more when the next one gets it.
        let mut handles = runs.range(all).map(|(_, handle)| handle);
        let handle = handles.find(|handle| handle.slot == slot && handle.has_unit())?;
        Some((handle.instance.clone(), handle.run))
    }

    /// Writes an environment where only this user and root can read it.
    fn write_environment(
        &self,
        unit: &str,
        variables: &BTreeMap<String, String>,
    ) -> io::Result<Handover> {
        let file = self.handover(unit);
        let mut options = fs::OpenOptions::new();
        let mut open = options.write(true).create_new(true).mode(0o600).open(&file.0)?;
        io::Write::write_all(&mut open, unit::environment_file(variables).as_bytes())?;
        Ok(file)
    }

    /// A place for a file that systemd is to find.
    fn handover(&self, name: &str) -> Handover {
        let file = Handover(self.handovers.join(name));
        // One that another daemon has left.
        let _ = fs::remove_file(&file.0);
        file
    }
}

/// A file on its way to systemd, which opens it when it starts the process.
struct Handover(PathBuf);

impl Drop for Handover {
    fn drop(&mut self) {
        // What is left is removed by the next daemon.
        let _ = fs::remove_file(&self.0);
    }
}

/// What is wrong with a name for a variable, as far as systemd is concerned: it leaves out what it
/// does not take, without a word to whom it concerns.
fn bad_variable(variables: &BTreeMap<String, String>) -> Option<&str> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    variables.keys().map(String::as_str).find(|name| !is_name(name))
}

impl Backend for SystemdBackend {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn recover(
        &self,
        known: Vec<Kept>,
        _stored: HashMap<(InstanceId, Run), OwnedFd>,
    ) -> RecoverFuture {
        let inner = self.inner.clone();
        Box::pin(async move { adopt::recover(&inner, known).await })
    }

    fn drained(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let mut pumps = inner.pumps.subscribe();
            // An error means that the sender is gone, and it is ours.
            let _ = pumps.wait_for(|writing| *writing == 0).await;
        })
    }

    fn spawn(
        &self,
        instance: &InstanceId,
        run: Run,
        slot: Slot,
        generation: Generation,
        spec: &Arc<ProcessSpec>,
    ) {
        let (handle, orders) = Handle::new(instance.clone(), run, slot, &spec.limits);
        let handle = Arc::new(handle);
        lock(&self.inner.runs).insert((instance.clone(), run), handle.clone());
        let asked = run::Asked { generation, spec: spec.clone() };
        self.starts.push(run::live(self.inner.clone(), handle, asked, orders));
    }

    fn begin(&self) {
        self.starts.begin_first();
    }

    fn terminate(&self, instance: &InstanceId, run: Run, stop: &StopSpec) {
        self.order(instance, run, Order::Terminate(stop.signal));
    }

    fn kill(&self, instance: &InstanceId, run: Run) {
        self.order(instance, run, Order::Kill);
    }

    fn signal(&self, instance: &InstanceId, run: Run, signal: Signal, whom: Whom) {
        self.order(instance, run, Order::Signal(signal, whom));
    }

    fn limit(&self, instance: &InstanceId, run: Run, spec: &Arc<ProcessSpec>) {
        if let Some(handle) = self.handle(instance, run) {
            handle.limit(&spec.limits);
        }
    }

    fn unenforced(&self, instance: &InstanceId, run: Run, limits: &Limits) -> Vec<Limit> {
        let Some(handle) = self.handle(instance, run) else { return Vec::new() };
        let group = handle.group();
        held::unenforced(group.as_ref().map(|group| group.path()), limits)
    }

    fn enforceable(&self) -> BTreeSet<Limit> {
        self.inner.enforceable.clone()
    }

    fn usage(&self, instance: &InstanceId, run: Run) -> Option<Usage> {
        let group = self.handle(instance, run)?.group()?;
        let cpu = group.number("cpu.stat", Some("usage_usec "));
        let (memory, tasks) =
            (group.number("memory.current", None), group.number("pids.current", None));
        // Where there is no controller, what can be counted is.
        let counted =
            || -> Vec<Process> { group.pids().into_iter().filter_map(census::read).collect() };
        let counted = if memory.is_none() || tasks.is_none() { counted() } else { Vec::new() };
        let page = rustix::param::page_size() as u64;
        Some(Usage {
            memory: memory.or_else(|| Some(counted.iter().map(|one| one.pages * page).sum())),
            cpu: cpu.map(|micros| micros * 1000),
            tasks: tasks.or_else(|| Some(counted.iter().map(|one| one.threads).sum())),
        })
    }

    fn control_group(&self, instance: &InstanceId, run: Run) -> Option<String> {
        self.handle(instance, run)?.control_group()
    }

    fn unit(&self, instance: &InstanceId, slot: Slot) -> Option<String> {
        Some(self.inner.names.of(instance, slot))
    }

    fn pidfd(&self, instance: &InstanceId, run: Run) -> Option<OwnedFd> {
        self.handle(instance, run)?.pidfd()?.try_clone().ok()
    }

    fn remembers_ends(&self) -> bool {
        true
    }

    fn end_is_kept(&self, instance: &InstanceId, run: Run) {
        if let Some(handle) = self.handle(instance, run) {
            handle.end_is_kept();
        }
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
        let path = log::file_of(instance, &spec.exec)?;
        Some(self.open_log_file(instance, path, &spec.exec, request))
    }

    fn sockets(&self) -> &Arc<Sockets> {
        &self.inner.sockets
    }

    fn network(&self) -> &Network {
        &self.inner.network
    }

    fn lacks(&self, spec: &ProcessSpec) -> Option<String> {
        let needs = !spec.exec.sockets.is_empty() && !self.inner.passes;
        needs.then(|| unit::CANNOT_PASS.to_owned())
    }

    fn forget(&self, instance: &InstanceId) {
        for purpose in Purpose::ALL {
            lock(&self.inner.commands).remove(&(instance.clone(), purpose));
        }
    }
}

impl SystemdBackend {
    /// Opens the log file as the user whose it is; parts of it are shown by a program.
    fn open_log_file(
        &self,
        instance: &InstanceId,
        path: String,
        exec: &ExecSpec,
        request: LogRequest,
    ) -> io::Result<OwnedFd> {
        let identity = self.inner.identities.find_now(exec);
        let identity = identity.map_err(|error| io::Error::other(error.to_string()))?;
        let file = open_log_file(&identity, &path)?;
        if request == LogRequest::default() {
            return Ok(file.into());
        }
        let (read, write) = log::pipe().map_err(|error| io::Error::other(error.to_string()))?;
        let (inner, instance) = (self.inner.clone(), instance.clone());
        tokio::spawn(async move {
            log::show(&inner, &instance, &identity, path.into(), request, write).await;
        });
        Ok(read)
    }
}

/// Nothing panics while it holds one of these, and each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_takes_few_names_of_variables() {
        let variables = |name: &str| BTreeMap::from([(name.to_owned(), String::new())]);
        for good in ["PATH", "_x", "A1"] {
            assert_eq!(bad_variable(&variables(good)), None);
        }
        for bad in ["1X", "X.Y", "X-Y", "", "Ä"] {
            assert_eq!(bad_variable(&variables(bad)), Some(bad));
        }
    }
}
