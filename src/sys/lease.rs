//! Whether somebody has a file open to write to it.
//!
//! Nothing tells that of a file that was opened before it was watched. But the kernel gives a read
//! lease on a file only while nobody has it open for writing (fcntl(2), "Leases"), so it is asked for
//! one, which is given back at once.

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::AsRawFd;
use std::path::Path;

/// What a lease that somebody waits for is told by (asm-generic/fcntl.h); the libc crate does not have it.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody has this file open to write to it. False as well where that is not known: of what
/// is no regular file, where the owner is another and we may not (`CAP_LEASE`), and on file systems
/// without leases. On network file systems it says nothing: there a lease may be refused by the server.
///
/// Who opens it for writing in between waits until this is over, some microseconds where nobody stops
/// us; who opens it with `O_NONBLOCK` would be told to come again, which nobody does who writes a file.
#[must_use]
pub fn is_open_for_writing(path: &Path) -> bool {
    // Opening something else may do something.
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()) else { return false };
    let set = |command, argument: libc::c_int| {
        // SAFETY: an open descriptor, and commands whose argument is a number.
        nix::errno::Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) })
    };
    // Who waits for the lease has us told by a signal: by one that does nothing where nobody handles it,
    // as SIGIO, which is the usual one, would end us.
    if set(F_SETSIG, libc::SIGURG).is_err() {
        return false;
    }
    let is_refused = set(libc::F_SETLEASE, libc::F_RDLCK) == Err(nix::errno::Errno::EAGAIN);
    // A child that has just been cloned may have the descriptor too.
    let _ = set(libc::F_SETLEASE, libc::F_UNLCK);
    is_refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    #[test]
    fn who_writes_is_seen_and_who_reads_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.yaml");
        assert!(!is_open_for_writing(&path));
        let writer = File::create(&path).unwrap();
        assert!(is_open_for_writing(&path));
        drop(writer);
        assert!(!is_open_for_writing(&path));
        let _reader = File::open(&path).unwrap();
        assert!(!is_open_for_writing(&path));
        let _appender = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(is_open_for_writing(&path));
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_open_for_writing(directory.path()));
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(!is_open_for_writing(&fifo));
    }

    /// Without a signal of our own the first of them would end this process.
    #[test]
    fn writers_that_come_meanwhile_disturb_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.yaml");
        std::fs::write(&path, "x").unwrap();
        let writes = || (0..20_000).for_each(|_| drop(OpenOptions::new().write(true).open(&path)));
        std::thread::scope(|scope| {
            let writer = scope.spawn(writes);
            while !writer.is_finished() {
                let _ = is_open_for_writing(&path);
            }
        });
        assert!(!is_open_for_writing(&path));
    }
}
