//! Taking the statuses of children that have ended.

use crate::core::event::ExitStatus;
use crate::core::spec::Signal;
use std::io;

/// A child that has ended and is gone now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its process id, which may be given to another process from now on.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
}

/// Reaps one child that has ended, whichever; None when there is none at the moment.
///
/// This takes the status from everybody else in this process that waits for a child.
pub fn reap() -> Option<Reaped> {
    loop {
        // SAFETY: all-zero is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is what the call writes to.
        let result =
            unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG) };
        if result != 0 {
            if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // ECHILD: there are no children at all.
            return None;
        }
        // SAFETY: waitid fills these fields in, or leaves them zero when nothing has ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        return Some(Reaped { pid, status: decode(info.si_code, status) });
    }
}

/// The meaning of `si_code` and `si_status` (waitid(2)).
fn decode(code: i32, status: i32) -> ExitStatus {
    let signal = || u8::try_from(status).map(Signal);
    match (code, signal()) {
        (libc::CLD_EXITED, _) => ExitStatus::Code((status & 0xff) as u8),
        (libc::CLD_KILLED, Ok(signal)) => ExitStatus::Signal { signal, core: false },
        (libc::CLD_DUMPED, Ok(signal)) => ExitStatus::Signal { signal, core: true },
        _ => ExitStatus::Unknown,
    }
}
