//! The limits of other processes.

use std::io;

/// The hard limit of resident memory of a process (prlimit(2), `RLIMIT_RSS`), in bytes; None: it has none.
/// The kernel does nothing by it. A dead process has it until it is reaped.
///
/// # Errors
/// `ESRCH` where there is no such process; `EPERM` for that of another user, unless we may do everything.
pub fn hard_limit_of_resident_memory(pid: u32) -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: nothing is set, and what is asked for is written to the structure of just this type.
    let asked = unsafe { libc::prlimit64(pid, libc::RLIMIT_RSS, std::ptr::null(), &raw mut limit) };
    match asked {
        0 => Ok(Some(limit.rlim_max).filter(|limit| *limit != libc::RLIM64_INFINITY)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::hard_limit_of_resident_memory as limit;
    use std::process::{Command, Stdio};

    #[test]
    fn it_is_that_of_the_process_until_that_is_reaped() {
        let mut child = Command::new("sh");
        child.args(["-c", "ulimit -Sm 1000; ulimit -Hm 3000; read line"]);
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        while limit(pid).unwrap() != Some(3000 * 1024) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        while !crate::sys::stat::Stat::of(pid).unwrap().has_ended() {
            std::thread::yield_now();
        }
        assert_eq!(limit(pid).unwrap(), Some(3000 * 1024));
        child.wait().unwrap();
        assert_eq!(limit(pid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(limit(u32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
