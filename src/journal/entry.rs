//! One entry of the log.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Range;
use tracing::Level;

/// An entry. All its text is in one place, so that it can be filled again without asking for memory:
/// it is filled by one thread and written by another, and what one of them gives back is in the way of
/// what the other asks for.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) level: Level,
    /// Whoever keeps it until it is written knows it by this.
    pub(super) number: Option<u64>,
    text: String,
    message: Range<usize>,
    fields: Vec<(Cow<'static, str>, Range<usize>)>,
}

/// What is larger is not kept for the next entry.
const USUAL: usize = 1024;

impl Entry {
    /// One with nothing in it.
    pub(super) fn new(level: Level) -> Entry {
        Entry { level, number: None, text: String::new(), message: 0..0, fields: Vec::new() }
    }

    /// One with only a message.
    pub(super) fn of(level: Level, message: &str) -> Entry {
        let mut entry = Entry::new(level);
        entry.set_message(format_args!("{message}"));
        entry
    }

    /// Takes all out of it, to be filled again.
    pub(super) fn clear(&mut self) {
        self.number = None;
        self.text.clear();
        self.message = 0..0;
        self.fields.clear();
    }

    /// Whether it is worth filling again.
    pub(super) fn is_usual(&self) -> bool {
        self.text.capacity() <= USUAL
    }

    /// For people; may have several lines.
    pub(super) fn message(&self) -> &str {
        &self.text[self.message.clone()]
    }

    /// For programs: names as the journal wants them.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.fields.iter().map(|(name, value)| (name.as_ref(), &self.text[value.clone()]))
    }

    pub(super) fn set_message(&mut self, message: fmt::Arguments<'_>) {
        self.message = self.put(message);
    }

    /// Adds a field; its name becomes one of the journal (systemd.journal-fields(7)).
    pub(super) fn add(&mut self, name: &'static str, value: fmt::Arguments<'_>) {
        let is_one = |c: char| !c.is_lowercase() && c != '.';
        let name = match name.chars().all(is_one) {
            true => Cow::Borrowed(name),
            false => Cow::Owned(name.to_uppercase().replace('.', "_")),
        };
        let value = self.put(value);
        self.fields.push((name, value));
    }

    fn put(&mut self, text: fmt::Arguments<'_>) -> Range<usize> {
        let start = self.text.len();
        // Only what is printed can fail, by its own will; what it has printed by then is there.
        let _ = self.text.write_fmt(text);
        start..self.text.len()
    }

    /// How much memory it takes, about.
    pub(super) fn size(&self) -> usize {
        size_of::<Entry>() + self.text.len() + self.fields.len() * size_of::<Range<usize>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_what_was_put_in() {
        let mut entry = Entry::new(Level::INFO);
        for round in 0..2 {
            entry.clear();
            entry.add("PROVOST_RUN", format_args!("{round}"));
            entry.set_message(format_args!("a line\nand {}", "another"));
            entry.add("code.file", format_args!(""));
            assert_eq!(entry.message(), "a line\nand another");
            let fields: Vec<(&str, &str)> = entry.fields().collect();
            let run = round.to_string();
            assert_eq!(fields, [("PROVOST_RUN", run.as_str()), ("CODE_FILE", "")]);
        }
        assert!(entry.is_usual());
        entry.add("LONG", format_args!("{}", "x".repeat(USUAL)));
        assert!(!entry.is_usual());
    }
}
