//! What is wrong with a file, for the person who must mend it.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration can be used.
    Warning,
    /// The configuration cannot be used.
    Error,
}

impl Severity {
    /// The word people read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, absolute.
    pub file: Arc<PathBuf>,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// In characters, counted from 1; 0 when it is about the file as a whole.
    pub column: u32,
    /// The bytes it is about.
    pub bytes: Range<usize>,
}

impl Place {
    /// A file as a whole.
    #[must_use]
    pub fn whole(file: Arc<PathBuf>) -> Place {
        Place { file, line: 0, column: 0, bytes: 0..0 }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of the rule, `kebab-case`: `unknown-key`.
    pub code: &'static str,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to do, where there is something better to say than the message does.
    pub help: Option<String>,
    /// Other places that belong to it, with a word each: `first defined here`.
    pub related: Vec<(Place, String)>,
}

/// Every rule there is, sorted. Names are stable: scripts look for them.
pub const CODES: &[&str] = &[
    "address-in-use",
    "args-with-shell",
    "bad-address",
    "bad-boolean",
    "bad-cwd",
    "bad-duration",
    "bad-env-name",
    "bad-interpolation",
    "bad-name",
    "bad-number",
    "bad-port",
    "bad-process-id",
    "bad-property",
    "bad-signal",
    "bad-size",
    "bad-socket-name",
    "bad-url",
    "cannot-hold-socket",
    "cannot-switch-user",
    "changing",
    "command-and-shell",
    "command-not-found",
    "command-with-spaces",
    "completed-restarts",
    "dependency-cycle",
    "duplicate-key",
    "duplicate-process",
    "duplicate-socket",
    "empty-file",
    "empty-processes",
    "empty-value",
    "env-file",
    "env-file-syntax",
    "files-without-size",
    "healthy-without-check",
    "ignored-file",
    "limit-not-enforced",
    "misplaced-key",
    "missing-address",
    "missing-command",
    "missing-file",
    "no-check",
    "no-processes",
    "no-reload",
    "not-executable",
    "not-utf8",
    "nul-byte",
    "other-backend",
    "out-of-range",
    "overlapping-one-shot",
    "overlapping-pid-file",
    "overlapping-readiness",
    "owned-property",
    "quoted-value",
    "readiness-without-check",
    "rotation-without-file",
    "second-document",
    "self-dependency",
    "self-reference",
    "shared-pid-file",
    "tag",
    "tilde",
    "timeout-with-notify",
    "timeout-without-command",
    "too-deep",
    "too-large",
    "too-long",
    "too-many-problems",
    "two-checks",
    "two-reloads",
    "unavailable",
    "unclosed-quote",
    "unknown-anchor",
    "unknown-dependency",
    "unknown-group",
    "unknown-key",
    "unknown-property",
    "unknown-user",
    "unknown-word",
    "unreadable",
    "unset-variable",
    "watch-without-reload",
    "watches-itself",
    "watches-nothing",
    "without-systemd",
    "wrong-type",
    "yaml-syntax",
];

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Diagnostic {
        debug_assert!(CODES.binary_search(&code).is_ok(), "`{code}` is not among the rules");
        let message = message.into();
        Diagnostic {
            severity: Severity::Error,
            code,
            message,
            place,
            help: None,
            related: Vec::new(),
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, place, message) }
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, place: Place, word: impl Into<String>) -> Diagnostic {
        self.related.push((place, word.into()));
        self
    }
}

/// Collects what is wrong. One thing at one place is said once, however many aliases lead to it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
    said: HashSet<(Arc<PathBuf>, usize, &'static str, String)>,
    errors: bool,
}

impl Report {
    /// So many are kept; the file of a person has fewer, and a hostile one must not fill the memory.
    const LIMIT: usize = 1_000;

    /// Adds one.
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        self.errors |= diagnostic.severity == Severity::Error;
        if self.diagnostics.len() > Self::LIMIT {
            return;
        }
        let Diagnostic { place, code, message, .. } = &diagnostic;
        let key = (Arc::clone(&place.file), place.bytes.start, *code, message.clone());
        if !self.said.insert(key) {
            return;
        }
        if self.diagnostics.len() == Self::LIMIT {
            let place = Place::whole(Arc::clone(&place.file));
            let message = format!("more than {} problems; the rest is not shown", Self::LIMIT);
            self.diagnostics.push(Diagnostic::error("too-many-problems", place, message));
        } else {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Whether there is nothing to be said.
    pub(crate) fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Whether there is any error.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors
    }

    /// All of them, in the order found.
    pub(crate) fn into_vec(self) -> Vec<Diagnostic> {
        self.diagnostics
    }
}

/// A text of the user as it may stand in a message: control characters escaped, not too long.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}

/// A text with its control characters escaped, so that none reaches a terminal.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: usize) -> Place {
        Place { bytes: start..start + 1, ..Place::whole(Arc::new("/x.yaml".into())) }
    }

    #[test]
    fn the_same_thing_is_said_once() {
        let mut report = Report::default();
        for start in [1, 1, 2] {
            report.add(Diagnostic::error("unknown-key", at(start), "unknown key `x`"));
        }
        assert_eq!(report.into_vec().len(), 2);
    }

    #[test]
    fn a_hostile_file_cannot_fill_the_memory() {
        let mut report = Report::default();
        for start in 0..5_000 {
            report.add(Diagnostic::error("unknown-key", at(start), "unknown key `x`"));
        }
        let all = report.into_vec();
        assert_eq!(all.len(), Report::LIMIT + 1);
        assert_eq!(all[Report::LIMIT].code, "too-many-problems");
    }

    #[test]
    fn warnings_are_no_errors() {
        let mut report = Report::default();
        report.add(Diagnostic::warning("missing-file", at(0), "missing"));
        assert!(!report.has_errors());
        report.add(Diagnostic::error("unknown-key", at(0), "unknown key `x`"));
        assert!(report.has_errors());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(shown(&"x".repeat(99)).chars().count(), 61);
    }
}
