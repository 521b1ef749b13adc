//! What came of runs, until that is told.
//!
//! The state after the end of a run knows nothing of that run any more, and the log is written by a
//! thread of its own: who is killed after the one and before the other has told nobody, and whoever
//! comes next would not know that there is anything to tell. So each outcome gets a number and is kept
//! together with the state that follows from it, and the thread that writes the log keeps here the
//! number of the last one that it has written. What has a larger one is told by the next daemon.
//!
//! Nobody tells one twice, unless it is killed between the writing of a few lines and that of their
//! number. Where the number is lost, those that are still kept are told again: they have happened. What
//! the log leaves out, because of its level, is passed over: as good as told once all before it is.
//! What it has no room for, because nobody reads it, is missing there, as it says itself, and so is what
//! could not be written before something that could.

use super::file;
use crate::core::event::Outcome;
use crate::core::ids::{Generation, InstanceId, Run, Slot};
use crate::core::snapshot::RunSnapshot;
use crate::core::time::Mono;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Its name in the runtime directory.
const NAME: &str = "told";

/// So many outcomes wait to be told: about as many as the log has room for.
pub(super) const MOST: u64 = 3072;

/// How long the file is: a number and the end of the line.
const LENGTH: u64 = 21;

/// One outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Of which instance.
    pub instance: InstanceId,
    /// Of which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Where that was.
    #[serde(default, skip_serializing_if = "Slot::is_first")]
    pub slot: Slot,
    /// Which generation was active.
    pub generation: Generation,
    /// When.
    pub at: Mono,
    /// What.
    pub outcome: Outcome,
}

impl Untold {
    /// Whether a run that is known still has this before it: what was being written with it is not all
    /// there, and the outcome is found, and told, once more.
    pub(super) fn is_to_come(&self, run: &RunSnapshot) -> bool {
        // Numbers may come again once no instance knows of the one before.
        let is_its = self.run == Some(run.run) && run.asked <= self.at;
        is_its
            && match self.outcome {
                Outcome::Exited(..) | Outcome::SpawnFailed(..) => run.exit.is_none(),
                Outcome::Completed | Outcome::GaveUp(_) => true,
            }
    }
}

/// The number of the last outcome that was told.
pub struct Told {
    /// None: it is kept nowhere.
    path: Option<PathBuf>,
    number: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Once there was something to write.
    file: Option<File>,
    /// Passed over, with something before them that is not told yet.
    passed: BTreeSet<u64>,
    /// Nobody comes who would have to know.
    is_over: bool,
}

impl Told {
    /// What the daemon before has told.
    pub(super) fn open(directory: Option<&Path>) -> Told {
        let path = directory.map(|directory| directory.join(NAME));
        let found = path.as_deref().and_then(|path| file::bytes(path).ok());
        let number = found.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        // Nobody has come so far.
        let number = number.filter(|number| *number < u64::MAX / 2).unwrap_or_default();
        Told { path, number: AtomicU64::new(number), kept: Mutex::default() }
    }

    /// All up to this one are told.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// This one and all before it are told.
    pub fn advance(&self, number: u64) {
        let mut kept = super::guard(&self.kept);
        if number > self.number() {
            self.set(number, &mut kept);
        }
    }

    /// This one is told to nobody: as good as told, once all before it are.
    pub fn pass(&self, number: u64) {
        let mut kept = super::guard(&self.kept);
        kept.passed.insert(number);
        let told = self.number();
        let first = kept.passed.first().copied().unwrap_or(number);
        if first <= told + 1 {
            self.set(told, &mut kept);
        } else if kept.passed.len() as u64 > MOST {
            // What it waits for does not count any more.
            self.set(first, &mut kept);
        }
    }

    /// From here on nothing is kept.
    pub(super) fn end(&self) {
        super::guard(&self.kept).is_over = true;
    }

    /// That is told, and what was passed over and follows it.
    fn set(&self, mut number: u64, kept: &mut Kept) {
        kept.passed = kept.passed.split_off(&(number + 1));
        while kept.passed.remove(&(number + 1)) {
            number += 1;
        }
        self.number.store(number, Ordering::Relaxed);
        let Some(path) = self.path.as_ref().filter(|_| !kept.is_over) else { return };
        let is_gone = |file: &File| file.metadata().is_ok_and(|found| found.nlink() == 0);
        if kept.file.as_ref().is_none_or(is_gone) {
            // Where it cannot be made it is tried again the next time.
            kept.file = open(path).ok();
        }
        if let Some(file) = &kept.file {
            // Where there is no room they are told once more.
            let _ = file.write_all_at(format!("{number:020}\n").as_bytes(), 0);
        }
    }
}

/// Makes the file where there is none.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = file::open(path, options.write(true).create(true).truncate(false).mode(0o600))?;
    if file.metadata()?.len() > LENGTH {
        file.set_len(LENGTH)?;
    }
    Ok(file)
}

/// Removes what is of another boot.
pub(super) fn remove(directory: &Path) {
    let _ = file::remove(&directory.join(NAME));
}
