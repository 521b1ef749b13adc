//! Replaces a file as a whole, so that whoever reads it sees the old content or the new.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Gives the file at `path` a new content: written beside it, synced, renamed over it. Owner and
/// mode stay; a symlink stays, what it points to is replaced.
///
/// # Errors
/// Then the file is as it was.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary = beside(&path);
    // What a daemon of this number left behind that was killed in here: as PID 1 it always has it.
    let _ = fs::remove_file(&temporary);
    let result = write(&temporary, content, &old)
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(directory)?.sync_all());
    if result.is_err() {
        // It may not exist; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// The same, for a file that may be missing: a new one is for its owner alone.
///
/// # Errors
/// Then it is as it was.
pub(super) fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    match replace(path, content) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = beside(path);
            let _ = fs::remove_file(&temporary);
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            let written = file.write_all(content).and_then(|()| file.sync_all());
            written.and_then(|()| fs::rename(&temporary, path))
        }
        result => result,
    }
}

/// Removes a file that [`put`] has made.
///
/// # Errors
/// What the system says.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// A hidden name, which the drop-in directory and the watch pass over.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.provost", std::process::id()));
    path.with_file_name(name)
}

fn write(path: &Path, content: &[u8], old: &fs::Metadata) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(old.mode() & 0o7777).open(path)?;
    file.write_all(content)?;
    if (file.metadata()?.uid(), file.metadata()?.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn mode_and_symlink_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_daemon_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real");
        fs::write(&file, "old").unwrap();
        fs::write(beside(&file), "half").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(replace(&dir.path().join("missing"), b"new").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
