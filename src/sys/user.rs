//! Doing something on the file system as another user.

use std::io;

/// A user, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Runs `work` with the rights of a user on files, on a thread of its own, and waits for it.
///
/// Where this process is not root it has one user only, and `work` runs as that.
///
/// # Errors
/// When the thread cannot be made or cannot take on the user; else what `work` returns.
pub fn as_user<T: Send>(
    user: &Credentials,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    if !rustix::process::geteuid().is_root() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("as-user".into()).spawn_scoped(scope, || {
                become_user(user)?;
                work()
            })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Changes the file system identity of this thread, for the rest of its life. By the system calls
/// themselves: the library would change all threads.
fn become_user(user: &Credentials) -> io::Result<()> {
    // SAFETY: the vector is as long as the call is told.
    let result =
        unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // Neither call reports failure; asking for an impossible id returns the present one. Leaving
    // uid 0 also takes the capabilities that override permissions.
    const NOBODY_AT_ALL: u32 = u32::MAX;
    // SAFETY: no memory is passed.
    let (uid, gid) = unsafe {
        libc::syscall(libc::SYS_setfsgid, user.gid);
        libc::syscall(libc::SYS_setfsuid, user.uid);
        (
            libc::syscall(libc::SYS_setfsuid, NOBODY_AT_ALL),
            libc::syscall(libc::SYS_setfsgid, NOBODY_AT_ALL),
        )
    };
    if uid == i64::from(user.uid) && gid == i64::from(user.gid) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_made_as_the_user_and_the_caller_stays_who_it_was() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: only root can be another user");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let nobody = Credentials { uid: 65534, gid: 65534, groups: vec![] };
        let path = directory.path().join("file");
        let refused = as_user(&nobody, || std::fs::write(&path, "x"));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);

        std::os::unix::fs::chown(directory.path(), Some(65534), None).unwrap();
        as_user(&nobody, || std::fs::write(&path, "x")).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
        let mine = directory.path().join("mine");
        std::fs::write(&mine, "x").unwrap();
        assert_eq!(std::fs::metadata(&mine).unwrap().uid(), 0);
    }
}
