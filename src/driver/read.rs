//! Reading a configuration and judging it against what is active. A reload and a plan go through
//! the same, so that what is shown is what would be done.

use crate::backend::Backend;
use crate::backend::native::launch::reason as explain;
use crate::backend::sockets::is_taken;
use crate::config::able::Able;
use crate::config::check::check_machine;
use crate::config::diagnostic::{Diagnostic, Place, Severity};
use crate::config::known::Known;
use crate::config::load::{DaemonSettings, Loaded, Location, SourceKind, Sources, load_over};
use crate::core::ids::ProcessId;
use crate::core::limits::Limit;
use crate::core::reload::{ChangeKind, Plan};
use crate::core::spec::Config;
use crate::store::Missing;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is active, to judge by.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) location: Location,
    /// None before there is any.
    pub(super) config: Option<Arc<Config>>,
    /// Its files.
    pub(super) known: Option<Arc<Known>>,
    /// Which of its files were missing.
    pub(super) missing: Missing,
    /// The daemon's settings of it.
    pub(super) daemon: Option<DaemonSettings>,
    /// What runs the processes.
    pub(super) backend: Arc<dyn Backend>,
    /// The limits that it can enforce.
    pub(super) enforceable: BTreeSet<Limit>,
}

/// Which files are missing that could be there, and where others are.
pub(super) fn missing(loaded: &Loaded) -> Missing {
    let mut files = loaded.sources.files.iter();
    let main = files.any(|file| file.kind == SourceKind::Main && file.content.is_none());
    let mut files = loaded.sources.files.iter();
    let has_drop_ins = files.any(|file| file.kind == SourceKind::DropIn);
    let drop_ins = has_drop_ins.then(|| text(&loaded.sources.drop_ins));
    Missing { main, processes: loaded.missing, drop_ins }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
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
    /// What is known of what is active.
    fn known(&self) -> Option<&Known> {
        let config = self.config.as_ref()?;
        self.known.as_deref().filter(|known| known.is_of(config))
    }

    /// Reads the files, and what they mean only where they are not as they were. Blocks.
    pub(super) fn look(&self) -> Examined {
        let start = Instant::now();
        let unchanged = self.known().and_then(Known::load_unchanged);
        let Some(loaded) = unchanged else { return self.examine(None) };
        let mut diagnostics = loaded.diagnostics.clone();
        diagnostics.extend(self.other_backend(&loaded));
        let timings = vec![("read", millis(start.elapsed()))];
        let plan = Some(Plan::default());
        Examined { loaded, plan, diagnostics, is_refused: false, timings }
    }

    /// Reads the files, or takes a content for that of the file with the processes. Blocks.
    pub(super) fn examine(&self, content: Option<Vec<u8>>) -> Examined {
        let start = Instant::now();
        let mut loaded = load_over(self.known(), &self.location, content);
        if let (Some(config), Some(active)) = (&mut loaded.config, &self.config) {
            Arc::make_mut(config).share(active);
        }
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
        // It is so for as long as the files are as they are: kept with what is known of them.
        let without_effect = self.without_effect(&loaded);
        loaded.diagnostics.extend(without_effect);
        let mut diagnostics = loaded.diagnostics.clone();
        diagnostics.extend(found);
        if self.config.is_some() {
            self.find_gone(&loaded, &mut diagnostics);
        }
        diagnostics.extend(self.other_backend(&loaded));
        // What is wrong with this machine is, at the start, a failure of the one process and not of
        // the file.
        let has_errors = diagnostics.iter().any(|problem| problem.severity == Severity::Error);
        let is_refused = loaded.config.is_none() || (self.config.is_some() && has_errors);
        Examined { loaded, plan, diagnostics, is_refused, timings }
    }

    /// A file that was never there is no error; one that is gone keeps what runs.
    fn find_gone(&self, loaded: &Loaded, diagnostics: &mut Vec<Diagnostic>) {
        let now = missing(loaded);
        let gone = now.processes && !self.missing.processes;
        for problem in diagnostics.iter_mut().filter(|_| gone) {
            if problem.code == "missing-file" {
                problem.severity = Severity::Error;
            }
        }
        if now.main && !self.missing.main && !gone && loaded.config.is_some() {
            let main = &self.location.main;
            let place = Place::whole(Arc::new(main.clone()));
            let message = format!("{} is gone; its settings stay in force", main.display());
            diagnostics.push(Diagnostic::error("missing-file", place, message));
        }
        let Sources { drop_ins, has_drop_ins, .. } = &loaded.sources;
        if self.missing.drop_ins == Some(text(drop_ins)) && !has_drop_ins && !gone {
            let place = Place::whole(Arc::new(drop_ins.clone()));
            let message = format!("{} is gone; what its files say stays", drop_ins.display());
            let problem = Diagnostic::error("missing-file", place, message);
            diagnostics.push(problem.help("an empty directory there says that there is no file"));
        }
    }

    /// What runs the processes is chosen when the daemon starts.
    fn other_backend(&self, loaded: &Loaded) -> Option<Diagnostic> {
        let wanted = loaded.daemon.backend.name().filter(|name| *name != self.backend.name())?;
        let place = Place::whole(Arc::new(self.location.main.clone()));
        let message =
            format!("`backend: {wanted}`, and the processes run on `{}`", self.backend.name());
        let help = "it is chosen when the daemon is started; `provost up` is always native";
        Some(Diagnostic::warning("other-backend", place, message).help(help))
    }

    /// What nobody carries out here. Said of all processes, as long as it is so.
    fn without_effect(&self, loaded: &Loaded) -> Vec<Diagnostic> {
        let has_units = self.backend.name() == "systemd";
        let able = Able { has_units, limits: self.enforceable.clone() };
        let config = loaded.config.as_deref().filter(|_| loaded.daemon.validate);
        config.map(|config| able.check(config, &loaded.places)).unwrap_or_default()
    }

    fn checked(&self, loaded: &Loaded, config: &Config, plan: &Plan) -> Vec<Diagnostic> {
        if !loaded.daemon.validate {
            return Vec::new();
        }
        let changes = plan.changes.iter().filter(|change| change.kind != ChangeKind::Removed);
        let sockets = self.sockets(loaded, config, plan);
        let which: BTreeSet<ProcessId> = changes.map(|change| change.process.clone()).collect();
        let (mode, user) = (self.location.mode, &loaded.daemon.default_user);
        let mut found = check_machine(config, &which, mode, user, &loaded.places);
        found.extend(sockets);
        found
    }

    /// Whether the sockets of what is new or changed can be held.
    fn sockets(&self, loaded: &Loaded, config: &Config, plan: &Plan) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for change in &plan.changes {
            let Some(spec) = config.processes.get(&change.process) else { continue };
            let whole = || Place::whole(Arc::default());
            let place = loaded.places.get(&spec.id).cloned().unwrap_or_else(whole);
            let error = |code, text: String| {
                Diagnostic::error(code, place.clone(), format!("{}: {text}", spec.id))
            };
            if !spec.enabled || spec.exec.sockets.is_empty() {
                continue;
            }
            if let Some(text) = self.backend.lacks(spec) {
                found.push(error("cannot-hold-socket", text));
                continue;
            }
            let active = self.config.as_ref().and_then(|config| config.processes.get(&spec.id));
            if active.is_some_and(|active| active.enabled && active.exec.sockets.is_empty()) {
                // It may listen there by itself, and gives that up with its run.
                continue;
            }
            for (name, listen) in spec.exec.sockets.iter() {
                if self.backend.sockets().holds(listen) {
                    continue;
                }
                if let Some(reason) = is_taken(listen, self.backend.network()) {
                    let code = match reason.kind() {
                        io::ErrorKind::AddrInUse => "address-in-use",
                        _ => "cannot-hold-socket",
                    };
                    let text = format!("socket `{name}` at {listen}: {}", explain(&reason));
                    found.push(error(code, text));
                }
            }
        }
        found
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
