//! Doing something on the file system as another user.

use std::ffi::CString;
use std::io;
use std::sync::{Arc, OnceLock};

/// A user, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Groups,
}

/// The supplementary groups of a user. Who is in which is asked of the user database when they are
/// needed first: it may be on a server, and where systemd answers too it is its first process.
#[derive(Clone, Debug)]
pub struct Groups(Arc<Asked>);

#[derive(Debug)]
struct Asked {
    name: CString,
    gid: u32,
    groups: OnceLock<Vec<u32>>,
}

impl Groups {
    /// Those of the user with this name, and the group `gid`.
    #[must_use]
    pub fn of(name: CString, gid: u32) -> Groups {
        Groups(Arc::new(Asked { name, gid, groups: OnceLock::new() }))
    }

    /// Supplementary group ids. Blocks the first time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn ids(&self) -> io::Result<&[u32]> {
        let Asked { name, gid, groups } = &*self.0;
        if let Some(known) = groups.get() {
            return Ok(known);
        }
        let found = nix::unistd::getgrouplist(name, nix::unistd::Gid::from_raw(*gid))?;
        // Whoever was quicker has asked the same.
        Ok(groups.get_or_init(|| found.into_iter().map(nix::unistd::Gid::as_raw).collect()))
    }
}

impl From<Vec<u32>> for Groups {
    /// Groups that are known.
    fn from(groups: Vec<u32>) -> Groups {
        let groups = OnceLock::from(groups);
        Groups(Arc::new(Asked { name: CString::default(), gid: 0, groups }))
    }
}

impl PartialEq for Groups {
    fn eq(&self, other: &Groups) -> bool {
        self.ids().ok() == other.ids().ok()
    }
}

impl Eq for Groups {}

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
    let groups = user.groups.ids()?;
    // SAFETY: the vector is as long as the call is told.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
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
        let nobody = Credentials { uid: 65534, gid: 65534, groups: vec![].into() };
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
