//! A configuration that somebody tries, and that is undone unless somebody confirms it.
//!
//! There are two files in the state directory: what is known of it, and what was in the file with the
//! processes before. They are written, in the other order, before that file is replaced, and removed
//! when it was confirmed or undone. So whoever is killed in between leaves what there is to be undone,
//! and nothing is undone that nobody began.

use super::file::{self, Kind, ReadError};
use super::generations::HeldOff;
use crate::core::ids::Generation;
use crate::core::time::Mono;
use crate::core::trial::TrialSnapshot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is known of a configuration that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tentative {
    /// Which it is; None before it was accepted.
    pub generation: Option<Generation>,
    /// What comes back; None before it was accepted, or where nothing ran.
    pub base: Option<Generation>,
    /// Who tries it.
    pub uid: u32,
    /// How long it waits, from when it is up.
    pub within: Duration,
    /// Until when; None before it is up. Means something in the same boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Mono>,
    /// The file that was replaced, absolute.
    #[serde(with = "super::generations::record::path_text")]
    pub path: PathBuf,
    /// SHA-256 of what was put there, in hex.
    pub applied: String,
    /// SHA-256 of what was there before, in hex; None: there was no such file.
    pub former: Option<String>,
    /// What of the files before was not to be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_off: Option<HeldOff>,
    /// How the instances were before; None before it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialSnapshot>,
}

impl Tentative {
    /// One that was not begun yet.
    #[must_use]
    pub fn new(
        uid: u32,
        within: Duration,
        path: PathBuf,
        content: &[u8],
        held_off: Option<HeldOff>,
    ) -> Tentative {
        Tentative {
            generation: None,
            base: None,
            uid,
            within,
            until: None,
            path,
            applied: Tentative::digest(content),
            former: None,
            held_off,
            trial: None,
        }
    }

    /// The digest by which a content is known.
    #[must_use]
    pub fn digest(content: &[u8]) -> String {
        file::hex(&Sha256::digest(content))
    }
}

/// Where it is kept. All that writes waits for the disk, and returns when it is there.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    /// The state directory; None: there is none.
    state: Option<PathBuf>,
}

impl Checkpoints {
    /// What is kept in a state directory, and what is there. What is damaged, or of a newer version, is
    /// set aside and named in the remarks.
    #[must_use]
    pub fn open(
        state: Option<&Path>,
        remarks: &mut Vec<String>,
    ) -> (Checkpoints, Option<Tentative>) {
        let checkpoints = Checkpoints { state: state.map(Path::to_owned) };
        let Some(path) = checkpoints.record() else { return (checkpoints, None) };
        let found = match file::read::<Tentative>(&path, Kind::Checkpoint) {
            Ok(found) => Some(found),
            Err(ReadError::Missing) => None,
            // Without the directory there is no file.
            Err(ReadError::Io(_)) if !path.exists() => None,
            Err(error) => {
                remarks.push(super::put_aside(&path, &error));
                None
            }
        };
        (checkpoints, found)
    }

    /// Whether anything can be kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.state.is_some()
    }

    fn record(&self) -> Option<PathBuf> {
        Some(self.state.as_ref()?.join("checkpoint"))
    }

    fn content(&self) -> Option<PathBuf> {
        Some(self.state.as_ref()?.join("checkpoint.former"))
    }

    /// Keeps one, before anything is done for it. `former`: what is in the file.
    ///
    /// # Errors
    /// What the system says; then there is none.
    pub fn begin(&self, tentative: &Tentative, former: Option<&[u8]>) -> io::Result<()> {
        let content = self.content().ok_or_else(nowhere)?;
        let kept = match former {
            Some(former) => file::write_durably(&content, &file::raw(former)),
            None => file::remove_durably(&content),
        };
        kept.and_then(|()| self.save(tentative)).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.end();
        })
    }

    /// Keeps what became of it.
    ///
    /// # Errors
    /// What the system says; then what was known before is kept.
    pub fn save(&self, tentative: &Tentative) -> io::Result<()> {
        let record = self.record().ok_or_else(nowhere)?;
        file::write_durably(&record, &file::encode(Kind::Checkpoint, tentative))
    }

    /// What was in the file before.
    ///
    /// # Errors
    /// When it is not as it was written.
    pub fn former(&self, tentative: &Tentative) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(digest) = &tentative.former else { return Ok(None) };
        let path = self.content().ok_or(ReadError::Missing)?;
        let content = file::bytes(&path)?;
        if Tentative::digest(&content) != *digest {
            return Err(ReadError::Damaged("it is not as it was written".to_owned()));
        }
        Ok(Some(content))
    }

    /// There is none any more.
    ///
    /// # Errors
    /// What the system says; then the next daemon may undo it.
    pub fn end(&self) -> io::Result<()> {
        let (Some(record), Some(content)) = (self.record(), self.content()) else { return Ok(()) };
        file::remove_durably(&record)?;
        // Without the record nobody looks at it.
        let _ = file::remove(&content);
        Ok(())
    }
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no state directory")
}
