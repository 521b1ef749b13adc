//! The daemon as a whole: puts the parts together and turns signals into requests.

use crate::backend::native::{NativeBackend, NativeOptions};
use crate::bus::serve;
use crate::config::load::{Location, Mode};
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

pub use crate::bus::serve::BusKind;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The main file.
    pub config: PathBuf,
    /// Whose daemon it is.
    pub mode: Mode,
    /// The bus to be on; None: only the private sockets.
    pub bus: Option<BusKind>,
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
            foreground: options.foreground,
        },
    )
    .map_err(|error| format!("cannot supervise processes here: {error}"))?;
    let prober = Prober::new(sender, backend.clone());
    let location = Location { main: config, mode: options.mode, environment };
    let driver = driver::Options {
        location,
        ends_by_itself: options.foreground,
        seed: seed(),
    };
    let notifier = Notifier::from_environment();
    let (driver, handle) = Driver::new(driver, backend, prober, facts, notifier);
    let _served = listen(&options, &handle, &verbosity).await?;
    tokio::spawn(watch_signals(handle, options.foreground));
    Ok(driver.run().await)
}

/// Serves the objects on the private sockets and the bus.
async fn listen(
    options: &DaemonOptions,
    handle: &Handle,
    verbosity: &journal::Verbosity,
) -> Result<Vec<serve::Served>, String> {
    let mut served = Vec::new();
    for path in &options.sockets {
        match serve::on_socket(handle.clone(), verbosity.clone(), path).await {
            Ok(socket) => served.push(socket),
            Err(error) if error.is_taken() => return Err(error.to_string()),
            // Supervising goes on where nobody can ask: a read-only file system is no reason not to.
            Err(error) => tracing::warn!("{error}"),
        }
    }
    if let Some(kind) = options.bus {
        match serve::on_bus(handle.clone(), verbosity.clone(), kind).await {
            Ok(bus) => served.push(bus),
            Err(error) if error.is_taken() => return Err(error.to_string()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(served)
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
