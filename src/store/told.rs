//! What came of runs, until that is told.
//!
//! The state after the end of a run knows nothing of that run any more, and the log is written by a
//! thread of its own: who is killed after the one and before the other has told nobody, and whoever
//! comes next would not know that there is anything to tell. So each outcome gets a number and is kept
//! together with the state that follows from it, and the thread that writes the log keeps here the
//! number of the last one that it has written. What has a larger one is told by the next daemon.
//!
//! Nobody tells one twice, unless it is killed between the writing of the line and that of its number.
//! Where the number is lost, those that are still kept are told again: they have happened.

use super::file;
use crate::core::event::Outcome;
use crate::core::ids::{InstanceId, Run};
use crate::core::time::Mono;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Its name in the runtime directory.
const NAME: &str = "told";

/// One outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Of which instance.
    pub instance: InstanceId,
    /// Of which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// When.
    pub at: Mono,
    /// What.
    pub outcome: Outcome,
}

/// The number of the last outcome that was told.
pub struct Told {
    /// None: it is kept nowhere.
    path: Option<PathBuf>,
    number: AtomicU64,
    /// Once there was something to write.
    file: Mutex<Option<File>>,
}

impl Told {
    /// What the daemon before has told.
    pub(super) fn open(directory: Option<&Path>) -> Told {
        let path = directory.map(|directory| directory.join(NAME));
        let found = path.as_deref().and_then(|path| file::bytes(path).ok());
        let number = found.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        Told { path, number: AtomicU64::new(number.unwrap_or_default()), file: Mutex::default() }
    }

    /// All up to this one are told.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// This one and all before it are told.
    pub fn advance(&self, number: u64) {
        let mut file = super::guard(&self.file);
        if self.number.fetch_max(number, Ordering::Relaxed) >= number {
            return;
        }
        let Some(path) = &self.path else { return };
        if file.is_none() {
            *file = open(path);
        }
        if let Some(file) = &*file {
            // Where there is no room they are told once more.
            let _ = file.write_all_at(format!("{number:020}\n").as_bytes(), 0);
        }
    }
}

/// Makes the file where there is none: where that cannot be done, the next time.
fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    file::open(path, options.write(true).create(true).truncate(false).mode(0o600)).ok()
}

/// Removes what is of another boot.
pub(super) fn remove(directory: &Path) {
    let _ = file::remove(&directory.join(NAME));
}
