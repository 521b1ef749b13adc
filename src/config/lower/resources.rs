//! What a process may use and see: `limits`, `sandbox` and `systemd`.

use super::File;
use super::at::At;
use super::fields::{Entry, Field, Fields};
use crate::config::diagnostic::shown;
use crate::config::keys::LIMITS;
use crate::config::suggest::did_you_mean;
use crate::config::yaml::Kind;
use crate::core::limits::Limits;
use crate::core::unit::{self, Form, PROPERTIES, Problem, Sandbox, UnitProperties};
use std::sync::Arc;

impl<'s> File<'_, 's> {
    /// The limits of a run, and that of open files.
    pub(super) fn limits(&mut self, fields: &Fields<'_, 's>) -> (Limits, Option<u64>) {
        let max_memory_restart = fields.get("maxMemoryRestart").and_then(|field| self.size(field));
        let mut limits = Limits { max_memory_restart, ..Limits::default() };
        let Some(field) = fields.get("limits") else { return (limits, None) };
        let Some(fields) = self.fields(&field.value, &LIMITS, "`limits`") else {
            return (limits, None);
        };
        let count = |file: &mut Self, name| {
            let number = fields.get(name).and_then(|field| file.integer(field));
            number.and_then(|number| u64::try_from(number).ok())
        };
        let files = count(self, "files");
        limits.tasks = count(self, "tasks");
        limits.memory = fields.get("memory").and_then(|field| self.size(field));
        limits.memory_high = fields.get("memoryHigh").and_then(|field| self.size(field));
        limits.cpu = fields.get("cpu").and_then(|field| self.number(field)).map(thousandths);
        if let (Some(most), Some(high)) = (limits.memory, limits.memory_high)
            && let Some(field) = fields.get("memoryHigh").filter(|_| high > most)
        {
            let message = "`limits.memoryHigh` is more than `limits.memory`: it is never reached";
            self.add(self.problem("out-of-range", &field.value, message));
        }
        (limits, files)
    }

    pub(super) fn sandbox(&mut self, fields: &Fields<'_, 's>) -> Sandbox {
        match fields.get("sandbox").and_then(|field| self.word(field)) {
            Some("default") => Sandbox::Default,
            Some("strict") => Sandbox::Strict,
            _ => Sandbox::None,
        }
    }

    /// The properties of its unit, by name.
    pub(super) fn unit(&mut self, fields: &Fields<'_, 's>) -> Arc<UnitProperties> {
        let mut all = UnitProperties::new();
        let Some(field) = fields.get("systemd") else { return Arc::default() };
        for entry in self.entries(&field.value, "`systemd`").unwrap_or_default() {
            if let Some(words) = self.property(&entry, field) {
                all.insert(entry.name.to_owned(), words);
            }
        }
        Arc::new(all)
    }

    fn property(&mut self, entry: &Entry<'_, 's>, of: &Field<'_, 's>) -> Option<Vec<String>> {
        let name = format!("systemd.{}", shown(entry.name));
        let property = match unit::property(entry.name) {
            Ok(property) => property,
            Err(problem) => {
                self.no_property(&name, entry, &problem);
                return None;
            }
        };
        if matches!(entry.value.value().kind, Kind::Null { written: true }) {
            return None;
        }
        let words = self.words(&entry.value, &name, property.form)?;
        match unit::read(entry.name, &words) {
            Ok(_) => Some(words),
            Err(problem) => {
                let message = format!("`{name}` cannot be `{}`", shown(&words.join(" ")));
                let mut diagnostic = self.problem("bad-property", &entry.value, message);
                diagnostic.help =
                    suggestion(property.form, &words).or_else(|| Some(problem.to_string()));
                self.add(diagnostic);
                None
            }
        }
        .filter(|words| self.is_not_too_much(words, &of.value))
    }

    /// A list, or a text that stands for one where it has spaces in it.
    fn words(&mut self, at: &At<'_, 's>, name: &str, form: Form) -> Option<Vec<String>> {
        let quoted = format!("`{name}`");
        if let Kind::Sequence(items) = &at.value().kind {
            let items = items.iter().map(|item| at.child(item));
            let texts = items.map(|item| self.scalar(&item, &quoted, "a text"));
            let texts: Vec<_> = texts.collect();
            return texts.into_iter().map(|text| Some(text?.0.to_owned())).collect();
        }
        let (text, _) = self.scalar(at, &quoted, "a text or a list of texts")?;
        match form.is_list() {
            true => Some(text.split_whitespace().map(str::to_owned).collect()),
            false => Some(vec![text.to_owned()]),
        }
    }

    fn no_property(&mut self, name: &str, entry: &Entry<'_, 's>, problem: &Problem) {
        let diagnostic = match problem {
            Problem::Owned(instead) => {
                let message = format!("`{name}` is not set here");
                self.problem("owned-property", &entry.key, message).help(*instead)
            }
            _ => {
                let message =
                    format!("`{name}`: systemd has no such property for units like these");
                let mut diagnostic = self.problem("unknown-property", &entry.key, message);
                let names = PROPERTIES.iter().map(|property| property.name);
                diagnostic.help = did_you_mean(entry.name, names);
                diagnostic
            }
        };
        self.add(diagnostic);
    }

    fn is_not_too_much(&mut self, words: &[String], at: &At<'_, 's>) -> bool {
        let length = words.iter().map(|word| word.len() + size_of::<String>()).sum();
        let good = self.whole.charge(length);
        if !good {
            let message = "aliases up to here make more than 256 MiB of text";
            self.add(self.problem("too-large", at, message));
        }
        good
    }
}

fn thousandths(processors: f64) -> u32 {
    // Within the bounds of the table of keys.
    (processors * 1000.0).round() as u32
}

fn suggestion(form: Form, words: &[String]) -> Option<String> {
    match (form, words) {
        (Form::Words(known), [word]) => did_you_mean(word, known.iter().copied()),
        (Form::Numbers(known), [word]) => did_you_mean(word, known.iter().map(|(name, _)| *name)),
        _ => None,
    }
}
