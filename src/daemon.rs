//! The daemon as a whole: puts the parts together and turns signals into requests.
//!
//! | part | owns |
//! |---|---|
//! | [`upgrade`] | another program in the place of this one |
//! | [`handover`] | the descriptors that go from one to the other |

pub mod handover;
pub mod upgrade;

use crate::backend::Kept;
use crate::backend::choice::{self, BackendOptions};
use crate::backend::native::hold;
use crate::backend::notices::{self, Notices};
use crate::backend::sockets::{self, Sockets};
use crate::backend::systemd::unit::Names;
use crate::bus::{self, LogControl, PrivateSocket, ServeError, Service, Upgrades};
use crate::config::load::{DaemonSettings, Location, Mode, backend_choice};
use crate::core::ids::{InstanceId, Run};
use crate::core::snapshot::Restored;
use crate::driver::handle::{Handle, ReloadOptions, Trigger, Turn};
use crate::driver::{self, Driver, Keeping};
use crate::journal;
use crate::notify::Notifier;
use crate::probe::Prober;
use crate::store::checkpoint::Checkpoints;
use crate::store::generations::Generations;
use crate::store::runs::stored_run;
use crate::store::{self, Store};
use crate::sys::arrival::{self, Arrival};
use crate::sys::sigchld;
use crate::sys::{listen, memory};
use handover::Handed;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use upgrade::{OwnProgram, Upgrade};

pub use crate::bus::Bus;

/// A bus that is not there yet must not hold up the start for longer.
const BUS_PATIENCE: Duration = Duration::from_secs(2);

/// At the end, whoever reads the output of processes has so long to read the rest of it.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// What follows a reload by itself has come by then: the look at the files once they are watched, and the
/// last that the service manager is told.
const UNTIL_AT_REST: Duration = Duration::from_millis(500);

/// The same for the daemon's own log.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The main file.
    pub config: PathBuf,
    /// Whose daemon it is.
    pub mode: Mode,
    /// The bus to be on; None: only the private sockets.
    pub bus: Option<Bus>,
    /// The private sockets.
    pub sockets: Vec<PathBuf>,
    /// Whether it is `provost up`: logs on the terminal, ends when nothing can run again.
    pub foreground: bool,
    /// Where it keeps what it needs when it is killed; it ends with the boot. None: nowhere.
    pub runtime: Option<PathBuf>,
    /// Where it keeps what outlives the boot. None: nowhere.
    pub state: Option<PathBuf>,
}

/// Runs a daemon until it has ended everything.
#[must_use]
pub fn run(options: DaemonOptions) -> ExitCode {
    // These before there is any other thread.
    memory::share_one_heap();
    let handed = Handed::take();
    arrival::defer();
    sigchld::block();
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = journal::set_up(color);
    let handed = handed.unwrap_or_else(|why| {
        tracing::error!("nothing is taken from the program before: {why}");
        None
    });
    let code = match runtime() {
        Ok(runtime) => {
            let served = runtime.block_on(serve(options, log.clone(), handed));
            // A thread may be in a write that nobody reads, or a read that nobody answers.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(format!("cannot start: {error}")),
    };
    let code = code.map_or_else(
        |error| {
            tracing::error!("{error}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    );
    log.flush(LAST_WORDS);
    code
}

/// Whether this process goes on with what another program in its place ran.
#[must_use]
pub fn is_to_go_on() -> bool {
    handover::is_expected()
}

/// What runs everything. A thread for what blocks is there from the beginning and for good: tokio
/// panics where it has none and the system gives none, and that must not end a daemon.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().thread_keep_alive(Duration::MAX).build()?;
    // It is said in words where not even one can be had.
    std::thread::Builder::new().spawn(|| {})?;
    drop(runtime.spawn_blocking(|| {}));
    Ok(runtime)
}

async fn serve(
    options: DaemonOptions,
    log: journal::Log,
    mut handed: Option<Handed>,
) -> Result<u8, String> {
    let program = OwnProgram::find();
    // From here on: as PID 1 a signal without a handler would be lost.
    let signals = Signals::new(options.foreground)
        .map_err(|error| format!("signals cannot be received: {error}"))?;
    // In vain it costs nothing but that no other program can follow.
    let arrival = Arrival::begin().ok();
    if let Some(handed) = &handed {
        tracing::info!("going on as {}, after {}", env!("CARGO_PKG_VERSION"), handed.from);
    }
    let config = std::path::absolute(&options.config)
        .map_err(|error| format!("{}: {error}", options.config.display()))?;
    let environment: Arc<BTreeMap<String, String>> = Arc::new(
        std::env::vars_os()
            // For the daemon, and nobody else's.
            .filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"LISTEN_"))
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    );
    // Before anything is read or written: there may be another daemon in the same place.
    let place = options.runtime.as_deref().map(|directory| {
        match handed.as_mut().and_then(|handed| handed.remove(upgrade::LOCK)) {
            Some(lock) => store::lock::take_over(directory, lock),
            None => store::lock::take(directory),
        }
    });
    let place = place.transpose().map_err(|taken| match taken.pid {
        Some(pid) if options.foreground => format!(
            "`provost up` runs already for this directory (pid {pid}); `provost` shows what runs"
        ),
        _ => taken.to_string(),
    })?;
    let place = place.flatten();
    let private = bind(&options, &mut handed)?;
    let is_followed = handed.is_some();
    let mut inherited = listen::inherited();
    inherited.extend(handed.map(|handed| handed.descriptors).unwrap_or_default());
    let notices = open_notices(options.runtime.as_deref(), &mut inherited);
    let (store, runs, mut found) =
        Store::open(options.runtime.as_deref(), options.state.as_deref());
    let told = store.told().clone();
    log.on_written(move |number| told.advance(number));
    let mut notifier = Notifier::from_environment();
    if is_followed {
        // The one before was fed last by the program before.
        notifier.still_alive();
    }
    let kept: Vec<_> = inherited.extract_if(.., |(name, _)| sockets::is_stored(name)).collect();
    let held = Arc::new(Sockets::new(kept, Some(keeper(&notifier))));
    let (sender, facts) = driver::facts();
    let backend = choice::choose(
        sender.clone(),
        BackendOptions {
            choice: backend_choice(&config),
            mode: options.mode,
            foreground: options.foreground,
            environment: environment.clone(),
            default_user: DaemonSettings::default().default_user,
            name: name_of(&options),
            units: units_of(&options),
            runs,
            runtime: options.runtime.clone(),
            notices: notices.as_ref().map(|(notices, _)| notices.path().into()),
            sockets: held,
        },
    )
    .await
    .map_err(|error| format!("cannot supervise processes here: {error}"))?;
    let generations = Generations::open(options.state.as_deref(), &mut found.remarks);
    let (checkpoints, tentative) = Checkpoints::open(options.state.as_deref(), &mut found.remarks);
    backend.take_over(inherited.extract_if(.., |(name, _)| hold::is_handed(name)).collect());
    let (names, stored) = stored_pidfds(inherited);
    backend.sockets().retain(|id| found.restored.instances.keys().any(|inst| inst.process == *id));
    found.restored.there = backend.recover(kept_runs(&found.restored), stored).await;
    for name in names {
        // What goes on is taken back when it ends.
        if stored_run(&name).is_none_or(|run| !found.restored.there.contains(&run)) {
            notifier.take_back(name);
        }
    }
    let mut listeners = Vec::new();
    for socket in &private {
        listeners.extend(socket.copy().map(|copy| (listener_name(socket.path()), copy)));
    }
    if let Some((notices, stale)) = notices {
        listeners.extend(notices.copy());
        stale.into_iter().for_each(|name| notifier.take_back(name));
        if let Some((name, socket)) = notices.for_store() {
            notifier.store(name, socket);
        }
        tokio::spawn(notices.listen(backend.clone(), sender.clone()));
    }
    let keeping = Keeping { store, checkpoints, found, tentative };
    let prober = Prober::new(sender, backend.clone());
    let (output, held) = (backend.clone(), backend.clone());
    let location = Location { main: config, mode: options.mode, environment };
    let driver = driver::Options { location, ends_by_itself: options.foreground, seed: seed() };
    let unsent = notifier.unsent();
    // Who is started by nobody is followed by nobody.
    let may_leave = notifier.is_heard() && !options.foreground;
    let (driver, handle) =
        Driver::new(driver, keeping, generations, backend, prober, facts, notifier);
    let (upgrades, requests) = Upgrades::new();
    let serving = Serving { handle: &handle, log: log.clone(), upgrades, is_followed };
    listen(&options, private, serving).await?;
    let upgrade = Upgrade {
        program,
        backend: held,
        handle: handle.clone(),
        unsent: unsent.clone(),
        log,
        arrival,
        place,
        listeners,
    };
    tokio::spawn(upgrade.serve(requests));
    let hurry = Arc::new(Notify::new());
    let leave = Arc::new(Notify::new());
    let asked = Asked { hurry: hurry.clone(), leave: may_leave.then(|| leave.clone()) };
    tokio::spawn(give_memory_back(handle.subscribe()));
    tokio::spawn(signals.watch(handle, asked));
    let code = tokio::select! {
        code = driver.run() => code,
        () = leave.notified() => {
            tracing::info!("going to be restarted: the processes are left as they are");
            // By these the next one knows how a process ended.
            unsent.flush(LAST_WORDS);
            return Ok(0);
        }
    };
    tokio::select! {
        () = output.drained() => {}
        () = tokio::time::sleep(LAST_OUTPUT) => {}
        () = hurry.notified() => {}
    }
    // What was stored and is of no use any more.
    unsent.flush(LAST_WORDS);
    Ok(code)
}

/// The socket that processes speak to, as it was kept or made anew, and the names of what was kept
/// and is of no use. Without one, those that are to speak cannot be started, and all others can.
fn open_notices(
    runtime: Option<&Path>,
    inherited: &mut Vec<(String, OwnedFd)>,
) -> Option<(Notices, Vec<String>)> {
    // Where its users can get to it; what is in the runtime directory itself is nobody else's.
    let directory = runtime?.parent()?;
    let kept: Vec<_> = inherited.extract_if(.., |(name, _)| notices::is_stored(name)).collect();
    let mut stale: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
    let opened = Notices::open(directory, kept).inspect_err(|error| {
        tracing::warn!("{}: no process can speak for itself: {error}", directory.display());
    });
    let notices = opened.ok()?;
    stale.retain(|name| *name != notices.stored_name());
    Some((notices, stale))
}

/// Has the service manager keep the sockets of processes.
fn keeper(notifier: &Notifier) -> sockets::Keeper {
    let descriptors = notifier.for_descriptors();
    Arc::new(move |name, socket| match socket {
        Some(socket) => descriptors.store(name, socket),
        None => descriptors.take_back(name),
    })
}

/// What the service manager had stored: the name of each, and those that stand for runs.
fn stored_pidfds(
    inherited: Vec<(String, OwnedFd)>,
) -> (BTreeSet<String>, HashMap<(InstanceId, Run), OwnedFd>) {
    let names = inherited.iter().map(|(name, _)| name.clone()).collect();
    let pidfds = inherited.into_iter();
    let pidfds = pidfds.filter_map(|(name, pidfd)| Some((stored_run(&name)?, pidfd))).collect();
    (names, pidfds)
}

/// The runs that may still be there.
#[must_use]
pub fn kept_runs(restored: &Restored) -> Vec<Kept> {
    let runs = restored.instances.iter().flat_map(|(id, kept)| {
        let current = kept.run().map(|run| (run, kept.slot, &kept.spec));
        let former = kept.former.as_ref().map(|former| (&former.run, former.slot, &former.spec));
        current.into_iter().chain(former).map(|(run, slot, spec)| Kept {
            instance: id.clone(),
            run: run.run,
            slot,
            spec: spec.clone(),
            started: run.started.is_some(),
        })
    });
    runs.collect()
}

/// Takes the private sockets. Nothing but another daemon in the same place is a reason not to
/// supervise: where nobody can ask, processes are kept running all the same.
fn bind(
    options: &DaemonOptions,
    handed: &mut Option<Handed>,
) -> Result<Vec<PrivateSocket>, String> {
    let mut sockets = Vec::new();
    for path in &options.sockets {
        let listener = handed.as_mut().and_then(|handed| handed.remove(&listener_name(path)));
        if let Some(listener) = listener {
            match PrivateSocket::take_over(path, listener) {
                Ok(socket) => {
                    sockets.push(socket);
                    continue;
                }
                Err(error) => tracing::warn!("{error}; it is made anew"),
            }
        }
        match PrivateSocket::bind(path) {
            Ok(socket) => sockets.push(socket),
            Err(error @ ServeError::Taken(_)) => return Err(error.to_string()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    if sockets.is_empty() && options.bus.is_none() && !options.sockets.is_empty() {
        tracing::error!("nobody can reach this daemon: it has no private socket and no bus");
    }
    Ok(sockets)
}

/// The name under which a private socket is handed over.
fn listener_name(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("{}{}", upgrade::LISTENER, path.display())
}

/// What is served.
struct Serving<'a> {
    handle: &'a Handle,
    log: journal::Log,
    upgrades: Upgrades,
    /// Another program in this process has served before.
    is_followed: bool,
}

/// Serves the objects on the private sockets and the bus.
async fn listen(
    options: &DaemonOptions,
    sockets: Vec<PrivateSocket>,
    Serving { handle, log, upgrades, is_followed }: Serving<'_>,
) -> Result<(), String> {
    let service = Service::new(handle.clone(), Arc::new(Log(log)), Some(upgrades));
    for socket in sockets {
        let service = service.clone();
        tokio::spawn(async move {
            if let Err(error) = socket.serve(service).await {
                tracing::error!("{error}");
            }
        });
    }
    let Some(kind) = options.bus else { return Ok(()) };
    let (serving, mut is_serving) = tokio::sync::watch::channel(false);
    let mut serve = tokio::spawn(bus::on_bus(service, kind, serving, is_followed));
    tokio::select! {
        ended = &mut serve => match ended {
            Ok(Err(error)) => Err(error.to_string()),
            _ => Ok(()),
        },
        Ok(()) = is_serving.changed() => Ok(()),
        () = tokio::time::sleep(BUS_PATIENCE) => Ok(()),
    }
}

/// After each reload, and each look at the files: reading a file takes many times of what is kept of it.
async fn give_memory_back(mut turns: broadcast::Receiver<Arc<Turn>>) {
    loop {
        match turns.recv().await {
            Ok(turn) if turn.reloads.is_empty() && !turn.has_looked => {}
            Ok(_) | Err(RecvError::Lagged(_)) => {
                // Once for all of it.
                tokio::time::sleep(UNTIL_AT_REST).await;
                turns = turns.resubscribe();
                // It locks what all need for their memory, but only where it is looking.
                let _ = tokio::task::spawn_blocking(memory::give_back).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The daemon's own log, as the bus sees it.
struct Log(journal::Log);

impl LogControl for Log {
    fn level(&self) -> String {
        self.0.level().to_owned()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        if self.0.set_level(level) {
            Ok(())
        } else {
            Err(format!("{level:?} is no level of syslog(3)"))
        }
    }

    fn target(&self) -> String {
        if journal::is_in_journal() { "journal" } else { "console" }.to_owned()
    }
}

/// Tells two daemons on one machine apart, in names of control groups; the next one in the same
/// place has the same name.
fn name_of(options: &DaemonOptions) -> String {
    let kind = match options.mode {
        _ if options.foreground => "up",
        Mode::System => "system",
        Mode::User => "user",
    };
    // What is in a group of this name and of no known run is ended.
    match &options.runtime {
        Some(runtime) => format!("{kind}-{:016x}", number_of(runtime)),
        None => format!("{kind}-{}", std::process::id()),
    }
}

/// The same for units. Those of the standard daemon have short names.
fn units_of(options: &DaemonOptions) -> Names {
    let standard = match options.mode {
        Mode::System => Some(PathBuf::from("/run")),
        Mode::User => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
    };
    let standard = standard.map(|directory| directory.join("provost/state"));
    let id = options.runtime.as_deref().map_or(0, number_of);
    Names::new(options.runtime == standard, (id >> 32) as u32)
}

fn number_of(runtime: &Path) -> u64 {
    let digest = Sha256::digest(runtime.as_os_str().as_bytes());
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Spreads restarts; nothing secret depends on it.
fn seed() -> u64 {
    let time = driver::handle::now().0;
    time ^ (u64::from(std::process::id()) << 32)
}

/// Who is told of what signals ask for.
struct Asked {
    /// Nothing is to be waited for any more.
    hurry: Arc<Notify>,
    /// The daemon is to end and leave its processes; None where there will be no other one.
    leave: Option<Arc<Notify>>,
}

/// What the daemon is told by signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// `RestartKillSignal=` of the units (systemd.kill(5)).
    restart: Signal,
    /// Whether a hangup means that the terminal is gone.
    has_terminal: bool,
}

impl Signals {
    fn new(foreground: bool) -> io::Result<Signals> {
        // nohup(1) is how a terminal is left without an end; it has to be asked before there is a
        // handler.
        let has_terminal = foreground
            && !is_ignored(SignalKind::hangup())
            && std::fs::File::open("/dev/tty").is_ok();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            restart: signal(SignalKind::user_defined1())?,
            has_terminal,
        })
    }

    /// SIGTERM and SIGINT end everything in order, a second one at once; SIGHUP reloads, or ends a
    /// foreground that lost its terminal. Of that the shell tells, and the kernel again: however
    /// often it comes, it never means to hurry, nor is it the first of two. SIGUSR1 ends the daemon
    /// alone, and comes before a restart of its service.
    async fn watch(mut self, handle: Handle, to_tell: Asked) {
        let mut asked = false;
        loop {
            let asked_to_end = tokio::select! {
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = self.hangup.recv() => false,
                _ = self.restart.recv() => {
                    match &to_tell.leave {
                        // Everything is being ended already.
                        Some(_) if asked => {}
                        Some(leave) => leave.notify_one(),
                        None => tracing::warn!("SIGUSR1 is for a daemon that is started again"),
                    }
                    continue;
                }
            };
            if asked_to_end && asked {
                to_tell.hurry.notify_one();
                handle.kill().await;
            } else if asked_to_end || self.has_terminal {
                asked |= asked_to_end;
                handle.shutdown().await;
            } else {
                tokio::spawn(reload(handle.clone()));
            }
        }
    }
}

/// Whether whoever started this process had it ignore a signal.
fn is_ignored(kind: SignalKind) -> bool {
    crate::sys::signal::ignored().unwrap_or(0) & (1 << (kind.as_raw_value() - 1)) != 0
}

/// What comes of it is in the log.
async fn reload(handle: Handle) {
    let generation = handle.published().manager().summary.generation;
    tracing::info!("SIGHUP: reloading on top of generation {generation}");
    let _ = handle.reload(Trigger::Signal, ReloadOptions::default()).await;
}
