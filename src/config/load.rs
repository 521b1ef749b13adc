//! Reads all files of a configuration once, and makes a [`Config`] of them.

use super::diagnostic::Diagnostic;
use crate::core::ids::ProcessId;
use crate::core::spec::Config;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whose daemon it is: what differs between the system's, a user's and a project's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The system's: processes run as the unprivileged default user unless they name another, and
    /// nothing of the daemon's environment is visible.
    System,
    /// A user's, or `provost up`: processes run as the caller and see its PATH; `${NAME}` is looked
    /// up in the daemon's environment last.
    User,
}

/// Where a configuration is.
#[derive(Clone, Debug)]
pub struct Location {
    /// The main file, absolute: it has `processManagement:`, `processes:`, or both.
    pub main: PathBuf,
    /// Whose daemon it is.
    pub mode: Mode,
    /// The daemon's own environment, for [`Mode::User`].
    pub environment: Arc<BTreeMap<String, String>>,
}

/// Settings that concern the daemon and not the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Whether changes of the files are noticed by themselves.
    pub watch: bool,
    /// How long a finished write settles.
    pub debounce: Duration,
    /// Whether a new configuration is checked against the machine.
    pub validate: bool,
    /// The user of processes that name none, in [`Mode::System`].
    pub default_user: Arc<str>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        DaemonSettings {
            watch: true,
            debounce: Duration::from_millis(100),
            validate: true,
            default_user: Arc::from("provost"),
        }
    }
}

/// One file that was read, with its content, so that diagnostics can show excerpts and a later
/// generation can keep it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Absolute.
    pub path: Arc<PathBuf>,
    /// Its content; None when it is missing or could not be read.
    pub content: Option<Arc<[u8]>>,
    /// When it was last modified.
    pub modified: Option<SystemTime>,
    /// What it is.
    pub kind: SourceKind,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The file named on the command line, or the standard one.
    Main,
    /// The file named by `processConfigFile`.
    Processes,
    /// A file of the drop-in directory.
    DropIn,
    /// An environment file.
    Env,
}

/// All that was read, whatever came of it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// In the order read.
    pub files: Vec<Source>,
    /// The drop-in directory, whether or not it exists.
    pub drop_ins: PathBuf,
    /// SHA-256 over paths and contents, in hex.
    pub digest: String,
}

/// What came of reading a configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All that was read. Also complete when there are errors, so that the right files are watched.
    pub sources: Sources,
    /// The configuration, when there is no error.
    pub config: Option<Arc<Config>>,
    /// The daemon's settings, when there is no error.
    pub daemon: DaemonSettings,
    /// Whether the file with the processes is missing.
    pub missing: bool,
    /// All errors and warnings, in the order of the files and places.
    pub diagnostics: Vec<Diagnostic>,
    /// Where each process is defined, for messages about it later.
    pub places: BTreeMap<ProcessId, super::diagnostic::Place>,
}
