//! A log file and those it was rotated to: `api.log`, `api.log.1` (the newest), `api.log.2`, …

use super::arguments::Rotation;
use rustix::fs::{Mode, OFlags};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What tells a file from another, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what is open.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn of(file: &File) -> io::Result<Identity> {
        Ok(Identity::from(&file.metadata()?))
    }

    /// Of what has this name, itself and not what it may lead to; None when nothing has.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn at(path: &Path) -> io::Result<Option<Identity>> {
        match path.symlink_metadata() {
            Ok(metadata) => Ok(Some(Identity::from(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&std::fs::Metadata> for Identity {
    fn from(metadata: &std::fs::Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The name of a rotated file; 0 is the one that is written.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Opens a log file to append to, and makes it and its directories where they are missing. A
/// symbolic link is not followed, and a fifo is not waited for.
///
/// # Errors
/// As open(2) and mkdir(2) have them.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::from_raw_mode(0o640));
    let opened = match open() {
        Err(rustix::io::Errno::NOENT) => {
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            }
            open()
        }
        opened => opened,
    };
    Ok(opened?.into())
}

/// Opens a log file to read. A symbolic link is not followed.
///
/// # Errors
/// As open(2) has them.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Gives the log file the number 1 and each rotated file the next one; the oldest is replaced, and
/// what is beyond the limit is removed. Each step is one rename, so that whenever this ends in the
/// middle nothing is lost: what is left is a gap in the numbers, which the next rotation fills.
///
/// # Errors
/// When a file cannot be renamed. The log file itself comes last.
pub fn shift(path: &Path, rotation: Rotation) -> io::Result<()> {
    let newest = 1..=rotation.max_files;
    let mut free = rotation.max_files;
    for number in newest {
        if Identity::at(&numbered(path, number))?.is_none() {
            free = number;
            break;
        }
    }
    // Fewer may be kept than before.
    let mut beyond = rotation.max_files.saturating_add(1);
    while std::fs::remove_file(numbered(path, beyond)).is_ok() {
        beyond = beyond.saturating_add(1);
    }
    for number in (0..free).rev() {
        std::fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    fn check(before: &[(&str, &str)], max_files: u32, after: &[(&str, &str)]) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in before {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        shift(&directory.path().join("a"), Rotation { max_size: 1, max_files }).unwrap();
        let found = names(directory.path());
        let found: Vec<_> = found.iter().map(|(n, c)| (n.as_str(), c.as_str())).collect();
        assert_eq!(found, after);
    }

    #[test]
    fn numbers_grow_and_the_oldest_goes() {
        check(&[("a", "now")], 2, &[("a.1", "now")]);
        check(&[("a", "now"), ("a.1", "old")], 2, &[("a.1", "now"), ("a.2", "old")]);
        check(
            &[("a", "now"), ("a.1", "old"), ("a.2", "older")],
            2,
            &[("a.1", "now"), ("a.2", "old")],
        );
    }

    #[test]
    fn a_gap_is_filled_and_costs_nothing() {
        check(
            &[("a", "now"), ("a.1", "old"), ("a.3", "oldest")],
            3,
            &[("a.1", "now"), ("a.2", "old"), ("a.3", "oldest")],
        );
        check(&[("a", "now"), ("a.2", "old")], 2, &[("a.1", "now"), ("a.2", "old")]);
    }

    #[test]
    fn what_is_beyond_a_smaller_limit_is_removed() {
        check(
            &[("a", "now"), ("a.1", "1"), ("a.2", "2"), ("a.3", "3"), ("a.x", "other")],
            1,
            &[("a.1", "now"), ("a.x", "other")],
        );
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("a");
        std::os::unix::fs::symlink(directory.path().join("target"), &link).unwrap();
        assert!(open_to_append(&link).is_err());
        assert!(!directory.path().join("target").exists());
    }
}
