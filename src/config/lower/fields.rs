//! The entries of a mapping: merges followed, duplicates, unknown and unavailable keys reported.

use super::File;
use super::at::At;
use crate::config::diagnostic::shown;
use crate::config::keys::{Key, Kind as Wanted, Section};
use crate::config::suggest::did_you_mean;
use crate::config::yaml::Kind;
use std::collections::HashMap;

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'n, 'a> {
    /// The text of the key.
    pub(crate) name: &'n str,
    /// Where the key stands.
    pub(crate) key: At<'n, 'a>,
    /// Its value.
    pub(crate) value: At<'n, 'a>,
}

/// A known key with its value, which is something.
#[derive(Clone, Debug)]
pub(crate) struct Field<'n, 'a> {
    /// The key in the table.
    pub(crate) known: &'static Key,
    /// What messages call it.
    pub(crate) name: String,
    /// Where the key stands.
    pub(crate) key: At<'n, 'a>,
    /// Its value.
    pub(crate) value: At<'n, 'a>,
}

/// The known keys of one mapping.
#[derive(Debug)]
pub(crate) struct Fields<'n, 'a> {
    section: &'static Section,
    fields: Vec<Field<'n, 'a>>,
    nulls: Vec<&'static str>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// The field of that name, when it has a value.
    pub(crate) fn get(&self, name: &str) -> Option<&Field<'n, 'a>> {
        debug_assert!(self.section.key(name).is_some(), "`{name}` is in no table");
        self.fields.iter().find(|field| field.known.name == name)
    }

    /// Whether the key was written with `null`, which asks for the default by name.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.nulls.contains(&name)
    }
}

impl<'s> File<'_, 's> {
    /// All entries of a mapping, those merged with `<<` after its own. None, and reported, when it
    /// is no mapping. `what` is what the whole is called.
    pub(crate) fn entries<'n>(
        &mut self,
        at: &At<'n, 's>,
        what: &str,
    ) -> Option<Vec<Entry<'n, 's>>> {
        let Kind::Mapping { entries, .. } = &at.value().kind else {
            self.wrong_type(at, what, "a mapping");
            return None;
        };
        let mut own: HashMap<&'n str, At<'n, 's>> = HashMap::new();
        let mut found = Vec::new();
        let mut merged = None;
        for (key, value) in entries {
            let (key, value) = (at.child(key), at.child(value));
            let Some(name) = self.key_text(&key) else { continue };
            if let Some(first) = own.get(name) {
                self.duplicate(name, what, &key, &first.clone());
                continue;
            }
            own.insert(name, key.clone());
            if key.node.is_merge() {
                merged = Some(value);
            } else {
                found.push(Entry { name, key, value });
            }
        }
        if let Some(merged) = merged {
            for entry in self.merged(&merged) {
                if !own.contains_key(entry.name) {
                    own.insert(entry.name, entry.key.clone());
                    found.push(entry);
                }
            }
        }
        Some(found)
    }

    /// What a `<<` brings in: one mapping, or a list in which the earlier one wins.
    fn merged<'n>(&mut self, at: &At<'n, 's>) -> Vec<Entry<'n, 's>> {
        const WHAT: &str = "what `<<` merges";
        match &at.value().kind {
            Kind::Sequence(items) => {
                let mut all = Vec::new();
                for item in items {
                    all.extend(self.entries(&at.child(item), WHAT).unwrap_or_default());
                }
                all
            }
            _ => self.entries(at, WHAT).unwrap_or_default(),
        }
    }

    fn key_text<'n>(&mut self, key: &At<'n, 's>) -> Option<&'n str> {
        match &key.value().kind {
            Kind::Scalar { text, .. } => Some(text),
            // `null:` is a word like any other where a name belongs.
            Kind::Null { written: true } => {
                let text: &'s str = self.source.text;
                Some(&text[key.span().range()])
            }
            Kind::Broken => None,
            Kind::Null { written: false } => {
                self.add(self.problem("wrong-type", key, "a key is missing before the `:`"));
                None
            }
            kind => {
                let message = format!("a key must be a single value, not {}", kind.word());
                self.add(self.problem("wrong-type", key, message));
                None
            }
        }
    }

    fn duplicate(&mut self, name: &str, what: &str, key: &At<'_, 's>, first: &At<'_, 's>) {
        let first = self.source.at(first.span());
        let (code, message) = match what {
            "processes" => {
                ("duplicate-process", format!("process `{}` is defined twice", shown(name)))
            }
            _ => ("duplicate-key", format!("`{}` is given twice", shown(name))),
        };
        let mut problem = self.problem(code, key, message).related(first, "first given here");
        if name == "<<" {
            problem = problem.help("merge several with one list: `<<: [*a, *b]`");
        }
        self.add(problem);
    }

    /// The known keys of a mapping. None, and reported, when it is no mapping.
    pub(crate) fn fields<'n>(
        &mut self,
        at: &At<'n, 's>,
        section: &'static Section,
        what: &str,
    ) -> Option<Fields<'n, 's>> {
        let entries = self.entries(at, what)?;
        Some(self.known(entries, section))
    }

    /// The known ones of some entries; the others are reported.
    pub(crate) fn known<'n>(
        &mut self,
        entries: Vec<Entry<'n, 's>>,
        section: &'static Section,
    ) -> Fields<'n, 's> {
        let mut fields = Fields { section, fields: Vec::new(), nulls: Vec::new() };
        for Entry { name, key, value } in entries {
            let Some(known) = section.key(name) else {
                self.unknown_key(name, &key, section);
                continue;
            };
            let full = section.full_name(name);
            match (&value.value().kind, &known.kind) {
                (Kind::Null { .. }, Wanted::Later) => {}
                (_, Wanted::Later) => self.unavailable(&key, &format!("`{full}`")),
                // Half a file is no wish for an empty set; whoever reads it says it better.
                (Kind::Null { .. }, Wanted::Processes) => {
                    fields.fields.push(Field { known, name: full, key, value });
                }
                (Kind::Null { written: true }, _) => fields.nulls.push(known.name),
                (Kind::Null { written: false }, _) => self.empty(&key, &full, known),
                (Kind::Broken, _) => {}
                _ => fields.fields.push(Field { known, name: full, key, value }),
            }
        }
        fields
    }

    fn empty(&mut self, key: &At<'_, 's>, full: &str, known: &Key) {
        let instead = match known.kind {
            Wanted::Section(_)
            | Wanted::Variables
            | Wanted::Properties
            | Wanted::Dependencies
            | Wanted::Sockets => "write `{}`",
            Wanted::Texts | Wanted::TextOrTexts | Wanted::Integers { .. } => "write `[]`",
            _ => "write `null` for the default",
        };
        let problem = self.problem("empty-value", key, format!("`{full}` has no value"));
        self.add(problem.help(format!("give it one, remove the line, or {instead}")));
    }

    /// Refuses a feature of a later version by its name.
    pub(crate) fn unavailable(&mut self, at: &At<'_, 's>, what: &str) {
        let message = format!("{what} is not available in this version");
        self.add(self.problem("unavailable", at, message));
    }

    fn unknown_key(&mut self, name: &str, key: &At<'_, 's>, section: &'static Section) {
        let message = format!("unknown key `{}`", shown(&section.full_name(name)));
        let mut problem = self.problem("unknown-key", key, message);
        let names = section.keys.iter().map(|key| key.name);
        problem.help = elsewhere(name, section)
            .map(|word| format!("did you mean `{word}`?"))
            .or_else(|| did_you_mean(name, names));
        self.add(problem);
    }
}

/// Words of other tools, and keys that belong into another section.
fn elsewhere(name: &str, section: &Section) -> Option<&'static str> {
    const PROCESS: &[(&str, &str)] = &[
        ("cmd", "command"),
        ("script", "command"),
        ("exec", "command"),
        ("directory", "cwd"),
        ("dir", "cwd"),
        ("workingDir", "cwd"),
        ("workingDirectory", "cwd"),
        ("working_dir", "cwd"),
        ("environment", "env"),
        ("env_file", "envFile"),
        ("replicas", "instances"),
        ("numprocs", "instances"),
        ("autostart", "enabled"),
        ("restart", "restartPolicy"),
        ("autorestart", "restartPolicy"),
        ("maxAttempts", "restartPolicy.maxAttempts"),
        ("max_restarts", "restartPolicy.maxAttempts"),
        ("stopSignal", "stop.signal"),
        ("stop_signal", "stop.signal"),
        ("kill_timeout", "stop.timeout"),
        ("stdout", "logFile"),
    ];
    let table = if std::ptr::eq(section, &crate::config::keys::PROCESS) { PROCESS } else { &[] };
    table.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}
