//! `reload` and `watch`: how a process takes new settings, and what is done when files change.

use super::File;
use super::environment::Variables;
use super::fields::{Field, Fields};
use crate::config::diagnostic::shown;
use crate::config::keys::{RELOAD, WATCH};
use crate::config::yaml::Kind;
use crate::core::spec::{ProcessSpec, ReloadSpec, Signal, Text, WatchAction, WatchSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the command of `reload` may take.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a write to what is watched settles: several files are mostly written at once.
const USUAL_DEBOUNCE: Duration = Duration::from_millis(200);
/// What tools fill beside the sources, and nobody means.
const USUALLY_IGNORED: [&str; 2] = ["node_modules", "__pycache__"];

impl<'s> File<'_, 's> {
    /// How it takes new settings, and whether that could be told.
    pub(super) fn reload(
        &mut self,
        fields: &Fields<'_, 's>,
        variables: &Variables,
    ) -> (Option<ReloadSpec>, bool) {
        let Some(whole) = fields.get("reload") else { return (None, true) };
        let Some(fields) = self.fields(&whole.value, &RELOAD, "`reload`") else {
            return (None, false);
        };
        let timeout = fields.get("timeout");
        if let (Some(timeout), None) = (timeout, fields.get("command")) {
            let message = "`reload.timeout` is about a `command`, and there is none";
            let problem = self.problem("timeout-without-command", &timeout.key, message);
            self.add(problem.help("remove it; a signal is sent and not waited for"));
        }
        let timeout = timeout.and_then(|field| self.duration(field)).unwrap_or(USUAL_TIMEOUT);
        let reload = match (fields.get("signal"), fields.get("command")) {
            (None, None) => {
                let message = "`reload` does not say how";
                let problem = self.problem("no-reload", &whole.key, message);
                self.add(problem.help("write `{ signal: SIGHUP }` or `{ command: [program] }`"));
                None
            }
            (Some(signal), Some(command)) => {
                let message = "`reload.signal` and `reload.command` cannot stand together";
                let other = self.place(signal.key.span());
                let problem = self.problem("two-reloads", &command.key, message);
                let problem = problem.related(other, "the `signal`").help("remove one of them");
                self.add(problem);
                None
            }
            (Some(field), None) => self.reload_signal(field).map(ReloadSpec::Signal),
            (None, Some(field)) => {
                self.argv(field, variables).map(|command| ReloadSpec::Command { command, timeout })
            }
        };
        let sure = reload.is_some();
        (reload, sure)
    }

    fn reload_signal(&mut self, field: &Field<'_, 's>) -> Option<Signal> {
        const STOP: Signal = Signal(19);
        let signal = self.signal(field)?;
        if [Signal::KILL, STOP].contains(&signal) {
            let message = format!("no process can take its settings on {signal}");
            let problem = self.problem("bad-signal", &field.value, message);
            self.add(problem.help("most that do take SIGHUP"));
            return None;
        }
        Some(signal)
    }

    /// What it has watched. `reload` is its own, and whether it could be told.
    pub(super) fn watch(
        &mut self,
        fields: &Fields<'_, 's>,
        variables: &Variables,
        spec: &ProcessSpec,
        reload_is_sure: bool,
    ) -> Option<WatchSpec> {
        let whole = fields.get("watch")?;
        let fields = self.fields(&whole.value, &WATCH, "`watch`")?;
        let paths = fields.get("paths").map(|field| self.watched_paths(field, variables));
        if fields.get("paths").is_none() {
            let message = "`watch` does not say what is watched";
            let problem = self.problem("watches-nothing", &whole.key, message);
            self.add(problem.help("add `paths:` with files or directories"));
        }
        let ignore = match fields.get("ignore") {
            Some(field) => self.ignored(field),
            None => USUALLY_IGNORED.map(Arc::from).to_vec(),
        };
        let debounce = fields.get("debounce").and_then(|field| self.duration(field));
        let mut action = WatchAction::Restart;
        if let Some(field) = fields.get("action")
            && self.word(field) == Some("reload")
        {
            action = WatchAction::Reload;
            if spec.reload.is_none() && reload_is_sure {
                let message = format!(
                    "`watch.action: reload`, but `{}` does not say how it reloads",
                    spec.id
                );
                let problem = self.problem("watch-without-reload", &field.value, message);
                self.add(problem.help(
                    "add `reload: { signal: SIGHUP }` or `reload: { command: [program] }` to it",
                ));
            }
        }
        let watch = WatchSpec {
            paths: paths?.into(),
            ignore: ignore.into(),
            action,
            debounce: debounce.unwrap_or(USUAL_DEBOUNCE),
        };
        self.own_files(whole, spec, &watch);
        Some(watch)
    }

    fn watched_paths(&mut self, field: &Field<'_, 's>, variables: &Variables) -> Vec<Text> {
        let mut paths = Vec::new();
        let items = self.list(&field.value, &format!("`{}`", field.name));
        if items.as_ref().is_some_and(Vec::is_empty) {
            let message = "`watch.paths` names nothing";
            self.add(self.problem("watches-nothing", &field.value, message));
        }
        for item in items.unwrap_or_default() {
            let item = Field { value: item, ..field.clone() };
            paths.extend(self.path(&item, variables));
        }
        paths
    }

    fn ignored(&mut self, field: &Field<'_, 's>) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for item in self.list(&field.value, &format!("`{}`", field.name)).unwrap_or_default() {
            let Some((name, _)) = self.scalar(&item, "a name in `watch.ignore`", "a text") else {
                continue;
            };
            if name.is_empty() || name.contains('/') {
                let message = format!("`watch.ignore` has names, not paths: `{}`", shown(name));
                let problem = self.problem("bad-name", &item, message);
                self.add(problem.help("for example `node_modules` or `*.log`"));
                continue;
            }
            names.push(Arc::from(name));
        }
        names
    }

    /// What it writes itself must not be what it is restarted for.
    fn own_files(&mut self, whole: &Field<'_, 's>, spec: &ProcessSpec, watch: &WatchSpec) {
        let own = [("logFile", &spec.exec.log_file), ("pidFile", &spec.exec.pid_file)];
        for (key, file) in own {
            let Some(file) = file else { continue };
            let file = file.render(0);
            let below = |path: &Text| {
                let inner = Path::new(&*file).strip_prefix(&*path.render(0)).ok()?;
                let mut names = inner.iter().map(std::ffi::OsStr::to_string_lossy);
                let skipped =
                    names.any(|name| crate::config::watch::trees::is_skipped(&name, &watch.ignore));
                (!skipped).then_some(())
            };
            if watch.paths.iter().any(|path| below(path).is_some()) {
                let message = format!("`{key}` of `{}` is among what it watches", spec.id);
                let problem = self.problem("watches-itself", &whole.key, message);
                self.add(problem.help(
                    "each write to it would be a change; name less, or put its name into `ignore`",
                ));
            }
        }
    }

    /// The program and the arguments of a command that is a list.
    pub(super) fn argv(
        &mut self,
        field: &Field<'_, 's>,
        variables: &Variables,
    ) -> Option<Arc<[Text]>> {
        let name = &field.name;
        if let Kind::Scalar { .. } = field.value.value().kind {
            let message = format!("`{name}` must be a list: the program and its arguments");
            let problem = self.problem("wrong-type", &field.value, message);
            self.add(problem.help("for a line of the shell: `[sh, -c, \"…\"]`"));
            return None;
        }
        let command = self.texts(&field.value, &field.name, variables);
        let nothing =
            matches!(&field.value.value().kind, Kind::Sequence(items) if items.is_empty());
        if nothing || command.first() == Some(&Text::new("")) {
            let message = format!("`{name}` names no program");
            self.add(self.problem("empty-value", &field.value, message));
            return None;
        }
        (!command.is_empty()).then_some(command)
    }
}
