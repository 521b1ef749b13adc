//! What a pidfd tells of a process that is not a child.

use crate::core::event::ExitStatus;
use crate::core::spec::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// `struct pidfd_info` of `linux/pidfd.h`, as long as it was at first; a newer kernel fills in what
/// fits.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`: direction, size, type, number
/// (`asm-generic/ioctl.h`).
const PIDFD_GET_INFO: u64 = (3 << 30) | ((size_of::<Info>() as u64) << 16) | (0xFF << 8) | 11;
/// `PIDFD_INFO_EXIT`, Linux 6.15.
const EXIT: u64 = 1 << 3;

/// How a process ended that has ended. Only Linux 6.15 and newer tell, and only once its parent has
/// taken its status, which is waited for so long. Blocks.
#[must_use]
pub fn exit_status(pidfd: &OwnedFd, patience: Duration) -> ExitStatus {
    if let Some(status) = info(pidfd) {
        return status;
    }
    // When it is reaped the descriptor hangs up, which poll(2) tells without being asked.
    let mut waited = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::empty())];
    let limit = rustix::event::Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    // Whatever it says, the question decides.
    let _ = rustix::event::poll(&mut waited, Some(&limit));
    info(pidfd).unwrap_or(ExitStatus::Unknown)
}

fn info(pidfd: &OwnedFd) -> Option<ExitStatus> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: `info` is what the call writes to, and its size is in the number of the call.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result != 0 {
        // ENOTTY, EINVAL: an older kernel. ESRCH: reaped before there was a descriptor.
        let _ = io::Error::last_os_error();
        return None;
    }
    (info.mask & EXIT != 0).then(|| decode(info.exit_code))
}

/// The meaning of a wait status (wait(2)).
fn decode(status: i32) -> ExitStatus {
    let signal = u8::try_from(status & 0x7f).unwrap_or(0);
    match signal {
        0 => ExitStatus::Code(u8::try_from((status >> 8) & 0xff).unwrap_or(0)),
        signal => ExitStatus::Signal { signal: Signal(signal), core: status & 0x80 != 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_understood() {
        assert_eq!(decode(0x300), ExitStatus::Code(3));
        assert_eq!(decode(9), ExitStatus::Signal { signal: Signal(9), core: false });
        assert_eq!(decode(0x86), ExitStatus::Signal { signal: Signal(6), core: true });
        assert_eq!(size_of::<Info>(), 64);
    }
}
