//! Edits of `enabled` in the files.

use super::handle::DriverError;
use super::replace::replace;
use crate::config::edit;
use crate::config::load::{Loaded, Location, load};
use crate::core::ids::ProcessId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// One edit.
pub(super) struct Edit {
    pub(super) location: Location,
    /// The digest of what is active.
    pub(super) active: String,
    pub(super) ids: BTreeSet<ProcessId>,
    pub(super) enabled: bool,
}

/// A file to be changed.
struct Changed {
    path: PathBuf,
    old: String,
    new: String,
}

impl Edit {
    /// Carries it out. Blocks.
    ///
    /// # Errors
    /// Then the files are as they were.
    pub(super) fn run(self) -> Result<(), DriverError> {
        let loaded = load(&self.location);
        if loaded.sources.digest != self.active {
            return Err(DriverError::EditRefused(
                "the file on disk differs from what runs; `provost plan` shows how, \
                 `provost reload` applies it"
                    .to_owned(),
            ));
        }
        let changed = self.changes(&loaded)?;
        for (at, file) in changed.iter().enumerate() {
            if let Err(error) = replace(&file.path, file.new.as_bytes()) {
                for before in &changed[..at] {
                    // What worked a moment ago; the first error is the one to tell.
                    let _ = replace(&before.path, before.old.as_bytes());
                }
                return Err(refused(&file.path, reason(&error)));
            }
        }
        Ok(())
    }

    /// What the files are to be, from the very content that was compared with what is active.
    fn changes(&self, loaded: &Loaded) -> Result<Vec<Changed>, DriverError> {
        let mut files: BTreeMap<&PathBuf, Vec<ProcessId>> = BTreeMap::new();
        for id in &self.ids {
            let Some(place) = loaded.places.get(id) else {
                return Err(DriverError::EditRefused(format!("{id} is in no file")));
            };
            files.entry(&place.file).or_default().push(id.clone());
        }
        let mut changed = Vec::new();
        for (path, ids) in files {
            let source = loaded.sources.files.iter().find(|source| *source.path == *path);
            let content = source.and_then(|source| source.content.as_deref()).unwrap_or_default();
            let old = std::str::from_utf8(content).map_err(|error| refused(path, error))?;
            let new =
                edit::set_enabled(old, &ids, self.enabled).map_err(|error| refused(path, error))?;
            if new != old {
                changed.push(Changed { path: path.clone(), old: old.to_owned(), new });
            }
        }
        Ok(changed)
    }
}

pub(super) fn refused(path: &Path, why: impl std::fmt::Display) -> DriverError {
    DriverError::EditRefused(format!("{}: {why}", path.display()))
}

pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        // What rename(2) says of a single file that is mounted.
        Some(libc::EBUSY) => {
            "it is a mount of its own and cannot be replaced as a whole; mount its \
             directory instead"
                .to_owned()
        }
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}
