//! The controllers of control groups (cgroups(7), version 2): which limits there can be.

use crate::core::limits::Limit;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The limits whose controllers are named in a file, which is `cgroup.controllers` or
/// `cgroup.subtree_control` of a group. None of them where there is no such file.
#[must_use]
pub fn limits_in(file: &Path) -> BTreeSet<Limit> {
    let controllers = std::fs::read_to_string(file).unwrap_or_default();
    let has = |limit: &Limit| controllers.split_whitespace().any(|one| one == limit.controller());
    Limit::ALL.into_iter().filter(has).collect()
}

/// The limits that this machine can enforce, whoever may use them.
#[must_use]
pub fn of_the_machine() -> BTreeSet<Limit> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount(&mounts).map(|mount| limits_in(&mount.join("cgroup.controllers"))).unwrap_or_default()
}

/// Where the hierarchy of version 2 is mounted (proc_pid_mountinfo(5)).
fn mount(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_what_can_be_limited() {
        let group = tempfile::tempdir().unwrap();
        let file = group.path().join("cgroup.controllers");
        assert!(limits_in(&file).is_empty());
        std::fs::write(&file, "cpuset memory pids\n").unwrap();
        let all = BTreeSet::from(Limit::ALL);
        assert_eq!(limits_in(&file), &all - &BTreeSet::from([Limit::Cpu]));
    }

    #[test]
    fn the_hierarchy_is_found_beside_those_of_version_1() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount(""), None);
    }
}
