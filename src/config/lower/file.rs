//! One file as a whole: its role, its settings, its processes.

use super::at::At;
use super::environment::Variables;
use super::fields::{Field, Fields};
use super::{Blocks, File};
use crate::config::diagnostic::{Diagnostic, Place, shown};
use crate::config::keys::{FILE, Key, Kind as Wanted, MANAGEMENT, NOTICES, PROCESS};
use crate::config::load::{BackendChoice, DaemonSettings, Hooks};
use crate::config::yaml::{self, Kind, Node, Problem};
use crate::core::ids::{BadId, ProcessId};
use crate::core::spec::{self, Rollback};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has settings, processes or both.
    Main,
    /// It has processes.
    Processes,
}

/// What `processManagement` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// What the core acts on.
    pub(crate) core: spec::Settings,
    /// What concerns the daemon.
    pub(crate) daemon: DaemonSettings,
    /// The default of `healthCheck.interval`.
    pub(crate) interval: Option<Duration>,
    /// The default of `restartPolicy.maxAttempts`.
    pub(crate) max_attempts: Option<u32>,
    /// The file with the processes, where one is named, and where that is.
    pub(crate) process_file: Option<(PathBuf, Place)>,
}

/// What there was in a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Whether it has `processes`.
    pub(crate) processes: bool,
    /// Whether it has `processManagement`.
    pub(crate) management: bool,
}

impl<'s> File<'_, 's> {
    /// Reads all of it. The processes come after the settings, whose defaults they take. Returns where
    /// the processes stand, too, where each stands by itself.
    pub(crate) fn lower(mut self, role: Role) -> (Found, Option<Blocks>) {
        let text: &'s str = self.source.text;
        let parsed = yaml::parse(text);
        let broken = !parsed.problems.is_empty();
        for problem in &parsed.problems {
            self.syntax(problem);
        }
        match &parsed.root {
            Some(root) if !matches!(root.value.kind, Kind::Null { .. }) => {
                (self.root(root, role), Blocks::of(&parsed, text))
            }
            _ if broken => (Found { processes: true, management: true }, None),
            _ => {
                let place = Place::whole(Arc::clone(&self.source.path));
                self.no_processes("empty-file", place);
                (Found::default(), None)
            }
        }
    }

    fn syntax(&mut self, problem: &Problem) {
        let place = self.place(problem.span);
        let mut diagnostic = Diagnostic::error(problem.code, place, problem.message.clone());
        diagnostic.help.clone_from(&problem.help);
        if let Some((span, word)) = problem.related {
            diagnostic = diagnostic.related(self.place(span), word);
        }
        self.add(diagnostic);
    }

    fn no_processes(&mut self, code: &'static str, place: Place) {
        let problem = Diagnostic::error(code, place, "the file has no `processes:`");
        self.add(problem.help("`processes: {}` is how to say that there are none"));
    }

    fn root(&mut self, root: &Node<'s>, role: Role) -> Found {
        let at = At::root(root);
        let Some(mut entries) = self.entries(&at, "the file") else { return Found::default() };
        // Templates for `<<` stand where they are no process.
        entries.retain(|entry| !entry.name.starts_with("x-"));
        let has = |name| entries.iter().any(|entry| entry.name == name);
        let found = Found { processes: has("processes"), management: has("processManagement") };
        let stray: Vec<_> = entries
            .iter()
            .filter(|entry| FILE.key(entry.name).is_none() && looks_like_process(&entry.value))
            .map(|entry| (entry.name, entry.key.clone()))
            .collect();
        if !found.processes && !found.management && !stray.is_empty() {
            self.processes_at_the_top(&stray);
            return Found { processes: true, ..found };
        }
        for (name, key) in &stray {
            let name = shown(name);
            let problem = self.problem("unknown-key", key, format!("unknown key `{name}`"));
            self.add(problem.help(format!("indent `{name}` below `processes:`")));
        }
        entries.retain(|entry| !stray.iter().any(|(name, _)| *name == entry.name));
        let fields = self.known(entries, &FILE);
        self.base_dir(&fields);
        if let Some(field) = fields.get("processManagement") {
            match role {
                Role::Main => self.management(field),
                Role::Processes => {
                    let message = "`processManagement` belongs into the main file";
                    self.add(self.problem("misplaced-key", &field.key, message));
                }
            }
        }
        if let Some(field) = fields.get("processes") {
            self.processes(field);
        } else if !found.processes && (!found.management || role == Role::Processes) {
            let place = self.place(at.span());
            self.no_processes("no-processes", Place { bytes: 0..0, ..place });
        }
        found
    }

    /// The bare form that examples on the net have.
    fn processes_at_the_top(&mut self, stray: &[(&str, At<'_, 's>)]) {
        let names: Vec<String> =
            stray.iter().take(3).map(|(name, _)| format!("`{}`", shown(name))).collect();
        let more = if stray.len() > 3 { " and the others" } else { "" };
        let problem = self.problem("no-processes", &stray[0].1, "the file has no `processes:`");
        let help = format!("put {}{more} below a line `processes:`, indented", names.join(", "));
        self.add(problem.help(help));
    }

    fn base_dir(&mut self, fields: &Fields<'_, 's>) {
        let Some(field) = fields.get("baseDir") else { return };
        if let Some(text) = self.text(field) {
            self.no_tilde(&field.value, &field.name, text);
            self.base = PathBuf::from(self.below_base(text));
        }
    }

    fn management(&mut self, field: &Field<'_, 's>) {
        let Some(fields) = self.fields(&field.value, &MANAGEMENT, "`processManagement`") else {
            return;
        };
        let mut settings = Settings::default();
        let mut boolean = |name, target: &mut bool| {
            if let Some(value) = fields.get(name).and_then(|field| self.boolean(field)) {
                *target = value;
            }
        };
        boolean("enabled", &mut settings.core.enabled);
        boolean("autoStart", &mut settings.core.auto_start);
        boolean("watchConfig", &mut settings.daemon.watch);
        boolean("validateOnReload", &mut settings.daemon.validate);
        if let Some(field) = fields.get("reloadDebounceMs") {
            settings.daemon.debounce = self.duration(field).unwrap_or(settings.daemon.debounce);
        }
        if let Some(field) = fields.get("healthCheckInterval") {
            settings.interval = self.duration(field);
        }
        if let Some(field) = fields.get("restartAttempts") {
            settings.max_attempts = self.integer(field).and_then(|n| u32::try_from(n).ok());
        }
        if let Some(field) = fields.get("history") {
            let given = self.integer(field).and_then(|n| usize::try_from(n).ok());
            settings.daemon.history = given.unwrap_or(settings.daemon.history);
        }
        settings.daemon.hooks = self.notices(&fields);
        if let Some(field) = fields.get("backend") {
            let word = self.word(field);
            settings.daemon.backend = word.and_then(BackendChoice::of).unwrap_or_default();
        }
        if let Some(field) = fields.get("rollback") {
            let word = self.word(field);
            settings.core.rollback = word.and_then(rollback).unwrap_or_default();
        }
        if let Some(field) = fields.get("settle") {
            settings.core.settle = self.duration(field).unwrap_or(settings.core.settle);
        }
        if let Some(field) = fields.get("verdictTimeout") {
            settings.core.verdict_timeout = self.duration(field);
            let limit = settings.core.verdict_timeout;
            if limit.is_some_and(|limit| limit < settings.core.settle) {
                let message = "`verdictTimeout` is shorter than `settle`: nothing could be good";
                let problem = self.problem("bad-duration", &field.value, message);
                self.add(problem.help("make it at least as long, or `settle` shorter"));
            }
        }
        if let Some(text) = fields.get("defaultUser").and_then(|field| self.text(field)) {
            settings.daemon.default_user = Arc::from(text);
        }
        if let Some(field) = fields.get("processConfigFile")
            && let Some(text) = self.text(field)
        {
            self.no_tilde(&field.value, &field.name, text);
            let path = PathBuf::from(self.below_base(text));
            settings.process_file = Some((path, self.place(field.value.span())));
        }
        self.whole.settings = settings;
    }

    fn notices(&mut self, fields: &Fields<'_, 's>) -> Hooks {
        let Some(field) = fields.get("hooks") else { return Hooks::default() };
        let Some(fields) = self.fields(&field.value, &NOTICES, "`hooks`") else {
            return Hooks::default();
        };
        let mut command = |name| {
            let field = fields.get(name)?;
            let words = self.texts(&field.value, &field.name, &Variables::default());
            if words.is_empty() {
                let problem = format!("`{}` names no program", field.name);
                self.add(self.problem("empty-value", &field.value, problem));
            }
            (!words.is_empty()).then_some(words)
        };
        Hooks {
            applied: command("onApplied"),
            rejected: command("onRejected"),
            rolled_back: command("onRolledBack"),
        }
    }

    /// The shell knows `~`; nobody else does.
    pub(super) fn no_tilde(&mut self, at: &At<'_, 's>, name: &str, text: &str) {
        if text == "~" || text.starts_with("~/") {
            let problem = self.problem("tilde", at, format!("`~` in `{name}` is not understood"));
            self.add(problem.help("write the whole path"));
        }
    }

    fn processes(&mut self, field: &Field<'_, 's>) {
        if matches!(field.value.value().kind, Kind::Null { .. }) {
            let problem =
                self.problem("empty-processes", &field.key, "`processes:` has nothing below it");
            self.add(problem.help("`processes: {}` is how to say that there are none"));
            return;
        }
        if let Kind::Sequence(_) = field.value.value().kind {
            let problem = self.problem(
                "wrong-type",
                &field.value,
                "`processes` must be a mapping, not a list",
            );
            self.add(problem.help("write the id of each process as its key: `api: {…}`"));
            return;
        }
        let Some(entries) = self.entries(&field.value, "processes") else { return };
        for entry in entries {
            match ProcessId::new(entry.name) {
                Ok(id) => self.process_entry(id, &entry.key, &entry.value),
                Err(reason) => self.bad_id(entry.name, &entry.key, reason),
            }
        }
    }

    fn bad_id(&mut self, name: &str, key: &At<'_, 's>, reason: BadId) {
        let mut problem = self.problem("bad-process-id", key, reason.to_string());
        let mut better: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' })
            .take(ProcessId::MAX_LEN)
            .collect();
        better = better.trim_matches(['-', '.', '_']).to_owned();
        if ProcessId::new(&better).is_ok() {
            problem =
                problem.help(format!("for example `{better}`; what people read goes into `name:`"));
        }
        self.add(problem);
    }

    fn process_entry(&mut self, id: ProcessId, key: &At<'_, 's>, value: &At<'_, 's>) {
        if let Some(first) = self.whole.processes.get(&id) {
            let first = first.place.clone();
            let message = format!("process `{id}` is defined twice");
            let problem = self.problem("duplicate-process", key, message);
            self.add(problem.related(first, "first defined here"));
            return;
        }
        if matches!(value.value().kind, Kind::Null { .. }) {
            let message = format!("process `{id}` has nothing below it");
            self.add(self.problem("missing-command", key, message).help("it needs a `command:`"));
            return;
        }
        if let Some(fields) = self.fields(value, &PROCESS, &format!("process `{id}`")) {
            let lowered = self.process(&id, key, &fields);
            self.whole.processes.insert(id, lowered);
        }
    }
}

/// Whether somebody forgot `processes:` above it.
fn looks_like_process(at: &At<'_, '_>) -> bool {
    let has = |name: &str| at.node.get(name).is_some();
    let typical = |key: &&Key| !matches!(key.kind, Wanted::Later) && has(key.name);
    has("command") || has("shell") || PROCESS.keys.iter().filter(typical).count() >= 2
}

/// What a word of the file stands for.
fn rollback(word: &str) -> Option<Rollback> {
    match word {
        "auto" => Some(Rollback::Auto),
        "manual" => Some(Rollback::Manual),
        "off" => Some(Rollback::Off),
        _ => None,
    }
}
