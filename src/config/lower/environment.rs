//! Environment files, variables, and texts with `${NAME}`.

use super::at::At;
use super::fields::{Field, Fields};
use super::{EnvFile, File, Whole};
use crate::config::diagnostic::{Diagnostic, Place, shown};
use crate::config::env_file;
use crate::config::interpolate::{self, Fault, Filled, LONGEST, is_name};
use crate::config::load::{Mode, SourceKind};
use crate::config::read::ReadError;
use crate::config::text::{SourceText, invalid_utf8_at};
use crate::config::yaml::Kind;
use crate::core::spec::{Secret, Text};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Where `${NAME}` of one process is looked up, before the daemon's own environment.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    files: Vec<Rc<BTreeMap<String, String>>>,
    /// Where they are.
    pub(super) paths: Vec<PathBuf>,
}

impl Whole {
    /// Reads an environment file that was read before and in which nothing was wrong. None where it has
    /// another content by now.
    pub(crate) fn read_env_file_again(&mut self, path: &Path, known: &[u8]) -> Option<()> {
        if let Some(read) = self.env_files.get(path) {
            return (read.content.as_deref() == Some(known)).then_some(());
        }
        let (_, outcome) = self.files.read(path, SourceKind::Env);
        let content = outcome.ok().filter(|content| **content == *known)?;
        let (values, faults) = env_file::parse(std::str::from_utf8(&content).ok()?);
        if !faults.is_empty() {
            return None;
        }
        let (content, values) = (Some(content), Some(Rc::new(values)));
        self.env_files.insert(path.to_owned(), EnvFile { content, values });
        Some(())
    }
}

impl<'s> File<'_, 's> {
    /// The environment files of a process, read.
    pub(super) fn env_files(&mut self, fields: &Fields<'_, 's>) -> Variables {
        let mut variables = Variables::default();
        let Some(field) = fields.get("envFile") else { return variables };
        let items = match &field.value.value().kind {
            Kind::Sequence(items) => items.iter().map(|item| field.value.child(item)).collect(),
            _ => vec![field.value.clone()],
        };
        for item in items {
            let Some(path) = self.fill(&item, &field.name, &Variables::default()) else { continue };
            if path.value.contains(Text::INSTANCE) {
                let message = "`envFile` is one for all instances: no `${INSTANCE}` here";
                self.add(self.problem("bad-interpolation", &item, message));
                continue;
            }
            self.no_tilde(&item, &field.name, &path.value);
            let path = self.absolute(path);
            variables.files.extend(self.env_file(&path, &item));
            variables.paths.push(path.value.into());
        }
        variables
    }

    fn env_file(&mut self, path: &Filled, at: &At<'_, 's>) -> Option<Rc<BTreeMap<String, String>>> {
        let shown = path.shown();
        let path = Path::new(&path.value);
        if let Some(known) = self.whole.env_files.get(path) {
            let known = known.values.clone();
            if known.is_none() {
                // The reason was given where it was named first; it is as true here.
                let message = format!("{shown} cannot be used");
                self.add(self.problem("env-file", at, message));
            }
            return known;
        }
        let (file, outcome) = self.whole.files.read(path, SourceKind::Env);
        let content = outcome.as_ref().ok().map(Arc::clone);
        let values = match outcome {
            Ok(content) => self.env_content(file, &content, at),
            Err(error) => {
                let mut problem =
                    self.problem("env-file", at, format!("cannot read {shown}: {error}"));
                if matches!(error, ReadError::Missing) {
                    problem.help = Some("relative paths are relative to this file".into());
                }
                self.add(problem);
                None
            }
        };
        let values = values.map(Rc::new);
        let read = EnvFile { content, values: values.clone() };
        self.whole.env_files.insert(path.to_owned(), read);
        values
    }

    fn env_content(
        &mut self,
        file: Arc<std::path::PathBuf>,
        content: &[u8],
        at: &At<'_, 's>,
    ) -> Option<BTreeMap<String, String>> {
        let named = self.place(at.span());
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) => {
                let start = error.valid_up_to();
                let (line, column) = invalid_utf8_at(content, start);
                let place = Place { file, line, column, bytes: start..start + 1 };
                let problem = Diagnostic::error("not-utf8", place, "the file is not UTF-8");
                self.add(problem.related(named, "named here"));
                return None;
            }
        };
        let (values, faults) = env_file::parse(text);
        let source = SourceText::new(file, text);
        for fault in &faults {
            let place = source.place(fault.bytes.clone());
            let problem = Diagnostic::error("env-file-syntax", place, fault.message.clone());
            self.add(problem.related(named.clone(), "named here"));
        }
        faults.is_empty().then_some(values)
    }

    /// All variables of a process: the files in order, then `env`.
    pub(super) fn environment(
        &mut self,
        fields: &Fields<'_, 's>,
        variables: &Variables,
    ) -> Arc<BTreeMap<String, Secret>> {
        let field = fields.get("env");
        let shared = field
            .map(|field| field.value.value())
            .filter(|value| value.anchored && variables.files.is_empty());
        if let Some(known) =
            shared.and_then(|value| self.environments.get(&std::ptr::from_ref(value)))
        {
            return Arc::clone(known);
        }
        let mut all = BTreeMap::new();
        for file in &variables.files {
            for (name, value) in &**file {
                // A file for many processes; texts of it are not shared between them.
                if self.whole.charge(name.len() + value.len()) {
                    all.insert(name.clone(), Secret(Text::new(value)));
                }
            }
        }
        if let Some(field) = field {
            self.env(field, variables, &mut all);
        }
        let all = Arc::new(all);
        if let Some(value) = shared {
            self.environments.insert(value, Arc::clone(&all));
        }
        all
    }

    fn env(
        &mut self,
        field: &Field<'_, 's>,
        variables: &Variables,
        all: &mut BTreeMap<String, Secret>,
    ) {
        if let Kind::Sequence(_) = field.value.value().kind {
            let problem =
                self.problem("wrong-type", &field.value, "`env` must be a mapping, not a list");
            self.add(problem.help("write `NAME: value` lines"));
            return;
        }
        for entry in self.entries(&field.value, "`env`").unwrap_or_default() {
            if !is_name(entry.name) {
                let message = format!("`{}` is no name of a variable", shown(entry.name));
                let problem = self.problem("bad-env-name", &entry.key, message);
                self.add(problem.help("letters, digits and `_`, no digit first"));
                continue;
            }
            let name = format!("env.{}", entry.name);
            if let Kind::Null { .. } = entry.value.value().kind {
                let problem =
                    self.problem("empty-value", &entry.key, format!("`{name}` has no value"));
                self.add(
                    problem.help(format!("write `{}: \"\"` for an empty one", shown(entry.name))),
                );
                continue;
            }
            let Some(value) = self.filled(&entry.value, &name, variables) else { continue };
            all.insert(entry.name.to_owned(), Secret(value));
        }
    }

    /// A single value with its `${NAME}` filled in.
    pub(super) fn filled(
        &mut self,
        at: &At<'_, 's>,
        name: &str,
        variables: &Variables,
    ) -> Option<Text> {
        self.fill(at, name, variables).map(Filled::into_text)
    }

    /// The same, with [`Text::INSTANCE`] still visible.
    fn fill(&mut self, at: &At<'_, 's>, name: &str, variables: &Variables) -> Option<Filled> {
        let (text, _) = self.scalar(at, &format!("`{}`", shown(name)), "a text")?;
        let user = (self.whole.mode == Mode::User).then(|| Arc::clone(&self.whole.environment));
        let filled = interpolate::fill(text, |wanted| {
            let file = variables.files.iter().rev().find_map(|file| file.get(wanted));
            let value = file.or_else(|| user.as_ref()?.get(wanted));
            value.map(|value| Cow::Borrowed(value.as_str()))
        });
        match filled {
            Ok(filled) if self.whole.charge(filled.value.len()) => Some(filled),
            Ok(_) => {
                let message = "aliases and `${NAME}` up to here make more than 256 MiB of text";
                self.add(self.problem("too-large", at, message));
                None
            }
            Err(faults) => {
                for fault in &faults {
                    self.fault(at, name, fault);
                }
                None
            }
        }
    }

    fn fault(&mut self, at: &At<'_, 's>, name: &str, fault: &Fault) {
        let name = shown(name);
        let (code, needle, message, help) = match fault {
            Fault::Unset(variable) => (
                "unset-variable",
                format!("${{{variable}}}"),
                format!("`${{{}}}` in `{name}` is not set", shown(variable)),
                match self.whole.mode {
                    Mode::System => format!(
                        "set it in an `envFile`; for the shell's own write `${}`",
                        shown(variable)
                    ),
                    Mode::User => format!(
                        "set it in an `envFile` or in the environment of the daemon; for the \
                         shell's own write `${}`",
                        shown(variable)
                    ),
                },
            ),
            // What stands between the braces may be a secret's default: not repeated.
            Fault::Malformed(text) => (
                "bad-interpolation",
                text.clone(),
                format!("a `${{` in `{name}` is not followed by a name and `}}`"),
                "only `${NAME}` is understood; `$${` stands for `${`".to_owned(),
            ),
            Fault::TooLong => (
                "too-long",
                String::new(),
                format!("`{name}` has more than {LONGEST} bytes, which the kernel does not take"),
                String::new(),
            ),
        };
        let mut problem = self.problem(code, at, message);
        let span = at.span().range();
        let raw = self.source.text.get(span.clone()).unwrap_or_default();
        if !needle.is_empty()
            && let Some(start) = raw.find(&needle)
        {
            let start = span.start + start;
            problem.place = self.source.place(start..start + needle.len());
        }
        problem.help = Some(help).filter(|help| !help.is_empty());
        self.add(problem);
    }

    /// A path: filled in, absolute.
    pub(super) fn path(&mut self, field: &Field<'_, 's>, variables: &Variables) -> Option<Text> {
        self.text(field)?;
        let text = self.fill(&field.value, &field.name, variables)?;
        self.no_tilde(&field.value, &field.name, &text.value);
        Some(self.absolute(text).into_text())
    }

    /// Where a value begins the path, what is shown begins with its name: it may be absolute.
    fn absolute(&mut self, path: Filled) -> Filled {
        let shown = path.shown.map(|shown| match shown.starts_with("${") {
            true => shown,
            false => self.below_base(&shown),
        });
        Filled { value: self.below_base(&path.value), shown }
    }

    /// A list of texts, made once where it stands behind an anchor and is the same for everybody.
    pub(super) fn texts(
        &mut self,
        at: &At<'_, 's>,
        name: &str,
        variables: &Variables,
    ) -> Arc<[Text]> {
        let value = at.value();
        if let Some(known) = self.texts.get(&std::ptr::from_ref(value)) {
            return Arc::clone(known);
        }
        let items = self.list(at, &format!("`{name}`")).unwrap_or_default();
        let same = items.iter().all(|item| !item.node.text().is_some_and(|t| t.contains("${")));
        let texts: Vec<Text> =
            items.iter().filter_map(|item| self.filled(item, name, variables)).collect();
        let texts: Arc<[Text]> = texts.into();
        if value.anchored && same {
            self.texts.insert(value, Arc::clone(&texts));
        }
        texts
    }
}
