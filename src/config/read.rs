//! Reads files: each once, regular files only, 16 MiB at most; all of them as of one moment.

use super::load::{Source, SourceKind, Sources};
use super::watch::remote::file_system;
use super::watch::settle::UNCLOSED;
use crate::sys::lease::is_open_for_writing;
use std::collections::HashMap;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A file may have so many bytes.
pub(crate) const LARGEST: u64 = 16 << 20;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It, or a directory on the way to it, does not exist.
    #[error("no such file")]
    Missing,
    /// A directory, a FIFO, a device or a socket.
    #[error("{0}, not a file")]
    NotAFile(&'static str),
    /// More than [`LARGEST`].
    #[error("larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// Somebody is writing to it.
    #[error("it changed while it was read")]
    Changing,
    /// Files of another time are looked at, and this is none of them.
    #[error("it was not kept")]
    NotKept,
    /// The system says no.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
}

/// What the system says, without the number that only programmers want.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Which version of which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Device and inode.
    file: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn at(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().as_ref().map(Stamp::of)
    }

    /// Whether it was another one so short a time ago that somebody may be at it. Also where that is
    /// yet to come, by a clock that was set.
    fn is_fresh(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let Ok(seconds) = u64::try_from(seconds) else { return false };
        let since = Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since);
        // Some file systems count in seconds, or in two of them.
        let exact = if nanoseconds == 0 { Duration::from_secs(2) } else { Duration::ZERO };
        age.map_or(true, |age| age < UNCLOSED + exact)
    }
}

/// Files of another time, and the place of each among them.
#[derive(Debug)]
struct Kept {
    sources: Sources,
    places: HashMap<Arc<PathBuf>, usize>,
}

impl Kept {
    fn file(&self, path: &Path) -> Option<&Source> {
        self.places.get(&path.to_owned()).and_then(|place| self.sources.files.get(*place))
    }
}

/// Every file that was read or looked for, in that order.
#[derive(Debug, Default)]
pub(crate) struct FileSet {
    pub(crate) sources: Vec<Source>,
    /// Where files are read from instead of the disk.
    kept: Option<Kept>,
    /// What is on disk when it is still as it was read.
    expected: Vec<(PathBuf, Option<Stamp>)>,
    /// A directory and what was in it; None: it was not there.
    listed: Option<(PathBuf, Option<Vec<PathBuf>>)>,
}

impl FileSet {
    /// Reads what was kept, and nothing on disk.
    pub(crate) fn of(sources: Sources) -> FileSet {
        let files = sources.files.iter().enumerate();
        let places = files.map(|(place, file)| (Arc::clone(&file.path), place)).collect();
        FileSet { kept: Some(Kept { sources, places }), ..FileSet::default() }
    }

    /// Whether it reads what was kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Reads a file and remembers that it was read.
    pub(crate) fn read(
        &mut self,
        path: &Path,
        kind: SourceKind,
    ) -> (Arc<PathBuf>, Result<Arc<[u8]>, ReadError>) {
        if let Some(kept) = &self.kept {
            let found = kept.file(path);
            let content = found.and_then(|file| file.content.clone());
            let modified = found.and_then(|file| file.modified);
            let outcome = match (found, &content) {
                (None, _) => Err(ReadError::NotKept),
                (Some(_), None) => Err(ReadError::Missing),
                (Some(_), Some(content)) => Ok(Arc::clone(content)),
            };
            return (self.remember(path, kind, content, modified), outcome);
        }
        let result = read(path);
        let (content, found, outcome) = match result {
            Ok((content, found)) => {
                let content: Arc<[u8]> = content.into();
                (Some(Arc::clone(&content)), Some(found), Ok(content))
            }
            Err(error) => (None, None, Err(error)),
        };
        let stamp = match &found {
            Some(found) => Some(Stamp::of(found)),
            None if matches!(outcome, Err(ReadError::Missing)) => None,
            None => Stamp::at(path),
        };
        self.expected.push((path.to_owned(), stamp));
        let modified = found.and_then(|found| found.modified().ok());
        (self.remember(path, kind, content, modified), outcome)
    }

    /// What is in a directory, in the order of the names; None when it is not there.
    pub(crate) fn list(&mut self, directory: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        let found = match &self.kept {
            Some(kept) => kept.sources.drop_ins_in(directory),
            None => list(directory)?,
        };
        self.listed = Some((directory.to_owned(), found.clone()));
        Ok(found)
    }

    /// Whether a directory was to be listed that is not there.
    pub(crate) fn lacks_directory(&self) -> bool {
        matches!(self.listed, Some((_, None)))
    }

    /// The first that somebody is writing, see [`is_being_written`]. Before it is asked whether all is as
    /// it was read: then nobody was writing in between either.
    pub(crate) fn being_written(&self) -> Option<PathBuf> {
        let mut fresh =
            self.expected.iter().filter(|(_, stamp)| stamp.is_some_and(|s| s.is_fresh()));
        fresh.find(|(path, _)| is_being_written(path)).map(|(path, _)| path.clone())
    }

    /// Whether all is as it was read: then it was so, all at once, at the end of reading.
    ///
    /// A link that goes back and forth between two directories may be on the right side each time that
    /// something is looked at. So all of it is looked at several times in a row: that a whole swap falls
    /// into the same gap of each is not to be expected.
    pub(crate) fn is_current(&self) -> bool {
        const LOOKS: usize = 3;
        self.is_kept() || (0..LOOKS).all(|_| self.is_as_it_was())
    }

    fn is_as_it_was(&self) -> bool {
        let listed = self
            .listed
            .iter()
            .all(|(directory, found)| list(directory).is_ok_and(|now| now == *found));
        listed && self.expected.iter().all(|(path, stamp)| Stamp::at(path) == *stamp)
    }

    /// Takes a content as that of a file.
    pub(crate) fn stand_in(
        &mut self,
        path: &Path,
        kind: SourceKind,
        content: Vec<u8>,
    ) -> (Arc<PathBuf>, Result<Arc<[u8]>, ReadError>) {
        if content.len() as u64 > LARGEST {
            return (self.remember(path, kind, None, None), Err(ReadError::TooLarge));
        }
        let content: Arc<[u8]> = content.into();
        (self.remember(path, kind, Some(Arc::clone(&content)), None), Ok(content))
    }

    fn remember(
        &mut self,
        path: &Path,
        kind: SourceKind,
        content: Option<Arc<[u8]>>,
        modified: Option<SystemTime>,
    ) -> Arc<PathBuf> {
        let path = Arc::new(path.to_owned());
        self.sources.push(Source { path: Arc::clone(&path), content, modified, kind });
        path
    }
}

/// Whether somebody is writing this file: has it open for that, and changed it within the last
/// [`UNCLOSED`]. What others have open elsewhere is not known. Blocks.
pub(crate) fn is_being_written(path: &Path) -> bool {
    // Where no lease is to be had of a server, that says nothing of writers.
    Stamp::at(path).is_some_and(|stamp| stamp.is_fresh())
        && file_system(path).is_none()
        && is_open_for_writing(path)
}

/// The content alone, for a look that decides what is read.
pub(crate) fn peek(path: &Path) -> Result<Vec<u8>, ReadError> {
    read(path).map(|(content, _)| content)
}

fn list(directory: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(Some(paths))
}

/// Network file systems learn from reading that a file is another one by now, so a change is only
/// believed when it goes on.
fn read(path: &Path) -> Result<(Vec<u8>, Metadata), ReadError> {
    const TRIES: u32 = 3;
    let mut tries = 1;
    loop {
        match read_once(path) {
            Err(ReadError::Changing) if tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

fn read_once(path: &Path) -> Result<(Vec<u8>, Metadata), ReadError> {
    // Without O_NONBLOCK the open of a FIFO waits for a writer, for ever.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => ReadError::Missing,
            // What open says of a socket.
            Some(libc::ENXIO) => ReadError::NotAFile("a socket"),
            _ => ReadError::Io(error),
        }
    })?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(ReadError::NotAFile(word(before.file_type())));
    }
    if before.len() > LARGEST {
        return Err(ReadError::TooLarge);
    }
    let mut content = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0) + 1);
    (&file).take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(ReadError::TooLarge);
    }
    let after = file.metadata()?;
    // Files of /proc have no size of their own.
    let grown = before.len() != 0 && content.len() as u64 != before.len();
    if grown || Stamp::of(&after) != Stamp::of(&before) {
        return Err(ReadError::Changing);
    }
    Ok((content, before))
}

fn word(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("good"), "a: 1").unwrap();
        assert_eq!(read(&path("good")).unwrap().0, b"a: 1");
        assert!(matches!(read(&path("none")), Err(ReadError::Missing)));
        assert!(matches!(read(&path("good/x")), Err(ReadError::Missing)));
        assert!(matches!(read(dir.path()), Err(ReadError::NotAFile("a directory"))));
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(read(&path("fifo")), Err(ReadError::NotAFile("a FIFO"))));
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert!(matches!(read(&path("socket")), Err(ReadError::NotAFile("a socket"))));
        assert!(matches!(read(Path::new("/dev/null")), Err(ReadError::NotAFile("a device"))));
        std::fs::File::create(path("large")).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(read(&path("large")), Err(ReadError::TooLarge)));
        // Has no size and does not end.
        assert!(!read(Path::new("/proc/self/status")).unwrap().0.is_empty());
    }

    #[test]
    fn a_missing_file_is_remembered_too() {
        let mut files = FileSet::default();
        let (path, outcome) = files.read(Path::new("/nowhere/x.yaml"), SourceKind::Main);
        assert!(matches!(outcome, Err(ReadError::Missing)));
        assert_eq!(files.sources[0].path, path);
        assert!(files.sources[0].content.is_none());
    }
}
