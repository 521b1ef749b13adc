//! The daemon. See provostd(8).

use clap::{Parser, ValueEnum};
use provost::config::load::Mode;
use provost::daemon::handover::Formats;
use provost::daemon::{self, DaemonOptions, upgrade};
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps an application's processes running, from one file.
#[derive(Parser)]
#[command(name = "provostd", version, disable_help_subcommand = true)]
struct Arguments {
    /// Be the system's daemon (the default for root): system bus, /etc/provost
    #[arg(long, conflicts_with = "user")]
    system: bool,
    /// Be a user's daemon (the default for others): session bus, $XDG_CONFIG_HOME/provost
    #[arg(long)]
    user: bool,
    /// The main file instead of the standard one
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The bus to be on instead of the standard one
    #[arg(long, value_enum)]
    bus: Option<Bus>,
    /// The private socket instead of the standard one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where to keep what outlives a reboot; the standard place is only that of the standard socket
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Only say whether this program can take the place of one that writes these formats
    #[arg(long, value_name = "FORMATS", hide = true)]
    can_take_over: Option<Formats>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bus {
    System,
    Session,
    None,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    if let Some(formats) = arguments.can_take_over {
        return upgrade::answer(formats);
    }
    let root = nix::unistd::geteuid().is_root();
    let system = arguments.system || (root && !arguments.user);
    let (directory, runtime) = if system {
        (PathBuf::from("/etc/provost"), Some(PathBuf::from("/run")))
    } else {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let config = config.or_else(home).unwrap_or_else(|| PathBuf::from("."));
        (config.join("provost"), std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
    };
    let is_standard = arguments.socket.is_none();
    let standard_socket = || runtime.map(|runtime| runtime.join("provost/private"));
    let socket = arguments.socket.or_else(standard_socket);
    let bus = match (arguments.bus, system) {
        (Some(Bus::None), _) => None,
        (Some(Bus::System), _) | (None, true) => Some(daemon::Bus::System),
        (Some(Bus::Session), _) | (None, false) => Some(daemon::Bus::Session),
    };
    // Beside the socket, which is one daemon's alone.
    let runtime = socket.as_ref().and_then(|socket| Some(socket.parent()?.join("state")));
    daemon::run(DaemonOptions {
        runtime,
        // The standard place is that of the standard daemon: another one beside it has other
        // processes.
        state: arguments.state.or_else(|| state_directory(system).filter(|_| is_standard)),
        config: arguments.config.unwrap_or_else(|| standard_file(&directory)),
        mode: if system { Mode::System } else { Mode::User },
        bus,
        sockets: socket.into_iter().collect(),
        foreground: false,
    })
}

/// What the unit gives (systemd.exec(5), `StateDirectory=`), else the standard one.
fn state_directory(system: bool) -> Option<PathBuf> {
    let given = std::env::var_os("STATE_DIRECTORY").filter(|given| !given.is_empty());
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    given.map(PathBuf::from).or_else(|| match system {
        true => Some(PathBuf::from("/var/lib/provost")),
        false => absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("provost")),
    })
}

/// `provost.yaml` where there is one, else `processes.yaml`.
fn standard_file(directory: &std::path::Path) -> PathBuf {
    let daemon = directory.join("provost.yaml");
    if daemon.exists() { daemon } else { directory.join("processes.yaml") }
}

/// Help and version are answers; anything else is a usage error (sysexits(3): EX_USAGE).
fn usage(error: &clap::Error) -> ExitCode {
    // Nowhere to say it: then the code must do.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
}
