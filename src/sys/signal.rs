//! Signals to exactly one process, and word of its end.

use crate::core::spec::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sends a signal through a pidfd: to that process or, when it is gone, to nobody.
///
/// # Errors
/// `NotFound` is never returned: a process that is gone is no error. Else what the kernel says.
pub fn send(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            i32::from(signal.0),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// The signals that this process ignores (proc_pid_status(5), `SigIgn`); bit 0 is signal 1. A
/// program it executes ignores them too.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status: no SigIgn"))
}

/// A descriptor for the process that has this number now. None when nobody has it, and for numbers
/// that stand for more than one process or for the first.
///
/// # Errors
/// What the kernel says, such as that there are too many open files.
pub fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1) else { return Ok(None) };
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns when the process has ended, reaped or not: a pidfd becomes readable then
/// (pidfd_open(2)).
///
/// # Errors
/// When the descriptor cannot be waited for.
pub async fn gone(pidfd: impl Into<Arc<OwnedFd>>) -> io::Result<()> {
    // SAFETY: an OwnedFd is open, and stays the same, for as long as it is owned.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd.into(), Interest::READABLE) }?;
    let _guard = pidfd.readable().await?;
    Ok(())
}
