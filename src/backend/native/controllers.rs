//! The controllers of control groups (cgroups(7), version 2) for the groups of runs.
//!
//! A group can hand a controller on to those below it only when there is no process in itself. (Some
//! controllers it would hand on all the same, and nothing could be put into a group below it then.)
//! So the daemon must not be in the one that is ours: systemd puts it into one below where the unit
//! says so (`DelegateSubgroup=supervisor`, from 254 on), and elsewhere it goes there by itself. But
//! not in a service without that: systemd starts a service in the group of its unit, which would
//! refuse it as long as children of an earlier one are there.

use crate::core::limits::Limit;
use crate::sys::controllers::limits_in;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The group of a daemon below the one that is ours.
const SUPERVISOR: &str = "supervisor";

/// The group that would be ours where this one, which we are in, is one for us alone.
#[must_use]
pub fn above(own: &Path) -> Option<PathBuf> {
    let name = own.file_name()?.to_str()?;
    let is_for_us = name == SUPERVISOR || name.ends_with(&format!(".{SUPERVISOR}"));
    is_for_us.then(|| own.parent().map(Path::to_owned))?
}

/// Has the groups below `runs` get the controllers that limits need, as far as `base`, which is ours,
/// has them. Returns the limits that can be enforced then. `daemon` tells two of us apart.
pub fn hand_on(base: &Path, runs: &Path, daemon: &str) -> BTreeSet<Limit> {
    let there = limits_in(&base.join("cgroup.controllers"));
    if there.is_empty() || !is_free(base, daemon) {
        return BTreeSet::new();
    }
    let controllers: BTreeSet<&str> = there.iter().map(|limit| limit.controller()).collect();
    for controller in controllers {
        if let Err(error) = enable(base, controller).and_then(|()| enable(runs, controller)) {
            tracing::debug!("the controller {controller} cannot be handed on: {error}");
        }
    }
    limits_in(&runs.join("cgroup.subtree_control"))
}

/// Whether there is no process in a group, now that we have left it where we may.
fn is_free(base: &Path, daemon: &str) -> bool {
    let is_empty = || {
        let members = fs::read_to_string(base.join("cgroup.procs"));
        members.is_ok_and(|members| members.trim().is_empty())
    };
    if !is_empty()
        && may_leave(base)
        && let Err(error) = leave(base, daemon)
    {
        tracing::debug!("the control group {} cannot be left: {error}", base.display());
    }
    is_empty()
}

fn enable(group: &Path, controller: &str) -> io::Result<()> {
    fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
}

/// Whether nobody starts the next daemon in this very group.
fn may_leave(base: &Path) -> bool {
    base.extension().is_none_or(|extension| extension != "service")
}

/// Goes into a group below.
fn leave(base: &Path, daemon: &str) -> io::Result<()> {
    let group = base.join(format!("{daemon}.{SUPERVISOR}"));
    match fs::create_dir(&group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(group.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_for_the_daemon_alone_is_known_by_its_name() {
        let above = |path: &str| above(Path::new(path)).map(|path| path.display().to_string());
        assert_eq!(above("/a/x.service/supervisor").as_deref(), Some("/a/x.service"));
        assert_eq!(above("/a/provost.supervisor").as_deref(), Some("/a"));
        assert_eq!((above("/a/x.service"), above("/")), (None, None));
        assert!(may_leave(Path::new("/a/x.scope")) && may_leave(Path::new("/")));
        assert!(!may_leave(Path::new("/a/x.service")));
    }

    #[test]
    fn what_is_no_control_group_hands_nothing_on() {
        let base = tempfile::tempdir().unwrap();
        assert!(hand_on(base.path(), &base.path().join("runs"), "test").is_empty());
    }
}
