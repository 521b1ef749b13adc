//! What is wrong with a file, for the person who must mend it.

use serde::{Deserialize, Serialize};
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
