//! Another program in this very process, and what it finds there.

use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Executes a program in the place of this one (execve(2)). The process keeps its number, its
/// children, the signals that are blocked in this thread and the descriptors that are not closed on
/// exec. Returns only when it could not; nothing has changed then.
#[must_use]
pub fn execute(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let vector = |words: &[CString]| -> Vec<*const c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (vector(argv), vector(env));
    // SAFETY: both vectors end with a null, and what is in them outlives the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes a variable out of the environment. To be called before there is another thread.
#[must_use]
pub fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: nobody else can be reading the environment: there is no other thread yet.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Takes a descriptor by its number, closed on exec from now on. None where there is none, and for one
/// that is closed on exec already: that was not left open for this program.
///
/// To be called once for a number, and only for what this program has not opened itself; the caller
/// knows by who has handed it over.
#[must_use]
pub fn take_descriptor(number: RawFd) -> Option<OwnedFd> {
    const STANDARD: RawFd = 2;
    if number <= STANDARD {
        return None;
    }
    // SAFETY: no memory is passed; a number that nobody has open is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: it is open, and all that this program opens is closed on exec: it is nobody's yet.
    let taken = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&taken, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn only_what_was_left_open_is_taken() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(take_descriptor(file.as_raw_fd()).is_none());
        assert!(take_descriptor(1).is_none() && take_descriptor(-1).is_none());
        let left = file.into_raw_fd();
        // SAFETY: it is this test's.
        assert_eq!(unsafe { libc::fcntl(left, libc::F_SETFD, 0) }, 0);
        let taken = take_descriptor(left).unwrap();
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        drop(taken);
        assert!(take_descriptor(left).is_none());
    }

    #[test]
    fn what_cannot_be_executed_is_told_and_nothing_has_changed() {
        let error = execute(&c"/no/such/program".to_owned(), &[c"x".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
