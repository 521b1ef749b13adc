//! Word of changes of the table of mounts.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The mounts that this process sees.
#[derive(Debug)]
pub struct Mounts(AsyncFd<OwnedFd>);

impl Mounts {
    /// Opens `/proc/self/mountinfo`, which is ready for EPOLLPRI after each change
    /// (proc_pid_mountinfo(5)). Call it within a tokio runtime.
    ///
    /// # Errors
    /// Where there is no such file, and when there are too many open files.
    pub fn open() -> io::Result<Mounts> {
        let table = OwnedFd::from(File::open("/proc/self/mountinfo")?);
        // SAFETY: an OwnedFd is open, and stays the same, for as long as it is owned.
        let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }?;
        Ok(Mounts(table))
    }

    /// Returns after a change that it did not return for yet. None of them is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}
