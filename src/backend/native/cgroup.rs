//! Control groups (version 2), where a part of the hierarchy is ours: each run gets one, and then
//! the kernel knows what belongs to it.
//!
//! Ours is what was delegated: a directory is only used when whoever manages the hierarchy says so
//! (systemd's `delegate` attribute), when it belongs to us as an ordinary user, or when it is the
//! root of a container whose first process we are. The root of the machine is never used unasked.
//! (systemd's CGROUP_DELEGATION document, and cgroups(7), have the rules.)

use super::controllers;
use crate::backend::group::{GroupEvents, Watched, subdirectories};
use crate::backend::held;
use crate::core::limits::{Limit, Limits};
use rustix::fs::{Access, access, getxattr};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variable that names a directory that is ours, for those who delegate by hand.
pub const VARIABLE: &str = "PROVOST_CGROUP";

/// The part of the hierarchy that is ours.
pub struct Cgroups {
    /// Where the groups of the runs are made.
    runs: PathBuf,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    events: GroupEvents,
    /// The limits that groups of runs can be held to.
    enforceable: BTreeSet<Limit>,
}

/// The group of one run.
pub struct Cgroup {
    watched: Watched,
    below_mount: String,
    directory: OwnedFd,
}

impl Cgroups {
    /// Finds the part that is ours and makes a directory for the runs of the daemon `name` in it;
    /// None when nothing is ours.
    ///
    /// # Errors
    /// When a directory was given and cannot be used.
    pub fn find(given: Option<&str>, name: &str) -> io::Result<Option<Cgroups>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = cgroup_mounts(&mounts);
        if let Some(given) = given {
            let explain = |error: io::Error| {
                io::Error::new(error.kind(), format!("{VARIABLE}={given}: {error}"))
            };
            let base = fs::canonicalize(given).map_err(explain)?;
            let mount = mounts.iter().find(|mount| base.starts_with(&mount.point));
            let mount = mount.ok_or_else(|| {
                explain(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is in no cgroup2 file system",
                ))
            })?;
            let found = Cgroups::in_directory(&base, &mount.point, name).map_err(explain)?;
            return Ok(Some(found.with_controllers(&base, name)));
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some((own, mount)) = own_directory(&own, &mounts) else { return Ok(None) };
        let above = controllers::above(&own).filter(|above| is_delegated(above));
        let base = above.unwrap_or(own);
        if !is_delegated(&base) {
            return Ok(None);
        }
        // What looks like ours may still refuse, for instance a read-only mount in a container.
        let found = Cgroups::in_directory(&base, &mount, name).ok();
        Ok(found.map(|found| found.with_controllers(&base, name)))
    }

    /// The part that a daemon `name` had in this place; None when there is none.
    #[must_use]
    pub fn find_left(given: Option<&str>, name: &str) -> Option<Cgroups> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = cgroup_mounts(&mounts);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let (own, mount) = own_directory(&own, &mounts)?;
        let has_runs = |base: &Path| base.join(format!("{name}.runs")).is_dir();
        let own = controllers::above(&own).filter(|above| has_runs(above)).unwrap_or(own);
        let base = given.map_or(own, PathBuf::from);
        if has_runs(&base) { Cgroups::in_directory(&base, &mount, name).ok() } else { None }
    }

    fn in_directory(base: &Path, mount: &Path, name: &str) -> io::Result<Cgroups> {
        let runs = base.join(format!("{name}.runs"));
        match fs::create_dir(&runs) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sweep(&runs),
            Err(error) => return Err(error),
        }
        access(runs.join("cgroup.kill"), Access::WRITE_OK)?;
        let (mount, events) = (mount.to_owned(), GroupEvents::new()?);
        Ok(Cgroups { runs, mount, events, enforceable: BTreeSet::new() })
    }

    fn with_controllers(self, base: &Path, name: &str) -> Cgroups {
        let enforceable = controllers::hand_on(base, &self.runs, name);
        Cgroups { enforceable, ..self }
    }

    /// The limits that groups of runs can be held to.
    #[must_use]
    pub fn enforceable(&self) -> &BTreeSet<Limit> {
        &self.enforceable
    }

    /// The groups that there are, empty ones too.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = subdirectories(&self.runs).into_iter();
        names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Opens a group that another daemon made; None when there is none, or nothing in it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(&self, name: &str) -> io::Result<Option<Cgroup>> {
        let path = self.runs.join(name);
        // Neither a path nor `..`.
        if path.file_name() != Some(name.as_ref()) || !path.is_dir() {
            return Ok(None);
        }
        let group = self.hold(path)?;
        Ok(group.is_populated().then_some(group))
    }

    /// Makes an empty group.
    ///
    /// # Errors
    /// What the kernel says, such as that the limit of groups is reached.
    pub fn create(&self, name: &str) -> io::Result<Cgroup> {
        let path = self.runs.join(name);
        fs::create_dir(&path)?;
        self.hold(path.clone()).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })
    }

    fn hold(&self, path: PathBuf) -> io::Result<Cgroup> {
        let directory = fs::File::open(&path)?.into();
        let below = path.strip_prefix(&self.mount).unwrap_or(&path);
        let below_mount = format!("/{}", below.display());
        Ok(Cgroup { directory, below_mount, watched: self.events.watch(path)? })
    }
}

impl Cgroup {
    /// For starting a process in it.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its name among the groups of runs.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.watched.path().file_name()?.to_str()
    }

    /// Its path below the mount of the hierarchy, beginning with a slash.
    #[must_use]
    pub fn below_mount(&self) -> &str {
        &self.below_mount
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.watched.path()
    }

    /// Holds what is in it to these limits, as far as it has the controllers, and to no others.
    ///
    /// # Errors
    /// What the kernel says to the first of them that it refuses.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        self.watched.alert_above(limits.max_memory_restart);
        let mut result = Ok(());
        for limit in Limit::ALL {
            let file = self.watched.path().join(held::file(limit));
            // Without its controller there is no such file.
            if file.exists() {
                result = result.and(fs::write(file, held::content(limits, limit)));
            }
        }
        result
    }

    /// Returns how much memory is used, when that is above the limit for a new run.
    pub async fn outgrown(&self) -> u64 {
        self.watched.outgrown().await
    }

    /// Has it not slowed down any more for the memory that it uses: it is to end.
    pub fn relieve(&self) {
        // Where that cannot be, it ends slowly.
        let _ = fs::write(self.watched.path().join("memory.high"), "max");
    }

    /// Whether the kernel has killed something in it for want of memory.
    #[must_use]
    pub fn was_out_of_memory(&self) -> bool {
        self.watched.was_out_of_memory()
    }

    /// Moves a process here, for kernels and containers that cannot start it here.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_in(&self, pid: u32) -> io::Result<()> {
        fs::write(self.watched.path().join("cgroup.procs"), pid.to_string())
    }

    /// Returns when there is no process in it nor below it. One waiter at a time.
    pub async fn emptied(&self) {
        self.watched.emptied().await;
    }

    fn is_populated(&self) -> bool {
        self.watched.is_populated()
    }

    /// Kills all that is in it and below it, and whatever that forks meanwhile.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.watched.path().join("cgroup.kill"), "1")
    }

    /// The processes in it and below it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.watched.pids()
    }

    /// Descriptors for the processes in it and below it.
    #[must_use]
    pub fn members(&self) -> Vec<OwnedFd> {
        let opened = self
            .pids()
            .into_iter()
            .filter_map(|pid| Some((pid, crate::sys::signal::open(pid).ok()??)));
        let opened: Vec<_> = opened.collect();
        // Whoever still has the number and is here now, and is alive, is whom we opened.
        let still = self.pids();
        opened.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, pidfd)| pidfd).collect()
    }

    /// A number of the file `name`, or of the line `key` in it; None where there is no such
    /// controller.
    #[must_use]
    pub fn number(&self, name: &str, key: Option<&str>) -> Option<u64> {
        self.watched.number(name, key)
    }
}

impl Drop for Cgroup {
    /// Removes the group with the groups that its processes made. What is not empty stays.
    fn drop(&mut self) {
        remove(self.watched.path());
    }
}

/// Removes what an earlier daemon of the same name left and what is empty.
fn sweep(runs: &Path) {
    subdirectories(runs).iter().for_each(|group| remove(group));
}

fn remove(group: &Path) {
    if fs::remove_dir(group).is_err() {
        subdirectories(group).iter().for_each(|below| remove(below));
        // A group that is not empty cannot be removed, and must not be.
        let _ = fs::remove_dir(group);
    }
}

/// Where a hierarchy of version 2 is mounted, and which part of it.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: PathBuf,
    point: PathBuf,
}

/// The directory of a group that somebody else names by its path in the hierarchy; None where no
/// hierarchy of version 2 with it is mounted.
#[must_use]
pub fn directory_of(group: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    cgroup_mounts(&mounts).iter().find_map(|mount| {
        let below = Path::new(group).strip_prefix(&mount.root).ok()?;
        Some(mount.point.join(below))
    })
}

/// The mounts of version 2 in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn cgroup_mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = after.split(' ').next()?;
        (kind == "cgroup2").then(|| Mount { root: unescape(root), point: unescape(point) })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Spaces and the like are octal there.
fn unescape(path: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to)))
}

/// The directory of our own group and the mount it is in, by the line `0::` of `/proc/self/cgroup`
/// (cgroups(7)).
fn own_directory(own: &str, mounts: &[Mount]) -> Option<(PathBuf, PathBuf)> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.iter().find_map(|mount| {
        let below = path.strip_prefix(&mount.root).ok()?;
        Some((mount.point.join(below), mount.point.clone()))
    })
}

fn is_delegated(directory: &Path) -> bool {
    // The root of the machine has no such file; the root of a container's namespace has.
    if !directory.join("cgroup.events").exists() || access(directory, Access::WRITE_OK).is_err() {
        return false;
    }
    let by_attribute = ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        getxattr(directory, *name, &mut value).is_ok_and(|len| &value[..len] == b"1")
    });
    let user = rustix::process::geteuid();
    let owned = fs::metadata(directory).is_ok_and(|of| of.uid() == user.as_raw());
    let container = std::process::id() == 1;
    by_attribute || (!user.is_root() && owned) || container
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_found_in_a_hybrid_hierarchy() {
        let mounts = cgroup_mounts(
            "30 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             31 30 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
             32 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        );
        let own = "4:memory:/a\n0::/system.slice/provostd.service\n";
        let (directory, mount) = own_directory(own, &mounts).unwrap();
        assert_eq!(directory, Path::new("/sys/fs/cgroup/unified/system.slice/provostd.service"));
        assert_eq!(mount, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_mount_of_a_part_is_taken_into_account() {
        let mounts = cgroup_mounts("9 8 0:2 /docker/ab /sys/fs/cg\\040roup rw - cgroup2 c rw\n");
        let (directory, _) = own_directory("0::/docker/ab/x\n", &mounts).unwrap();
        assert_eq!(directory, Path::new("/sys/fs/cg roup/x"));
        assert_eq!(own_directory("0::/elsewhere\n", &mounts), None);
    }

    #[test]
    fn the_root_of_the_machine_is_not_ours() {
        for mount in cgroup_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap()) {
            if mount.root == Path::new("/") && !mount.point.join("cgroup.events").exists() {
                assert!(!is_delegated(&mount.point));
            }
        }
    }
}
