//! Which boot, and which container, what was kept is of.
//!
//! Process ids, start times and the clock mean something only within one boot and one pid namespace.
//! The first process of the namespace tells a container from the one before it in the same place.

use super::file::{self, Kind, ReadError};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A boot, and the token by which what was started in it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub id: String,
    /// The pid namespace, by the number of its inode.
    pub namespace: u64,
    /// When the first process of the namespace was started, in ticks since boot.
    pub first: u64,
    /// In the mark of everything that a daemon with this runtime directory starts.
    pub token: u32,
}

impl Boot {
    /// The present boot, and whether what is in the directory is of it. A new token is made and
    /// kept where it is not.
    #[must_use]
    pub fn of(directory: Option<&Path>, remarks: &mut Vec<String>) -> (Boot, bool) {
        let present = Boot::present();
        let Some(path) = directory.map(|directory| directory.join("boot")) else {
            return (present, false);
        };
        match file::read::<Boot>(&path, Kind::Boot) {
            Ok(kept) if kept == (Boot { token: kept.token, ..present.clone() }) => {
                return (kept, true);
            }
            Ok(_) | Err(ReadError::Missing) => {}
            Err(error) => {
                // Whose the rest is cannot be told any more.
                remarks.push(format!("{} is not used: {error}", path.display()));
                let _ = file::set_aside(&path);
            }
        }
        if let Err(error) = file::write(&path, &file::encode(Kind::Boot, &present)) {
            remarks.push(format!("{} cannot be written: {error}", path.display()));
        }
        (present, false)
    }

    fn present() -> Boot {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
        Boot { id: id.trim().to_owned(), namespace, first: start_of(1), token: token() }
    }
}

/// When a process was started: field 22 of proc_pid_stat(5). 0 where it cannot be told.
fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program may have anything in it, and ends with the last parenthesis.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// A number that hardly comes twice.
fn token() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or(0)
}
