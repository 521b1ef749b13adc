//! One entry: put together, and taken apart again when it is as it was written.

use super::Ledger;
use crate::core::ids::{InstanceId, Slot};
use crate::store::VERSION;
use crate::store::file::{Kind, ReadError, damaged, hex};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::Write;

/// What an entry is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Subject {
    Whole,
    State(InstanceId),
    Run(InstanceId, Slot),
    /// An instance that is no more.
    Gone(InstanceId),
    /// What came of a run, by its number.
    Outcome(u64),
}

impl Subject {
    pub fn kind(&self) -> Kind {
        match self {
            Subject::Whole => Kind::Whole,
            Subject::State(_) => Kind::State,
            Subject::Run(..) => Kind::Run,
            Subject::Gone(_) => Kind::Gone,
            Subject::Outcome(_) => Kind::Outcome,
        }
    }

    fn instance(&self) -> Option<&InstanceId> {
        match self {
            Subject::Whole | Subject::Outcome(_) => None,
            Subject::State(id) | Subject::Run(id, _) | Subject::Gone(id) => Some(id),
        }
    }

    /// Whether what is said of the one may change what is said of the other.
    fn is_about(&self, other: &Subject) -> bool {
        self.instance() == other.instance()
    }

    fn parse(kind: &str, name: &str) -> Option<Subject> {
        let instance = |name: &str| {
            let id = InstanceId::parse(name).ok()?;
            // `api` would be short for `api@0` and is not a name of ours.
            name.contains('@').then_some(id)
        };
        Some(match kind {
            _ if kind == Kind::Whole.as_str() && name == WHOLE => Subject::Whole,
            _ if kind == Kind::State.as_str() => Subject::State(instance(name)?),
            _ if kind == Kind::Gone.as_str() => Subject::Gone(instance(name)?),
            _ if kind == Kind::Outcome.as_str() => Subject::Outcome(name.parse().ok()?),
            _ if kind == Kind::Run.as_str() => match name.strip_suffix(SECOND) {
                Some(name) => Subject::Run(instance(name)?, Slot::B),
                None => Subject::Run(instance(name)?, Slot::A),
            },
            _ => return None,
        })
    }
}

const WHOLE: &str = "all";
const SECOND: &str = "-b";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Whole => write!(f, "{WHOLE}"),
            Subject::State(id) | Subject::Gone(id) | Subject::Run(id, Slot::A) => write!(f, "{id}"),
            Subject::Run(id, Slot::B) => write!(f, "{id}{SECOND}"),
            Subject::Outcome(number) => write!(f, "{number}"),
        }
    }
}

/// As much of a digest as tells two entries apart.
pub(super) type Print = [u8; 16];

fn print(digest: &[u8; 32]) -> Print {
    let mut print = Print::default();
    print.copy_from_slice(&digest[..16]);
    print
}

/// Entries that are to be added together.
#[derive(Default)]
pub(in crate::store) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// What it is of, and how long it is.
pub(super) struct Entry {
    pub of: Subject,
    pub print: Print,
    pub len: u32,
}

/// The head of an entry up to its subject, with no digest and no length yet.
fn blank(kind: Kind) -> String {
    format!("provost {} {VERSION} {:0>64} {:0>10} ", kind.as_str(), 0, 0)
}

/// What follows the digest in a blank head: the length and a blank on either side of it.
const AFTER_DIGEST: usize = 12;

/// The digest of an entry, which is that of all of it but the digest itself, which ends there.
fn digest(entry: &[u8], ends: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(&entry[..ends - 64]);
    digest.update(&entry[ends..]);
    digest.finalize().into()
}

impl Batch {
    /// Adds an entry.
    pub fn add<T: Serialize>(&mut self, of: Subject, value: &T) {
        let start = self.bytes.len();
        let head = blank(of.kind());
        // A buffer takes all that there is room for.
        let _ = writeln!(self.bytes, "{head}{of}");
        let body = self.bytes.len();
        if serde_json::to_writer(&mut self.bytes, value).is_err() {
            // What is kept has text keys and no value that JSON cannot hold.
            debug_assert!(false, "a {} that JSON cannot hold", of.kind().as_str());
            self.bytes.truncate(body);
        }
        let length = format!("{:0>10}", self.bytes.len() - body);
        self.bytes.push(b'\n');
        let covered = start + head.len() - AFTER_DIGEST;
        self.bytes[covered + 1..covered + 11].copy_from_slice(length.as_bytes());
        let digest = digest(&self.bytes[start..], covered - start);
        self.bytes[covered - 64..covered].copy_from_slice(hex(&digest).as_bytes());
        // Nothing that is kept is as long as that.
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.entries.push(Entry { of, print: print(&digest), len });
    }

    /// Takes the last entry back where the ledger says the same already.
    pub fn drop_known(&mut self, ledger: &Ledger) {
        let Some((last, earlier)) = self.entries.split_last() else { return };
        let is_changed = earlier.iter().any(|entry| entry.of.is_about(&last.of));
        if !is_changed && ledger.says(last) {
            self.bytes.truncate(self.bytes.len() - last.len as usize);
            self.entries.pop();
        }
    }

    /// How much there is to write.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Of which instances it says anything.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.entries.iter().filter_map(|entry| entry.of.instance())
    }

    /// Whether it says what came of runs.
    pub fn has_outcomes(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.of, Subject::Outcome(_)))
    }

    /// Takes back what it says of what came of runs, which is at its beginning. Whether there was any.
    pub fn drop_outcomes(&mut self) -> bool {
        let is_outcome = |entry: &Entry| matches!(entry.of, Subject::Outcome(_));
        let count = self.entries.iter().take_while(|entry| is_outcome(entry)).count();
        let len: usize = self.entries.drain(..count).map(|entry| entry.len as usize).sum();
        self.bytes.drain(..len);
        count > 0
    }

    /// Has nothing in it any more, and keeps its room where that is not unusually large.
    pub fn clear(&mut self) {
        const USUAL: usize = 128 * 1024;
        self.entries.clear();
        self.bytes.clear();
        if self.bytes.capacity() > USUAL {
            *self = Batch::default();
        }
    }
}

/// Why an entry is none.
pub(super) enum Bad {
    /// Whoever wrote it did not come to its end, and nothing comes after it.
    Unfinished,
    Other(ReadError),
}

/// How each begins.
const HEAD: &[u8] = b"provost ";

/// The entry at the beginning of something.
pub(super) fn entry(bytes: &[u8]) -> Result<Entry, Bad> {
    let bad = |why: &str| Bad::Other(damaged(why));
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_head = bytes.starts_with(HEAD) || HEAD.starts_with(bytes);
        return Err(if is_head { Bad::Unfinished } else { bad("its head is not ours") });
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("its head is no text"))?;
    let words: Vec<&str> = head.splitn(6, ' ').collect();
    let ["provost", kind, version, sum, length, subject] = words[..] else {
        return Err(bad("its head is not ours"));
    };
    let of = Subject::parse(kind, subject);
    let length: usize = length.parse().map_err(|_| bad("it has no length"))?;
    let len = end.saturating_add(length).saturating_add(2);
    let Some(whole) = bytes.get(..len) else {
        // With another length it may look like that too, and without the end of the first line.
        let is_last = of.is_some() && !bytes[end + 1..].contains(&b'\n');
        return Err(if is_last { Bad::Unfinished } else { bad("it is cut off") });
    };
    let ends = kind.len() + version.len() + sum.len() + "provost   ".len();
    if sum.len() != 64 || whole.last() != Some(&b'\n') {
        return Err(bad("it is not as it was written"));
    }
    let digest = digest(whole, ends);
    if hex(&digest) != sum {
        return Err(bad("it is not as it was written"));
    }
    match version.parse::<u32>() {
        Ok(1..=VERSION) => {}
        Ok(newer) if newer > VERSION => return Err(Bad::Other(ReadError::Newer(newer))),
        _ => return Err(bad("it has no version")),
    }
    let of = of.ok_or_else(|| bad("it is of nothing that is known"))?;
    let len = u32::try_from(len).map_err(|_| bad("it is too large"))?;
    Ok(Entry { of, print: print(&digest), len })
}

/// Where the next entry may begin.
pub(super) fn next(bytes: &[u8], at: usize) -> usize {
    let mut lines = (at..bytes.len()).filter(|at| bytes[*at] == b'\n').map(|end| end + 1);
    lines.find(|start| bytes[*start..].starts_with(HEAD)).unwrap_or(bytes.len())
}
