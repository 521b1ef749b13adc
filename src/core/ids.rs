//! Names and numbers. No bare string or integer stands for any of them elsewhere.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The id of a process: its key in the file.
///
/// ASCII letters, digits, `_`, `.` and `-`, beginning with a letter or digit, at most 63 bytes:
/// what a unit name, a path component, a journal field and a shell word can all carry unquoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ProcessId(Arc<str>);

impl Serialize for ProcessId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Why a text is no process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadId {
    /// The text is empty.
    Empty,
    /// Longer than [`ProcessId::MAX_LEN`] bytes.
    TooLong,
    /// It begins with something else than a letter or digit.
    BadStart(char),
    /// It contains a character outside the set.
    BadChar(char),
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadId::Empty => write!(f, "a process id cannot be empty"),
            BadId::TooLong => write!(f, "a process id has at most {} bytes", ProcessId::MAX_LEN),
            BadId::BadStart(c) => {
                write!(f, "a process id begins with a letter or digit, not with {c:?}")
            }
            BadId::BadChar(c) => {
                write!(f, "a process id has letters, digits, `_`, `.` and `-` only, not {c:?}")
            }
        }
    }
}

impl std::error::Error for BadId {}

impl ProcessId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 63;

    /// Checks `text` and makes it an id.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn new(text: &str) -> Result<ProcessId, BadId> {
        let first = text.chars().next().ok_or(BadId::Empty)?;
        if text.len() > Self::MAX_LEN {
            return Err(BadId::TooLong);
        }
        if !first.is_ascii_alphanumeric() {
            return Err(BadId::BadStart(first));
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-')) {
            Some(c) => Err(BadId::BadChar(c)),
            None => Ok(ProcessId(Arc::from(text))),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One instance of this process.
    #[must_use]
    pub fn instance(&self, index: u32) -> InstanceId {
        InstanceId { process: self.clone(), index }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProcessId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        ProcessId::new(&text)
    }
}

impl From<ProcessId> for String {
    fn from(id: ProcessId) -> String {
        id.0.to_string()
    }
}

/// One instance of a process, `api@0`. The index is always there; `api` is short for `api@0`
/// where a person writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The process it is an instance of.
    pub process: ProcessId,
    /// Counted from 0.
    pub index: u32,
}

impl InstanceId {
    /// Reads `api` (= `api@0`) or `api@3`.
    ///
    /// # Errors
    /// When the part before the `@` is no id or the part after it no plain number.
    pub fn parse(text: &str) -> Result<InstanceId, BadId> {
        match text.split_once('@') {
            None => Ok(ProcessId::new(text)?.instance(0)),
            Some((id, index)) => {
                let process = ProcessId::new(id)?;
                let canonical = index == "0" || !index.starts_with('0');
                match index.parse::<u32>() {
                    Ok(n) if canonical && !index.starts_with('+') => Ok(process.instance(n)),
                    _ => Err(BadId::BadChar('@')),
                }
            }
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.process, self.index)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.process, self.index)
    }
}

/// Where the run of an instance is: units, control groups and records of runs in different slots are
/// never the same. Most instances are in the first for ever; see `overlap` of
/// [`crate::spec::ProcessSpec`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// The first, which is not named.
    #[default]
    A,
    /// The second, `api@0-b`.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// Whether it is the first: where runs are that never had one beside them.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Slot::A
    }

    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One run of an instance, from the request to spawn it until its process tree is empty.
    /// Never used twice by one machine, across all instances. An answer that carries another run
    /// than the current one is about the past and is ignored.
    Run
}
number! {
    /// One thing asked for, see [`crate::job`].
    JobId
}
number! {
    /// One accepted configuration, counted from 1; 0 is "none yet".
    Generation
}
number! {
    /// One check of the health of one run.
    ProbeId
}
number! {
    /// One command that has a run take new settings.
    ReloadId
}
number! {
    /// Whoever asked: the driver's own number for a caller that waits for an answer.
    Request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!(ProcessId::new("example-server-1").is_ok());
        assert!(ProcessId::new("A.b_c-9").is_ok());
        assert_eq!(ProcessId::new(""), Err(BadId::Empty));
        assert_eq!(ProcessId::new("-a"), Err(BadId::BadStart('-')));
        assert_eq!(ProcessId::new(".a"), Err(BadId::BadStart('.')));
        assert_eq!(ProcessId::new("a@1"), Err(BadId::BadChar('@')));
        assert_eq!(ProcessId::new("wéb"), Err(BadId::BadChar('é')));
        assert!(ProcessId::new(&"a".repeat(63)).is_ok());
        assert_eq!(ProcessId::new(&"a".repeat(64)), Err(BadId::TooLong));
    }

    #[test]
    fn what_is_wrong_with_an_id_is_said() {
        for (text, why) in [
            ("", "a process id cannot be empty"),
            ("-a", "a process id begins with a letter or digit, not with '-'"),
            ("a b", "a process id has letters, digits, `_`, `.` and `-` only, not ' '"),
        ] {
            assert_eq!(ProcessId::new(text).unwrap_err().to_string(), why);
        }
        let long = ProcessId::new(&"a".repeat(64)).unwrap_err();
        assert_eq!(long.to_string(), "a process id has at most 63 bytes");
    }

    #[test]
    fn ids_look_the_same_everywhere() {
        let id = ProcessId::new("api").unwrap();
        assert_eq!(format!("{id} {id:?} {id:>5}|{id:<5}|"), "api api   api|api  |");
        assert_eq!(format!("{0} {0:?}", id.instance(2)), "api@2 api@2");
        assert_eq!(format!("{} {}", Run(7), JobId(8)), "7 8");
        let text = serde_json::to_string(&id.instance(2)).unwrap();
        assert_eq!(text, r#"{"process":"api","index":2}"#);
        assert_eq!(serde_json::from_str::<InstanceId>(&text).unwrap(), id.instance(2));
        assert!(serde_json::from_str::<ProcessId>("\"a b\"").is_err());
    }

    #[test]
    fn instances_are_read_and_written() {
        assert_eq!(InstanceId::parse("api").unwrap().to_string(), "api@0");
        assert_eq!(InstanceId::parse("api@12").unwrap().to_string(), "api@12");
        for bad in
            ["api@", "api@x", "api@-1", "api@+1", "api@01", "api@1@2", "@1", "api@99999999999"]
        {
            assert!(InstanceId::parse(bad).is_err(), "{bad}");
        }
    }
}
