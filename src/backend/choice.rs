//! Which backend a daemon has.

use super::native::console::ConsoleOptions;
use super::native::{NativeBackend, NativeOptions};
use super::sockets::Sockets;
use super::systemd::link::Way;
use super::systemd::manager::Manager;
use super::systemd::unit::Names;
use super::systemd::{self, SystemdBackend, SystemdOptions};
use super::{Backend, Facts};
use crate::config::load::{BackendChoice, Mode};
use crate::journal;
use crate::store::runs::Runs;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What there is to choose by, and what each backend has to know about the daemon.
pub struct BackendOptions {
    /// What the file says.
    pub choice: BackendChoice,
    /// Whose daemon it is.
    pub mode: Mode,
    /// Whether it is `provost up`, which shows the output of processes on its terminal.
    pub foreground: bool,
    /// The daemon's own environment.
    pub environment: Arc<BTreeMap<String, String>>,
    /// The user of processes that name none, in [`Mode::System`].
    pub default_user: Arc<str>,
    /// The name of this daemon in control groups.
    pub name: String,
    /// The names of its units.
    pub units: Names,
    /// Where it is kept by what runs of the native backend are found again.
    pub runs: Runs,
    /// The daemon's own directory; it ends with the boot.
    pub runtime: Option<PathBuf>,
    /// The socket that runs speak to.
    pub notices: Option<Arc<Path>>,
    /// What is held for processes.
    pub sockets: Arc<Sockets>,
}

/// Makes the backend of a daemon. Needs a tokio runtime.
///
/// # Errors
/// When the backend that the file names cannot be had, or none can.
pub async fn choose(facts: Facts, options: BackendOptions) -> io::Result<Arc<dyn Backend>> {
    let way = way(&options);
    match (options.choice, way) {
        (BackendChoice::Native, way) => {
            if let Some(way) = way.filter(|_| !options.foreground) {
                end_units(way, &options.units).await;
            }
        }
        (_, Some(way)) => match with_systemd(&facts, way, &options).await {
            Ok(backend) => return Ok(backend),
            Err(error) if options.choice == BackendChoice::Systemd => return Err(error),
            Err(error) => tracing::info!("processes are children of the supervisor: {error}"),
        },
        (BackendChoice::Systemd, None) if !options.foreground => {
            let text = "`backend: systemd`, and systemd is not the manager here";
            return Err(io::Error::other(text));
        }
        (_, None) => {}
    }
    if options.mode == Mode::System && !options.foreground && is_in_sandbox() {
        tracing::error!(
            "processes are children of the supervisor here, and cannot run in the sandbox of its \
             service: link /usr/share/provost/native.conf into \
             /etc/systemd/system/provostd.service.d, then `systemctl daemon-reload` and restart it"
        );
    }
    let native = NativeOptions {
        mode: options.mode,
        environment: options.environment,
        default_user: options.default_user,
        name: options.name,
        // In the foreground what processes write belongs on the terminal.
        journal: if options.foreground { None } else { journal::stream::socket() },
        console: ConsoleOptions::stdout(),
        runs: options.runs,
        log_program: program("provost-log"),
        notices: options.notices,
        sockets: options.sockets,
    };
    Ok(NativeBackend::new(facts, native)?)
}

/// Whether we are a service from which something was taken. All units with a sandbox that is worth the
/// name also take the way to get it back (proc(5), `NoNewPrivs`).
fn is_in_sandbox() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_tied = status.lines().any(|line| line == "NoNewPrivs:\t1");
    is_tied && journal::stream::own_unit().is_some()
}

/// Where a program of ours is: beside the daemon, or where a distribution puts what nobody types.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let directory = own.parent().unwrap_or(Path::new("/"));
    let beside = directory.join(name);
    let libexec = directory.join("../libexec/provost").join(name);
    if !beside.exists() && libexec.exists() { libexec } else { beside }
}

/// How systemd is reached where it can be the backend.
fn way(options: &BackendOptions) -> Option<Way> {
    // What the terminal shows is read by us, and ends with us.
    let way = systemd::way(options.mode, &options.environment).filter(|_| !options.foreground)?;
    // On a bus anybody can connect; whether we may start units shows only with the first one.
    let is_sure = matches!(way, Way::Socket(_));
    (is_sure || options.choice == BackendChoice::Systemd).then_some(way)
}

async fn with_systemd(
    facts: &Facts,
    way: Way,
    options: &BackendOptions,
) -> io::Result<Arc<dyn Backend>> {
    let Some(runtime) = options.runtime.clone() else {
        return Err(io::Error::other("systemd needs a directory from which it reads environments"));
    };
    let options = SystemdOptions {
        mode: options.mode,
        environment: options.environment.clone(),
        default_user: options.default_user.clone(),
        name: options.name.clone(),
        names: options.units.clone(),
        log_program: program("provost-log"),
        net_program: program("provost-net"),
        runtime,
        token: options.runs.token(),
        notices: options.notices.clone(),
        sockets: options.sockets.clone(),
    };
    let connected = SystemdBackend::new(facts.clone(), way, options).await;
    connected.map(|backend| backend as Arc<dyn Backend>).map_err(|error| {
        io::Error::new(error.kind(), format!("systemd cannot be the backend: {error}"))
    })
}

/// What a daemon with the other backend has left would be doubled.
async fn end_units(way: Way, names: &Names) {
    /// A systemd that answers nothing must not hold up the start.
    const PATIENCE: Duration = Duration::from_secs(90);
    let ended = async {
        if let Ok(manager) = Manager::start(way).await {
            systemd::end_all(&manager, names).await;
        }
    };
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tracing::error!("units that another daemon has left could not be stopped in time");
    }
}
