//! What is known of one generation.

use crate::config::load::{Source, SourceKind, Sources};
use crate::core::ids::Generation;
use crate::core::reload::{Change, Plan, Step};
use crate::store::file::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// How far a generation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is being carried out, or its verdict is waited for.
    Applying,
    /// All of it came up.
    Applied,
    /// It did not come up, and what was before it is being brought back.
    RollingBack,
    /// What was before it is back.
    RolledBack,
    /// What was before it is wanted again, and not all of that came back.
    RollbackIncomplete,
    /// Not all of it came up, and it stayed.
    FailedKept,
    /// A newer one took over before its end.
    Superseded,
}

impl State {
    /// All of them.
    pub const ALL: [State; 7] = [
        State::Applying,
        State::Applied,
        State::RollingBack,
        State::RolledBack,
        State::RollbackIncomplete,
        State::FailedKept,
        State::Superseded,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Applying => "applying",
            State::Applied => "applied",
            State::RollingBack => "rolling-back",
            State::RolledBack => "rolled-back",
            State::RollbackIncomplete => "rollback-incomplete",
            State::FailedKept => "failed-kept",
            State::Superseded => "superseded",
        }
    }

    /// Whether it has no end yet.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, State::Applying | State::RollingBack)
    }

    /// Whether it is what runs, unless a newer one is.
    #[must_use]
    pub fn is_kept(self) -> bool {
        matches!(self, State::Applied | State::FailedKept)
    }
}

/// Why there is a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Cause {
    /// The daemon started.
    Start,
    /// A file changed.
    File,
    /// A signal came.
    Signal,
    /// Somebody asked for a reload.
    Caller {
        /// Their user.
        uid: u32,
    },
    /// Somebody handed a configuration over.
    Apply {
        /// Their user.
        uid: u32,
    },
    /// Somebody tries a configuration, which is undone unless they confirm it.
    Checkpoint {
        /// Their user.
        uid: u32,
    },
    /// It has the content of an older one.
    Rollback {
        /// Of which.
        to: Generation,
        /// Whose wish it was; None: nobody confirmed what was tried.
        uid: Option<u32>,
    },
}

impl Cause {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Cause::Start => "start",
            Cause::File => "file",
            Cause::Signal => "signal",
            Cause::Caller { .. } => "caller",
            Cause::Apply { .. } => "apply",
            Cause::Checkpoint { .. } => "checkpoint",
            Cause::Rollback { .. } => "rollback",
        }
    }

    /// The user of whoever asked.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        match self {
            Cause::Start | Cause::File | Cause::Signal => None,
            Cause::Caller { uid } | Cause::Apply { uid } | Cause::Checkpoint { uid } => Some(*uid),
            Cause::Rollback { uid, .. } => *uid,
        }
    }
}

/// For people.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Start => write!(f, "the daemon started")?,
            Cause::File => write!(f, "a file changed")?,
            Cause::Signal => write!(f, "a signal")?,
            Cause::Caller { .. } => write!(f, "reload")?,
            Cause::Apply { .. } => write!(f, "apply")?,
            Cause::Checkpoint { .. } => write!(f, "apply, to be confirmed")?,
            Cause::Rollback { to, .. } => write!(f, "rollback to {to}")?,
        }
        match self.uid() {
            Some(uid) => write!(f, " by uid {uid}"),
            None => Ok(()),
        }
    }
}

/// How long one stage took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// `read`, `plan`, `check`, `apply`.
    pub stage: String,
    /// Milliseconds.
    pub ms: u64,
}

/// What is known of a file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What it is for.
    pub kind: SourceKind,
    /// Where it was, absolute.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// When it was last modified then.
    #[serde(default, with = "option_time", skip_serializing_if = "Option::is_none")]
    pub modified: Option<SystemTime>,
    /// What was in it; None where there was no such file.
    pub content: Option<ContentRecord>,
}

/// Where the content of a file is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRecord {
    /// Its name in `files` of the generation.
    pub name: String,
    /// In hex.
    pub sha256: String,
}

/// What is known of one generation, but for the contents of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub number: Generation,
    /// When it was accepted.
    #[serde(with = "time")]
    pub time: SystemTime,
    /// Why there is one.
    pub cause: Cause,
    /// What is returned to when it does not come up; None: there is nothing.
    pub base: Option<Generation>,
    /// How far it came.
    pub state: State,
    /// What did not come up or back, and why; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// SHA-256 over the paths and contents of all files, in hex.
    pub digest: String,
    /// Every file that was read or looked for, in that order. What is the same as in the record
    /// before is in memory once.
    pub files: Vec<Arc<FileRecord>>,
    /// The drop-in directory.
    #[serde(with = "path_text")]
    pub drop_ins: PathBuf,
    /// Whether that was there.
    pub has_drop_ins: bool,
    /// What it changed against what ran before; values of variables are masked.
    pub changes: Vec<Change>,
    /// How many processes it did not change.
    pub unchanged: usize,
    /// What was done, when it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<Timing>,
    /// What was remarked on its files, a line each, without values of variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
}

/// What whoever accepts a configuration knows of it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// As [`super::Generations::next_number`] gave it.
    pub number: Generation,
    /// Why there is one.
    pub cause: Cause,
    /// What is returned to when it does not come up.
    pub base: Option<Generation>,
    /// Usually [`State::Applying`].
    pub state: State,
    /// What it changes.
    pub plan: Plan,
    /// How long reading it took.
    pub timings: Vec<Timing>,
    /// What was remarked on its files, see [`crate::config::render::one_line`].
    pub diagnostics: Vec<String>,
}

impl Record {
    pub(super) fn new(accepted: Accepted, sources: &Sources) -> Record {
        let Accepted { number, cause, base, state, plan, timings, diagnostics } = accepted;
        let files = sources.files.iter().enumerate();
        Record {
            number,
            time: SystemTime::now(),
            cause,
            base,
            state,
            why: Vec::new(),
            digest: sources.digest.clone(),
            files: files.map(|(n, source)| Arc::new(FileRecord::of(n, source))).collect(),
            drop_ins: sources.drop_ins.clone(),
            has_drop_ins: sources.has_drop_ins,
            changes: plan.changes,
            unchanged: plan.unchanged.len(),
            steps: Vec::new(),
            timings,
            diagnostics,
        }
    }
}

impl Record {
    /// Has what is the same in an older one in memory once.
    pub(super) fn share_with(&mut self, older: &Record) {
        for (own, old) in self.files.iter_mut().zip(&older.files) {
            if *own == *old {
                *own = Arc::clone(old);
            }
        }
    }
}

impl FileRecord {
    fn of(n: usize, source: &Source) -> FileRecord {
        let content = source.content.as_deref().map(|content| ContentRecord {
            name: name(n + 1, &source.path),
            sha256: hex(&Sha256::digest(content)),
        });
        let Source { path, modified, kind, .. } = source;
        FileRecord { kind: *kind, path: path.to_path_buf(), modified: *modified, content }
    }
}

/// The number of a file, and of its name what any file system takes and any terminal shows.
fn name(n: usize, path: &Path) -> String {
    const LONGEST: usize = 100;
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let own: String = own.chars().map(|c| if plain(c) { c } else { '_' }).take(LONGEST).collect();
    format!("{n:02}-{own}")
}

/// As RFC 3339 has it, in UTC.
mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de, ser};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Timestamp::try_from(*time).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        text.parse::<Timestamp>().map(SystemTime::from).map_err(de::Error::custom)
    }
}

/// The same; what no calendar has is left out.
mod option_time {
    use jiff::Timestamp;
    use serde::{Deserializer, Serializer};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time.map(Timestamp::try_from) {
            Some(Ok(time)) => to.collect_str(&time),
            _ => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text: Option<String> = serde::Deserialize::deserialize(from)?;
        let time = text.map(|text| text.parse::<Timestamp>().map(SystemTime::from));
        time.transpose().map_err(serde::de::Error::custom)
    }
}

/// As text; as its bytes where it is none, because a digest is over all of them.
pub(in crate::store) mod path_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(PathBuf),
        Bytes(Vec<u8>),
    }

    pub(in crate::store) fn serialize<S: Serializer>(
        path: &Path,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(to),
            None => path.as_os_str().as_bytes().serialize(to),
        }
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(match Either::deserialize(from)? {
            Either::Text(path) => path,
            Either::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    #[test]
    fn names_are_plain() {
        assert_eq!(name(1, Path::new("/etc/provost/processes.yaml")), "01-processes.yaml");
        assert_eq!(name(12, Path::new("/x/a b\n\u{1b}é.env")), "12-a_b___.env");
        assert_eq!(name(3, Path::new("/")), "03-");
        assert_eq!(name(1, Path::new(&"a".repeat(255))).len(), 103);
    }

    #[test]
    fn a_path_and_a_time_are_kept_to_the_bit() {
        let path = PathBuf::from(OsStr::from_bytes(b"/x/\xff.env"));
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let kind = SourceKind::Env;
        for path in [path, "/x/é.env".into()] {
            for modified in [Some(modified), None] {
                let file = FileRecord { kind, path: path.clone(), modified, content: None };
                let text = serde_json::to_string(&file).unwrap();
                let back: FileRecord = serde_json::from_str(&text).unwrap();
                assert_eq!(back, file, "{text}");
            }
        }
    }
}
