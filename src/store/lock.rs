//! One daemon in one place: two would each start everything.
//!
//! The lock is one of fcntl(2), which belongs to the process and not to the descriptor: what the
//! daemon runs has no part in it. The socket beside it is no such proof, because its file can be
//! removed.
//!
//! To be exact, it belongs to the table of descriptors. A process that is just being started begins
//! with that of the daemon ([`crate::sys::clone`]), so when the daemon is killed in this moment the
//! lock ends only once that process has a table of its own, some microseconds later. A lock whose
//! holder is dead is therefore waited for. The kernel tells when it is free, and a thread of its own
//! asks it, because only the waiting for the thread can be given a limit.

use crate::sys::stat::Stat;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

/// A lock without a holder that lives is waited for so long, on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The place is taken until this is dropped. The file must not be opened by anybody else in this
/// process: its lock ends with the first descriptor that is closed.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// For another program in this process: the lock goes with it.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.0.into()
    }
}

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
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            let pid = holder(&file);
            let taken = Taken { directory: directory.to_owned(), pid };
            match pid {
                Some(pid) if is_alive(pid) => Err(taken),
                _ => wait_for(file).map(|file| Some(Lock(file))).ok_or(taken),
            }
        }
        // A file system without locks.
        Err(_) => Ok(None),
    }
}

/// Goes on with the lock that another program in this process had. That belongs to the process, and
/// is ours already; where it is not, for want of locks, it is taken.
///
/// # Errors
/// When another daemon has it.
pub fn take_over(directory: &Path, file: OwnedFd) -> Result<Option<Lock>, Taken> {
    let file = File::from(file);
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            Err(Taken { directory: directory.to_owned(), pid: holder(&file) })
        }
        Err(_) => Ok(None),
    }
}

/// Who has the lock, or had it and has died.
fn holder(file: &File) -> Option<i32> {
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok().flatten()?;
    Some(lock.pid?.as_raw_nonzero().get())
}

fn is_alive(pid: i32) -> bool {
    let stat = u32::try_from(pid).ok().and_then(Stat::of);
    stat.is_some_and(|stat| !stat.has_ended())
}

/// Waits until the lock is free, and takes it.
fn wait_for(file: File) -> Option<File> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("lock".into());
    let waiting = thread.spawn(move || {
        if retry_on_intr(|| fcntl_lock(&file, FlockOperation::LockExclusive)).is_ok() {
            // Where nobody waits any more the lock goes with the file.
            let _ = sender.send(file);
        }
    });
    waiting.ok()?;
    receiver.recv_timeout(PATIENCE).ok()
}

fn open(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(directory.join("lock"))
}
