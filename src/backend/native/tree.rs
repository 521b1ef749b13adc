//! All that a run has started: finding it, signalling it, killing it until nothing is left.

use super::census::{self, Census, Found, Process, TreeId};
use super::cgroup::Cgroup;
use crate::backend::Usage;
use crate::core::limits::Limits;
use crate::core::spec::Signal;
use crate::sys::signal::{gone, send};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The tree of one run.
pub enum Tree {
    /// The kernel knows what belongs to it.
    Cgroup(Box<Cgroup>),
    /// The census finds what belongs to it.
    Marked(TreeId, Arc<Census>),
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Tree::Marked(id, census) = self {
            census.forget(*id);
        }
    }
}

impl Tree {
    /// The name of its control group, where that tells what belongs to it.
    #[must_use]
    pub fn group_name(&self) -> Option<&str> {
        match self {
            Tree::Cgroup(group) => group.name(),
            Tree::Marked(..) => None,
        }
    }

    /// Whether it is all that is in the control group in this directory.
    #[must_use]
    pub fn is_at(&self, directory: &Path) -> bool {
        matches!(self, Tree::Cgroup(group) if group.path() == directory)
    }

    /// Its mark, where that tells what belongs to it.
    #[must_use]
    pub fn mark(&self) -> Option<u64> {
        match self {
            Tree::Cgroup(_) => None,
            Tree::Marked(id, _) => Some(id.0),
        }
    }

    /// What it can be called where nobody knows its instance.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Tree::Cgroup(group) => format!("what is in the control group {}", group.below_mount()),
            Tree::Marked(id, _) => format!("a run with the mark {:x}", id.0),
        }
    }

    /// Tells the tree its main process, before that can have been reaped.
    pub fn set_main(&self, pid: u32, start: u64) {
        if let Tree::Marked(id, census) = self {
            census.claim(*id, pid, start);
        }
    }

    /// Returns when nothing is left. One waiter at a time.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn emptied(&self) -> io::Result<()> {
        let (id, census) = match self {
            Tree::Cgroup(group) => {
                group.emptied().await;
                return Ok(());
            }
            Tree::Marked(id, census) => (id, census),
        };
        let mut doubts = Doubts::default();
        loop {
            let found = census.find(*id).await?;
            if doubts.are_settled(&found) {
                return Ok(());
            }
            // Nothing is left only when each of these is gone, so there is no reason to look again
            // before.
            all_gone(open_some(&found.members)?).await?;
        }
    }

    /// Sends a signal to all there is.
    ///
    /// # Errors
    /// When it cannot be found out what there is, or a signal is refused.
    pub async fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            // All get it, whatever one of them says.
            Tree::Cgroup(group) => {
                group.members().iter().map(|pidfd| send(pidfd, signal)).fold(Ok(()), Result::and)
            }
            Tree::Marked(id, census) => send_all(&census.find(*id).await?.members, signal),
        }
    }

    /// Kills until nothing is left.
    ///
    /// # Errors
    /// When it cannot be found out what there is, or a signal is refused.
    pub async fn kill(&self) -> io::Result<()> {
        match self {
            Tree::Cgroup(group) => group.kill(),
            Tree::Marked(id, census) => kill_marked(*id, census).await,
        }
    }

    /// Holds it to these limits, where there is a control group.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        match self {
            Tree::Cgroup(group) => group.limit(limits),
            Tree::Marked(..) => Ok(()),
        }
    }

    /// The directory of its control group, where it has one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Tree::Cgroup(group) => Some(group.path()),
            Tree::Marked(..) => None,
        }
    }

    /// Returns how much memory is used, when that is above the limit for a new run; never where nobody
    /// tells. One waiter at a time.
    pub async fn outgrown(&self) -> u64 {
        match self {
            Tree::Cgroup(group) => group.outgrown().await,
            Tree::Marked(..) => std::future::pending().await,
        }
    }

    /// Has it not slowed down any more for the memory that it uses.
    pub fn relieve(&self) {
        if let Tree::Cgroup(group) = self {
            group.relieve();
        }
    }

    /// Whether the kernel has killed something of it for want of memory, as far as that is told.
    #[must_use]
    pub fn was_out_of_memory(&self) -> bool {
        match self {
            Tree::Cgroup(group) => group.was_out_of_memory(),
            Tree::Marked(..) => false,
        }
    }

    /// What it uses at the moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let group = match self {
            Tree::Marked(id, census) => {
                return sum(&census.find_recent(*id).unwrap_or_default().members);
            }
            Tree::Cgroup(group) => group,
        };
        Usage {
            memory: group.number("memory.current", None),
            cpu: group.number("cpu.stat", Some("usage_usec ")).map(|micros| micros * 1000),
            tasks: group.number("pids.current", None),
        }
        .or_else(|| sum(&group.pids().into_iter().filter_map(census::read).collect::<Vec<_>>()))
    }
}

/// How often in a row nothing was found without certainty.
#[derive(Default)]
struct Doubts(u32);

impl Doubts {
    /// Whether nothing is left. Where other runs make orphans all the time it may never be certain:
    /// after many rounds it is believed, because what is still there must have changed its process
    /// in each of them.
    fn are_settled(&mut self, found: &Found) -> bool {
        const MANY: u32 = 100;
        // Of those nothing is ours to reap, so it is never certain.
        const ADOPTED: u32 = 3;
        self.0 = if found.members.is_empty() { self.0 + 1 } else { 0 };
        found.is_nothing() || self.0 > if found.adopted { ADOPTED } else { MANY }
    }
}

impl Usage {
    /// Fills the gaps.
    fn or_else(self, other: impl FnOnce() -> Usage) -> Usage {
        if self.memory.is_some() && self.cpu.is_some() && self.tasks.is_some() {
            return self;
        }
        let other = other();
        Usage {
            memory: self.memory.or(other.memory),
            cpu: self.cpu.or(other.cpu),
            tasks: self.tasks.or(other.tasks),
        }
    }
}

fn sum(processes: &[Process]) -> Usage {
    let page = rustix::param::page_size() as u64;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let total = |of: fn(&Process) -> u64| processes.iter().map(of).sum::<u64>();
    Usage {
        memory: Some(total(|p| p.pages) * page),
        cpu: Some(total(|p| p.ticks) * (1_000_000_000 / ticks_per_second.max(1))),
        tasks: Some(total(|p| p.threads)),
    }
}

async fn kill_marked(id: TreeId, census: &Census) -> io::Result<()> {
    /// Something in an uninterruptible wait does not end, and others may fork meanwhile.
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    let mut doubts = Doubts::default();
    for round in 0_u32.. {
        if round >= 2 {
            // Something changes its process faster than a census finds it.
            tokio::task::spawn_blocking(move || census::hunt(id))
                .await
                .map_err(io::Error::other)??;
        }
        let found = census.find(id).await?;
        if doubts.are_settled(&found) {
            break;
        }
        send_all(&found.members, Signal::KILL)?;
        // Not an error: it means to look again.
        let _ = tokio::time::timeout(LOOK_AGAIN, all_gone(open_some(&found.members)?)).await;
    }
    Ok(())
}

/// Descriptors for those that are still there; not for all where they are very many.
fn open_some(processes: &[Process]) -> io::Result<Vec<OwnedFd>> {
    const SOME: usize = 64;
    let opened = processes.iter().filter_map(|process| census::open(process).transpose());
    opened.take(SOME).collect()
}

/// Sends to one after the other, and to all, whatever one of them says.
fn send_all(processes: &[Process], signal: Signal) -> io::Result<()> {
    let send_to = |process| match census::open(process)? {
        Some(pidfd) => send(&pidfd, signal),
        None => Ok(()),
    };
    processes.iter().map(send_to).fold(Ok(()), Result::and)
}

async fn all_gone(pidfds: Vec<OwnedFd>) -> io::Result<()> {
    for pidfd in pidfds {
        gone(pidfd).await?;
    }
    Ok(())
}
