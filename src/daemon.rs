//! Stands in for the daemon until the branches meet.

use crate::config::load::Mode;
use std::path::PathBuf;

/// Which bus.
#[derive(Clone, Copy, Debug)]
pub enum BusKind {
    /// The user's.
    Session,
    /// The system's.
    System,
}

/// Options of the daemon.
#[derive(Debug)]
pub struct DaemonOptions {
    /// The main file.
    pub config: PathBuf,
    /// Whose daemon.
    pub mode: Mode,
    /// The bus to be on.
    pub bus: Option<BusKind>,
    /// The sockets to listen on.
    pub sockets: Vec<PathBuf>,
    /// Whether it is `provost up`.
    pub foreground: bool,
}

/// Runs the daemon.
#[must_use]
pub fn run(options: DaemonOptions) -> std::process::ExitCode {
    let _ = options;
    std::process::ExitCode::FAILURE
}
