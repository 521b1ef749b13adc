//! Whose run a process is that has sent something.
//!
//! Its main process, by its number, as long as that is alive. Else whoever is in its control group;
//! where there are none, whoever descends from the main process. What marks say (see
//! [`super::census`]) is enough to end a process, and not to believe one: anybody can give himself
//! the mark of another.

use super::cgroup::directory_of;
use super::run::Handle;
use super::{Inner, lock};
use crate::core::ids::{InstanceId, Run};
use crate::core::spec::ProcessSpec;
use crate::sys::stat::Stat;
use std::path::Path;
use std::sync::Arc;

/// Nobody's ancestors are more.
const DEEPEST: usize = 64;

impl Inner {
    /// From now on this is the main process of a run, if the run speaks for itself.
    pub(super) fn hear(&self, main: u32, handle: &Arc<Handle>, spec: &ProcessSpec) {
        if spec.notify().is_some() {
            lock(&self.speakers).insert(main, handle.clone());
        }
    }

    /// The main process of a run has ended. Its number may be another's by now.
    pub(super) fn unhear(&self, main: u32, handle: &Arc<Handle>) {
        let mut speakers = lock(&self.speakers);
        if speakers.get(&main).is_some_and(|of| Arc::ptr_eq(of, handle)) {
            speakers.remove(&main);
        }
    }

    /// The run of that process, among those whose main processes are known here.
    pub(super) fn run_of(&self, pid: u32) -> Option<(InstanceId, Run)> {
        let handle = self.by_main(pid).or_else(|| match self.cgroups {
            Some(_) => self.by_group(pid),
            None => self.by_descent(pid),
        })?;
        Some(handle.key())
    }

    fn by_main(&self, pid: u32) -> Option<Arc<Handle>> {
        let handle = lock(&self.speakers).get(&pid)?.clone();
        // The number may be another's by now.
        handle.main_is_alive().then_some(handle)
    }

    fn by_descent(&self, pid: u32) -> Option<Arc<Handle>> {
        let own = std::process::id();
        let mut next = pid;
        for _ in 0..DEEPEST {
            next = Stat::of(next)?.parent;
            if next <= 1 || next == own {
                return None;
            }
            if let Some(handle) = self.by_main(next) {
                return Some(handle);
            }
        }
        None
    }

    fn by_group(&self, pid: u32) -> Option<Arc<Handle>> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let directory = directory_of(group)?;
        // It may be in a group of its own below that of its run, which is named after the instance.
        directory.ancestors().find_map(|place| {
            let (label, _) = place.file_name()?.to_str()?.rsplit_once('-')?;
            let instance = InstanceId::parse(label).ok()?;
            self.in_group(&instance, place)
        })
    }

    /// The run of an instance whose group is there.
    fn in_group(&self, instance: &InstanceId, directory: &Path) -> Option<Arc<Handle>> {
        let all = (instance.clone(), Run(0))..=(instance.clone(), Run(u64::MAX));
        let runs: Vec<_> = lock(&self.runs).range(all).map(|(_, run)| run.clone()).collect();
        runs.into_iter().find(|handle| handle.tree().is_some_and(|tree| tree.is_at(directory)))
    }
}
