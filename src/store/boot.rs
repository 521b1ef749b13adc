//! Which boot, and which container, what was kept is of.
//!
//! Process ids, start times and the clock mean something only within one boot and one pid namespace.
//! The first process of the namespace tells a container from the one before it in the same place.

use super::file::{self, Kind, ReadError};
use crate::sys::random;
use crate::sys::stat::Stat;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const NAME: &str = "boot";

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
    /// The present boot, and whether what is in the directory is of it. Where it is not, that is to
    /// be removed, and then the boot to be written.
    #[must_use]
    pub fn of(directory: Option<&Path>, remarks: &mut Vec<String>) -> (Boot, bool) {
        let present = Boot::present(directory);
        let Some(path) = directory.map(|directory| directory.join(NAME)) else {
            return (present, false);
        };
        match file::read::<Boot>(&path, Kind::Boot) {
            Ok(kept) if kept == (Boot { token: kept.token, ..present.clone() }) => {
                return (kept, true);
            }
            Ok(_) | Err(ReadError::Missing) => {}
            // Whose the rest is cannot be told any more.
            Err(error) => remarks.push(super::put_aside(&path, &error)),
        }
        (present, false)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        file::write(&directory.join(NAME), &file::encode(Kind::Boot, self))
    }

    fn present(directory: Option<&Path>) -> Boot {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
        let first = Stat::of(1).map_or(0, |first| first.start);
        let mut boot = Boot { id: id.trim().to_owned(), namespace, first, token: 0 };
        let token = directory.and_then(|path| boot.token_of(path).ok());
        boot.token = token.unwrap_or_else(|| (random() >> 32) as u32);
        boot
    }

    /// The same for each daemon with this directory, so that what runs is found even where this file
    /// is lost or could not be written; and another one in another container, which may have a
    /// directory of the same name.
    fn token_of(&self, directory: &Path) -> io::Result<u32> {
        let found = fs::metadata(directory)?;
        let mut digest = Sha256::new();
        digest.update(self.id.as_bytes());
        for number in [self.namespace, self.first, found.dev(), found.ino()] {
            digest.update(number.to_le_bytes());
        }
        digest.update(std::path::absolute(directory)?.as_os_str().as_bytes());
        let digest = digest.finalize();
        Ok(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}
