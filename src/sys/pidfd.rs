//! What a pidfd tells of a process that is not a child.

use super::stat::Stat;
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

/// How a process ended that has ended: `pid`, started at `start` ticks since boot. Blocks.
///
/// While its parent has not taken the status, `/proc` has it; from Linux 6.15 on the descriptor
/// has it once the parent has, which is waited for so long where `/proc` did not tell.
#[must_use]
pub fn exit_status(pidfd: &OwnedFd, pid: u32, start: u64, patience: Duration) -> ExitStatus {
    if let Some(status) = info(pidfd).or_else(|| of_zombie(pid, start)).or_else(|| info(pidfd)) {
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

/// Whether a process ends or has ended. It leaves its core first, what it had open is closed then, and the
/// descriptor becomes readable last.
#[must_use]
pub fn is_ending(pidfd: &OwnedFd) -> bool {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let told = std::fs::read_to_string(path).unwrap_or_default();
    match told.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i64>().ok()) {
        // It was reaped (pidfd_open(2) shows -1 then).
        Some(-1) => true,
        Some(pid) => u32::try_from(pid).ok().and_then(Stat::of).is_some_and(|stat| stat.is_ending),
        None => false,
    }
}

/// The status of a process that nobody has reaped. To who may not look into the process it is shown
/// as 0, so from others than root 0 means nothing.
fn of_zombie(pid: u32, start: u64) -> Option<ExitStatus> {
    let root = rustix::process::geteuid().is_root();
    zombie_status(&Stat::of(pid)?, start).filter(|status| root || *status != 0).map(decode)
}

fn zombie_status(stat: &Stat, start: u64) -> Option<i32> {
    (stat.state == b'Z' && stat.start == start).then_some(stat.status)
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
    fn a_zombie_tells_its_status() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let stat = loop {
            let stat = Stat::of(child.id()).unwrap();
            if stat.state == b'Z' {
                break stat;
            }
            std::thread::yield_now();
        };
        let start = stat.start;
        assert_eq!(zombie_status(&stat, start).map(decode), Some(ExitStatus::Code(7)));
        // Another process with the same number says nothing.
        assert_eq!(zombie_status(&stat, start + 1), None);
        assert_eq!(zombie_status(&Stat { state: b'S', ..stat }, start), None);
        child.wait().unwrap();
    }

    #[test]
    fn an_end_is_seen_while_it_is_under_way_and_after() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = crate::sys::signal::open(child.id()).unwrap().unwrap();
        assert!(!is_ending(&pidfd));
        child.kill().unwrap();
        while Stat::of(child.id()).unwrap().state != b'Z' {
            std::thread::yield_now();
        }
        assert!(is_ending(&pidfd));
        child.wait().unwrap();
        assert!(is_ending(&pidfd));
    }

    #[test]
    fn a_wait_status_is_understood() {
        assert_eq!(decode(0x300), ExitStatus::Code(3));
        assert_eq!(decode(9), ExitStatus::Signal { signal: Signal(9), core: false });
        assert_eq!(decode(0x86), ExitStatus::Signal { signal: Signal(6), core: true });
        assert_eq!(size_of::<Info>(), 64);
    }
}
