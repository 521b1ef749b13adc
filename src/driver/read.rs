//! Reading a configuration and judging it against what is active. A reload and a plan go through
//! the same, so that what is shown is what would be done.

use crate::config::check::check_machine;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::load::{DaemonSettings, Loaded, Location, load_with};
use crate::core::ids::ProcessId;
use crate::core::reload::{ChangeKind, Plan};
use crate::core::spec::Config;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is active, to judge by.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) location: Location,
    /// None before there is any.
    pub(super) config: Option<Arc<Config>>,
    /// Whether its file with the processes was missing.
    pub(super) missing: bool,
    /// The daemon's settings of it.
    pub(super) daemon: Option<DaemonSettings>,
}

/// A configuration that was read and judged.
pub(super) struct Examined {
    pub(super) loaded: Loaded,
    /// What would change; None where it cannot be read.
    pub(super) plan: Option<Plan>,
    /// All that is wrong with the files, and with this machine for what is new or changed.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether it may not be applied.
    pub(super) is_refused: bool,
    /// Milliseconds each stage took.
    pub(super) timings: Vec<(&'static str, u64)>,
}

impl Standing {
    /// Reads the files, or takes a content for that of the file with the processes. Blocks.
    pub(super) fn examine(&self, content: Option<Vec<u8>>) -> Examined {
        let start = Instant::now();
        let loaded = load_with(&self.location, content);
        let read = millis(start.elapsed());
        let start = Instant::now();
        let none = Config::default();
        let active = self.config.as_deref().unwrap_or(&none);
        let plan = loaded.config.as_ref().map(|config| Plan::between(active, config));
        let planned = millis(start.elapsed());
        let start = Instant::now();
        let found = match (&loaded.config, &plan) {
            (Some(config), Some(plan)) => self.checked(&loaded, config, plan),
            _ => Vec::new(),
        };
        let timings = vec![("read", read), ("plan", planned), ("check", millis(start.elapsed()))];
        let is_refused = self.refuses(&loaded, &found);
        let mut diagnostics = loaded.diagnostics.clone();
        diagnostics.extend(found);
        Examined { loaded, plan, diagnostics, is_refused, timings }
    }

    /// What is wrong with this machine is, at the start, a failure of the one process and not of the
    /// file. A file that is gone keeps what runs; one that was never there does not matter.
    fn refuses(&self, loaded: &Loaded, found: &[Diagnostic]) -> bool {
        let is_error = |problem: &Diagnostic| problem.severity == Severity::Error;
        let gone = loaded.missing && !self.missing;
        loaded.config.is_none() || (self.config.is_some() && (gone || found.iter().any(is_error)))
    }

    fn checked(&self, loaded: &Loaded, config: &Config, plan: &Plan) -> Vec<Diagnostic> {
        if !loaded.daemon.validate {
            return Vec::new();
        }
        let changes = plan.changes.iter().filter(|change| change.kind != ChangeKind::Removed);
        let which: BTreeSet<ProcessId> = changes.map(|change| change.process.clone()).collect();
        let (mode, user) = (self.location.mode, &loaded.daemon.default_user);
        check_machine(config, &which, mode, user, &loaded.places)
    }

    /// The daemon's settings once this was judged: those of what is active where it was refused.
    pub(super) fn settings_after(&self, examined: &Examined) -> DaemonSettings {
        match (&self.daemon, examined.is_refused) {
            (Some(active), true) => active.clone(),
            (None, _) | (_, false) => examined.loaded.daemon.clone(),
        }
    }
}

/// Milliseconds, as the record of a reload has them.
pub(super) fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
