//! The configuration from outside: files in, specs or diagnostics out.

// A test that cannot go on says so by failing.
#![allow(clippy::unwrap_used)]

mod accepted;
mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod diagnostics;
mod edit;
mod files;
mod hostile;
mod kept;
mod known;
mod machine;
mod moment;
#[path = "../daemon/namespace.rs"]
mod namespace;
mod render;
mod renewal;
mod resources;
mod watch;
mod watch_halves;
mod watch_random;
mod watch_settle;
mod watch_trees;
mod watch_unseen;

use provost::config::diagnostic::{Diagnostic, Severity};
use provost::config::load::{Loaded, Location, Mode, load};
use provost::config::render::one_line;
use provost::core::ids::ProcessId;
use provost::core::spec::{Config, ProcessSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A directory with files of a configuration.
pub(crate) struct Files {
    directory: TempDir,
    mode: Mode,
    environment: BTreeMap<String, String>,
}

impl Files {
    pub(crate) fn new() -> Files {
        let directory = tempfile::tempdir().unwrap();
        Files { directory, mode: Mode::User, environment: BTreeMap::new() }
    }

    pub(crate) fn with(self, name: &str, content: impl AsRef<[u8]>) -> Files {
        self.write(name, content);
        self
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn mode(mut self, mode: Mode) -> Files {
        self.mode = mode;
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Files {
        self.environment.insert(name.into(), value.into());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn location(&self, main: &str) -> Location {
        let environment = Arc::new(self.environment.clone());
        Location { main: self.path(main), mode: self.mode, environment }
    }

    pub(crate) fn load(&self, main: &str) -> Loaded {
        load(&self.location(main))
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }
}

/// One file, `processes.yaml`.
pub(crate) fn load_text(text: impl AsRef<[u8]>) -> Loaded {
    Files::new().with("processes.yaml", text).load("processes.yaml")
}

/// `LINE:COLUMN code` of each.
pub(crate) fn places(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |d: &Diagnostic| format!("{}:{} {}", d.place.line, d.place.column, d.code);
    diagnostics.iter().map(line).collect()
}

/// The configuration, which must have no problem at all.
pub(crate) fn good(loaded: &Loaded) -> Arc<Config> {
    let lines: Vec<String> = loaded.diagnostics.iter().map(one_line).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    Arc::clone(loaded.config.as_ref().unwrap())
}

/// One process of it.
pub(crate) fn process(loaded: &Loaded, id: &str) -> Arc<ProcessSpec> {
    Arc::clone(&good(loaded).processes[&ProcessId::new(id).unwrap()])
}

/// Whether it was refused, and then without a configuration.
pub(crate) fn refused(loaded: &Loaded) -> bool {
    let error = loaded.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), error);
    error
}
