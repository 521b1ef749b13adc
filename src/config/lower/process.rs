//! One process.

use super::at::At;
use super::environment::Variables;
use super::fields::Fields;
use super::{File, Lowered};
use crate::config::diagnostic::{Diagnostic, shown};
use crate::config::yaml::Kind;
use crate::core::ids::ProcessId;
use crate::core::spec::{
    Check, Command, ExecSpec, LogRotation, LogTarget, ProcessSpec, Readiness, RestartCondition,
    Text,
};
use std::num::NonZeroU32;
use std::sync::Arc;

impl<'s> File<'_, 's> {
    /// Reads a process. What is wrong with it is reported, and its default stands in.
    pub(super) fn process(
        &mut self,
        id: &ProcessId,
        key: &At<'_, 's>,
        fields: &Fields<'_, 's>,
    ) -> Lowered {
        let variables = self.env_files(fields);
        let command = self.command(id, key, fields, &variables);
        let mut spec = ProcessSpec::new(id.clone(), command);
        self.about(fields, &mut spec);
        self.execution(fields, &variables, &mut spec);
        let (restart, restart_is_sure) = self.restart_policy(fields);
        spec.restart = restart.into();
        if let Some(field) = fields.get("instances") {
            spec.instances = self.integer(field).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        }
        if let Some(field) = fields.get("maxUnavailable") {
            let number = self.integer(field).and_then(|n| u32::try_from(n).ok());
            spec.max_unavailable = number.and_then(NonZeroU32::new).unwrap_or(spec.max_unavailable);
        }
        let (health, health_is_sure) = self.health_check(fields, &variables, spec.instances);
        spec.health = health.map(Box::new);
        spec.readiness = self.readiness(fields, &spec, health_is_sure);
        if let Some(timeout) = fields.get("startTimeout").and_then(|field| self.duration(field)) {
            spec.start_timeout = timeout;
        }
        spec.stop = self.stop(fields);
        let (reload, reload_is_sure) = self.reload(fields, &variables);
        spec.reload = reload;
        spec.watch = self.watch(fields, &variables, &spec, reload_is_sure).map(Box::new);
        self.shared_pid_file(fields, &spec);
        self.overlap(fields, &mut spec);
        let edges = self.dependencies(id, fields);
        spec.depends_on = edges.iter().map(|(edge, _)| edge.clone()).collect();
        let (listening, sockets) = self.sockets(fields);
        spec.exec.sockets = Arc::new(listening);
        let place = self.place(key.span());
        if let Some(last) = &self.whole.last {
            spec.share(last);
        }
        let (spec, env_files) = (Arc::new(spec), variables.paths);
        self.whole.last = Some(Arc::clone(&spec));
        Lowered { spec, env_files, place, edges, sockets, restart_is_sure, health_is_sure }
    }

    fn about(&mut self, fields: &Fields<'_, 's>, spec: &mut ProcessSpec) {
        if let Some(field) = fields.get("enabled") {
            spec.enabled = self.boolean(field).unwrap_or(true);
        }
        if let Some(field) = fields.get("essential") {
            spec.essential = self.boolean(field).unwrap_or(false);
        }
        spec.name = fields.get("name").and_then(|field| self.text(field)).map(Arc::from);
        spec.description =
            fields.get("description").and_then(|field| self.text(field)).map(Arc::from);
        if let Some(field) = fields.get("tags") {
            for item in self.list(&field.value, "`tags`").unwrap_or_default() {
                if let Some((tag, _)) = self.scalar(&item, "a tag", "a text") {
                    spec.tags.insert(Arc::from(tag));
                }
            }
        }
    }

    fn execution(
        &mut self,
        fields: &Fields<'_, 's>,
        variables: &Variables,
        spec: &mut ProcessSpec,
    ) {
        let exec = &mut spec.exec;
        exec.cwd = match fields.get("cwd").and_then(|field| self.path(field, variables)) {
            Some(cwd) => cwd,
            None => Text::new(&self.base.to_string_lossy()),
        };
        exec.user = fields
            .get("user")
            .and_then(|field| self.text(field))
            .map(Arc::from)
            .or_else(|| self.whole.default_user());
        exec.group = fields.get("group").and_then(|field| self.text(field)).map(Arc::from);
        // The default, spelled out or not, is the same.
        exec.umask =
            fields.get("umask").and_then(|field| self.octal(field)).filter(|mask| *mask != 0o022);
        exec.nice = fields
            .get("nice")
            .and_then(|field| self.integer(field))
            .and_then(|nice| i8::try_from(nice).ok());
        exec.env = self.environment(fields, variables);
        let (limits, max_files) = self.limits(fields);
        (spec.limits, exec.max_files) = (limits.into(), max_files);
        exec.sandbox = self.sandbox(fields);
        exec.unit = self.unit(fields);
        exec.log_file = fields.get("logFile").and_then(|field| self.path(field, variables));
        exec.pid_file = fields.get("pidFile").and_then(|field| self.path(field, variables));
        self.log(fields, exec);
    }

    fn command(
        &mut self,
        id: &ProcessId,
        key: &At<'_, 's>,
        fields: &Fields<'_, 's>,
        variables: &Variables,
    ) -> Command {
        let nothing = || Command::Shell(Text::new("false"));
        let (command, shell) = (fields.get("command"), fields.get("shell"));
        let args = fields.get("args");
        match (command, shell) {
            (None, None) => {
                let problem = self.problem(
                    "missing-command",
                    key,
                    format!("process `{id}` has no `command`"),
                );
                self.add(problem.help("add `command:` with a program, or `shell:` with a line"));
                nothing()
            }
            (Some(command), Some(shell)) => {
                let message = format!("process `{id}` has both `command` and `shell`");
                let other = self.place(command.key.span());
                let problem = self.problem("command-and-shell", &shell.key, message);
                self.add(problem.related(other, "the `command`").help("remove one of them"));
                nothing()
            }
            (None, Some(shell)) => {
                if let Some(args) = args {
                    let message = "`args` belongs to `command`; `shell` takes none";
                    let problem = self.problem("args-with-shell", &args.key, message);
                    self.add(problem.help("write them into the line of `shell`"));
                }
                let line = self
                    .text(shell)
                    .and_then(|_| self.filled(&shell.value, &shell.name, variables));
                line.map_or_else(nothing, Command::Shell)
            }
            (Some(command), None) => {
                let list = self.command_list(command, variables);
                let rest = args.map(|args| self.texts(&args.value, &args.name, variables));
                let Some((program, own)) = list.split_first() else { return nothing() };
                let args = match rest {
                    Some(rest) if own.is_empty() => rest,
                    Some(rest) => own.iter().chain(&*rest).cloned().collect(),
                    None => own.into(),
                };
                Command::Program { program: program.clone(), args }
            }
        }
    }

    /// The program, and the arguments where it is a list. Empty when it was wrong.
    fn command_list(
        &mut self,
        field: &super::fields::Field<'_, 's>,
        variables: &Variables,
    ) -> Vec<Text> {
        let list = match &field.value.value().kind {
            Kind::Sequence(items) => {
                let first_is_empty = items.first().is_none_or(|item| item.text() == Some(""));
                if first_is_empty {
                    let message = "`command` names no program";
                    self.add(self.problem("empty-value", &field.value, message));
                    return Vec::new();
                }
                self.texts(&field.value, &field.name, variables).to_vec()
            }
            Kind::Scalar { text, .. } if text.chars().any(char::is_whitespace) => {
                let problem = words_in_command(self, field, text);
                self.add(problem);
                return Vec::new();
            }
            Kind::Scalar { .. } => {
                let text = self.text(field);
                let filled = text.and_then(|_| self.filled(&field.value, &field.name, variables));
                filled.into_iter().collect()
            }
            _ => {
                self.wrong_type(&field.value, "`command`", "a text or a list");
                Vec::new()
            }
        };
        if let Some(program) = list.first() {
            self.no_tilde(&field.value, &field.name, &program.to_string());
        }
        list
    }

    fn readiness(
        &mut self,
        fields: &Fields<'_, 's>,
        spec: &ProcessSpec,
        health_is_sure: bool,
    ) -> Readiness {
        let default = if spec.health.is_some() { Readiness::Health } else { Readiness::Started };
        let Some(field) = fields.get("readiness") else { return default };
        if field.value.node.get("log").is_some() {
            self.unavailable(&field.value, "`readiness: { log: … }`");
            return default;
        }
        match self.word(field) {
            Some("started") => Readiness::Started,
            Some("notify") => Readiness::Notify,
            Some("health") if spec.health.is_none() && health_is_sure => {
                let message = format!("`readiness: health`, but `{}` has no health check", spec.id);
                let problem = self.problem("readiness-without-check", &field.value, message);
                self.add(problem.help("add a `healthCheck`, or write `readiness: started`"));
                default
            }
            Some(_) => Readiness::Health,
            None => default,
        }
    }

    fn log(&mut self, fields: &Fields<'_, 's>, exec: &mut ExecSpec) {
        let section = &crate::config::keys::LOG;
        let log = fields.get("log");
        let log = log.and_then(|field| self.fields(&field.value, section, "`log`"));
        let Some(log) = log else { return };
        exec.log_target = match log.get("target").and_then(|target| self.word(target)) {
            Some("journal") => LogTarget::Journal,
            Some("none") => LogTarget::None,
            _ => LogTarget::Auto,
        };
        let (size, files) = (log.get("maxSize"), log.get("maxFiles"));
        let max_size = size.and_then(|size| self.size(size));
        let max_files = files.and_then(|files| self.integer(files));
        if let Some(field) = size.or(files)
            && fields.get("logFile").is_none()
        {
            let message = format!("`{}` is about a `logFile`, and there is none", field.name);
            let problem = self.problem("rotation-without-file", &field.key, message);
            self.add(
                problem.help("add `logFile:`, or remove it; the journal has limits of its own"),
            );
        } else if let (None, Some(field)) = (size, files) {
            let message = "`log.maxFiles` without `log.maxSize`: nothing is rotated";
            let problem = self.problem("files-without-size", &field.key, message);
            self.add(problem.help("add for example `maxSize: 50M`"));
        }
        const USUAL_FILES: u32 = 5;
        exec.log_rotation = max_size.map(|max_size| LogRotation {
            max_size,
            max_files: max_files.and_then(|n| u32::try_from(n).ok()).unwrap_or(USUAL_FILES),
        });
    }

    /// Two runs of an instance at once, which not every process can have.
    fn overlap(&mut self, fields: &Fields<'_, 's>, spec: &mut ProcessSpec) {
        let Some(field) = fields.get("overlap") else { return };
        spec.overlap = self.boolean(field).unwrap_or(false);
        let pid_file = fields.get("pidFile").filter(|_| spec.exec.pid_file.is_some());
        let is_one_shot = spec.restart.condition == RestartCondition::No;
        if !spec.overlap {
            return;
        }
        if let Some(pid_file) = pid_file {
            let message = "with `overlap: true` two runs would write the same `pidFile`";
            let problem = self.problem("overlapping-pid-file", &pid_file.value, message);
            self.add(problem.help("leave out `pidFile`, or `overlap`"));
        }
        if is_one_shot {
            let message =
                "`overlap` is for what goes on; with `restartPolicy: no` it is a one-shot";
            let problem = self.problem("overlapping-one-shot", &field.value, message);
            self.add(problem.help("leave out `overlap`, or choose another `restartPolicy`"));
        }
        // Of a check that cannot be read something else is said.
        let is_unread = fields.get("healthCheck").is_some() && spec.health.is_none();
        if pid_file.is_some() || is_one_shot || is_unread {
            return;
        }
        if let Some(message) = ready_too_early(spec) {
            let place = self.place(field.value.span());
            let problem = Diagnostic::warning("overlapping-readiness", place, message);
            let help = "use `readiness: notify`, or a check by `exec` that asks the new run alone";
            self.add(problem.help(help));
        }
    }

    fn shared_pid_file(&mut self, fields: &Fields<'_, 's>, spec: &ProcessSpec) {
        let (Some(field), Some(path)) = (fields.get("pidFile"), &spec.exec.pid_file) else {
            return;
        };
        if spec.instances > 1 && !path.depends_on_instance() {
            let place = self.place(field.value.span());
            let message = format!("{} instances write the same `pidFile`", spec.instances);
            let problem = Diagnostic::warning("shared-pid-file", place, message);
            self.add(problem.help("put `${INSTANCE}` into its name"));
        }
    }
}

/// Why a run that overlaps with the one before it may count as ready before it is.
fn ready_too_early(spec: &ProcessSpec) -> Option<&'static str> {
    match (spec.readiness, spec.health.as_ref().map(|health| &health.check)) {
        (Readiness::Started, _) => {
            Some("the new run counts as ready once it is executed, and the old one ends then")
        }
        (Readiness::Health, Some(Check::Http(_) | Check::Tcp(_))) => {
            Some("the old run may answer the check of the new one, which counts as ready then")
        }
        _ => None,
    }
}

/// `command: npm start`, which is what people write.
fn words_in_command<'s>(
    file: &File<'_, 's>,
    field: &super::fields::Field<'_, 's>,
    text: &str,
) -> Diagnostic {
    let problem = file.problem(
        "command-with-spaces",
        &field.value,
        "`command` is one program, and this has spaces",
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+@%".contains(c);
    let simple = words.iter().all(|word| word.chars().all(plain));
    let line = shown(text.trim());
    problem.help(match simple && text.len() < 50 && !words.is_empty() {
        true => format!(
            "write `shell: {line}`, or `command: [{}]`; a program with a space in its name goes \
             into a list too",
            words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
        ),
        false => "write it as `shell: …`, or as a list: `command: [program, argument]`".into(),
    })
}
