//! One daemon in one place: two would each start everything.
//!
//! The lock is one of fcntl(2), which belongs to the process and not to the descriptor: it ends with
//! the daemon and is not passed on to a child that is just being started, so the next daemon never
//! waits. The socket beside it is no such proof, because its file can be removed.

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockType};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The place is taken until this is dropped. The file must not be opened by anybody else in this
/// process: its lock ends with the first descriptor that is closed.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held open")] File);

/// Another daemon has this place.
#[derive(Debug, thiserror::Error)]
#[error("another daemon{} runs with {}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), directory.display())]
pub struct Taken {
    /// Its runtime directory.
    pub directory: PathBuf,
    /// Its pid, where it has one in this pid namespace.
    pub pid: Option<i32>,
}

/// Takes a runtime directory, which is made where it is missing. None where it cannot be used:
/// nothing is kept there then, and nothing tells whether another daemon is there.
///
/// # Errors
/// When another daemon has it.
pub fn take(directory: &Path) -> Result<Option<Lock>, Taken> {
    let Ok(file) = super::private_directory(directory).and_then(|()| open(directory)) else {
        return Ok(None);
    };
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
            let pid = holder.ok().flatten().and_then(|lock| lock.pid);
            let pid = pid.map(|pid| pid.as_raw_nonzero().get());
            Err(Taken { directory: directory.to_owned(), pid })
        }
        // A file system without locks.
        Err(_) => Ok(None),
    }
}

fn open(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(directory.join("lock"))
}
