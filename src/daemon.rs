//! The daemon as a whole: puts the parts together and turns signals into requests.

use crate::backend::native::console::ConsoleOptions;
use crate::backend::native::{NativeBackend, NativeOptions};
use crate::bus::{self, LogControl, PrivateSocket, ServeError, Service};
use crate::config::load::{DaemonSettings, Location, Mode};
use crate::driver::handle::{Handle, ReloadOptions, Trigger};
use crate::driver::{self, Driver};
use crate::journal;
use crate::notify::Notifier;
use crate::probe::Prober;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

pub use crate::bus::Bus;

/// A bus that is not there yet must not hold up the start for longer.
const BUS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

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
}

/// Runs a daemon until it has ended everything.
#[must_use]
pub fn run(options: DaemonOptions) -> ExitCode {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let verbosity = journal::set_up(color);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    match runtime.block_on(serve(options, verbosity)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::FAILURE
}

async fn serve(options: DaemonOptions, verbosity: journal::Verbosity) -> Result<u8, String> {
    let config = std::path::absolute(&options.config)
        .map_err(|error| format!("{}: {error}", options.config.display()))?;
    let environment: Arc<BTreeMap<String, String>> = Arc::new(
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    );
    let (sender, facts) = driver::facts();
    let backend = NativeBackend::new(
        sender.clone(),
        NativeOptions {
            mode: options.mode,
            environment: environment.clone(),
            default_user: DaemonSettings::default().default_user,
            name: name_of(&options),
            // In the foreground what processes write belongs on the terminal.
            journal: if options.foreground { None } else { journal::stream::socket() },
            console: ConsoleOptions::stdout(),
        },
    )
    .map_err(|error| format!("cannot supervise processes here: {error}"))?;
    let prober = Prober::new(sender, backend.clone());
    let location = Location { main: config, mode: options.mode, environment };
    let driver = driver::Options { location, ends_by_itself: options.foreground, seed: seed() };
    let notifier = Notifier::from_environment();
    let (driver, handle) = Driver::new(driver, backend, prober, facts, notifier);
    listen(&options, &handle, verbosity).await?;
    tokio::spawn(watch_signals(handle, options.foreground));
    Ok(driver.run().await)
}

/// Serves the objects on the private sockets and the bus. Nothing but another daemon in the same
/// place is a reason not to supervise: where nobody can ask, processes are kept running all the same.
async fn listen(
    options: &DaemonOptions,
    handle: &Handle,
    verbosity: journal::Verbosity,
) -> Result<(), String> {
    let service = Service::new(handle.clone(), Arc::new(Log(verbosity)));
    for path in &options.sockets {
        match PrivateSocket::bind(path) {
            Ok(socket) => {
                let service = service.clone();
                tokio::spawn(async move {
                    if let Err(error) = socket.serve(service).await {
                        tracing::error!("{error}");
                    }
                });
            }
            Err(error @ ServeError::Taken(_)) => return Err(error.to_string()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    let Some(kind) = options.bus else { return Ok(()) };
    let (serving, mut is_serving) = tokio::sync::watch::channel(false);
    let mut serve = tokio::spawn(bus::on_bus(service, kind, serving));
    tokio::select! {
        ended = &mut serve => match ended {
            Ok(Err(error)) => Err(error.to_string()),
            _ => Ok(()),
        },
        Ok(()) = is_serving.changed() => Ok(()),
        () = tokio::time::sleep(BUS_PATIENCE) => Ok(()),
    }
}

/// The daemon's own log, as the bus sees it.
struct Log(journal::Verbosity);

impl LogControl for Log {
    fn level(&self) -> String {
        self.0.get().to_owned()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        if self.0.set(level) { Ok(()) } else { Err(format!("{level:?} is no level of syslog(3)")) }
    }

    fn target(&self) -> String {
        let journal = libsystemd::logging::connected_to_journal();
        if journal { "journal" } else { "console" }.to_owned()
    }
}

/// Tells two daemons on one machine apart: in names of control groups.
fn name_of(options: &DaemonOptions) -> String {
    match (options.mode, options.foreground) {
        (Mode::System, _) => "system".to_owned(),
        (Mode::User, false) => "user".to_owned(),
        (Mode::User, true) => format!("up-{}", std::process::id()),
    }
}

/// Spreads restarts; nothing secret depends on it.
fn seed() -> u64 {
    let time = driver::handle::now().0;
    time ^ (u64::from(std::process::id()) << 32)
}

/// SIGTERM and SIGINT end everything in order, a second one at once; SIGHUP reloads, or ends a
/// foreground that lost its terminal.
async fn watch_signals(handle: Handle, foreground: bool) {
    let streams = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = streams else {
        tracing::error!("signals cannot be received");
        return;
    };
    let has_terminal = foreground && std::fs::File::open("/dev/tty").is_ok();
    let mut asked = false;
    loop {
        let ends = tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            _ = hangup.recv() => has_terminal,
        };
        if ends && asked {
            handle.kill().await;
        } else if ends {
            asked = true;
            handle.shutdown().await;
        } else {
            tokio::spawn(reload(handle.clone()));
        }
    }
}

/// What comes of it is in the log.
async fn reload(handle: Handle) {
    let generation = handle.published().manager().summary.generation;
    tracing::info!("SIGHUP: reloading on top of generation {generation}");
    let _ = handle.reload(Trigger::Signal, ReloadOptions::default()).await;
}
