//! Waiting for what must happen: each time for an event, with one deadline for all.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long anything may take that must happen: long enough for a busy machine, and only ever
/// reached by a test that fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something holds that nobody tells of.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Waits until a descriptor is readable, or so long: a pidfd is once its process has ended.
pub fn readable_within(fd: &impl AsFd, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap(),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut polled = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut polled, Some(&limit)) {
            // Where a backend is tested in this process, its children end and tell by a signal.
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.unwrap() > 0,
        }
    }
}

/// Waits until a descriptor is readable.
#[track_caller]
pub fn wait_readable(fd: &impl AsFd, what: &str) {
    assert!(readable_within(fd, DEADLINE), "never: {what}");
}

/// Waits for the end of a child, or so long.
pub fn ends_within(child: &Child, time: Duration) -> bool {
    readable_within(&super::processes::pidfd(child.id()), time)
}

/// Waits for the end of a child.
#[track_caller]
pub fn ended(child: &mut Child, what: &str) -> ExitStatus {
    assert!(ends_within(child, DEADLINE), "never: {what}");
    child.wait().unwrap()
}
